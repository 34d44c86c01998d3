"""Pareto fronts of design points: less cost, more quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def front(
    costs: Sequence[float] | NDArray[np.float64], qualities: Sequence[float] | NDArray[np.float64]
) -> list[int]:
    """The places of the points that none beats, cheapest first; of equals the first.

    Args:
        costs: (N,), less is better.
        qualities: (N,), more is better. Points with a number that is not finite are left out.
    """
    cost, quality = np.asarray(costs, dtype=np.float64), np.asarray(qualities, dtype=np.float64)
    usable = np.flatnonzero(np.isfinite(cost) & np.isfinite(quality))
    order = usable[np.lexsort((usable, -quality[usable], cost[usable]))]
    kept, best = [], -np.inf
    for place in order:
        if quality[place] > best:
            kept.append(int(place))
            best = quality[place]
    return kept


def hypervolume(
    costs: Sequence[float] | NDArray[np.float64],
    qualities: Sequence[float] | NDArray[np.float64],
    reference: tuple[float, float],
) -> float:
    """The area that points dominate, up to a reference (highest cost, lowest quality)."""
    cost, quality = np.asarray(costs, dtype=np.float64), np.asarray(qualities, dtype=np.float64)
    area, lowest = 0.0, reference[1]
    for place in front(cost, quality):
        if cost[place] >= reference[0]:
            break
        if quality[place] > lowest:
            area += (reference[0] - cost[place]) * (quality[place] - lowest)
            lowest = quality[place]
    return float(area)
