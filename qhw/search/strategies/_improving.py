"""Points by the hypervolume that a regression expects of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.search.space import Point
from qhw.search.strategies._candidates import Candidates, Priced, improvement
from qhw.search.strategies.base import Known, Problem, Strategy, Trial

Moments = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Expected qualities and their spreads, (points,) each."""

BATCH = 8
"""Told trials after which the regression is made anew, or a tenth of them where that is more."""

MARGIN = 0.1
"""How far beyond the front, in shares of its range, the reference of the hypervolume lies."""

KEPT = 1000
"""Candidates whose spread is computed: the best by expected quality and a spread that is the same for all."""


def reference_of(trials: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The reference of the hypervolume: the front's nadir, moved out by a tenth of the range in cost and
    quality.

    Args:
        trials: (cost, quality) of the front; at least one.
    """
    costs, qualities = np.array(trials).T
    dearest, worst = float(costs.max()), float(qualities.min())
    cost_range, quality_range = dearest - float(costs.min()), float(qualities.max()) - worst
    return (
        dearest + MARGIN * (cost_range or abs(dearest) or 1.0),
        worst - MARGIN * (quality_range or abs(worst) or 1.0),
    )


class Regression(Protocol):
    """Predicts the quality of points (points, variables)."""

    deviation: float
    """A standard deviation that stands for all points in the choice of those that are looked at closely."""

    def means(self, points: IntArray) -> NDArray[np.float64]:
        """Expected qualities, (points,)."""

    def moments(self, points: IntArray) -> Moments:
        """Expected qualities and their spreads."""


class RegressionStrategy(Strategy):
    """Evaluates some points, learns from them, and proposes what is expected to improve on the front."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.candidates = Candidates(problem)
        self.first = self.first_points()
        self._proposed: tuple[int, list[Point]] = (-1, [])

    @abstractmethod
    def first_points(self) -> list[Point]:
        """Points to evaluate before anything is learned."""

    @abstractmethod
    def regression(self, trials: Sequence[Trial]) -> Regression:
        """What is learned from trials, of which two or more did not fail and differ in quality."""

    def propose(self, count: int) -> list[Point]:
        found = [point for point in self.first if point not in self.known.asked]
        if len(found) >= count or (self.waiting and len(self.known.good) < 2):
            return found
        used = _learned_from(len(self.known.trials))
        wanted = len(self.known.asked) - used + count
        if self._proposed[0] != used or len(self._proposed[1]) < wanted:
            # As many as may be asked for before the next regression: nothing is worked out twice.
            self._proposed = used, self._best(used, max(wanted, BATCH, used // 10) + count)
        return found + self._proposed[1]

    def _best(self, used: int, count: int) -> list[Point]:
        """The points to evaluate next by the first ``used`` trials, best first."""
        trials = list(self.known.trials.values())[:used]
        known = Known({trial.point: trial for trial in trials}, {trial.point for trial in trials})
        rng = np.random.default_rng([self.problem.seed, used])
        candidates = self.candidates.fresh(known, rng)
        if len({trial.quality for trial in known.good}) < 2:
            return [candidates.point(place) for place in rng.permutation(len(candidates.points))[:count]]
        places = most_improving(candidates, known.front(), self.regression(trials), count)
        return [candidates.point(place) for place in places]


def _learned_from(told: int) -> int:
    """How many trials the regression is made from: the same number until there are enough new ones."""
    used = min(told, BATCH)
    while used >= BATCH and used + max(BATCH, used // 10) <= told:
        used += max(BATCH, used // 10)
    return used


def qualities_of(trials: Sequence[Trial]) -> NDArray[np.float64]:
    """Qualities, (trials,); a trial that failed counts as the worst that did not."""
    found = np.array([trial.quality for trial in trials])
    finite = np.isfinite(found)
    return np.where(finite, found, found[finite].min() if finite.any() else 0.0)


def most_improving(
    candidates: Priced, front: Sequence[Trial], regression: Regression, count: int
) -> list[int]:
    """The places of up to ``count`` candidates in the order of the hypervolume that they are expected to add.

    Each that is chosen counts for the next as if its expected quality had been found (the "kriging believer"
    of Ginsbourger, Le Riche, Carraro 2010).
    """
    if not len(candidates.points):
        return []
    means = regression.means(candidates.points)
    known = [(trial.cost, trial.quality) for trial in front]
    if not known:
        cheapest = int(candidates.costs.argmin())
        known = [(float(candidates.costs[cheapest]), float(means[cheapest]))]
    near = reference_of(known)
    # A lucky cheap point would rule out all that are dearer, so every other choice looks at the whole range.
    references = near, (max(near[0], float(candidates.costs.max())), near[1])
    spread = np.full(len(means), 2 * regression.deviation)
    rough = [improvement(known, candidates.costs, means, spread, reference) for reference in references]
    close = np.unique(np.concatenate([np.argsort(-each, kind="stable")[:KEPT] for each in rough]))
    costs, (expected, spreads) = candidates.costs[close], regression.moments(candidates.points[close])
    left, chosen = np.ones(len(close), dtype=np.bool_), []
    for turn in range(min(count, len(close))):
        gains = np.where(left, improvement(known, costs, expected, spreads, references[turn % 2]), -1.0)
        best = int(gains.argmax())
        left[best] = False
        chosen.append(int(close[best]))
        known.append((float(costs[best]), float(expected[best])))
    return chosen
