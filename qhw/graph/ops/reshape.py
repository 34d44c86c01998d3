"""Another shape."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Range, Result
from qhw.graph.tensors import Exponent, TensorType


@dataclass(frozen=True)
class Reshape(Node):
    """The same codes in another shape (the output's), row-major."""

    moves_codes = True

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        (x,) = operands
        if int(np.prod(declared.shape)) != x.type.size:
            raise ValueError(f"{x.type.shape} cannot be reshaped to {declared.shape}")
        if declared.shape and declared.shape[0] == x.channels and x.type.exponent.axis in (None, 0):
            return Result.unsummed(declared.shape, x.type.exponent, x.range)
        exponent = Exponent.scalar(x.scalar_exponent("a tensor whose channel axis is reshaped"))
        span = x.range.whole()
        if len(declared.shape) == 1 and x.range.low.ndim == 1:
            each = x.type.size // x.channels
            span = Range(np.repeat(x.range.low, each), np.repeat(x.range.high, each))
        return Result.unsummed(declared.shape, exponent, span)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        return operands[0].reshape(operands[0].shape[0], *out.shape)
