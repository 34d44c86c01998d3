"""The reference: runs an exact graph by what its operations mean, on integers alone.

NumPy int64 where 63 bits hold every partial sum, Python integers where they do not; each operation says in
its ``run`` what it means. ``qhw.sim.fast`` gives the same codes at matrix-library speed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal

import numpy as np

from qhw.errors import InputError
from qhw.formats.integer import as_mantissas
from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph, Node

Execution = dict[str, IntArray]
"""Mantissas (N, *shape) by tensor name."""

Keep = Literal["outputs", "all"] | Collection[str]


def interpret(graph: ExactGraph, inputs: Mapping[str, IntArray], keep: Keep = "outputs") -> Execution:
    """Run a graph on a batch.

    Args:
        inputs: mantissas (N, *shape) of every graph input.
        keep: the tensors to return: the outputs, all activations, or the named ones.
    """
    wanted = set(graph.outputs) if keep == "outputs" else None if keep == "all" else set(keep)
    values: dict[str, IntArray] = {}
    for name in graph.inputs:
        kind = graph.tensors[name]
        array = np.asarray(inputs[name])
        if array.shape[1:] != kind.shape:
            raise InputError(f"input '{name}' has shape {array.shape}", allowed=f"(N, *{kind.shape})")
        values[name] = array if array.dtype == object else array.astype(np.int64)
    last_use = {tensor: i for i, node in enumerate(graph.nodes) for tensor in node.inputs}
    kept = {name: values[name] for name in graph.inputs if wanted is None or name in wanted}
    for i, node in enumerate(graph.nodes):
        values[node.output] = run_node(graph, node, values)
        if wanted is None or node.output in wanted:
            kept[node.output] = values[node.output]
        for tensor in node.inputs:
            if last_use[tensor] == i:
                values.pop(tensor, None)
    return kept


def run_node(graph: ExactGraph, node: Node, values: Mapping[str, IntArray]) -> IntArray:
    """Run one operation on a batch of mantissas; constants come from the graph."""
    types = [graph.tensors[name] for name in node.inputs]
    out = graph.tensors[node.output]
    wide = max(t.format.mantissa_high.bit_length() for t in (*types, out)) > 62
    operands = []
    for name in node.inputs:
        value = graph.constants[name][np.newaxis] if name in graph.constants else values[name]
        operands.append(value.astype(object) if wide else value)
    return as_mantissas(node.run(operands, types, out))
