"""Small rewrites of the exact graph: ``apply(graph) -> (graph, changed)``, each exact, each with its test."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from qhw.graph.ir import ExactGraph
from qhw.graph.passes import (
    bias,
    dead,
    merge_affine,
    merge_pads,
    merge_requant,
    tables_to_thresholds,
    to_threshold,
    whole_windows,
)

Pass: TypeAlias = Callable[[ExactGraph], tuple[ExactGraph, bool]]

SIMPLIFYING: tuple[Pass, ...] = (merge_affine.apply, bias.apply, merge_requant.apply, dead.apply)
"""The passes that end every lowering."""

__all__ = [
    "SIMPLIFYING",
    "bias",
    "dead",
    "merge_affine",
    "merge_pads",
    "merge_requant",
    "simplify",
    "tables_to_thresholds",
    "to_threshold",
    "whole_windows",
]


def simplify(graph: ExactGraph, passes: Sequence[Pass] = SIMPLIFYING) -> ExactGraph:
    """Apply passes in turn until none changes the graph any more."""
    changed = True
    while changed:
        changed = False
        for apply in passes:
            graph, rewrote = apply(graph)
            changed = changed or rewrote
    return graph
