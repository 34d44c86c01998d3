"""Gradient-boosted trees learn quality from the formats; proposes what they predict to be best.

Quantune (arXiv 2202.05048): a model of boosted trees, trained on the points evaluated so far, ranks the
others by predicted accuracy, and the best are evaluated next. The model is a sum of trees, F_m = F_(m-1) + nu
h_m, each h_m fitted to what those before it left (Friedman: Greedy Function Approximation, 2001). Here points
are ranked by the hypervolume that the predicted quality adds to the front.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qhw.search.space import Point
from qhw.search.strategies._features import FormatFeatures
from qhw.search.strategies._improving import BATCH, Regression, RegressionStrategy
from qhw.search.strategies._trees import Trees
from qhw.search.strategies.base import Known, Problem, Trial


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
        return Trees(self._features, trials, self.problem.seed)


strategy = Boosted
