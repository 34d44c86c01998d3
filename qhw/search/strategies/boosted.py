"""Gradient-boosted trees learn quality from the formats; proposes what they predict to be best.

Quantune (arXiv 2202.05048): a model of boosted trees, trained on the points evaluated so far, ranks the
others by predicted accuracy, and the best are evaluated next. The model is a sum of trees, F_m = F_(m-1) + nu
h_m, each h_m fitted to what those before it left (Friedman: Greedy Function Approximation, 2001). Here points
are ranked by the hypervolume that the predicted quality adds to the front.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.search.space import Point
from qhw.search.strategies._features import FormatFeatures
from qhw.search.strategies._improving import BATCH, Moments, Regression, RegressionStrategy, qualities_of
from qhw.search.strategies.base import Known, Problem, Trial

if TYPE_CHECKING:
    from sklearn.ensemble import GradientBoostingRegressor

FOLDS = 4
"""Parts of the trials, each predicted from the others, that tell how far predictions are off."""


class Boosted(RegressionStrategy):
    """Scikit-learn's ``GradientBoostingRegressor`` over bits, numbers and ranges of the formats."""

    name = "boosted"
    title = "gradient-boosted trees over the formats"
    source = "arXiv 2202.05048"

    def __init__(self, problem: Problem) -> None:
        self._features = FormatFeatures(problem.space)
        super().__init__(problem)

    def first_points(self) -> list[Point]:
        """Points drawn evenly, two per variable."""
        rng = np.random.default_rng(self.problem.seed)
        drawn = self.candidates.fresh(Known(), rng)
        order = rng.permutation(len(drawn.points))[: max(2 * len(self.space.variables), BATCH)]
        return [drawn.point(place) for place in order]

    def regression(self, trials: Sequence[Trial]) -> Regression:
        return _Trees(self._features, trials, self.problem.seed)


class _Trees:
    """Boosted trees; their spread is the error that they made on trials that were left out."""

    def __init__(self, features: FormatFeatures, trials: Sequence[Trial], seed: int) -> None:
        from sklearn.ensemble import GradientBoostingRegressor
        from sklearn.model_selection import KFold, cross_val_predict

        self._features = features
        x, y = features.of([trial.point for trial in trials]), qualities_of(trials)
        self._trees: GradientBoostingRegressor = GradientBoostingRegressor(subsample=0.8, random_state=seed)
        folds = KFold(min(FOLDS, len(y)), shuffle=True, random_state=seed)
        errors = cross_val_predict(self._trees, x, y, cv=folds) - y
        self.deviation = float(np.sqrt(np.square(errors).mean()))
        self._trees.fit(x, y)

    def means(self, points: IntArray) -> NDArray[np.float64]:
        """Expected qualities, (points,)."""
        return np.asarray(self._trees.predict(self._features.of(points)))

    def moments(self, points: IntArray) -> Moments:
        """Expected qualities, and one spread for all, (points,) each."""
        return self.means(points), np.full(len(points), self.deviation)


strategy = Boosted
