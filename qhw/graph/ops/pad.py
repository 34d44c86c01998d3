"""Elements around a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.ops.shared.windows import padded
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Pad(Node):
    """Mantissa ``value`` around the tensor: begins of every axis, then ends (no batch axis)."""

    pads: tuple[int, ...]
    value: int

    moves_codes = True

    @property
    def inserted(self) -> tuple[int, ...]:
        return (self.value,)

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        (x,) = operands
        rank = len(x.type.shape)
        if len(self.pads) != 2 * rank or min(self.pads, default=0) < 0:
            raise ValueError(f"pads {self.pads} of a tensor with shape {x.type.shape}")
        shape = tuple(n + self.pads[i] + self.pads[i + rank] for i, n in enumerate(x.type.shape))
        exponent = x.type.exponent
        if exponent.axis is not None and shape[exponent.axis] != x.type.shape[exponent.axis]:
            raise ValueError("the axis that carries the exponents cannot be padded")
        span = x.range if shape[:1] == x.type.shape[:1] else x.range.whole()
        return Result.unsummed(shape, exponent, span.including(self.value))

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        return padded(_holding(operands[0], self.value), self.pads, self.value)


def _holding(x: IntArray, value: int) -> IntArray:
    """The array in a type that holds ``value`` exactly, too."""
    if x.dtype == object:
        return x
    if not -(1 << 63) <= value < 1 << 63:
        return x.astype(np.int64).astype(object)
    return x if int(np.array(value).astype(x.dtype)) == value else x.astype(np.int64)
