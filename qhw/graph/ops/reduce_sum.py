"""Sum over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Range, Result
from qhw.graph.ops.shared.reductions import reduced
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class ReduceSum(Node):
    """Sum over ``axes`` (no batch axis); ``keepdims`` keeps them with length 1."""

    axes: tuple[int, ...]
    keepdims: bool

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        (x,) = operands
        shape, exponent, span = reduced(x, self.axes, self.keepdims)
        count = int(np.prod([x.type.shape[a] for a in self.axes]))
        total = Range.of(span.low * count, span.high * count)
        return Result(shape, exponent, total, total.including(0).bounds)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        return np.asarray(operands[0].sum(axis=tuple(a + 1 for a in self.axes), keepdims=self.keepdims))
