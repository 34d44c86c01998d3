"""The base of search strategies: points are asked for, evaluated elsewhere, and told."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.search.pareto import front
from qhw.search.space import Point, Space

Prices = tuple[NDArray[np.float64], NDArray[np.bool_]]


@dataclass(frozen=True)
class Trial:
    """A point that was evaluated.

    Args:
        cost: the objective, less is better.
        quality: more is better; NaN for an evaluation that failed.
        fits: whether it keeps to the budget and the rate.
    """

    point: Point
    cost: float
    quality: float
    fits: bool = True

    @property
    def failed(self) -> bool:
        """Whether there is no quality."""
        return not np.isfinite(self.quality)


@dataclass(frozen=True)
class Problem:
    """What a strategy works on.

    Args:
        space: the formats.
        price: costs (points,) and whether points fit, of points (points, variables): cheap, asked for freely.
        proxy: a cheap quality of a point that is no evaluation, in decibels of signal to noise (SQNR);
            None: there is none.
        second_order: the increase of the loss that a second-order model predicts for points (points,
            variables), given as (points,); None: there is none.
        budget: evaluations that may be asked for in all.
        seed: of everything that is drawn.
    """

    space: Space
    price: Callable[[IntArray | Sequence[Point]], Prices]
    proxy: Callable[[Point], float] | None = None
    second_order: Callable[[IntArray | Sequence[Point]], NDArray[np.float64]] | None = None
    budget: int = 200
    seed: int = 0


@dataclass
class Known:
    """The trials so far, and the points that were asked for."""

    trials: dict[Point, Trial] = field(default_factory=dict)
    asked: set[Point] = field(default_factory=set)

    @property
    def good(self) -> list[Trial]:
        """Trials that did not fail."""
        return [trial for trial in self.trials.values() if not trial.failed]

    def front(self) -> list[Trial]:
        """The trials that fit and that none beats, cheapest first."""
        good = [trial for trial in self.good if trial.fits]
        return [good[i] for i in front([t.cost for t in good], [t.quality for t in good])]


class Strategy(ABC):
    """Proposes points.

    It is a function of the problem and of the trials that it was told: a search that was stopped goes on by
    telling a new strategy what the store holds. No point is proposed twice.

    Attributes:
        name: as in ``--strategy``.
        title: what it does, in a few words.
        source: the paper that it is from.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str] = ""

    def __init__(self, problem: Problem) -> None:
        self.problem, self.space = problem, problem.space
        self.known = Known()

    @property
    def rng(self) -> np.random.Generator:
        """Random numbers by the seed and by how many points were asked for.

        A search that goes on draws what it would have drawn.
        """
        return np.random.default_rng([self.problem.seed, len(self.known.asked)])

    @property
    def waiting(self) -> bool:
        """Whether points were asked for whose trials have not been told."""
        return len(self.known.asked) > len(self.known.trials)

    def ask(self, count: int = 1) -> list[Point]:
        """Up to ``count`` new points to evaluate.

        None: the strategy has nothing more to propose, or (``waiting``) not before it is told of the points
        that are being evaluated.
        """
        left = self.problem.budget - len(self.known.asked)
        found: dict[Point, None] = {}
        for point in self.propose(min(count, max(left, 0))):
            if point not in self.known.asked and len(found) < min(count, left):
                found.setdefault(self.space.checked(point))
        self.known.asked.update(found)
        return list(found)

    def tell(self, trials: Iterable[Trial]) -> None:
        """Take note of evaluated points, in any order."""
        for trial in trials:
            self.known.trials[trial.point] = trial
            self.known.asked.add(trial.point)

    @abstractmethod
    def propose(self, count: int) -> list[Point]:
        """Points in order of preference, by what is known so far; more than ``count``, or known ones, may be
        among them."""
