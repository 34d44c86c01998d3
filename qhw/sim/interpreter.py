"""The reference: what every operation of the exact graph means, on integers alone.

NumPy int64 where 63 bits hold every partial sum, Python integers where they do not. It is written to be
read, not to be fast; ``qhw.sim.fast`` gives the same codes at matrix-library speed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal

import numpy as np

from qhw.errors import InputError
from qhw.formats.integer import as_mantissas
from qhw.formats.modes import IntArray
from qhw.formats.requantise import requantise
from qhw.graph import ir
from qhw.graph.infer import aligned, requant_bounds
from qhw.graph.ir import ExactGraph, Node, TensorType

Execution = dict[str, IntArray]
"""Mantissas (N, *shape) by tensor name."""

Keep = Literal["outputs", "all"] | Collection[str]


def interpret(graph: ExactGraph, inputs: Mapping[str, IntArray], keep: Keep = "outputs") -> Execution:
    """Run a graph on a batch.

    Args:
        inputs: mantissas (N, *shape) of every graph input.
        keep: which tensors to return: the outputs, all activations, or the named ones.
    """
    wanted = set(graph.outputs) if keep == "outputs" else None if keep == "all" else set(keep)
    values: dict[str, IntArray] = {}
    for name in graph.inputs:
        kind = graph.tensors[name]
        array = np.asarray(inputs[name])
        if array.shape[1:] != kind.shape:
            raise InputError(f"input '{name}' has shape {array.shape}", allowed=f"(N, *{kind.shape})")
        values[name] = array if array.dtype == object else array.astype(np.int64)
    last_use = {tensor: i for i, node in enumerate(graph.nodes) for tensor in node.inputs}
    kept = {name: values[name] for name in graph.inputs if wanted is None or name in wanted}
    for i, node in enumerate(graph.nodes):
        values[node.output] = run_node(graph, node, values)
        if wanted is None or node.output in wanted:
            kept[node.output] = values[node.output]
        for tensor in node.inputs:
            if last_use[tensor] == i:
                values.pop(tensor, None)
    return kept


def run_node(graph: ExactGraph, node: Node, values: Mapping[str, IntArray]) -> IntArray:
    """One operation on a batch of mantissas; constants come from the graph."""
    types = [graph.tensors[name] for name in node.inputs]
    out = graph.tensors[node.output]
    wide = max(t.format.mantissa_high.bit_length() for t in (*types, out)) > 62
    operands = []
    for name in node.inputs:
        value = graph.constants[name][np.newaxis] if name in graph.constants else values[name]
        operands.append(value.astype(object) if wide else value)
    return as_mantissas(_OPERATIONS[type(node)](node, operands, types, out))


Rule = Callable[[Node, Sequence[IntArray], Sequence[TensorType], TensorType], IntArray]


def _shifts(types: Sequence[TensorType], out: TensorType) -> list[IntArray]:
    """Left shifts that align operands to the output's exponents, broadcast over the output's rank."""
    rank = len(out.shape)
    return [_broadcast_exponent(kind, rank) - out.exponent.broadcast(rank) for kind in types]


def _broadcast_exponent(kind: TensorType, rank: int) -> IntArray:
    exponent = kind.exponent
    if exponent.axis is None:
        return exponent.broadcast(rank)
    return ir.Exponent(exponent.values, exponent.axis + rank - len(kind.shape)).broadcast(rank)


def _shifted(x: IntArray, shift: IntArray) -> IntArray:
    return x * np.left_shift(1, shift.astype(object)).astype(x.dtype) if np.any(shift) else x


def _with_bias(
    products: IntArray, operands: Sequence[IntArray], types: Sequence[TensorType], axis: int, rank: int
) -> IntArray:
    """Products aligned to the finer of their exponent and the bias's, plus the bias along ``axis``."""
    if len(operands) == 2:
        return products
    exponent = np.array(types[0].exponent.values) + np.array(types[1].exponent.values)
    _, (product_shift, bias_shift) = aligned(exponent, np.array(types[2].exponent.values))
    shape = [1] * rank
    shape[axis] = -1
    bias = _shifted(operands[2].reshape(shape), bias_shift.reshape(shape))
    return np.asarray(_shifted(products, product_shift.reshape(shape)) + bias)


def _matmul(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    a, b = operands[0], operands[1]
    vector = len(types[0].shape) == 1
    products = np.matmul(a[:, np.newaxis] if vector else a, b)
    if vector:
        products = products[:, 0]
    return _with_bias(products, operands, types, -1, products.ndim)


def _patches(
    x: IntArray,
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    spatial: Sequence[int],
) -> list[IntArray]:
    """For every kernel position, the elements of ``x`` (N, C, *padded) that each output sees there."""
    return [
        x[
            (
                slice(None),
                slice(None),
                *(
                    slice(k * d, k * d + s * (n - 1) + 1, s)
                    for k, d, s, n in zip(position, dilations, strides, spatial, strict=True)
                ),
            )
        ]
        for position in np.ndindex(*kernel)
    ]


def _padded(x: IntArray, pads: Sequence[int], value: int) -> IntArray:
    """``x`` (N, …, *spatial) with spatial padding: begins, then ends."""
    rank = len(pads) // 2
    if not any(pads):
        return x
    widths = [(0, 0)] * (x.ndim - rank) + [(pads[i], pads[i + rank]) for i in range(rank)]
    # In x's own type: a bare int would put NumPy's integers, which overflow, between Python's.
    return np.pad(x, widths, constant_values=np.array(value, x.dtype))


def _conv(node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
    assert isinstance(node, ir.Conv)
    x, weight = operands[0], operands[1][0]
    kernel = weight.shape[2:]
    filters, depth = weight.shape[:2]
    windows = _patches(_padded(x, node.pads, 0), kernel, node.strides, node.dilations, out.shape[1:])
    total = np.zeros((x.shape[0], filters, *out.shape[1:]), dtype=x.dtype)
    per_group = filters // node.groups
    for position, window in zip(np.ndindex(*kernel), windows, strict=True):
        for group in range(node.groups):
            rows = slice(group * per_group, (group + 1) * per_group)
            block = weight[(rows, slice(None), *position)]
            part = np.tensordot(block, window[:, group * depth : (group + 1) * depth], axes=(1, 1))
            total[:, rows] += np.moveaxis(part, 0, 1)
    return _with_bias(total, operands, types, 1, total.ndim)


def _add(node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
    a, b = (_aligned_rank(x, len(out.shape)) for x in operands)
    first, second = _shifts(types, out)
    return np.asarray(_shifted(a, first) + _shifted(b, second))


def _aligned_rank(x: IntArray, rank: int) -> IntArray:
    """A batch (N, …) with axes of length 1 inserted behind the batch axis, up to ``rank`` sample axes."""
    return x.reshape(x.shape[0], *[1] * (rank + 1 - x.ndim), *x.shape[1:])


def _mul(node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
    a, b = (_aligned_rank(x, len(out.shape)) for x in operands)
    return np.asarray(a * b)


def _channel(x: IntArray, rank: int) -> IntArray:
    """A per-channel constant (C,) or () as an array over (N, C, …)."""
    return x.reshape(1, -1, *[1] * (rank - 1)) if rank else x.reshape(-1)


def _affine(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    rank = len(out.shape)
    product = operands[0] * _channel(operands[1], rank)
    exponent = _channel(np.array(types[0].exponent.values) + np.array(types[1].exponent.values), rank)
    result = _channel(np.array(out.exponent.values), rank)
    product = _shifted(product, exponent - result)
    if len(operands) == 2:
        return np.asarray(product)
    shift = _channel(np.array(types[2].exponent.values), rank) - result
    return np.asarray(product + _shifted(_channel(operands[2], rank), shift))


def _requant(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    assert isinstance(node, ir.Requant)
    x, rank = operands[0], len(out.shape)
    low, high = requant_bounds(node, out) if node.overflow.saturates else (None, None)

    def moved(part: IntArray, bits: int) -> IntArray:
        return requantise(part, bits, out.format, node.rounding, node.overflow, low, high)

    shift = out.exponent.broadcast(rank) - types[0].exponent.broadcast(rank)
    if shift.size == 1:
        return moved(x, int(shift.item()))
    axis = next(i for i, n in enumerate(shift.shape) if n > 1) + 1
    parts = np.split(x, x.shape[axis], axis=axis)
    return np.concatenate([moved(p, int(s)) for p, s in zip(parts, shift.flat, strict=True)], axis=axis)


def _threshold(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    x, thresholds, levels = operands[0], operands[1][0], operands[2][0]
    channels = x.shape[1] if x.ndim > 1 else 1
    result = np.empty(x.shape, dtype=levels.dtype)
    for channel in range(channels):
        where = (slice(None), channel) if x.ndim > 1 else (slice(None),)
        reached = np.searchsorted(thresholds[channel % len(thresholds)], x[where], side="right")
        result[where] = levels[channel % len(levels)][reached]
    return result


def _table(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    assert isinstance(node, ir.Table)
    x, table = operands[0], operands[1][0]
    index = (x - node.first).astype(np.int64)
    if len(table) == 1:
        return np.asarray(table[0][index])
    return np.asarray(table[_channel(np.arange(len(table)), x.ndim - 1), index])


def _reduce_sum(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    assert isinstance(node, ir.ReduceSum)
    return np.asarray(operands[0].sum(axis=tuple(a + 1 for a in node.axes), keepdims=node.keepdims))


def _reduce_max(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    assert isinstance(node, ir.ReduceMax)
    return np.asarray(operands[0].max(axis=tuple(a + 1 for a in node.axes), keepdims=node.keepdims))


def _sum_pool(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    assert isinstance(node, ir.SumPool)
    x = _padded(operands[0], node.pads, 0)
    ones = (1,) * len(node.kernel)
    return np.asarray(sum(_patches(x, node.kernel, node.strides, ones, out.shape[1:])))


def _max_pool(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    assert isinstance(node, ir.MaxPool)
    # The padding is the lowest mantissa of the format: every window holds a real element at least as high.
    x = _padded(operands[0], node.pads, types[0].format.mantissa_low)
    return np.asarray(
        np.maximum.reduce(_patches(x, node.kernel, node.strides, node.dilations, out.shape[1:]))
    )


def _reshape(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    return operands[0].reshape(operands[0].shape[0], *out.shape)


def _transpose(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    assert isinstance(node, ir.Transpose)
    return operands[0].transpose(0, *(p + 1 for p in node.perm))


def _concat(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    assert isinstance(node, ir.Concat)
    batch = max(x.shape[0] for x in operands)
    parts = [np.broadcast_to(x, (batch, *x.shape[1:])) for x in operands]
    return np.concatenate(parts, axis=node.axis + 1)


def _slice(
    node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType
) -> IntArray:
    assert isinstance(node, ir.Slice)
    index = [slice(None)] * operands[0].ndim
    index[node.axis + 1] = slice(node.start, node.stop, node.step)
    return operands[0][tuple(index)]


def _pad(node: Node, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
    assert isinstance(node, ir.Pad)
    return _padded(operands[0], node.pads, node.value)


_OPERATIONS: dict[type[Node], Rule] = {
    ir.MatMul: _matmul,
    ir.Conv: _conv,
    ir.Add: _add,
    ir.Mul: _mul,
    ir.Affine: _affine,
    ir.Requant: _requant,
    ir.Threshold: _threshold,
    ir.Table: _table,
    ir.ReduceSum: _reduce_sum,
    ir.ReduceMax: _reduce_max,
    ir.SumPool: _sum_pool,
    ir.MaxPool: _max_pool,
    ir.Reshape: _reshape,
    ir.Transpose: _transpose,
    ir.Concat: _concat,
    ir.Slice: _slice,
    ir.Pad: _pad,
}
