"""A window as large as the image is no window: one accumulator per channel adds it up."""

from __future__ import annotations

from qhw.graph.ir import ExactGraph, Node, ReduceSum, SumPool


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """A SumPool over the whole image becomes a ReduceSum."""
    nodes = [_accumulated(graph, node) for node in graph.nodes]
    changed = any(new is not node for new, node in zip(nodes, graph.nodes, strict=True))
    return (graph.replace_nodes(nodes), True) if changed else (graph, False)


def _accumulated(graph: ExactGraph, node: Node) -> Node:
    if not isinstance(node, SumPool) or any(node.pads):
        return node
    if node.kernel != graph.tensors[node.inputs[0]].shape[1:]:
        return node
    axes = tuple(range(1, len(node.kernel) + 1))
    return ReduceSum(node.name, node.inputs, node.output, axes=axes, keepdims=True, source=node.source)
