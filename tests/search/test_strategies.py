"""Strategies on small problems whose fronts are known by trying every point."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhw.errors import InputError
from qhw.search.pareto import front, hypervolume
from qhw.search.space import Point, Space, Variable
from qhw.search.strategies import DEFAULT, Problem, Strategy, Trial, list_strategies, strategy_class
from qhw.search.strategies._candidates import halving, improvement
from qhw.search.strategies.ilp import solve

OPEN_ENDED = ("boosted", "nsga2", "random", "surrogate", "tpe")
"""Strategies that go on until every point was asked for."""

NAMES = (*OPEN_ENDED, "greedy", "hessian", "ilp", "uniform")

WIDTHS = {"fixed<2>": 2, "fixed<3>": 3, "e2m2": 5, "fixed<6>": 6}


@pytest.fixture(autouse=True)
def few_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Integer programs for 65 bounds, not 513: these fronts have fewer points than that."""
    monkeypatch.setattr("qhw.search.strategies.ilp.BOUNDS", 65)


def space_of(variables: int, options: Iterable[str] = WIDTHS) -> Space:
    kinds = ("weights", "activations")
    return Space(
        tuple(
            Variable(f"layer{v // 2}.{kinds[v % 2]}", kinds[v % 2], (f"layer{v // 2}",), tuple(options))
            for v in range(variables)
        )
    )


@dataclass
class Separable:
    """A problem in which cost and error are sums over variables, and all of it is known.

    Args:
        limit: the cost that fits.
        fails: points whose evaluation fails.
    """

    space: Space
    limit: float = np.inf
    fails: Callable[[Point], bool] = lambda point: False
    seed: int = 0
    budget: int = 10_000
    scales: np.ndarray = field(init=False)
    prices: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(7)
        self.scales = rng.uniform(0.5, 4.0, len(self.space.variables))
        self.prices = rng.uniform(10.0, 60.0, len(self.space.variables))

    @property
    def problem(self) -> Problem:
        return Problem(self.space, self.price, self.proxy, self.loss, self.budget, self.seed)

    def widths(self, points: object) -> np.ndarray:
        rows = np.asarray(points).reshape(-1, len(self.space.variables))
        columns = [
            np.array([WIDTHS[text] for text in v.options])[rows[:, i]]
            for i, v in enumerate(self.space.variables)
        ]
        return np.stack(columns, axis=1)

    def cost(self, points: object) -> np.ndarray:
        return (self.widths(points) * self.prices).sum(axis=1)

    def loss(self, points: object) -> np.ndarray:
        return (self.scales * 4.0 ** -self.widths(points)).sum(axis=1)

    def price(self, points: object) -> tuple[np.ndarray, np.ndarray]:
        costs = self.cost(points)
        return costs, costs <= self.limit

    def proxy(self, point: Point) -> float:
        return float(-10 * np.log10(self.loss([point])[0]))

    def trial(self, point: Point) -> Trial:
        cost, quality = float(self.cost([point])[0]), 1 - float(self.loss([point])[0])
        return Trial(point, cost, np.nan if self.fails(point) else quality, cost <= self.limit)

    def run(self, strategy: Strategy, count: int = 1, most: int = 10_000) -> list[Trial]:
        """Ask and tell until the strategy has no more, or so many trials are there."""
        found: list[Trial] = []
        while len(found) < most and (points := strategy.ask(min(count, most - len(found)))):
            trials = [self.trial(point) for point in points]
            strategy.tell(trials)
            found += trials
        return found

    def front(self) -> set[Point]:
        points = self.space.every()
        points = points[self.cost(points) <= self.limit]
        return {tuple(map(int, points[i])) for i in front(self.cost(points), -self.loss(points))}

    def share(self, trials: list[Trial]) -> float:
        """The part of the whole hypervolume that some trials have."""
        points = self.space.every()
        costs, qualities = self.cost(points), 1 - self.loss(points)
        reference = costs.max() + 1, qualities.min() - 0.01
        good = [trial for trial in trials if trial.fits and not trial.failed]
        reached = hypervolume([t.cost for t in good], [t.quality for t in good], reference)
        fits = costs <= self.limit
        return reached / hypervolume(costs[fits], qualities[fits], reference)


def made(name: str, problem: Problem) -> Strategy:
    return strategy_class(name)(problem)


def test_strategies_are_found_by_name() -> None:
    assert {*NAMES, DEFAULT} <= {*list_strategies()}
    for name in NAMES:
        assert strategy_class(name).name == name
        assert strategy_class(name).title
    with pytest.raises(InputError, match="surogate"):
        strategy_class("surogate")


@pytest.mark.parametrize("name", OPEN_ENDED)
def test_the_whole_space_is_asked_for_once_if_the_budget_allows(name: str) -> None:
    separable = Separable(space_of(3, ("fixed<2>", "e2m2", "fixed<6>")))
    trials = separable.run(made(name, separable.problem), count=5)
    assert len(trials) == separable.space.size
    assert len({trial.point for trial in trials}) == separable.space.size


@pytest.mark.parametrize(("name", "share"), [("greedy", 0.97), ("hessian", 0.97), ("ilp", 0.98)])
def test_walks_and_programs_find_points_of_the_front_of_a_separable_problem(name: str, share: float) -> None:
    separable = Separable(space_of(4))
    trials = separable.run(made(name, separable.problem))
    assert separable.share(trials) >= share
    assert len(trials) < separable.space.size / 2
    if name == "ilp":
        assert {trial.point for trial in trials} <= separable.front()


@pytest.mark.parametrize(("seed", "guided"), [(0, True), (1, True), (0, False)])
def test_the_default_finds_the_front_with_few_evaluations(seed: int, guided: bool) -> None:
    separable = Separable(space_of(5), seed=seed, budget=64)
    problem = separable.problem
    if not guided:
        problem = Problem(separable.space, separable.price, budget=64, seed=seed)
    trials = separable.run(made(DEFAULT, problem))
    drawn = separable.run(made("random", separable.problem))
    assert len(trials) == 64 < separable.space.size / 10
    assert separable.share(trials) >= (0.98 if guided else 0.97)
    assert separable.share(trials) > separable.share(drawn)


def test_the_sweep_of_uniform_formats_is_every_pair_once() -> None:
    separable = Separable(space_of(4))
    trials = separable.run(made("uniform", separable.problem), count=3)
    assert {trial.point for trial in trials} == {(w, a, w, a) for w in range(4) for a in range(4)}
    costs = sorted(trial.cost for trial in trials)
    assert [trials[0].cost, trials[1].cost] == [costs[0], costs[-1]]


@pytest.mark.parametrize("name", NAMES)
def test_no_point_is_asked_for_twice_whatever_order_trials_come_back_in(name: str) -> None:
    separable = Separable(space_of(3), budget=30)
    strategy, rng = made(name, separable.problem), np.random.default_rng(1)
    asked: list[Point] = []
    flying: list[Point] = []
    while True:
        new = strategy.ask(3)
        asked += new
        flying += new
        if not new and not flying:
            break
        rng.shuffle(flying)
        strategy.tell([separable.trial(tuple(point)) for point in flying[:2]])
        flying = [tuple(point) for point in flying[2:]]
    assert len(asked) == len(set(asked)) <= 30
    assert not flying
    assert len(asked) >= 4


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("stop", [1, 19])
def test_a_search_goes_on_from_what_it_is_told(name: str, stop: int) -> None:
    separable = Separable(space_of(4), budget=36, fails=lambda point: point[0] == 2 and point[1] == 1)
    whole = separable.run(made(name, separable.problem))
    again = made(name, separable.problem)
    again.tell(whole[:stop])
    separable.run(again)
    assert [*again.known.trials] == [trial.point for trial in whole]


@pytest.mark.parametrize("name", NAMES)
def test_failed_evaluations_are_passed_over(name: str) -> None:
    separable = Separable(space_of(3), fails=lambda point: sum(point) % 3 == 0, budget=30)
    trials = separable.run(made(name, separable.problem), count=2)
    good = [trial for trial in trials if not trial.failed]
    assert good
    assert len(trials) == len({trial.point for trial in trials})
    everything = Separable(space_of(3), fails=lambda point: True, budget=20)
    assert all(trial.failed for trial in everything.run(made(name, everything.problem), count=2))


@pytest.mark.parametrize("name", NAMES)
def test_points_that_do_not_fit_are_not_in_the_front(name: str) -> None:
    separable = Separable(space_of(4), budget=32)
    separable.limit = float(np.median(separable.cost(separable.space.every())))
    strategy = made(name, separable.problem)
    trials = separable.run(strategy, count=4)
    assert strategy.known.front()
    assert all(trial.fits for trial in strategy.known.front())
    if name not in ("greedy", "hessian"):  # these walk down from the widest point
        assert all(trial.fits for trial in trials)


@pytest.mark.parametrize("name", NAMES)
def test_where_nothing_fits_a_search_ends(name: str) -> None:
    separable = Separable(space_of(3), limit=-1.0, budget=20)
    strategy = made(name, separable.problem)
    separable.run(strategy)
    assert strategy.known.front() == []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("options", [("fixed<2>", "fixed<6>", "fixed<3>"), ("fixed<3>",)])
def test_a_space_of_one_variable(name: str, options: tuple[str, ...]) -> None:
    separable = Separable(space_of(1, options))
    trials = separable.run(made(name, separable.problem), count=7)
    assert {trial.point for trial in trials} == {(place,) for place in range(len(options))}


@pytest.mark.parametrize("name", NAMES)
def test_a_space_too_large_to_list(name: str) -> None:
    separable = Separable(space_of(12), budget=30)
    assert separable.space.size > 10_000_000
    trials = separable.run(made(name, separable.problem), count=10)
    assert 2 <= len(trials) <= 30


def test_the_default_starts_a_large_space_at_the_predicted_front() -> None:
    separable = Separable(space_of(12), budget=30)
    first = made(DEFAULT, separable.problem).ask(12)
    better = [
        trial
        for point in separable.space.sample(np.random.default_rng(0), 2000)
        if (trial := separable.trial(point)) and any(_beats(trial, separable.trial(p)) for p in first)
    ]
    assert not better


def _beats(a: Trial, b: Trial) -> bool:
    return a.cost <= b.cost and a.quality > b.quality


def test_hessian_needs_the_second_order_model() -> None:
    separable = Separable(space_of(2))
    with pytest.raises(InputError, match="second-order"):
        made("hessian", Problem(separable.space, separable.price))


def test_ilp_measures_by_evaluations_where_there_is_no_proxy() -> None:
    separable = Separable(space_of(3))
    strategy = made("ilp", Problem(separable.space, separable.price))
    first = strategy.ask(100)
    assert len(first) == 1 + 3 * 3
    strategy.tell([separable.trial(point) for point in first])
    rest = separable.run(strategy)
    assert rest
    assert {trial.point for trial in rest} <= separable.front()


@given(st.integers(0, 300))
def test_halving_is_every_place_once_both_ends_first(count: int) -> None:
    order = halving(count)
    assert sorted(order) == list(range(count))
    assert order[:2] == [0, count - 1][: min(count, 2)]
    for shown in (5, 17, 65):
        if count > shown:
            assert np.diff(sorted(order[:shown])).max() <= 2 * np.ceil((count - 1) / (shown - 1))


points_2d = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=0, max_size=8)


@given(points_2d, st.tuples(st.integers(0, 20), st.integers(0, 20)))
def test_a_certain_improvement_is_the_difference_of_hypervolumes(
    known: list[tuple[int, int]], new: tuple[int, int]
) -> None:
    reference = (20.0, 3.0)
    both = [*known, new]
    before, after = (
        hypervolume([c for c, _ in points], [q for _, q in points], reference) for points in (known, both)
    )
    gain = improvement(known, np.array([new[0]]), np.array([float(new[1])]), np.zeros(1), reference)
    assert gain[0] == pytest.approx(after - before, abs=1e-6)


def test_an_expected_improvement_is_the_mean_over_qualities() -> None:
    known, reference = [(2.0, 1.0), (5.0, 4.0), (6.0, 4.5)], (10.0, 0.0)
    nodes, weights = np.polynomial.hermite_e.hermegauss(201)
    expected = sum(
        w * improvement(known, np.array([3.0]), np.array([3.0 + 1.5 * x]), np.zeros(1), reference)[0]
        for x, w in zip(nodes, weights / weights.sum(), strict=True)
    )
    closed = improvement(known, np.array([3.0]), np.array([3.0]), np.array([1.5]), reference)[0]
    assert closed == pytest.approx(expected, rel=1e-2)


tables = st.lists(st.lists(st.integers(0, 30), min_size=3, max_size=3), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(tables, tables, st.integers(0, 120))
def test_the_integer_program_is_as_good_as_trying_everything(
    losses: list[list[int]], costs: list[list[int]], bound: int
) -> None:
    both = [(np.array(a, float), np.array(b, float)) for a, b in zip(losses, costs, strict=False)]
    loss, cost = [a for a, _ in both], [b for _, b in both]
    grid = np.indices([3] * len(both)).reshape(len(both), -1).T
    totals = [sum(column[grid[:, v]] for v, column in enumerate(t)) for t in (loss, cost)]
    found = solve(loss, cost, float(bound))
    within = totals[1] <= bound
    if not within.any():
        assert found is None
        return
    assert found is not None
    assert sum(column[place] for column, place in zip(cost, found, strict=True)) <= bound
    reached = sum(column[place] for column, place in zip(loss, found, strict=True))
    assert reached == totals[0][within].min()
