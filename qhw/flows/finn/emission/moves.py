"""What moves elements about: flattening, joining, splitting and padding."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qhw.flows.finn.carried import Axes, Shape, in_order, last, travelling
from qhw.flows.finn.emission.draft import FPGA, Draft, refused
from qhw.formats.modes import IntArray
from qhw.graph import ir

_MOST_AXES = 3
"""Of a tensor that FINN streams."""

_MOST_AXES_ON_THE_WAY = 6
"""Of a tensor that is only reshaped and transposed."""


def _reshape(draft: Draft, node: ir.Node) -> None:
    """What is streamed stays as it is and is called by other indices, or is shuffled to an image."""
    carried = draft.input_of(node)
    before, after = carried.shape, draft.graph.tensors[node.output].shape
    if _squeezed(before) == _squeezed(after) and len(_squeezed(before)) <= 1:
        draft.carry(node.output, carried.name, carried.multiplier, carried.offset, carried.order)
        return
    x = draft.plain(node, any_layout=True)
    layout = _layout(x.indices, after)
    if len(after) > _MOST_AXES and layout is not None:
        draft.carry(node.output, x.name, axes=layout)
        return
    if layout is None and len(after) > 1:
        if len(after) > _MOST_AXES or not draft.shuffled(node.output, x, after, last(len(after)), node):
            raise refused(
                node,
                f"it makes {after} of {before}, whose elements FINN would have to stream in another order",
                "use --flow hls4ml",
            )
        draft.carry(node.output, node.output)
        return
    shape = (1, *after) if layout is None else travelling(after, layout)
    sizes = draft.indices(f"{node.name}_shape", list(shape))
    output = draft.tensor(node.output, shape, draft.kind(x.name))
    draft.node("Reshape", [x.name, sizes], [output], node)
    draft.carry(node.output, output, order=x.indices if layout is None else None, axes=layout)


def _layout(travel: IntArray, shape: Shape) -> Axes | None:
    """The order of a shape's axes in which its elements travel as they do; None: there is none."""
    if len(shape) > _MOST_AXES_ON_THE_WAY:
        return None
    orders = [last(len(shape)), *itertools.permutations(range(len(shape)))]
    return next((axes for axes in orders if np.array_equal(in_order(shape, axes), travel)), None)


def _transpose(draft: Draft, node: ir.Node) -> None:
    """What is streamed stays as it is; the axes have other numbers."""
    assert isinstance(node, ir.Transpose)
    x = draft.input_of(node)
    axes = tuple(node.perm.index(axis) for axis in x.layout)
    draft.carry(node.output, x.name, x.multiplier, x.offset, x.order, axes)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _concat(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.Concat)
    if node.axis != 0:
        raise refused(node, f"it joins along axis {node.axis}; FINN joins channels", "use --flow hls4ml")
    parts = [draft.plain(node, index) for index in range(len(node.inputs))]
    if len({part.name for part in parts}) < len(parts):
        raise refused(node, "it joins a tensor with itself: a stream is read once")
    if any(part.order is not None for part in parts):
        raise refused(node, "it joins flattened images: FINN streams them pixel by pixel")
    output = draft.result(node)
    shape = draft.shape(parts[0].name)
    draft.node("Concat", [part.name for part in parts], [output], node, axis=len(shape) - 1)
    draft.carry(node.output, output)


def _slice(draft: Draft, node: ir.Node) -> None:
    """All slices of a tensor's channels are one Split, each is a part of it; a slice of pixels is a Crop."""
    assert isinstance(node, ir.Slice)
    if node.step != 1:
        raise refused(
            node,
            f"it takes every {node.step}th index of axis {node.axis}; FINN takes each",
            "use --flow hls4ml",
        )
    if node.axis != 0:
        _crop(draft, node)
        return
    x = draft.plain(node)
    readers = draft.graph.consumers(x.tensor)
    slices = [one for one in readers if isinstance(one, ir.Slice)]
    bounds = sorted({(one.start, one.stop) for one in slices})
    tiled = [0, *(stop for _, stop in bounds)] == [*(start for start, _ in bounds), x.channels]
    if len(slices) != len(readers) or len(bounds) != len(slices) or not tiled or x.order is not None:
        raise refused(
            node,
            f"slices {bounds} of '{x.tensor}' do not share out its {x.channels} channels, so that a stream "
            f"would stay unread",
        )
    parts = [f"{x.tensor}_part{start}" for start, _ in bounds]
    if node is slices[0]:
        sizes = draft.indices(f"{x.tensor}_sizes", [stop - start for start, stop in bounds])
        shape = draft.shape(x.name)
        for name, (start, stop) in zip(parts, bounds, strict=True):
            draft.tensor(name, (*shape[:-1], stop - start), draft.kind(x.name))
        draft.node("Split", [x.name, sizes], parts, node, axis=len(shape) - 1)
    draft.carry(node.output, parts[bounds.index((node.start, node.stop))])


def _crop(draft: Draft, node: ir.Slice) -> None:
    x = draft.plain(node)
    output = draft.result(node, x)
    _, height, width, channels = draft.shape(x.name)
    across = node.axis == len(x.shape) - 1
    behind = (width if across else height) - node.stop
    above, below, left, right = (0, 0, node.start, behind) if across else (node.start, behind, 0, 0)
    draft.node(
        "Crop",
        [x.name],
        [output],
        node,
        FPGA,
        backend="fpgadataflow",
        DataType=draft.kind(x.name),
        ImgDim=[height, width],
        NumChannels=channels,
        CropNorth=above,
        CropSouth=below,
        CropWest=left,
        CropEast=right,
        SIMD=1,
        numInputVectors=[1],
        cpp_interface="hls_vector",
        hls_style="freerunning",
    )
    draft.carry(node.output, output)


def _pad(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.Pad)
    rank = len(node.pads) // 2
    if node.value != 0 or node.pads[0] or node.pads[rank] or rank not in (2, 3):
        raise refused(node, "FINN pads images with zeros, at their edges")
    x = draft.plain(node)
    begins, ends = node.pads[1:rank], node.pads[rank + 1 :]
    around = [*begins, *ends] if rank == 3 else [0, begins[0], 0, ends[0]]
    draft.padding(x.name, draft.result(node, x), around, node)
    draft.carry(node.output, node.output)


def _upsample(draft: Draft, node: ir.Node) -> None:
    """Copies of every pixel, or zeros between pixels and behind the last."""
    assert isinstance(node, ir.Upsample)
    x = draft.plain(node)
    if len(node.factors) not in (1, 2):
        raise refused(node, f"it upsamples {len(node.factors)} axes, FINN two at most", "use --flow hls4ml")
    factors = [1, *node.factors][-2:]
    output = draft.result(node, x)
    draft.carry(node.output, output)
    _, height, width, channels = draft.shape(x.name)
    if node.zeros:
        down, right = factors
        apart = draft.tensor(
            f"{node.output}_apart",
            (1, (height - 1) * down + 1, (width - 1) * right + 1, channels),
            draft.kind(x.name),
        )
        draft.node(
            "FMPadding_Pixel",
            [x.name],
            [apart],
            node,
            FPGA,
            backend="fpgadataflow",
            ImgDim=[height, width],
            Stride=factors,
            NumChannels=channels,
            SIMD=1,
            inputDataType=draft.kind(x.name),
        )
        draft.padding(apart, output, [0, 0, down - 1, right - 1], node)
        return
    draft.node(
        "UpsampleNearestNeighbour",
        [x.name],
        [output],
        node,
        FPGA,
        backend="fpgadataflow",
        HI=height,
        WI=width,
        HO=height * factors[0],
        WO=width * factors[1],
        NumChannels=channels,
        SIMD=1,
        inputDataType=draft.kind(x.name),
        cpp_interface="hls_vector",
        hls_style="freerunning",
    )


EMITTERS: Mapping[str, Callable[[Draft, Any], None]] = {
    "Concat": _concat,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Transpose": _transpose,
    "Upsample": _upsample,
}
