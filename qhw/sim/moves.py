"""Operations that move or compare codes and change none: they run on any integer or float type."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node
from qhw.sim.chain import Array

Move = Callable[[Sequence[Array]], Array]


def move_of(graph: ExactGraph, node: Node) -> Move | None:
    """The node as a function of batches (N, …); None where it does arithmetic or reads a constant."""
    if any(name in graph.constants for name in node.inputs):
        return None
    shape = graph.tensors[node.output].shape
    match node:
        case ir.Reshape():
            return lambda x: x[0].reshape(x[0].shape[0], *shape)
        case ir.Transpose(perm=perm):
            return lambda x: x[0].transpose(0, *(p + 1 for p in perm))
        case ir.Concat(axis=axis):
            return lambda x: np.concatenate(x, axis=axis + 1)
        case ir.Slice(axis=axis, start=start, stop=stop, step=step):
            where = (slice(None),) * (axis + 1) + (slice(start, stop, step),)
            return lambda x: x[0][where]
        case ir.Pad(pads=pads, value=value):
            widths = [(0, 0), *zip(pads[: len(shape)], pads[len(shape) :], strict=True)]
            return lambda x: _filled(_holding(x[0], value), widths, value)
        case ir.ReduceMax(axes=axes, keepdims=keepdims):
            return lambda x: np.asarray(x[0].max(axis=tuple(a + 1 for a in axes), keepdims=keepdims))
        case ir.MaxPool():
            lowest = graph.tensors[node.inputs[0]].format.mantissa_low
            return lambda x: max_pool(x[0], node, shape[1:], lowest)
    return None


def _holding(x: Array, value: int) -> Array:
    """The batch in a type that holds ``value`` too."""
    if x.dtype == object:
        return x
    return x.astype(np.result_type(x.dtype, np.min_scalar_type(value)), copy=False)


def max_pool(x: Array, node: ir.MaxPool, spatial: Sequence[int], lowest: int) -> Array:
    """Maximum over windows of a batch (N, C, *spatial); the padding holds ``lowest``."""
    out: Array | None = None
    padded = _padded(x, node.pads, lowest)
    for position in np.ndindex(*node.kernel):
        seen = padded[(slice(None), slice(None), *_window(position, node, spatial))]
        out = seen.copy(order="K") if out is None else np.maximum(out, seen, out=out)
    assert out is not None
    return out


def _window(position: tuple[int, ...], node: ir.MaxPool, spatial: Sequence[int]) -> list[slice]:
    starts = [p * d for p, d in zip(position, node.dilations, strict=True)]
    return [
        slice(start, start + stride * (n - 1) + 1, stride)
        for start, stride, n in zip(starts, node.strides, spatial, strict=True)
    ]


def _padded(x: Array, pads: Sequence[int], lowest: int) -> Array:
    if not any(pads):
        return x
    if x.dtype.kind in "iu":
        lowest = max(lowest, int(np.iinfo(x.dtype.name).min))
    rank = len(pads) // 2
    widths = [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))]
    return _filled(x, widths, lowest)


def _filled(x: Array, widths: Sequence[tuple[int, int]], value: int) -> Array:
    """Padded with ``value`` in x's own type: between Python's integers, NumPy's would overflow."""
    return np.pad(x, widths, constant_values=np.array(value, x.dtype))
