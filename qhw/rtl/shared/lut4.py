"""LUT counts of circuits on ECP5 that a person can derive: four inputs a LUT, two positions a carry cell.

A CCU2C adds two bits in two LUT sites and does nothing else (FPGA-TN-02216): gates in front of an adder have
LUTs of their own, and an adder of an odd number of bits has a position that is not used. Sums of up to four
bits are built of LUTs. What :mod:`qhw.rtl.shared.structure` is for LUTs of six inputs.
"""

from __future__ import annotations

from functools import cache
from math import ceil
from typing import TypeAlias

from qhw.rtl.shared.structure import counter_bits, is_power

_INPUTS = 4
"""Inputs of a LUT."""

_WITHOUT_CARRY = (0, 1, 2, 3, 5)
"""LUTs of an adder, by the bits of its sum: up to four make no carry chain."""


def adder(bits: int, built: int = 0) -> int:
    """LUT sites of a sum of so many bits; ``built`` bits where the highest of them are not used."""
    if max(bits, built) < len(_WITHOUT_CARRY):
        return _WITHOUT_CARRY[bits]
    return 2 * ceil(bits / 2)


def sum_of(inputs: int, bits: int) -> int:
    """LUT sites of a sum of so many bits that comes from a few different ones: each bit may fit one LUT."""
    return bits if inputs <= _INPUTS and bits < len(_WITHOUT_CARRY) else adder(bits)


@cache
def adder_tree(inputs: int, bits: int) -> int:
    """LUTs of a balanced adder tree, whose sums grow by one bit a level."""
    total = 0
    while inputs > 1:
        total += inputs // 2 * adder(bits + 1)
        inputs, bits = (inputs + 1) // 2, bits + 1
    return total


def accumulator(bits: int) -> int:
    """LUTs of ``cost_models/rtl/accumulate.v``: the sum so far is gated by ``first``."""
    return bits + adder(bits)


def signed_accumulator(bits: int, term_bits: int) -> int:
    """LUTs of ``accumulate_signed.v``: every bit of the term is inverted by its sign."""
    return bits + min(term_bits, bits) + adder(bits + 1)


def negation(bits: int) -> int:
    """LUTs that negate an unsigned number where a sign says so; up to two bits need no carry chain."""
    return bits + adder(bits + 2) if bits > 2 else bits


def reduction(inputs: int) -> int:
    """LUTs that find whether any of some bits is set, three new ones a LUT."""
    return ceil(max(inputs - 1, 0) / 3)


_SHORT_COMPARISONS = (0, 1, 1, 2, 3, 4, 5.5)
"""LUTs of a comparison without a carry chain, among many in a threshold unit; six bits take five or six."""


def comparison(bits: int) -> float:
    """LUTs of ``cost_models/rtl/at_least.v``: two for two bits, and a chain whose first bit is constant."""
    if bits < len(_SHORT_COMPARISONS):
        return _SHORT_COMPARISONS[bits]
    pairs = ceil(bits / 2)
    return 2 * pairs + adder(pairs + 1)


_SHORT_PRODUCTS = {
    (2, 1): (2, 3), (2, 2): (4, 4), (3, 2): (8, 9), (3, 3): (13, 19),
}  # fmt: skip
"""Products without a carry chain in their rows, by the operands: the shorter one is unsigned, or signed."""


@cache
def multiplier(a_bits: int, b_bits: int, a_signed: bool, b_signed: bool) -> int:
    """A product in LUTs, as ``cost_models/mapping/mul_rows.v`` builds it: gates, rows, and their tree."""
    if b_bits > a_bits:
        a_bits, b_bits, a_signed, b_signed = b_bits, a_bits, b_signed, a_signed
    if (a_bits, b_bits) in _SHORT_PRODUCTS:
        return _SHORT_PRODUCTS[a_bits, b_bits][b_signed]
    if b_bits == 1:
        negated = b_signed and a_bits > 1
        return a_bits + (adder(a_bits + 1, a_bits + 2) if negated else 0)
    paired, single = divmod(b_bits, 2)
    rows = paired + (1 if single and b_signed else 0)
    return a_bits * b_bits + rows * adder(a_bits + 1) + _row_tree(a_bits, b_bits)


def _row_tree(a_bits: int, b_bits: int) -> int:
    total, half, width, rows = 0, 1, a_bits + b_bits, ceil(b_bits / 2)
    while half < rows:
        for first in range(0, rows - half, 2 * half):
            last = min(first + 2 * half, rows)
            total += adder(min(a_bits + 2 * (last - first), width - 2 * first) - 2 * half)
        half *= 2
    return total


_Source: TypeAlias = "int | None"
"""A bit of what is shifted; None: 0."""

_Choice: TypeAlias = "tuple[_Source, _Source]"


@cache
def shift_stage(width: int, step: int, amounts: int, read: frozenset[int], signed: bool) -> int:
    """LUTs of a left shift by 0 to ``amounts`` - 1 steps, where only some bits of the result are read.

    Each bit of the amount chooses one of two. A choice by the first feeds two by the second, and has a LUT of
    its own; a gate has none.
    """
    if amounts == 1:
        return 0

    def source(bit: int) -> _Source:
        if bit < 0:
            return None
        return bit if bit < width else width - 1 if signed else None

    def choice(bit: int) -> _Choice:
        return source(bit), source(bit - step)

    if amounts == 2:
        return sum(len({*choice(bit)}) > 1 for bit in read)
    last, outputs = 2 * step, 0
    choices: set[int] = set()
    for bit in read:
        low = choice(bit)
        high = choice(bit - last) if amounts == 4 else (source(bit - last),) * 2
        outputs += len({*low, *high}) > 1
        if len({*low, *high} - {None}) > _BESIDE_SELECTS:
            choices |= {place for place, pair in ((bit, low), (bit - last, high)) if _takes_two(pair)}
    return outputs + len(choices)


_BESIDE_SELECTS = 2
"""Bits that a LUT chooses from by itself."""


def _takes_two(choice: _Choice) -> bool:
    """Whether a choice is between two bits; else it is a gate, or just a bit."""
    return None not in choice and choice[0] != choice[1]


@cache
def shift_up_to(bits: int, places: int, signed: bool) -> int:
    """LUTs of ``cost_models/rtl/shift_up_to.v``."""
    if bits == 1 and places < 1 << _SELECTS:
        return places + 1  # decoded, and a gate
    total, step, luts = bits + places, 1, _for_depth(bits, places)
    while places:
        amounts = min(places, 3) + 1
        width, bits = bits, min(bits + (amounts - 1) * step, total)
        luts += shift_stage(width, step, amounts, frozenset(range(bits)), signed)
        places, step = places // 4, 4 * step
    return luts


def _for_depth(bits: int, places: int) -> int:
    """More LUTs, where the choices of two whole stages behind each other would be too deep for abc.

    Measured: it then chooses with amounts that are decoded beside the first stage, and shares less.
    """
    amounts, beyond = min(places // 4, 3) + 1, bits - _SHALLOW
    most = 5 if places < 16 else 3
    return (amounts - 2) * (3 * min(beyond, most) + 2) if amounts > 2 and beyond > 0 else 0


_SHALLOW = 7
"""Bits up to which it does not."""

_SELECTS = 3
"""Bits of the amount that a LUT takes in beside what is shifted."""


@cache
def leading_zeros(bits: int) -> int:
    """LUTs of ``cost_models/rtl/leading_zeros.v``: whether the upper half has a one, then the choice."""
    if bits < 2:
        return 0
    half = 1 << (bits.bit_length() - 1)
    return reduction(half) + bits - half + leading_zeros(half - 1)


def leading_bit(exponent_bits: int) -> int:
    """Whether an exponent field is 0; up to three bits are looked at by the gates that the bit goes into."""
    return reduction(exponent_bits) if exponent_bits > _SELECTS else 0


def places(exponent_bits: int) -> int:
    """LUTs that take the leading bit off an exponent field."""
    if exponent_bits == 1:
        return 0
    return increment(exponent_bits)


_SHORT_PLACES = {(2, 2): 3, (2, 3): 8, (3, 3): 12}
"""LUTs of the sum of two short exponents' places, by their bits."""


def sum_of_places(a_bits: int, b_bits: int) -> int:
    """LUTs that add the places of two minifloats, which their exponents say."""
    short, long = sorted((a_bits, b_bits))
    if (short, long) in _SHORT_PLACES:
        return _SHORT_PLACES[short, long]
    both = places(short) + places(long)
    return both if short == 1 else both + adder(((1 << short) + (1 << long) - 4).bit_length())


def counter(count: int) -> int:
    """LUTs of ``cost_models/rtl/cycle.v``: the next number, a comparison with the last, maybe a reset."""
    bits = counter_bits(count)
    if bits < 2:
        return bits
    return increment(bits) + reduction(bits) + (not is_power(count))


def increment(bits: int) -> int:
    """LUTs that add 1 to a number: one a bit where there is no carry chain."""
    return bits if bits <= _INPUTS else adder(bits)
