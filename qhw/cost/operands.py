"""What a multiplier makes of an operand of any format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch

from qhw.cost.units import Amount, Usage, adder, multiplier, shifter, significant_bits
from qhw.formats import Binary, KHot, Minifloat, PowerOfTwo, Ternary
from qhw.formats.base import Format
from qhw.formats.khot import ones
from qhw.formats.modes import IntArray


@dataclass(frozen=True)
class Factor:
    """A sum of ``terms`` numbers of ``bits`` bits, each moved left by a run-time amount up to ``places``.

    ``bits`` 1 stands for a sign alone: nothing is multiplied by it. ``stored_bits`` is what a memory keeps:
    the code, or for k-hot the sign and shifts that drive the shifters.
    """

    bits: int
    terms: int = 1
    places: int = 0
    stored_bits: int = 0

    @property
    def width(self) -> int:
        """Bits of the number as an integer."""
        return self.bits + self.places


@singledispatch
def factor_of(format: Format) -> Factor:
    """How numbers of a format are multiplied: integers as they are, the others by significand and shift."""
    return Factor(format.width, stored_bits=format.width)


@factor_of.register
def _(format: Minifloat) -> Factor:
    # Fields 0 (subnormals) and 1 have the same weight.
    places = (1 << format.exponent_bits) - 2
    return Factor(format.mantissa_bits + 1, places=places, stored_bits=format.width)


@factor_of.register
def _(format: KHot) -> Factor:
    positions = format.width - 1 + format.csd
    each = math.ceil(math.log2(positions + 1)) + format.csd  # one position more says "no term"
    return Factor(1, format.k, positions - 1, stored_bits=1 - format.csd + format.k * each)


@factor_of.register
def _(format: PowerOfTwo) -> Factor:
    return Factor(1, places=format.mantissa_high.bit_length() - 1, stored_bits=format.width)


@factor_of.register(Binary)
@factor_of.register(Ternary)
def _(format: Binary | Ternary) -> Factor:
    return Factor(1, stored_bits=format.width)


def product(a: Factor, b: Factor, family: str) -> Usage:
    """Two operands that both change: significands multiplied, moved by both shifts, terms added up.

    A product with k terms is k shifters and k - 1 adders, with no multiplier.
    """
    significands = multiplier(a.bits, b.bits, family)
    bits, places, terms = _significand_bits(a, b), a.places + b.places, a.terms * b.terms
    moved = shifter(bits, places)
    return significands + moved.times(terms) + adder(bits + places).times(terms - 1)


def product_width(a: Factor, b: Factor) -> int:
    """Bits of one product."""
    return _significand_bits(a, b) + a.places + b.places


def unrolled_products(values: IntArray, format: Format, other: Factor) -> Amount:
    """LUT of constants times one changing operand each: EBOPs, and the shifters of a minifloat operand.

    EBOPs count the bits of a constant from its highest to its lowest one; a k-hot constant counts its ones,
    each of which is an addition.
    """
    digits = ones(abs(values), format.csd) if isinstance(format, KHot) else significant_bits(values)
    nonzero = int((values != 0).sum())
    return float(digits.sum()) * other.bits + nonzero * shifter(other.bits, other.places).lut


def _significand_bits(a: Factor, b: Factor) -> int:
    return a.bits + b.bits if min(a.bits, b.bits) > 1 else max(a.bits, b.bits)
