"""Operations on each element alone, or on two elements that meet."""

from __future__ import annotations

import math

import numpy as np

from qhw.flows.rtl.circuit import Element, Wire
from qhw.flows.rtl.emission.arithmetic import (
    broadcast,
    compared,
    dot,
    mantissas,
    numbers_by_code,
    plus,
    powers,
    requantised,
    shifts,
    spread,
    table,
    times,
    times_loaded,
)
from qhw.flows.rtl.emission.draft import Draft, refuse
from qhw.flows.rtl.emission.lanes import Lanes, Loads, Net, holding, of_integers
from qhw.flows.rtl.loading import bounds
from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.ir import Node, TensorType


def lanes_of(draft: Draft, node: Node, size: int) -> int:
    """Elements side by side: PE, as far as it divides them."""
    return math.gcd(draft.fold(node).pe, size)


def _begin(draft: Draft, node: Node, inputs: tuple[Wire, ...]) -> Lanes:
    return Lanes(draft, draft.label(node), inputs, inputs[0].order)


def _one(draft: Draft, node: Node, index: int = 0) -> Lanes:
    kind = draft.design.graph.tensors[node.inputs[index]]
    queue = not draft.is_absorbed(node)
    return _begin(draft, node, (draft.read(node, index, lanes_of(draft, node, kind.size), queue=queue),))


def _end(draft: Draft, node: Node, lanes: Lanes, net: Net) -> None:
    """The result as its format's codes."""
    format = draft.design.graph.tensors[node.output].format
    if isinstance(format, TableFormat):
        refuse(node, f"its result is in {format}, which nothing rounds it to")
    draft.give(node, lanes.finish(lanes.moved(net, Element.of(format)), node.output, node.name))


def affine(draft: Draft, node: ir.Affine) -> None:
    """A multiplication and an addition by constants of the channel."""
    graph = draft.design.graph
    kinds = [graph.tensors[name] for name in node.inputs]
    out = graph.tensors[node.output]
    lanes = _one(draft, node)
    multiplier = spread(graph.constants[node.inputs[1]], out.shape)
    exponent = spread(np.array(kinds[1].exponent.values), out.shape) + shifts(kinds[0], out)
    x, count = mantissas(lanes, kinds[0].format), graph.constants[node.inputs[1]].size
    # What divides an average is no weight.
    shared = int(exponent.min()) if draft.loads and (count > 1 or len(node.inputs) > 2) else None
    if shared is None:
        net = times(lanes, node, x, multiplier * powers(exponent), "multipliers")
    else:
        sources = spread(np.arange(count), out.shape)
        loads = loaded(draft, kinds[1].format, exponent - shared, sources)
        assert loads is not None
        net = times_loaded(lanes, node, x, multiplier * powers(exponent - shared), loads, shared)
    if len(node.inputs) > 2:
        offset = spread(graph.constants[node.inputs[2]], out.shape)
        result = spread(np.array(out.exponent.values), out.shape)
        places = spread(np.array(kinds[2].exponent.values), out.shape) - result
        sources = spread(np.arange(graph.constants[node.inputs[2]].size), out.shape)
        loads = loaded(draft, kinds[2].format, places, sources)
        net = with_offset(lanes, net, offset * powers(places), Element.of(out.format), loads)
    _end(draft, node, lanes, net)


def with_offset(
    lanes: Lanes, net: Net, offset: IntArray, element: Element, loads: Loads | None = None
) -> Net:
    """The number and a constant of each element."""
    if loads is None and not offset.any():
        return net
    own = of_integers(offset) if loads is None else loads.element
    return plus(lanes, net, lanes.constants(offset, own, "offsets", loads), element)


def loaded(draft: Draft, format: Format, places: IntArray, sources: IntArray) -> Loads | None:
    """How constants of a format are loaded, shifted by some places; None where they are there from the start.

    Args:
        sources: which of them each element of the tensor has, flat.
    """
    if not draft.loads:
        return None
    low, high = (bound << int(max(places)) for bound in bounds(format))
    return Loads(holding(low, high), sources)


def requant(draft: Draft, node: ir.Requant) -> None:
    """Rounding to a format."""
    graph = draft.design.graph
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    lanes = _one(draft, node)
    net = requantised(lanes, node, mantissas(lanes, x.format), x, y)
    draft.give(node, lanes.finish(lanes.moved(net, Element.of(y.format)), node.output, node.name))


def threshold(draft: Draft, node: ir.Threshold) -> None:
    """Thresholds that are counted and mapped."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    thresholds, levels = (graph.constants[name].astype(object) for name in node.inputs[1:])
    lanes = _one(draft, node)
    if isinstance(x.format, TableFormat) and len(thresholds) > 1:
        refuse(node, f"thresholds per channel of codes in {x.format}")
    codes = out.format.code_of(levels).astype(object)
    net = compared(
        lanes, node, mantissas(lanes, x.format), thresholds, codes, Element.of(out.format), out.shape
    )
    draft.give(node, lanes.finish(net, node.output, node.name))


MOST_CODE_BITS = 16


def looked_up(draft: Draft, node: ir.Table) -> None:
    """Any function of a code, by a memory in every lane; per channel, the channel is part of its address."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    values = graph.constants[node.inputs[1]].astype(object)
    lanes = _one(draft, node)
    net = lanes.given()
    width = x.format.width
    if width > MOST_CODE_BITS:
        refuse(node, f"codes of {width} bits", allowed=f"up to {MOST_CODE_BITS}")
    codes = np.arange(1 << width)
    if isinstance(x.format, TableFormat):
        numbers = numbers_by_code(x.format)
    else:
        numbers = np.where((codes >> width - 1) & (x.format.mantissa_low < 0), codes - (1 << width), codes)
    places = np.asarray(numbers - node.first, dtype=np.int64)
    inside = (places >= 0) & (places < values.shape[1])
    entries = values[:, np.where(inside, places, 0)]
    held = np.asarray(out.format.code_of(entries), dtype=object)
    if len(values) > 1:
        channel = spread(np.arange(len(values)), x.shape)
        net = lanes.together(net, lanes.constants(channel, of_integers(channel), "channels"))
        count = 1 << net.element.width - width
        held = np.vstack([held, np.zeros((count - len(values), held.shape[1]), dtype=object)])
    net = table(lanes, net, held.reshape(-1), "entries")
    draft.give(node, lanes.finish(lanes.moved(net, Element.of(out.format)), node.output, node.name))


def add(draft: Draft, node: ir.Add) -> None:
    """The sum of two tensors, or of one and a constant."""
    lanes, nets, kinds, out = _two(draft, node)
    moved = []
    for index, (net, kind) in enumerate(zip(nets, kinds, strict=True)):
        factors = powers(shifts(kind, out))
        if net is None:
            constant = broadcast(draft.design.graph.constants[node.inputs[index]], out.shape) * factors
            moved.append(lanes.constants(constant, of_integers(constant), "offsets"))
        else:
            moved.append(times(lanes, node, net, factors, f"places_{'ab'[index]}"))
    _end(draft, node, lanes, plus(lanes, moved[0], moved[1], Element.of(out.format)))


def mul(draft: Draft, node: ir.Mul) -> None:
    """The product of two tensors, or of one and a constant."""
    lanes, nets, _, out = _two(draft, node)
    constants = draft.design.graph.constants
    index = next((i for i, net in enumerate(nets) if net is None), None)
    if index is None:
        a, b = nets
        assert a is not None
        assert b is not None
        net = dot(lanes, a, b)
    else:
        other = nets[1 - index]
        assert other is not None
        factors = broadcast(constants[node.inputs[index]], out.shape)
        net = times(lanes, node, other, factors, "multipliers")
    _end(draft, node, lanes, net)


def _two(draft: Draft, node: Node) -> tuple[Lanes, list[Net | None], list[TensorType], TensorType]:
    """A module for two operands; None stands for one that is constant."""
    graph = draft.design.graph
    kinds, out = [graph.tensors[name] for name in node.inputs], graph.tensors[node.output]
    computed = [i for i, name in enumerate(node.inputs) if name not in graph.constants]
    if len(computed) == 1:
        lanes = _one(draft, node, computed[0])
    else:
        count = lanes_of(draft, node, out.size)
        first = draft.read(node, 0, count)
        lanes = _begin(draft, node, (first, draft.read(node, 1, count, order=first.order)))
    nets: list[Net | None] = [None, None]
    for port, index in enumerate(computed):
        nets[index] = mantissas(lanes, kinds[index].format, port)
    return lanes, nets, kinds, out
