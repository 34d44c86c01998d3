"""Rounding in front of what only moves codes: narrower numbers are moved, or the moves come last."""

from __future__ import annotations

from dataclasses import replace

from qhw.graph.ir import ExactGraph, Exponent, Node, Requant, Reshape, TensorType, Threshold, Transpose
from qhw.graph.passes.rewriting import Rewriting, only_readers


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """Exchange every Reshape or Transpose with the Requant or Threshold that alone reads it, repeatedly."""
    changed = False
    while True:
        graph, again = _once(graph)
        if not again:
            return graph, changed
        changed = True


def _once(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    changes, readers = Rewriting(graph), only_readers(graph)
    for node in graph.nodes:
        before = graph.producer(node.inputs[0])
        if not isinstance(before, Reshape | Transpose) or readers.get(before.output) is not node:
            continue
        if _is_the_same_everywhere(graph, node) and not changes.touches(before, node):
            kind = graph.tensors[node.output]
            name = f"{node.output}_before_{before.name}"
            shape = graph.tensors[before.inputs[0]].shape
            changes.types[name] = TensorType(shape, kind.format, kind.exponent)
            changes.put(before, replace(node, inputs=(before.inputs[0], *node.inputs[1:]), output=name))
            changes.put(node, replace(before, inputs=(name,), output=node.output))
    return changes.apply()


def _is_the_same_everywhere(graph: ExactGraph, node: Node) -> bool:
    """Whether an operation rounds each number alike, whatever its index."""
    if not isinstance(node, Requant | Threshold):
        return False
    scalar = all(
        graph.tensors[name].exponent == Exponent.scalar(graph.tensors[name].exponent.values[0])
        for name in (node.inputs[0], node.output)
    )
    return scalar and all(len(graph.constants[name]) == 1 for name in node.inputs[1:])
