"""Fits the weights of the unit models to a measured set, and reports their errors on the held-out rows.

Only rows of the split "fit" are ever fitted. Weights are those of the least sum of squared relative errors,
none of them negative (Lawson and Hanson's NNLS): a bit of structure cannot free a LUT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from qhw.cost.calibration.measured import Row
from qhw.rtl.base import ClosedForms

SMALL = 30.0
"""LUT below which an error is given in LUT, and weighted as if the design had this many."""

DIGITS = 6
"""Decimal places of a weight."""


@dataclass(frozen=True)
class Spread:
    """Median and 95th percentile of absolute errors, and how many there are."""

    median: float
    p95: float
    count: int

    @classmethod
    def of(cls, errors: Iterable[float]) -> Spread:
        """The spread of some errors; NaN where there are none."""
        given = np.abs(np.fromiter(errors, dtype=np.float64))
        if not len(given):
            return cls(float("nan"), float("nan"), 0)
        return cls(float(np.median(given)), float(np.percentile(given, 95)), len(given))


def fit(model: ClosedForms, rows: Sequence[Row]) -> dict[str, float]:
    """The weight of every feature, in LUT.

    Args:
        rows: measured designs of one unit; those that are held out, or that failed, are left out.
    """
    used = [row for row in rows if row.split == "fit" and row.result.counts]
    described = [model.features(row.values) for row in used]
    names = list(dict.fromkeys(name for features in described for name in features))
    matrix = np.array([[features.get(name, 0) for name in names] for features in described], dtype=np.float64)
    measured = np.array([row.counts.lut for row in used], dtype=np.float64)
    if not names or not used:
        return dict.fromkeys(names, 0.0)
    weights = _relative_least_squares(matrix, measured)
    return dict(zip(names, (round(float(weight), DIGITS) for weight in weights), strict=True))


def _relative_least_squares(
    matrix: NDArray[np.float64], measured: NDArray[np.float64]
) -> NDArray[np.float64]:
    scale = 1 / np.maximum(measured, SMALL)
    weights, _ = nnls(matrix * scale[:, None], measured * scale)
    return np.asarray(weights)


def predicted_lut(model: ClosedForms, weights: Mapping[str, float], values: Mapping[str, int]) -> float:
    """LUT of one design."""
    return sum(weights.get(name, 0.0) * count for name, count in model.features(values).items())
