"""What the references of many units need: sums over time, exact mantissas, bounds of parameters."""

from __future__ import annotations

import numpy as np

from qhw.errors import InputError
from qhw.formats.base import Format
from qhw.formats.modes import IntArray, Overflow, overflow_mantissa
from qhw.rtl.base import ENABLE, FIRST, Parameter, Values

ACCUMULATOR = Parameter("A", 2, 128, "bits of the accumulator")

SUM_CONTROLS = (ENABLE, FIRST)
"""Of a unit that accumulates."""


def running_sum(terms: IntArray, first: IntArray, width: int, signed: bool = True) -> IntArray:
    """Sums over steps that start anew where ``first`` is 1, in ``width`` bits of an accumulator.

    Args:
        terms, first: the terms, and where a sum starts, shape (steps,); the first step starts one.
    """
    total = np.cumsum(terms)
    starts = np.maximum.accumulate(np.where(first != 0, np.arange(len(terms)), 0))
    sums = total - (total - terms)[starts]
    return overflow_mantissa(sums, width, signed, Overflow.WRAP)[:, None]


def at_least(unit: str, values: Values, name: str, low: int, why: str) -> None:
    """Raise InputError where a parameter is less than what the others need."""
    if values[name] < low:
        raise InputError(f"{name} of {unit} is {values[name]}: {why}", allowed=f"{low} or more")


def mantissas(format: Format, codes: IntArray, exact_bits: int) -> IntArray:
    """Mantissas of codes, as Python integers where sums of ``exact_bits`` bits pass int64."""
    array = np.asarray(format.mantissa_of(codes))
    return array.astype(object) if exact_bits > _INT64_BITS else array


_INT64_BITS = 63 - 24
"""Bits of a number of which 2^24 can be added within int64."""
