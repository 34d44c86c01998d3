"""Boosted trees as a regression of quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.search.space import Point
from qhw.search.strategies._features import Features
from qhw.search.strategies._improving import Moments, qualities_of
from qhw.search.strategies.base import Trial

if TYPE_CHECKING:
    from sklearn.ensemble import GradientBoostingRegressor

FOLDS = 4
"""Parts of the trials, each predicted from the others, that tell how far predictions are off."""


class Featuring(Protocol):
    """Turns points into numbers."""

    def of(self, points: IntArray | Sequence[Point]) -> Features:
        """The features of points (points, variables), (points, features)."""


class Trees:
    """Boosted trees; their spread is the error that they made on trials that were left out."""

    def __init__(self, features: Featuring, trials: Sequence[Trial], seed: int) -> None:
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
