"""Conv and MatMul: a window over the stream, dot products, and the memory of their weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from qhw.flows.rtl.circuit import Element, Setting, Wire, instance
from qhw.flows.rtl.emission.arithmetic import multiplier, powers, spread
from qhw.flows.rtl.emission.draft import Draft, channels_last, memory_style, refuse
from qhw.flows.rtl.emission.elementwise import with_offset
from qhw.flows.rtl.emission.lanes import Lanes
from qhw.flows.rtl.emission.moves import padded
from qhw.flows.rtl.schedule import Folded, Window
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.ir import Node
from qhw.rtl import UNITS
from qhw.rtl.shared.structure import levels


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
    spatial, kernel = _planes(x.shape[1:], 1), _planes(weight.shape[2:], 1)
    pads = node.pads if len(x.shape) == 3 else (0, node.pads[0], 0, node.pads[1])
    wire = draft.read(node, 0, lanes, channels_last(x.shape))
    wire = padded(draft, wire, (x.shape[0], *spatial), pads, 0, draft.label(node), node.name)
    rows, columns = spatial[0] + pads[0] + pads[2], spatial[1] + pads[1] + pads[3]
    strides, dilations = _planes(node.strides, 1), _planes(node.dilations, 1)
    places = _planes(out.shape[1:], 1)
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


def _planes(sizes: tuple[int, ...], missing: int) -> tuple[int, int]:
    """Rows and columns; a line is one row."""
    return (missing, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def matmul(draft: Draft, node: ir.MatMul) -> None:
    """A vector or rows of vectors by a constant matrix."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    if node.inputs[1] not in graph.constants or len(graph.tensors[node.inputs[1]].shape) != 2:
        refuse(node, "its right operand is not a constant matrix")
    value, fold = graph.constants[node.inputs[1]], draft.fold(node)
    inner, outputs = value.shape
    wire = draft.take(node.inputs[0])
    rows = wire.order.reshape(-1, inner)
    if (rows // inner != rows[:, :1] // inner).any() or (rows % inner != rows[0] % inner).any():
        wire = draft.ordered(wire, np.arange(x.size))
        rows = wire.order.reshape(-1, inner)
    wire = draft.queued(draft.geared(wire, fold.simd), f"{draft.label(node)}_queue")
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
    for kind in (x, weight):
        if isinstance(kind.format, TableFormat):
            refuse(node, f"numbers in {kind.format}", allowed="integers and fixed point")
    folds, pe, sum_words, simd = product.weights.shape
    name, window = draft.label(node), product.window
    a, b = wire.element, Element.of(weight.format)
    widths = {"WA": a.width, "WB": b.width, "SA": int(a.signed), "SB": int(b.signed), "L": simd}
    total = Element(max(out.format.width, a.width + b.width + levels(simd)), True)
    lanes = Lanes(draft, name, (wire,), product.order)
    dot = {**widths, "A": total.width, "MULTIPLIER": multiplier(lanes, a, b)}
    words = product.weights.transpose(0, 2, 1, 3).reshape(folds * sum_words, pe * simd)
    file = draft.memory(f"{name}_weights", words.astype(object), b.width)
    edges = 1 + UNITS["integer_dot"].latency(dot)
    body = _fronted(window, wire, sum_words, edges)
    bits = pe * simd * b.width
    body += [f"    wire [{bits - 1}:0] weights;"]
    rom: dict[str, Setting] = {"D": len(words), "W": bits, "STYLE": memory_style(len(words)), "FILE": file}
    body.append(
        instance("rom", "memory", rom, {"clk": "clk", "read": "enable", "address": "address", "y": "weights"})
    )
    for i in range(pe):
        given = f"window[{i * a.width}+:{a.width}]" if product.depthwise else "window"
        share = simd * b.width
        pins = {"clk": "clk", "enable": "enable", "first": "first_1", "a": given}
        pins |= {"b": f"weights[{i * share}+:{share}]", "sum": f"y[{i * total.width}+:{total.width}]"}
        body.append(instance("integer_dot", f"dot{i}", dot, pins))
    sums = _module(draft, node, name, wire, body, pe, total, product.order, window, sum_words, edges)
    _biased(draft, node, sums)


def _fronted(window: Window, wire: Wire, sum_words: int, edges: int) -> list[str]:
    """The window over the stream, and the layer's counters."""
    depth = window_depth(window)
    settings: dict[str, Setting] = {**vars(window), "W": wire.bits, "D": depth, "STYLE": memory_style(depth)}
    folds = window.reads // sum_words
    address = max(1, (folds * sum_words - 1).bit_length())
    control: dict[str, Setting] = {"P": window.OM * window.ON, "F": folds, "I": sum_words, "D": edges}
    pins = {pin: pin for pin in ("clk", "reset", "x_valid", "x", "x_ready")}
    return [
        f"    wire [{wire.bits - 1}:0] window;",
        "    wire there, enable, first, last;",
        f"    wire [{address - 1}:0] address;",
        "    reg first_1;",
        "    always @(posedge clk) if (enable) first_1 <= first;",
        instance(
            "sliding_window", "rows", settings, pins | {"read": "enable", "y_valid": "there", "y": "window"}
        ),
        instance(
            "layer_control",
            "control",
            control,
            {"clk": "clk", "reset": "reset", "x_valid": "there", "y_ready": "y_ready", "enable": "enable"}
            | {"y_valid": "y_valid", "y_last": "last", "first": "first", "address": "address"},
        ),
    ]


def window_depth(window: Window) -> int:
    """Words of a window's memory: a power of two."""
    return max(2, 1 << (window.span - 1).bit_length())


def _module(
    draft: Draft,
    node: Node,
    name: str,
    wire: Wire,
    body: list[str],
    pe: int,
    element: Element,
    order: IntArray,
    window: Window,
    sum_words: int,
    edges: int,
) -> Wire:
    """Close a module that reads one stream through a window."""
    ports = [
        "    input  clk, reset, x_valid, y_ready",
        "    output x_ready, y_valid",
        f"    input  [{wire.bits - 1}:0] x",
        f"    output [{pe * element.width - 1}:0] y",
    ]
    text = [f"module {name} (", ",\n".join(ports), ");", *body, "endmodule\n"]
    draft.circuit.modules[name] = "\n".join(text)
    out = draft.wire(node.output, pe, element, order)
    timing = Folded(window, window_depth(window), sum_words, edges)
    return draft.add(name, [wire], out, timing, name=f"{name}_instance", node=node.name)


def _biased(draft: Draft, node: Node, wire: Wire) -> None:
    """The sums at the exponents of the output, and the bias added."""
    graph = draft.design.graph
    kinds, out = [graph.tensors[name] for name in node.inputs], graph.tensors[node.output]
    axis = 0 if isinstance(node, ir.Conv) else len(out.shape) - 1
    result = _along(np.array(out.exponent.values), out.shape, axis)
    own = _along(np.array(kinds[1].exponent.values), out.shape, axis) + kinds[0].exponent.values[0]
    element = Element.of(out.format)
    if not kinds[0].exponent.is_scalar:
        refuse(node, "its input has an exponent per channel")
    if len(node.inputs) < 3 and (own == result).all():
        if wire.element != element:
            lanes = Lanes(draft, draft.label(node), (wire,), wire.order)
            wire = lanes.finish(lanes.moved(lanes.given(), element), node.output, node.name)
        draft.give(node, wire)
        return
    lanes = Lanes(draft, draft.label(node), (wire,), wire.order)
    places = powers(own - result)
    if (places != places[0]).any():
        refuse(node, "its sums have an exponent per channel and a bias of another")
    net = lanes.moved(lanes.given(), element, int(places[0]).bit_length() - 1)
    if len(node.inputs) > 2:
        bias = _along(graph.constants[node.inputs[2]], out.shape, axis)
        moved = _along(np.array(kinds[2].exponent.values), out.shape, axis) - result
        net = with_offset(lanes, net, bias * powers(moved), element)
    draft.give(node, lanes.finish(lanes.moved(net, element), node.output, node.name))


def _along(numbers: IntArray, shape: tuple[int, ...], axis: int) -> IntArray:
    """One number per index of an axis, or one, as a flat array for every element."""
    if axis == 0:
        return spread(numbers, shape)
    return np.broadcast_to(np.asarray(numbers, dtype=object).reshape(-1), shape).reshape(-1)


def pool(draft: Draft, node: ir.SumPool | ir.MaxPool) -> None:
    """The sum or the largest of a window, channel by channel."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    rank = len(x.shape) - 1
    dilations = node.dilations if isinstance(node, ir.MaxPool) else (1,) * rank
    _pooled(draft, node, _planes(node.kernel, 1), node.strides, node.pads, dilations, out.shape[1:])


def reduced(draft: Draft, node: ir.ReduceSum | ir.ReduceMax) -> None:
    """The sum or the largest over axes; over all pixels by a window as large as the image."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    rank = len(x.shape) - 1
    if tuple(sorted(node.axes)) == tuple(range(1, rank + 1)) and rank in (1, 2):
        ones = (1,) * rank
        _pooled(draft, node, _planes(x.shape[1:], 1), ones, (0,) * 2 * rank, ones, ones)
        return
    kept = [axis for axis in range(rank + 1) if axis not in node.axes]
    places = np.arange(x.size).reshape(x.shape).transpose(*kept, *node.axes).reshape(-1)
    wire = draft.read(node, 0, 1, places)
    count = x.size // out.size
    window = Window(1, out.size, count, ON=out.size)
    _accumulated(draft, node, draft.label(node), wire, window, count, np.arange(out.size))


def _pooled(
    draft: Draft,
    node: Node,
    kernel: tuple[int, int],
    strides: tuple[int, ...],
    given_pads: tuple[int, ...],
    dilations: tuple[int, ...],
    places: tuple[int, ...],
) -> None:
    graph = draft.design.graph
    x = graph.tensors[node.inputs[0]]
    pe = math.gcd(draft.fold(node).pe, x.shape[0])
    spatial = _planes(x.shape[1:], 1)
    pads = given_pads if len(given_pads) == 4 else (0, given_pads[0], 0, given_pads[1])
    wire = draft.read(node, 0, pe, channels_last(x.shape))
    fill = x.format.mantissa_low if node.op == "MaxPool" else 0
    name = draft.label(node)
    wire = padded(draft, wire, (x.shape[0], *spatial), pads, fill, name, node.name)
    rows, columns = spatial[0] + pads[0] + pads[2], spatial[1] + pads[1] + pads[3]
    words = x.shape[0] // pe
    loops = (rows, columns, words, *kernel, *_planes(strides, 1), *_planes(dilations, 1), *_planes(places, 1))
    window = Window(*loops, G=words)
    order = channels_last((x.shape[0], *_planes(places, 1)))
    _accumulated(draft, node, name, wire, window, math.prod(kernel), order)


def _accumulated(
    draft: Draft, node: Node, name: str, wire: Wire, window: Window, sum_words: int, order: IntArray
) -> None:
    """The module that sums up words, or keeps the largest, in every lane."""
    format = draft.design.graph.tensors[node.output].format
    if isinstance(draft.design.graph.tensors[node.inputs[0]].format, TableFormat):
        refuse(node, f"numbers in {format}", allowed="integers and fixed point")
    a, element, edges = wire.element, Element.of(format), 3
    largest = node.op in ("MaxPool", "ReduceMax")
    body = _fronted(window, wire, sum_words, edges)
    settings: dict[str, Setting] = {"W": a.width, "S": int(a.signed)}
    if not largest:
        settings["A"] = element.width
    for i in range(wire.lanes):
        pins = {
            "clk": "clk",
            "enable": "enable",
            "first": "first_1",
            "x": f"window[{i * a.width}+:{a.width}]",
        }
        pins["y"] = f"y[{i * element.width}+:{element.width}]"
        body.append(instance("running_max" if largest else "running_sum", f"unit{i}", settings, pins))
    draft.give(
        node, _module(draft, node, name, wire, body, wire.lanes, element, order, window, sum_words, edges)
    )
