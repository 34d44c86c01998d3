"""Two's-complement and unsigned integers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from numpy.typing import ArrayLike

from qhw.errors import InputError
from qhw.formats.base import UniformFormat, as_mantissas
from qhw.formats.modes import IntArray, Overflow, Rounding, requantize_mantissa
from qhw.formats.notation import Notation, Reader
from qhw.formats.rounding import requantize_values

__all__ = ["Integer", "as_mantissas"]


@dataclass(frozen=True, eq=False)
class Integer(UniformFormat):
    """Integers of ``bits`` bits: ``int8``, ``uint4``. The scale, if any, is the tensor's exponent.

    Args:
        bits: width of a code, at least 1.
        is_signed: two's complement, or unsigned.
    """

    bits: int
    is_signed: bool = True

    def __post_init__(self) -> None:
        if self.bits < 1:
            raise InputError(f"Width of an integer must be a positive number of bits, not {self.bits}")

    @classmethod
    def holding(cls, low: int, high: int) -> Integer:
        """The narrowest integer format that holds every number in ``[low, high]``."""
        if low >= 0:
            return cls(max(1, int(high).bit_length()), False)
        return cls(max(int(high).bit_length(), (-int(low) - 1).bit_length()) + 1, True)

    @property
    def width(self) -> int:
        return self.bits

    @property
    def exponent(self) -> int:
        return 0

    @property
    def signed(self) -> bool:
        return self.is_signed

    def to_mantissa(self, values: ArrayLike) -> IntArray:
        """Round to nearest even, then saturate."""
        return requantize_values(values, 0, self.bits, self.is_signed, Rounding.RND_CONV, Overflow.SAT)

    def from_mantissa(self, mantissas: ArrayLike, exponent: int) -> IntArray:
        """Numbers ``mantissas * 2**exponent`` to nearest even, then saturated."""
        array = as_mantissas(mantissas)
        modes = Rounding.RND_CONV, Overflow.SAT
        return requantize_mantissa(array, -exponent, self.bits, self.is_signed, *modes)

    def cpp_type(self) -> str:
        return f"ap_{'' if self.is_signed else 'u'}int<{self.bits}>"

    def cpp_policy(self) -> str:
        return f"qhw::integer<{self.bits}, {str(self.is_signed).lower()}>"

    @classmethod
    def notation(cls) -> Notation:
        words = ("int", "uint")
        return Notation("integer", r"(u?)int(\d{1,4})(?!\d)", '["u"] "int" width', ("int8", "uint4"), words)

    @classmethod
    def read(cls, start: re.Match[str], text: Reader) -> Integer:
        return cls(int(start[2]), not start[1])

    def __str__(self) -> str:
        return f"{'int' if self.is_signed else 'uint'}{self.bits}"
