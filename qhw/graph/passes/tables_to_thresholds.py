"""A Table whose numbers only rise, or only fall, with the code as a Threshold: exact."""

from __future__ import annotations

import numpy as np

from qhw.formats.integer import as_mantissas
from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph, Table, Threshold
from qhw.graph.passes.rewriting import Rewriting
from qhw.graph.passes.to_threshold import MOST_THRESHOLDS


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """Turn every monotone Table with at most 255 steps per channel into a Threshold."""
    changes = Rewriting(graph)
    for node in graph.nodes:
        if isinstance(node, Table):
            _convert(changes, node)
    return changes.apply()


def _convert(changes: Rewriting, node: Table) -> None:
    table = changes.graph.constants[node.inputs[1]].astype(object)
    low, high = changes.ranges[node.inputs[0]].bounds
    reached = table[:, low - node.first : high - node.first + 1]
    steps = np.diff(reached, axis=1)
    if not all((row >= 0).all() or (row <= 0).all() for row in steps):
        return
    rows = [_stairs(row, low) for row in reached]
    width = max(1, *(len(places) for places, _ in rows))
    if width > MOST_THRESHOLDS:
        return
    thresholds = [[*t, *range(high + 1, high + 1 + width - len(t))] for t, _ in rows]
    levels = [[*v, *[v[-1]] * (width + 1 - len(v))] for _, v in rows]
    constants = (
        changes.constant(f"{node.name}_{what}", as_mantissas(np.array(rows, dtype=object)))
        for what, rows in (("thresholds", thresholds), ("levels", levels))
    )
    changes.put(node, Threshold(node.name, (node.inputs[0], *constants), node.output, source=node.source))


def _stairs(row: IntArray, low: int) -> tuple[list[int], list[int]]:
    """Where a row changes, and its numbers before and behind each change."""
    places = np.flatnonzero(row[1:] != row[:-1]) + 1
    return [low + int(place) for place in places], [int(row[0]), *(int(row[place]) for place in places)]
