"""Integer matrix product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.ops.shared.elementwise import product_range
from qhw.graph.ops.shared.sums import biased, product_sums, with_bias
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class MatMul(Node):
    """Integer matrix product over the last axis of the first and the first-but-last of the second operand.

    Inputs: ``a`` (…, K), ``b`` (…, K, M), optionally ``bias`` (M,). Either operand may be a constant.
    Result exponent: a + b, or the bias's where that is finer.
    """

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        a, b = operands[0], operands[1]
        if not a.type.shape or len(b.type.shape) < 2 or a.type.shape[-1] != b.type.shape[-2]:
            raise ValueError(f"shapes {a.type.shape} and {b.type.shape} do not multiply")
        columns = b.type.shape[-1]
        lead = np.broadcast_shapes(a.type.shape[:-2], b.type.shape[:-2])
        shape = (*lead, *a.type.shape[-2:-1], columns)
        exponent, total, partial = biased(operands, *_sums(a, b), len(shape) - 1)
        by_column = len(shape) == 1 and total.low.size == columns
        return Result(shape, exponent, total if by_column else total.whole(), partial)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        a, b = operands[0], operands[1]
        vector = len(types[0].shape) == 1
        products = np.matmul(a[:, np.newaxis] if vector else a, b)
        return with_bias(products[:, 0] if vector else products, operands, types, -1)


def _sums(a: Operand, b: Operand) -> tuple[IntArray, IntArray, tuple[IntArray, IntArray]]:
    """Bounds of the sums of products, per column of constants, and of those of one sign alone."""
    inner = b.type.shape[-2]
    if b.value is None or len(b.type.shape) > 2:
        if len(b.type.exponent.values) > 1:
            raise ValueError("a computed or stacked right operand must have one exponent")
        corners = product_range(*a.range.bounds, *b.range.bounds)
        low, high = (np.array([int(v) * inner], dtype=object) for v in (corners.low, corners.high))
        return low, high, (np.minimum(low, 0), np.maximum(high, 0))
    if b.type.exponent.axis not in (None, 1):
        raise ValueError("weights may have exponents per output column only")
    span = a.range if len(a.type.shape) == 1 else a.range.whole()
    low, high = (np.broadcast_to(v, (inner,)) for v in (span.low, span.high))
    return product_sums(low, high, b.value)
