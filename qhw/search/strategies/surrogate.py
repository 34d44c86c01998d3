"""Two regressions over cheap sensitivities; proposes what they expect to add most to the front.

The default. Cheap models, a second-order one of the loss and an additive one of the error at the outputs,
order points well but not perfectly. A Gaussian process (Matérn 3/2, a length per feature) learns from
evaluated points what quality their figures stand for, which is right early on; boosted trees, which see the
formats too, learn what the figures do not tell. Their mixture is what is expected. Since costs are known
exactly, the expected hypervolume improvement has a closed form
(:func:`qhw.search.strategies._candidates.improvement`).

Emmerich, Giannakoglou, Naujoks: Single- and Multiobjective Evolutionary Optimization Assisted by Gaussian
Random Field Metamodels, IEEE Trans. Evolutionary Computation 10(4), 2006; Rasmussen and
Williams: Gaussian Processes for Machine Learning, 2006, equations 2.25, 2.26 and 4.17.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.search.pareto import front
from qhw.search.space import Point
from qhw.search.strategies._candidates import halving, priced
from qhw.search.strategies._features import AllFeatures, Features, FormatFeatures, SensitivityFeatures
from qhw.search.strategies._improving import BATCH, Moments, Regression, RegressionStrategy, qualities_of
from qhw.search.strategies._trees import Trees
from qhw.search.strategies.base import Known, Problem, Trial

if TYPE_CHECKING:
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Kernel

FIRST = 12
"""Points of the front that the cheap models predict, evaluated before there is a regression."""

DRAWN = 4
"""Points drawn evenly beside them, in case the cheap models mislead."""

GROWTH = 1.5
"""Growth of the trials after which its kernel is fitted anew."""

LIMIT = 500
"""Trials that it is conditioned on: those that miss the front by the least."""

DESCENTS = 20
"""Steps to neighbours of the predicted front, at most."""

WIDTH = 24
"""Points of that front whose neighbours are looked at in one step, at most."""


class Surrogate(RegressionStrategy):
    """Evaluates a predicted front, then what two regressions expect to improve on the front that is known."""

    name = "surrogate"
    title = "Gaussian process and boosted trees over sensitivities, expected hypervolume improvement"
    source = "Emmerich et al. 2006"

    def __init__(self, problem: Problem) -> None:
        self._features = SensitivityFeatures(problem)
        self._all_features = AllFeatures(self._features, FormatFeatures(problem.space))
        super().__init__(problem)

    def first_points(self) -> list[Point]:
        """Points of the predicted front, or uniform ones where nothing predicts; and some drawn evenly."""
        rng = np.random.default_rng(self.problem.seed)
        drawn = self.candidates.fresh(Known(), rng)
        points = self._predicted_front(drawn.points)
        order = [points[place] for place in halving(len(points))][:FIRST]
        some = rng.permutation(len(drawn.points))[:DRAWN]
        return list(dict.fromkeys([*order, *(drawn.point(place) for place in some)]))

    def regression(self, trials: Sequence[Trial]) -> Regression:
        process = _Process(self._features, _nearest_front(trials), _kernel_trials(trials))
        return _Both(process, Trees(self._all_features, trials, self.problem.seed))

    def _predicted_front(self, start: IntArray) -> list[Point]:
        """The front of cost and predicted loss, cheapest first, by steps to neighbours from some points."""
        uniform = priced(self.problem, self.space.uniform())
        if self._features.loss(start[:1]) is None:
            return [uniform.point(place) for place in np.argsort(uniform.costs, kind="stable")]
        rows, best, looked_around = np.concatenate([uniform.points, start]), list[Point](), set[Point]()
        for _ in range(DESCENTS):
            found = priced(self.problem, rows)
            loss = self._features.loss(found.points)
            assert loss is not None
            best = [found.point(place) for place in front(found.costs, -loss)]
            if looked_around.issuperset(best):
                break
            # What lies around a point that stood on the front before was compared with it then.
            new = [point for point in best if point not in looked_around]
            new = [new[place] for place in halving(len(new))][:WIDTH]
            near = (neighbour for point in new for neighbour in self.space.neighbours(point))
            looked_around.update(new)
            rows = np.array(list(dict.fromkeys([*best, *near])))
        return best


class _Both:
    """The mean of two regressions; where they disagree, that adds to the spread."""

    def __init__(self, first: Regression, second: Regression) -> None:
        self._first, self._second = first, second
        self.deviation = (first.deviation + second.deviation) / 2

    def means(self, points: IntArray) -> NDArray[np.float64]:
        """Expected qualities, (points,)."""
        return (self._first.means(points) + self._second.means(points)) / 2

    def moments(self, points: IntArray) -> Moments:
        """The mean and the standard deviation of an even mixture of both, (points,) each."""
        (a, a_spread), (b, b_spread) = self._first.moments(points), self._second.moments(points)
        variance = (np.square(a_spread) + np.square(b_spread)) / 2 + np.square((a - b) / 2)
        return (a + b) / 2, np.sqrt(variance)


class _Process:
    """A Gaussian process of quality over features; trials that failed count as the worst that did not."""

    def __init__(
        self, features: SensitivityFeatures, trials: Sequence[Trial], kernel_trials: Sequence[Trial]
    ) -> None:
        from sklearn.gaussian_process import GaussianProcessRegressor

        self._features = features
        x = features.of([trial.point for trial in trials])
        self._middle, self._width = x.mean(axis=0), np.where(x.std(axis=0) > 0, x.std(axis=0), 1.0)
        y = qualities_of(trials)
        self._mean, self._scale = float(y.mean()), float(y.std()) or 1.0
        kernel = _fitted(
            self._scaled(features.of([trial.point for trial in kernel_trials])),
            (qualities_of(kernel_trials) - self._mean) / self._scale,
        )
        self._noise = float(kernel.k2.noise_level)
        self._process: GaussianProcessRegressor = GaussianProcessRegressor(kernel, alpha=1e-8, optimizer=None)
        self._process.fit(self._scaled(x), (y - self._mean) / self._scale)

        self.deviation = float(np.sqrt(self._noise)) * self._scale
        """That of single evaluations around their mean."""

    def means(self, points: IntArray) -> NDArray[np.float64]:
        """Expected qualities, (points,)."""
        x = self._scaled(self._features.of(points))
        return np.asarray(self._process.predict(x) * self._scale + self._mean)

    def moments(self, points: IntArray) -> Moments:
        """Expected qualities and their spreads, what features do not tell included, (points,) each."""
        mean, deviation = self._process.predict(self._scaled(self._features.of(points)), return_std=True)
        return mean * self._scale + self._mean, deviation * self._scale

    def _scaled(self, features: Features) -> Features:
        return np.asarray((features - self._middle) / self._width)


def _fitted(x: Features, y: NDArray[np.float64]) -> Kernel:
    """The kernel of the greatest marginal likelihood."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    lengths = np.full(x.shape[1], 5.0)
    kernel = ConstantKernel(10.0, (0.1, 1e3)) * Matern(lengths, (0.3, 100.0), nu=1.5) + WhiteKernel(
        0.02, (1e-4, 1.0)
    )
    with warnings.catch_warnings():  # a length at its bound is a feature that tells nothing
        warnings.simplefilter("ignore", ConvergenceWarning)
        return GaussianProcessRegressor(kernel, alpha=1e-8).fit(x, y).kernel_


def _kernel_trials(trials: Sequence[Trial]) -> Sequence[Trial]:
    """The first trials, as many as there were when the kernel was last to be fitted."""
    count = BATCH
    while count * GROWTH <= len(trials) and count < LIMIT:
        count = int(np.ceil(count * GROWTH))
    return trials[: min(count, LIMIT)]


def _nearest_front(trials: Sequence[Trial]) -> Sequence[Trial]:
    """The ``LIMIT`` trials whose quality is the least below what the front gives at their cost."""
    if len(trials) <= LIMIT:
        return trials
    best = Known({trial.point: trial for trial in trials}).front()
    costs, levels = np.array([trial.cost for trial in best]), np.array([trial.quality for trial in best])
    at = np.searchsorted(costs, [trial.cost for trial in trials], side="right") - 1
    missing = np.where(at >= 0, levels[at], -np.inf) - qualities_of(trials)
    return [trials[place] for place in np.sort(np.argsort(missing, kind="stable")[:LIMIT])]


strategy = Surrogate
