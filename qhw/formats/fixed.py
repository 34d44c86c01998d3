"""Fixed point, with the numbers and modes of AMD's ap_fixed."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

from numpy.typing import ArrayLike

from qhw.errors import InputError, UnsupportedError
from qhw.formats.base import UniformFormat, as_mantissas
from qhw.formats.modes import IntArray, Overflow, Rounding, requantize_mantissa
from qhw.formats.notation import OVERFLOWS, ROUNDINGS, Notation, Reader
from qhw.formats.rounding import requantize_values

LARGEST = 512
"""Bound of ``width`` and of ``|integer|``; within it float64 holds every exponent."""

AP_FIXED_ROUNDINGS = tuple(mode for mode in Rounding if mode not in (Rounding.CEIL, Rounding.UP))
"""The rounding modes that ap_fixed has."""


@dataclass(frozen=True, eq=False)
class Fixed(UniformFormat):
    """``width`` bits with a binary point: ``fixed<8,3>``, ``ufixed<4,4>``, ``fixed<8,3,TRN,WRAP>``.

    A number is ``mantissa * 2**-fraction`` with ``fraction = width - integer``. The modes say how numbers
    are brought into the format; they take no part in ``==``, since two formats are equal when their
    numbers are. SAT_SYM keeps the lowest code in the format and never writes it.

    Args:
        width: bits of a code, 1 to 512.
        integer: bits in front of the binary point, the sign included; may be negative or larger than
            ``width``. None: still to be learned (``fixed<8>``).
        signed: two's complement, or unsigned.
        rounding, overflow: the modes of everything that brings numbers into the format.

    Source: AMD UG1399, "Arbitrary Precision Fixed-Point Data Types"; checked against the ap_types headers.
    """

    width: int
    integer: int | None = None
    signed: bool = True
    rounding: Rounding = Rounding.RND_CONV
    overflow: Overflow = Overflow.SAT

    def __post_init__(self) -> None:
        if not isinstance(self.width, int) or not isinstance(self.integer, int | None):
            raise InputError(f"Bits of a fixed-point format must be integers, not {self}")
        if not 1 <= self.width <= LARGEST:
            raise InputError(f"Width of {self} must be 1 to {LARGEST} bits, not {self.width}")
        if self.integer is not None and abs(self.integer) > LARGEST:
            raise InputError(f"Integer bits of {self} must be -{LARGEST} to {LARGEST}, not {self.integer}")
        if self.overflow is Overflow.WRAP_SM and not self.signed:
            raise InputError(f"{self}: WRAP_SM needs a sign bit", hint="use WRAP, or a signed format")

    @property
    def is_learned(self) -> bool:
        """Whether the binary point is known."""
        return self.integer is not None

    def learned(self, integer: int) -> Fixed:
        """The same format with its binary point set."""
        return dataclasses.replace(self, integer=int(integer))

    def with_modes(self, rounding: Rounding, overflow: Overflow) -> Fixed:
        """The same numbers, brought in by other modes."""
        return dataclasses.replace(self, rounding=rounding, overflow=overflow)

    @property
    def fraction(self) -> int:
        """Bits behind the binary point; negative where the last bit stands for more than 1."""
        if self.integer is None:
            raise InputError(
                f"The binary point of {self} is still to be learned",
                hint=f"train it, or state it, as in {self.learned(self.width)}",
            )
        return self.width - self.integer

    @property
    def exponent(self) -> int:
        return -self.fraction

    def to_mantissa(self, values: ArrayLike) -> IntArray:
        """Real values (any shape) brought in by the format's modes; the result's mantissas.

        Exact integers may be of any size. Raises InputError for NaN, and for infinities that would wrap.
        """
        return requantize_values(values, self.fraction, self.width, self.signed, self.rounding, self.overflow)

    def from_mantissa(self, mantissas: ArrayLike, exponent: int) -> IntArray:
        """Numbers ``mantissas * 2**exponent`` brought in by the format's modes; the result's mantissas."""
        bits = self.exponent - exponent
        array = as_mantissas(mantissas)
        return requantize_mantissa(array, bits, self.width, self.signed, self.rounding, self.overflow)

    def cpp_type(self) -> str:
        """The ap_fixed type, modes included; raises UnsupportedError for modes that only QONNX has."""
        if self.rounding not in AP_FIXED_ROUNDINGS:
            raise UnsupportedError(
                f"ap_fixed has no rounding mode {self.rounding.value} ({self})",
                allowed=", ".join(mode.value for mode in AP_FIXED_ROUNDINGS),
            )
        integer = self.width - self.fraction
        modes = f"AP_{self.rounding.value},AP_{self.overflow.value}"
        return f"ap_{'' if self.signed else 'u'}fixed<{self.width},{integer},{modes}>"

    def _numbers(self) -> tuple[int, bool, int | None]:
        return self.width, self.signed, -self.fraction if self.is_learned else None

    @classmethod
    def notation(cls) -> Notation:
        prefixed = "write fixed<…> without the prefix; its modes default to RND_CONV and SAT"
        return Notation(
            "fixed",
            r"(u?)fixed(?!\w)",
            '["u"] "fixed<" width ["," integer bits] ["," rounding ["," overflow]] ">"\n'
            "without integer bits, the binary point is learned",
            ("fixed<8,3>", "ufixed<4,4>", "fixed<8,3,RND_CONV,SAT>", "fixed<8>"),
            ("fixed", "ufixed"),
            {"ap_": prefixed, "ac_": prefixed},
        )

    @classmethod
    def read(cls, start: re.Match[str], text: Reader) -> Fixed:
        text.expect("<")
        width, integer = text.number("the width"), None
        more = text.take(",")
        if more and (integer := text.optional_number()) is not None:
            more = text.take(",")
        rounding, overflow = Rounding.RND_CONV, Overflow.SAT
        if more:
            expected = "a mode of rounding" if integer is not None else "integer bits or a mode of rounding"
            rounding = ROUNDINGS[text.word(expected, ROUNDINGS)]
            more = text.take(",")
            if more:
                overflow = OVERFLOWS[text.word("a mode of overflow", OVERFLOWS)]
        text.expect(">", "'>'" if more else "',' or '>'")
        return cls(width, integer, not start[1], rounding, overflow)

    def __str__(self) -> str:
        """The notation that ``parse_format`` reads; RND_CONV and SAT are left out."""
        parts = [str(self.width)]
        if self.integer is not None:
            parts.append(str(self.integer))
        if (self.rounding, self.overflow) != (Rounding.RND_CONV, Overflow.SAT):
            parts += [self.rounding.value, self.overflow.value]
        return f"{'' if self.signed else 'u'}fixed<{','.join(parts)}>"
