"""Products with constants: the additions of the circuit itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import NamedTuple, TypeAlias

from qhw.cost import lut4
from qhw.cost.cells import Cells, cells_of
from qhw.cost.unit_models import Features, UnitModel, Values
from qhw.rtl.constants import Number, ShiftAddTree, shift_add_tree

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


def _khot_constant_dot(cells: Cells, values: Values) -> Features:
    made = shift_add_tree(values)
    counted = _counted(made)
    tree: Features = {"tree bits": counted.luts} if cells.inputs == 6 else {"tree LUTs": counted.lut4s}
    return {**tree, **cells.accumulator(values["A"] - made.total.shift)}


def _khot_constant_dot_registers(values: Values) -> int:
    made = shift_add_tree(values)
    return _counted(made).registers + len(made.levels) + values["A"] - made.total.shift


def models(family: str) -> Mapping[str, UnitModel]:
    """The model of products with constant k-hot weights, in one family's cells."""
    features = partial(_khot_constant_dot, cells_of(family))
    return {"khot_constant_dot": UnitModel(features, _khot_constant_dot_registers)}
