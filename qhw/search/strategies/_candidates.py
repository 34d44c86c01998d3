"""Points that fit and were not asked for yet, with their prices: what a strategy chooses from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.search.space import Point
from qhw.search.strategies.base import Known, Problem

LIMIT = 20_000
"""Points that are looked at in one go: all of a space that has no more, else a part of it."""


@dataclass(frozen=True)
class Priced:
    """Points (points, variables) and their costs (points,)."""

    points: IntArray
    costs: NDArray[np.float64]

    def point(self, place: int) -> Point:
        """One of the points."""
        return as_point(self.points[place])


class Candidates:
    """Points of a problem that fit, and were not asked for.

    Of a space with more than ``LIMIT`` points they are drawn: evenly, and from around the front that is
    known.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem, self.space = problem, problem.space

    def fresh(self, known: Known, rng: np.random.Generator) -> Priced:
        """The points to choose from now."""
        if self.space.size <= LIMIT:
            found, places = self._all, self._places
            is_new = np.ones(len(found.points), dtype=np.bool_)
            is_new[[places[point] for point in known.asked if point in places]] = False
        else:
            found = priced(self.problem, self._drawn(known, rng))
            is_new = np.array([as_point(row) not in known.asked for row in found.points], dtype=np.bool_)
        return Priced(found.points[is_new], found.costs[is_new])

    @cached_property
    def _all(self) -> Priced:
        return priced(self.problem, self.space.every())

    @cached_property
    def _places(self) -> dict[Point, int]:
        return {as_point(row): place for place, row in enumerate(self._all.points)}

    def _drawn(self, known: Known, rng: np.random.Generator) -> IntArray:
        """Half of them evenly; the rest are points of the front with one to three variables changed."""
        points = self.space.sample(rng, LIMIT // 2)
        front = [trial.point for trial in known.front()]
        near = {neighbour for point in front for neighbour in self.space.neighbours(point)}
        if front:
            mutated = np.array(front)[rng.integers(0, len(front), LIMIT // 2)]
            changes = rng.random(mutated.shape) < rng.uniform(1, 3, (len(mutated), 1)) / mutated.shape[1]
            others = rng.integers(0, self.space.counts, mutated.shape)
            points += list(map(as_point, np.where(changes, others, mutated)))
        return np.array(sorted(near.union(points)))


def priced(problem: Problem, points: IntArray | Sequence[Point]) -> Priced:
    """Those of some points that fit, with their costs."""
    rows = np.asarray(points, dtype=np.int64).reshape(-1, len(problem.space.variables))
    costs, fits = problem.price(rows)
    usable = fits & np.isfinite(costs)
    return Priced(rows[usable], costs[usable])


def start_of(problem: Problem) -> Point:
    """The widest point; where no folding makes that fast enough, the dearest uniform one that is."""
    widest = problem.space.widest()
    points = [widest, *problem.space.uniform()]
    costs = problem.price(points)[0]
    if np.isfinite(costs[0]) or not np.isfinite(costs).any():
        return widest
    return points[int(np.where(np.isfinite(costs), costs, -np.inf).argmax())]


def as_point(row: IntArray | Sequence[int]) -> Point:
    """A row of an array as a point."""
    return tuple(map(int, row))


def halving(count: int) -> list[int]:
    """The places 0 to ``count - 1``, both ends first, then always the middle of the widest gap.

    A sweep in this order that is cut short has covered its whole range.
    """
    if count <= 0:
        return []
    order, gaps = list(dict.fromkeys((0, count - 1))), [(0, count - 1)]
    while gaps:
        low, high = gaps.pop(0)
        middle = (low + high) // 2
        if middle in (low, high):
            continue
        order.append(middle)
        gaps += [(low, middle), (middle, high)]
    return order


def improvement(
    trials: Sequence[tuple[float, float]],
    costs: NDArray[np.float64],
    means: NDArray[np.float64],
    spreads: NDArray[np.float64],
    reference: tuple[float, float],
) -> NDArray[np.float64]:
    """The hypervolume that points are expected to add to a front, their costs being known.

    The expected hypervolume improvement (Emmerich et al. 2006) where one objective is exact: a point of cost
    c whose quality is normal, N(mean, spread²), adds the integral over x from c to the reference's cost of
    E[max(0, quality - best(x))], with best(x) the highest quality known at a cost of at most x.

    Args:
        trials: (cost, quality) of the front that is known, in any order.
        costs, means, spreads: (points,); a spread of 0 is a quality that is certain.
        reference: the highest cost and the lowest quality that count.

    Returns:
        (points,).
    """
    from scipy.special import ndtr

    edges, levels = [-np.inf], [reference[1]]
    for cost, quality in sorted(trials):
        if quality > levels[-1] and cost < reference[0]:
            edges.append(cost)
            levels.append(quality)
    low = np.maximum(np.array(edges)[None], costs[:, None])
    high = np.array([*edges[1:], reference[0]])[None]
    above = means[:, None] - np.array(levels)[None]
    deviation = np.maximum(spreads, 1e-12)[:, None]
    ratio = above / deviation
    density = np.exp(-np.square(ratio) / 2) / math.sqrt(2 * math.pi)
    gain = above * ndtr(ratio) + deviation * density
    added: NDArray[np.float64] = (np.maximum(high - low, 0) * gain).sum(axis=1)
    return added
