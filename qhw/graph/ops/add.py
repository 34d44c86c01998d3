"""Sum of two tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.ops.shared.elementwise import binary_shape, broadcast_range, folded_range, with_rank
from qhw.graph.ops.shared.exponents import aligned, exponents, factors, joined, shifted
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Add(Node):
    """Sum of two tensors of one shape (or a constant that broadcasts), exponents aligned to the finer."""

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        shape = binary_shape(operands)
        rank = len(shape)
        finest, shifts = aligned(*(exponents(o.type, rank) for o in operands))
        low: Any = 0
        high: Any = 0
        for operand, shift in zip(operands, shifts, strict=True):
            factor = factors(shift)
            o_low, o_high = broadcast_range(operand, rank)
            low, high = low + o_low * factor, high + o_high * factor
        total = folded_range(low, high, rank)
        return Result(shape, joined(finest), total, total.including(0).bounds)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        rank = len(out.shape)
        first, second = (
            shifted(with_rank(x, rank), exponents(kind, rank) - out.exponent.broadcast(rank))
            for x, kind in zip(operands, types, strict=True)
        )
        return np.asarray(first + second)
