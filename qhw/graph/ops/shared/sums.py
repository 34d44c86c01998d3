"""Sums of products with a bias, as Conv and MatMul form them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Operand, Range
from qhw.graph.ops.shared.exponents import aligned, along, factors, shifted
from qhw.graph.tensors import Exponent, TensorType


def partial_bounds(low: IntArray, high: IntArray, bias: IntArray) -> tuple[int, int]:
    """Bounds of every partial sum of products and bias, in any order."""
    lowest, highest = low + np.minimum(bias, 0), high + np.maximum(bias, 0)
    return min(0, int(np.min(lowest))), max(0, int(np.max(highest)))


def biased(
    operands: Sequence[Operand],
    low: IntArray,
    high: IntArray,
    spare: tuple[IntArray, IntArray],
    axis: int,
) -> tuple[Exponent, Range, tuple[int, int]]:
    """Align sums of products and bias; exponent, range, bounds of partial sums.

    Args:
        low, high: bounds of the sums, per output channel, which is ``axis`` of the result.
        spare: bounds of the sums of their negative and of their positive products alone.
    """
    x, weight = operands[0], operands[1]
    exponent = x.scalar_exponent("the input") + np.array(weight.type.exponent.values, dtype=np.int64)
    bias = np.zeros(1, dtype=object)
    bias_exponent = exponent
    if len(operands) > 2:
        bias = operands[2].constant("the bias").reshape(-1)
        if bias.size not in (1, low.size):
            raise ValueError(f"the bias has {bias.size} numbers for {low.size} output channels")
        bias_exponent = np.array(operands[2].type.exponent.values, dtype=np.int64)
    finest, (product_shift, bias_shift) = aligned(exponent, bias_exponent)
    scale, bias = factors(product_shift), bias * factors(bias_shift)
    partial = partial_bounds(spare[0] * scale, spare[1] * scale, bias)
    return along(finest, axis), Range.of(low * scale + bias, high * scale + bias), partial


def with_bias(
    products: IntArray, operands: Sequence[IntArray], types: Sequence[TensorType], axis: int
) -> IntArray:
    """Products aligned to the finer of their exponent and the bias's, plus the bias along ``axis``."""
    if len(operands) == 2:
        return products
    exponent = np.array(types[0].exponent.values) + np.array(types[1].exponent.values)
    _, (product_shift, bias_shift) = aligned(exponent, np.array(types[2].exponent.values))
    shape = [1] * products.ndim
    shape[axis] = -1
    bias = shifted(operands[2].reshape(shape), bias_shift.reshape(shape))
    return np.asarray(shifted(products, product_shift.reshape(shape)) + bias)


def product_sums(
    low: IntArray, high: IntArray, weight: IntArray
) -> tuple[IntArray, IntArray, tuple[IntArray, IntArray]]:
    """Bounds of ``sum(x * weight)`` over the first axis, and of the sums of terms of one sign alone.

    Args:
        low, high: bounds of every x, Python integers, (K,) or (K, M).
        weight: (K, M).

    Returns:
        Lowest and highest sums, then the lowest of negative and the highest of positive terms, (M,) each.
        They are taken in int64 where that is proven to hold them, a block of columns at a time.
    """
    most = max(_largest(low), _largest(high)) * _largest(weight) * max(1, len(weight))
    kind = np.int64 if most < 1 << 62 else object
    low, high = low.astype(kind), high.astype(kind)
    parts = []
    for start in range(0, weight.shape[1], _COLUMNS):
        block = slice(start, start + _COLUMNS)
        w = weight[:, block].astype(kind)
        positive, negative = np.maximum(w, 0), np.minimum(w, 0)
        ends = [bound if bound.ndim == 1 else bound[:, block] for bound in (low, high)]
        least, greatest = np.minimum(ends[0], 0), np.maximum(ends[1], 0)
        pairs = ((ends[0], ends[1]), (ends[1], ends[0]), (least, greatest), (greatest, least))
        parts.append([_summed(one, positive) + _summed(other, negative) for one, other in pairs])
    sums = [np.concatenate(columns).astype(object) for columns in zip(*parts, strict=True)]
    return sums[0], sums[1], (sums[2], sums[3])


_COLUMNS = 256


def _largest(values: IntArray) -> int:
    return max(abs(int(values.min())), abs(int(values.max()))) if values.size else 0


def _summed(bound: IntArray, weight: IntArray) -> IntArray:
    return np.asarray(bound @ weight if bound.ndim == 1 else (bound * weight).sum(axis=0))
