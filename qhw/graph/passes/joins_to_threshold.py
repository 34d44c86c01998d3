"""Branches of one tensor that are added, rounded, and only rise with it or only fall, as a Threshold: exact.

A leaky ReLU is such a sum: a slope times the number, and the rest of it times its positive part.
"""

from __future__ import annotations

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ir import Add, Affine, ExactGraph, Node, Requant, Threshold
from qhw.graph.passes.rewriting import Rewriting
from qhw.graph.passes.to_threshold import Steps, by_channel, is_convertible, tabulate

_MOST_NODES = 16
"""Operations that are taken together at most."""


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """Turn every saturating Requant of a sum of branches into a Threshold of what they start at."""
    changes = Rewriting(graph)
    for node in graph.nodes:
        if isinstance(node, Requant) and is_convertible(graph, node):
            branches = _branches(graph, node)
            if branches and by_channel(graph, branches) and not changes.touches(*branches):
                _convert(changes, branches)
    return changes.apply()


def _branches(graph: ExactGraph, node: Requant) -> list[Node]:
    """The operations between one tensor and a Requant, in order, with sums among them that rise or fall."""
    order = {other.output: place for place, other in enumerate(graph.nodes)}
    inner: list[Node] = [node]
    entries = {node.inputs[0]}
    while len(inner) <= _MOST_NODES:
        latest = max(entries, key=lambda name: order.get(name, -1))
        before = graph.producer(latest)
        inside = before is not None and all(reader in inner for reader in graph.consumers(latest))
        if (
            not inside
            or latest in graph.outputs
            or not isinstance(before, Add | Affine | Requant | Threshold)
        ):
            break
        inner.append(before)
        entries = (entries - {latest}) | set(graph.activations(before))
    inner.sort(key=lambda one: order[one.output])
    joins = any(isinstance(one, Add) and len([*graph.activations(one)]) == 2 for one in inner)
    return inner if joins and len(entries) == 1 and _only_one_way(graph, inner, *entries) else []


def _only_one_way(graph: ExactGraph, nodes: list[Node], x: str) -> bool:
    """Whether the last result rises with ``x`` in each channel, or falls, or stays."""
    ways: dict[str, IntArray] = {x: np.ones(1, dtype=np.int64)}
    for node in nodes:
        before = [ways[name] for name in graph.activations(node)]
        way = before[0]
        if isinstance(node, Affine):
            way = way * np.sign(graph.constants[node.inputs[1]].reshape(-1)).astype(np.int64)
        elif isinstance(node, Threshold):
            levels = graph.constants[node.inputs[2]]
            way = way * np.where(levels[:, -1] < levels[:, 0], -1, 1)
        elif len(before) == 2:
            if (before[0] * before[1] < 0).any():
                return False
            way = np.where(before[0] == 0, before[1], before[0])
        ways[node.output] = way
    return True


def _convert(changes: Rewriting, nodes: list[Node]) -> None:
    graph, last = changes.graph, nodes[-1]
    inner = {node.output for node in nodes}
    x = next(name for node in nodes for name in graph.activations(node) if name not in inner)
    parts = tabulate(Steps(graph, nodes, x), changes.ranges[x], graph.tensors[last.output].format)
    names = [
        changes.constant(f"{last.name}_{what}", part)
        for what, part in zip(("thresholds", "levels"), parts, strict=True)
    ]
    for node in nodes[:-1]:
        changes.remove(node, x)
    changes.put(last, Threshold(last.name, (x, *names), last.output, source=last.source))
