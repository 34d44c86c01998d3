"""Layers whose matrix is a graph of additions: a whole vector, or all of a window, in every clock cycle."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from qhw.flows.rtl.circuit import Element, Setting, Wire, instance
from qhw.flows.rtl.emission.draft import Draft, channels_last
from qhw.flows.rtl.emission.moves import cropped, padded
from qhw.flows.rtl.emission.products import whole_integers
from qhw.flows.rtl.emission.windows import planes
from qhw.flows.rtl.unrolling import (
    Unrolled,
    additions_of,
    is_unrolled,
    number_range,
    reach,
    unrolled,
    window_style,
)
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.ir import Node
from qhw.rtl.components.pipeline_control import Pipeline
from qhw.rtl.shared.adder_graph import Counts
from qhw.rtl.shared.carry_chains import Bit, Bits


def is_written_unrolled(draft: Draft, node: Node) -> bool:
    """Whether a node is unrolled at its folding."""
    design = draft.design
    return is_unrolled(design.architecture, design.graph, node, draft.fold(node))


def matmul(draft: Draft, node: ir.MatMul) -> None:
    """Vectors by a constant matrix, a vector a word."""
    x, out = (draft.design.graph.tensors[name] for name in (node.inputs[0], node.output))
    inner, outputs = x.shape[-1], out.shape[-1]
    wire = whole_integers(draft, node, draft.take(node.inputs[0]), x.format)
    rows = wire.order.reshape(-1, inner)
    if (rows // inner != rows[:, :1] // inner).any() or (rows % inner != rows[0] % inner).any():
        wire = draft.ordered(wire, np.arange(x.size))
        rows = wire.order.reshape(-1, inner)
    wire = draft.geared(wire, inner)
    places = np.argsort(rows[0] % inner)
    order = (rows[:, 0] // inner)[:, None] * outputs + np.arange(outputs)
    _product(draft, node, wire, places, order.reshape(-1))


def conv(draft: Draft, node: ir.Conv) -> None:
    """A convolution: every window at once, one as each of its last pixels comes."""
    graph = draft.design.graph
    x, weight, out = (graph.tensors[name] for name in (*node.inputs[:2], node.output))
    channels, spatial, kernel = x.shape[0], planes(x.shape[1:]), planes(weight.shape[2:])
    pads = node.pads if len(x.shape) == 3 else (0, node.pads[0], 0, node.pads[1])
    via = partial(whole_integers, draft, node, format=x.format)
    wire = draft.read(node, 0, channels, channels_last(x.shape), queue=False, via=via)
    wire = padded(draft, wire, (channels, *spatial), pads, 0, draft.label(node, "pad"), node.name)
    rows, columns = spatial[0] + pads[0] + pads[2], spatial[1] + pads[1] + pads[3]
    down, along = reach(node, weight.shape[2:])
    dilations, strides, places = planes(node.dilations), planes(node.strides), planes(out.shape[1:])
    if down or along:
        wire = _window(draft, node, wire, kernel, dilations, (down, along), columns)
    parts = (down, places[0], strides[0]), (along, places[1], strides[1]), (0, 1, 1)
    wire = cropped(draft, wire, (rows, columns, 1), parts, draft.label(node, "places"), node.name)
    lanes = np.arange(wire.lanes)
    _product(draft, node, wire, lanes, channels_last(out.shape))


def affine(draft: Draft, node: ir.Affine) -> None:
    """A multiplication and an addition by constants of the channel, all channels a word."""
    x = draft.design.graph.tensors[node.inputs[0]]
    channels, via = x.shape[0], partial(whole_integers, draft, node, format=x.format)
    wire = draft.read(node, 0, channels, channels_last(x.shape), queue=False, via=via)
    _product(draft, node, wire, np.arange(channels), wire.order)


def input_lanes(draft: Draft, name: str) -> int:
    """Elements of a word of an input: what its reader takes at once where layers are unrolled, else one."""
    design = draft.design
    graph = design.graph
    if not any(is_written_unrolled(draft, node) for node in graph.nodes):
        return 1
    readers = graph.consumers(name)
    while len(readers) == 1 and isinstance(readers[0], ir.Reshape):
        readers = graph.consumers(readers[0].output)
    if len(readers) != 1:
        return 1
    reader, kind = readers[0], graph.tensors[readers[0].inputs[0]]
    if isinstance(reader, ir.Conv):
        return math.gcd(draft.fold(reader).simd, kind.shape[0])
    if isinstance(reader, ir.MatMul):
        return draft.fold(reader).simd
    return math.gcd(draft.fold(reader).pe, kind.size)


WRITERS: Mapping[str, Callable[[Draft, Any], None]] = {"MatMul": matmul, "Conv": conv, "Affine": affine}
"""What writes an unrolled operation, by its name."""


def _window(
    draft: Draft,
    node: ir.Conv,
    wire: Wire,
    kernel: tuple[int, int],
    dilations: tuple[int, int],
    extent: tuple[int, int],
    columns: int,
) -> Wire:
    """The window that ends with each pixel of a stream, row by row, the channels of a pixel side by side."""
    name, (down, along), bits = draft.label(node, "window"), extent, wire.bits
    settings: dict[str, Setting] = {"W": bits}
    if down:
        shifts = draft.design.costing.hardware.fabric.lut_inputs == 6
        settings |= {"K": max(extent) + 1, "N": columns, "STYLE": window_style(columns, shifts)}
    # How many rows and pixels ago each pixel of the window came.
    ago = [
        (down - i * dilations[0], along - j * dilations[1])
        for i in range(kernel[0])
        for j in range(kernel[1])
    ]
    width = settings["K"] if down else along + 1
    pixels = [f"held[{(r * int(width) + c) * bits}+:{bits}]" for r, c in ago]
    count = int(width) ** 2 if down else int(width)
    body = [
        "    wire enable;",
        f"    wire [{count * bits - 1}:0] held;",
        f"    assign y = {{{', '.join(reversed(pixels))}}};",
    ]
    step = {"clk": "clk", "enable": "enable & x_valid", "x": "x"}
    if down:
        body.append(instance("line_buffer", "rows", settings, step | {"window": "held"}))
    else:
        draft.circuit.sums[name] = Counts(0, 0, count * bits, count * bits, 0)
        body += [
            f"    reg [{count * bits - 1}:0] pixels;",
            "    always @(posedge clk) if (enable & x_valid) pixels <= {pixels, x};",
            "    assign held = pixels;",
        ]
    lanes = len(ago) * wire.lanes
    # Which numbers of the image its words repeat is asked nowhere.
    order = np.zeros(wire.words * lanes, dtype=np.int64)
    out = draft.wire(wire.tensor, lanes, wire.element, order)
    return _pipelined(draft, node, name, wire, out, body, 1)


def _pipelined(
    draft: Draft, node: Node, name: str, wire: Wire, out: Wire, body: Sequence[str], depth: int
) -> Wire:
    """A module of registers that move together."""
    ports = [
        "    input  clk, reset, x_valid, y_ready",
        "    output x_ready, y_valid",
        f"    input  [{wire.bits - 1}:0] x",
        f"    output [{out.bits - 1}:0] y",
    ]
    pins = ("clk", "reset", "x_valid", "x_ready", "y_valid", "y_ready", "enable")
    control = instance("pipeline_control", "control", {"D": depth}, {pin: pin for pin in pins})
    text = [f"module {name} (", ",\n".join(ports), ");", *body, control, "endmodule\n"]
    draft.circuit.modules[name] = "\n".join(text)
    return draft.add(name, [wire], out, Pipeline(depth), name=f"{name}_instance", node=node.name)


def _product(draft: Draft, node: Node, wire: Wire, places: IntArray, order: IntArray) -> None:
    """The layer's module: the stream of its results.

    Args:
        places: the lane of a word that each row of the matrix is for.
        order: the place in the output of each element, as they come.
    """
    graph = draft.design.graph
    made = unrolled(graph, node, additions_of(draft.design.architecture))
    element = Element.of(graph.tensors[node.output].format)
    low, high = number_range(graph.tensors[node.inputs[0]].format)
    assert 1 << wire.element.width > high - low
    out = draft.wire(node.output, len(made.made.outputs), element, order)
    name, counts = draft.label(node), made.counts()
    draft.circuit.sums[name] = counts._replace(
        registers=counts.registers - made.depth, shifted_registers=counts.shifted_registers - made.depth
    )
    body = ["    wire enable;", *_Text(made, wire.element.width, places).lines()]
    draft.give(node, _pipelined(draft, node, name, wire, out, body, made.depth))


class _Text:
    """The Verilog of a graph of additions, with registers behind cycles, and where a number waits for others.

    Args:
        width: bits of an input.
        places: the lane of the word that each input is.
    """

    def __init__(self, layer: Unrolled, width: int, places: IntArray) -> None:
        self.layer, self.made, self.width, self.places = layer, layer.made, width, places
        self.first = {chain.number: chain.level for chain in self.made.chains}
        self.last: dict[int, int] = {}
        for bit, (_, levels) in self.made.lives().items():
            self.last[bit[0]] = max(self.last.get(bit[0], 0), levels[-1])

    def lines(self) -> Iterator[str]:
        """The body of the module."""
        sums, moves, sizes = [], [], {-lane: self.width for lane in range(len(self.places))}
        for number, positions, subtracts, level in self.made.chains:
            sizes[number] = len(positions)
            sides = (self.bits(tuple(side), level) for side in zip(*positions, strict=True))
            sign = " - " if subtracts else " + "
            sums.append(f"    wire [{len(positions) - 1}:0] {self.name(number, None)} = {sign.join(sides)};")
        for number, size in sizes.items():
            begin = self.first.get(number, 0)
            for level in range(begin, self.last.get(number, -1) + 1):
                if level == 0:
                    continue
                yield f"    reg [{size - 1}:0] {self.name(number, level)};"
                before = self.name(number, None) if level == begin else self.whole(number, level - 1)
                moves.append(f"{self.name(number, level)} <= {before};")
        width, offsets = self.layer.width, self.layer.offsets
        if offsets is not None:
            yield f"    reg [{len(offsets) * width - 1}:0] moved;"
        results = []
        for lane, output in enumerate(self.made.outputs):
            bits = output.placed(0, width) if output.bits else (None,) * width
            place, given = f"[{lane * width}+:{width}]", self.bits(bits, self.made.read)
            if offsets is None:
                results.append(f"    assign y{place} = {given};")
            elif offsets[lane]:
                moves.append(f"moved{place} <= {given} + {width}'h{int(offsets[lane]) & (1 << width) - 1:x};")
            else:
                moves.append(f"moved{place} <= {given};")
        yield from sums
        yield "    always @(posedge clk) if (enable) begin"
        yield from (f"        {move}" for move in moves)
        yield "    end"
        yield from results if offsets is None else ["    assign y = moved;"]

    def name(self, number: int, level: int | None) -> str:
        """The register that holds a number so many clock edges behind the inputs; the sum itself."""
        name = f"{'s' if number > 0 else 'x'}{abs(number)}"
        return name if level is None else f"{name}_{level}"

    def whole(self, number: int, level: int) -> str:
        """All bits of a number."""
        if level:
            return self.name(number, level)
        return f"x[{int(self.places[-number]) * self.width}+:{self.width}]"

    def bits(self, bits: Bits, level: int) -> str:
        """Some bits side by side, as what is registered at that clock edge sees them."""
        parts = [self._part(list(run), level) for run in _runs(bits)]
        return parts[0] if len(parts) == 1 else f"{{{', '.join(reversed(parts))}}}"

    def _part(self, run: list[Bit], level: int) -> str:
        if run[0] is None:
            return f"{len(run)}'b0"
        number, place = run[0]
        if self.first.get(number, 0) == level:
            name, low = self.name(number, None), place
        elif level > 1 or number > 0:
            name, low = self.name(number, level - 1), place
        else:
            name, low = "x", place + int(self.places[-number]) * self.width
        if len(run) > 1 and run[1] == run[0]:
            return f"{{{len(run)}{{{name}[{low}]}}}}"
        return f"{name}[{low}+:{len(run)}]"


def _runs(bits: Bits) -> Iterator[list[Bit]]:
    """Bits that lie side by side, or are the same, or none."""
    kinds: list[tuple[Any, ...]] = []
    for place, bit in enumerate(bits):
        if bit is None:
            kinds.append((None,))
        elif (place and bits[place - 1] == bit) or bits[place + 1 : place + 2] == (bit,):
            kinds.append(("same", bit))
        else:
            kinds.append((bit[0], bit[1] - place))
    for _, group in groupby(zip(kinds, bits, strict=True), key=lambda pair: pair[0]):
        yield [bit for _, bit in group]
