"""Where a format's rounding can go wrong: every number, every midpoint, and the floats beside them."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike, NDArray

FloatArray = NDArray[np.float64]


def probes(numbers: FloatArray, precision: DTypeLike = np.float64) -> FloatArray:
    """Every number, midpoint and quarter between neighbours, the floats beside them, and far beyond.

    Args:
        numbers: the finite numbers of a format (any order), of which there are at least two.
        precision: the floating-point type whose neighbours are meant, and which holds every result.
    """
    rising = np.unique(numbers)
    gaps = np.diff(rising)
    # Beyond the range as far as the next two steps of an imagined wider format.
    steps = np.arange(1, 5) / 2
    edges = np.concatenate([rising[-1] + gaps[-1] * steps, rising[0] - gaps[0] * steps])
    between = [rising[:-1] + gaps * part for part in (0.25, 0.5, 0.75)]
    far = [0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30, np.inf, -np.inf]
    with np.errstate(over="ignore"):
        exact = np.concatenate([rising, *between, edges, rising[[0, -1]] * 2, far]).astype(precision)
        beside = [np.nextafter(exact, end.astype(precision)) for end in (np.array(np.inf), np.array(-np.inf))]
    return np.concatenate([exact, *beside]).astype(np.float64)


def same(ours: FloatArray, theirs: FloatArray) -> bool:
    """Whether two arrays hold the same numbers, signs of zero and NaNs included."""
    zeros = np.signbit(ours) == np.signbit(theirs)
    return bool(np.all(np.where(np.isnan(theirs), np.isnan(ours), (ours == theirs) & zeros)))
