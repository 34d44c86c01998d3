"""Axes of the spaces that many units are sampled from."""

from __future__ import annotations

from collections.abc import Callable

from qhw.rtl.base import OWN_DSP, Axis, Values

FLAG = (0, 1)
LANES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)

MULTIPLIERS = Axis("MULTIPLIER", choices=(0, 0, 0, 0, 0, 0, OWN_DSP))
"""LUTs mostly, and the DSP slice of the family."""

_HALF_UP, _HALF_EVEN, _DOWN = 0, 4, 5
ROUNDINGS_MEASURED = (_HALF_EVEN, _HALF_EVEN, _DOWN, _HALF_UP, 0, 1, 2, 3, 4, 5, 6, 7, 8)
FORMATS = (Axis("EA", 1, 5), Axis("MA", 0, 4), Axis("EB", 1, 5), Axis("MB", 0, 4))


def accumulator(least: Callable[[Values], int], more: int = 12) -> Axis:
    """The accumulator: from the width that one full sum needs to some bits more."""
    return Axis("A", least, lambda values: least(values) + more)


def lane_levels(values: Values) -> int:
    """Levels of the tree over a unit's lanes."""
    return (values.get("L", 1) - 1).bit_length()


def least_integer_sum(values: Values) -> int:
    """Bits of one sum of products, a sign included."""
    return values["WA"] + values["WB"] + lane_levels(values) + 1
