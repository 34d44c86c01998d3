"""A dot product with k-hot weights that are known when the circuit is built: shifts cost nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import NamedTuple, TypeAlias

import numpy as np

from qhw.formats import Integer, KHot
from qhw.rtl.base import (
    ENABLE,
    FIRST,
    Axis,
    ClosedForms,
    Features,
    MeasuredUnit,
    Parameter,
    Port,
    Ports,
    Space,
    Streams,
    Values,
)
from qhw.rtl.shared import lut4
from qhw.rtl.shared.arithmetic import at_least, mantissas, running_sum
from qhw.rtl.shared.axes import FLAG, LANES, accumulator, least_integer_sum
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.khots import check_shifts
from qhw.rtl.shared.structure import levels


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


def _module(values: Values) -> str:
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


def _ports(values: Values) -> Ports:
    lanes = Port("a", values["WA"], values["L"])
    return Ports((lanes,), (Port("sum", values["A"], signed=True),), (ENABLE, FIRST))


def _sum_bits(values: Values) -> int:
    return values["WA"] + values["WB"] - values["SA"] + levels(values["L"])


def _reference(values: Values, inputs: Streams) -> Streams:
    kind = Integer(values["WA"], bool(values["SA"]))
    products = mantissas(kind, inputs["a"], _sum_bits(values)) * np.array(weights(values))
    return {"sum": running_sum(products.sum(axis=1), inputs["first"][:, 0], values["A"])}


def _rule(values: Values) -> None:
    check_shifts("khot_constant_dot", values)
    at_least("khot_constant_dot", values, "A", _sum_bits(values), "one sum of products does not fit")


_Bit: TypeAlias = "tuple[tuple[int, int], int] | None"
"""The bit in a flip-flop: of a number of a level, by its place; None: 0. Equal ones are one."""

_Bits: TypeAlias = "tuple[_Bit, ...]"
"""The bits of a number, from the lowest."""


def _spread(held: _Bits, signed: bool, first: int, width: int) -> _Bits:
    """The bits from one place on, with the sign repeated or zeros above."""
    return (held + (held[-1] if signed else None,) * (first + width))[first : first + width]


def _positions(number: Number, before: Sequence[Number], held: Sequence[_Bits]) -> list[tuple[_Bit, _Bit]]:
    """The positions of an adder's carry chain; below ``distance`` the left number passes by."""
    assert number.right is not None
    width = number.bits - number.distance
    left = _spread(held[number.left], before[number.left].signed, number.distance, width)
    right = _spread(held[number.right], before[number.right].signed, 0, width)
    return list(zip(left, right, strict=True))


def _luts(number: Number, positions: list[tuple[_Bit, _Bit]]) -> int:
    """Positions that differ; one whose other operand is 0 takes none, unless that is inverted."""
    needed = any if number.subtracts else all
    different = {pair for pair in positions if needed(bit is not None for bit in pair)}
    # Sums of up to two bits are built without a carry chain.
    return len(positions) if different and len(positions) <= 2 else len(different)


def _contents(
    name: tuple[int, int], number: Number, before: Sequence[Number], held: Sequence[_Bits]
) -> _Bits:
    """The bits of a number with this name: sums are new, the rest is what was in the registers before."""
    if number.right is None:
        return held[number.left]
    positions = _positions(number, before, held)
    passed = _spread(held[number.left], before[number.left].signed, 0, number.distance)
    if not number.subtracts and all(left is None for left, _ in positions):
        return passed + tuple(right for _, right in positions)
    return passed + tuple((name, place) for place in range(len(positions)))


def _lut4s(number: Number, positions: list[tuple[_Bit, _Bit]]) -> int:
    """On ECP5: an adder from the lowest position up where there is something to add."""
    passed = 0
    while passed < len(positions) and _passes(positions[passed], number.subtracts):
        passed += 1
    chain = positions[passed:]
    adds = number.subtracts or any(None not in pair for pair in chain)
    return lut4.adder(len(chain)) if adds else 0


def _passes(position: tuple[_Bit, _Bit], subtracts: bool) -> bool:
    left, right = position
    return right is None or (left is None and not subtracts)


class _Counted(NamedTuple):
    luts: int
    lut4s: int
    registers: int


@cache
def _counted(made: ShiftAddTree) -> _Counted:
    """Resources of the tree, its lanes included."""
    first, *later = made.levels
    rows: list[_Bits] = [tuple(((0, i), bit) for bit in range(lane.bits)) for i, lane in enumerate(first)]
    luts, lut4s, registers = 0, 0, sum(len(bits) for bits in rows)
    for level, row in enumerate(later, start=1):
        before = made.levels[level - 1]
        added = [(n, _positions(n, before, rows)) for n in row if n.right is not None]
        luts += sum(_luts(*sum_) for sum_ in added)
        lut4s += sum(_lut4s(*sum_) for sum_ in added)
        rows = [_contents((level, place), number, before, rows) for place, number in enumerate(row)]
        registers += len({bit for bits in rows for bit in bits} - {None})
    return _Counted(luts, lut4s, registers)


def _features(cells: Cells, values: Values) -> Features:
    made = shift_add_tree(values)
    counted = _counted(made)
    tree: Features = {"tree bits": counted.luts} if cells.inputs == 6 else {"tree LUTs": counted.lut4s}
    return {**tree, **cells.accumulator(values["A"] - made.total.shift)}


def _registers(values: Values) -> int:
    made = shift_add_tree(values)
    return _counted(made).registers + len(made.levels) + values["A"] - made.total.shift


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, cells_of(family)), _registers)


UNIT = MeasuredUnit(
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
    ports=_ports,
    latency=lambda values: 1 + len(shift_add_tree(values).levels),
    reference=_reference,
    rule=_rule,
    emit=_module,
    space=Space(
        place=10,
        points=50,
        axes=(
            Axis("WA", 2, 8),
            Axis("SA", choices=FLAG),
            Axis("WB", 2, 8),
            Axis("K", 1, 3),
            Axis("L", choices=LANES[:10]),
            accumulator(least_integer_sum),
            Axis("SEED", 0, 999),
        ),
    ),
    closed_forms=_closed_forms,
)
