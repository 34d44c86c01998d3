"""The architecture template of the hls4ml flow: which units a node becomes, and how long it works.

In ``io_stream`` all channels of a pixel travel together, one pixel after the other; element-wise nodes work
on one pixel per cycle. In ``io_parallel`` a whole tensor is there at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qhw.cost import units
from qhw.cost.operands import factor_of, product, product_width, unrolled_products
from qhw.cost.units import Amount, Usage
from qhw.errors import UnsupportedError
from qhw.formats import Minifloat, PowerOfTwo
from qhw.formats.base import Format
from qhw.formats.modes import Rounding
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType

IO_TYPES = ("io_stream", "io_parallel")

CHAIN_DEPTH = 2
"""Words of a stream between two layers that follow each other."""


@dataclass(frozen=True)
class LayerUsage:
    """What a node uses, and its cycles; arrays over the reuse factors that were asked for.

    ``cycles`` is the time between two images, ``fill`` from the first input to the first output.
    """

    usage: Usage
    cycles: Amount
    fill: Amount = 1.0


@dataclass(frozen=True)
class Site:
    """A node with everything that its cost depends on."""

    graph: ExactGraph
    node: Node
    streamed: bool
    family: str

    def type(self, index: int) -> TensorType:
        """The type of an input."""
        return self.graph.tensors[self.node.inputs[index]]

    @property
    def output(self) -> TensorType:
        return self.graph.tensors[self.node.output]

    def constant(self, index: int) -> bool:
        """Whether an input is a constant."""
        return self.node.inputs[index] in self.graph.constants

    def lanes(self, kind: TensorType) -> int:
        """Elements that are handled side by side."""
        return kind.shape[0] if self.streamed and kind.shape else kind.size

    def steps(self, kind: TensorType) -> int:
        """Cycles that a tensor takes to pass."""
        return max(1, math.prod(kind.shape[1:])) if self.streamed else 1


def layer_usage(
    graph: ExactGraph, node: Node, reuse: Any, io_type: str = "io_stream", family: str = "ultrascale-plus"
) -> LayerUsage:
    """What a node uses at each reuse factor (any array shape; only Conv and MatMul depend on it).

    Streams that the node reads are part of it. Raises UnsupportedError for an operation without a unit.
    """
    site = Site(graph, node, io_type == "io_stream", family)
    if node.op not in _TEMPLATES:
        raise UnsupportedError(
            f"{node.op} '{node.name}' has no cost model: it is not silently free",
            allowed=", ".join(sorted(_TEMPLATES)),
        )
    layer = _TEMPLATES[node.op](site, np.asarray(reuse, dtype=float))
    return LayerUsage(layer.usage + _streams(site), layer.cycles, layer.fill)


def _streams(site: Site) -> Usage:
    """The streams that feed a node.

    As the flow declares them: two words in a chain, a whole image where branches meet. A tensor with several
    readers is copied, so its readers share one more stream; a convolution's padding is a layer before it.
    """
    if not site.streamed or isinstance(site.node, ir.Reshape | ir.Transpose) or _absorbed(site):
        return Usage()
    sources = list(site.graph.activations(site.node))
    total = Usage()
    for name in sources:
        readers = len(site.graph.consumers(name))
        kind = site.graph.tensors[_before_moves(site.graph, name)]
        steps, width = site.steps(kind), site.lanes(kind) * kind.format.width
        chained = units.fifo(min(CHAIN_DEPTH, steps), width)
        total += units.fifo(steps, width) if len(sources) > 1 else chained
        total += chained.times((1 / readers if readers > 1 else 0) + _is_padded(site.node))
    return total


def _is_padded(node: Node) -> bool:
    return isinstance(node, ir.Conv) and any(node.pads)


def _absorbed(site: Site) -> bool:
    """Whether a Requant is the result type of the layer before it, which alone it reads."""
    source = site.graph.producer(site.node.inputs[0])
    if not isinstance(site.node, ir.Requant) or source is None or isinstance(source, ir.Requant):
        return False
    scalar = site.type(0).exponent.is_scalar and site.output.exponent.is_scalar
    return scalar and len(site.graph.consumers(source.output)) == 1


def _before_moves(graph: ExactGraph, name: str) -> str:
    """The tensor whose codes a chain of Reshape passes on, unmoved in the stream."""
    while isinstance(source := graph.producer(name), ir.Reshape):
        name = source.inputs[0]
    return name


def _conv(site: Site, reuse: Any) -> LayerUsage:
    node, x, weight = site.node, site.type(0), site.type(1)
    assert isinstance(node, ir.Conv)
    window = math.prod(weight.shape[2:])
    depthwise = node.groups == x.shape[0]
    # Other grouped convolutions become ordinary ones with zeros.
    inputs, outputs = (1 if depthwise else x.shape[0]) * window, weight.shape[0]
    pixels = math.prod(site.output.shape[1:])
    usage = _matrix(site, inputs, outputs, x, weight, reuse)
    if not site.streamed:
        # Each tap chooses among the pixels, four per LUT.
        taps = np.ceil(pixels / 4) * x.shape[0] * window * x.format.width
        return LayerUsage(usage + Usage(lut=taps * (pixels > 1)), pixels * reuse, reuse + 3)
    rank = len(node.strides)
    padded = _padded(x.shape[1:], node.pads)
    extent = [(size - 1) * dilation for size, dilation in zip(weight.shape[2:], node.dilations, strict=True)]
    usage += _window(site, x, extent, padded, window)
    passing = math.prod(padded) - math.prod(x.shape[1:])
    cycles = math.prod(x.shape[1:]) + passing + pixels * (reuse - 1)
    fill = sum(extent[axis] * math.prod(padded[axis + 1 :]) for axis in range(rank)) + reuse
    return LayerUsage(usage, cycles, fill + 2 + math.ceil(math.log2(max(inputs, 2))))


def _matmul(site: Site, reuse: Any) -> LayerUsage:
    a, b = site.type(0), site.type(1)
    rows = site.output.size // b.shape[-1]
    usage = _matrix(site, a.shape[-1], b.shape[-1], a, b, reuse)
    fill = reuse + 2 + math.ceil(math.log2(max(a.shape[-1], 2)))
    return LayerUsage(usage, rows * reuse, fill)


def _matrix(site: Site, inputs: int, outputs: int, a: TensorType, b: TensorType, reuse: Any) -> Usage:
    factors = factor_of(a.format), factor_of(b.format)
    weights = next((i for i in (1, 0) if site.constant(i)), None)
    unrolled, memory = None, Usage()
    if weights is not None:
        values, format = site.graph.constants[site.node.inputs[weights]], site.type(weights).format
        unrolled = unrolled_products(values, format, factors[1 - weights])
        multipliers = np.ceil(inputs * outputs / reuse)
        memory = units.weight_memory(reuse, multipliers * factors[weights].stored_bits)
    unit = units.matrix_unit(
        inputs=inputs,
        outputs=outputs,
        product=product(*factors, site.family),
        product_bits=product_width(*factors),
        accumulator_bits=site.output.format.width,
        reuse=reuse,
        unrolled_lut=unrolled,
    )
    return unit + memory


def _padded(spatial: tuple[int, ...], pads: tuple[int, ...]) -> list[int]:
    rank = len(spatial)
    return [size + pads[axis] + pads[rank + axis] for axis, size in enumerate(spatial)]


def _window(site: Site, x: TensorType, extent: list[int], padded: list[int], window: int) -> Usage:
    """Line buffer of a sliding window that reaches ``extent`` further along each axis."""
    rows = extent[0] if len(extent) > 1 else 0
    return units.line_buffer(rows, padded[-1], window, site.lanes(x) * x.format.width)


def _pool(site: Site, reuse: Any) -> LayerUsage:
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.SumPool | ir.MaxPool)
    if isinstance(node, ir.SumPool) and not any(node.pads) and node.kernel == x.shape[1:]:
        return _reduce(site, reuse)
    window = math.prod(node.kernel)
    bits = site.output.format.width
    one = units.adder(bits) if isinstance(node, ir.SumPool) else units.maximum(bits)
    usage = one.times((window - 1) * site.lanes(site.output))
    if not site.streamed:
        return LayerUsage(usage, 1, math.ceil(math.log2(max(window, 2))))
    padded = _padded(x.shape[1:], node.pads)
    extent = [size - 1 for size in node.kernel]
    usage += _window(site, x, extent, padded, window)
    fill = sum(reach * math.prod(padded[axis + 1 :]) for axis, reach in enumerate(extent)) + 2
    return LayerUsage(usage, math.prod(padded), fill)


def _reduce(site: Site, reuse: Any) -> LayerUsage:
    x, bits = site.type(0), site.output.format.width
    one = units.adder(bits) if site.node.op == "ReduceSum" else units.maximum(bits)
    steps = site.steps(x)
    return LayerUsage(one.times(site.lanes(x)), steps, steps)


def _add(site: Site, reuse: Any) -> LayerUsage:
    return _elementwise(site, units.adder(site.output.format.width))


def _mul(site: Site, reuse: Any) -> LayerUsage:
    constant = next((i for i in (0, 1) if site.constant(i)), None)
    if constant is not None:
        return _constant_products(site, constant, 1 - constant)
    factors = factor_of(site.type(0).format), factor_of(site.type(1).format)
    return _elementwise(site, product(*factors, site.family))


def _affine(site: Site, reuse: Any) -> LayerUsage:
    products = _constant_products(site, 1, 0)
    if len(site.node.inputs) < 3:
        return products
    sums = units.adder(site.output.format.width).times(site.lanes(site.output))
    return LayerUsage(products.usage + sums, products.cycles, products.fill + 1)


def _constant_products(site: Site, constant: int, x: int) -> LayerUsage:
    """A constant multiplier per lane, at the mean cost over the constants."""
    name = site.node.inputs[constant]
    digits = units.signed_digits(site.graph.constants[name])
    bits, x_bits = (factor_of(site.type(i).format).width for i in (constant, x))
    each = units.constant_multiplier(x_bits, bits, digits)
    return _elementwise(site, Usage(lut=float(np.mean(each.lut)), ff=each.ff))


def _requant(site: Site, reuse: Any) -> LayerUsage:
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.Requant)
    if isinstance(site.output.format, Minifloat | PowerOfTwo):
        return _elementwise(site, _to_minifloat(x.format, site.output.format))
    dropped = max(site.output.exponent.values) - min(x.exponent.values)
    rounds = node.rounding is not Rounding.TRN
    one = units.requantise(x.format.width, site.output.format.width, dropped, rounds, node.overflow.saturates)
    return _elementwise(site, one)


def _to_minifloat(x: Format, result: Minifloat | PowerOfTwo) -> Usage:
    bits = factor_of(x).width
    if isinstance(result, PowerOfTwo):
        return units.to_minifloat(bits, 1, result.field_bits)
    return units.to_minifloat(bits, result.mantissa_bits + 1, result.exponent_bits)


def _threshold(site: Site, reuse: Any) -> LayerUsage:
    count = site.type(1).shape[-1]
    return _elementwise(site, units.threshold(site.type(0).format.width, count, site.output.format.width))


def _table(site: Site, reuse: Any) -> LayerUsage:
    return _elementwise(site, units.table_memory(site.type(1).shape[-1], site.output.format.width))


def _elementwise(site: Site, one: Usage) -> LayerUsage:
    return LayerUsage(one.times(site.lanes(site.output)), site.steps(site.output), 2)


def _move(site: Site, reuse: Any) -> LayerUsage:
    """Codes that pass unchanged: wires, and the cycles of the longer side."""
    steps = max(site.steps(site.output), *(site.steps(site.type(i)) for i in range(len(site.node.inputs))))
    return LayerUsage(Usage(), steps)


def _transpose(site: Site, reuse: Any) -> LayerUsage:
    """A stream has to be kept whole before it comes out in another order."""
    x, steps = site.type(0), site.steps(site.output)
    if not site.streamed or len(x.shape) < 2:
        return LayerUsage(Usage(), steps)
    return LayerUsage(Usage(bram18=units.bram18(x.size, x.format.width)), x.size, x.size)


_TEMPLATES: dict[str, Callable[[Site, Any], LayerUsage]] = {
    "Add": _add,
    "Affine": _affine,
    "Concat": _move,
    "Conv": _conv,
    "MatMul": _matmul,
    "MaxPool": _pool,
    "Mul": _mul,
    "Pad": _move,
    "ReduceMax": _reduce,
    "ReduceSum": _reduce,
    "Requant": _requant,
    "Reshape": _move,
    "Slice": _move,
    "SumPool": _pool,
    "Table": _table,
    "Threshold": _threshold,
    "Transpose": _transpose,
}
