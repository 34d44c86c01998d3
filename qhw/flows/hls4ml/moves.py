"""Operations that only move codes: Reshape, Transpose, Slice, Pad, Upsample, Concat; layers, or none.

A tensor says in which order its elements travel, so Reshape and Transpose take no layer; what reads the
tensor gathers its elements in the order that it needs, any chain of moves at once. In a stream, what can be
done pack by pack is, and keeps no tensor whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from qhw.flows.hls4ml.carry import Carried, Order, Stored, channels_last, natural_order
from qhw.flows.hls4ml.plan import Kernel, Planner, maps
from qhw.graph import ir

_JOINED_AXES = 3
"""Axes of the tensors that hls4ml's own layer joins."""


@maps(ir.Reshape)
def reshape(planner: Planner, node: ir.Reshape) -> None:
    """Nothing moves: positions are counted row-major."""
    planner.carry(node.output, planner.travelling(node, 0))


@maps(ir.Transpose)
def transpose(planner: Planner, node: ir.Transpose) -> None:
    """Nothing moves yet: what reads the tensor knows, or rearranges it."""
    x, shape = planner.travelling(node, 0), planner.graph.tensors[node.inputs[0]].shape
    moved = natural_order(shape).reshape(shape).transpose(node.perm).reshape(-1)
    position = np.empty_like(moved)
    position[moved] = np.arange(moved.size)
    planner.carry(node.output, x.reordered(position))


@maps(ir.Slice)
def slice_(planner: Planner, node: ir.Slice) -> None:
    x, shape = planner.travelling(node, 0), planner.graph.tensors[node.inputs[0]].shape
    kept = [range(n) for n in shape]
    kept[node.axis] = kept[node.axis][node.start : node.stop : node.step]
    if _passes(planner, x, shape):
        planner.finish(node.output, sliced(planner, node, x, kept))
        return
    _gathered(planner, node, x, x.places().reshape(shape)[np.ix_(*kept)])


def sliced(
    planner: Planner, node: ir.Node, x: Carried, kept: Sequence[range], *, suffix: str = ""
) -> Carried:
    """The part of a stream, channel last, at some places of every axis (channel first)."""
    order, dims = channels_last(tuple(map(len, kept)))
    constants = {
        **_geometry("in", [*x.dims[-1:], *x.dims[:-1]]),
        **_geometry("out", [len(places) for places in kept]),
        **_geometry("first", [places.start for places in kept], 0),
        **_geometry("step", [places.step for places in kept]),
    }
    kernel = Kernel("qhw::slice<{input_t}, {output_t}, {config}>", "qhw/moves.h", constants)
    return planner.kernel(node, x, kernel, replace(x, layer="", dims=dims, order=order), suffix=suffix)


@maps(ir.Pad)
def pad(planner: Planner, node: ir.Pad) -> None:
    x, shape = planner.travelling(node, 0), planner.graph.tensors[node.inputs[0]].shape
    value, rank = _as_travelling(x, node.value), len(shape)
    if _passes(planner, x, shape):
        outside = planner.graph.tensors[node.output].shape
        front, *begins = node.pads[:rank]
        top, left = [0, 0, *begins][-2:]
        constants = {
            **_geometry("in", shape),
            **_geometry("out", outside),
            **{"pad_front": front, "pad_top": top, "pad_left": left, "value": value},
        }
        kernel = Kernel("qhw::frame<{input_t}, {output_t}, {config}>", "qhw/moves.h", constants)
        order, dims = channels_last(outside)
        planner.finish(
            node.output, planner.kernel(node, x, kernel, replace(x, layer="", dims=dims, order=order))
        )
        return
    widths = [(node.pads[i], node.pads[i + rank]) for i in range(rank)]
    source = np.pad(x.places().reshape(shape), widths, constant_values=x.size)
    _gathered(planner, node, x, source, value=value)


@maps(ir.Upsample)
def upsample(planner: Planner, node: ir.Upsample) -> None:
    x, shape = planner.travelling(node, 0), planner.graph.tensors[node.inputs[0]].shape
    value = _as_travelling(x, 0) if node.zeros else 0
    if _passes(planner, x, shape):
        constants = {
            **_geometry("in", shape),
            **_geometry("factor", (1, *node.factors)),
            **{"copies": int(not node.zeros), "value": value},
        }
        kernel = Kernel("qhw::enlarge<{input_t}, {output_t}, {config}>", "qhw/moves.h", constants)
        order, dims = channels_last(planner.graph.tensors[node.output].shape)
        out = replace(x, layer="", dims=dims, order=order)
        planner.finish(node.output, planner.kernel(node, x, kernel, out))
        return
    places = x.places().reshape(shape)
    if node.zeros:
        source = np.full(planner.graph.tensors[node.output].shape, x.size)
        source[(slice(None), *(slice(None, None, factor) for factor in node.factors))] = places
    else:
        source = places
        for axis, factor in enumerate(node.factors, 1):
            source = source.repeat(factor, axis)
    _gathered(planner, node, x, source, value=value)


@maps(ir.Concat)
def concat(planner: Planner, node: ir.Concat) -> None:
    computed = [i for i, tensor in enumerate(node.inputs) if tensor not in planner.graph.constants]
    rank = len(planner.graph.tensors[node.output].shape)
    types = {str(x.format or x.type.cpp()) for x in (planner.travelling(node, i) for i in computed)}
    if len(computed) == len(node.inputs) and rank <= _JOINED_AXES and len(types) == 1:
        _concatenated(planner, node)
    else:
        _joined(planner, node, computed)


def _concatenated(planner: Planner, node: ir.Concat) -> None:
    """Concatenate by hls4ml's own layer, two tensors at a time."""
    shapes = [planner.graph.tensors[tensor].shape for tensor in node.inputs]
    parts = [planner.channel_last(node, i) for i in range(len(node.inputs))]
    rank = len(shapes[0])
    axis = rank if node.axis == 0 else node.axis
    joined, shape = parts[0], list(shapes[0])
    for i, part in enumerate(parts[1:], 1):
        shape[node.axis] += shapes[i][node.axis]
        order, dims = channels_last(tuple(shape))
        name = planner.emit(
            node,
            "Concatenate",
            [joined.layer, part.layer],
            part.type,
            {"axis": axis, "op": f"concatenate{rank}d"},
            suffix="" if i == len(parts) - 1 else f"_{i}",
        )
        joined = replace(part, layer=name, dims=dims, order=order)
    planner.finish(node.output, joined)


def _joined(planner: Planner, node: ir.Concat, computed: Sequence[int]) -> None:
    """Computed tensors one behind the other as they travel; constants are gathered in between."""
    graph, shape = planner.graph, planner.graph.tensors[node.output].shape
    lengths = [graph.tensors[tensor].shape[node.axis] for tensor in node.inputs]
    places = np.split(
        natural_order(shape).reshape(shape), np.cumsum(lengths)[:-1], axis=node.axis
    )  # of every part in the result
    joined = planner.travelling(node, computed[0] if computed else 0)
    order: Order = places[computed[0]].reshape(-1)[joined.order]
    constant = [i for i in range(len(node.inputs)) if i not in computed]
    for n, i in enumerate(computed[1:], 2):
        part = planner.travelling(node, i)
        pack = int(np.gcd(joined.dims[-1], part.dims[-1]))
        size = joined.size + part.size
        kernel = Kernel(
            "qhw::join<{input0_t}, {input1_t}, {output_t}, {config}>",
            "qhw/join.h",
            {"n_first": joined.size, "n_second": part.size},
        )
        order = np.concatenate([order, places[i].reshape(-1)[part.order]])
        out = replace(joined, layer="", dims=(size // pack, pack), order=natural_order((size,)))
        last = n == len(computed) and not constant
        joined = planner.kernel(node, (joined, part), kernel, out, suffix="" if last else f"_{n}")
    if not constant:
        planner.finish(node.output, replace(joined, order=order))
        return
    values = np.concatenate([graph.constants[node.inputs[i]].reshape(-1) for i in constant])
    if joined.format is not None:
        values = joined.format.code_of(values)
    source = np.empty(int(np.prod(shape)), dtype=np.int64)
    source[np.concatenate([order, *(places[i].reshape(-1) for i in constant)])] = natural_order(shape)
    order, dims = channels_last(shape)
    kernel = Kernel(
        "qhw::gather<{input_t}, {output_t}, {config}>",
        "qhw/gather.h",
        {"n_in": joined.size, "n_out": source.size, "n_constant": values.size},
        arrays={
            "position": Stored.bits(source[order], int(source.size).bit_length()),
            "constant": Stored(values, 0, replace(joined.type, exponent=0)),
        },
    )
    out = replace(joined, layer="", dims=dims, order=order)
    planner.finish(node.output, planner.kernel(node, joined, kernel, out))


def _passes(planner: Planner, x: Carried, shape: tuple[int, ...]) -> bool:
    """Whether a tensor arrives pixel by pixel, channel last, so that it can be moved as it comes."""
    return planner.plan.io_type == "io_stream" and 1 <= len(shape) <= 3 and x.arranged(*channels_last(shape))


def _geometry(word: str, values: Sequence[int], missing: int = 1) -> dict[str, int]:
    """A number per axis (channel first) in the header library's words."""
    channel, *spatial = values
    height, width = ([missing] * 2 + list(spatial))[-2:]
    return {f"{word}_height": height, f"{word}_width": width, f"{word}_chan": channel}


def _as_travelling(x: Carried, mantissa: int) -> int:
    return mantissa if x.format is None else int(x.format.code_of([mantissa])[0])


def _gathered(planner: Planner, node: ir.Node, x: Carried, source: Order, *, value: int = 0) -> None:
    """Append the layer that fetches every element of the result from its place, and say how that travels."""
    order, dims = channels_last(source.shape)
    out = replace(x, layer="", dims=dims, order=order)
    planner.finish(node.output, planner.gather(node, x, source.reshape(-1)[order], out, value=value))
