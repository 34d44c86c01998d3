"""What moves elements about: flattening, joining, splitting and padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from qhw.flows.finn.carried import channels_last
from qhw.flows.finn.emission.draft import FPGA, Draft, refused
from qhw.graph import ir


def _reshape(draft: Draft, node: ir.Node) -> None:
    carried = draft.input_of(node)
    before, after = carried.shape, draft.graph.tensors[node.output].shape
    if _squeezed(before) == _squeezed(after) and len(_squeezed(before)) <= 1:
        draft.carry(node.output, carried.name, carried.multiplier, carried.offset, carried.order)
        return
    x = draft.plain(node)
    if len(before) not in (2, 3) or len(after) != 1:
        raise refused(node, f"it makes {after} of {before}: FINN streams only what flattens an image")
    order = np.moveaxis(np.arange(after[0]).reshape(before), 0, -1).reshape(-1)
    shape = draft.indices(f"{node.name}_shape", [1, after[0]])
    output = draft.tensor(node.output, (1, after[0]), draft.kind(x.name))
    draft.node("Reshape", [x.name, shape], [output], node)
    draft.carry(node.output, output, order=order)


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
    _, height, width, channels = draft.shape(x.name)
    begins, ends = node.pads[1:rank], node.pads[rank + 1 :]
    around = [*begins, *ends] if rank == 3 else [0, begins[0], 0, ends[0]]
    output = draft.tensor(
        node.output, channels_last(draft.graph.tensors[node.output].shape), draft.kind(x.name)
    )
    draft.node(
        "FMPadding",
        [x.name],
        [output],
        node,
        FPGA,
        backend="fpgadataflow",
        ImgDim=[height, width],
        Padding=around,
        NumChannels=channels,
        SIMD=1,
        inputDataType=draft.kind(x.name),
    )
    draft.carry(node.output, output)


EMITTERS: Mapping[str, Callable[[Draft, Any], None]] = {
    "Concat": _concat,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
}
