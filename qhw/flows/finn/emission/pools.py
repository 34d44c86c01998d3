"""Pools and sums over windows, and over the whole image."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from qhw.flows.finn.carried import Axes, Carried, Shape, channels_last, numbers
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
    _summed(draft, node, draft.plain(node), _window(draft, node), image)


def _summed(
    draft: Draft,
    node: ir.Node,
    x: Carried,
    geometry: tuple[list[int], list[int], list[int]],
    image: list[int],
    axes: Axes | None = None,
) -> None:
    """Sums over windows of a kernel, strides and pads, as many as the result's image has pixels."""
    kernel, strides, pads = geometry
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
    summed = draft.indices(f"{node.name}_axes", [3])
    draft.check_held(*draft.ranges[node.output].bounds, node)
    kind = format_type(draft.graph.tensors[node.output].format)
    output = draft.tensor(node.output, (1, *image, channels), kind)
    draft.node("ReduceSum", [apart, summed], [output], node, keepdims=0)
    draft.carry(node.output, output, axes=axes)


def _reduce_sum(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.ReduceSum)
    x, axes = _whole_image(draft, node)
    *image, channels = draft.shape(x.name)
    if image[1] != image[2]:  # FINN's C++ of GlobalAccPool takes the height for the width
        _summed(draft, node, x, (image[1:], image[1:], [0, 0, 0, 0]), [1, 1], axes)
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
    draft.carry(node.output, output, axes=axes)


def _whole_image(draft: Draft, node: ir.ReduceSum | ir.ReduceMax) -> tuple[Carried, Axes | None]:
    """An operand whose one axis that is kept travels as the channel, and the order of the result's axes."""
    x = draft.plain(node, any_layout=True)
    kept = [axis for axis in range(len(x.shape)) if axis not in node.axes]
    if len(kept) != 1 or not 2 <= len(x.shape) <= 3:
        raise refused(
            node,
            f"it goes over axes {tuple(node.axes)} of {x.shape}, FINN over all but the channels",
            "use --flow hls4ml",
        )
    x = draft.by_axis(x, kept[0], node)
    return x, x.axes if node.keepdims else None


def _max_pool(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.MaxPool)
    kernel, strides, pads = _window(draft, node)
    if any(step != 1 for step in node.dilations):
        raise refused(node, f"its window is dilated by {node.dilations}, FINN's are not")
    x = draft.plain(node)
    low, high = draft.ranges[node.inputs[0]].bounds
    shape = channels_last(draft.graph.tensors[node.output].shape)
    if not any(pads):
        _maximum(draft, node, x.name, kernel, strides, shape)
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
    _maximum(draft, node, padded, kernel, strides, shape)
    draft.carry(node.output, node.output, offset=-lift)


def _maximum(
    draft: Draft, node: ir.Node, name: str, kernel: list[int], strides: list[int], shape: Shape
) -> None:
    output = draft.tensor(node.output, shape, draft.kind(name))
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
    x, axes = _whole_image(draft, node)
    _, height, width, channels = draft.shape(x.name)
    _maximum(draft, node, x.name, [height, width], [height, width], (1, 1, 1, channels))
    draft.carry(node.output, node.output, axes=axes)


EMITTERS: Mapping[str, Callable[[Draft, Any], None]] = {
    "MaxPool": _max_pool,
    "ReduceMax": _reduce_max,
    "ReduceSum": _reduce_sum,
    "SumPool": _sum_pool,
}
