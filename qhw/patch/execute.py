"""Runs an exact graph by a patch plan: every patch from its receptive field alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.interpreter import Execution, interpret, run_node
from qhw.graph.ir import ExactGraph, Node, TensorType
from qhw.patch.plan import PatchPlan, front_of, patches_of
from qhw.patch.regions import Reading, Region, on_region, reading, regions_of


def run_by_patches(graph: ExactGraph, plan: PatchPlan, inputs: Mapping[str, IntArray]) -> Execution:
    """The outputs of a graph on mantissas (N, *shape), its first layers patch by patch.

    Nothing but its receptive field is given to a patch, so equal codes show that the field is large enough.
    """
    if not plan.cut:
        return interpret(graph, inputs)
    front, rest = front_of(graph, plan)
    count = len(next(iter(inputs.values())))
    cut = np.empty((count, *graph.tensors[plan.cut].shape), dtype=object)
    for patch in patches_of(graph, plan.cut, plan.grid):
        regions = regions_of(graph, front, plan.cut, patch)
        values = {
            name: _part(np.asarray(inputs[name]), regions[name]) for name in graph.inputs if name in regions
        }
        for node in front:
            if node.output in regions:
                values[node.output] = _run(graph, node, values, regions)
        cut[(slice(None), slice(None), *(slice(a, b) for a, b in patch))] = values[plan.cut]
    if plan.cut in graph.outputs:
        return {plan.cut: cut}
    behind = replace(graph, inputs=(plan.cut,), input_encodings={}).replace_nodes(rest)
    return interpret(behind, {plan.cut: cut})


def _part(values: IntArray, region: Region) -> IntArray:
    return values[(slice(None), slice(None), *(slice(a, b) for a, b in region))]


def _run(
    graph: ExactGraph, node: Node, values: Mapping[str, IntArray], regions: Mapping[str, Region]
) -> IntArray:
    """A node on what it reads for its region."""
    read = reading(graph, node, regions[node.output])
    operands, tensors = {}, dict(graph.tensors)
    for name in graph.activations(node):
        operands[name] = _part(values[name], _within(read, regions[name]))
        tensors[name] = _typed(graph.tensors[name], read.region)
    tensors[node.output] = _typed(graph.tensors[node.output], regions[node.output])
    return run_node(replace(graph, tensors=tensors), on_region(node, read), operands)


def _within(read: Reading, held: Region) -> Region:
    """What is read, counted from the beginning of the region that is held."""
    return tuple((a - start, b - start) for (a, b), (start, _) in zip(read.region, held, strict=True))


def _typed(kind: TensorType, region: Region) -> TensorType:
    return TensorType((kind.shape[0], *(b - a for a, b in region)), kind.format, kind.exponent)
