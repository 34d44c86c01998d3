"""An integer program chooses every variable's format by its own sensitivity, for a sweep of cost bounds.

HAWQ-V3 (arXiv 2011.10680) and MixDQ (arXiv 2405.17873): with x[i, o] = 1 where
variable i takes option o,

    minimise sum s[i, o] x[i, o]   subject to   sum c[i, o] x[i, o] <= B,   sum over o of x[i, o] = 1.

s is measured one variable at a time from the widest point: the error that it adds to the outputs, by the
cheap proxy where there is one, else the quality that it loses, by evaluations. c is the additive part of the
exact cost. HiGHS solves it (``scipy.optimize.milp``) to proven optimality.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp

from qhw.search.space import Point
from qhw.search.strategies._candidates import halving
from qhw.search.strategies._sensitivities import Table, additive_costs, error_energies, single_changes
from qhw.search.strategies.base import Problem, Strategy

BOUNDS = 513
"""Bounds of the cost that are tried, evenly between those of the cheapest and the dearest formats."""


class Ilp(Strategy):
    """Points of least summed sensitivity within a bound; the loosest and the tightest bound first."""

    name = "ilp"
    title = "integer program over the sensitivity of each layer"
    source = "arXiv 2011.10680, 2405.17873"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._costs = additive_costs(problem)[1]
        self._measured: Table | None = None
        self._solved: dict[int, Point | None] = {}
        self._fits: dict[Point, bool] = {}

    def propose(self, count: int) -> list[Point]:
        if self.problem.proxy is None:
            needed = [point for point in single_changes(self.problem) if point not in self.known.trials]
            if needed:
                return needed
        found: dict[Point, None] = {}
        for which in halving(BOUNDS):
            point = self._at(which)
            if point is not None and point not in self.known.asked and self._is_fit(point):
                found.setdefault(point)
            if len(found) >= count:
                break
        return list(found)

    @property
    def sensitivities(self) -> Table:
        """What each option of each variable loses; infinite where that is not known to be finite."""
        if self._measured is None:
            proxy = self.problem.proxy
            self._measured = self._lost() if proxy is None else error_energies(self.problem, proxy)[1]
        return self._measured

    def _lost(self) -> Table:
        start, *_ = single_changes(self.problem)
        trials = self.known.trials
        good = [trial.quality for trial in self.known.good]
        best = trials[start].quality if not trials[start].failed else max(good, default=0.0)
        return [
            np.array(
                [
                    np.inf if (t := trials[*start[:v], place, *start[v + 1 :]]).failed else best - t.quality
                    for place in range(options)
                ]
            )
            for v, options in enumerate(self.space.counts)
        ]

    def _is_fit(self, point: Point) -> bool:
        if point not in self._fits:
            self._fits[point] = bool(self.problem.price([point])[1][0])
        return self._fits[point]

    def _at(self, which: int) -> Point | None:
        """The solution at one of the bounds; None: there is none."""
        if which in self._solved:
            return self._solved[which]
        below = self._solved.get(max((w for w in self._solved if w < which), default=-1))
        above = self._solved.get(min((w for w in self._solved if w > which), default=-1))
        if below is not None and below == above:  # what is best within both bounds is best between them
            self._solved[which] = below
        else:
            low, high = (sum(pick(column) for column in self._costs) for pick in (np.min, np.max))
            bound = low + (high - low) * which / (BOUNDS - 1)
            self._solved[which] = solve(self.sensitivities, self._costs, bound)
        return self._solved[which]


def solve(losses: Table, costs: Table, bound: float) -> Point | None:
    """The options of least summed loss whose summed cost keeps to a bound; None: there are none.

    Args:
        losses, costs: per variable (options,); an infinite loss rules an option out.
    """
    counts = [len(column) for column in losses]
    loss, cost = np.concatenate(losses), np.concatenate(costs)
    allowed = np.isfinite(loss)
    scale = max(float(loss[allowed].max(initial=0.0)), 1e-300)
    objective: NDArray[np.float64] = np.where(allowed, loss, 0.0) / scale
    owner = np.repeat(np.arange(len(counts)), counts)
    one_each = LinearConstraint((np.arange(len(counts))[:, None] == owner).astype(float), 1, 1)
    room = max(1.0, float(np.abs(cost).max()))
    # Half an ulp of the sums must not rule out the only point at the tightest bound.
    within = LinearConstraint(cost[None] / room, -np.inf, bound / room + 1e-9)
    found = milp(
        objective, integrality=np.ones(len(loss)), bounds=Bounds(0, allowed.astype(float)),
        constraints=[one_each, within], options={"mip_rel_gap": 0.0},
    )  # fmt: skip
    if found.x is None:
        return None
    return tuple(int(part.argmax()) for part in np.split(found.x, np.cumsum(counts)[:-1]))


strategy = Ilp
