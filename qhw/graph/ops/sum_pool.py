"""Sum over a sliding window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Range, Result
from qhw.graph.ops.shared.windows import padded, patches, pooled_shape
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class SumPool(Node):
    """Sum over a sliding window of every channel; padding counts as 0."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        (x,) = operands
        shape = pooled_shape(x, self.kernel, self.strides, self.pads, (1,) * len(self.kernel))
        count = int(np.prod(self.kernel))
        span = x.range.including(0) if any(self.pads) else x.range
        total = Range.of(span.low * count, span.high * count)
        return Result(shape, x.type.exponent, total, total.including(0).bounds)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        x, ones = padded(operands[0], self.pads, 0), (1,) * len(self.kernel)
        return np.asarray(sum(patches(x, self.kernel, self.strides, ones, out.shape[1:])))
