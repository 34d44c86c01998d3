"""What a multiplier makes of an operand of any format."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import singledispatch
from typing import Literal, TypeAlias

from qhw.formats import Binary, KHot, Minifloat, PowerOfTwo, Ternary
from qhw.formats.base import Format

Kind: TypeAlias = Literal["integer", "minifloat", "khot", "binary"]


@dataclass(frozen=True)
class Operand:
    """How numbers of a format enter a multiplier.

    Args:
        kind: the units that take it.
        width: bits of the number as an integer, its sign among them where it has one.
        signed: whether it has one.
        exponent_bits, mantissa_bits: of a minifloat.
        terms, csd: of k-hot: how many shifts, and whether each has a sign.
        stored_bits: what a memory keeps: the code, or for k-hot the signs and shifts.
        significant: bits of what is multiplied, before anything is shifted; 1 where that is a sign or 0.
    """

    kind: Kind
    width: int
    signed: bool = True
    exponent_bits: int = 0
    mantissa_bits: int = 0
    terms: int = 1
    csd: bool = False
    stored_bits: int = 0
    significant: int = 1


@singledispatch
def operand_of(format: Format) -> Operand:
    """Integers and fixed point are multiplied as they are, the others by significand, shifts or sign."""
    width = format.width
    return Operand("integer", width, format.mantissa_low < 0, stored_bits=width, significant=width)


@operand_of.register
def _(format: Minifloat) -> Operand:
    exponent, mantissa = format.exponent_bits, format.mantissa_bits
    # Fields 0 (subnormals) and 1 have the same weight.
    width = mantissa + 2 + (1 << exponent) - 2
    return Operand(
        "minifloat",
        width,
        exponent_bits=exponent,
        mantissa_bits=mantissa,
        stored_bits=format.width,
        significant=mantissa + 1,
    )


@operand_of.register
def _(format: KHot) -> Operand:
    positions = format.width - 1 + format.csd
    each = math.ceil(math.log2(positions + 1)) + format.csd  # one position more says "no term"
    stored = 1 - format.csd + format.k * each
    return Operand("khot", format.width, terms=format.k, csd=format.csd, stored_bits=stored)


@operand_of.register
def _(format: PowerOfTwo) -> Operand:
    # The numbers of a minifloat without mantissa bits.
    width = format.mantissa_high.bit_length() + format.signed
    return Operand(
        "minifloat", width, format.signed, exponent_bits=format.field_bits, stored_bits=format.width
    )


@operand_of.register
def _(format: Ternary) -> Operand:
    return Operand("integer", 2, stored_bits=format.width)


@operand_of.register
def _(format: Binary) -> Operand:
    return Operand("binary", 2, stored_bits=format.width)


def product_width(a: Operand, b: Operand) -> int:
    """Bits of one product, its sign among them."""
    return a.width + b.width - (a.signed and b.signed and (a.kind != "integer" or b.kind != "integer"))
