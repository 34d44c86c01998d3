"""The foldings of every layer at once: the fastest design within a budget, or the smallest at a rate.

A choice of one option per node is an integer program: every option is a variable, every resource a row.
SciPy's HiGHS solves it to proven optimality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from qhw.cost.pricing.architecture import Fold, LayerCost
from qhw.cost.pricing.costing import ESTIMATED
from qhw.cost.pricing.design import Design
from qhw.cost.pricing.estimate import label_of
from qhw.errors import CheckFailedError, InputError
from qhw.formats.modes import IntArray

BUDGET = 0.8
"""Share of every resource that a design may take: full devices seldom route, and the estimate is rough."""

_SECONDS = 60.0
"""Bound of one solution; 50 layers take well under a second."""


@dataclass(frozen=True)
class _Options:
    """Every option of every node in one row each: its node, cost, and what it uses (rows, resources)."""

    costs: list[LayerCost]
    node: IntArray
    usage: IntArray
    intervals: IntArray
    cycles: IntArray

    @classmethod
    def of(cls, costs: Sequence[Sequence[LayerCost]]) -> _Options:
        flat = [cost for options in costs for cost in options]
        usage = [[getattr(cost, name) for name in ESTIMATED] for cost in flat]
        return cls(
            flat,
            np.repeat(np.arange(len(costs)), [len(options) for options in costs]),
            np.array(usage, dtype=np.int64).reshape(-1, len(ESTIMATED)),
            np.array([cost.initiation_interval for cost in flat], dtype=np.int64),
            np.array([cost.cycles for cost in flat], dtype=np.int64),
        )

    @property
    def slowest(self) -> int:
        """The interval of the node that is slowest at its fastest."""
        return max(int(self.intervals[self.node == node].min()) for node in np.unique(self.node))

    def least(self) -> IntArray:
        """The least need of every resource, whatever the others then need."""
        each = [self.usage[self.node == node].min(axis=0) for node in np.unique(self.node)]
        return np.asarray(np.sum(each, axis=0), dtype=np.int64)


TOO_LARGE = "use fewer bits, a smaller network, a larger board or a larger budget"
"""What to do about a design that does not fit."""


class DoesNotFitError(CheckFailedError):
    """No folding of a design fits its board, or none reaches the rate that was asked for."""


@dataclass(frozen=True)
class _Budget:
    """The share of a board that a design may use; ``room`` and ``limits`` in the order of ``ESTIMATED``."""

    design: Design
    share: float

    @property
    def room(self) -> IntArray:
        """The board's resources."""
        return np.array(list(self.design.board.amounts(ESTIMATED).values()), dtype=np.int64)

    @property
    def limits(self) -> IntArray:
        return np.floor(self.room * self.share).astype(np.int64)

    @property
    def folded(self) -> str:
        """The foldings that were tried, for a message."""
        architecture = self.design.architecture
        return f"folding of the {architecture.flow} flow ({architecture.fold.title})"

    def too_large(self, used: IntArray, how: str, where: str = "") -> DoesNotFitError:
        """Names the resource that is exceeded by the largest share, the need, and by how much."""
        limits = self.limits
        excess = (used - limits) / np.maximum(limits, 1)
        worst = int(np.argmax(excess))
        name, needed, limit = ESTIMATED[worst], int(used[worst]), int(limits[worst])
        return DoesNotFitError(
            f"{self.design.graph.name} does not fit {self.design.board.name} {how}: it needs "
            f"{needed:,} {name.upper()}{where}, {needed - limit:,} more than the {limit:,} "
            f"({self.share:.0%} of {int(self.room[worst]):,}) that it may use "
            f"({label_of(self.design.board.family)})",
            hint=TOO_LARGE,
        )


def _cycles(count: int) -> str:
    return f"{count:,} cycle{'' if count == 1 else 's'}"


def check_budget(budget: float) -> None:
    """Refuse a budget outside (0, 1]."""
    if not 0 < budget <= 1:
        raise InputError(
            f"The budget must be a share of the board above 0 and up to 1, not {budget}", allowed="70% or 0.7"
        )


def check_rate(fps: float) -> None:
    """Refuse a rate that is not a finite number above 0."""
    if not (math.isfinite(fps) and fps > 0):
        raise InputError(f"The rate must be a number of images per second above 0, not {fps}")


def choose_folding(
    design: Design,
    legal: Mapping[str, Sequence[Fold]] | None = None,
    *,
    budget: float = BUDGET,
    fps: float | None = None,
) -> Design:
    """The design with the best folding that fits its board, by the calibrated estimate; proven optimal.

    Without a rate: the shortest interval between images, and at that interval the fewest cycles, added up
    over the layers. At a rate: the smallest share of the scarcest resource, and then of all together.

    Args:
        legal: the foldings that each foldable node may take, in place of the architecture's; other nodes are
            not folded.
        budget: share of each of the board's resources that may be used.
        fps: images per second that are enough, at the board's clock.

    Raises:
        DoesNotFitError: nothing fits (names the resource, the need and by how much), or no folding reaches
            the rate (names the layer that is too slow).
    """
    check_budget(budget)
    if fps is not None:
        check_rate(fps)
    factors = {name: tuple(given) for name, given in (design.legal if legal is None else legal).items()}
    for name, given in factors.items():
        if not given:
            raise InputError(f"No folding is legal for {name!r}")
        for fold in given:
            design.folded({name: fold})
    nodes, unfolded = design.graph.nodes, design.architecture.fold()
    if not nodes:
        return design
    costs = [design.costing.layers(node, factors.get(node.name, (unfolded,))) for node in nodes]
    options, limits = _Options.of([_undominated(each) for each in costs]), _Budget(design, budget)
    if fps is None:
        picked = _fastest(options, limits)
    else:
        picked = _smallest(options, limits, math.floor(design.board.clock_mhz * 1e6 / fps), fps)
    return design.folded(
        {
            node.name: options.costs[row].fold
            for node, row in zip(nodes, picked, strict=True)
            if node.name in factors
        }
    )


def _undominated(costs: list[LayerCost]) -> list[LayerCost]:
    """Options that no other one beats or equals in every resource, interval and cycles."""
    figures = np.array(
        [[*(getattr(c, name) for name in ESTIMATED), c.initiation_interval, c.cycles] for c in costs]
    )
    no_worse = (figures[:, None] <= figures[None]).all(axis=2)
    equal = no_worse & no_worse.T
    beaten = (no_worse & ~equal).any(axis=0) | np.triu(equal, 1).any(axis=0)
    return [costs[row] for row in np.flatnonzero(~beaten)]


def _fastest(options: _Options, budget: _Budget) -> IntArray:
    """The shortest interval by bisection (each step proves that a choice exists or not), then few cycles."""
    intervals = np.unique(options.intervals)
    intervals = intervals[intervals >= options.slowest]
    if _solve(options, budget.limits, int(intervals[-1])) is None:
        raise _nothing_fits(options, budget, int(intervals[-1]), f"at any {budget.folded}")
    low, high = 0, len(intervals) - 1
    while low < high:
        middle = (low + high) // 2
        if _solve(options, budget.limits, int(intervals[middle])) is None:
            low = middle + 1
        else:
            high = middle
    picked = _solve(options, budget.limits, int(intervals[low]), options.cycles)
    assert picked is not None
    return picked


def _smallest(options: _Options, budget: _Budget, interval: int, fps: float) -> IntArray:
    """The smallest highest share of a resource at a rate, then the smallest sum of shares."""
    if options.slowest > interval:
        slow = max(range(len(options.costs)), key=lambda row: _fastest_of_node(options, row))
        cost, needed = options.costs[slow], _fastest_of_node(options, slow)
        clock_mhz = budget.design.board.clock_mhz
        most = math.floor(clock_mhz * 1e9 / needed) / 1000
        raise DoesNotFitError(
            f"{budget.design.graph.name} does not reach {fps:g} images/s at any {budget.folded}: "
            f"'{cost.node}' needs at least {_cycles(needed)} per image; this rate allows {_cycles(interval)} "
            f"at {clock_mhz:g} MHz",
            allowed=f"at most {most:,} images/s at this clock, as far as it fits the board",
            hint="ask for a lower rate, or raise the clock",
        )
    room = np.maximum(budget.room, 1)
    picked = _least_share(options, room, interval)
    used = options.usage[picked].sum(axis=0)
    if (used > budget.limits).any():
        raise _nothing_fits(options, budget, interval, f"at {fps:g} images/s and any {budget.folded}")
    # Each resource may take what the scarcest takes: within that, the smallest sum.
    share = max(used / room)
    limits = np.minimum(budget.limits, np.floor(share * room + 1e-9).astype(np.int64))
    best = _solve(options, np.maximum(limits, used), interval, (options.usage / room).sum(axis=1))
    return picked if best is None else best


def _fastest_of_node(options: _Options, row: int) -> int:
    return int(options.intervals[options.node == options.node[row]].min())


def _nothing_fits(options: _Options, budget: _Budget, interval: int, how: str) -> DoesNotFitError:
    """Names the need of the choice that exceeds the budget least, or of one resource if that alone does."""
    least = options.least()
    if (least > budget.limits).any():
        return budget.too_large(least, how)
    picked = _least_share(options, np.maximum(budget.limits, 1), interval)
    where = " where it exceeds the budget least"
    return budget.too_large(options.usage[picked].sum(axis=0), how, where)


def _least_share(options: _Options, room: IntArray, interval: int) -> IntArray:
    """One option per node, no slower than ``interval``, whose highest share of ``room`` is smallest."""
    rows = np.flatnonzero(options.intervals <= interval)
    shares = sparse.csr_array(np.hstack([(options.usage[rows] / room).T, -np.ones((len(room), 1))]))
    chosen = _one_each(options, rows, extra=1)
    objective = np.append(np.zeros(len(rows)), 1.0)
    answer = _milp(objective, [chosen, LinearConstraint(shares, -np.inf, 0)], integers=len(rows))
    assert answer is not None
    return rows[answer[:-1] > 0.5]


def _solve(
    options: _Options, limits: IntArray, interval: int, objective: NDArray[Any] | None = None
) -> IntArray | None:
    """One option per node within limits, no slower than ``interval``; None where there is none.

    Half a unit of slack keeps the solver's tolerance away from counts, which are whole.
    """
    rows = np.flatnonzero(options.intervals <= interval)
    within = LinearConstraint(options.usage[rows].T, -np.inf, limits + 0.5)
    costs = np.zeros(len(rows)) if objective is None else objective[rows].astype(np.float64)
    answer = _milp(costs, [_one_each(options, rows), within], integers=len(rows))
    return None if answer is None else rows[answer > 0.5]


def _one_each(options: _Options, rows: IntArray, extra: int = 0) -> LinearConstraint:
    """Exactly one of every node's rows; ``extra`` more variables take no part."""
    ones, count = np.ones(len(rows)), int(options.node[-1]) + 1
    shape = (count, len(rows) + extra)
    return LinearConstraint(sparse.csr_array((ones, (options.node[rows], np.arange(len(rows)))), shape), 1, 1)


def _milp(objective: NDArray[Any], constraints: list[LinearConstraint], integers: int) -> NDArray[Any] | None:
    kinds = np.zeros(len(objective))
    kinds[:integers] = 1
    upper = np.where(kinds == 1, 1.0, np.inf)
    result = milp(
        objective,
        integrality=kinds,
        bounds=Bounds(np.zeros(len(objective)), upper),
        constraints=constraints,
        options={"mip_rel_gap": 0.0, "time_limit": _SECONDS},
    )
    if result.status == _INFEASIBLE:
        return None
    if result.x is None or result.status != _OPTIMAL:
        raise CheckFailedError(
            f"No folding was proven best within {_SECONDS:g} s: {result.message}",
            hint="give the folding itself, or fewer legal factors",
        )
    return np.asarray(result.x)


_OPTIMAL, _INFEASIBLE = 0, 2
"""Status codes of scipy.optimize.milp."""
