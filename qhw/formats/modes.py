"""Rounding and overflow modes, and what they do to exact integers.

The names are those of ap_fixed (AMD UG1399, "Arbitrary Precision Fixed-Point Data Types");
``CEIL`` and ``UP`` exist for QONNX files only and have no ap_fixed counterpart.
"""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError

IntArray = NDArray[Any]
"""int64, or object (Python integers) where 63 bits do not suffice."""


class Rounding(enum.Enum):
    """How a number between two neighbours of a format is rounded."""

    RND = "RND"
    """To nearest, ties towards plus infinity."""
    RND_ZERO = "RND_ZERO"
    """To nearest, ties towards zero."""
    RND_MIN_INF = "RND_MIN_INF"
    """To nearest, ties towards minus infinity."""
    RND_INF = "RND_INF"
    """To nearest, ties away from zero."""
    RND_CONV = "RND_CONV"
    """To nearest, ties to even (convergent)."""
    TRN = "TRN"
    """Towards minus infinity."""
    TRN_ZERO = "TRN_ZERO"
    """Towards zero."""
    CEIL = "CEIL"
    """Towards plus infinity (QONNX only)."""
    UP = "UP"
    """Away from zero (QONNX only)."""


QONNX_ROUNDING = {
    "ROUND": Rounding.RND_CONV,
    "HALF_EVEN": Rounding.RND_CONV,
    "FLOOR": Rounding.TRN,
    "CEIL": Rounding.CEIL,
    "UP": Rounding.UP,
    "DOWN": Rounding.TRN_ZERO,
    "HALF_UP": Rounding.RND_INF,
    "HALF_DOWN": Rounding.RND_ZERO,
}
"""QONNX's names of the modes that its Quant has; its HALF_UP is half away from zero."""


class Overflow(enum.Enum):
    """The treatment of a number beyond a format's range."""

    SAT = "SAT"
    """The nearest bound."""
    SAT_ZERO = "SAT_ZERO"
    """Zero."""
    SAT_SYM = "SAT_SYM"
    """The nearest bound of the symmetric range: the lowest code is not used."""
    WRAP = "WRAP"
    """Modulo 2^width: the upper bits are dropped."""
    WRAP_SM = "WRAP_SM"
    """Wrapped in sign and magnitude: reflected at the bounds. Signed formats only."""

    @property
    def saturates(self) -> bool:
        """Whether numbers beyond the range are replaced, not wrapped."""
        return self in (Overflow.SAT, Overflow.SAT_ZERO, Overflow.SAT_SYM)


def shift_left(mantissa: IntArray, bits: int) -> IntArray:
    """``mantissa * 2**bits``, widened to Python integers where 63 bits would overflow."""
    if bits == 0 or mantissa.size == 0:
        return mantissa
    if mantissa.dtype != object:
        largest = max(abs(int(mantissa.min())), abs(int(mantissa.max())))
        if largest.bit_length() + bits > 62:
            mantissa = mantissa.astype(object)
    return np.asarray(mantissa * (1 << bits), dtype=mantissa.dtype)


def round_shift(mantissa: IntArray, bits: int, rounding: Rounding) -> IntArray:
    """``mantissa * 2**-bits`` rounded to an integer; exact for negative ``bits`` (a left shift).

    Args:
        mantissa: integers of any shape, int64 or object.
        bits: fraction bits to drop.
    """
    if bits <= 0:
        return shift_left(mantissa, -bits)
    if mantissa.dtype != object and bits > 62:
        mantissa = mantissa.astype(object)
    floor = mantissa >> bits
    remainder = mantissa - (floor << bits)
    half = 1 << (bits - 1)
    negative = mantissa < 0
    match rounding:
        case Rounding.TRN:
            return floor
        case Rounding.TRN_ZERO:
            up = negative & (remainder > 0)
        case Rounding.CEIL:
            up = remainder > 0
        case Rounding.UP:
            up = ~negative & (remainder > 0)
        case Rounding.RND:
            up = remainder >= half
        case Rounding.RND_MIN_INF:
            up = remainder > half
        case Rounding.RND_ZERO:
            up = (remainder > half) | ((remainder == half) & negative)
        case Rounding.RND_INF:
            up = (remainder > half) | ((remainder == half) & ~negative)
        case Rounding.RND_CONV:
            up = (remainder > half) | ((remainder == half) & (floor % 2 == 1))
    return np.asarray(floor + np.asarray(up).astype(mantissa.dtype), dtype=mantissa.dtype)


def mantissa_bounds(width: int, signed: bool, overflow: Overflow = Overflow.SAT) -> tuple[int, int]:
    """Lowest and highest mantissa of ``width`` bits, as that overflow mode reaches them.

    SAT_SYM leaves the lowest code out by setting its last bit, as ap_fixed does: one bit stays -1..0.
    """
    if not signed:
        return 0, (1 << width) - 1
    half = 1 << (width - 1)
    return (-half | 1 if overflow is Overflow.SAT_SYM else -half), half - 1


def overflow_mantissa(
    mantissa: IntArray,
    width: int,
    signed: bool,
    overflow: Overflow,
    low: int | None = None,
    high: int | None = None,
    *,
    unrounded: IntArray | None = None,
) -> IntArray:
    """Bring mantissas of any size into ``width`` bits.

    Args:
        mantissa: integers of any shape, int64 or object.
        low, high: bounds that replace the format's own; for the saturating modes only.
        unrounded: ``mantissa`` before it was rounded, floored. WRAP_SM alone looks at it: ap_fixed takes
            the bit above the sign there from the source, without the carry of the rounding.

    Returns:
        int64, or object where ``width`` goes beyond it.
    """
    if overflow.saturates:
        bounds = mantissa_bounds(width, signed, overflow)
        return _saturate(
            mantissa, bounds[0] if low is None else low, bounds[1] if high is None else high, overflow
        )
    if low is not None or high is not None:
        raise InputError(f"Bounds {low}..{high} were given with {overflow.value}, which does not saturate")
    wrapped = _wrap(mantissa, width, signed)
    if overflow is Overflow.WRAP:
        return wrapped
    if not signed:
        raise InputError("WRAP_SM needs a sign bit, and the format is unsigned", allowed="signed formats")
    above_sign = ((mantissa if unrounded is None else unrounded) >> width) % 2 == 1
    reflected = (wrapped != mantissa) & (above_sign != (wrapped < 0))
    return np.where(reflected, ~wrapped, wrapped)


def requantize_mantissa(
    mantissa: IntArray,
    bits: int,
    width: int,
    signed: bool,
    rounding: Rounding,
    overflow: Overflow,
    low: int | None = None,
    high: int | None = None,
) -> IntArray:
    """``mantissa * 2**-bits`` rounded, then brought into ``width`` bits: what ap_fixed does on assignment.

    Args:
        mantissa: integers of any shape, int64 or object.
        bits: fraction bits to drop; negative for a left shift.
        low, high: bounds that replace the format's own; for the saturating modes only.
    """
    rounded = round_shift(mantissa, bits, rounding)
    unrounded = round_shift(mantissa, bits, Rounding.TRN) if overflow is Overflow.WRAP_SM else None
    return overflow_mantissa(rounded, width, signed, overflow, low, high, unrounded=unrounded)


def _saturate(mantissa: IntArray, low: int, high: int, overflow: Overflow) -> IntArray:
    if overflow is Overflow.SAT_ZERO:
        return _narrow(np.where((mantissa < low) | (mantissa > high), 0, mantissa), low, high)
    if mantissa.dtype != object:
        low, high = max(low, -(1 << 63)), min(high, (1 << 63) - 1)
    return _narrow(np.asarray(np.clip(mantissa, low, high)), low, high)


def _wrap(mantissa: IntArray, width: int, signed: bool) -> IntArray:
    offset = 1 << (width - 1) if signed else 0
    if width > 62:
        mantissa = mantissa.astype(object)
    wrapped = np.asarray(((mantissa + offset) & ((1 << width) - 1)) - offset)
    return _narrow(wrapped, *mantissa_bounds(width, signed))


def _narrow(mantissa: IntArray, low: int, high: int) -> IntArray:
    """int64 where every number in ``[low, high]`` fits it."""
    return mantissa.astype(np.int64) if low >= -(1 << 63) and high < 1 << 63 else mantissa
