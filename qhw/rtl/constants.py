"""Products with weights that are known when a circuit is built: shifts cost nothing, additions are left."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from qhw.formats import Integer, KHot
from qhw.rtl.khots import check_shifts
from qhw.rtl.macs import running_sum
from qhw.rtl.unit import (
    ENABLE,
    FIRST,
    Parameter,
    Port,
    Ports,
    Streams,
    Unit,
    Values,
    at_least,
    levels,
    mantissas,
)


@dataclass(frozen=True)
class Number:
    """An integer in a register: left ± right * 2^distance, numbers of the level before, or left alone.

    Args:
        low, high: its smallest and largest value.
        right: None where left waits for the next level.
    """

    low: int
    high: int
    left: int
    right: int | None = None
    distance: int = 0
    subtracts: bool = False

    @property
    def signed(self) -> bool:
        """Whether the number can be negative."""
        return self.low < 0

    @property
    def bits(self) -> int:
        """Width of the register: two's complement if the number can be negative."""
        return (
            max((~self.low).bit_length(), self.high.bit_length()) + 1
            if self.signed
            else self.high.bit_length()
        )


@dataclass(frozen=True)
class Term:
    """(negative ? -1 : 1) * 2^shift times a number of a level, by its place."""

    shift: int
    number: int
    negative: bool


@dataclass(frozen=True)
class ShiftAddTree:
    """A dot product with constants as a tree of additions.

    Args:
        levels: the levels of registers; the first one holds the lanes.
        total: the sum, in terms of the last level's number.
    """

    levels: tuple[tuple[Number, ...], ...]
    total: Term


def weights(values: Values) -> tuple[int, ...]:
    """The constants: numbers of the format but 0, which would be no lane, drawn by SEED."""
    numbers = KHot(values["WB"], values["K"]).numbers
    drawn = np.random.default_rng(values["SEED"]).choice(numbers[numbers != 0], values["L"])
    return tuple(int(weight) for weight in drawn)


def shift_add_tree(values: Values) -> ShiftAddTree:
    """The tree of additions for the dot product with these parameters."""
    kind = Integer(values["WA"], bool(values["SA"]))
    return _planned(weights(values), kind.mantissa_low, kind.mantissa_high)


@cache
def _planned(given: tuple[int, ...], low: int, high: int) -> ShiftAddTree:
    rows = [tuple(Number(low, high, lane) for lane in range(len(given)))]
    terms = [
        Term(place, lane, weight < 0)
        for lane, weight in enumerate(given)
        for place in range(weight.bit_length())
        if abs(weight) >> place & 1
    ]
    while len(terms) > 1:
        made: dict[Number, int] = {}
        terms = [
            Term(shift, made.setdefault(number, len(made)), negative)
            for shift, number, negative in _paired(terms, rows[-1])
        ]
        rows.append(tuple(made))
    return ShiftAddTree(tuple(rows), terms[0])


def _paired(terms: list[Term], row: Sequence[Number]) -> Iterator[tuple[int, Number, bool]]:
    """Neighbours by shift: the fewest bits of one lie beside the other; what is made twice is made once."""
    ordered = sorted(terms, key=lambda term: (term.shift, term.number, term.negative))
    for left, right in zip(ordered[::2], ordered[1::2], strict=False):
        distance, subtracts = right.shift - left.shift, left.negative != right.negative
        a, b = row[left.number], row[right.number]
        ends = (b.low << distance, b.high << distance)
        low, high = (-ends[1], -ends[0]) if subtracts else ends
        number = Number(a.low + low, a.high + high, left.number, right.number, distance, subtracts)
        # The sign of the left one, which has the lower bits, stays outside.
        yield left.shift, number, left.negative
    if len(ordered) % 2:
        last = ordered[-1]
        waits = row[last.number]
        yield last.shift, Number(waits.low, waits.high, last.number), last.negative


def _dot_module(values: Values) -> str:
    made, bits = shift_add_tree(values), values["WA"]
    depth, shift = len(made.levels), made.total.shift
    width = values["A"] - shift
    total = _signed(made.levels[-1][made.total.number], f"x{depth - 1}_{made.total.number}")
    low_zeros = f"{{total, {shift}'b0}}" if shift else "total"
    lines = [
        "module khot_constant_dot (",
        "    input clk, enable, first,",
        f"    input [{values['L'] * bits - 1}:0] a,",
        f"    output [{values['A'] - 1}:0] sum",
        ");",
        *(
            f"    reg [{number.bits - 1}:0] x{level}_{place};"
            for level, row in enumerate(made.levels)
            for place, number in enumerate(row)
        ),
        f"    reg signed [{width - 1}:0] total;",
        "    wire first_last;",
        f"    delay #(.D({depth})) delayed (",
        "        .clk(clk), .enable(enable), .x(first), .y(first_last)",
        "    );",
        f"    wire signed [{width - 1}:0] kept = first_last ? {width}'d0 : total;",
        f"    assign sum = {low_zeros};",
        "    always @(posedge clk) if (enable) begin",
        *(f"        x0_{lane} <= a[{lane * bits}+:{bits}];" for lane in range(values["L"])),
        *(f"        {step};" for step in _additions(made)),
        f"        total <= kept {'-' if made.total.negative else '+'} {total};",
        "    end",
        "endmodule",
    ]
    return "\n".join(lines) + "\n"


def _additions(made: ShiftAddTree) -> Iterator[str]:
    for level, (before, row) in enumerate(zip(made.levels, made.levels[1:], strict=False)):
        for place, number in enumerate(row):
            yield f"x{level + 1}_{place} <= {_expression(number, before, f'x{level}_')}"


def _signed(number: Number, name: str) -> str:
    return f"$signed({name})" if number.signed else f"$signed({{1'b0, {name}}})"


def _expression(number: Number, before: Sequence[Number], prefix: str) -> str:
    left = f"{prefix}{number.left}"
    if number.right is None:
        return left
    right = _signed(before[number.right], f"{prefix}{number.right}")
    operator = "-" if number.subtracts else "+"
    return f"{_signed(before[number.left], left)} {operator} ({right} <<< {number.distance})"


def _dot_ports(values: Values) -> Ports:
    lanes = Port("a", values["WA"], values["L"])
    return Ports((lanes,), (Port("sum", values["A"], signed=True),), (ENABLE, FIRST))


def _dot_bits(values: Values) -> int:
    return values["WA"] + values["WB"] - values["SA"] + levels(values["L"])


def _dot(values: Values, inputs: Streams) -> Streams:
    kind = Integer(values["WA"], bool(values["SA"]))
    products = mantissas(kind, inputs["a"], _dot_bits(values)) * np.array(weights(values))
    return {"sum": running_sum(products.sum(axis=1), inputs["first"][:, 0], values["A"])}


def _dot_rule(values: Values) -> None:
    check_shifts("khot_constant_dot", values)
    at_least("khot_constant_dot", values, "A", _dot_bits(values), "one sum of products does not fit")


KHOT_CONSTANT_DOT = Unit(
    name="khot_constant_dot",
    summary="sum <= (first ? 0 : sum) + a . b, integers and constant k-hot weights",
    ranges=(
        Parameter("WA", 1, 16, "bits of a"),
        Parameter("SA", 0, 1, "whether a is signed"),
        Parameter("WB", 2, 16, "bits of a weight"),
        Parameter("K", 1, 8, "ones that a weight may have"),
        Parameter("L", 1, 64, "lanes"),
        Parameter("A", 2, 128, "bits of the accumulator"),
        Parameter("SEED", 0, 2**31 - 1, "draws the weights"),
    ),
    sources=("delay",),
    ports=_dot_ports,
    latency=lambda values: 1 + len(shift_add_tree(values).levels),
    reference=_dot,
    rule=_dot_rule,
    emit=_dot_module,
)
