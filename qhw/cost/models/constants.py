"""Products with constants: the additions of the circuit itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import NamedTuple, TypeAlias

from qhw.cost.rtl.constants import Number, Plan, plan
from qhw.cost.unit_models import Features, UnitModel, Values

_Bit: TypeAlias = "tuple[tuple[int, int], int] | None"
"""What is in a flip-flop: a bit of a number of a level, by its place; None: 0. Equal ones are one."""

_Bits: TypeAlias = "tuple[_Bit, ...]"
"""Of a number, from the lowest."""


def _spread(held: _Bits, signed: bool, first: int, width: int) -> _Bits:
    """The bits from one place on, with the sign repeated or zeros above."""
    return (held + (held[-1] if signed else None,) * (first + width))[first : first + width]


def _positions(number: Number, before: Sequence[Number], held: Sequence[_Bits]) -> list[tuple[_Bit, _Bit]]:
    """What an adder's carry chain adds; below ``distance`` the left number passes by."""
    assert number.right is not None
    width = number.bits - number.distance
    left = _spread(held[number.left], before[number.left].signed, number.distance, width)
    right = _spread(held[number.right], before[number.right].signed, 0, width)
    return list(zip(left, right, strict=True))


def _luts(number: Number, positions: list[tuple[_Bit, _Bit]]) -> int:
    """Positions that differ; one whose other operand is 0 takes none, unless that is inverted."""
    needed = any if number.subtracts else all
    different = {pair for pair in positions if needed(bit is not None for bit in pair)}
    # Sums of up to two bits are no carry chain.
    return len(positions) if different and len(positions) <= 2 else len(different)


def _contents(
    name: tuple[int, int], number: Number, before: Sequence[Number], held: Sequence[_Bits]
) -> _Bits:
    """Of a number of this name: sums are new, the rest is what was in the registers before."""
    if number.right is None:
        return held[number.left]
    positions = _positions(number, before, held)
    passed = _spread(held[number.left], before[number.left].signed, 0, number.distance)
    if not number.subtracts and all(left is None for left, _ in positions):
        return passed + tuple(right for _, right in positions)
    return passed + tuple((name, place) for place in range(len(positions)))


class _Counted(NamedTuple):
    luts: int
    registers: int


@cache
def _counted(made: Plan) -> _Counted:
    """Of the tree, its lanes included."""
    first, *later = made.levels
    rows: list[_Bits] = [tuple(((0, i), bit) for bit in range(lane.bits)) for i, lane in enumerate(first)]
    luts, registers = 0, sum(len(bits) for bits in rows)
    for level, row in enumerate(later, start=1):
        before = made.levels[level - 1]
        added = [number for number in row if number.right is not None]
        luts += sum(_luts(number, _positions(number, before, rows)) for number in added)
        rows = [_contents((level, place), number, before, rows) for place, number in enumerate(row)]
        registers += len({bit for bits in rows for bit in bits} - {None})
    return _Counted(luts, registers)


def _khot_constant_dot(values: Values) -> Features:
    made = plan(values)
    return {"tree bits": _counted(made).luts, "accumulator bits": values["A"] - made.total.shift}


def _khot_constant_dot_registers(values: Values) -> int:
    made = plan(values)
    return _counted(made).registers + len(made.levels) + values["A"] - made.total.shift


MODELS: Mapping[str, UnitModel] = {
    "khot_constant_dot": UnitModel(_khot_constant_dot, _khot_constant_dot_registers),
}
