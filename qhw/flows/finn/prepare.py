"""The graph as FINN builds it, and what in it becomes thresholds or is left to the host."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qhw.formats.base import UniformFormat
from qhw.formats.modes import IntArray, Overflow
from qhw.graph import ir
from qhw.graph.infer import requant_bounds
from qhw.graph.ir import ExactGraph, TensorType
from qhw.graph.passes import (
    dead,
    joins_to_threshold,
    merge_pads,
    round_first,
    tables_to_thresholds,
    to_threshold,
    whole_windows,
)

MOST_THRESHOLD_BITS = 8
"""Bits of a result that thresholds reach: 255 of them."""

MOST_STEPS = (1 << MOST_THRESHOLD_BITS + 1) - 1
"""By which a Table may rise, and by which it may fall, to be the difference of two counts of thresholds."""


_FOR_THE_HOST = (ir.Affine, ir.Requant, ir.Table, ir.Threshold, ir.Reshape, ir.Transpose)


def prepared(graph: ExactGraph) -> ExactGraph:
    """The graph as FINN has it: padding in convolutions, grouped ones dense, functions as thresholds."""
    for part in (dead, merge_pads, whole_windows, joins_to_threshold, tables_to_thresholds, round_first):
        graph, _ = part.apply(graph)
    return _without_groups(graph)


def streamlined(graph: ExactGraph) -> ExactGraph:
    """A prepared graph with every rounding and clipping of up to 8 bits as thresholds; names are kept."""
    return to_threshold.apply(graph, lambda node: node not in host_nodes(graph), clipping=True)[0]


def becomes_thresholds(graph: ExactGraph, node: ir.Node) -> bool:
    """Whether a Requant becomes thresholds: to integers of up to 8 bits, where it rounds or clips."""
    if not isinstance(node, ir.Requant) or node in host_nodes(graph):
        return False
    x, y = graph.tensors[node.inputs[0]], graph.tensors[node.output]
    if not isinstance(y.format, UniformFormat) or y.format.width > MOST_THRESHOLD_BITS:
        return False
    if node.overflow not in (Overflow.SAT, Overflow.SAT_SYM):
        return False
    before = graph.producer(node.inputs[0])
    if isinstance(before, ir.Affine) and graph.consumers(before.output) == [node]:
        return True
    shift = max(x.exponent.values) - min(y.exponent.values)
    if max(y.exponent.values) > min(x.exponent.values):
        return True
    low, high = requant_bounds(node, y)
    return x.format.mantissa_low << shift < low or x.format.mantissa_high << shift > high


def is_taken_over(graph: ExactGraph, node: ir.Node) -> bool:
    """Whether an Affine is part of the thresholds behind it."""
    if not isinstance(node, ir.Affine) or node.output in graph.outputs:
        return False
    readers = graph.consumers(node.output)
    return len(readers) == 1 and becomes_thresholds(graph, readers[0])


def host_nodes(graph: ExactGraph) -> tuple[ir.Node, ...]:
    """The last nodes, which the host computes: they round to more than 8 bits, multiply and add, or move.

    That is a chain in front of the one output. It ends at results of up to 8 bits by thresholds.
    """
    if len(graph.outputs) != 1:
        return ()
    chain: list[ir.Node] = []
    tensor = graph.outputs[0]
    while True:
        node, readers = graph.producer(tensor), graph.consumers(tensor)
        if not isinstance(node, _FOR_THE_HOST) or len([*graph.activations(node)]) != 1:
            break
        if readers and readers != chain[:1]:
            break
        rounds = isinstance(node, ir.Requant | ir.Threshold)
        if rounds and graph.tensors[node.output].format.width <= MOST_THRESHOLD_BITS:
            break
        chain.insert(0, node)
        tensor = node.inputs[0]
    return tuple(chain)


def _without_groups(graph: ExactGraph) -> ExactGraph:
    """Grouped convolutions as dense ones with zeros between the groups; depthwise ones have a unit."""
    tensors, constants, nodes = dict(graph.tensors), dict(graph.constants), []
    for node in graph.nodes:
        if isinstance(node, ir.Conv) and node.groups > 1 and not is_depthwise(graph, node):
            name = f"{node.inputs[1]}_dense"
            weight = graph.tensors[node.inputs[1]]
            dense = dense_weights(graph.constants[node.inputs[1]], node.groups)
            constants[name] = dense
            tensors[name] = TensorType(dense.shape, weight.format, weight.exponent)
            node = replace(node, inputs=(node.inputs[0], name, *node.inputs[2:]), groups=1)
        nodes.append(node)
    return replace(graph, tensors=tensors, constants=constants).replace_nodes(nodes)


def is_depthwise(graph: ExactGraph, node: ir.Conv) -> bool:
    """Whether each channel has one filter of its own."""
    channels = graph.tensors[node.inputs[0]].shape[0]
    return node.groups == channels == graph.tensors[node.inputs[1]].shape[0] and channels > 1


def dense_weights(weight: IntArray, groups: int) -> IntArray:
    """Grouped weights (M, C / groups, …) as (M, C, …)."""
    filters, depth = weight.shape[:2]
    dense = np.zeros((filters, depth * groups, *weight.shape[2:]), dtype=weight.dtype)
    for row in range(filters):
        first = row // (filters // groups) * depth
        dense[row, first : first + depth] = weight[row]
    return dense
