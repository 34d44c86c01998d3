"""Powers of two: a product with one is a shift."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from qhw.errors import InputError
from qhw.formats.base import as_mantissas
from qhw.formats.minifloat import LARGEST_FIELD, check_bias
from qhw.formats.modes import IntArray, Rounding
from qhw.formats.notation import ENDS, ROUNDINGS, Notation, Reader, rounding_among
from qhw.formats.operand import MultiplierOperand
from qhw.formats.rounding import exact_integers
from qhw.formats.table import Listing, TableFormat


@dataclass(frozen=True, eq=False)
class PowerOfTwo(TableFormat):
    """A sign and an exponent: ``pow2<4>`` holds 0 and ±2^-2 … ±2^4; ``upow2<8,nozero,nan>`` is OCP's E8M0.

    A code is the sign bit, if any, and the exponent field; field ``f`` stands for ``2**(f - bias)``.
    With zero, field 0 stands for it: the numbers of a minifloat without mantissa bits.

    Args:
        width: bits of a code; an exponent field has 1 to 8.
        bias: None: ``2**(field bits - 1) - 1``.
        is_signed: whether there is a sign bit; else all numbers are positive.
        zero: whether field 0 stands for 0, and not for ``2**-bias``.
        nan: all ones (under either sign) stand for NaN.
        rounding: ties go to the larger magnitude under RND_CONV (IEEE 754-2019 4.3.1, one digit).
        saturate: numbers that the format does not reach become the nearest bound. Otherwise they become
            NaN: too large ones, and zero or less where the format has only positive numbers.

    Source: E8M0 is that of OCP Microscaling Formats 1.0, as ml_dtypes writes it.
    """

    multiplier_free: ClassVar[bool] = True

    width: int
    bias: int | None = None
    is_signed: bool = True
    zero: bool = True
    nan: bool = False
    rounding: Rounding = Rounding.RND_CONV
    saturate: bool = True

    def __post_init__(self) -> None:
        low, high = 1 + self.is_signed, LARGEST_FIELD + self.is_signed
        if not (isinstance(self.width, int) and low <= self.width <= high):
            name = "pow2" if self.is_signed else "upow2"
            raise InputError(f"Width of {name}<{self.width}> must be {low} to {high} bits, not {self.width}")
        check_bias(self, self.bias)
        if not (self.saturate or self.nan):
            raise InputError(
                f"{self} has no NaN that overflow could become", hint="add nan, or let it saturate"
            )
        if self.nan and self.zero and self.field_bits == 1:
            raise InputError(f"{self} holds nothing but zero and NaN", hint="make it wider, or leave nan out")

    @property
    def field_bits(self) -> int:
        """Bits of the exponent field."""
        return self.width - self.is_signed

    @property
    def exponent_bias(self) -> int:
        """The bias that is subtracted from the exponent field."""
        return self._default_bias if self.bias is None else self.bias

    @property
    def _default_bias(self) -> int:
        return (1 << self.field_bits - 1) - 1

    @property
    def exponent(self) -> int:
        return int(self.zero) - self.exponent_bias

    @property
    def signed(self) -> bool:
        return self.is_signed

    def encode(self, values: ArrayLike) -> IntArray:
        """The codes of real values (any shape), rounded by true distance."""
        if exact_integers(values) is not None:
            return super().encode(values)
        return self._positive_only(super().encode(values), np.asarray(values).astype(np.float64) <= 0)

    def encode_mantissa(self, mantissas: ArrayLike, exponent: int) -> IntArray:
        """The codes of exact numbers ``mantissas * 2**exponent``, rounded once."""
        codes = super().encode_mantissa(mantissas, exponent)
        return self._positive_only(codes, np.asarray(as_mantissas(mantissas) <= 0))

    def _positive_only(self, codes: IntArray, unreached: ArrayLike) -> IntArray:
        if self.saturate or self.signed or self.zero:
            return codes
        return np.where(unreached, self._nan, codes)

    @property
    def _nan(self) -> int:
        return (1 << self.field_bits) - 1

    def _listing(self) -> Listing:
        sign, nan = 1 << self.field_bits, self._nan
        fields = np.arange(sign + 1, dtype=object) - int(self.zero)
        powers = np.where(fields < 0, 0, np.array(1, dtype=object) << np.maximum(fields, 0))
        magnitudes = as_mantissas(powers)
        both = (nan, nan | sign if self.is_signed else nan)
        halves = [magnitudes[:sign], -magnitudes[:sign]] if self.is_signed else [magnitudes[:sign]]
        return Listing(
            mantissas=np.concatenate(halves),
            special=dict.fromkeys(both, math.nan) if self.nan else {},
            negative_zero=sign if self.is_signed and self.zero else None,
            nan=both if self.nan else None,
            overflow=None if self.saturate else both[::-1],
            next_mantissa=int(magnitudes[nan if self.nan else sign]),
        )

    def operand(self) -> MultiplierOperand:
        """A sign and a shift, as of a minifloat without mantissa bits."""
        return MultiplierOperand(
            "minifloat",
            self.mantissa_high.bit_length() + self.signed,
            self.signed,
            exponent_bits=self.field_bits,
            stored_bits=self.width,
        )

    @property
    def encoded_by_shifting(self) -> bool:
        return self.zero

    def cpp_policy(self) -> str:
        return f"qhw::pow2<{self.field_bits}, {str(self.is_signed).lower()}, {str(self.zero).lower()}>"

    @classmethod
    def notation(cls) -> Notation:
        return Notation(
            "pow2",
            r"(u?)pow2(?!\w)|e8m0fnu(?!\w)",
            '["u"] "pow2<" width {"," ("nozero" | "nan" | rounding | "SAT" | "SPECIAL")} ">" ["@" bias]\n'
            'or "e8m0fnu", which is upow2<8,nozero,nan>',
            ("pow2<4>", "upow2<8,nozero,nan>", "e8m0fnu"),
            ("pow2", "upow2"),
        )

    @classmethod
    def read(cls, start: re.Match[str], text: Reader) -> PowerOfTwo:
        if start[1] is None:
            return cls(8, is_signed=False, zero=False, nan=True)
        text.expect("<")
        width = text.number("the width")
        options = text.further_options(["nozero"], ["nan"], ROUNDINGS, ENDS)
        zero, nan, saturate = "nozero" not in options, "nan" in options, "SPECIAL" not in options
        return cls(width, text.bias(), not start[1], zero, nan, rounding_among(options), saturate)

    def __str__(self) -> str:
        parts = [str(self.width)] + ["nozero"] * (not self.zero) + ["nan"] * self.nan
        parts += [] if self.rounding is Rounding.RND_CONV else [self.rounding.value]
        parts += [] if self.saturate else ["SPECIAL"]
        bias = "" if self.exponent_bias == self._default_bias else f"@{self.bias}"
        return f"{'' if self.is_signed else 'u'}pow2<{','.join(parts)}>{bias}"
