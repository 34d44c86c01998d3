"""Empirical bias correction of an exact graph: the mean of each sum stays where it was, channel by channel.

Rounding a feature map to few bits, and saturating it, shifts its mean, and with it every sum that it goes
into. Nagel et al.: Data-Free Quantization Through Weight Equalization and Bias Correction, arXiv 1906.04721,
section 4.2.1 and appendix D: constants that are added per channel take the shift back, layer by layer, each
with those in front of it corrected.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.interpreter import run_node
from qhw.graph.ir import ExactGraph, Node, TensorType


def added_constant(graph: ExactGraph, node: Node) -> str | None:
    """The constant that a node adds per channel, at one exponent; None where it adds none."""
    if not isinstance(node, ir.Affine | ir.Conv | ir.MatMul) or len(node.inputs) < 3:
        return None
    name = node.inputs[2]
    out = graph.tensors[node.output]
    by_channel = len(out.shape) == 1 or not isinstance(node, ir.MatMul)  # else along the last axis
    fits = name in graph.constants and graph.constants[name].size in (1, out.shape[0])
    at_one = out.exponent.is_scalar and graph.tensors[name].exponent.is_scalar
    return name if by_channel and fits and at_one else None


def corrections(wide: ExactGraph, narrow: ExactGraph, samples: Mapping[str, IntArray]) -> dict[str, IntArray]:
    """The constants of a graph with narrower feature maps by which its sums have the means of the wide one.

    Args:
        wide, narrow: the graph before and after :func:`qhw.patch.widths.narrowed`, without patches.
        samples: mantissas (N, *shape) of the inputs.

    Returns:
        By node, what it is to add, (C,), at the exponent of the constant that it adds now.
    """
    from qhw.sim.fast import FastExecutor

    sums = {node.output: name for node in narrow.nodes if (name := added_constant(narrow, node))}
    wanted = FastExecutor(wide)(samples, keep=sums)
    last = {tensor: index for index, node in enumerate(narrow.nodes) for tensor in node.inputs}
    values = {name: np.asarray(array).astype(np.int64) for name, array in samples.items()}
    found = {}
    for index, node in enumerate(narrow.nodes):
        values[node.output] = run_node(narrow, node, values)
        if node.output in sums:
            name = sums[node.output]
            shift = _shift(wide, narrow, node.output, wanted.pop(node.output), values[node.output], name)
            found[node.name] = narrow.constants[name] + shift
            out, added = (narrow.tensors[tensor].exponent.values[0] for tensor in (node.output, name))
            rank = values[node.output].ndim - 2
            values[node.output] = values[node.output] + (shift << (added - out)).reshape(-1, *(1,) * rank)
        for tensor in node.inputs:
            if last[tensor] == index:
                values.pop(tensor, None)
    return found


def _shift(
    wide: ExactGraph, narrow: ExactGraph, tensor: str, before: IntArray, after: IntArray, added: str
) -> IntArray:
    """How far the mean of each channel moved, in units of the constant that is added."""
    means = []
    for graph, values in ((wide, before), (narrow, after)):
        axes = (0, *range(2, values.ndim))
        unit = graph.tensors[tensor].exponent.values[0] - narrow.tensors[added].exponent.values[0]
        means.append(np.ldexp(values.mean(axis=axes, dtype=np.float64), unit))
    return np.asarray(np.round(means[0] - means[1]), dtype=np.int64)


def with_added(graph: ExactGraph, added: Mapping[str, IntArray]) -> ExactGraph:
    """The graph with other constants added.

    Args:
        added: by node, what it adds; nodes that share an array share a constant.
    """
    names: dict[int, str] = {}
    tensors, constants, nodes = dict(graph.tensors), dict(graph.constants), []
    for node in graph.nodes:
        if node.name in added:
            value, old = added[node.name], graph.tensors[node.inputs[2]]
            if id(value) not in names:
                name = names[id(value)] = f"{node.name}.corrected"
                format = Integer.holding(int(value.min()), int(value.max()))
                tensors[name] = TensorType(value.shape, format, old.exponent)
                constants[name] = value
            node = replace(node, inputs=(*node.inputs[:2], names[id(value)]))
        nodes.append(node)
    return replace(graph, tensors=tensors, constants=constants).replace_nodes(nodes)
