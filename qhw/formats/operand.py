"""Numbers of every format as operands of a multiplier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Multiplication: TypeAlias = Literal["integer", "minifloat", "khot", "binary"]
"""Ways to multiply by a number: as an integer, by significand and shift, by several shifts, by a sign."""


@dataclass(frozen=True)
class MultiplierOperand:
    """How numbers of a format enter a multiplier.

    Args:
        kind: the way to multiply by them, which decides the units.
        width: bits of the number as an integer, the sign bit included where it has one.
        signed: whether it has a sign bit.
        exponent_bits, mantissa_bits: bits of a minifloat's fields.
        terms: shifts of a k-hot number.
        csd: whether each shift has a sign of its own.
        stored_bits: bits of a weight in a memory: the code, for k-hot the signs and shifts, or the integer
            of a code that would have to be looked up.
        significant: bits of what is multiplied, before anything is shifted; 1 where that is a sign or 0.
        lookup_bits: bits of a code that a table turns into the integer; 0 where no table is needed.
    """

    kind: Multiplication
    width: int
    signed: bool = True
    exponent_bits: int = 0
    mantissa_bits: int = 0
    terms: int = 1
    csd: bool = False
    stored_bits: int = 0
    significant: int = 1
    lookup_bits: int = 0

    @classmethod
    def looked_up(cls, code_bits: int, low: int, high: int) -> MultiplierOperand:
        """Numbers without a structure that a circuit could use: integers that a table has for every code.

        Args:
            low, high: the lowest and the highest mantissa.
        """
        signed = low < 0
        width = max(high.bit_length(), (-low - 1).bit_length() if signed else 1) + signed
        return cls("integer", width, signed, stored_bits=width, significant=width, lookup_bits=code_bits)


def product_width(a: MultiplierOperand, b: MultiplierOperand) -> int:
    """Bits of one product, the sign bit included."""
    return a.width + b.width - (a.signed and b.signed and (a.kind != "integer" or b.kind != "integer"))
