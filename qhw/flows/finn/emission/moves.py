"""What moves elements about: flattening, joining, splitting and padding."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qhw.flows.finn.carried import Axes, Shape, last, travelling
from qhw.flows.finn.emission.draft import FPGA, Draft, refused
from qhw.formats.modes import IntArray
from qhw.graph import ir


def _reshape(draft: Draft, node: ir.Node) -> None:
    """What is streamed stays as it is; it is called by other indices."""
    carried = draft.input_of(node, any_layout=True)
    before, after = carried.shape, draft.graph.tensors[node.output].shape
    if _squeezed(before) == _squeezed(after) and len(_squeezed(before)) <= 1:
        draft.carry(node.output, carried.name, carried.multiplier, carried.offset, carried.order)
        return
    x = draft.plain(node, any_layout=True)
    indices = np.arange(math.prod(before)).reshape(before).transpose(x.layout).reshape(-1)
    travels = indices if x.order is None else x.order
    layout = _layout(travels, after)
    shape = (1, *after) if layout is None else travelling(after, layout)
    sizes = draft.indices(f"{node.name}_shape", list(shape))
    output = draft.tensor(node.output, shape, draft.kind(x.name))
    if layout is None and len(after) != 1:
        raise refused(
            node,
            f"it makes {after} of {before}, whose elements FINN would have to stream in another order",
            "use --flow hls4ml",
        )
    draft.node("Reshape", [x.name, sizes], [output], node)
    draft.carry(node.output, output, order=travels if layout is None else None, axes=layout)


def _layout(travels: IntArray, shape: Shape) -> Axes | None:
    """The order of axes in which the elements of a shape travel as they do; None: there is none."""
    if len(shape) > 3:
        return None
    indices = np.arange(len(travels)).reshape(shape)
    orders = [last(len(shape)), *itertools.permutations(range(len(shape)))]
    return next((axes for axes in orders if np.array_equal(indices.transpose(axes).ravel(), travels)), None)


def _transpose(draft: Draft, node: ir.Node) -> None:
    """What is streamed stays as it is; the axes have other numbers."""
    assert isinstance(node, ir.Transpose)
    x = draft.input_of(node, any_layout=True)
    axes = tuple(node.perm.index(axis) for axis in x.layout)
    draft.carry(node.output, x.name, x.multiplier, x.offset, x.order, axes)


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)


def _concat(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.Concat)
    if node.axis != 0:
        raise refused(node, f"it joins along axis {node.axis}; FINN joins channels")
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
    """All slices of a tensor are one Split, of which each is a part."""
    assert isinstance(node, ir.Slice)
    if node.axis != 0 or node.step != 1:
        raise refused(node, f"it takes every {node.step}th index of axis {node.axis}; FINN splits channels")
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


def _pad(draft: Draft, node: ir.Node) -> None:
    assert isinstance(node, ir.Pad)
    rank = len(node.pads) // 2
    if node.value != 0 or node.pads[0] or node.pads[rank] or rank not in (2, 3):
        raise refused(node, "FINN pads images with zeros, at their edges")
    x = draft.plain(node)
    begins, ends = node.pads[1:rank], node.pads[rank + 1 :]
    around = [*begins, *ends] if rank == 3 else [0, begins[0], 0, ends[0]]
    _padded(draft, node, x.name, draft.result(node, x), around)
    draft.carry(node.output, node.output)


def _padded(draft: Draft, node: ir.Node, name: str, output: str, around: list[int]) -> None:
    """Zeros at the edges of an image: above, left, below, right."""
    _, height, width, channels = draft.shape(name)
    draft.node(
        "FMPadding",
        [name],
        [output],
        node,
        FPGA,
        backend="fpgadataflow",
        ImgDim=[height, width],
        Padding=around,
        NumChannels=channels,
        SIMD=1,
        inputDataType=draft.kind(name),
    )


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
        _padded(draft, node, apart, output, [0, 0, down - 1, right - 1])
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
