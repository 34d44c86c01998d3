"""Product of two tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.ops.shared.elementwise import (
    binary_shape,
    broadcast_range,
    folded_range,
    product_range,
    square_range,
    with_rank,
)
from qhw.graph.ops.shared.exponents import exponents, joined
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Mul(Node):
    """Element-wise product of two tensors of one shape (or a constant that broadcasts)."""

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        shape = binary_shape(operands)
        rank = len(shape)
        exponent = exponents(operands[0].type, rank) + exponents(operands[1].type, rank)
        low, high = broadcast_range(operands[0], rank)
        if self.inputs[0] == self.inputs[1]:
            corners = square_range(low, high)
        else:
            corners = product_range(low, high, *broadcast_range(operands[1], rank))
        total = folded_range(corners.low, corners.high, rank)
        return Result.unsummed(shape, joined(np.asarray(exponent)), total)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        a, b = (with_rank(x, len(out.shape)) for x in operands)
        return np.asarray(a * b)
