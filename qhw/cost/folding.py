"""Reuse factors for every layer at once, so that the estimate fits the board."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.boards import Board
from qhw.cost.estimate import ESTIMATED, LABEL, LayerCost, check_folding, check_io_type, layer_costs, timing
from qhw.errors import CheckFailedError, InputError
from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph

BUDGET = 0.8
"""Share of every resource that a design may take: full devices seldom route, and the estimate is rough."""

_WIDTH = 256
"""Partial sums that the search keeps."""


@dataclass(frozen=True)
class _Choice:
    """A node's options: the cost at each reuse factor, and the same as arrays (options, resources)."""

    costs: list[LayerCost]
    usage: IntArray
    intervals: IntArray


def choose_folding(
    graph: ExactGraph,
    board: Board,
    legal: Mapping[str, Sequence[int]],
    *,
    io_type: str = "io_stream",
    budget: float = BUDGET,
) -> dict[str, int]:
    """The reuse factors with the lowest latency that fit a board, by the uncalibrated estimate.

    First the shortest interval between images at which a choice fits (exact for small networks, a beam
    search for large ones), then single factors are lowered while the latency falls (a heuristic).

    Args:
        legal: the reuse factors each foldable node may take; other nodes are not folded.
        budget: share of each of the board's resources that may be used.

    Raises:
        CheckFailedError: nothing fits; names the resource, the need and by how much.
    """
    check_io_type(io_type)
    if not 0 < budget <= 1:
        raise InputError(f"The budget must be a share of the board above 0 and up to 1, not {budget}")
    options = {name: tuple(factors) for name, factors in legal.items()}
    for name, factors in options.items():
        if not factors:
            raise InputError(f"No reuse factor is legal for {name!r}")
        for factor in factors:
            check_folding(graph, {name: factor})
    choices = [
        _choice(layer_costs(graph, node, options.get(node.name, (1,)), io_type, board.family))
        for node in graph.nodes
    ]
    available = np.array([board.resources[name] for name in ESTIMATED], dtype=np.float64)
    limits = np.floor(available * budget)
    _check_each_resource(graph, board, choices, limits, budget)
    if not choices:
        return {}
    picked = _fastest(graph, board, choices, limits, budget)
    picked = _shorten(graph, choices, picked, limits)
    return {
        node.name: choice.costs[index].reuse_factor
        for node, choice, index in zip(graph.nodes, choices, picked, strict=True)
        if node.name in options
    }


def _choice(costs: list[LayerCost]) -> _Choice:
    usage = np.array([[getattr(cost, name) for name in ESTIMATED] for cost in costs], dtype=np.int64)
    return _Choice(costs, usage, np.array([cost.initiation_interval for cost in costs], dtype=np.int64))


def _used(choices: list[_Choice], picked: Sequence[int]) -> IntArray:
    rows = [choice.usage[index] for choice, index in zip(choices, picked, strict=True)]
    return np.asarray(np.sum(np.array(rows), axis=0), dtype=np.int64)


def _fastest(
    graph: ExactGraph, board: Board, choices: list[_Choice], limits: NDArray[Any], budget: float
) -> list[int]:
    """A choice that fits at the shortest interval where one was found (bisection over the intervals)."""
    intervals = sorted({int(value) for choice in choices for value in choice.intervals})
    slowest = max(int(choice.intervals.min()) for choice in choices)
    intervals = [value for value in intervals if value >= slowest]
    best, found = _within(choices, intervals[-1], limits)
    if not found:
        worst = int(np.argmax((_used(choices, best) - limits) / np.maximum(limits, 1)))
        raise _too_large(graph, board, worst, int(_used(choices, best)[worst]), limits, budget, together=True)
    low, high = 0, len(intervals) - 1
    while low < high:
        middle = (low + high) // 2
        picked, fits = _within(choices, intervals[middle], limits)
        if fits:
            best, high = picked, middle
        else:
            low = middle + 1
    return best


def _within(choices: list[_Choice], interval: int, limits: NDArray[Any]) -> tuple[list[int], bool]:
    """A choice no slower than ``interval``, and whether it fits.

    Node by node, over all sums that no other sum beats in every resource: exact while there are at most
    ``_WIDTH`` of them, which is then all that is kept.
    """
    room = np.maximum(limits, 1e-3)
    allowed = [
        rows[_undominated(choice.usage[rows])]
        for choice in choices
        for rows in [np.flatnonzero(choice.intervals <= interval)]
    ]
    least = np.array([choice.usage[rows].min(axis=0) for choice, rows in zip(choices, allowed, strict=True)])
    rest = least.sum(axis=0)
    sums = np.zeros((1, len(limits)), dtype=np.int64)
    picks = np.zeros((1, 0), dtype=np.int64)
    for choice, rows, low in zip(choices, allowed, least, strict=True):
        rest = rest - low
        sums = (sums[:, None] + choice.usage[rows][None]).reshape(-1, len(limits))
        picks = np.concatenate(
            [np.repeat(picks, len(rows), axis=0), np.tile(rows, len(picks))[:, None]], axis=1
        )
        order = np.argsort(((sums + rest) / room).max(axis=1), kind="stable")
        order = order[_undominated(sums[order])][:_WIDTH]
        sums, picks = sums[order], picks[order]
    return picks[0].tolist(), bool((sums[0] <= limits).all())


def _undominated(usage: IntArray) -> IntArray:
    """Rows that no other row beats or equals in every column; of equal rows the first."""
    if len(usage) == 1:
        return np.zeros(1, dtype=np.int64)
    no_worse = (usage[:, None] <= usage[None]).all(axis=2)
    equal = no_worse & no_worse.T
    beaten = (no_worse & ~equal).any(axis=0) | np.triu(equal, 1).any(axis=0)
    return np.flatnonzero(~beaten)


def _shorten(graph: ExactGraph, choices: list[_Choice], picked: list[int], limits: NDArray[Any]) -> list[int]:
    """Lower one reuse factor at a time, the one that saves most cycles of latency, while the design fits."""
    best = list(picked)
    while True:
        latency = _latency(graph, choices, best)
        trials = [
            (_latency(graph, choices, trial), trial)
            for trial in _neighbours(choices, best)
            if bool((_used(choices, trial) <= limits).all())
        ]
        if not trials or min(trials)[0] >= latency:
            return best
        best = min(trials)[1]


def _neighbours(choices: list[_Choice], picked: list[int]) -> list[list[int]]:
    trials = []
    for place, (choice, index) in enumerate(zip(choices, picked, strict=True)):
        now = choice.costs[index].reuse_factor
        lower = [i for i, cost in enumerate(choice.costs) if cost.reuse_factor < now]
        if lower:
            nearest = max(lower, key=lambda i: choice.costs[i].reuse_factor)
            trials.append([*picked[:place], nearest, *picked[place + 1 :]])
    return trials


def _latency(graph: ExactGraph, choices: list[_Choice], picked: list[int]) -> int:
    layers = [choice.costs[index] for choice, index in zip(choices, picked, strict=True)]
    return timing(graph, {layer.node: layer for layer in layers})[0]


def _check_each_resource(
    graph: ExactGraph, board: Board, choices: list[_Choice], limits: NDArray[Any], budget: float
) -> None:
    """Refuse what cannot fit whatever is chosen: even each node's least adds up to too much."""
    least = sum((choice.usage.min(axis=0) for choice in choices), np.zeros(len(limits), dtype=np.int64))
    excess = (least - limits) / np.maximum(limits, 1)
    worst = int(np.argmax(excess))
    if excess[worst] > 0:
        raise _too_large(graph, board, worst, int(least[worst]), limits, budget, together=False)


def _too_large(
    graph: ExactGraph,
    board: Board,
    resource: int,
    needed: int,
    limits: NDArray[Any],
    budget: float,
    *,
    together: bool,
) -> CheckFailedError:
    name = ESTIMATED[resource].upper()
    there, limit = board.resources[ESTIMATED[resource]], int(limits[resource])
    how = "at the best folding found" if together else "at any folding"
    return CheckFailedError(
        f"{graph.name} does not fit {board.name} {how}: it needs {needed} {name}, "
        f"{needed - limit} more than the {limit} ({budget:.0%} of {there}) that it may use, "
        f"by an {LABEL} estimate",
        hint="use fewer bits, a smaller network, a larger board or a larger budget",
    )
