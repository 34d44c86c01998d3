"""How mantissas lie in a microcontroller's memory: channels last, short ones packed, pixels apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qhw.errors import UnsupportedError
from qhw.formats.modes import IntArray
from qhw.graph.tensors import TensorType

WIDTHS = (2, 4, 8, 16, 32, 64)

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Container:
    """Memory for one mantissa: two's complement or unsigned.

    Args:
        bits: one of ``WIDTHS``.
    """

    bits: int
    is_signed: bool

    @classmethod
    def holding(cls, low: int, high: int) -> Container:
        """The smallest one for a range; raises UnsupportedError beyond 64 bits."""
        is_signed = low < 0
        for bits in WIDTHS:
            half = 1 << (bits - 1)
            if (-half <= low and high < half) if is_signed else high < 2 * half:
                return cls(bits, is_signed)
        raise UnsupportedError(
            f"numbers from {low} to {high} need more than 64 bits", allowed="up to 64 bits"
        )

    @classmethod
    def of(cls, kind: TensorType) -> Container:
        """The container of a tensor's mantissas: all that its format has."""
        return cls.holding(kind.format.mantissa_low, kind.format.mantissa_high)

    @property
    def c_type(self) -> str:
        """The C type of one mantissa, or of the bytes that several are packed into."""
        return f"{'' if self.is_signed and self.bits >= 8 else 'u'}int{max(self.bits, 8)}_t"

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.is_signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - self.is_signed)) - 1

    def pixel_bytes(self, channels: int) -> int:
        """Bytes of one pixel."""
        return -(-channels * self.bits // 8)

    def __str__(self) -> str:
        return f"{'int' if self.is_signed else 'uint'}{self.bits}"


@dataclass(frozen=True)
class Map:
    """A tensor in memory: channels x pixels, of a shape whose first axis is the channel.

    Args:
        shape: the tensor's, without a batch axis.
    """

    shape: tuple[int, ...]
    container: Container

    @property
    def channels(self) -> int:
        return self.shape[0] if self.shape else 1

    @property
    def pixels(self) -> int:
        return math.prod(self.shape[1:])

    @property
    def pixel_bytes(self) -> int:
        return self.container.pixel_bytes(self.channels)

    @property
    def bytes(self) -> int:
        return self.pixels * self.pixel_bytes

    @property
    def plane(self) -> tuple[int, int]:
        """Rows and columns; a tensor with one spatial axis is a row, one with more than two has no rows."""
        spatial = self.shape[1:]
        if len(spatial) == 2:
            return spatial[0], spatial[1]
        return 1, math.prod(spatial)

    @property
    def row_bytes(self) -> int:
        return self.plane[1] * self.pixel_bytes

    def lies_like(self, other: Map) -> bool:
        """Whether the elements of another shape, row-major, are the same bytes."""
        if self.channels == other.channels:
            return self.container == other.container
        lines = {min(self.channels, self.pixels), min(other.channels, other.pixels)}
        return self.container == other.container and lines == {1} and self.container.bits >= 8

    def pack(self, mantissas: IntArray) -> Bytes:
        """Mantissas (N, *shape) as bytes (N, bytes)."""
        count = len(mantissas)
        last = np.asarray(mantissas).reshape(count, self.channels, self.pixels).transpose(0, 2, 1)
        bits = self.container.bits
        if bits >= 8:
            kind = np.dtype(f"<{'i' if self.container.is_signed else 'u'}{bits // 8}")
            return np.ascontiguousarray(last.astype(kind)).view(np.uint8).reshape(count, -1)
        each = 8 // bits
        padded = np.zeros((count, self.pixels, self.pixel_bytes * each), dtype=np.uint8)
        padded[:, :, : self.channels] = last.astype(np.int64) & ((1 << bits) - 1)
        parts = padded.reshape(count, self.pixels * self.pixel_bytes, each)
        shifted = parts << (np.arange(each, dtype=np.uint8) * bits)
        return np.asarray(np.bitwise_or.reduce(shifted, axis=2), dtype=np.uint8)

    def unpack(self, memory: Bytes) -> IntArray:
        """Bytes (N, bytes) as mantissas (N, *shape)."""
        count, bits = len(memory), self.container.bits
        if bits >= 8:
            kind = np.dtype(f"<{'i' if self.container.is_signed else 'u'}{bits // 8}")
            values = np.ascontiguousarray(memory).view(kind)
            # Beyond 63 bits an unsigned number is none of int64's.
            values = values.astype(object if kind == np.uint64 else np.int64)
        else:
            each = 8 // bits
            parts = memory[:, :, np.newaxis] >> (np.arange(each, dtype=np.uint8) * bits)
            codes = (parts & ((1 << bits) - 1)).astype(np.int64)
            values = codes.reshape(count, self.pixels, -1)[:, :, : self.channels]
            if self.container.is_signed:
                values = np.where(values >> (bits - 1), values - (1 << bits), values)
        last = values.reshape(count, self.pixels, self.channels)
        return np.ascontiguousarray(last.transpose(0, 2, 1)).reshape(count, *self.shape)


def map_of(kind: TensorType) -> Map:
    """A tensor of the exact graph as it lies in memory."""
    return Map(kind.shape, Container.of(kind))
