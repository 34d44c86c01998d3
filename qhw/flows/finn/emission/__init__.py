"""Writes the streamlined integer ONNX graph that FINN's inference of hardware layers takes.

Every operation is a function in one of this package's files, found by the name of its class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qhw.flows.finn.emission import elementwise, matrix, moves, pools, thresholds
from qhw.flows.finn.emission.draft import Draft, Emitted, refused
from qhw.flows.finn.prepare import host_nodes, streamlined
from qhw.graph import ir
from qhw.graph.ir import ExactGraph

EMITTERS: Mapping[str, Callable[[Draft, ir.Node], None]] = {
    **elementwise.EMITTERS,
    **matrix.EMITTERS,
    **moves.EMITTERS,
    **pools.EMITTERS,
    **thresholds.EMITTERS,
}


def emit(graph: ExactGraph) -> Emitted:
    """FINN's graph of a prepared exact graph, streamlined.

    Raises:
        UnsupportedError: a node that FINN cannot stream exactly; named, with its layer, and the reason.
    """
    host = host_nodes(graph)
    graph = streamlined(graph)
    draft = Draft(graph, host)
    for node in graph.nodes:
        if node in draft.host:
            continue
        if node.op not in EMITTERS:
            raise refused(node, f"FINN has no stream for {node.op}")
        EMITTERS[node.op](draft, node)
    return draft.finish()
