"""Exact rewrites of a graph that spare the project layers; names of what is left are kept."""

from __future__ import annotations

from dataclasses import replace

from qhw.flows.hls4ml.carry import listed
from qhw.flows.hls4ml.operands import has_encoder
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node
from qhw.graph.passes import to_threshold


def prepared(graph: ExactGraph) -> ExactGraph:
    """The graph without dead nodes; zero padding merged into convolutions, whole-image sums accumulated.

    Formats without an encoder are reached by thresholds.
    """
    return comparing(accumulating(without_pads(without_dead_nodes(graph))))


def comparing(graph: ExactGraph) -> ExactGraph:
    """A Requant to k-hot, binary or ternary numbers becomes a Threshold."""

    def wanted(node: ir.Requant) -> bool:
        format = listed(graph.tensors[node.output])
        return format is not None and not has_encoder(format)

    return to_threshold.apply(graph, wanted)[0]


def accumulating(graph: ExactGraph) -> ExactGraph:
    """A sum over a window as large as the image becomes a ReduceSum.

    That is one accumulator per channel, where a window would be an adder per pixel and channel.
    """
    return graph.replace_nodes([_accumulated(graph, node) for node in graph.nodes])


def _accumulated(graph: ExactGraph, node: Node) -> Node:
    if not isinstance(node, ir.SumPool) or any(node.pads):
        return node
    if node.kernel != graph.tensors[node.inputs[0]].shape[1:]:
        return node
    axes = tuple(range(1, len(node.kernel) + 1))
    return ir.ReduceSum(node.name, node.inputs, node.output, axes=axes, keepdims=True, source=node.source)


def without_dead_nodes(graph: ExactGraph) -> ExactGraph:
    """Only the nodes that an output depends on: an unread stream would block the others."""
    needed, kept = set(graph.outputs), []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            kept.append(node)
    return graph.replace_nodes(kept[::-1])


def without_pads(graph: ExactGraph) -> ExactGraph:
    """Spatial padding with mantissa 0 becomes the padding of the convolutions that alone read it."""
    merged = {node.output: node for node in graph.nodes if _merges(graph, node)}
    nodes: list[Node] = []
    for node in graph.nodes:
        if isinstance(node, ir.Conv) and node.inputs[0] in merged:
            pad = merged[node.inputs[0]]
            nodes.append(_padded(node, pad))
        elif node.output not in merged:
            nodes.append(node)
    return graph.replace_nodes(nodes)


def _merges(graph: ExactGraph, node: Node) -> bool:
    if not isinstance(node, ir.Pad) or node.value != 0 or node.output in graph.outputs:
        return False
    rank = len(node.pads) // 2
    readers = graph.consumers(node.output)
    spatial_only = node.pads[0] == node.pads[rank] == 0
    return spatial_only and bool(readers) and all(isinstance(reader, ir.Conv) for reader in readers)


def _padded(node: ir.Conv, pad: Node) -> ir.Conv:
    assert isinstance(pad, ir.Pad)
    rank = len(pad.pads) // 2
    begins, ends = pad.pads[1:rank], pad.pads[rank + 1 :]
    pads = tuple(a + b for a, b in zip(node.pads, (*begins, *ends), strict=True))
    return replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), pads=pads)
