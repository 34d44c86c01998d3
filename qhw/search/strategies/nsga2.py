"""Optuna's NSGA-II: generations of points, bred from those that fewest beat.

Deb et al., IEEE Trans. Evolutionary Computation 6(2), 2002: points are ranked by non-domination, within a
rank by crowding distance; parents are drawn by binary tournament, crossed and mutated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qhw.search.strategies._optuna import OptunaStrategy

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler


class Nsga2(OptunaStrategy):
    """Optuna's ``NSGAIISampler``."""

    name = "nsga2"
    title = "Optuna's NSGA-II"
    source = "Deb et al. 2002"
    generation_key = "NSGAIISampler:generation"

    def sampler(self, seed: int) -> BaseSampler:
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.population, seed=seed)


strategy = Nsga2
