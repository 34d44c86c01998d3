"""Drop nodes whose result nothing reads."""

from __future__ import annotations

from qhw.graph.ir import ExactGraph


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """Keep what the outputs need, walking backwards."""
    needed = set(graph.outputs)
    kept = []
    for node in reversed(graph.nodes):
        if node.output in needed:
            kept.append(node)
            needed.update(node.inputs)
    if len(kept) == len(graph.nodes):
        return graph, False
    return graph.replace_nodes(kept[::-1]), True
