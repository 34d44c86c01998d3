"""Real numbers rounded onto a uniform grid, exactly, in any mode."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qhw.errors import InputError
from qhw.formats.modes import (
    IntArray,
    Overflow,
    Rounding,
    overflow_mantissa,
    requantize_mantissa,
)

FloatArray = NDArray[np.float64]

_EXACT = 2.0**62
"""Integers below this convert to int64."""


def requantize_values(
    values: ArrayLike, fraction: int, width: int, signed: bool, rounding: Rounding, overflow: Overflow
) -> IntArray:
    """Mantissas of ``values * 2**fraction``, rounded, then brought into ``width`` bits.

    Args:
        values: float64 (or narrower) numbers, or exact integers of any size; any shape.
        fraction: fraction bits of the result; negative where the last bit stands for more than 1.

    Raises:
        InputError: a value is NaN, or infinite under a mode that wraps.
    """
    exact = exact_integers(values)
    if exact is not None:
        return requantize_mantissa(exact, -fraction, width, signed, rounding, overflow)
    numbers = np.asarray(values).astype(np.float64)
    _check_finite(numbers, overflow)
    scaled = _scale(numbers, fraction)
    if overflow.saturates:
        # Numbers beyond twice the range saturate like that bound, which keeps int64 for most formats.
        scaled = np.clip(scaled, -(2.0 ** (width + 1)), 2.0 ** (width + 1))
    else:
        scaled = np.where(np.isinf(scaled), 0.0, scaled)  # a multiple of 2^971: its low bits are zero
    unrounded = _integers(np.floor(scaled)) if overflow is Overflow.WRAP_SM else None
    rounded = _integers(round_values(scaled, rounding))
    return overflow_mantissa(rounded, width, signed, overflow, unrounded=unrounded)


def exact_integers(values: ArrayLike) -> IntArray | None:
    """Integers as they are (int64, or object beyond it); None for anything else."""
    array = np.asarray(values)
    if array.dtype.kind in "iub" or (array.dtype == object and all(isinstance(v, int) for v in array.flat)):
        return array.astype(object) if array.dtype in (np.uint64, object) else array.astype(np.int64)
    return None


def round_values(values: FloatArray, rounding: Rounding) -> FloatArray:
    """Real numbers rounded to integers, still as float64; exact for every float64."""
    nearest = np.rint(values)
    # Exact: below a half it is the value itself, above it both are within a factor of two.
    beyond = values - nearest
    negative = values < 0
    match rounding:
        case Rounding.RND_CONV:
            step = np.zeros_like(values)
        case Rounding.RND:
            step = _up(beyond == 0.5)
        case Rounding.RND_MIN_INF:
            step = -_up(beyond == -0.5)
        case Rounding.RND_INF:
            step = _up((beyond == 0.5) & ~negative) - _up((beyond == -0.5) & negative)
        case Rounding.RND_ZERO:
            step = _up((beyond == 0.5) & negative) - _up((beyond == -0.5) & ~negative)
        case Rounding.TRN:
            step = -_up(beyond < 0)
        case Rounding.CEIL:
            step = _up(beyond > 0)
        case Rounding.TRN_ZERO:
            step = _up((beyond > 0) & negative) - _up((beyond < 0) & ~negative)
        case Rounding.UP:
            step = _up((beyond > 0) & ~negative) - _up((beyond < 0) & negative)
    return nearest + step


def _up(where: NDArray[np.bool_]) -> FloatArray:
    return where.astype(np.float64)


def _check_finite(numbers: FloatArray, overflow: Overflow) -> None:
    if np.isnan(numbers).any():
        raise InputError(
            f"{int(np.isnan(numbers).sum())} of {numbers.size} values are NaN, which no format holds"
        )
    if not overflow.saturates and np.isinf(numbers).any():
        raise InputError(
            f"Infinite values cannot wrap ({overflow.value})", hint="clip them, or use a saturating mode"
        )


def _scale(numbers: FloatArray, fraction: int) -> FloatArray:
    """``numbers * 2**fraction``; what would round in float64's subnormals keeps only its sign."""
    with np.errstate(over="ignore", under="ignore"):
        scaled = np.ldexp(numbers, fraction)
    tiny = (np.abs(scaled) < 2.0**-900) & (numbers != 0)
    return np.where(tiny, np.copysign(2.0**-900, numbers), scaled)


def _integers(numbers: FloatArray) -> IntArray:
    if numbers.size == 0 or np.abs(numbers).max() < _EXACT:
        return numbers.astype(np.int64)
    flat = np.array([int(number) for number in numbers.flat] + [None], dtype=object)[:-1]
    return flat.reshape(numbers.shape)
