"""FINN's dataflow architecture, folded by PE (outputs at a time) and SIMD (inputs at a time).

A convolution is a sliding-window generator in front of a matrix-vector unit, as in FINN-R (arXiv 1809.04570);
the window generator repeats a pixel's window for every fold of the outputs. Element-wise units work on PE
channels at a time. Streams are SIMD or PE elements wide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from qhw.cost.operands import operand_of
from qhw.cost.templates import base
from qhw.cost.templates.base import Fold, LayerUsage, Site, Template
from qhw.cost.usage import Usage
from qhw.errors import InputError
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType


class Matrix(NamedTuple):
    """A node as a product of a matrix and vectors: (outputs x inputs) by so many vectors."""

    inputs: int
    outputs: int
    vectors: int


def matrix_of(graph: ExactGraph, node: Node) -> Matrix | None:
    """Of a Conv or MatMul, a depthwise one with one window for each output; None for other nodes."""
    output = graph.tensors[node.output]
    if isinstance(node, ir.Conv):
        weight = graph.tensors[node.inputs[1]]
        return Matrix(math.prod(weight.shape[1:]), weight.shape[0], math.prod(output.shape[1:]))
    if isinstance(node, ir.MatMul):
        outputs = output.shape[-1]
        return Matrix(graph.tensors[node.inputs[0]].shape[-1], outputs, output.size // outputs)
    return None


def legal_folding(graph: ExactGraph) -> dict[str, tuple[Fold, ...]]:
    """Every (PE, SIMD) of every node: PE divides the outputs or channels, SIMD the inputs."""
    legal: dict[str, tuple[Fold, ...]] = {}
    for node in graph.nodes:
        matrix = matrix_of(graph, node)
        output = graph.tensors[node.output]
        channels = output.shape[0] if output.shape else 1
        outputs, inputs = (matrix.outputs, matrix.inputs) if matrix else (channels, 1)
        legal[node.name] = tuple((pe, simd) for pe in _divisors(outputs) for simd in _divisors(inputs))
    return legal


def _divisors(number: int) -> list[int]:
    return [factor for factor in range(1, number + 1) if number % factor == 0]


def _factors(site: Site, folds: Sequence[Fold]) -> tuple[IntArray, IntArray]:
    pairs = np.asarray([fold if isinstance(fold, tuple) else (fold, 1) for fold in folds], dtype=np.int64)
    return pairs[:, 0], pairs[:, 1]


def _matrix(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    matrix = matrix_of(site.graph, site.node)
    assert matrix is not None
    pe, simd = _factors(site, folds)
    constant = next((i for i in (1, 0) if site.constant(i)), None)
    x, w = (site.type(i).format for i in ((1, 0) if constant == 0 else (0, 1)))
    usage = site.hardware.dots(x, w, simd, pe, site.accumulator_bits(matrix.inputs))
    depth = -(-matrix.outputs // pe) * -(-matrix.inputs // simd)
    stored = operand_of(w).stored_bits
    memory = 0.0
    if constant is not None:
        usage += site.hardware.weights(depth, pe * simd * stored)
        memory = float(matrix.inputs * matrix.outputs * stored)
    fill = np.ceil(np.log2(np.maximum(simd, 2))) + 3
    return LayerUsage(usage, matrix.vectors * depth, fill, memory)


def _conv(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.Conv)
    unit = _matrix(site, folds)
    _, simd = _factors(site, folds)
    kernel = site.type(1).shape[2:]
    if math.prod(kernel) == 1:
        return unit
    extent = [(size - 1) * dilation for size, dilation in zip(kernel, node.dilations, strict=True)]
    padded = base.padded_shape(x.shape[1:], node.pads)
    lines, memory = _window(site, x, extent, padded, np.minimum(simd, x.shape[0]))
    fed = math.prod(padded) * x.shape[0] / simd
    fill = sum(reach * math.prod(padded[axis + 1 :]) for axis, reach in enumerate(extent)) * x.shape[0] / simd
    return LayerUsage(
        unit.usage + lines, np.maximum(unit.cycles, fed), unit.fill + fill, unit.memory_bits + memory
    )


def _window(
    site: Site, x: TensorType, extent: list[int], padded: list[int], lanes: IntArray
) -> tuple[Usage, float]:
    """The window generator's rows, in a memory as wide as what it emits at once."""
    rows = extent[0] if len(extent) > 1 else 0
    words = -(-(rows * padded[-1] + extent[-1] + 1) * x.shape[0] // lanes)
    usage = site.hardware.weights(words, lanes * x.format.width)
    return usage, base.line_memory(site, x, rows, padded[-1])


def _pool(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.SumPool | ir.MaxPool)
    pe, _ = _factors(site, folds)
    padded = base.padded_shape(x.shape[1:], node.pads)
    lines, memory = _window(site, x, [size - 1 for size in node.kernel], padded, pe)
    usage = base.pooled(site, 2).times(pe) + lines
    window = math.prod(node.kernel)
    cycles = np.maximum(math.prod(padded), math.prod(site.output.shape[1:]) * window) * x.shape[0] / pe
    return LayerUsage(usage, cycles, window * x.shape[0] / pe, memory)


def _reduce(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    pe, _ = _factors(site, folds)
    steps = np.ceil(site.type(0).size / pe)
    return LayerUsage(base.pooled(site, 2).times(pe), steps, steps)


def _elementwise(site: Site, folds: Sequence[Fold], one: Usage, constants: int = 0) -> LayerUsage:
    """One unit for each of PE channels; constants of the channels lie in a memory."""
    pe, _ = _factors(site, folds)
    channels = site.output.shape[0] if site.output.shape else 1
    usage = one.times(pe)
    if constants:
        usage += site.hardware.weights(-(-channels // pe), pe * constants)
    return LayerUsage(usage, np.ceil(site.output.size / pe), 2, float(channels * constants))


def _add(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    return _elementwise(site, folds, base.added(site))


def _mul(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    a, b = (site.type(i).format for i in (0, 1))
    constant = next((i for i in (1, 0) if site.constant(i)), None)
    x, w = (b, a) if constant == 0 else (a, b)
    one = site.hardware.dots(x, w, 1, 1, site.output.format.width)
    stored = 0 if constant is None else operand_of(w).stored_bits
    return _elementwise(site, folds, one, stored)


def _affine(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    a, b = (site.type(i).format for i in (0, 1))
    one = site.hardware.dots(a, b, 1, 1, site.output.format.width)
    stored = operand_of(b).stored_bits
    if len(site.node.inputs) < 3:
        return _elementwise(site, folds, one, stored)
    return _elementwise(site, folds, one + base.added(site), stored + site.type(2).format.width)


def _requant(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    return _elementwise(site, folds, base.requantised(site))


def _threshold(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    stored = site.type(1).shape[-1] * site.type(0).format.width
    return _elementwise(site, folds, base.compared(site), stored)


def _table(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    return _elementwise(site, folds, site.hardware.table(site.type(1).shape[-1], site.output.format.width))


def _move(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    pe, _ = _factors(site, folds)
    return LayerUsage(Usage(), np.ceil(site.output.size / pe))


def _transpose(site: Site, folds: Sequence[Fold]) -> LayerUsage:
    x = site.type(0)
    bits = x.size * x.format.width
    return LayerUsage(site.hardware.weights(x.size, x.format.width), x.size, x.size, bits)


def _check_fold(node: Node, fold: Fold) -> None:
    if not (isinstance(fold, tuple) and len(fold) == 2):
        raise InputError(f"The folding of {node.name!r} must be (PE, SIMD), not {fold!r}")
    for value, what in zip(fold, ("PE", "SIMD"), strict=True):
        base.check_positive(node, value, what)


TEMPLATE = Template(
    "finn",
    ("io_stream",),
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
    },
    base.streams,
    unfolded=(1, 1),
    check_fold=_check_fold,
)
