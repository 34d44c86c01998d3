"""Optuna's samplers behind the base class of strategies."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from qhw.errors import ToolMissingError
from qhw.search.space import Point
from qhw.search.strategies._candidates import Candidates
from qhw.search.strategies.base import Problem, Strategy, Trial

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

DRAWS = 16
"""Draws from a sampler for one point: it repeats itself, and knows nothing of what fits."""


class OptunaStrategy(Strategy):
    """Proposes what a sampler draws that fits and is new; where it draws nothing new, a random point.

    The sampler sees finished trials alone, in the order in which they were told, and starts from a seed of
    its own each time: what it proposes follows from the trials, not from how they came about.
    """

    generation_key: ClassVar[str | None] = None
    """Where a sampler with generations keeps a trial's; told trials fill one after the other."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem)
        try:
            import optuna
        except ModuleNotFoundError:
            raise ToolMissingError(
                f"Strategy {self.name} needs optuna, which is not installed",
                hint="pip install 'qhw[search]', or choose another --strategy",
            ) from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for every draw otherwise
        self._candidates = Candidates(problem)
        self._study = optuna.create_study(directions=["minimize", "maximize"], sampler=self.sampler(0))
        self._added: set[Point] = set()
        self._finished = 0
        self._distributions: dict[str, BaseDistribution] = {
            v.name: optuna.distributions.CategoricalDistribution(range(len(v.options)))
            for v in self.space.variables
        }

    @abstractmethod
    def sampler(self, seed: int) -> BaseSampler:
        """A sampler that starts from a seed."""

    @property
    def population(self) -> int:
        """The points of a generation: a tenth of the budget, so that there are ten."""
        return min(max(self.problem.budget // 10, 8), 50)

    def propose(self, count: int) -> list[Point]:
        self._add_told()
        rng = self.rng
        seed = int(rng.integers(2**31))
        self._study.sampler = self.sampler(seed)
        self._drawn()  # parents come in another order where they were chosen just now, not looked up
        self._study.sampler = self.sampler(seed)
        found: dict[Point, None] = {}
        for _ in range(count * DRAWS):
            if len(found) == count:
                break
            point = self._drawn()
            if point not in self.known.asked and point not in found and self.problem.price([point])[1][0]:
                found[point] = None
        if len(found) < count:
            others = self._candidates.fresh(self.known, rng)
            order = rng.permutation(len(others.points))
            found.update(dict.fromkeys(others.point(place) for place in order[:count]))
        return list(found)

    def _drawn(self) -> Point:
        """A point from the sampler; its trial counts for nothing until it is told."""
        from optuna.trial import TrialState

        trial = self._study.ask(self._distributions)
        self._study.tell(trial, state=TrialState.FAIL)
        return tuple(int(trial.params[variable.name]) for variable in self.space.variables)

    def _add_told(self) -> None:
        for point, trial in self.known.trials.items():
            if point not in self._added:
                self._added.add(point)
                self._study.add_trial(self._frozen(trial))

    def _frozen(self, trial: Trial) -> FrozenTrial:
        """A told trial as Optuna's own."""
        from optuna.trial import TrialState, create_trial

        names = [variable.name for variable in self.space.variables]
        params = dict(zip(names, trial.point, strict=True))
        if trial.failed:
            return create_trial(params=params, distributions=self._distributions, state=TrialState.FAIL)
        key = self.generation_key
        generation = {} if key is None else {key: self._finished // self.population}
        self._finished += 1
        return create_trial(
            params=params,
            distributions=self._distributions,
            values=[trial.cost, trial.quality],
            system_attrs=generation,
            constraints={"fits": 0.0 if trial.fits else 1.0},
        )
