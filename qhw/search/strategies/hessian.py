"""Second-order sensitivities with dependencies between layers, and bisection to an allowed loss.

"Augmenting Hessians with Inter-Layer Dependencies for Mixed-Precision Post-Training Quantization" (arXiv
2306.04879): formats are ordered by what the second-order model says that they lose
(:class:`qhw.search.evaluators.second_order.SecondOrder`), and bisection finds how many of them may be
narrowed before the evaluated quality falls by more than is allowed. Here the order is that of increase
of the predicted loss over exact cost saved, and several allowed losses give the points of a front.
"""

from __future__ import annotations

import numpy as np

from qhw.errors import InputError
from qhw.formats.modes import IntArray
from qhw.search.space import Point
from qhw.search.strategies._candidates import halving, start_of
from qhw.search.strategies.base import Problem, Strategy

ALLOWED = (0.01, 0.002, 0.05, 0.005, 0.1, 0.02, 0.2, 0.5)
"""Losses of quality that are bisected to, in shares of the widest point's."""


class Hessian(Strategy):
    """Walks from the widest point down by the second-order model; evaluates where bisection asks."""

    name = "hessian"
    title = "second order with dependencies between layers, bisection to an allowed loss"
    source = "arXiv 2306.04879"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        if problem.second_order is None:
            raise InputError(
                "Strategy hessian needs the second-order model of the loss, and this search has none",
                hint="choose another --strategy",
            )
        self.path = self._path()

    def propose(self, count: int) -> list[Point]:
        first = self.path[0]
        if first not in self.known.trials:
            return [first]
        rest = [self.path[place] for place in halving(len(self.path))]
        wanted = [point for allowed in ALLOWED if (point := self._next(allowed)) is not None]
        return [point for point in (*wanted, *(() if wanted else rest)) if point not in self.known.asked]

    def _next(self, allowed: float) -> Point | None:
        """The point that bisection evaluates next; None: it has ended, or the widest point failed."""
        best = self.known.trials[self.path[0]]
        if best.failed:
            return None
        least = best.quality - allowed * abs(best.quality)
        low, high = 0, len(self.path)
        while high - low > 1:
            middle = (low + high) // 2
            trial = self.known.trials.get(self.path[middle])
            if trial is None:
                return self.path[middle]
            low, high = (middle, high) if trial.quality >= least else (low, middle)
        return None

    def _path(self) -> list[Point]:
        """From the widest point to the cheapest, one format at a time."""
        path = [start_of(self.problem)]
        while (step := self._step(path[-1])) is not None:
            path.append(step)
        return path

    def _step(self, at: Point) -> Point | None:
        """The change to a cheaper point that adds the least loss per cost saved; None: nothing is cheaper."""
        assert self.problem.second_order is not None
        points: IntArray = np.array([at, *self.space.neighbours(at)])
        costs, _ = self.problem.price(points)
        losses = self.problem.second_order(points)
        saved = costs[0] - costs
        usable = np.isfinite(saved) & (saved > 0) & np.isfinite(losses)
        if not usable.any():
            return None
        ratio = np.where(usable, (losses - losses[0]) / np.where(usable, saved, 1.0), np.inf)
        return tuple(map(int, points[int(ratio.argmin())]))


strategy = Hessian
