"""Conv and MatMul: a window over the stream, dot products, and the memory of their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from qhw.flows.rtl.circuit import Element, Setting, Wire, instance
from qhw.flows.rtl.emission.arithmetic import powers, spread
from qhw.flows.rtl.emission.draft import Draft, channels_last, memory_style, refuse
from qhw.flows.rtl.emission.elementwise import loaded, with_offset
from qhw.flows.rtl.emission.lanes import Lanes
from qhw.flows.rtl.emission.moves import padded
from qhw.flows.rtl.emission.products import as_integers, dot_products
from qhw.flows.rtl.emission.windows import closed, fronted, planes
from qhw.flows.rtl.template import coarser, divisors
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.ir import Node
from qhw.rtl.components.sliding_window import Window


@dataclass(frozen=True)
class Product:
    """A folded matrix.

    Args:
        window: the loops over the stream, whose words have ``simd`` elements (depthwise: ``pe``).
        weights: shape (folds of the outputs, pe, words of a sum, simd).
        order: the places in the output of its elements, as they come.
    """

    window: Window
    weights: IntArray
    order: IntArray
    depthwise: bool = False


def conv(draft: Draft, node: ir.Conv) -> None:
    """A convolution; its padding is a component of its own."""
    graph = draft.design.graph
    x, weight, out = (graph.tensors[name] for name in (*node.inputs[:2], node.output))
    fold, value = draft.fold(node), graph.constants[node.inputs[1]]
    channels, filters, depth = x.shape[0], weight.shape[0], weight.shape[1]
    depthwise = node.groups == channels == filters
    per_group = filters // node.groups
    pe = fold.pe if depthwise else math.gcd(fold.pe, per_group)
    simd = 1 if depthwise else math.gcd(fold.simd, depth)
    lanes = pe if depthwise else simd
    spatial, kernel = planes(x.shape[1:]), planes(weight.shape[2:])
    pads = node.pads if len(x.shape) == 3 else (0, node.pads[0], 0, node.pads[1])
    wire = draft.read(
        node, 0, lanes, channels_last(x.shape), via=partial(as_integers, draft, node, format=x.format)
    )
    wire = padded(draft, wire, (x.shape[0], *spatial), pads, 0, draft.label(node, "pad"), node.name)
    rows, columns = spatial[0] + pads[0] + pads[2], spatial[1] + pads[1] + pads[3]
    strides, dilations = planes(node.strides), planes(node.dilations)
    places = planes(out.shape[1:])
    words = channels // lanes
    window = Window(
        *(rows, columns, words, *kernel, *strides, *dilations, *places),
        G=words if depthwise else node.groups,
        F=1 if depthwise else per_group // pe,
    )
    # Outputs by taps by channels, as words come.
    taps = np.moveaxis(value, 1, -1).reshape(filters, -1)
    folds = filters // pe
    product = Product(window, taps.reshape(folds, pe, -1, simd), channels_last(out.shape), depthwise)
    _folded(draft, node, wire, product)


def matmul(draft: Draft, node: ir.MatMul) -> None:
    """A vector or rows of vectors by a constant matrix."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    if node.inputs[1] not in graph.constants or len(graph.tensors[node.inputs[1]].shape) != 2:
        refuse(node, "its right operand is not a constant matrix")
    value, fold = graph.constants[node.inputs[1]], draft.fold(node)
    inner, outputs = value.shape
    wire = as_integers(draft, node, draft.take(node.inputs[0]), x.format)
    rows = wire.order.reshape(-1, inner)
    if (rows // inner != rows[:, :1] // inner).any() or (rows % inner != rows[0] % inner).any():
        wire = draft.ordered(wire, np.arange(x.size))
        rows = wire.order.reshape(-1, inner)
    wire = draft.queued(draft.geared(wire, fold.simd), draft.label(node, "queue"))
    words = inner // fold.simd
    vectors = len(rows)
    window = Window(1, vectors, words, ON=vectors, F=outputs // fold.pe)
    # The matrix's rows as the vector's elements come.
    ordered = value[rows[0] % inner].T
    weights = ordered.reshape(outputs // fold.pe, fold.pe, words, fold.simd)
    order = (rows[:, 0] // inner)[:, None] * outputs + np.arange(outputs)
    assert order.size == out.size
    _folded(draft, node, wire, Product(window, weights, order.reshape(-1)))


def _folded(draft: Draft, node: Node, wire: Wire, product: Product) -> None:
    """The layer's module, and the addition of its bias."""
    graph = draft.design.graph
    x, weight, out = (graph.tensors[name] for name in (*node.inputs[:2], node.output))
    folds, pe, sum_words, simd = product.weights.shape
    name, window = draft.label(node), product.window
    bits = out.format.width - coarser(x, weight, out)
    dots = dot_products(draft, node, wire, x.format, weight.format, product.weights, bits)
    words = dots.weights.transpose(0, 2, 1, 3).reshape(folds * sum_words, pe * simd)
    edges = 1 + dots.latency
    body = fronted(draft, window, wire, sum_words, edges)
    bits = pe * simd * dots.weight_bits
    body += [f"    wire [{bits - 1}:0] weights;"]
    memory: dict[str, Setting] = {"D": len(words), "W": bits, "STYLE": memory_style(len(words))}
    pins = {"clk": "clk", "read": "enable", "address": "address", "y": "weights"}
    held = f"{name}_weights", words.astype(object), dots.weight_bits
    if draft.loads:
        body.append(instance("loaded_memory", "memory", memory, pins | draft.loaded_memory(name, *held)))
    else:
        body.append(instance("rom", "memory", memory | {"FILE": draft.memory(*held)}, pins))
    width, total = wire.element.width, dots.total
    for i in range(pe):
        given = f"window[{i * width}+:{width}]" if product.depthwise else "window"
        share = simd * dots.weight_bits
        body += dots.lines(i, given, f"weights[{i * share}+:{share}]", f"y[{i * total.width}+:{total.width}]")
    sums = closed(draft, node, name, wire, body, pe, total, product.order, window, sum_words, edges)
    _biased(draft, node, sums, sum_words)


def _biased(draft: Draft, node: Node, wire: Wire, sum_words: int) -> None:
    """The sums at the exponents of the output, and the bias added.

    A word of sums comes every ``sum_words`` cycles, which says how many elements are handled at a time.
    """
    graph = draft.design.graph
    kinds, out = [graph.tensors[name] for name in node.inputs], graph.tensors[node.output]
    axis = 0 if isinstance(node, ir.Conv) else len(out.shape) - 1
    result = _along(np.array(out.exponent.values), out.shape, axis)
    own = _along(np.array(kinds[1].exponent.values), out.shape, axis) + kinds[0].exponent.values[0]
    element = Element.of(out.format)
    if not kinds[0].exponent.is_scalar:
        refuse(node, "its input has an exponent per channel")
    is_moved = len(node.inputs) > 2 or not (own == result).all() or wire.element != element
    if is_moved:
        wire = draft.geared(wire, next(n for n in divisors(wire.lanes) if n * sum_words >= wire.lanes))
    if len(node.inputs) < 3 and (own == result).all():
        if wire.element != element:
            lanes = Lanes(draft, draft.label(node, "bias"), (wire,), wire.order)
            wire = lanes.finish(lanes.moved(lanes.given(), element), node.output, node.name)
        draft.give(node, wire)
        return
    lanes = Lanes(draft, draft.label(node, "bias"), (wire,), wire.order)
    places = powers(own - result)
    if (places != places[0]).any():
        refuse(node, "its sums have an exponent per channel and a bias of another")
    net = lanes.moved(lanes.given(), element, int(places[0]).bit_length() - 1)
    if len(node.inputs) > 2:
        bias = _along(graph.constants[node.inputs[2]], out.shape, axis)
        moved = _along(np.array(kinds[2].exponent.values), out.shape, axis) - result
        sources = _along(np.arange(graph.constants[node.inputs[2]].size), out.shape, axis)
        loads = loaded(draft, kinds[2].format, moved, sources)
        net = with_offset(lanes, net, bias * powers(moved), element, loads)
    draft.give(node, lanes.finish(lanes.moved(net, element), node.output, node.name))


def _along(numbers: IntArray, shape: tuple[int, ...], axis: int) -> IntArray:
    """One number per index of an axis, or one, as a flat array for every element."""
    if axis == 0:
        return spread(numbers, shape)
    return np.broadcast_to(np.asarray(numbers, dtype=object).reshape(-1), shape).reshape(-1)
