"""The architecture of the hls4ml flow, folded by reuse factors: a multiplier serves so many products.

In ``io_stream`` all channels of a pixel travel together, one pixel after the other; element-wise nodes work
on one pixel per cycle. In ``io_parallel`` a whole tensor is there at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from qhw.cost.pricing import rules
from qhw.cost.pricing.architecture import Architecture, LayerUsage, Site
from qhw.cost.pricing.usage import Usage
from qhw.flows.hls4ml.folding import ReuseFactor
from qhw.flows.hls4ml.operations import legal_factors
from qhw.flows.hls4ml.plan import IoType
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, TensorType


def _reuse(folds: Sequence[ReuseFactor]) -> Any:
    return np.array([fold.reuse_factor for fold in folds], dtype=np.int64)


def _conv(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    node, x, weight, reuse = site.node, site.type(0), site.type(1), _reuse(folds)
    assert isinstance(node, ir.Conv)
    window = math.prod(weight.shape[2:])
    depthwise = node.groups == x.shape[0]
    # Other grouped convolutions become ordinary ones with zeros.
    inputs, outputs = (1 if depthwise else x.shape[0]) * window, weight.shape[0]
    pixels = math.prod(site.output.shape[1:])
    matrix = _matrix(site, inputs, outputs, reuse, pixels)
    if not site.streamed:
        # Each tap chooses among the pixels, four per LUT.
        taps = math.ceil(pixels / 4) * x.shape[0] * window * x.format.width
        usage = matrix.usage + Usage(lut=float(taps * (pixels > 1)))
        return LayerUsage(usage, pixels * reuse, reuse + 3, matrix.memory_bits)
    rank = len(node.strides)
    padded = rules.padded_shape(x.shape[1:], node.pads)
    extent = [(size - 1) * dilation for size, dilation in zip(weight.shape[2:], node.dilations, strict=True)]
    passing = math.prod(padded) - math.prod(x.shape[1:])
    cycles = math.prod(x.shape[1:]) + passing + pixels * (reuse - 1)
    fill = sum(extent[axis] * math.prod(padded[axis + 1 :]) for axis in range(rank)) + reuse
    lines, memory = _window(site, x, extent, padded, weight.shape[2:])
    return LayerUsage(
        matrix.usage + lines,
        cycles,
        fill + 2 + math.ceil(math.log2(max(inputs, 2))),
        matrix.memory_bits + memory,
    )


def _matmul(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    a, b, reuse = site.type(0), site.type(1), _reuse(folds)
    rows = site.output.size // b.shape[-1]
    matrix = _matrix(site, a.shape[-1], b.shape[-1], reuse, rows)
    fill = reuse + 2 + math.ceil(math.log2(max(a.shape[-1], 2)))
    return LayerUsage(matrix.usage, rows * reuse, fill, matrix.memory_bits)


def _matrix(site: Site, inputs: int, outputs: int, reuse: Any, vectors: int) -> LayerUsage:
    """Multipliers, adder trees and accumulators of a matrix product, its weights' memory, its control."""
    hardware, accumulator = site.hardware, site.accumulator_bits(inputs)
    constant = next((i for i in (1, 0) if site.constant(i)), None)
    x, w = (site.type(i).format for i in ((1, 0) if constant == 0 else (0, 1)))
    multipliers = np.ceil(inputs * outputs / reuse)
    lanes = np.maximum(1, np.ceil(inputs / reuse)).astype(np.int64)
    elements = np.ceil(multipliers / lanes)
    dots = hardware.dots(x, w, lanes, elements, accumulator)
    control = hardware.control(vectors, 1, reuse, hardware.dot_edges(x, w, lanes))
    if constant is None:
        return LayerUsage(dots + control, 0)
    stored = w.operand().stored_bits
    usage = dots + hardware.weights(reuse, multipliers * stored)
    unrolled = reuse == 1
    if unrolled.any() and x.operand().kind == "integer":
        # A multiplier with a single weight has it as a constant of the circuit.
        fixed = _unrolled(site, constant, outputs)
        usage = fixed.times(unrolled) + usage.times(~unrolled)
    return LayerUsage(usage + control, 0, memory_bits=inputs * outputs * stored * ~unrolled)


def _unrolled(site: Site, constant: int, outputs: int) -> Usage:
    weights = site.graph.constants[site.node.inputs[constant]]
    matrix = weights.reshape(outputs, -1).T if isinstance(site.node, ir.Conv) else weights
    if constant == 0:
        matrix = matrix.T
    x = site.type(1 - constant).format.operand()
    return site.hardware.constant_dots(matrix.reshape(-1, matrix.shape[-1]), x)


def _window(
    site: Site, x: TensorType, extent: list[int], padded: list[int], kernel: tuple[int, ...]
) -> tuple[Usage, float]:
    """Line buffer of a sliding window that reaches ``extent`` further along each axis; its bits."""
    rows = extent[0] + 1 if len(extent) > 1 else 1
    bits = site.lanes(x) * x.format.width
    lines = site.hardware.window(rows, extent[-1] + 1, padded[-1], bits)
    return lines, rules.line_memory(site, x, rows - 1, padded[-1])


def _pool(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.SumPool | ir.MaxPool)
    window = math.prod(node.kernel)
    usage = rules.pooled(site, window).times(site.lanes(site.output))
    if not site.streamed:
        return LayerUsage(usage, 1, math.ceil(math.log2(max(window, 2))))
    padded = rules.padded_shape(x.shape[1:], node.pads)
    extent = [size - 1 for size in node.kernel]
    lines, memory = _window(site, x, extent, padded, node.kernel)
    fill = sum(reach * math.prod(padded[axis + 1 :]) for axis, reach in enumerate(extent)) + 2
    return LayerUsage(usage + lines, math.prod(padded), fill, memory)


def _reduce(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    """One running sum or maximum for each lane."""
    x, format = site.type(0), site.output.format
    if site.node.op == "ReduceMax":
        one = site.hardware.maximum(2, format.width, format.mantissa_low < 0)
    else:
        one = site.hardware.sums(2, format.width)
    steps = site.steps(x)
    return LayerUsage(one.times(site.lanes(x)), steps, steps)


def _add(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    return _elementwise(site, rules.added(site))


def _mul(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    return _elementwise(site, rules.multiplied(site))


def _affine(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    one = rules.multiplied(site)
    if len(site.node.inputs) < 3:
        return _elementwise(site, one)
    layer = _elementwise(site, one + rules.added(site))
    return LayerUsage(layer.usage, layer.cycles, layer.fill + 1)


def _requant(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    """A Requant takes one cycle; HLS keeps two of the unit's registers, the number's and the result's."""
    lut = rules.requantised(site).lut
    return _elementwise(site, Usage(lut, float(site.type(0).format.width + site.output.format.width)))


def _threshold(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    return _elementwise(site, rules.compared(site))


def _table(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    return _elementwise(site, site.hardware.table(site.type(1).shape[-1], site.output.format.width))


def _elementwise(site: Site, one: Usage) -> LayerUsage:
    return LayerUsage(one.times(site.lanes(site.output)), site.steps(site.output), 2)


def _move(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    """Codes that pass unchanged: wires, and the cycles of the longer side."""
    steps = max(site.steps(site.output), *(site.steps(site.type(i)) for i in range(len(site.node.inputs))))
    return LayerUsage(Usage(), steps)


def _transpose(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    """A stream has to be kept whole before it comes out in another order."""
    x, steps = site.type(0), site.steps(site.output)
    if not site.streamed or len(x.shape) < 2:
        return LayerUsage(Usage(), steps)
    bits = x.size * x.format.width
    return LayerUsage(site.hardware.weights(x.size, x.format.width), x.size, x.size, bits)


def _upsample(site: Site, folds: Sequence[ReuseFactor]) -> LayerUsage:
    """Side by side, wires; in a stream, what is given again is kept."""
    moved = _move(site, folds)
    if not site.streamed:
        return moved
    usage, bits = rules.repeated(site, site.lanes(site.type(0)))
    return LayerUsage(usage, moved.cycles, memory_bits=bits)


RULES = {
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
    "Upsample": _upsample,
}
"""The rule for each operation, by its name."""


def architecture(io_type: IoType) -> Architecture:
    """The architecture with that interface between layers."""
    return Architecture(
        "hls4ml",
        ReuseFactor,
        RULES,
        rules.streams,
        partial(legal_folding, io_type=io_type),
        streamed=io_type == "io_stream",
        options={"io_type": io_type},
    )


def legal_folding(graph: ExactGraph, io_type: IoType) -> dict[str, tuple[ReuseFactor, ...]]:
    """The reuse factors that every foldable node of a prepared graph may take, rising."""
    legal = {node.name: legal_factors(graph, node, io_type) for node in graph.nodes}
    return {name: tuple(map(ReuseFactor, factors)) for name, factors in legal.items() if factors}
