"""Complete folded layers, emitted from the units that are measured.

The architecture is that of :mod:`qhw.flows.rtl.template`: PE outputs at a time, SIMD inputs of each.
Both ends are streams with valid and ready. Weights are written at the start, through a port of the layer's
own, so that no tool sees a constant. A layer is a Conv or a MatMul and the Requant behind it; windows move by
one pixel, and nothing is padded (padding is a layer of its own).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from qhw.errors import UnsupportedError
from qhw.formats import Minifloat
from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node
from qhw.rtl import UNITS
from qhw.rtl.base import Port, Ports, Unit, Values
from qhw.rtl.shared.memories import BLOCK_RAM, LUT_MEMORY, SHIFT_REGISTER
from qhw.rtl.shared.rounding import ROUNDINGS
from qhw.rtl.shared.structure import levels
from qhw.rtl.window_buffer import window_words

STREAM_WORDS = 2
LUT_WORDS = 64
"""Words up to which a memory is made of LUTs: the bits of one LUT."""


@dataclass(frozen=True)
class Part:
    """A unit of a layer with its parameters, and how many of it there are."""

    unit: str
    values: Values
    count: int = 1


@dataclass(frozen=True)
class LayerLoops:
    """A layer's loops.

    Args:
        kernel, rows, columns: side of the window, and the image's rows and columns; 1 for a MatMul.
        words: words of one pixel of the input.
        lanes: numbers in a word.
        output_folds, input_folds: sums of a pixel, and words of a sum.
        pixels: pixels of the output.
    """

    kernel: int
    rows: int
    columns: int
    words: int
    lanes: int
    output_folds: int
    input_folds: int
    pixels: int
    depthwise: bool


@dataclass(frozen=True)
class FoldedLayer:
    """A layer in hardware.

    Args:
        graph: a graph of one Conv or MatMul, and one Requant.
        pe: outputs at a time.
        simd: inputs at a time, of each output.
        multiplier: the MULTIPLIER parameter of integer dot products: 0 LUT, 1 DSP48E2, 2 DSP48E1.

    Raises:
        UnsupportedError: another graph, formats that no dot product was made for, or a folding that does not
            divide the layer.
    """

    graph: ExactGraph
    pe: int
    simd: int
    multiplier: int = 0

    def __post_init__(self) -> None:
        operations = [node.op for node in self.graph.nodes]
        if operations not in (["Conv", "Requant"], ["MatMul", "Requant"]):
            raise UnsupportedError(
                f"{self.graph.name} is {', '.join(operations)}", allowed="Conv or MatMul, then Requant"
            )
        _check_folding(self)

    @property
    def node(self) -> Node:
        """The Conv or MatMul."""
        return self.graph.nodes[0]

    @property
    def loops(self) -> LayerLoops:
        return _conv(self) if isinstance(self.node, ir.Conv) else _matmul(self)

    @property
    def formats(self) -> tuple[Format, Format, Format]:
        """The formats of the inputs, the weights and the outputs."""
        names = (*self.node.inputs[:2], self.graph.nodes[1].output)
        x, weight, y = (self.graph.tensors[name].format for name in names)
        return x, weight, y

    @property
    def parts(self) -> Mapping[str, Part]:
        """The units, by what they do."""
        return {
            "stream": Part("fifo", {"D": STREAM_WORDS, "W": _word_bits(self), "STYLE": SHIFT_REGISTER}),
            "window": _window(self),
            "control": _control(self),
            "weights": _weights(self),
            "dot": _dot(self),
            "finish": _finish(self),
        }

    @property
    def files(self) -> tuple[str, ...]:
        """The Verilog files of the units, in order, each once."""
        units = [UNITS[part.unit] for part in self.parts.values()]
        return tuple(dict.fromkeys(source for unit in units for source in unit.sources))

    @property
    def ports(self) -> Ports:
        """Its ports beside ``clk``; ``load`` writes a word of weights."""
        weights = self.parts["weights"].values
        y_bits = self.formats[2].width
        inputs = (
            *(Port(name, 1) for name in ("reset", "x_valid", "y_ready", "load")),
            Port("load_address", (weights["D"] - 1).bit_length()),
            Port("load_word", weights["W"]),
            Port("x", self.formats[0].width, self.loops.lanes),
        )
        outputs = Port("x_ready", 1), Port("y_valid", 1), Port("y_last", 1), Port("y", y_bits, self.pe)
        return Ports(inputs, outputs, ())

    def as_unit(self) -> Unit:
        """The layer for the simulator and the oracle: no parameters, and the graph is its reference."""
        return Unit(
            name=self.graph.name,
            summary="a folded layer",
            ranges=(),
            sources=self.files,
            ports=lambda values: self.ports,
            latency=lambda values: 1,
            reference=lambda values, inputs: {},
            memories=True,
            emit=lambda values: self.verilog(),
        )

    def verilog(self) -> str:
        """The module; what it is built of is in ``files``."""
        return "\n".join([_header(self), *_body(self), "endmodule\n"])

    def weight_words(self) -> IntArray:
        """The weights' codes by address, of shape (addresses, PE * SIMD), the first in the lowest bits."""
        loops, weight = self.loops, self.graph.constants[self.node.inputs[1]]
        if isinstance(self.node, ir.Conv):
            # Outputs by taps by channels, as words come.
            matrix = np.moveaxis(weight, 1, -1).reshape(weight.shape[0], -1)
        else:
            matrix = weight.T
        shape = (loops.output_folds, self.pe, loops.input_folds, self.simd)
        ordered = matrix.reshape(shape).transpose(0, 2, 1, 3).reshape(-1, self.pe * self.simd)
        return np.asarray(self.formats[1].code_of(ordered))

    def input_words(self, images: IntArray) -> IntArray:
        """Mantissas of shape (images, *shape) as the stream's words, of shape (words, lanes)."""
        return _words(self.formats[0], images, self.loops.lanes)

    def output_words(self, images: IntArray) -> IntArray:
        """Likewise of the output."""
        return _words(self.formats[2], images, self.pe)


def _words(format: Format, images: IntArray, lanes: int) -> IntArray:
    """Pixel by pixel, all channels of one after the other."""
    return np.asarray(format.code_of(np.moveaxis(images, 1, -1).reshape(-1, lanes)))


def _conv(layer: FoldedLayer) -> LayerLoops:
    node, graph = layer.node, layer.graph
    assert isinstance(node, ir.Conv)
    channels, rows, columns = graph.tensors[node.inputs[0]].shape
    outputs, inputs, kernel, across = graph.tensors[node.inputs[1]].shape
    depthwise = node.groups == channels == outputs and inputs == 1
    plain = depthwise or node.groups == 1
    if kernel != across or any(node.pads) or {*node.strides, *node.dilations} != {1} or not plain:
        raise UnsupportedError(
            f"window_buffer does not support the window of Conv '{node.name}'",
            allowed="square, stride 1, no dilation, no padding, groups 1 or all channels",
        )
    lanes = layer.pe if depthwise else layer.simd
    words = channels // lanes
    return LayerLoops(
        kernel=kernel,
        rows=rows,
        columns=columns,
        words=words,
        lanes=lanes,
        output_folds=outputs // layer.pe,
        input_folds=kernel * kernel * (1 if depthwise else words),
        pixels=(rows - kernel + 1) * (columns - kernel + 1),
        depthwise=depthwise,
    )


def _matmul(layer: FoldedLayer) -> LayerLoops:
    inputs, outputs = layer.graph.tensors[layer.node.inputs[1]].shape
    words = inputs // layer.simd
    return LayerLoops(1, 1, 1, words, layer.simd, outputs // layer.pe, words, 1, depthwise=False)


def _check_folding(layer: FoldedLayer) -> None:
    shape = layer.graph.tensors[layer.node.inputs[1]].shape
    outputs, inputs = shape[:2] if isinstance(layer.node, ir.Conv) else shape[::-1]
    for what, factor, count in (("PE", layer.pe, outputs), ("SIMD", layer.simd, inputs)):
        if count % factor:
            raise UnsupportedError(
                f"{what} of {layer.graph.name} is {factor}", allowed=f"a divisor of {count}"
            )
    if layer.loops.output_folds * layer.loops.input_folds == 1:
        raise UnsupportedError(f"{layer.graph.name} is not folded: no memory holds its weights")


def _word_bits(layer: FoldedLayer) -> int:
    return layer.loops.lanes * layer.formats[0].width


def _style(words: int) -> int:
    return LUT_MEMORY if words <= LUT_WORDS else BLOCK_RAM


def _window(layer: FoldedLayer) -> Part:
    loops = layer.loops
    values = {
        "K": loops.kernel,
        "N": loops.columns,
        "M": loops.rows,
        "C": loops.words,
        "DEPTHWISE": int(loops.depthwise),
        "F": 1 if loops.depthwise else loops.output_folds,
        "W": _word_bits(layer),
    }
    return Part("window_buffer", {**values, "STYLE": _style(window_words(values))})


def _control(layer: FoldedLayer) -> Part:
    """Behind the memories' own edge come the dot product's and the rounding's."""
    loops = layer.loops
    edges = [UNITS[part.unit].latency(part.values) for part in (_dot(layer), _finish(layer))]
    counts = {"P": loops.pixels, "F": loops.output_folds, "I": loops.input_folds}
    return Part("layer_control", {**counts, "D": 1 + sum(edges)})


def _weights(layer: FoldedLayer) -> Part:
    depth = layer.loops.output_folds * layer.loops.input_folds
    bits = layer.pe * layer.simd * layer.formats[1].width
    return Part("weight_memory", {"D": depth, "W": bits, "STYLE": _style(depth)})


def _sum_bits(layer: FoldedLayer) -> int:
    """Bits that hold every possible sum, as the weights prove."""
    return layer.graph.tensors[layer.node.output].format.width


def _dot(layer: FoldedLayer) -> Part:
    x, weight, _ = layer.formats
    a, b = x.operand(), weight.operand()
    lanes = layer.simd
    if a.kind == b.kind == "minifloat":
        one_sum = a.width + b.width - 1 + levels(lanes)
        fields = {"EA": a.exponent_bits, "MA": a.mantissa_bits, "EB": b.exponent_bits, "MB": b.mantissa_bits}
        values = {**fields, "L": lanes, "A": max(_sum_bits(layer), one_sum)}
        return Part("minifloat_dot", values, layer.pe)
    if not (a.kind == b.kind == "integer"):
        raise UnsupportedError(
            f"a layer of {x} and {weight} cannot be emitted", allowed="integers, or minifloats"
        )
    widths = {"WA": a.width, "WB": b.width, "SA": int(a.signed), "SB": int(b.signed)}
    total = max(_sum_bits(layer), a.width + b.width + levels(lanes))
    return Part("integer_dot", {**widths, "L": lanes, "A": total, "MULTIPLIER": layer.multiplier}, layer.pe)


def _finish(layer: FoldedLayer) -> Part:
    node = layer.graph.nodes[1]
    assert isinstance(node, ir.Requant)
    x, y = (layer.graph.tensors[name] for name in (node.inputs[0], node.output))
    dropped = max(y.exponent.values) - min(x.exponent.values)
    if isinstance(y.format, Minifloat):
        values = {
            "A": x.format.width,
            "E": y.format.exponent_bits,
            "M": y.format.mantissa_bits,
            "P": dropped,
            "ROUNDING": ROUNDINGS.index(y.format.rounding),
        }
        return Part("fixed_to_minifloat", values, layer.pe)
    values = {
        "WI": x.format.width,
        "WO": y.format.width,
        "S": dropped,
        "SI": int(x.format.mantissa_low < 0),
        "SO": int(y.format.mantissa_low < 0),
        "ROUNDING": ROUNDINGS.index(node.rounding),
    }
    return Part("requantize", values, layer.pe)


def _header(layer: FoldedLayer) -> str:
    ports = layer.ports
    pins = [f"    input  [{port.bits - 1}:0] {port.name}" for port in ports.inputs]
    pins += [f"    output [{port.bits - 1}:0] {port.name}" for port in ports.outputs]
    return "\n".join([f"module {layer.graph.name} (", "    input  clk,", ",\n".join(pins), ");"])


def _body(layer: FoldedLayer) -> Iterator[str]:
    parts = layer.parts
    word, weights = _word_bits(layer), parts["weights"].values
    dot, finish = parts["dot"], parts["finish"]
    x_bits, weight_bits, y_bits = (format.width for format in layer.formats)
    sum_bits = _sum_bits(layer)
    yield f"    wire [{word - 1}:0] fed, window;"
    yield "    wire fed_valid, fed_ready, window_valid, enable, first;"
    yield f"    wire [{(weights['D'] - 1).bit_length() - 1}:0] address;"
    yield f"    wire [{weights['W'] - 1}:0] weights;"
    yield "    reg first_1;"
    yield "    always @(posedge clk) if (enable) first_1 <= first;"
    yield _instance(
        parts["stream"],
        "stream",
        "reset, x_valid, x, x_ready, y_ready=fed_ready, y_valid=fed_valid, y=fed, count=",
    )
    yield _instance(
        parts["window"],
        "rows",
        "reset, x_valid=fed_valid, read=enable, x=fed, x_ready=fed_ready, y_valid=window_valid, y=window",
    )
    yield _instance(
        parts["control"],
        "control",
        "reset, x_valid=window_valid, y_ready, enable, y_valid, y_last, first, address",
    )
    yield _instance(
        parts["weights"],
        "memory",
        "read=enable, write=load, read_address=address, write_address=load_address, x=load_word, y=weights",
    )
    for i in range(layer.pe):
        given = f"window[{i * x_bits}+:{x_bits}]" if layer.loops.depthwise else "window"
        share = layer.simd * weight_bits
        yield f"    wire [{dot.values['A'] - 1}:0] sum{i};"
        yield _instance(
            dot, f"dot{i}", f"enable, first=first_1, a={given}, b=weights[{i * share}+:{share}], sum=sum{i}"
        )
        yield _instance(
            finish, f"finish{i}", f"enable, x=sum{i}[{sum_bits - 1}:0], y=y[{i * y_bits}+:{y_bits}]"
        )


def _instance(part: Part, name: str, pins: str) -> str:
    """Pins as ``port=signal``, or a port that is a signal of the same name."""
    given = [pin.split("=") for pin in ["clk", *pins.split(", ")]]
    connected = ", ".join(f".{pin[0]}({pin[-1]})" for pin in given)
    settings = ", ".join(f".{name}({value})" for name, value in part.values.items())
    return f"    {part.unit} #({settings}) {name} ({connected});"
