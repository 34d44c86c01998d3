"""A dataflow architecture out of qhw's own circuits, folded by PE (outputs at a time) and SIMD (inputs).

A convolution is a sliding-window generator in front of a matrix-vector unit, as in FINN-R (arXiv 1809.04570);
the window generator repeats a pixel's window for every fold of the outputs. Element-wise units work on PE
channels at a time. Streams are SIMD or PE elements wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from qhw.cost.pricing import rules
from qhw.cost.pricing.architecture import Architecture, Fold, LayerUsage, Site
from qhw.cost.pricing.usage import Amount, Usage
from qhw.formats.modes import IntArray
from qhw.formats.operand import product_width
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType


@dataclass(frozen=True)
class PeSimd(Fold):
    """Outputs at a time, and inputs at a time; a node that nobody folded has one of each."""

    title = "PE, SIMD"
    pe: int = 1
    simd: int = 1


class Matrix(NamedTuple):
    """A node as a product of a matrix (outputs x inputs) and ``vectors`` vectors."""

    inputs: int
    outputs: int
    vectors: int


def matrix_of(graph: ExactGraph, node: Node) -> Matrix | None:
    """The matrix of a Conv or MatMul, a depthwise one with a window per output; None for other nodes."""
    output = graph.tensors[node.output]
    if isinstance(node, ir.Conv):
        weight = graph.tensors[node.inputs[1]]
        return Matrix(math.prod(weight.shape[1:]), weight.shape[0], math.prod(output.shape[1:]))
    if isinstance(node, ir.MatMul):
        outputs = output.shape[-1]
        return Matrix(graph.tensors[node.inputs[0]].shape[-1], outputs, output.size // outputs)
    return None


def legal_folding(graph: ExactGraph) -> dict[str, tuple[PeSimd, ...]]:
    """Every (PE, SIMD) of every node: PE divides the outputs or channels, SIMD the inputs."""
    legal: dict[str, tuple[PeSimd, ...]] = {}
    for node in graph.nodes:
        matrix = matrix_of(graph, node)
        output = graph.tensors[node.output]
        channels = output.shape[0] if output.shape else 1
        outputs, inputs = (matrix.outputs, matrix.inputs) if matrix else (channels, 1)
        legal[node.name] = tuple(PeSimd(pe, simd) for pe in divisors(outputs) for simd in divisors(inputs))
    return legal


MOST_LANES = 64
"""Lanes of a dot product at most (``rtl/integer_dot.py``)."""


def written_folding(graph: ExactGraph) -> dict[str, tuple[PeSimd, ...]]:
    """Those of :func:`legal_folding` that the flow writes: of a convolution, words that lie within a pixel.

    SIMD divides the channels of a group, PE the outputs of one; a depthwise window has one input at a time.
    No dot product has more lanes than were measured.
    """
    legal = legal_folding(graph)
    for node in graph.nodes:
        legal[node.name] = tuple(fold for fold in legal[node.name] if fold.simd <= MOST_LANES)
        if not isinstance(node, ir.Conv):
            continue
        outputs, depth = graph.tensors[node.inputs[1]].shape[:2]
        alone = depth == 1 and outputs == node.groups
        group = outputs if alone else outputs // node.groups
        legal[node.name] = tuple(
            fold
            for fold in legal[node.name]
            if group % fold.pe == 0 and (1 if alone else depth) % fold.simd == 0
        )
    return legal


def divisors(number: int) -> list[int]:
    """The divisors of a number, rising."""
    return [factor for factor in range(1, number + 1) if number % factor == 0]


def _factors(site: Site, folds: Sequence[PeSimd]) -> tuple[IntArray, IntArray]:
    pairs = np.array([(fold.pe, fold.simd) for fold in folds], dtype=np.int64)
    return pairs[:, 0], pairs[:, 1]


def coarser(a: TensorType, b: TensorType, result: TensorType) -> int:
    """Places that every sum of products of ``a`` and ``b`` is moved up by, to the exponent of the result.

    A bias is often that much finer. Sums need fewer bits than the result by as many: what they have above
    these is moved out of the result.
    """
    own = np.add.outer(np.array(a.exponent.values), np.array(b.exponent.values)).min()
    return max(int(own - max(result.exponent.values)), 0)


def _is_depthwise(site: Site) -> bool:
    node = site.node
    return isinstance(node, ir.Conv) and node.groups == site.type(0).shape[0] == site.type(1).shape[0]


def _matrix(site: Site, folds: Sequence[PeSimd], bits: int | None = None) -> LayerUsage:
    """Dot products, the memory of their weights, and what drives them; of a vector, also what repeats it.

    Args:
        bits: of a sum, where they are not those of the result.
    """
    matrix, hardware = matrix_of(site.graph, site.node), site.hardware
    assert matrix is not None
    pe, simd = _factors(site, folds)
    constant = next((i for i in (1, 0) if site.constant(i)), None)
    x, w = (site.type(i).format for i in ((1, 0) if constant == 0 else (0, 1)))
    sum_bits = site.accumulator_bits(matrix.inputs) if bits is None else bits
    usage = hardware.dots(x, w, simd, pe, sum_bits)
    usage += hardware.shared(x, w, simd, not _is_depthwise(site)).times(1 - pe)
    outputs, inputs = -(-matrix.outputs // pe), -(-matrix.inputs // simd)
    edges = 1 + hardware.dot_edges(x, w, simd) + _ROUNDING_EDGES
    usage += hardware.control(matrix.vectors, outputs, inputs, edges)
    if not _slides(site):
        usage += hardware.buffer(1, (1, 1), inputs, outputs, simd * x.width).times(outputs > 1)
    memory, stored = 0.0, w.operand().stored_bits
    if constant is not None:
        usage += hardware.weights(outputs * inputs, pe * simd * stored)
        memory = float(matrix.inputs * matrix.outputs * stored)
    fill = np.ceil(np.log2(np.maximum(simd, 2))) + 3
    return LayerUsage(usage, matrix.vectors * outputs * inputs, fill, memory)


_ROUNDING_EDGES = 5
"""Clock edges of the requantiser behind a sum; the layer's handshake reaches to its end."""


def _slides(site: Site) -> bool:
    """Whether there is a window of several pixels; else a vector is repeated for each fold of the outputs."""
    return isinstance(site.node, ir.Conv) and math.prod(site.type(1).shape[2:]) > 1


def _conv(site: Site, folds: Sequence[PeSimd], bits: int | None = None) -> LayerUsage:
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.Conv)
    unit = _matrix(site, folds, bits)
    if not _slides(site):
        return unit
    pe, simd = _factors(site, folds)
    kernel, depthwise = site.type(1).shape[2:], _is_depthwise(site)
    extent = [(size - 1) * dilation for size, dilation in zip(kernel, node.dilations, strict=True)]
    padded = rules.padded_shape(x.shape[1:], node.pads)
    lanes = pe if depthwise else np.minimum(simd, x.shape[0])
    lines, memory = _window(site, x, extent, padded, lanes, site.output.shape[0] // pe, depthwise)
    at_once = pe * simd if depthwise else simd
    several = at_once > lanes
    if several.any():
        parallel = _parallel_window(site, x, extent, padded, at_once)
        lines = lines.times(~several) + parallel.times(several)
    fed = math.prod(padded) * x.shape[0] / (pe if depthwise else simd)
    fill = sum(reach * math.prod(padded[axis + 1 :]) for axis, reach in enumerate(extent)) * x.shape[0] / simd
    return LayerUsage(
        unit.usage + lines, np.maximum(unit.cycles, fed), unit.fill + fill, unit.memory_bits + memory
    )


def _window(
    site: Site,
    x: TensorType,
    extent: list[int],
    padded: list[int],
    lanes: IntArray,
    folds: Amount,
    depthwise: bool,
) -> tuple[Usage, float]:
    """The window generator: rows in a memory as wide as what it emits at once, and their addresses.

    Strides and dilation are other constants of the same circuit, and so is a window that is not square; one
    of a single row is priced as a pixel with all its words.
    """
    rows, words = _rows(extent), -(-x.shape[0] // lanes)
    if rows == 1:
        words = words * (extent[-1] + 1)
    image = (padded[0], padded[-1]) if len(padded) > 1 else (1, padded[-1])
    usage = site.hardware.buffer(rows, image, words, folds, lanes * x.format.width, depthwise)
    return usage, rules.line_memory(site, x, rows - 1, padded[-1])


def _rows(extent: list[int]) -> int:
    return extent[0] + 1 if len(extent) > 1 else 1


def _parallel_window(
    site: Site, x: TensorType, extent: list[int], padded: list[int], at_once: IntArray
) -> Usage:
    """The whole window in registers, where more of it is needed at once than lies in a word."""
    pixel, hardware = x.shape[0] * x.format.width, site.hardware
    lines = hardware.window(_rows(extent), extent[-1] + 1, padded[-1], pixel)
    steps = -(-_rows(extent) * (extent[-1] + 1) * x.shape[0] // at_once)
    return lines + hardware.selection(steps, at_once * x.format.width)


def _streams(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    """A stream as wide as a node's reads: SIMD inputs of a matrix, for a convolution within one pixel."""
    pe, simd = _factors(site, folds)
    if isinstance(site.node, ir.MatMul):
        return rules.streams(site, folds, simd)
    if isinstance(site.node, ir.Conv) and not _is_depthwise(site):
        return rules.streams(site, folds, np.minimum(simd, site.type(0).shape[0]))
    return rules.streams(site, folds, pe)


def _pool(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.SumPool | ir.MaxPool)
    pe, _ = _factors(site, folds)
    padded = rules.padded_shape(x.shape[1:], node.pads)
    extent = [size - 1 for size in node.kernel]
    lines, memory = _window(site, x, extent, padded, pe, 1, depthwise=True)
    usage = rules.pooled(site, 2).times(pe) + lines
    window = math.prod(node.kernel)
    cycles = np.maximum(math.prod(padded), math.prod(site.output.shape[1:]) * window) * x.shape[0] / pe
    return LayerUsage(usage, cycles, window * x.shape[0] / pe, memory)


def _reduce(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    pe, _ = _factors(site, folds)
    steps = np.ceil(site.type(0).size / pe)
    return LayerUsage(rules.pooled(site, 2).times(pe), steps, steps)


def elementwise(site: Site, folds: Sequence[PeSimd], one: Usage, constants: int = 0) -> LayerUsage:
    """One unit for each of PE channels; constants of the channels lie in a memory."""
    pe, _ = _factors(site, folds)
    channels = site.output.shape[0] if site.output.shape else 1
    usage = one.times(pe)
    if constants:
        usage += site.hardware.weights(-(-channels // pe), pe * constants)
    return LayerUsage(usage, np.ceil(site.output.size / pe), 2, float(channels * constants))


def _add(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    return elementwise(site, folds, rules.added(site))


def _mul(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    a, b = (site.type(i).format for i in (0, 1))
    constant = next((i for i in (1, 0) if site.constant(i)), None)
    x, w = (b, a) if constant == 0 else (a, b)
    one = site.hardware.dots(x, w, 1, 1, site.output.format.width)
    stored = 0 if constant is None else w.operand().stored_bits
    return elementwise(site, folds, one, stored)


def _affine(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    a, b = (site.type(i).format for i in (0, 1))
    one = site.hardware.dots(a, b, 1, 1, site.output.format.width)
    stored = b.operand().stored_bits
    if len(site.node.inputs) < 3:
        return elementwise(site, folds, one, stored)
    return elementwise(site, folds, one + rules.added(site), stored + site.type(2).format.width)


def _requant(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    return elementwise(site, folds, rules.requantised(site))


def _threshold(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    stored = site.type(1).shape[-1] * site.type(0).format.width
    return elementwise(site, folds, rules.compared(site), stored)


def _table(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    return elementwise(site, folds, site.hardware.table(site.type(1).shape[-1], site.output.format.width))


def _move(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    pe, _ = _factors(site, folds)
    return LayerUsage(Usage(), np.ceil(site.output.size / pe))


def _transpose(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    x = site.type(0)
    bits = x.size * x.format.width
    return LayerUsage(site.hardware.weights(x.size, x.format.width), x.size, x.size, bits)


def _upsample(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    pe, _ = _factors(site, folds)
    usage, bits = rules.repeated(site, pe)
    return LayerUsage(usage, np.ceil(site.output.size / pe), memory_bits=bits)


ARCHITECTURE = Architecture(
    "rtl",
    PeSimd,
    {
        "Add": _add,
        "Affine": _affine,
        "Concat": _move,
        "Conv": _conv,
        "MatMul": _matrix,
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
    },
    _streams,
    legal_folding,
)


def _waits(
    words: IntArray,
    image: Sequence[int],
    extent: Sequence[int],
    strides: Sequence[int],
    places: Sequence[int],
) -> IntArray:
    """Cycles of an image in which a window waits for words, as ``sliding_window`` holds them.

    Its memory has a power of two of words: what it has beyond the window is filled ahead. Where more is let
    go behind a place, a row or an image, the rest is waited for.

    Args:
        words: words of a pixel.
        image: pixels of every axis, padding included.
        extent: how far the window reaches beyond its first pixel, for every axis.
        places: places of the window, for every axis.
    """
    rank = 2 - len(image)
    rows, columns = (*[1] * rank, *image)
    down, along = (*[0] * rank, *extent)
    row_step, step = (*[1] * rank, *strides)
    lines, across = (*[1] * rank, *places)
    span = (down * columns + along + 1) * np.asarray(words, dtype=np.int64)
    ahead = (1 << np.ceil(np.log2(np.maximum(span, 2))).astype(np.int64)) - span
    side = step * words
    below = row_step * columns * words - (across - 1) * side
    rest = rows * columns * words - (lines - 1) * row_step * columns * words - (across - 1) * side
    often = ((side, lines * (across - 1)), (below, lines - 1), (rest, 1))
    return np.asarray(sum(count * np.maximum(freed - ahead, 0) for freed, count in often))


def _written_sum_bits(site: Site, terms: int) -> int:
    """Bits of a sum as it is written: without those that the shift to a finer bias moves out."""
    bits = site.accumulator_bits(terms)
    if not site.proven:
        return bits
    least = product_width(site.type(0).format.operand(), site.type(1).format.operand())
    return max(bits - coarser(site.type(0), site.type(1), site.output), least)


def _written_conv(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.Conv)
    pe, simd = _factors(site, folds)
    matrix = matrix_of(site.graph, node)
    assert matrix is not None
    layer = _conv(site, folds, _written_sum_bits(site, matrix.inputs))
    extent = [(size - 1) * d for size, d in zip(site.type(1).shape[2:], node.dilations, strict=True)]
    words = -(-x.shape[0] // (pe if _is_depthwise(site) else np.minimum(simd, x.shape[0])))
    image = rules.padded_shape(x.shape[1:], node.pads)
    waits = _waits(words, image, extent, node.strides, site.output.shape[1:])
    return _waiting(layer, matrix.vectors * -(-matrix.outputs // pe) * -(-matrix.inputs // simd) + waits)


def _written_matmul(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    _, simd = _factors(site, folds)
    matrix = matrix_of(site.graph, site.node)
    assert matrix is not None
    layer = _matrix(site, folds, _written_sum_bits(site, matrix.inputs))
    vectors = (matrix.vectors,)
    waits = _waits(-(-matrix.inputs // simd), vectors, (0,), (1,), vectors)
    return _waiting(layer, np.asarray(layer.cycles) + waits)


def _written_pool(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.SumPool | ir.MaxPool)
    pe, _ = _factors(site, folds)
    dilations = node.dilations if isinstance(node, ir.MaxPool) else (1,) * len(node.kernel)
    extent = [(size - 1) * dilation for size, dilation in zip(node.kernel, dilations, strict=True)]
    places, words = site.output.shape[1:], -(-x.shape[0] // pe)
    waits = _waits(words, rules.padded_shape(x.shape[1:], node.pads), extent, node.strides, places)
    return _waiting(_pool(site, folds), math.prod(places) * math.prod(node.kernel) * words + waits)


def _waiting(layer: LayerUsage, cycles: Amount) -> LayerUsage:
    """The layer, of so many cycles at least."""
    return replace(layer, cycles=np.maximum(layer.cycles, cycles))


WRITTEN = replace(
    ARCHITECTURE,
    rules={
        **ARCHITECTURE.rules,
        "Conv": _written_conv,
        "MatMul": _written_matmul,
        "MaxPool": _written_pool,
        "SumPool": _written_pool,
    },
    legal_folding=written_folding,
)
"""The same, as the flow writes it: with the waits of its windows."""
