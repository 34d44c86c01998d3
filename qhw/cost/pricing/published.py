"""Published formulas, to compare the calibrated models with, and counts that follow from their definition.

FINN-R (Blott et al., arXiv 1809.04570) was fitted to Vivado HLS results without a stated error, and EBOPs
(Sun et al., "HGQ", arXiv 2405.00645) counts bits, not LUTs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.cost.pricing.usage import Amount
from qhw.formats.modes import IntArray

LUT_PER_MATRIX_UNIT = 300
"""Control of one matrix unit (FINN-R)."""

BRAM18_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Depth and width of one block RAM of 18 Kb (AMD UG573); 36 bits in simple dual port use."""


def finn_multiplier(a_bits: Amount, b_bits: Amount) -> NDArray[Any]:
    """LUT of one product (FINN-R); a single bit only gates or negates the other operand."""
    both = np.asarray(a_bits, dtype=float) + b_bits
    sign_only = np.minimum(a_bits, b_bits) <= 1
    return np.asarray(np.where(sign_only, both - 1, (2 * np.ceil(both / 6) - 1) * both))


def finn_element(a_bits: Amount, b_bits: Amount, lanes: Amount, accumulator_bits: Amount) -> NDArray[Any]:
    """LUT of one processing element: products, adder tree, accumulator (FINN-R)."""
    lanes = np.asarray(lanes, dtype=float)
    tree = (np.asarray(a_bits, dtype=float) + b_bits) * (2 * lanes - 1)
    return np.asarray(1.1 * (lanes * finn_multiplier(a_bits, b_bits) + tree + accumulator_bits))


def finn_matrix_unit(
    a_bits: Amount, b_bits: Amount, lanes: Amount, elements: Amount, accumulator_bits: Amount
) -> NDArray[Any]:
    """LUT of a matrix-vector unit of ``elements`` processing elements (FINN-R)."""
    each = finn_element(a_bits, b_bits, lanes, accumulator_bits)
    return np.asarray(LUT_PER_MATRIX_UNIT + elements * each)


def ebops(a_bits: Amount, b_bits: Amount, products: Amount) -> NDArray[Any]:
    """Effective bit operations of some products, which stand for LUT + 55 DSP in fully unrolled designs."""
    return np.asarray(np.asarray(a_bits, dtype=float) * b_bits * products)


def significant_bits(constants: IntArray) -> IntArray:
    """Bits from the highest to the lowest one of each magnitude; 0 for zero (EBOPs' bits of a weight)."""
    magnitude = np.abs(constants).astype(np.float64)
    lowest = np.where(magnitude == 0, 1, magnitude)
    mantissa, exponent = np.frexp(lowest)
    # 53-bit mantissa as an integer: its trailing zeros are the bits below the lowest one.
    whole = np.ldexp(mantissa, 53).astype(np.int64)
    trailing = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    return np.where(magnitude == 0, 0, np.minimum(53 - trailing, np.maximum(exponent, 1)))


def signed_digits(constants: IntArray) -> IntArray:
    """Digits that are not zero in the canonical signed-digit form of each constant (Reitwiesner 1960)."""
    if constants.dtype == object or int(np.abs(constants).max(initial=0)) >= 1 << 61:
        # Numbers of formats with wide exponents go beyond 64 bits.
        wide = [abs(int(constant)) for constant in constants.flat]
        counts = [(magnitude ^ (3 * magnitude)).bit_count() for magnitude in wide]
        return np.array(counts, dtype=np.int64).reshape(constants.shape)
    magnitude = np.abs(constants.astype(np.int64))
    return np.asarray(np.bitwise_count(magnitude ^ (3 * magnitude)), dtype=np.int64)


def bram18(depth: Amount, width: Amount) -> NDArray[Any]:
    """Block RAMs of 18 Kb of one memory, at the shape that takes fewest (as FINN-R counts them)."""
    counts = [np.ceil(np.asarray(depth) / d) * np.ceil(np.asarray(width) / w) for d, w in BRAM18_SHAPES]
    return np.asarray(np.min(np.broadcast_arrays(*counts), axis=0))
