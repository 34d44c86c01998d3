"""How k-hot weights are stored for a multiplier-free unit: as the shifts that they cost."""

from __future__ import annotations

import numpy as np

from qhw.formats.khot import KHot
from qhw.formats.modes import IntArray


def shift_bits(format: KHot) -> int:
    """Bits of one shift; all ones stand for no digit."""
    return _positions(format).bit_length()


def shift_width(format: KHot) -> int:
    """Bits of a stored weight: ``k`` shifts and one sign, or with signed digits ``k`` of them."""
    return format.k * shift_bits(format) + (format.k if format.csd else 1)


def shift_codes(format: KHot, mantissas: IntArray) -> IntArray:
    """Mantissas of the format (any shape) as the header library's ``qhw::khot`` reads them.

    From the lowest bit: the shifts, falling, then the sign bits. Raises InputError for what is no number
    of the format.
    """
    format.code_of(mantissas)
    signs, magnitudes = np.asarray(mantissas < 0), np.abs(mantissas)
    plus, minus = _digits(magnitudes, format.csd)
    bits = shift_bits(format)
    stored = np.zeros_like(magnitudes)
    used = np.zeros_like(magnitudes)
    for position in range(_positions(format) - 1, -1, -1):
        is_minus = (minus >> position) & 1
        is_digit = (plus >> position) & 1 | is_minus
        stored |= np.where(is_digit, position << used * bits, 0)
        if format.csd:
            stored |= np.where(is_digit, (is_minus ^ signs) << format.k * bits + used, 0)
        used += is_digit
    for place in range(format.k):
        stored |= np.where(place >= used, (1 << bits) - 1 << place * bits, 0)
    return stored if format.csd else stored | signs.astype(np.int64) << format.k * bits


def _positions(format: KHot) -> int:
    """How many powers of two a digit can stand for: a signed one may lie above the magnitude's bits."""
    return format.width if format.csd else format.width - 1


def _digits(magnitudes: IntArray, csd: bool) -> tuple[IntArray, IntArray]:
    """The digits 1 and -1 of magnitudes, as bit masks; the non-adjacent form with ``csd``."""
    if not csd:
        return magnitudes, np.zeros_like(magnitudes)
    half, three_halves = magnitudes >> 1, magnitudes + (magnitudes >> 1)
    return three_halves & ~half, half & ~three_halves
