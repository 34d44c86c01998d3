"""A part of an image of rows, pixels and words of a pixel: which words lie in it."""

from __future__ import annotations

import numpy as np

from qhw.formats.modes import IntArray
from qhw.rtl.base import Parameter, Values
from qhw.rtl.shared.arithmetic import at_least
from qhw.rtl.shared.timing import Machine, Timing

_MOST = 1 << 20

_AXES = (("R", "rows"), ("N", "pixels of a row"), ("C", "words of a pixel"))

WALK = (
    *(Parameter(axis, 1, _MOST, what) for axis, what in _AXES),
    *(Parameter(f"{axis}0", 0, _MOST, f"the first of the {what} of the part") for axis, what in _AXES),
    *(Parameter(f"{axis}1", 1, _MOST, f"{what} of the part") for axis, what in _AXES),
    *(Parameter(f"{axis}S", 1, _MOST, f"how far the {what} of the part lie apart") for axis, what in _AXES),
)
"""The parameters of ``places.v``."""


def check_walk(unit: str, values: Values) -> None:
    """Raise InputError for a part that does not lie within the image."""
    for axis, _ in _AXES:
        end = values[f"{axis}0"] + (values[f"{axis}1"] - 1) * values[f"{axis}S"] + 1
        at_least(unit, values, axis, end, "the part ends beyond the image")


def within(values: Values) -> IntArray:
    """Whether each word of an image lies in the part, in the order in which they pass."""
    flags = []
    for axis, _ in _AXES:
        start, count, step = (values[f"{axis}{which}"] for which in "01S")
        flag = np.zeros(values[axis], dtype=bool)
        flag[start : start + (count - 1) * step + 1 : step] = True
        flags.append(flag)
    rows, pixels, words = flags
    return np.asarray((rows[:, None, None] & pixels[None, :, None] & words).reshape(-1))


def part_words(values: Values) -> int:
    """Words of the part."""
    return values["R1"] * values["N1"] * values["C1"]


class Masked(Timing):
    """Some words of an image pass; the others are made, or dropped.

    Args:
        within: whether each word of the image passes.
    """

    def __init__(self, within: IntArray) -> None:
        self.within = within

    @property
    def numbers(self) -> tuple[int, ...]:
        return (len(self.within),)

    @property
    def flags(self) -> IntArray:
        return self.within


class MaskMachine(Machine):
    """The place in the image."""

    def __init__(self, within: list[bool]) -> None:
        self.within, self.place = within, 0
