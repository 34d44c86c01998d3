"""The base of every format: a finite set of numbers with one exact bit encoding."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qhw.errors import InputError
from qhw.formats.modes import IntArray, mantissa_bounds
from qhw.formats.notation import Notation, Reader
from qhw.formats.operand import MultiplierOperand

FloatArray = NDArray[np.float64]


class Format(ABC):
    """A finite set of numbers with one exact bit encoding.

    A number is ``mantissa * 2**exponent`` with an exact signed integer mantissa; its code is the
    ``width`` bits, as an unsigned integer. Some formats have codes beside their numbers: -0, infinities
    and NaN (``special_codes``), and codes that stand for nothing (missing in ``codes()``). Codes keep the
    sign of zero, mantissas do not have it; ``canonical`` is the one place where -0 becomes +0.
    NumPy only: formats never import torch.

    A class of formats is all there is to say of them: once it is defined, in a file of this package or
    elsewhere, ``parse_format`` reads its texts, and whatever handles numbers asks its methods.
    """

    multiplier_free: ClassVar[bool] = False
    """Whether its numbers are meant as factors: shifts and signs multiply by them."""

    if TYPE_CHECKING:
        # Not a property when it runs, so that a frozen dataclass can hold it as a plain field.
        @property
        @abstractmethod
        def width(self) -> int:
            """Bits of a code."""

    @property
    @abstractmethod
    def exponent(self) -> int:
        """The power of two that a mantissa of 1 stands for."""

    @property
    @abstractmethod
    def mantissa_low(self) -> int:
        """The lowest mantissa."""

    @property
    @abstractmethod
    def mantissa_high(self) -> int:
        """The highest mantissa."""

    @abstractmethod
    def to_mantissa(self, values: ArrayLike) -> IntArray:
        """Round real values (any shape) onto the format; the result's mantissas."""

    @abstractmethod
    def from_mantissa(self, mantissas: ArrayLike, exponent: int) -> IntArray:
        """Exact numbers ``mantissas * 2**exponent``, of any size, rounded once; the result's mantissas."""

    @abstractmethod
    def mantissa_of(self, codes: ArrayLike) -> IntArray:
        """The mantissas that codes stand for; raises InputError for infinity, NaN and no code at all."""

    @abstractmethod
    def code_of(self, mantissas: ArrayLike) -> IntArray:
        """The codes (unsigned) of mantissas that are in the format."""

    @abstractmethod
    def cpp_type(self) -> str:
        """The C++ type that holds one value of the format."""

    def cpp_policy(self) -> str | None:
        """The structure of ``hls/include/qhw`` that reads an element; None: its numbers are looked up."""
        return None

    @classmethod
    @abstractmethod
    def notation(cls) -> Notation:
        """How the formats of the class are written."""

    @classmethod
    @abstractmethod
    def read(cls, start: re.Match[str], text: Reader) -> Self:
        """The format of a text: ``start`` is what ``notation().start`` matched, the rest is still to be read.

        Raises InputError where the text goes wrong, and for a format that cannot be.
        """

    @abstractmethod
    def __str__(self) -> str:
        """The text that ``parse_format`` reads back to the same format, modes included."""

    @abstractmethod
    def operand(self) -> MultiplierOperand:
        """How the numbers enter a multiplier, which is what products and memories are priced by.

        Raises UnsupportedError, naming the format, where no unit multiplies by its numbers.
        """

    @property
    @abstractmethod
    def signed(self) -> bool:
        """Whether the format holds negative numbers."""

    @property
    def special_codes(self) -> Mapping[int, float]:
        """The codes of infinities and NaN, and what they stand for."""
        return {}

    def quantize(self, values: ArrayLike) -> FloatArray:
        """Real values rounded onto the format, as float64."""
        return self._to_values(self.to_mantissa(values))

    def encode(self, values: ArrayLike) -> IntArray:
        """The codes of real values, rounded onto the format first."""
        return self.code_of(self.to_mantissa(values))

    def encode_mantissa(self, mantissas: ArrayLike, exponent: int) -> IntArray:
        """The codes of exact numbers ``mantissas * 2**exponent``, rounded onto the format once."""
        return self.code_of(self.from_mantissa(mantissas, exponent))

    def decode(self, codes: ArrayLike) -> FloatArray:
        """The real values that codes stand for, as float64 (exact to 53 significant bits)."""
        return self._to_values(self.mantissa_of(codes))

    def holds(self, mantissas: ArrayLike) -> bool:
        """Whether every mantissa lies within the format's lowest and highest."""
        array = np.asarray(mantissas)
        return array.size == 0 or bool(array.min() >= self.mantissa_low and array.max() <= self.mantissa_high)

    def codes(self) -> IntArray:
        """Every code of the format in rising order, special ones included; for widths up to 20 bits."""
        if self.width > 20:
            raise InputError(f"{self} has 2^{self.width} codes", allowed="at most 2^20 are listed")
        return np.arange(1 << self.width)

    def enumerate(self) -> FloatArray:
        """The value of every code in ``codes()``: indexed by code, unless the format leaves some out."""
        return self.decode(self.codes())

    def canonical(self, codes: ArrayLike) -> IntArray:
        """The codes with one code per number: -0 becomes +0. Codes are compared in this form."""
        return as_mantissas(codes)

    def _to_values(self, mantissas: IntArray) -> FloatArray:
        return np.ldexp(mantissas.astype(np.float64), self.exponent)


def as_mantissas(values: ArrayLike) -> IntArray:
    """int64 where it suffices, Python integers (object) where it does not."""
    array = np.asarray(values)
    if array.dtype == object or array.dtype == np.uint64:
        array = array.astype(object)
        fits = array.size == 0 or (min(array.flat) >= -(1 << 63) and max(array.flat) < (1 << 63))
        return array.astype(np.int64) if fits else array
    return array.astype(np.int64)


class UniformFormat(Format):
    """Every mantissa from the lowest to the highest, in two's complement or unsigned.

    Two of them are equal when their numbers are: ``fixed<8,8>`` is ``int8``.
    """

    @property
    def mantissa_low(self) -> int:
        return mantissa_bounds(self.width, self.signed)[0]

    @property
    def mantissa_high(self) -> int:
        return mantissa_bounds(self.width, self.signed)[1]

    def mantissa_of(self, codes: ArrayLike) -> IntArray:
        array = as_mantissas(codes)
        self._check(array, 0, (1 << self.width) - 1, "code")
        if not self.signed:
            return array
        if self.width > 62:
            array = array.astype(object)
        half = 1 << (self.width - 1)
        return as_mantissas((array ^ half) - half)

    def code_of(self, mantissas: ArrayLike) -> IntArray:
        array = as_mantissas(mantissas)
        self._check(array, self.mantissa_low, self.mantissa_high, "mantissa")
        if self.width > 62:
            array = array.astype(object)
        return as_mantissas(array & ((1 << self.width) - 1))

    def operand(self) -> MultiplierOperand:
        """Integers and fixed point are multiplied as they are."""
        width = self.width
        return MultiplierOperand("integer", width, self.signed, stored_bits=width, significant=width)

    def _check(self, array: IntArray, low: int, high: int, what: str) -> None:
        if array.size and (array.min() < low or array.max() > high):
            wrong = array.min() if array.min() < low else array.max()
            raise InputError(f"{wrong} is not a {what} of {self}", allowed=f"{low} to {high}")

    def _numbers(self) -> tuple[int, bool, int | None]:
        return self.width, self.signed, self.exponent

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UniformFormat) and self._numbers() == other._numbers()

    def __hash__(self) -> int:
        return hash(self._numbers())
