"""Arguments of a quantizer kernel, and its view of a tensor's memory."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qhw.errors import InputError
from qhw.formats import Fixed, Minifloat, Overflow, PowerOfTwo, Rounding, TableFormat, Ternary
from qhw.formats.modes import mantissa_bounds
from qhw.formats.requantise import saturating
from qhw.quantizers.activation import IDENTITY, Activation

Unit: TypeAlias = "NDArray[np.float64] | Tensor"
"""The value of a mantissa of 1, float64, at least one-dimensional; a tensor where numbers are on a GPU."""

LARGEST_WIDTH = 53
"""Bits that float64 carries exactly."""

LARGEST_FRACTION = 100
"""Bound of the learned fraction bits either way; float32 holds every such power of two."""


@dataclass(frozen=True)
class FloatGrid:
    """The numbers of a minifloat, in units of its smallest gap if it has subnormals.

    Args:
        mantissa_bits: behind the leading one.
        gap: between zero and the smallest normal number, ``2**mantissa_bits``: 1, or without subnormals
            that number itself.
    """

    mantissa_bits: int
    gap: float


@dataclass(frozen=True, eq=False)
class ListGrid:
    """Integers that a format lists (k-hot, binary): the nearest one is looked up.

    Thresholds between integers are multiples of a half, so where a number rounds to depends on
    ``floor(2 x)`` and on whether ``2 x`` is whole.

    Args:
        low: the table's first integer, one below the lowest number.
        table: float64, by ``2 * (floor(2 x) - 2 * low) + (2 x is not whole)``.
    """

    low: int
    table: NDArray[np.float64]


LONGEST_TABLE = 1 << 20


def grid_of(format: TableFormat) -> FloatGrid | ListGrid:
    """The rounding of mantissas to a format that lists its codes.

    Raises:
        InputError: its numbers are spread too far to be listed (powers of two without zero).
    """
    if isinstance(format, Minifloat):
        return FloatGrid(format.mantissa_bits, 1.0 if format.subnormals else 2.0**format.mantissa_bits)
    if isinstance(format, PowerOfTwo) and format.zero and format.is_signed:
        return FloatGrid(0, 1.0)
    low, high = format.mantissa_low - 1, format.mantissa_high + 1
    if 4 * (high - low + 1) > LONGEST_TABLE:
        raise InputError(f"A quantizer of {format} cannot be trained", allowed="powers of two with a zero")
    halves = np.arange(2 * low, 2 * high + 1)
    quarters = np.stack([2 * halves, 2 * halves + 1], axis=1).reshape(-1)
    rounded = saturating(format, format.rounding).from_mantissa(quarters, -2 + format.exponent)
    return ListGrid(low, rounded.astype(np.float64))


@dataclass(frozen=True)
class Rule:
    """How a number becomes a fixed-point one; its binary point comes with each call.

    Args:
        width, signed, rounding, overflow: the format's parameters.
        activation: applied first.
        format: one that lists its codes, in place of fixed point; it saturates, and the binary point is of
            its mantissas.
        passes_outside: numbers beyond the range keep their gradient although they saturate (what Brevitas
            does for weights); otherwise it is 0. Wrapping formats always pass it.
        free: the scale is any float32 number, not only a power of two.
    """

    width: int
    signed: bool = True
    rounding: Rounding = Rounding.RND_CONV
    overflow: Overflow = Overflow.SAT
    activation: Activation = IDENTITY
    passes_outside: bool = False
    format: TableFormat | None = None
    free: bool = False

    def __post_init__(self) -> None:
        if self.format is not None:
            _ = self.grid
        if self.width > LARGEST_WIDTH:
            raise InputError(
                f"A quantizer of {self.width} bits cannot be trained: float64 carries {LARGEST_WIDTH}",
                allowed=f"widths of 1 to {LARGEST_WIDTH} bits",
            )

    @classmethod
    def of(
        cls,
        spec: Fixed | TableFormat,
        activation: Activation = IDENTITY,
        passes_outside: bool = False,
        free: bool = False,
    ) -> Rule:
        """The rule of a format, whatever its binary point."""
        if isinstance(spec, Ternary):
            modes, listed = (Rounding.RND_CONV, Overflow.SAT_SYM), None
        elif isinstance(spec, TableFormat):
            modes, listed = (spec.rounding, Overflow.SAT), spec
        else:
            modes, listed = (spec.rounding, spec.overflow), None
        return cls(spec.width, spec.signed, *modes, activation, passes_outside, listed, free)

    @cached_property
    def grid(self) -> FloatGrid | ListGrid | None:
        """The numbers to round to; None: integers."""
        return None if self.format is None else grid_of(self.format)

    @property
    def mantissas(self) -> tuple[int, int]:
        """The lowest and the highest mantissa."""
        if self.format is not None:
            return self.format.mantissa_low, self.format.mantissa_high
        return mantissa_bounds(self.width, self.signed, self.overflow)

    @property
    def passes(self) -> bool:
        """Whether a number beyond the range keeps its gradient."""
        return self.passes_outside or not self.overflow.saturates

    def bounds(self, dtype: torch.dtype) -> tuple[float, float]:
        """Lowest and highest mantissa that both the format and a float type hold."""
        low, high = self.mantissas
        return float(low), _towards_zero(high, dtype)


def _towards_zero(mantissa: int, dtype: torch.dtype) -> float:
    """The largest number of a float type that is not above a positive mantissa."""
    precision = 24 if dtype == torch.float32 else 53
    spare = max(mantissa.bit_length() - precision, 0)
    return math.ldexp(float(mantissa >> spare), spare)


@dataclass(frozen=True)
class Operands:
    """The numbers to be quantised: ``x``, or ``x + other``, or ``x * gain + offset`` per channel.

    Args:
        x: float32 or float64, dense, any shape.
        other: same shape, type and memory order as ``x``.
        gain, offset: float64, one per channel.
        axis: the channel axis of ``x`` that gain, offset and a per-channel binary point belong to; None where
            everything is per tensor.
    """

    x: Tensor
    other: Tensor | None = None
    gain: Tensor | None = None
    offset: Tensor | None = None
    axis: int | None = None

    @property
    def layout(self) -> Layout:
        return layout_of(self.x, self.axis)


@dataclass(frozen=True)
class Layout:
    """Memory seen as ``(outer, channels, inner)``; a channels-last tensor has ``inner`` 1."""

    outer: int
    channels: int
    inner: int
    channels_last: bool = False

    @property
    def interleaved(self) -> bool:
        """Whether neighbours in memory belong to different channels."""
        return self.inner == 1 and self.channels > 1


BLOCK = 1024
"""Elements that a kernel works on at once, within one channel."""

LANES = 16
"""Running sums that a block is added up in."""

INTERLEAVED_CHUNK = 16384
"""Elements whose channels are added up together where they are interleaved."""


def is_channels_last(x: Tensor) -> bool:
    """Whether the channels of an image batch lie next to each other in memory."""
    return x.dim() == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


def dense(x: Tensor, axis: int | None) -> Tensor:
    """``x`` itself where its memory suits that channel axis, else a contiguous copy."""
    return x if is_channels_last(x) and axis in (None, 1) else x.contiguous()


def same_order(x: Tensor, like: Tensor) -> Tensor:
    """``x`` in the memory order of ``like``, copied where it has to be."""
    if is_channels_last(like):
        return x.contiguous(memory_format=torch.channels_last)
    return x.contiguous()


def layout_of(x: Tensor, axis: int | None) -> Layout:
    """How the memory of a ``dense`` tensor lies around a channel axis (None: one channel)."""
    if axis is None:
        return Layout(1, 1, x.numel(), is_channels_last(x))
    channels = x.shape[axis]
    if is_channels_last(x):
        return Layout(x.numel() // max(channels, 1), channels, 1, True)
    return Layout(math.prod(x.shape[:axis]), channels, math.prod(x.shape[axis + 1 :]))


def powers_of_two(exponents: NDArray[np.int64]) -> NDArray[np.float64]:
    """Exact ``2**exponents``; torch's own exp2 promises no exactness."""
    return np.ldexp(1.0, exponents.astype(np.int32))


def fraction_bits(theta: Tensor) -> NDArray[np.int64]:
    """The binary point ``round(theta)`` as int64, at least one-dimensional, within +-LARGEST_FRACTION."""
    with np.errstate(invalid="ignore"):  # NaN, of a training that diverged, is refused where it is exported
        return np.rint(_bounded(theta)).astype(np.int64)


def units_of(theta: Tensor, rule: Rule) -> NDArray[np.float64]:
    """The value of a mantissa of 1, at least one-dimensional: a power of two, or a float32 number."""
    if rule.free:
        return np.exp2(-_bounded(theta)).astype(np.float32).astype(np.float64)
    return powers_of_two(-fraction_bits(theta))


def units_on(theta: Tensor, rule: Rule) -> Tensor:
    """What ``units_of`` gives, computed where ``theta`` lies, without waiting for it.

    Powers of two are exact by their bits. A free scale is a float64 power rounded to float32: devices that
    differ in its last bit of float64 differ in the float32 number about once in 2^28.
    """
    bounded = theta.detach().reshape(-1).double().clamp(-LARGEST_FRACTION, LARGEST_FRACTION)
    if rule.free:
        return torch.exp2(-bounded).float().double()
    return ((1023 - bounded.round().long()) << 52).view(torch.float64)


def _bounded(theta: Tensor) -> NDArray[np.float64]:
    values: NDArray[np.floating] = theta.detach().cpu().numpy()
    return np.clip(np.atleast_1d(values).astype(np.float64), -LARGEST_FRACTION, LARGEST_FRACTION)
