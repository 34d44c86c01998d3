"""A part of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Range, Result
from qhw.graph.tensors import Exponent, TensorType


@dataclass(frozen=True)
class Slice(Node):
    """``x[start:stop:step]`` along ``axis``; bounds are not negative."""

    axis: int
    start: int
    stop: int
    step: int

    moves_codes = True

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        (x,) = operands
        shape, axis, picked = x.type.shape, self.axis, slice(self.start, self.stop, self.step)
        if not 0 <= axis < len(shape) or self.start < 0 or self.step < 1:
            raise ValueError(f"axis {axis}, start {self.start}, step {self.step} of shape {shape}")
        length = len(range(shape[axis])[picked])
        if not length:
            raise ValueError("the slice is empty")
        span, exponent = x.range, x.type.exponent
        if axis == 0 and span.low.ndim == 1:
            span = Range(span.low[picked], span.high[picked])
        if exponent.axis == axis:
            exponent = Exponent(exponent.values[picked], axis)
        return Result.unsummed((*shape[:axis], length, *shape[axis + 1 :]), exponent, span)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        before = (slice(None),) * (self.axis + 1)
        return operands[0][(*before, slice(self.start, self.stop, self.step))]
