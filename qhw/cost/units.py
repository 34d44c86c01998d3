"""Hardware units and what they use, from published formulas; every argument may be an array.

Not calibrated: FINN-R (Blott et al., arXiv 1809.04570) was fitted to Vivado HLS results without a stated
error, and EBOPs (Sun et al., "HGQ", arXiv 2405.00645) counts bits, not LUTs. Where a count follows from how
the device is made, the docstring says so (AMD UG574, UG573, UG579).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray

Amount: TypeAlias = "float | NDArray[Any]"
"""A number, or an array of them over design points."""

SRL_DEPTH = 32
"""Bits of shift register or distributed memory that one LUT holds in simple dual port use (UG574)."""

ROM_DEPTH = 64
"""Bits of read-only memory in one six-input LUT (UG574)."""

FIFO_SRL_DEPTH, FIFO_SRL_BITS = 2, 1024
"""Up to which Vitis HLS makes a stream of shift registers unless told otherwise (UG1399, config_storage)."""

LUT_PER_MATRIX_UNIT = 300
"""Control of one matrix unit (FINN-R)."""

BRAM18_SHAPES = ((512, 36), (1024, 18), (2048, 9), (4096, 4), (8192, 2), (16384, 1))
"""Depth and width of one block RAM of 18 Kb (UG573); 36 bits in simple dual port use."""

DSP_PORTS = {"ultrascale-plus": (27, 18), "7series": (25, 18)}
"""Signed operand widths of one DSP slice: DSP48E2 (UG579), DSP48E1 (UG479)."""


@dataclass(frozen=True)
class Usage:
    """What some hardware uses: LUT, FF, DSP slices, block RAMs of 18 Kb."""

    lut: Amount = 0.0
    ff: Amount = 0.0
    dsp: Amount = 0.0
    bram18: Amount = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.lut + other.lut, self.ff + other.ff, self.dsp + other.dsp, self.bram18 + other.bram18
        )

    def times(self, count: Amount) -> Usage:
        """The same hardware ``count`` times."""
        return Usage(self.lut * count, self.ff * count, self.dsp * count, self.bram18 * count)


def multiplier(a_bits: Amount, b_bits: Amount, family: str) -> Usage:
    """A multiplier of two numbers that both change.

    LUT up to 8 bits of operands together, as FINN-R prices them; DSP slices beyond, which is where Vivado's
    and Yosys's mappers switch on 7 series. A single bit only gates or negates the other operand.
    """
    both = np.asarray(a_bits, dtype=float) + b_bits
    sign_only = np.minimum(a_bits, b_bits) <= 1
    in_lut = (both <= 8) | sign_only
    lut = np.where(sign_only, both - 1, (2 * np.ceil(both / 6) - 1) * both)
    dsp = dsp_slices(a_bits, b_bits, family)
    return Usage(lut=np.where(in_lut, lut, 0), ff=both, dsp=np.where(in_lut, 0, dsp))


def dsp_slices(a_bits: Amount, b_bits: Amount, family: str) -> NDArray[Any]:
    """DSP slices of one product: operands beyond a port are cut, each further slice taking a bit less."""
    wide, narrow = np.maximum(a_bits, b_bits), np.minimum(a_bits, b_bits)
    port_wide, port_narrow = DSP_PORTS[family]

    def pieces(bits: NDArray[Any], port: int) -> NDArray[Any]:
        return np.maximum(1, np.ceil((bits - 1) / (port - 1)))

    return np.asarray(pieces(wide, port_wide) * pieces(narrow, port_narrow))


def shifter(bits: Amount, places: Amount) -> Usage:
    """``bits`` moved left by 0 to ``places`` at run time: a LUT per bit chooses among four places."""
    places = np.asarray(places, dtype=float)
    width = np.asarray(bits, dtype=float) + places
    stages = np.ceil(np.log2(places + 1))
    return Usage(lut=width * np.ceil(stages / 2), ff=np.where(places > 0, width, 0))


def matrix_unit(
    *,
    inputs: Amount,
    outputs: Amount,
    product: Usage,
    product_bits: Amount,
    accumulator_bits: Amount,
    reuse: Amount,
    unrolled_lut: Amount | None = None,
) -> Usage:
    """Multipliers, adder trees and accumulators of a matrix product, each multiplier used ``reuse`` times.

    Args:
        inputs, outputs: of one product, after a convolution's window is flattened.
        product, product_bits: what one multiplier uses, and the bits of its result.
        unrolled_lut: given, the weights are constants and the products of a fully unrolled unit (``reuse``
            1) take that many LUT (EBOPs, for integers). Else FINN-R's formula, with ``inputs / reuse``
            lanes in each of ``outputs`` processing elements.
    """
    multipliers = np.ceil(np.asarray(inputs, dtype=float) * outputs / reuse)
    lanes = np.maximum(1, np.ceil(np.asarray(inputs, dtype=float) / reuse))
    elements = np.ceil(multipliers / lanes)
    tree = np.asarray(product_bits, dtype=float) * (2 * lanes - 1)
    lut = LUT_PER_MATRIX_UNIT + 1.1 * elements * (lanes * product.lut + tree + accumulator_bits)
    dsp = multipliers * product.dsp
    if unrolled_lut is not None:
        unrolled = np.asarray(reuse) == 1
        lut, dsp = np.where(unrolled, unrolled_lut, lut), np.where(unrolled, 0, dsp)
    # One pipeline register behind every product, two behind every sum.
    ff = multipliers * product.ff + 2 * elements * accumulator_bits
    return Usage(lut=lut, ff=ff, dsp=dsp)


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
    magnitude = np.abs(constants.astype(np.int64))
    return np.asarray(np.bitwise_count(magnitude ^ (3 * magnitude)), dtype=np.int64)


def constant_multiplier(bits: Amount, constant_bits: Amount, digits: Amount) -> Usage:
    """One number times one constant, by shifts and adds: an adder for every signed digit but the first."""
    product = np.asarray(bits, dtype=float) + constant_bits
    return Usage(lut=np.maximum(np.asarray(digits, dtype=float) - 1, 0) * product, ff=product)


def bram18(depth: Amount, width: Amount) -> NDArray[Any]:
    """Block RAMs of 18 Kb of one memory, at the shape that takes fewest (as FINN-R counts them)."""
    counts = [np.ceil(np.asarray(depth) / d) * np.ceil(np.asarray(width) / w) for d, w in BRAM18_SHAPES]
    return np.asarray(np.min(np.broadcast_arrays(*counts), axis=0))


def weight_memory(depth: Amount, width: Amount) -> Usage:
    """Read-only memory of constants: none at depth 1, LUT while it is shallow, block RAM beyond."""
    depth, width = np.asarray(depth, dtype=float), np.asarray(width, dtype=float)
    shallow = depth <= ROM_DEPTH
    return Usage(
        lut=np.where(shallow & (depth > 1), width, 0),
        bram18=np.where(shallow, 0, bram18(depth, width)),
    )


def table_memory(entries: Amount, width: Amount) -> Usage:
    """A look-up table of ``entries`` words: LUT up to 256 entries, block RAM beyond."""
    entries, width = np.asarray(entries, dtype=float), np.asarray(width, dtype=float)
    small = entries <= 4 * ROM_DEPTH
    return Usage(
        lut=np.where(small, np.ceil(entries / ROM_DEPTH) * width, 0),
        ff=width,
        bram18=np.where(small, 0, bram18(entries, width)),
    )


def fifo(depth: Amount, width: Amount) -> Usage:
    """A stream between two layers, and its counters.

    Shift registers up to ``FIFO_SRL_DEPTH`` words or ``FIFO_SRL_BITS`` bits, block RAM beyond.
    """
    depth, width = np.asarray(depth, dtype=float), np.asarray(width, dtype=float)
    counter = 2 * np.ceil(np.log2(np.maximum(depth, 2)))
    small = (depth <= FIFO_SRL_DEPTH) | (depth * width <= FIFO_SRL_BITS)
    # Two bits of up to 16 words share a LUT.
    registers = np.where(depth <= SRL_DEPTH / 2, np.ceil(width / 2), np.ceil(depth / SRL_DEPTH) * width)
    return Usage(
        lut=np.where(small, registers, 0) + counter + 5,
        ff=counter + 2,
        bram18=np.where(small, 0, bram18(depth, width)),
    )


def line_buffer(rows: Amount, row_length: Amount, window: Amount, width: Amount) -> Usage:
    """Rows kept as shift registers, and the window in flip-flops.

    Args:
        rows: full rows to keep, one less than the window's height (with its dilation).
        window: elements of the window; ``width``: bits of one element, over all channels.
    """
    return Usage(
        lut=np.ceil(np.asarray(row_length) / SRL_DEPTH) * rows * width, ff=np.asarray(window) * width
    )


def adder(bits: Amount) -> Usage:
    """One carry chain with its result registered: a LUT per bit (UG574)."""
    return Usage(lut=bits, ff=bits)


def maximum(bits: Amount) -> Usage:
    """A comparison, two bits per carry position, and a multiplexer."""
    return Usage(lut=1.5 * np.asarray(bits, dtype=float), ff=bits)


def requantise(input_bits: Amount, output_bits: Amount, dropped: Amount, rounds: bool, clips: bool) -> Usage:
    """Rounding and clipping; shifts by constants are wires.

    An adder over the bits that stay, a LUT per five dropped bits (is anything left below a half?), a LUT per
    five bits beyond the output (did it overflow?), and a multiplexer.
    """
    lost = np.maximum(np.asarray(dropped, dtype=float), 0)
    kept = np.maximum(np.asarray(input_bits, dtype=float) - lost, 1)
    rounding = np.where(lost > 0, np.minimum(kept, output_bits) + 1 + np.ceil(lost / 5), 0) * rounds
    beyond = np.maximum(kept + 1 - output_bits, 0)
    clipping = np.where(beyond > 0, np.ceil(beyond / 5) + output_bits, 0) * clips
    return Usage(lut=rounding + clipping, ff=output_bits)


def to_minifloat(input_bits: Amount, significand_bits: Amount, exponent_bits: Amount) -> Usage:
    """An integer to a minifloat: find the leading one while shifting it to the top, round, saturate.

    A left-normalising shifter of the whole input (two stages a LUT), an adder over the result's bits for the
    rounding, a LUT per five dropped bits (is anything left below a half?), and a multiplexer to saturate.
    """
    bits, kept = np.asarray(input_bits, dtype=float), np.asarray(significand_bits, dtype=float)
    stages = np.ceil(np.log2(np.maximum(bits, 2)))
    result = kept + exponent_bits
    dropped = np.maximum(bits - kept, 0)
    lut = bits * np.ceil(stages / 2) + result + np.ceil(dropped / 5) + result
    return Usage(lut=lut, ff=bits + result)


def threshold(input_bits: Amount, thresholds: Amount, output_bits: Amount) -> Usage:
    """One input against constant thresholds: all at once below 16, by bisection from 16 on.

    A constant comparison takes a LUT per two bits, a variable one a LUT per bit and its thresholds a memory.
    """
    bits, count = np.asarray(input_bits, dtype=float), np.asarray(thresholds, dtype=float)
    parallel = count * np.ceil(bits / 2) + count
    steps = np.ceil(np.log2(count + 1))
    bisected = steps * bits + np.ceil(count / ROM_DEPTH) * bits
    lut = np.where(count < 16, parallel, bisected)
    return Usage(lut=lut, ff=bits + output_bits)
