"""Formats that are given by the list of their codes: minifloats, k-hot, powers of two, binary, ternary."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qhw.errors import InputError
from qhw.formats.base import FloatArray, Format, as_mantissas
from qhw.formats.modes import IntArray, Rounding
from qhw.formats.rounding import exact_integers

WIDEST = 16
"""Bits of the widest code that is listed."""

_INT64 = range(-(1 << 63), 1 << 63)


@dataclass(frozen=True)
class Listing:
    """The meaning of every code of a format.

    Args:
        mantissas: one per code, 2^width in all; ignored for special and missing codes.
        special: the infinities and NaN, by code.
        missing: codes that stand for nothing.
        negative_zero: the code of -0, if there is one; codes above it that stand for 0 read as -0 too.
        nan: the codes that NaN of either sign is written as (plus, minus), if there is any.
        overflow: the codes (below, above) of what is written for numbers beyond the range; None: they
            become the nearest bound.
        next_mantissa: the mantissa that would follow the highest one; numbers that round to it overflow.
    """

    mantissas: IntArray
    special: Mapping[int, float] = field(default_factory=dict)
    missing: tuple[int, ...] = ()
    negative_zero: int | None = None
    nan: tuple[int, int] | None = None
    overflow: tuple[int, int] | None = None
    next_mantissa: int = 0


@dataclass(frozen=True)
class _SortedNumbers:
    """The numbers that a format rounds to, rising, and the code of each."""

    mantissas: IntArray
    codes: IntArray


class TableFormat(Format):
    """A format of up to 16 bits that lists its codes; what happens between its numbers is derived here.

    Rounding looks for the neighbours of the number itself: it is exact, and to the nearest by true
    distance. ``RND_CONV`` breaks a tie towards the neighbour that is an even multiple of the gap
    between the two (in a minifloat, the one with the even significand; with one significant bit, the
    larger magnitude, as IEEE 754-2019 4.3.1 says). Where the two are no multiples of their gap (-1 and
    1), the tie goes up.

    Two of them are equal when their codes stand for the same numbers.
    """

    rounding: Rounding
    """How a number between two neighbours is rounded."""

    @abstractmethod
    def _listing(self) -> Listing:
        """The meaning of every code, computed anew."""

    @property
    def encoded_by_shifting(self) -> bool:
        """Whether a code is the number's magnitude, shifted and rounded; else thresholds find the codes."""
        return False

    @cached_property
    def listing(self) -> Listing:
        """The meaning of every code."""
        return self._listing()

    @property
    def special_codes(self) -> Mapping[int, float]:
        return self.listing.special

    @property
    def has_nan(self) -> bool:
        """Whether a code stands for NaN."""
        return any(math.isnan(value) for value in self.special_codes.values())

    @property
    def has_infinity(self) -> bool:
        """Whether a code stands for infinity."""
        return any(math.isinf(value) for value in self.special_codes.values())

    @property
    def mantissa_low(self) -> int:
        return int(self._numbers.mantissas[0])

    @property
    def mantissa_high(self) -> int:
        return int(self._numbers.mantissas[-1])

    @property
    def numbers(self) -> IntArray:
        """Every mantissa of the format once, rising."""
        return self._numbers.mantissas

    @property
    def signed(self) -> bool:
        return self.mantissa_low < 0

    def codes(self) -> IntArray:
        return np.setdiff1d(np.arange(1 << self.width), np.array(self.listing.missing, dtype=np.int64))

    def mantissa_of(self, codes: ArrayLike) -> IntArray:
        array = self._checked(codes)
        special = np.isin(array, list(self.special_codes))
        if special.any():
            code = int(array[special].flat[0])
            raise InputError(
                f"Code {code:#x} of {self} is {self.special_codes[code]}, which has no mantissa",
                hint="use a format without special values, or one that saturates",
            )
        return as_mantissas(self.listing.mantissas[array])

    def code_of(self, mantissas: ArrayLike) -> IntArray:
        array = as_mantissas(mantissas)
        place, wrong = self._place_of(array)
        if wrong.any():
            raise InputError(
                f"{array[wrong].flat[0]} is not a mantissa of {self}",
                hint="from_mantissa() rounds numbers onto the format",
            )
        return np.asarray(self._numbers.codes[place])

    def holds(self, mantissas: ArrayLike) -> bool:
        """Whether every mantissa is one of the format's."""
        return not self._place_of(as_mantissas(mantissas))[1].any()

    def encode(self, values: ArrayLike) -> IntArray:
        """The codes of real values (any shape), rounded by true distance; -0 is kept where there is one.

        Exact integers may be of any size. Infinities overflow, or saturate, as finite numbers do.
        Raises InputError for NaN, unless the format has it.
        """
        exact = exact_integers(values)
        if exact is not None:
            return self.encode_mantissa(exact, 0)
        numbers = np.asarray(values).astype(np.float64)
        place = np.asarray(np.searchsorted(self._thresholds, numbers, side="right"))
        codes = self._code_at(place, np.signbit(numbers))
        if self.listing.overflow is not None:
            below, above = self.listing.overflow
            codes = np.where(np.isinf(numbers), np.where(numbers < 0, below, above), codes)
        return self._with_nan(codes, numbers)

    def encode_mantissa(self, mantissas: ArrayLike, exponent: int) -> IntArray:
        """The codes of exact numbers ``mantissas * 2**exponent``, rounded once; negative ones may give -0."""
        array = as_mantissas(mantissas)
        thresholds = self.mantissa_thresholds(exponent)
        if array.dtype == object:
            place = np.searchsorted(np.array(thresholds, dtype=object), array, side="right")
        else:
            always = sum(threshold < _INT64.start for threshold in thresholds)
            within = np.array([t for t in thresholds if t in _INT64], dtype=np.int64)
            place = np.searchsorted(within, array, side="right") + always
        return self._code_at(np.asarray(place), np.asarray(array < 0))

    def to_mantissa(self, values: ArrayLike) -> IntArray:
        """Real values rounded onto the format, as mantissas; raises InputError where one is special."""
        return self.mantissa_of(self.encode(values))

    def from_mantissa(self, mantissas: ArrayLike, exponent: int) -> IntArray:
        return self.mantissa_of(self.encode_mantissa(mantissas, exponent))

    def quantize(self, values: ArrayLike) -> FloatArray:
        return self.decode(self.encode(values))

    def decode(self, codes: ArrayLike) -> FloatArray:
        """The real values that codes stand for, exactly: -0.0, infinities and NaN included."""
        return np.asarray(self._values[self._checked(codes)])

    def canonical(self, codes: ArrayLike) -> IntArray:
        array = self._checked(codes)
        return np.asarray(self._canonical[array])

    def cpp_type(self) -> str:
        """The unsigned integer that holds a code."""
        return f"ap_uint<{self.width}>"

    @cached_property
    def _numbers(self) -> _SortedNumbers:
        """Every number of the format once; where several codes stand for one, the lowest."""
        codes = np.setdiff1d(self.codes(), np.array(list(self.special_codes), dtype=np.int64))
        mantissas, first = np.unique(self.listing.mantissas[codes], return_index=True)
        return _SortedNumbers(mantissas, codes[first])

    @cached_property
    def _targets(self) -> _SortedNumbers:
        """All rounding targets: the numbers, and beyond them the results of overflow in this mode."""
        grid, overflow = self._numbers, self.listing.overflow
        if overflow is None:
            return grid
        mantissas, codes = grid.mantissas.astype(object).tolist(), grid.codes.tolist()
        # Rounding towards the range never leaves it (IEEE 754-2019, 7.4).
        if self.rounding not in (Rounding.TRN, Rounding.TRN_ZERO):
            mantissas, codes = [*mantissas, self.listing.next_mantissa], [*codes, overflow[1]]
        if self.rounding not in (Rounding.CEIL, Rounding.TRN_ZERO) and self.signed:
            mantissas, codes = [-self.listing.next_mantissa, *mantissas], [overflow[0], *codes]
        return _SortedNumbers(as_mantissas(np.array(mantissas, dtype=object)), np.array(codes))

    @cached_property
    def _boundaries(self) -> tuple[IntArray, NDArray[np.bool_]]:
        return boundaries(self._targets.mantissas, self.rounding)

    @cached_property
    def _thresholds(self) -> FloatArray:
        """The lowest float64 that rounds to each target but the first."""
        twice, up = self._boundaries
        exact = np.ldexp(twice.astype(np.float64), self.exponent - 1)
        return np.where(up, exact, np.nextafter(exact, math.inf))

    def mantissa_thresholds(self, exponent: int) -> list[int]:
        """The lowest mantissa with that exponent that rounds to each target but the first.

        The targets of a format that saturates are its ``numbers``.
        """
        bits = self.exponent - 1 - exponent
        twice, up = self._boundaries
        if bits >= 0:
            return [(t << bits) + (not u) for t, u in zip(twice, up, strict=True)]
        return [-(-t >> -bits) if u else (t >> -bits) + 1 for t, u in zip(twice, up, strict=True)]

    @cached_property
    def _values(self) -> FloatArray:
        """The value of every code; NaN where the code stands for nothing."""
        listing = self.listing
        values = np.ldexp(listing.mantissas.astype(np.float64), self.exponent)
        values[list(listing.missing)] = math.nan
        for code, value in listing.special.items():
            values[code] = value
        if listing.negative_zero is not None:
            values[listing.negative_zero :][values[listing.negative_zero :] == 0] = -0.0
        return values

    @cached_property
    def _canonical(self) -> IntArray:
        """For every code, the code that its number is written as."""
        table = np.arange(1 << self.width)
        finite = np.setdiff1d(self.codes(), np.array(list(self.special_codes), dtype=np.int64))
        table[finite] = self.code_of(self.listing.mantissas[finite])
        return table

    def _place_of(self, mantissas: IntArray) -> tuple[IntArray, NDArray[np.bool_]]:
        """The places of mantissas among the numbers, and a mask of those that are none."""
        numbers = self._numbers.mantissas
        place = np.minimum(np.searchsorted(numbers, mantissas), len(numbers) - 1)
        return np.asarray(place), np.asarray(numbers[place] != mantissas, dtype=bool)

    def _code_at(self, place: IntArray, negative: NDArray[np.bool_]) -> IntArray:
        codes = np.asarray(self._targets.codes[place])
        zero = self.listing.negative_zero
        if zero is None:
            return codes
        return np.where(negative & (self._targets.mantissas[place] == 0), zero, codes)

    def _with_nan(self, codes: IntArray, numbers: FloatArray) -> IntArray:
        nan = np.isnan(numbers)
        if not nan.any():
            return codes
        if self.listing.nan is None:
            raise InputError(
                f"{int(nan.sum())} of {nan.size} values are NaN, which {self} does not hold",
                hint="find where they arise, or use a format with NaN, as in e4m3fn or e5m2ieee",
            )
        plus, minus = self.listing.nan
        return np.where(nan, np.where(np.signbit(numbers), minus, plus), codes)

    def _checked(self, codes: ArrayLike) -> IntArray:
        array = as_mantissas(codes)
        if array.size and (array.min() < 0 or array.max() >> self.width):
            wrong = array.min() if array.min() < 0 else array.max()
            raise InputError(f"{wrong} is not a code of {self}", allowed=f"0 to {(1 << self.width) - 1}")
        missing = np.isin(array, self.listing.missing)
        if missing.any():
            raise InputError(
                f"{array[missing].flat[0]:#x} is not a code of {self}", allowed="codes() lists them"
            )
        return array

    @cached_property
    def _key(self) -> tuple[int, int, bytes, bytes]:
        return self.width, self.exponent, self.codes().tobytes(), self._values.tobytes()

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, TableFormat) and self._key == other._key)

    def __hash__(self) -> int:
        return hash(self._key)


def boundaries(numbers: IntArray, rounding: Rounding) -> tuple[IntArray, NDArray[np.bool_]]:
    """The thresholds where rounding changes from each number to the next one.

    Args:
        numbers: strictly rising integers (int64 or object), of shape (n,).

    Returns:
        Twice the boundaries (Python integers, n-1), and whether a number on the boundary rounds up.
    """
    low, high = numbers[:-1].astype(object), numbers[1:].astype(object)
    middle = low + high
    positive, negative = np.asarray(low >= 0, dtype=bool), np.asarray(high <= 0, dtype=bool)
    match rounding:
        case Rounding.TRN:
            return 2 * high, np.ones_like(positive)
        case Rounding.CEIL:
            return 2 * low, np.zeros_like(positive)
        # Between a negative and a positive neighbour, "towards zero" says nothing: to the nearest there.
        case Rounding.TRN_ZERO:
            return np.where(positive, 2 * high, np.where(negative, 2 * low, middle)), ~negative
        case Rounding.UP:
            return np.where(positive, 2 * low, np.where(negative, 2 * high, middle)), ~positive
        case Rounding.RND:
            return middle, np.ones_like(positive)
        case Rounding.RND_MIN_INF:
            return middle, np.zeros_like(positive)
        case Rounding.RND_ZERO:
            return middle, ~positive
        case Rounding.RND_INF:
            return middle, ~negative
        case Rounding.RND_CONV:
            gap = high - low
            return middle, np.asarray((low % gap != 0) | (high // gap % 2 == 0), dtype=bool)
