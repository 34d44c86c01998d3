"""One format for all weights, one for all results: the sweep of papers on number formats.

As in "Shedding the Bits: Pushing the Boundaries of Quantization with Minifloats on FPGAs" (arXiv 2311.12359):
every pair of formats (w, a), each layer i with (w_i, a_i) = (w, a).
"""

from __future__ import annotations

import numpy as np

from qhw.search.space import Point
from qhw.search.strategies._candidates import halving, priced
from qhw.search.strategies.base import Problem, Strategy


class Uniform(Strategy):
    """Every pair of formats that fits; the cheapest and the dearest first, then those between."""

    name = "uniform"
    title = "one format for all weights, one for all results"
    source = "arXiv 2311.12359"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        found = priced(problem, problem.space.uniform())
        order = np.argsort(found.costs, kind="stable")
        self.sweep = [found.point(order[place]) for place in halving(len(order))]

    def propose(self, count: int) -> list[Point]:
        return [point for point in self.sweep if point not in self.known.asked]


strategy = Uniform
