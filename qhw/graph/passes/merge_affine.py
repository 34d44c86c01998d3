"""Batch norm in one step: ``x * m`` followed by ``+ b`` is one Affine."""

from __future__ import annotations

import dataclasses

import numpy as np

from qhw.graph.ir import Affine, ExactGraph
from qhw.graph.passes.rewriting import Rewriting, only_readers


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """Merge every Affine without offset that only an Affine by 1 (with an offset) reads."""
    changes, readers = Rewriting(graph), only_readers(graph)
    for node in graph.nodes:
        reader = readers.get(node.output)
        if not (isinstance(node, Affine) and isinstance(reader, Affine)) or changes.touches(node, reader):
            continue
        if len(node.inputs) == 2 and len(reader.inputs) == 3 and multiplies_by_one(graph, reader):
            merged = dataclasses.replace(reader, inputs=(*node.inputs, reader.inputs[2]))
            changes.remove(node, node.inputs[0])
            changes.replace(reader, merged)
    return changes.apply()


def multiplies_by_one(graph: ExactGraph, node: Affine) -> bool:
    """Whether an Affine only adds its offset."""
    multiplier = node.inputs[1]
    exponent = graph.tensors[multiplier].exponent
    return bool(np.all(graph.constants[multiplier] == 1)) and set(exponent.values) == {0}
