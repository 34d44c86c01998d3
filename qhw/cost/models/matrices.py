"""Products with a constant matrix: the additions of da4ml's own solution, bit by bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

from qhw.cost import lut4
from qhw.cost.cells import Cells, cells_of
from qhw.cost.unit_models import Features, UnitModel, Values
from qhw.rtl.matrices import adder_graph, field_bits

_Bit: TypeAlias = "tuple[int, int] | None"
"""The bit in a flip-flop: of an input or sum, by its number and place; None: 0. Equal ones are one."""

_Bits: TypeAlias = "tuple[_Bit, ...]"
"""The bits of a number, from the lowest."""

_Position: TypeAlias = "tuple[_Bit, _Bit]"
"""The two bits that a carry chain adds in one place."""


class _Number(NamedTuple):
    bits: _Bits
    signed: bool

    def placed(self, shift: int, width: int) -> _Bits:
        """Zeros below, the sign or zeros above."""
        above = self.bits[-1] if self.signed else None
        return ((None,) * shift + self.bits + (above,) * width)[:width]


@dataclass
class _Count:
    """Counts of a circuit, while its stages are walked through.

    Args:
        sums: the number of each sum by what is added: the same is built once.
        positions: positions of carry chains that take a LUT, by whether they subtract.
        short: positions that take a LUT, in sums of up to two bits.
        lut4s: LUTs on ECP5, where chains share no position.
        read: bits that the current stage reads.
    """

    sums: dict[tuple[bool, tuple[_Position, ...]], int] = field(default_factory=dict)
    positions: set[tuple[bool, frozenset[_Bit]]] = field(default_factory=set)
    short: int = 0
    lut4s: int = 0
    read: set[_Bit] = field(default_factory=set)

    def added(self, left: _Bits, right: _Bits, subtracts: bool) -> _Bits:
        """The sum of two numbers of one width, or their difference."""
        pairs = list(zip(left, right, strict=True))
        self.read |= {bit for pair in pairs for bit in pair}
        passed = 0
        while passed < len(pairs) and _passes(pairs[passed], subtracts):
            passed += 1
        chain = tuple(pairs[passed:])
        if not subtracts and not any(a is not None and b is not None for a, b in chain):
            return tuple(b if a is None else a for a, b in pairs)
        below = tuple(b if a is None else a for a, b in pairs[:passed])
        return below + self._chain(chain, subtracts)

    def _chain(self, chain: tuple[_Position, ...], subtracts: bool) -> _Bits:
        known = len(self.sums) + 1
        number = self.sums.setdefault((subtracts, chain), known)
        if number == known:
            bits = {bit for pair in chain for bit in pair} - {None}
            self.lut4s += lut4.sum_of(len(bits), len(chain))
            needed = any if subtracts else all
            different = {frozenset(pair) for pair in chain if needed(bit is not None for bit in pair)}
            # Sums of up to two bits are built without a carry chain.
            if len(chain) <= 2:
                self.short += len(chain)
            else:
                self.positions |= {(subtracts, pair) for pair in different}
        return tuple((number, place) for place in range(len(chain)))


def _passes(pair: _Position, subtracts: bool) -> bool:
    """Whether the low bits of one operand lie beside the other; Yosys does not see that 0 - 0 is 0."""
    left, right = pair
    if subtracts:
        return left is not None and right is None
    return left is None or right is None


class _Counted(NamedTuple):
    luts: int
    lut4s: int
    registers: int


def _counted(values: Values) -> _Counted:
    return _counted_once(tuple(values.items()))


@cache
def _counted_once(parameters: tuple[tuple[str, int], ...]) -> _Counted:
    stages, count, registers = adder_graph(dict(parameters)).stages, _Count(), 0
    held = [
        _Number(tuple((-lane, bit) for bit in range(field_bits(interval))), interval.min < 0)
        for lane, interval in enumerate(stages[0].inp_qint)
    ]
    for stage in stages:
        before, count.read = _distinct(held), set()
        held = _stage(stage, held, count)
        registers += len(before & count.read)
    luts = len(count.positions) + count.short
    return _Counted(luts, count.lut4s, registers + len(_distinct(held)))


def _distinct(numbers: Sequence[_Number]) -> set[_Bit]:
    return {bit for number in numbers for bit in number.bits} - {None}


def _stage(stage: Any, held: Sequence[_Number], count: _Count) -> list[_Number]:
    """The circuit's outputs."""
    numbers: list[_Number] = []
    for op in stage.ops:
        numbers.append(_operation(op, stage.ops, numbers, held, count))
    return [
        _output(numbers[place], interval, bool(negated), count)
        for place, interval, negated in zip(stage.out_idxs, stage.out_qint, stage.out_negs, strict=True)
    ]


_INPUT, _ADD, _SUBTRACT, _CONSTANT = -1, 0, 1, 5
"""da4ml's codes of the operations that a product with a matrix is made of."""


def _operation(
    op: Any, ops: Sequence[Any], numbers: Sequence[_Number], held: Sequence[_Number], count: _Count
) -> _Number:
    width, signed = field_bits(op.qint), op.qint.min < 0
    if op.opcode in (_INPUT, _CONSTANT):
        return held[op.id0] if op.opcode == _INPUT else _Number((), False)
    # A step is that of the lowest bit of a field.
    ratio = 2.0 ** int(op.data) * ops[op.id1].qint.step / ops[op.id0].qint.step
    left_shift, right_shift = (max(0, _log2(end)) for end in (1 / ratio, ratio))
    left = numbers[op.id0].placed(left_shift, width)
    right = numbers[op.id1].placed(right_shift, width)
    return _Number(count.added(left, right, op.opcode == _SUBTRACT), signed)


def _log2(power: float) -> int:
    return int(power).bit_length() - 1 if power >= 1 else 0


def _output(number: _Number, interval: Any, negated: bool, count: _Count) -> _Number:
    width = field_bits(interval)
    if negated:
        return _Number(count.added((None,) * width, number.placed(0, width), True), interval.min < 0)
    count.read |= set(number.bits)
    return number


def _constant_matrix(cells: Cells, values: Values) -> Features:
    counted = _counted(values)
    return {"carry bits": counted.luts} if cells.inputs == 6 else {"adder LUTs": counted.lut4s}


def _constant_matrix_registers(values: Values) -> int:
    return _counted(values).registers


def models(family: str) -> Mapping[str, UnitModel]:
    """The model of products with a constant matrix, in one family's cells."""
    features = partial(_constant_matrix, cells_of(family))
    return {"constant_matrix": UnitModel(features, _constant_matrix_registers)}
