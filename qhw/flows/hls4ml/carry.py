"""How a tensor of the exact graph travels in the project: its layer, type, and order of elements."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qhw.errors import UnsupportedError
from qhw.formats.base import as_mantissas
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.formats.table import TableFormat
from qhw.graph.ir import Exponent, TensorType

Order = NDArray[np.int64]

BRIDGE_BITS = 53
"""Tensors go in and out of the C-simulation as float64, which is exact up to this width."""

WIDEST = 1024
"""Bits of the widest ap_int without a compiler's flag (AP_INT_MAX_W)."""

CAST_ROUNDING = {
    Rounding.RND,
    Rounding.RND_ZERO,
    Rounding.RND_MIN_INF,
    Rounding.RND_INF,
    Rounding.RND_CONV,
    Rounding.TRN,
    Rounding.TRN_ZERO,
}
"""The rounding modes that an ap_fixed type does by itself."""


@dataclass(frozen=True)
class FixedType:
    """An ap_fixed type: ``bits`` wide, its last bit stands for ``2**exponent``."""

    bits: int
    signed: bool
    exponent: int
    rounding: Rounding = Rounding.TRN
    overflow: Overflow = Overflow.WRAP

    @classmethod
    def holding(cls, mantissas: IntArray, exponent: int) -> FixedType:
        """The narrowest type for constants; zeros at the low end that all of them share are dropped."""
        values = [int(v) for v in np.unique(mantissas) if v]
        spare = min(((v & -v).bit_length() - 1 for v in values), default=0)
        low, high = min((0, *values)) >> spare, max((0, *values)) >> spare
        kind = Integer.holding(low, high)
        return cls(kind.bits, kind.is_signed, exponent + spare)

    def plain(self) -> FixedType:
        """The type without modes: what a tensor is once it has been written."""
        return FixedType(self.bits, self.signed, self.exponent)

    @property
    def integer(self) -> int:
        """Bits left of the binary point; may be negative, or more than ``bits``."""
        return self.bits + self.exponent

    def hls4ml(self) -> str:
        """The type for hls4ml's configuration; integers as fixed point, since ``int<2>`` reads as ternary."""
        name = "fixed" if self.signed else "ufixed"
        return f"{name}<{self.bits},{self.integer},{self.rounding.value},{self.overflow.value}>"

    def cpp(self) -> str:
        name = "ap_fixed" if self.signed else "ap_ufixed"
        modes = (Rounding.TRN, Overflow.WRAP)
        if (self.rounding, self.overflow) == modes:
            return f"{name}<{self.bits}, {self.integer}>"
        return f"{name}<{self.bits}, {self.integer}, AP_{self.rounding.value}, AP_{self.overflow.value}>"


@dataclass(frozen=True)
class Stored:
    """Constants that a layer stores: value = mantissa * 2**exponent, in a type that holds each exactly."""

    mantissas: IntArray
    exponent: int
    type: FixedType

    @classmethod
    def holding(cls, mantissas: IntArray, exponent: int) -> Stored:
        return cls(mantissas, exponent, FixedType.holding(mantissas, exponent))

    @classmethod
    def units(cls, mantissas: IntArray) -> Stored:
        """Integers in a type whose last bit is 1, for a kernel that reads the bits."""
        mantissas = as_mantissas(mantissas)
        kind = Integer.holding(int(mantissas.min(initial=0)), int(mantissas.max(initial=0)))
        return cls(mantissas, 0, FixedType(kind.bits, kind.is_signed, 0))

    @classmethod
    def bits(cls, codes: IntArray, width: int) -> Stored:
        """Codes of that width."""
        return cls(codes, 0, FixedType(width, False, 0))


@dataclass(frozen=True)
class Carried:
    """A graph tensor in the project.

    ``layer`` writes it with the shape ``dims`` (the last axis is what a stream packs); ``order`` gives, for
    every element as it travels, its row-major position in the graph's tensor. The type's exponent is
    nominal where the graph's varies along an axis: what travels is ``mantissa * 2**type.exponent``.
    Tensors of a ``format`` that lists its codes travel as those codes, unsigned integers.
    """

    layer: str
    dims: tuple[int, ...]
    order: Order
    type: FixedType
    format: TableFormat | None = None

    @property
    def size(self) -> int:
        return int(self.order.size)

    def places(self) -> Order:
        """The place in the stream of every row-major position's element."""
        travelling = np.empty_like(self.order)
        travelling[self.order] = np.arange(self.size)
        return travelling

    def arranged(self, order: Order, dims: tuple[int, ...]) -> bool:
        """Whether it already travels in that order and shape."""
        return self.dims == dims and np.array_equal(self.order, order)

    def reordered(self, new_position: Order) -> Carried:
        """The same elements under the row-major positions of another graph tensor."""
        return replace(self, order=new_position[self.order])


def fixed_type(kind: TensorType, where: str) -> FixedType:
    """The type that carries a graph tensor: its mantissas, or the codes of a format that lists them."""
    if isinstance(kind.format, TableFormat):
        return FixedType(kind.format.width, False, 0)
    if not isinstance(kind.format, Integer):
        raise UnsupportedError(
            f"{where}: the hls4ml flow cannot carry the format {kind.format}",
            allowed="integers, minifloats, k-hot, powers of two, binary, ternary",
        )
    check_width(where, kind.format.bits)
    return FixedType(kind.format.bits, kind.format.is_signed, nominal_exponent(kind.exponent))


def check_width(where: str, bits: int) -> None:
    """Refuse numbers that the flow has no type for."""
    if bits > WIDEST:
        raise UnsupportedError(
            f"{where}: its exact result takes {bits} bits",
            allowed=f"up to {WIDEST} bits in the hls4ml flow (AP_INT_MAX_W)",
            hint="quantise in front of it, or give its weights or input a format with fewer exponent bits",
        )


def listed(kind: TensorType) -> TableFormat | None:
    """The format of a tensor that travels as codes."""
    return kind.format if isinstance(kind.format, TableFormat) else None


def nominal_exponent(exponent: Exponent) -> int:
    """The exponent itself, or the finest where it varies."""
    return min(exponent.values)


def natural_order(shape: tuple[int, ...]) -> Order:
    return np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.int64)


def channels_last(shape: tuple[int, ...]) -> tuple[Order, tuple[int, ...]]:
    """Order and dims of a (C, *spatial) tensor with the channel last; at least one axis."""
    if len(shape) < 2:
        return natural_order(shape), shape or (1,)
    positions = natural_order(shape).reshape(shape)
    return np.moveaxis(positions, 0, -1).reshape(-1), (*shape[1:], shape[0])


def physical(carried: Carried, mantissas: IntArray) -> NDArray[np.float64]:
    """A batch of mantissas (N, *shape) as the project takes it: (N, size) float64, ordered, scaled."""
    flat = mantissas.reshape(mantissas.shape[0], carried.size)[:, carried.order]
    if carried.format is not None:
        flat = carried.format.code_of(flat)
    return np.ldexp(flat.astype(np.float64), carried.type.exponent)


def logical(carried: Carried, values: NDArray[np.float64], shape: tuple[int, ...]) -> IntArray:
    """Mantissas (N, *shape) from the project's results (N, size)."""
    travelled = np.ldexp(values, -carried.type.exponent).astype(np.int64)
    if carried.format is not None:
        travelled = carried.format.mantissa_of(travelled)
    mantissas = np.empty_like(travelled)
    mantissas[:, carried.order] = travelled
    return mantissas.reshape(values.shape[0], *shape)


def scaled(mantissas: IntArray, shifts: IntArray) -> IntArray:
    """Constants shifted left by ``shifts`` bits (broadcast): int64 where all fit, else Python integers."""
    highest = int(np.max(shifts, initial=0))
    largest = max(int(mantissas.max(initial=0)), -int(mantissas.min(initial=0)))
    if np.min(shifts, initial=0) >= 0 and largest.bit_length() + highest < 64:
        return np.asarray(mantissas.astype(np.int64) << np.asarray(shifts, dtype=np.int64))
    factors = np.array([1 << int(s) for s in np.asarray(shifts).reshape(-1)], dtype=object)
    return np.asarray(mantissas.astype(object) * factors.reshape(np.shape(shifts)))


def shortest_period(values: IntArray, *candidates: int) -> int:
    """The shortest of the candidate periods (else the whole length) with which an array repeats."""
    for period in sorted(set(candidates)):
        if values.size % period == 0 and np.array_equal(
            values, np.tile(values[:period], values.size // period)
        ):
            return period
    return int(values.size)


def to_float(mantissas: IntArray, exponent: int, where: str) -> NDArray[np.float64]:
    """Constants as float64, as hls4ml keeps them; UnsupportedError beyond 53 significant bits."""
    values = np.asarray(mantissas.astype(np.float64))
    wide = np.abs(values) >= 2.0**BRIDGE_BITS  # the others are exact
    if not np.array_equal(values[wide].astype(object), mantissas[wide].astype(object)):
        raise UnsupportedError(
            f"{where}: a constant needs more than {BRIDGE_BITS} significant bits",
            hint="give its bias a narrower format: hls4ml keeps constants as float64",
        )
    return np.ldexp(values, exponent)
