"""Weights that are loaded: a circuit in which no number depends on what they are."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhw.flows.rtl.template import matrix_of
from qhw.formats.base import Format
from qhw.formats.integer import Integer
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType

INITIALISED, LOADED = "initialised", "loaded"

_MOST_BITS, _MOST_FACTOR_BITS = 48, 32
"""Bits of a sum, and of one that is multiplied, beyond which it stays as wide as its own weights make it."""


def widened(graph: ExactGraph) -> ExactGraph:
    """The graph with sums that are wide enough for any weights of their formats.

    A lowered sum has the bits that this network's weights can fill. Those of Conv, MatMul and Affine become
    those of the formats, where only a Requant, a Threshold or an Affine reads them, or nothing does.
    """
    for node in graph.nodes:
        if not _is_free(graph, node):
            continue
        low, high = _reach(graph, node)
        signed = low < 0
        bits = max(int(high).bit_length(), (-int(low) - 1).bit_length() if signed else 1) + signed
        kind = graph.tensors[node.output]
        factor = any(isinstance(reader, ir.Affine) for reader in graph.consumers(node.output))
        if kind.format.width < bits <= (_MOST_FACTOR_BITS if factor else _MOST_BITS):
            tensors = {**graph.tensors, node.output: replace(kind, format=Integer(bits, signed))}
            graph = replace(graph, tensors=tensors)
    return graph


def _is_free(graph: ExactGraph, node: Node) -> bool:
    """Whether a sum's format is nobody else's too."""
    if not isinstance(node, ir.Conv | ir.MatMul | ir.Affine):
        return False
    if isinstance(graph.tensors[node.output].format, TableFormat):
        return False
    if any(name not in graph.constants for name in node.inputs[1:]):
        return False
    readers = graph.consumers(node.output)
    return all(isinstance(reader, ir.Requant | ir.Threshold | ir.Affine) for reader in readers)


def _reach(graph: ExactGraph, node: Node) -> tuple[int, int]:
    """The least and the largest sum of any operands of their formats."""
    kinds, out = [graph.tensors[name] for name in node.inputs], graph.tensors[node.output]
    matrix = matrix_of(graph, node)
    (x_low, x_high), (w_low, w_high) = bounds(kinds[0].format), bounds(kinds[1].format)
    products = [a * b for a in (x_low, x_high) for b in (w_low, w_high)]
    count = 1 if matrix is None else matrix.inputs
    places = _most(kinds[0]) + _most(kinds[1]) - _least(out)
    low, high = (min(products) * count) << max(places, 0), (max(products) * count) << max(places, 0)
    if len(kinds) > 2:
        b_low, b_high = bounds(kinds[2].format)
        places = max(_most(kinds[2]) - _least(out), 0)
        low, high = low + (b_low << places), high + (b_high << places)
    return low, high


def bounds(format: Format) -> tuple[int, int]:
    """The least and the largest mantissa of a format."""
    return int(format.mantissa_low), int(format.mantissa_high)


def _most(kind: TensorType) -> int:
    return int(np.max(kind.exponent.values))


def _least(kind: TensorType) -> int:
    return int(np.min(kind.exponent.values))
