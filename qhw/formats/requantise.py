"""Rounding of exact numbers to a format: the arithmetic of a Requant, for every kind of format."""

from __future__ import annotations

import dataclasses
from functools import lru_cache

import numpy as np

from qhw.errors import InputError
from qhw.formats.base import Format
from qhw.formats.modes import IntArray, Overflow, Rounding, mantissa_bounds, requantize_mantissa
from qhw.formats.table import TableFormat


def bounds(
    format: Format, overflow: Overflow, low: int | None = None, high: int | None = None
) -> tuple[int, int]:
    """The lowest and highest mantissa that an overflow mode reaches, unless ``low`` or ``high`` says."""
    if isinstance(format, TableFormat):
        natural = format.mantissa_low, format.mantissa_high
    else:
        natural = mantissa_bounds(format.width, format.signed, overflow)
    return (natural[0] if low is None else low), (natural[1] if high is None else high)


def requantise(
    mantissas: IntArray,
    bits: int,
    format: Format,
    rounding: Rounding,
    overflow: Overflow,
    low: int | None = None,
    high: int | None = None,
) -> IntArray:
    """``mantissas * 2**-bits``, rounded once and brought into the format's range: mantissas of the format.

    Args:
        mantissas: integers of any shape and size.
        bits: fraction bits that a mantissa of the format has less; negative for a left shift.
        low, high: bounds that replace the format's own, for the saturating modes only; of a format that
            lists its codes, two of its mantissas.

    Raises:
        InputError: a format that lists its codes is to do anything but saturate.
    """
    if not isinstance(format, TableFormat):
        return requantize_mantissa(
            mantissas, bits, format.width, format.signed, rounding, overflow, low, high
        )
    check_modes(format, rounding, overflow)
    rounded = saturating(format, rounding).from_mantissa(mantissas, format.exponent - bits)
    return np.asarray(np.clip(rounded, *bounds(format, overflow, low, high)))


def check_modes(format: TableFormat, rounding: Rounding, overflow: Overflow) -> None:
    """Raise InputError where a format that lists its codes cannot round or overflow in that mode."""
    if overflow is not Overflow.SAT:
        raise InputError(f"{format} cannot overflow by {overflow.value}", allowed=Overflow.SAT.value)
    if rounding is not format.rounding and not _has_field(format, "rounding"):
        raise InputError(f"{format} cannot round by {rounding.value}", allowed=format.rounding.value)


@lru_cache(maxsize=256)
def saturating(format: TableFormat, rounding: Rounding) -> TableFormat:
    """The same numbers, rounded by that mode, and never overflowing.

    Formats with the same numbers are equal whatever their modes, and so is what this gives for them.
    """
    changes = {"rounding": rounding, "saturate": True}
    known = {name: value for name, value in changes.items() if _has_field(format, name)}
    return dataclasses.replace(format, **known)  # type: ignore[type-var]


def _has_field(format: TableFormat, name: str) -> bool:
    return any(field.name == name for field in dataclasses.fields(format))  # type: ignore[arg-type]
