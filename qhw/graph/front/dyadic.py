"""Exact constants: arrays of integers times powers of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.formats import TableFormat
from qhw.formats.integer import as_mantissas
from qhw.formats.modes import IntArray
from qhw.graph.ir import Exponent


@dataclass(frozen=True)
class Dyadic:
    """``mantissa * 2**exponent``, element by element.

    Args:
        mantissa: integers.
        exponent: int64 of the same rank, each axis as long as the mantissa's or 1.
        on_grid: whether a quantizer chose the numbers (then they are as short as they get).
        format: the format that lists its codes, if all mantissas are numbers of one; arithmetic forgets it.
    """

    mantissa: IntArray
    exponent: NDArray[np.int64]
    on_grid: bool = True
    format: TableFormat | None = None

    @classmethod
    def of(cls, values: Any, *, on_grid: bool = False) -> Dyadic:
        """Finite numbers (integers or floats) as odd integers, each with an exponent of its own."""
        array = np.asarray(values)
        if array.dtype.kind in "biu":
            return cls(as_mantissas(array), np.zeros((1,) * array.ndim, np.int64), on_grid).reduced()
        fraction, power = np.frexp(array.astype(np.float64))
        mantissa = np.ldexp(fraction, 53).astype(np.int64)
        zeros = _trailing_zeros(mantissa)
        power = power.astype(np.int64) - 53 + zeros
        finest = int(power[mantissa != 0].min()) if (mantissa != 0).any() else 0
        return cls(np.asarray(mantissa >> zeros), np.where(mantissa == 0, finest, power), on_grid)

    @classmethod
    def power(cls, exponent: int) -> Dyadic:
        """The number ``2**exponent``."""
        return cls(np.array(1), np.array(exponent))

    @property
    def ndim(self) -> int:
        return int(self.mantissa.ndim)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.mantissa.shape)

    @property
    def width(self) -> int:
        """Bits that the mantissas need at one exponent, without a sign."""
        present = np.asarray(self.mantissa != 0)
        if not present.any():
            return 0
        exponents = self._exponents[present]
        lengths = np.array([abs(int(m)).bit_length() for m in self.mantissa[present]])
        return int((lengths + exponents).max() - exponents.min())

    @property
    def _exponents(self) -> NDArray[np.int64]:
        return np.broadcast_to(self.exponent, self.shape)

    def reduced(self) -> Dyadic:
        """At one exponent, the coarsest that holds every number; short again after exact arithmetic."""
        flat = self.at(int(self.exponent.min())) if self.exponent.size else self
        zeros = min((_twos(int(v)) for v in flat.mantissa.flat if v), default=0)
        if not flat.mantissa.any():
            return Dyadic(flat.mantissa, np.zeros_like(flat.exponent), self.on_grid)
        return Dyadic(as_mantissas(flat.mantissa >> zeros), flat.exponent + zeros, self.on_grid)

    def at(self, exponent: int) -> Dyadic:
        """The same numbers at one exponent that is no coarser than any of theirs."""
        shift = np.broadcast_to(self.exponent - exponent, self.shape)
        mantissa = _shifted(self.mantissa, shift)
        return Dyadic(mantissa, np.full((1,) * self.ndim, exponent), self.on_grid)

    def float32(self) -> NDArray[np.float32]:
        """The numbers as float32: exactly those that the file stores."""
        return np.asarray(np.ldexp(self.mantissa.astype(np.float64), self.exponent), dtype=np.float32)

    def fractions(self) -> list[Fraction]:
        """The numbers, row-major."""
        exponents = self._exponents
        return [_fraction(int(m), int(e)) for m, e in zip(self.mantissa.flat, exponents.flat, strict=True)]

    def moved(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> Dyadic:
        """What moves elements about, applied to mantissas and exponents alike."""
        exponent = function(self._exponents)
        mantissa = np.asarray(function(self.mantissa))
        return Dyadic(mantissa, exponent.astype(np.int64), self.on_grid, self.format).packed()

    def packed(self) -> Dyadic:
        """Exponents stored once along every axis that they do not vary along."""
        exponent = self.exponent
        for axis in range(self.ndim):
            first = exponent.take([0], axis=axis) if exponent.shape[axis] else exponent
            exponent = first if (exponent == first).all() else exponent
        return Dyadic(self.mantissa, exponent, self.on_grid, self.format)

    def typed(self, axis: int | None = None) -> tuple[IntArray, Exponent]:
        """Mantissas and the exponent of a graph constant, which varies along ``axis`` at most."""
        packed = self.packed()
        varying = [i for i, n in enumerate(packed.exponent.shape) if n > 1]
        if not varying:
            value = int(packed.exponent.reshape(-1)[0]) if packed.exponent.size else 0
            return packed.mantissa, Exponent.scalar(value)
        if varying == [axis]:
            return packed.mantissa, Exponent(tuple(int(e) for e in packed.exponent.reshape(-1)), axis)
        finest = int(packed.exponent.min())
        return packed.at(finest).mantissa, Exponent.scalar(finest)

    def __neg__(self) -> Dyadic:
        return Dyadic(-self.mantissa, self.exponent, self.on_grid)

    def __mul__(self, other: Dyadic) -> Dyadic:
        a, b = _ranked(self, other)
        product = a.mantissa.astype(object) * b.mantissa.astype(object)
        return Dyadic(as_mantissas(product), a.exponent + b.exponent, self.on_grid and other.on_grid)

    def __add__(self, other: Dyadic) -> Dyadic:
        a, b = _ranked(self, other)
        finest = min(int(a.exponent.min()), int(b.exponent.min()))
        total = a.at(finest).mantissa.astype(object) + b.at(finest).mantissa.astype(object)
        exponent = np.full((1,) * a.ndim, finest)
        return Dyadic(as_mantissas(total), exponent, self.on_grid and other.on_grid)


def _ranked(a: Dyadic, b: Dyadic) -> tuple[Dyadic, Dyadic]:
    rank = max(a.ndim, b.ndim)

    def padded(d: Dyadic) -> Dyadic:
        lead = (1,) * (rank - d.ndim)
        return Dyadic(
            d.mantissa.reshape(lead + d.shape), d.exponent.reshape(lead + d.exponent.shape), d.on_grid
        )

    return padded(a), padded(b)


def _shifted(mantissa: IntArray, shift: NDArray[np.int64]) -> IntArray:
    """Left shifts that differ by element, without overflow."""
    if shift.size == 0 or not shift.any():
        return mantissa
    if int(shift.max()) <= 40 and int(np.abs(mantissa).max()).bit_length() + int(shift.max()) <= 62:
        return np.asarray(mantissa << shift)
    wide = np.array([int(m) << int(s) for m, s in zip(mantissa.flat, shift.flat, strict=True)], dtype=object)
    return as_mantissas(wide.reshape(mantissa.shape))


def _trailing_zeros(mantissa: NDArray[np.int64]) -> NDArray[np.int64]:
    lowest = (mantissa & -mantissa).astype(np.float64)
    return np.where(mantissa == 0, 0, np.frexp(lowest)[1] - 1).astype(np.int64)


def _twos(value: int) -> int:
    return (value & -value).bit_length() - 1


def _fraction(mantissa: int, exponent: int) -> Fraction:
    return Fraction(mantissa) * Fraction(2) ** exponent


def power_of_two(value: Fraction) -> int | None:
    """The exponent of a positive power of two; None for any other number."""
    if value <= 0:
        return None
    numerator, denominator = value.numerator, value.denominator
    if numerator & (numerator - 1) or denominator & (denominator - 1):
        return None
    return numerator.bit_length() - denominator.bit_length()
