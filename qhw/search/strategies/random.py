"""Points drawn evenly from those that fit: what every other strategy has to beat."""

from __future__ import annotations

from qhw.search.space import Point
from qhw.search.strategies._candidates import Candidates
from qhw.search.strategies.base import Problem, Strategy


class Random(Strategy):
    """Draws points without repetition."""

    name = "random"
    title = "points drawn evenly"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self.candidates = Candidates(problem)

    def propose(self, count: int) -> list[Point]:
        rng = self.rng
        found = self.candidates.fresh(self.known, rng)
        return [found.point(place) for place in rng.permutation(len(found.points))[:count]]


strategy = Random
