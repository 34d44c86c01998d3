"""What moves codes about: padding, slices, joins, copies and other orders."""

from __future__ import annotations

import math

import numpy as np

from qhw.flows.rtl.circuit import Setting, Wire
from qhw.flows.rtl.emission.draft import Draft, channels_last, refuse
from qhw.graph import ir
from qhw.graph.ir import Node
from qhw.rtl.shared.walks import within

Part = tuple[int, int, int]
"""Where a part begins along an axis, how many of it there are, and how far they are apart."""


def padded(
    draft: Draft,
    wire: Wire,
    shape: tuple[int, int, int],
    pads: tuple[int, ...],
    value: int,
    name: str,
    node: str,
    steps: tuple[int, int] = (1, 1),
) -> Wire:
    """An image (C, rows, columns) with pixels around it, or between them; the same where there are none.

    Args:
        pads: rows above, columns in front, rows below, columns behind.
        value: the mantissa of what is put in.
        steps: how far its rows and its columns lie apart then.
    """
    channels, rows, columns = shape
    if not any(pads) and steps == (1, 1):
        return wire
    more_rows, more_columns = pads[0] + pads[2] + rows * steps[0], pads[1] + pads[3] + columns * steps[1]
    words = channels // wire.lanes
    parts = (pads[0], rows, steps[0]), (pads[1], columns, steps[1]), (0, words, 1)
    mask = (1 << wire.element.width) - 1
    fill = sum((value & mask) << i * wire.element.width for i in range(wire.lanes))
    settings: dict[str, Setting] = {
        "W": wire.bits,
        **_walk((more_rows, more_columns, words), parts),
        "FILL": f"{wire.bits}'h{fill:x}",
    }
    order = channels_last((channels, more_rows, more_columns))
    out = draft.wire(wire.tensor, wire.lanes, wire.element, order)
    return draft.stream("pad_stream", [wire], out, settings, name=name, node=node)


def cropped(
    draft: Draft,
    wire: Wire,
    sizes: tuple[int, int, int],
    parts: tuple[Part, Part, Part],
    name: str,
    node: str,
) -> Wire:
    """Some words of an image of rows, columns and words of a pixel; the same where they are all.

    Args:
        sizes: rows, columns, and words of a pixel.
        parts: the rows, columns and words that are kept.
    """
    if parts == tuple((0, size, 1) for size in sizes):
        return wire
    walk = _walk(sizes, parts)
    kept = within(walk)
    order = wire.order.reshape(len(kept), -1)[kept].reshape(-1)
    out = draft.wire(wire.tensor, wire.lanes, wire.element, order)
    return draft.stream("crop_stream", [wire], out, {"W": wire.bits, **walk}, name=name, node=node)


def _walk(sizes: tuple[int, int, int], parts: tuple[Part, Part, Part]) -> dict[str, int]:
    settings = dict(zip("RNC", sizes, strict=True))
    for axis, part in zip("RNC", parts, strict=True):
        settings |= {f"{axis}0": part[0], f"{axis}1": part[1], f"{axis}S": part[2]}
    return settings


def _as_image(shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """Channels, rows and columns; None beyond two axes of pixels."""
    if len(shape) > 3:
        return None
    channels, *spatial = shape if shape else (1,)
    rows, columns = ([1] * (2 - len(spatial)) + spatial)[:2]
    return channels, rows, columns


def pad(draft: Draft, node: ir.Pad) -> None:
    """Elements around a tensor, in its rows, its columns, and its channels."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    rank = len(x.shape)
    shape = _as_image(x.shape)
    if shape is None:
        refuse(node, f"a tensor of shape {x.shape}", allowed="up to two axes beside the channel's")
    begins, ends = _on_image(node.pads[:rank]), _on_image(node.pads[rank:])
    lanes = math.gcd(draft.fold(node).pe, x.shape[0] if rank else 1, begins[0], ends[0])
    wire = draft.read(node, 0, lanes, channels_last(x.shape))
    sizes = tuple(b + n + e for b, n, e in zip(begins, shape, ends, strict=True))
    walked = (sizes[1], sizes[2], sizes[0] // lanes)
    parts = (begins[1], shape[1], 1), (begins[2], shape[2], 1), (begins[0] // lanes, shape[0] // lanes, 1)
    code = int(np.asarray(out.format.code_of(np.array([node.value])))[0]) & ((1 << wire.element.width) - 1)
    fill = sum(code << i * wire.element.width for i in range(lanes))
    settings: dict[str, Setting] = {"W": wire.bits, **_walk(walked, parts), "FILL": f"{wire.bits}'h{fill:x}"}
    result = draft.wire(node.output, lanes, wire.element, channels_last(out.shape))
    name = draft.label(node)
    draft.give(node, draft.stream("pad_stream", [wire], result, settings, name=name, node=node.name))


def _on_image(numbers: tuple[int, ...]) -> tuple[int, int, int]:
    """Numbers of a tensor's axes as those of an image's channels, rows and columns."""
    first, *rest = numbers if numbers else (0,)
    rows, columns = ([0] * (2 - len(rest)) + list(rest))[:2]
    return first, rows, columns


def cut(draft: Draft, node: ir.Slice) -> None:
    """A part of a tensor."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    shape = _as_image(x.shape)
    if shape is None:
        refuse(node, f"a tensor of shape {x.shape}", allowed="up to two axes beside the channel's")
    count = out.shape[node.axis]
    place = 0 if node.axis == 0 else node.axis + 3 - len(x.shape)
    lanes = math.gcd(draft.fold(node).pe, x.shape[0])
    if place == 0:
        lanes = math.gcd(lanes, node.start, count) if node.step == 1 else 1
    wire = draft.read(node, 0, lanes, channels_last(x.shape))
    parts: list[Part] = [(0, shape[1], 1), (0, shape[2], 1), (0, shape[0] // lanes, 1)]
    taken = (node.start // lanes, count // lanes, node.step) if place == 0 else (node.start, count, node.step)
    parts[place - 1] = taken
    walked, walk = (shape[1], shape[2], shape[0] // lanes), (parts[0], parts[1], parts[2])
    settings = {"W": wire.bits, **_walk(walked, walk)}
    result = draft.wire(node.output, lanes, wire.element, channels_last(out.shape))
    name = draft.label(node)
    draft.give(node, draft.stream("crop_stream", [wire], result, settings, name=name, node=node.name))


def upsample(draft: Draft, node: ir.Upsample) -> None:
    """Zeros behind every element, or copies of it."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    shape = _as_image(x.shape)
    if shape is None or len(x.shape) < 2:
        refuse(node, f"a tensor of shape {x.shape}", allowed="one or two axes beside the channel's")
    lanes = math.gcd(draft.fold(node).pe, x.shape[0])
    wire = draft.read(node, 0, lanes, channels_last(x.shape))
    factors = node.factors if len(node.factors) == 2 else (1, node.factors[0])
    name = draft.label(node)
    if node.zeros:
        result = padded(draft, wire, shape, (0, 0, 0, 0), 0, name, node.name, (factors[0], factors[1]))
    else:
        words = np.arange(wire.words).reshape(shape[1], shape[2], -1)
        copied = words.repeat(factors[0], 0).repeat(factors[1], 1).reshape(-1)
        result = draft.gathered(wire, copied, channels_last(out.shape))
    draft.give(node, result)


def concat(draft: Draft, node: ir.Concat) -> None:
    """Tensors joined along an axis, two at a time."""
    graph = draft.design.graph
    if any(name in graph.constants for name in node.inputs):
        refuse(node, "a constant is joined")
    shapes = [graph.tensors[name].shape for name in node.inputs]
    lanes = math.gcd(draft.fold(node).pe, *(shape[0] for shape in shapes))
    wires = [draft.read(node, index, lanes, channels_last(shape)) for index, shape in enumerate(shapes)]
    joined, shape = wires[0], list(shapes[0])
    for wire, other in zip(wires[1:], shapes[1:], strict=True):
        # The axis' own elements and all that pass within one of them.
        inner = math.prod(shape[node.axis + 1 :]) * (shape[0] if node.axis else 1)
        chunks = [s[node.axis] * (inner if node.axis else 1) // lanes for s in (shape, other)]
        shape[node.axis] += other[node.axis]
        out = draft.wire(node.output, lanes, wire.element, channels_last(tuple(shape)))
        settings = {"W": wire.bits, "NA": chunks[0], "NB": chunks[1]}
        name = draft.label(node)
        joined = draft.stream("interleave", [joined, wire], out, settings, name=name, node=node.name)
    draft.give(node, joined)


def reshape(draft: Draft, node: ir.Reshape) -> None:
    """The same codes in another shape: nothing moves in the stream."""
    wire = draft.take(node.inputs[0])
    draft.give(node, Wire(wire.name, node.output, wire.lanes, wire.element, wire.order))


def transpose(draft: Draft, node: ir.Transpose) -> None:
    """Axes in another order: the stream stays, and its elements are other ones."""
    wire = draft.take(node.inputs[0])
    x = draft.design.graph.tensors[node.inputs[0]]
    places = np.empty(x.size, dtype=np.int64)
    places[np.arange(x.size).reshape(x.shape).transpose(node.perm).reshape(-1)] = np.arange(x.size)
    draft.give(node, Wire(wire.name, node.output, wire.lanes, wire.element, places[wire.order]))


def gives(node: Node) -> bool:
    """Whether an operation only says otherwise what a stream's elements are."""
    return isinstance(node, ir.Reshape | ir.Transpose)
