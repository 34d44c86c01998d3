"""Windows over a stream: the module that reads one, and pools."""

from __future__ import annotations

import math
from functools import partial

import numpy as np

from qhw.flows.rtl.circuit import Element, Setting, Wire, instance
from qhw.flows.rtl.emission.arithmetic import compared
from qhw.flows.rtl.emission.draft import Draft, channels_last, memory_style
from qhw.flows.rtl.emission.lanes import Lanes
from qhw.flows.rtl.emission.moves import padded
from qhw.flows.rtl.emission.products import whole_integers
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.ir import Node
from qhw.rtl.components import LANE_COMPONENTS
from qhw.rtl.components.sliding_window import Folded, Window


def planes(sizes: tuple[int, ...]) -> tuple[int, int]:
    """Rows and columns; a line is one row."""
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def fronted(draft: Draft, window: Window, wire: Wire, sum_words: int, edges: int) -> list[str]:
    """The window over the stream, and the layer's counters."""
    depth = window_depth(window)
    settings: dict[str, Setting] = {**vars(window), "W": wire.bits, "D": depth, "STYLE": memory_style(depth)}
    if draft.design.architecture.options.get("registers") == "many":
        settings["EARLY"] = 1
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


def closed(
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
        *draft.load_ports(name),
    ]
    text = [f"module {name} (", ",\n".join(ports), ");", *body, "endmodule\n"]
    draft.circuit.modules[name] = "\n".join(text)
    out = draft.wire(node.output, pe, element, order)
    timing = Folded(window, window_depth(window), sum_words, edges)
    return draft.add(name, [wire], out, timing, name=f"{name}_instance", node=node.name)


def pool(draft: Draft, node: ir.SumPool | ir.MaxPool) -> None:
    """The sum or the largest of a window, channel by channel."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    rank = len(x.shape) - 1
    dilations = node.dilations if isinstance(node, ir.MaxPool) else (1,) * rank
    _pooled(draft, node, planes(node.kernel), node.strides, node.pads, dilations, out.shape[1:])


def reduced(draft: Draft, node: ir.ReduceSum | ir.ReduceMax) -> None:
    """The sum or the largest over axes; over all pixels by a window as large as the image."""
    graph = draft.design.graph
    x, out = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    rank = len(x.shape) - 1
    if tuple(sorted(node.axes)) == tuple(range(1, rank + 1)) and rank in (1, 2):
        ones = (1,) * rank
        _pooled(draft, node, planes(x.shape[1:]), ones, (0,) * 2 * rank, ones, ones)
        return
    kept = [axis for axis in range(rank + 1) if axis not in node.axes]
    places = np.arange(x.size).reshape(x.shape).transpose(*kept, *node.axes).reshape(-1)
    wire = draft.read(node, 0, 1, places, via=partial(whole_integers, draft, node, format=x.format))
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
    spatial = planes(x.shape[1:])
    pads = given_pads if len(given_pads) == 4 else (0, given_pads[0], 0, given_pads[1])
    wire = draft.read(
        node, 0, pe, channels_last(x.shape), via=partial(whole_integers, draft, node, format=x.format)
    )
    fill = _lowest(wire.element) if node.op == "MaxPool" else 0
    wire = padded(draft, wire, (x.shape[0], *spatial), pads, fill, draft.label(node, "pad"), node.name)
    rows, columns = spatial[0] + pads[0] + pads[2], spatial[1] + pads[1] + pads[3]
    words = x.shape[0] // pe
    loops = (rows, columns, words, *kernel, *planes(strides), *planes(dilations), *planes(places))
    window = Window(*loops, G=words)
    order = channels_last((x.shape[0], *planes(places)))
    _accumulated(draft, node, draft.label(node), wire, window, math.prod(kernel), order)


def _lowest(element: Element) -> int:
    """The lowest integer of some bits."""
    return -(1 << element.width - 1) if element.signed else 0


def _accumulated(
    draft: Draft, node: Node, name: str, wire: Wire, window: Window, sum_words: int, order: IntArray
) -> None:
    """The module that sums up words, or keeps the largest, in every lane."""
    out = draft.design.graph.tensors[node.output]
    largest = node.op in ("MaxPool", "ReduceMax")
    a, unit = wire.element, "running_max" if largest else "running_sum"
    element = a if largest else Element.of(out.format)
    # What is known of the numbers may say that their sum has fewer bits than one of them could have.
    bits = max(a.width, element.width)
    settings = {"W": a.width, "S": int(a.signed)} | ({} if largest else {"A": bits})
    edges = 1 + LANE_COMPONENTS[unit].latency(settings)
    body = fronted(draft, window, wire, sum_words, edges)
    for i in range(wire.lanes):
        pins = {
            "clk": "clk",
            "enable": "enable",
            "first": "first_1",
            "x": f"window[{i * a.width}+:{a.width}]",
        }
        pins["y"] = f"result{i}"
        body.append(f"    wire [{bits - 1}:0] result{i};")
        body.append(f"    assign y[{i * element.width}+:{element.width}] = result{i}[{element.width - 1}:0];")
        body.append(instance(unit, f"unit{i}", settings, pins))
    made = closed(draft, node, name, wire, body, wire.lanes, element, order, window, sum_words, edges)
    if isinstance(out.format, TableFormat):
        numbers = np.asarray(out.format.numbers, dtype=object)
        codes = np.asarray(out.format.code_of(out.format.numbers), dtype=object)
        lanes = Lanes(draft, draft.label(node, "codes"), (made,), order)
        net = compared(
            lanes, node, lanes.given(), numbers[None, 1:], codes[None, :], Element.of(out.format), out.shape
        )
        made = lanes.finish(net, node.output, node.name)
    draft.give(node, made)
