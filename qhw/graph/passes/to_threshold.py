"""A Requant that rounds, with the Affine in front of it, as one Threshold: exact, for flows that want it.

``Requant(x * m + b)`` only rises with ``x`` where ``m`` is positive, only falls where it is negative, and
stays where it is 0, so it is known by where each code begins. Those places are found by bisection through
the two operations themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from qhw.formats.base import Format
from qhw.formats.integer import as_mantissas
from qhw.formats.modes import IntArray, Overflow
from qhw.formats.table import TableFormat
from qhw.graph.infer import Range, requant_bounds
from qhw.graph.interpreter import run_node
from qhw.graph.ir import Affine, ExactGraph, Node, Requant, TensorType, Threshold
from qhw.graph.passes.rewriting import Rewriting, only_readers

MOST_THRESHOLDS = 255
"""Thresholds per channel that the pass makes at most: 8-bit codes."""


def apply(
    graph: ExactGraph,
    wanted: Callable[[Requant], bool] = lambda node: True,
    *,
    clipping: bool = False,
    ranges: dict[str, Range] | None = None,
) -> tuple[ExactGraph, bool]:
    """Turn every saturating Requant that rounds, and has codes of at most 8 bits, into a Threshold.

    Args:
        wanted: selects the nodes to turn.
        clipping: also those that round nothing and only saturate.
        ranges: of every tensor, where they are not to be worked out from the graph's inputs.
    """
    changes, readers = Rewriting(graph, _ranges=ranges), only_readers(graph)
    for node in graph.nodes:
        if isinstance(node, Requant) and wanted(node) and is_convertible(graph, node):
            before = graph.producer(node.inputs[0])
            affine = before if isinstance(before, Affine) and readers.get(before.output) is node else None
            nodes: list[Node] = [node] if affine is None else [affine, node]
            changes_codes = affine is not None or _rounds(graph, node) or (clipping and _clips(changes, node))
            if by_channel(graph, nodes) and changes_codes:
                _convert(changes, nodes)
    return changes.apply()


def is_convertible(graph: ExactGraph, node: Requant) -> bool:
    """Whether a Requant saturates to few enough numbers."""
    kind = graph.tensors[node.output]
    low, high = requant_bounds(node, kind)
    saturates = node.overflow in (Overflow.SAT, Overflow.SAT_SYM)
    few = kind.format.width <= 8 if isinstance(kind.format, TableFormat) else high - low <= MOST_THRESHOLDS
    return saturates and few


def by_channel(graph: ExactGraph, nodes: list[Node]) -> bool:
    """Whether exponents differ along the axis of a Threshold's channels, if at all."""
    names = [name for node in nodes for name in (node.inputs[0], node.output)]
    return all(graph.tensors[name].exponent.axis in (None, 0) for name in names)


def _rounds(graph: ExactGraph, node: Requant) -> bool:
    """Whether the Requant drops fraction bits, or numbers between those of a format that lists them."""
    kinds = [graph.tensors[name] for name in (node.inputs[0], node.output)]
    if isinstance(kinds[1].format, TableFormat) and kinds[0] != kinds[1]:
        return True
    before, after = (kind.exponent.values for kind in kinds)
    return max(after) > min(before)


def _clips(changes: Rewriting, node: Requant) -> bool:
    """Whether a Requant that rounds nothing meets numbers beyond its bounds."""
    x, y = (changes.graph.tensors[name] for name in (node.inputs[0], node.output))
    low, high = changes.ranges[node.inputs[0]].bounds
    shift = max(x.exponent.values) - min(y.exponent.values)
    least, most = requant_bounds(node, y)
    return low << max(shift, 0) < least or high << max(shift, 0) > most


def _convert(changes: Rewriting, nodes: list[Node]) -> None:
    """Replace a Requant, or an Affine and the Requant behind it."""
    graph, node = changes.graph, nodes[-1]
    x = nodes[0].inputs[0]
    steps = Steps(graph, nodes, x)
    thresholds, levels = tabulate(steps, changes.ranges[x], graph.tensors[node.output].format)
    t, v = (
        changes.constant(f"{node.name}_{what}", a)
        for what, a in (("thresholds", thresholds), ("levels", levels))
    )
    new = Threshold(node.name, (x, t, v), node.output, source=node.source)
    for affine in nodes[:-1]:
        changes.remove(affine, x)
    changes.put(node, new)


@dataclass
class Steps:
    """Operations on mantissas (channels, n) of tensor ``x``: one row of numbers for every channel.

    The last operation's result is theirs. All of them only rise with ``x``, or only fall.
    """

    graph: ExactGraph
    nodes: list[Node]
    x: str

    @property
    def channels(self) -> int:
        """1 where no constant or exponent differs by channel."""
        names = [name for node in self.nodes for name in (*node.inputs, node.output)]
        exponents = [len(self.graph.tensors[name].exponent.values) for name in names]
        constants = [self.graph.constants[name].size for name in names if name in self.graph.constants]
        return max(exponents + constants)

    def __call__(self, x: IntArray) -> IntArray:
        shape = (x.shape[0], x.shape[1])
        values = {self.x: x[np.newaxis]}
        tensors = dict(self.graph.tensors)
        for node in self.nodes:
            for name in (*self.graph.activations(node), node.output):
                kind = tensors[name]
                tensors[name] = TensorType(shape, kind.format, kind.exponent)
        graph = ExactGraph("", (), (), tensors, self.graph.constants)
        for node in self.nodes:
            values[node.output] = run_node(graph, node, values)
        return np.asarray(values[self.nodes[-1].output][0])


def tabulate(steps: Steps, span: Range, format: Format) -> tuple[IntArray, IntArray]:
    """Thresholds (channels, T) and levels (channels, T + 1) over the range of ``x``."""
    channels = steps.channels
    low, high = (as_mantissas(np.broadcast_to(v, (channels,))) for v in _bounds(span, channels))
    first, last = (steps(end[:, np.newaxis])[:, 0] for end in (low, high))
    sign = np.where(last < first, -1, 1)
    ways = [_way(int(start), int(end), format) for start, end in zip(first, last, strict=True)]
    longest = max(1, *map(len, ways))
    wanted = np.array([[*way, *[way[-1] if way else 0] * (longest - len(way))] for way in ways])
    places = _bisect(steps, wanted, sign[:, np.newaxis], low, high)
    rows = [
        _strict(place[: len(way)].tolist(), way, int(start))
        for place, way, start in zip(places, ways, first, strict=True)
    ]
    width = max(1, *(len(t) for t, _ in rows))
    beyond = int(high.max()) + 1
    thresholds = [[*t, *range(beyond, beyond + width - len(t))] for t, _ in rows]
    levels = [[*v, *[v[-1]] * (width + 1 - len(v))] for _, v in rows]
    return as_mantissas(np.array(thresholds, dtype=object)), as_mantissas(np.array(levels, dtype=object))


def _way(first: int, last: int, format: Format) -> list[int]:
    """The mantissas from ``first`` (left out) to ``last``, in that order."""
    low, high = min(first, last), max(first, last)
    if isinstance(format, TableFormat):
        numbers = [number for number in format.numbers.tolist() if low <= number <= high]
    else:
        numbers = list(range(low, high + 1))
    return numbers[1:] if last >= first else numbers[-2::-1]


def _bounds(span: Range, channels: int) -> tuple[IntArray, IntArray]:
    if span.low.size == channels:
        return span.low.reshape(-1), span.high.reshape(-1)
    low, high = span.bounds
    return np.array([low], dtype=object), np.array([high], dtype=object)


def _bisect(steps: Steps, wanted: IntArray, sign: IntArray, low: IntArray, high: IntArray) -> IntArray:
    """The lowest x whose code is ``wanted`` or further on its channel's way; (channels, levels)."""
    below = np.broadcast_to(low[:, np.newaxis], wanted.shape)
    reached = np.broadcast_to(high[:, np.newaxis], wanted.shape)
    while (below + 1 < reached).any():
        # The mean of two numbers whose sum may not fit.
        middle = (below >> 1) + (reached >> 1) + (below & reached & 1)
        there = steps(middle) * sign >= wanted * sign
        below, reached = np.where(there, below, middle), np.where(there, middle, reached)
    return np.asarray(reached)


def _strict(places: list[int], codes: list[int], start: int) -> tuple[list[int], list[int]]:
    """Thresholds without repeats and the level behind each: the last of codes that begin together."""
    last = dict(zip(places, codes, strict=True))
    return list(last), [start, *last.values()]
