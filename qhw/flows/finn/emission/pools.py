"""Pools and sums over windows, and over the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from qhw.flows.finn.carried import channels_last, numbers
from qhw.flows.finn.emission.draft import FPGA, GENERAL, Draft, data_type, format_type, refused
from qhw.graph import ir


def _window(draft: Draft, node: ir.SumPool | ir.MaxPool) -> tuple[list[int], list[int], list[int]]:
    """Kernel, strides and pads over two axes."""
    if len(node.kernel) == 1:
        return [1, *node.kernel], [1, *node.strides], [0, node.pads[0], 0, node.pads[1]]
    if len(node.kernel) == 2:
        return _reached(draft.graph.tensors[node.inputs[0]].shape[1:], node)
    raise refused(node, f"its window has {len(node.kernel)} axes, FINN's two at most")


def _reached(image: tuple[int, ...], node: ir.SumPool | ir.MaxPool) -> tuple[list[int], list[int], list[int]]:
    """A window without padding along an axis of one pixel: FINN has no window over padding alone."""
    kernel, strides, pads = list(node.kernel), list(node.strides), list(node.pads)
    for axis, size in enumerate(image):
        around = pads[axis] + pads[2 + axis]
        if size == 1 and around:
            if (size + around - kernel[axis]) // strides[axis] > 0:
                raise refused(node, "its windows slide over padding alone, along an axis of one pixel")
            kernel[axis], strides[axis], pads[axis], pads[2 + axis] = 1, 1, 0, 0
    return kernel, strides, pads


def _sum_pool(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.SumPool)
    _, *image, _ = channels_last(draft.graph.tensors[node.output].shape)
    _summed(draft, node, _window(draft, node), image)


def _summed(
    draft: Draft, node: ir.Node, geometry: tuple[list[int], list[int], list[int]], image: list[int]
) -> None:
    """Sums over windows of a kernel, strides and pads, as many as the result's image has pixels."""
    x, (kernel, strides, pads) = draft.plain(node), geometry
    _, height, width, channels = draft.shape(x.name)
    count = math.prod(kernel)
    window = draft.tensor(f"{node.output}_window", (1, *image, channels * count), draft.kind(x.name))
    draft.node(
        "Im2Col",
        [x.name],
        [window],
        node,
        GENERAL,
        stride=strides,
        kernel_size=kernel,
        dilations=[1, 1],
        pad_amount=pads,
        input_shape=f"(1,{height},{width},{channels})",
        depthwise=0,
    )
    shape = draft.indices(f"{node.name}_window_shape", [1, *image, count, channels])
    apart = draft.tensor(f"{node.output}_pixels", (1, *image, count, channels), draft.kind(x.name))
    draft.node("Reshape", [window, shape], [apart], node)
    axes = draft.indices(f"{node.name}_axes", [3])
    draft.check_held(*draft.ranges[node.output].bounds, node)
    kind = format_type(draft.graph.tensors[node.output].format)
    output = draft.tensor(node.output, (1, *image, channels), kind)
    draft.node("ReduceSum", [apart, axes], [output], node, keepdims=0)
    draft.carry(node.output, output)


def _reduce_sum(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.ReduceSum)
    x = draft.plain(node)
    if len(x.shape) < 2 or tuple(node.axes) != tuple(range(1, len(x.shape))):
        raise refused(node, f"it sums over axes {tuple(node.axes)} of {x.shape}, FINN over the whole image")
    *image, channels = draft.shape(x.name)
    if image[1] != image[2]:  # FINN's C++ of GlobalAccPool takes the height for the width
        _summed(draft, node, (image[1:], image[1:], [0, 0, 0, 0]), [1, 1])
        return
    low, high = draft.ranges[node.output].bounds
    draft.check_held(low, high, node)
    kind = draft.graph.tensors[node.output]
    output = draft.tensor(node.output, (1, 1, 1, channels), format_type(kind.format))
    draft.node(
        "GlobalAccPool",
        [x.name],
        [output],
        node,
        FPGA,
        backend="fpgadataflow",
        NumChannels=channels,
        PE=1,
        inputDataType=draft.kind(x.name),
        numInputVectors=list(image),
    )
    draft.carry(node.output, output)


def _max_pool(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.MaxPool)
    kernel, strides, pads = _window(draft, node)
    if any(step != 1 for step in node.dilations):
        raise refused(node, f"its window is dilated by {node.dilations}, FINN's are not")
    x = draft.plain(node)
    low, high = draft.ranges[node.inputs[0]].bounds
    if not any(pads):
        _maximum(draft, node, x.name, kernel, strides)
        draft.carry(node.output, node.output)
        return
    # FINN pads with zeros, which would win over negative numbers: pooled are the distances to the lowest one.
    read, lift = x.name, max(0, -low)
    if lift:
        draft.check_held(0, high + lift, node)
        read = draft.tensor(f"{node.output}_lifted", draft.shape(x.name), data_type(0, high + lift))
        constant = draft.constant(f"{node.name}_lift", numbers(lift), node)
        draft.node("Add", [x.name, constant], [read], node)
    _, height, width, channels = draft.shape(x.name)
    top, left, bottom, right = pads
    around = (1, height + top + bottom, width + left + right, channels)
    padded = draft.tensor(f"{node.output}_padded", around, draft.kind(read))
    draft.padding(read, padded, pads, node)
    _maximum(draft, node, padded, kernel, strides)
    draft.carry(node.output, node.output, offset=-lift)


def _maximum(draft: Draft, node: ir.Node, name: str, kernel: list[int], strides: list[int]) -> None:
    shape = channels_last(draft.graph.tensors[node.output].shape)
    output = draft.tensor(node.output, shape if len(shape) == 4 else (1, 1, *shape), draft.kind(name))
    draft.node(
        "MaxPoolNHWC",
        [name],
        [output],
        node,
        GENERAL,
        kernel_shape=kernel,
        strides=strides,
        pads=[0, 0, 0, 0],
        ceil_mode=0,
    )


def _reduce_max(draft: Draft, node: ir.Node) -> None:
    """The maximum of the whole image is a pool with one window."""
    assert isinstance(node, ir.ReduceMax)
    x = draft.plain(node)
    if len(x.shape) < 2 or tuple(node.axes) != tuple(range(1, len(x.shape))):
        raise refused(
            node, f"it takes the maximum over axes {tuple(node.axes)} of {x.shape}, FINN of the image"
        )
    _, height, width, _ = draft.shape(x.name)
    _maximum(draft, node, x.name, [height, width], [height, width])
    draft.carry(node.output, node.output)


EMITTERS: Mapping[str, Callable[[Draft, Any], None]] = {
    "MaxPool": _max_pool,
    "ReduceMax": _reduce_max,
    "ReduceSum": _reduce_sum,
    "SumPool": _sum_pool,
}
