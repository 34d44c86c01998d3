"""FLIQS: its policy gradient against the exact one, and what a run gives."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from trained_problem import (
    WANTED,
    codes_differ,
    digits_problem,
    exact_graph,
    failing_loss,
    is_not_dominated,
    same,
    small_problem,
)

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.errors import InputError
from qhw.flows.base import load_flow
from qhw.pipeline.designs import best_design
from qhw.search.strategies.fliqs import Controller, Fliqs, FliqsSettings, _surrogate
from qhw.search.strategies.training import front_of
from qhw.train import Progress, predict

QUICK = FliqsSettings(epochs=3, targets=1, rate=0.3)


def controller(settings: FliqsSettings = QUICK, target: float = 1500.0, steps: int = 100) -> Controller:
    problem = small_problem()
    return Controller(Fliqs(problem, settings), problem.data, settings, target, steps)


@pytest.fixture(scope="module")
def found():
    return Fliqs(small_problem(), QUICK).run()


def test_the_policy_gradient_is_right_on_average():
    """Over all pairs that could be drawn, against the gradient of the expected reward."""
    logits = [
        torch.tensor(values, dtype=torch.float64, requires_grad=True) for values in ([0.3, -1], [0.5, 2])
    ]
    points = list(itertools.product(range(2), range(2)))
    rewards = np.array([1.0, -0.5, 2.5, 0.25])

    def log_probability(chosen):
        return torch.stack(
            [sum(logit.log_softmax(0)[i] for logit, i in zip(logits, point, strict=True)) for point in chosen]
        )

    expected = (log_probability(points).exp() * torch.from_numpy(rewards)).sum()
    exact = torch.autograd.grad(expected, logits)
    probabilities = log_probability(points).exp().detach()
    mean = sum(
        probabilities[a]
        * probabilities[b]
        * _surrogate(log_probability([points[a], points[b]]), rewards[[a, b]])
        for a, b in itertools.product(range(4), repeat=2)
    )
    for ours, theirs in zip(torch.autograd.grad(mean, logits), exact, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_policy_finds_the_point_of_the_least_loss():
    policy = controller(FliqsSettings(cost_weight=0.0, rate=0.1, entropy=0.01))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(300):
            points = policy.draw(2)
            policy._learn(points, np.array([float(sum(point)) for point in points]))
    assert policy.likeliest == (0,) * len(policy.logits)
    assert policy.certainty > 0.5


def test_the_cost_term_brings_the_policy_to_its_target():
    space = small_problem().space
    reached = {}
    for target in (1400.0, 2000.0):
        policy = controller(FliqsSettings(cost_weight=8.0, rate=0.1), target)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            for policy.done in range(200):
                policy._learn(policy.draw(2), np.zeros(2))
        reached[target] = policy.strategy.costs([policy.likeliest])[0]
    costs = controller().strategy.finite_costs(space.sample(np.random.default_rng(0), 200))
    for target, cost in reached.items():
        assert abs(cost / target - 1) < np.median(np.abs(costs / target - 1))
    assert reached[1400.0] < reached[2000.0]


def test_entropy_is_wanted_first_and_shunned_at_the_end():
    policy = controller(FliqsSettings(warm_up=0.2, entropy=0.1), steps=100)
    weights = []
    for policy.done in (20, 60, 100):
        weights.append(policy._entropy_weight())
    np.testing.assert_allclose(weights, [0.1, 0.0, -0.1], atol=1e-12)


def test_the_warm_up_trains_weights_alone():
    strategy = Fliqs(small_problem(), dataclasses.replace(QUICK, warm_up=0.5))
    policies = []
    usual = Controller.epoch_done

    def note(self, model, data, epoch):
        usual(self, model, data, epoch)
        policies.append([logit.detach().clone() for logit in self.logits])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Controller, "epoch_done", note)
        strategy.run()
    assert all(bool((logit == 0).all()) for logit in policies[0])
    assert any(bool((logit != 0).any()) for logit in policies[-1])


def test_the_result_is_built_as_it_was_trained(found, tmp_path):
    problem = small_problem()
    (point,) = found
    assert point.fits
    assert codes_differ(point, problem.variants, problem.held.samples[:64], tmp_path) == 0
    module = point.network(problem.variants)
    assert point.evaluation.figure == problem.held.judge.score(predict(module, problem.held.samples))
    graph = exact_graph(module, tmp_path)
    design = best_design(graph, load_board("ultra96-v2"), load_flow("hls4ml"), WANTED)
    assert point.cost == pytest.approx(estimate(design).totals["lut"], rel=0.05)
    rounded = problem.variants.module(point.point).state_dict()
    assert not torch.equal(point.state["conv2.weight"], rounded["conv2.weight"])


def test_a_run_that_was_stopped_ends_with_the_same_bits(found, tmp_path):
    problem = dataclasses.replace(small_problem(), folder=tmp_path / "kept")

    def stop(told: Progress):
        seen.append(told)
        if told.epoch == 3:
            raise KeyboardInterrupt

    seen: list[Progress] = []
    with pytest.raises(KeyboardInterrupt):
        Fliqs(problem, QUICK).run(stop)
    assert {told.epoch for told in seen} == {1, 2, 3}
    assert seen[0].phase == "fliqs-1"
    again: list[Progress] = []
    (resumed,) = Fliqs(problem, QUICK).run(again.append)
    assert again[0].epoch == 3
    (point,) = found
    assert resumed.point == point.point
    assert same(resumed.state, point.state)


def test_other_settings_do_not_go_on_from_its_checkpoints(tmp_path):
    problem = dataclasses.replace(small_problem(), folder=tmp_path)
    quick = dataclasses.replace(QUICK, epochs=1)
    Fliqs(problem, quick).run()
    again: list[Progress] = []
    Fliqs(problem, dataclasses.replace(quick, cost_weight=1.0)).run(again.append)
    assert again[0].epoch == 1


def test_a_loss_that_is_no_number_names_the_epoch(monkeypatch):
    with failing_loss(monkeypatch, after=25), pytest.raises(InputError, match="fliqs-1 phase, epoch 2"):
        Fliqs(small_problem(), QUICK).run()


def test_targets_lie_between_the_cheapest_uniform_point_and_the_widest():
    strategy = Fliqs(small_problem(), FliqsSettings(targets=3))
    targets = strategy.targets()
    low = strategy.finite_costs(strategy.space.uniform()).min()
    high = strategy.finite_costs([strategy.space.widest()])[0]
    assert high > targets[0] > targets[1] > targets[2] > low
    assert Fliqs(small_problem(), FliqsSettings(targets=(5.0, 7.0))).targets() == [7.0, 5.0]


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": -1}, {"targets": 0}, {"targets": ()}, {"warm_up": 1.0}, {"rate": 0.0}, {"cost_samples": 1}],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FliqsSettings(**wrong)


@pytest.mark.slow
def test_uniform_points_do_not_dominate_it_on_digits():
    """Three times the recipe's epochs for each point, against every uniform one trained by the recipe."""
    ours = front_of(Fliqs(digits_problem(), FliqsSettings(targets=2)).run())
    assert is_not_dominated(ours)
