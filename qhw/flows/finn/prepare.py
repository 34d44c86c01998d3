"""The streamlined graph: what FINN's own streamlining tries to reach, by exact passes."""

from __future__ import annotations

from qhw.graph import ir
from qhw.graph.ir import ExactGraph
from qhw.graph.passes import dead, merge_pads, tables_to_thresholds, to_threshold, whole_windows


def streamlined(graph: ExactGraph) -> ExactGraph:
    """The graph with every rounding and clipping of up to 8 bits as thresholds; names are kept."""
    for apply in (dead.apply, merge_pads.apply, whole_windows.apply, tables_to_thresholds.apply):
        graph, _ = apply(graph)
    return to_threshold.apply(graph, clipping=True)[0]


def host_nodes(graph: ExactGraph) -> tuple[ir.Node, ...]:
    """The last nodes, which the host computes: what FINN's streams do not round, or would only multiply.

    That is a chain of Affine, Requant, Table and Reshape in front of the one output.
    """
    if len(graph.outputs) != 1:
        return ()
    chain: list[ir.Node] = []
    tensor = graph.outputs[0]
    while True:
        node, readers = graph.producer(tensor), graph.consumers(tensor)
        if not isinstance(node, ir.Affine | ir.Requant | ir.Table | ir.Reshape):
            break
        if readers and readers != chain[:1]:
            break
        chain.insert(0, node)
        tensor = node.inputs[0]
    return tuple(chain)
