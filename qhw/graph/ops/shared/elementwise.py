"""Ranges and arrays of tensors that meet element by element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Operand, Range


def product_range(a_low: Any, a_high: Any, b_low: Any, b_high: Any) -> Range:
    """The range of products of numbers within bounds that broadcast."""
    products = (a_low * b_low, a_low * b_high, a_high * b_low, a_high * b_high)
    corners = [np.asarray(p, dtype=object) for p in products]
    low, high = corners[0], corners[0]
    for corner in corners[1:]:
        low, high = np.minimum(low, corner), np.maximum(high, corner)
    return Range.of(low, high)


def square_range(low: IntArray, high: IntArray) -> Range:
    """The range of the squares of integers within bounds."""
    squares = [np.asarray(bound * bound, dtype=object) for bound in (low, high)]
    least = np.where((low < 0) & (high > 0), 0, np.asarray(np.minimum(*squares), dtype=object))
    return Range.of(least, np.maximum(*squares))


def broadcast_range(operand: Operand, rank: int) -> tuple[IntArray, IntArray]:
    """A range as arrays that broadcast over ``rank`` axes, channel first."""
    shape = (-1, *[1] * (rank - 1)) if rank else ()
    low, high = operand.range.low, operand.range.high
    if operand.value is not None:
        value = operand.value.astype(object)
        low = high = value.reshape((1,) * (rank - value.ndim) + value.shape)
        return low, high
    return (low, high) if low.ndim == 0 else (low.reshape(shape), high.reshape(shape))


def folded_range(low: IntArray, high: IntArray, rank: int) -> Range:
    """Broadcast bounds folded back to per channel or per tensor."""
    low, high = np.asarray(low, dtype=object), np.asarray(high, dtype=object)
    if low.ndim != rank or rank == 0 or low.shape[0] == 1:
        return Range.of(low.min(), high.max())
    axes = tuple(range(1, rank))
    return Range.of(low.min(axis=axes) if axes else low, high.max(axis=axes) if axes else high)


def binary_shape(operands: Sequence[Operand]) -> tuple[int, ...]:
    """The shape of two operands together, of which only a constant may broadcast."""
    a, b = operands
    shape = np.broadcast_shapes(a.type.shape, b.type.shape)
    for operand in operands:
        if operand.value is None and operand.type.shape != shape:
            raise ValueError(f"shapes {a.type.shape} and {b.type.shape}: only a constant may broadcast")
    return shape


def with_rank(x: IntArray, rank: int) -> IntArray:
    """A batch (N, …) with axes of length 1 inserted behind the batch axis, up to ``rank`` sample axes."""
    return x.reshape(x.shape[0], *[1] * (rank + 1 - x.ndim), *x.shape[1:])


def per_channel(x: IntArray, rank: int) -> IntArray:
    """A constant (C,) or () as an array over (N, C, …)."""
    return x.reshape(1, -1, *[1] * (rank - 1)) if rank else x.reshape(-1)
