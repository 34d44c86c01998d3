"""From the widest formats downwards, always by the change that costs the least quality per cost saved.

The greedy allocation of MPTQ-ViT (arXiv 2401.14895): at each step every layer's next lower
precision is tried, and the one with the best score is kept. The score here is the loss of quality over the
cost saved, (Q(p) - Q(p')) / (C(p) - C(p')), with the exact cost of the hardware in place of bits.
"""

from __future__ import annotations

import numpy as np

from qhw.search.space import Point
from qhw.search.strategies._candidates import as_point, start_of
from qhw.search.strategies.base import Problem, Strategy


class Greedy(Strategy):
    """Tries the next cheaper format of each variable, keeps the best, goes on until nothing is cheaper."""

    name = "greedy"
    title = "step by step from the widest point, least loss per cost saved"
    source = "arXiv 2401.14895"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        self._moves: dict[Point, list[tuple[Point, float]]] = {}
        self.start = start_of(problem)

    def propose(self, count: int) -> list[Point]:
        at, trials = self.start, self.known.trials
        if at not in trials:
            return [at]
        while moves := self._cheaper(at):
            unknown = [point for point, _ in moves if point not in trials]
            if unknown:
                return unknown
            scored = [
                (self._loss(at, point) / saved, place)
                for place, (point, saved) in enumerate(moves)
                if not trials[point].failed
            ]
            if not scored:
                return []
            at = moves[min(scored)[1]][0]
        return []

    def _loss(self, at: Point, to: Point) -> float:
        """What a step loses; one from a point that failed loses nothing."""
        before = self.known.trials[at]
        return 0.0 if before.failed else before.quality - self.known.trials[to].quality

    def _cheaper(self, at: Point) -> list[tuple[Point, float]]:
        """For each variable the format that saves least, and what it saves (kept: walks start anew)."""
        if at not in self._moves:
            found: list[tuple[Point, float]] = []
            own = self.problem.price([at])[0][0]
            for variable, options in enumerate(self.space.counts):
                points = np.repeat(np.array([at]), options, axis=0)
                points[:, variable] = np.arange(options)
                saved = own - self.problem.price(points)[0]
                cheaper = np.flatnonzero(np.isfinite(saved) & (saved > 0))
                if len(cheaper):
                    place = cheaper[saved[cheaper].argmin()]
                    found.append((as_point(points[place]), float(saved[place])))
            self._moves[at] = found
        return self._moves[at]


strategy = Greedy
