"""Exact rewrites of a graph that spare the project layers; names of what is left are kept."""

from __future__ import annotations

from qhw.flows.hls4ml.carry import listed
from qhw.flows.hls4ml.operands import has_encoder
from qhw.graph import ir
from qhw.graph.ir import ExactGraph
from qhw.graph.passes import dead, merge_pads, to_threshold, whole_windows


def prepared(graph: ExactGraph) -> ExactGraph:
    """The graph without dead nodes (an unread stream would block the others), zero padding merged into
    convolutions, whole-image sums accumulated.

    Formats without an encoder are reached by thresholds.
    """
    for apply in (dead.apply, merge_pads.apply, whole_windows.apply):
        graph, _ = apply(graph)
    return comparing(graph)


def comparing(graph: ExactGraph) -> ExactGraph:
    """A Requant to k-hot, binary or ternary numbers becomes a Threshold."""

    def wanted(node: ir.Requant) -> bool:
        format = listed(graph.tensors[node.output])
        return format is not None and not has_encoder(format)

    return to_threshold.apply(graph, wanted)[0]
