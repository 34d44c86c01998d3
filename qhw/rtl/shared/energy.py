"""Energy of additions, products and memory accesses at published costs of a 45 nm process; relative.

Source: M. Horowitz, "Computing's energy problem", ISSCC 2014, figure 1.1.9; integer additions and products
as fitted to it by QKeras's qtools: 0.003125 b pJ, and 0.002995 b^2 + 0.00104 b pJ. An FPGA takes several
times as much for the same operation: the figures compare designs, and promise no battery's life.
"""

from __future__ import annotations

ADD_PJ_PER_BIT = 0.003125
MULTIPLY_PJ_PER_BIT2, MULTIPLY_PJ_PER_BIT = 0.002995, 0.00104

MEMORY_PJ_PER_BIT = 10 / 64
"""Energy of one bit of an 8 KB memory, the size nearest to a block RAM's."""


def addition_pj(bits: float) -> float:
    """Energy of adding two integers."""
    return ADD_PJ_PER_BIT * bits


def multiply_pj(a_bits: float, b_bits: float) -> float:
    """Energy of multiplying two integers; a single bit only gates the other."""
    if min(a_bits, b_bits) <= 1:
        return addition_pj(max(a_bits, b_bits))
    return MULTIPLY_PJ_PER_BIT2 * a_bits * b_bits + MULTIPLY_PJ_PER_BIT * (a_bits + b_bits) / 2


def tree_pj(count: int, bits: int) -> float:
    """Additions of a balanced tree."""
    total = 0.0
    while count > 1:
        total += (count // 2) * addition_pj(bits)
        count, bits = (count + 1) // 2, bits + 1
    return total
