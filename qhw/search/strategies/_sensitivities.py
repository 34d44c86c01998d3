"""What each format of each variable loses by itself: measured one at a time, from the widest point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from qhw.search.space import Point
from qhw.search.strategies._candidates import start_of
from qhw.search.strategies.base import Problem

Table = list[NDArray[np.float64]]
"""For each variable, a number for each of its options."""

FLOOR = 1e-12
"""The least relative error: an SQNR of 120 dB."""


def single_changes(problem: Problem) -> list[Point]:
    """The widest point, and all that differ from it in one variable."""
    start = start_of(problem)
    return [start, *problem.space.neighbours(start)]


def error_energies(problem: Problem, proxy: Callable[[Point], float]) -> tuple[float, Table]:
    """The relative error of the widest point, and what each format adds to it.

    Errors of different layers are taken to be independent, so that their energies add up: the model of MixDQ
    (arXiv 2405.17873) and of Lin et al. (arXiv 1511.06393), 1/SQNR = sum over i of
    1/SQNR_i.

    Returns:
        The error of the widest point, and per variable (options,) what is added, not below 0.
    """
    start = start_of(problem)
    base = energy(proxy(start))
    table = []
    for variable, options in enumerate(problem.space.counts):
        points = [(*start[:variable], place, *start[variable + 1 :]) for place in range(options)]
        added = [energy(proxy(p)) - base if p != start else 0.0 for p in points]
        table.append(np.nan_to_num(np.maximum(added, 0.0), nan=np.inf))
    return base, table


def energy(decibels: float) -> float:
    """The relative error that an SQNR stands for."""
    return float(max(10 ** (-decibels / 10), FLOOR))


def total(table: Table, points: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of a table's entries over variables, (points,)."""
    sums: NDArray[np.float64] = sum(
        (values[points[:, variable]] for variable, values in enumerate(table)), np.zeros(len(points))
    )
    return sums


def additive_costs(problem: Problem, samples: int = 2000) -> tuple[float, Table]:
    """The costs that fit those of sampled points best as a sum over variables, by least squares.

    Returns:
        The constant part, and per variable (options,) what comes on top, each with a mean of 0 over the
        samples.
    """
    space = problem.space
    points = (
        space.every() if space.size <= samples else np.array(space.sample(np.random.default_rng(0), samples))
    )
    costs, _ = problem.price(points)
    points, costs = points[np.isfinite(costs)], costs[np.isfinite(costs)]
    if not len(points):
        return 0.0, [np.zeros(count) for count in space.counts]
    columns = [points[:, v, None] == np.arange(count) for v, count in enumerate(space.counts)]
    design = np.concatenate(columns, axis=1).astype(np.float64)
    middle = float(costs.mean())
    weights = np.linalg.lstsq(design, costs - middle, rcond=None)[0]
    return middle, np.split(weights, np.cumsum(space.counts)[:-1])
