"""What FINN makes of a graph: the dataflow architecture of PE and SIMD, with thresholds in place of rounding.

Rounding to integers of up to 8 bits is thresholds, which take over the Affine in front of them; what comes
behind the last of FINN's layers is the host's. Everything else is priced by the circuits of the rtl flow's
template.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from qhw.cost.pricing.architecture import Architecture, LayerRule, LayerUsage, Site
from qhw.cost.pricing.usage import Usage
from qhw.flows.finn.prepare import (
    MOST_THRESHOLD_BITS,
    becomes_thresholds,
    host_nodes,
    is_depthwise,
    is_taken_over,
)
from qhw.flows.rtl import template as rtl
from qhw.flows.rtl.template import PeSimd, divisors, elementwise, matrix_of
from qhw.formats.base import UniformFormat
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node

MOST_STREAM_BITS = 8191
"""Bits of a stream of weights that FINN's HLS units take: the widest ap_uint of Vitis HLS."""


def legal_folding(graph: ExactGraph) -> dict[str, tuple[PeSimd, ...]]:
    """Every (PE, SIMD) of every node that FINN can build at the rate that they promise.

    PE divides the outputs or channels. SIMD divides the inputs of a matrix; of a convolution it divides the
    channels, since its window comes pixel by pixel, or is a multiple of them, where the whole window comes at
    once. A depthwise unit takes several inputs of a window only where it has all channels at once.
    """
    return {node.name: tuple(PeSimd(pe, simd) for pe, simd in _pairs(graph, node)) for node in graph.nodes}


def _pairs(graph: ExactGraph, node: Node) -> list[tuple[int, int]]:
    matrix = matrix_of(graph, node)
    if matrix is None:
        return [(pe, 1) for pe in divisors(_channels(graph, node))]
    if isinstance(node, ir.Conv) and is_depthwise(graph, node):
        whole = [(matrix.outputs, simd) for simd in divisors(matrix.inputs) if simd > 1]
        return [*((pe, 1) for pe in divisors(matrix.outputs)), *whole]
    simds = divisors(matrix.inputs)
    if isinstance(node, ir.Conv):
        depth = graph.tensors[node.inputs[0]].shape[0]
        simds = [simd for simd in simds if depth % simd == 0 or simd % depth == 0]
    bits = max(graph.tensors[name].format.operand().stored_bits for name in node.inputs[1:2])
    pairs = [(pe, simd) for pe in divisors(matrix.outputs) for simd in simds]
    return [(pe, simd) for pe, simd in pairs if pe * simd * bits <= MOST_STREAM_BITS or pe * simd == 1]


def _channels(graph: ExactGraph, node: Node) -> int:
    """Elements of which PE may be handled at once: of a node that joins or flattens, those of each part."""
    names = [node.output]
    if isinstance(node, ir.Concat | ir.Reshape):
        names = list(graph.activations(node))
    if isinstance(node, ir.Slice):
        siblings = (other for other in graph.consumers(node.inputs[0]) if isinstance(other, ir.Slice))
        names = [node.output, *(other.output for other in siblings)]
    shapes = [graph.tensors[name].shape for name in names]
    return math.gcd(*(shape[0] if shape else 1 for shape in shapes))


def _requant(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    node = site.node
    assert isinstance(node, ir.Requant)
    if becomes_thresholds(site.graph, node):
        return _thresholds(site, folds, _compared_bits(site))
    return rtl.ARCHITECTURE.rules["Requant"](site, folds)


def _compared_bits(site: Site) -> int:
    """Bits of what the thresholds of a Requant compare: the sum in front of the Affine that they take over.

    Its width is that of the Affine's result less the multiplier's, as far as the types state it.
    """
    width, before = site.type(0).format.width, site.graph.producer(site.node.inputs[0])
    if before is None or not is_taken_over(site.graph, before):
        return width
    largest = int(np.abs(site.graph.constants[before.inputs[1]]).max(initial=1))
    return max(1, width - max(largest.bit_length() - 1, 0))


def _threshold(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    return _thresholds(site, folds, site.type(0).format.width)


def _thresholds(site: Site, folds: Sequence[PeSimd], bits: int) -> LayerUsage:
    """FINN counts one threshold for each code of the result but the lowest, whether it is reached or not."""
    format = site.output.format
    if isinstance(format, UniformFormat) and format.width <= MOST_THRESHOLD_BITS:
        count = (1 << format.width) - 1
    else:
        count = site.type(1).shape[-1]
    one = site.hardware.threshold(bits, count, site.type(0).format.mantissa_low < 0)
    return elementwise(site, folds, one, count * bits)


def _table(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
    """A function that rises and falls is the difference of two counts of thresholds."""
    steps = np.diff(site.graph.constants[site.node.inputs[1]].astype(np.int64), axis=1)
    counts = (int(np.maximum(part, 0).sum(axis=1).max(initial=1)) for part in (steps, -steps))
    each = [(1 << count.bit_length()) - 1 for count in counts]
    bits, signed = site.type(0).format.width, site.type(0).format.mantissa_low < 0
    one = Usage()
    for count in each:
        one += site.hardware.threshold(bits, count, signed)
    return elementwise(site, folds, one, sum(each) * bits)


def _built(rule: LayerRule) -> LayerRule:
    """A rule, but nothing for nodes that thresholds take over, and for those of the host."""

    def usage(site: Site, folds: Sequence[PeSimd]) -> LayerUsage:
        if is_taken_over(site.graph, site.node) or site.node in host_nodes(site.graph):
            return LayerUsage(Usage(), np.zeros(len(folds)), 0)
        return rule(site, folds)

    return usage


ARCHITECTURE = Architecture(
    "finn",
    PeSimd,
    {
        name: _built(rule)
        for name, rule in {
            **rtl.ARCHITECTURE.rules,
            "Requant": _requant,
            "Table": _table,
            "Threshold": _threshold,
        }.items()
    },
    _built(rtl.ARCHITECTURE.streams),
    legal_folding,
)
