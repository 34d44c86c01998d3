"""Convolutions and matrix products: windows (Im2Col) in front of one matrix product."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qhw.flows.finn.carried import Axes, Shape, channels_last
from qhw.flows.finn.emission.draft import GENERAL, Draft, is_streamed, refused
from qhw.flows.finn.prepare import dense_weights, is_depthwise
from qhw.formats.modes import IntArray
from qhw.graph import ir


def _weights(draft: Draft, node: ir.Node) -> IntArray:
    """The mantissas of a layer's weights; refuses formats that FINN does not multiply by."""
    x, w = node.inputs[:2]
    if w not in draft.graph.constants:
        raise refused(node, "it multiplies two computed tensors, FINN's matrix unit a tensor by constants")
    for name, what in ((x, "reads"), (w, "has weights of")):
        format = draft.graph.tensors[name].format
        if not is_streamed(format):
            raise refused(node, f"it {what} {format}, FINN's units take integers", "use --flow hls4ml")
    return draft.graph.constants[w].astype(object)


def directions(draft: Draft, tensor: str, channels: int) -> IntArray | None:
    """-1 for each channel whose thresholds fall (a negative gain): its weights are negated. None: no need."""
    readers = draft.graph.consumers(tensor)
    if tensor in draft.graph.outputs or len(readers) != 1 or not isinstance(readers[0], ir.Threshold):
        return None
    levels = draft.graph.constants[readers[0].inputs[2]]
    falls = levels[:, -1] < levels[:, 0]
    if not falls.any() or falls.size not in (1, channels):
        return None
    return np.broadcast_to(np.where(falls, -1, 1), (channels,)).astype(object)


def _conv(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.Conv)
    x, weight = draft.plain(node), _weights(draft, node)
    rank = weight.ndim - 2
    if rank > 2:
        raise refused(node, f"its kernel has {rank} axes, FINN's windows two at most")
    strides, dilations, pads = node.strides, node.dilations, node.pads
    if rank == 1:
        weight = weight[:, :, None]
        strides, dilations, pads = (1, *strides), (1, *dilations), (0, pads[0], 0, pads[1])
    weight, pads = _reached(draft.shape(x.name)[1:3], weight, strides, pads, dilations, node)
    filters, _, *kernel = weight.shape
    channels = x.shape[0]
    depthwise = is_depthwise(draft.graph, node)
    dense = dense_weights(weight, node.groups) if depthwise else weight
    signs = directions(draft, node.output, filters)
    if signs is not None:
        dense = dense * signs.reshape(-1, 1, 1, 1)
    matrix = dense.transpose(0, 2, 3, 1).reshape(filters, -1).T
    weights = _matrix_constant(draft, node, matrix)
    out = channels_last(draft.graph.tensors[node.output].shape)
    read = x.name
    if depthwise or any(pads) or (*kernel, *strides) != (1, 1, 1, 1):
        window = (*out[:3], channels * math.prod(kernel))
        read = draft.tensor(f"{node.output}_window", window, draft.kind(x.name))
        _, height, width, _ = draft.shape(x.name)
        draft.node(
            "Im2Col",
            [x.name],
            [read],
            node,
            GENERAL,
            stride=list(strides),
            kernel_size=list(kernel),
            dilations=list(dilations),
            pad_amount=list(pads),
            input_shape=f"(1,{height},{width},{channels})",
            depthwise=int(depthwise),
        )
    if depthwise:
        draft.depthwise(weights, list(kernel))
    _product(draft, node, read, weights, (*out[:3], filters), signs)


def _reached(
    image: tuple[int, ...],
    weight: IntArray,
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    node: ir.Node,
) -> tuple[IntArray, tuple[int, ...]]:
    """Weights and pads, along an axis of one pixel those that meet it.

    FINN has no window over padding alone.
    """
    begins, ends = list(pads[:2]), list(pads[2:])
    for axis, size in enumerate(image):
        kernel = weight.shape[2 + axis]
        if size > 1 or kernel + begins[axis] + ends[axis] == 1:
            continue
        reach = (kernel - 1) * dilations[axis] + 1
        if (size + begins[axis] + ends[axis] - reach) // strides[axis] > 0:
            raise refused(node, "its windows slide over padding alone, along an axis of one pixel")
        met = [tap for tap in range(kernel) if tap * dilations[axis] == begins[axis]]
        weight = np.take(weight, met, axis=2 + axis) if met else 0 * np.take(weight, [0], axis=2 + axis)
        begins[axis] = ends[axis] = 0
    return weight, (*begins, *ends)


def _matmul(draft: Draft, node: ir.Node) -> None:
    x, weight = draft.plain(node, any_layout=True), _weights(draft, node)
    if weight.ndim != 2 or len(x.shape) > 3:
        raise refused(
            node,
            f"it multiplies {x.shape} by weights {weight.shape}, FINN images by a matrix",
            "use --flow hls4ml",
        )
    if x.layout[-1] != len(x.shape) - 1:  # FINN multiplies along the axis that travels as the channel
        x = draft.in_layout(x, tuple(range(len(x.shape))), node)
    if x.order is not None:
        weight = weight[x.order]
    signs = directions(draft, node.output, weight.shape[1])
    if signs is not None:
        weight = weight * signs
    weights = _matrix_constant(draft, node, weight)
    shape = (*draft.shape(x.name)[:-1], weight.shape[1])
    _product(draft, node, x.name, weights, shape, signs, x.axes)


def _matrix_constant(draft: Draft, node: ir.Node, matrix: IntArray) -> str:
    """A constant of signed numbers: FINN's RTL unit takes no others; ±1 alone are its BIPOLAR."""
    kind = "BIPOLAR" if (abs(matrix) == 1).all() else None
    if kind is None and matrix.min() >= 0:
        kind = f"INT{int(matrix.max()).bit_length() + 1}"
    return draft.constant(f"{node.name}_weights", matrix, node, kind)


def _product(
    draft: Draft,
    node: ir.Node,
    read: str,
    weights: str,
    shape: Shape,
    signs: IntArray | None,
    axes: Axes | None = None,
) -> None:
    """The product, whose bias and exponents the thresholds behind it take over."""
    multiplier, offset = _sum_map(draft, node)
    if signs is not None:
        multiplier = multiplier * signs
    raw = draft.tensor(f"{node.output}_sum", shape, "INT32")
    draft.node("MatMul", [read, weights], [raw], node)
    carried = draft.carry(node.output, raw, multiplier, offset, axes=axes)
    draft.check_held(*carried.integers_within(draft.ranges[node.output]), node)


def _sum_map(draft: Draft, node: ir.Node) -> tuple[IntArray, IntArray]:
    """Multiplier and offset, per channel or one, that make the result's mantissas of the sums of products."""
    exponents = [np.array(draft.graph.tensors[name].exponent.values, dtype=object) for name in node.inputs]
    out = np.array(draft.graph.tensors[node.output].exponent.values, dtype=object)
    multiplier = _power(exponents[0] + exponents[1] - out)
    if len(node.inputs) < 3:
        return multiplier, np.zeros(1, dtype=object)
    bias = draft.graph.constants[node.inputs[2]].reshape(-1).astype(object)
    return multiplier, bias * _power(exponents[2] - out)


def _power(shifts: IntArray) -> IntArray:
    return np.array([1 << int(shift) for shift in np.atleast_1d(shifts)], dtype=object)


EMITTERS: Mapping[str, Callable[[Draft, Any], None]] = {"Conv": _conv, "MatMul": _matmul}
