"""A bias that was added behind a convolution or matrix product goes into it."""

from __future__ import annotations

import dataclasses

from qhw.graph.ir import Affine, Conv, ExactGraph, MatMul, Node
from qhw.graph.passes.merge_affine import multiplies_by_one
from qhw.graph.passes.rewriting import Rewriting, only_readers


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """Give every Conv and MatMul without bias the offset that is added to it alone."""
    changes, readers = Rewriting(graph), only_readers(graph)
    for node in graph.nodes:
        reader = readers.get(node.output)
        if not isinstance(reader, Affine) or not _takes_bias(graph, node):
            continue
        if len(reader.inputs) == 3 and multiplies_by_one(graph, reader):
            named = {"name": reader.name, "output": reader.output, "source": reader.source}
            merged = dataclasses.replace(node, inputs=(*node.inputs, reader.inputs[2]), **named)
            changes.remove(node, reader.output)
            changes.replace(reader, merged)
    return changes.apply()


def _takes_bias(graph: ExactGraph, node: Node) -> bool:
    """Per output channel: for a MatMul, the channel must be the only axis of the result."""
    if len(node.inputs) != 2 or node.inputs[1] not in graph.constants:
        return False
    is_vector = len(graph.tensors[node.output].shape) == 1
    return isinstance(node, Conv) or (isinstance(node, MatMul) and is_vector)
