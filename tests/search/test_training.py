"""The base of strategies that train: one set of weights in all formats."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from trained_problem import small_problem

from qhw.errors import CheckFailedError
from qhw.search.evaluators.base import Evaluation
from qhw.search.strategies import list_strategies, strategy_class
from qhw.search.strategies.fliqs import Fliqs
from qhw.search.strategies.training import (
    SearchPhase,
    SharedWeights,
    TrainedPoint,
    batch_losses,
    front_of,
    reestimate_batch_norm,
)


def batch(size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    data = small_problem().data
    return torch.from_numpy(data.train_x[:size]).float(), torch.from_numpy(data.train_y[:size])


def some_points(count: int = 5) -> list[tuple[int, ...]]:
    return small_problem().space.sample(np.random.default_rng(1), count)


def test_a_chosen_point_is_the_network_of_that_point():
    variants = small_problem().variants
    shared = SharedWeights(variants).eval()
    x, _ = batch()
    for point in some_points():
        shared.choose(point)
        with torch.inference_mode():
            assert torch.equal(shared(x), variants.module(point)(x))
        assert shared.network.state_dict().keys() == variants.module(point).state_dict().keys()


def test_weights_are_shared_and_quantizers_are_not():
    variants = small_problem().variants
    shared = SharedWeights(variants).train()
    first, second = tuple(0 for _ in variants.space.variables), variants.space.widest()
    x, y = batch()
    shared.choose(second)
    before = {name: value.clone() for name, value in shared.network.state_dict().items()}
    shared.choose(first)
    batch_losses(shared, small_problem().data, x, y).backward()
    with torch.no_grad():
        for parameter in shared.parameters():
            if parameter.grad is not None:
                parameter -= parameter.grad.sign()
    shared.choose(second)
    after = shared.network.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert {"conv1.weight", "conv2.weight", "classify.weight", "norm1.running_mean"} <= changed
    chosen = ("weight_quant.tensor_quant.theta", "norm1.result.theta", "pool.result.theta")
    assert not [name for name in changed if name.endswith(chosen)]


def test_results_that_meet_in_an_addition_are_chosen_together():
    shared = SharedWeights(small_problem().variants)
    variables = [place.variable for place in shared.places]
    assert len(shared.places) == len(set(variables)) + 1  # norm1 and norm2 share a variable


def test_batch_norm_is_estimated_on_all_samples():
    problem = small_problem()
    shared = SharedWeights(problem.variants)
    shared.choose(problem.space.widest())
    norm, seen = shared.network.get_submodule("norm1"), []
    handle = norm.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].double()))
    weights = {name: value.clone() for name, value in shared.named_parameters()}
    reestimate_batch_norm(shared.network, problem.data, 64)
    handle.remove()
    assert len(seen) == len(problem.data.train_x) // 64
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in seen]).mean(0)
    torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-5, atol=1e-5)
    assert norm.momentum == 0.1
    assert all(torch.equal(weights[name], value) for name, value in shared.named_parameters())


def test_batch_norms_take_every_batchs_statistics_to_the_end():
    """The running ones are of whatever points were run: frozen in mid-search, they would suit none."""
    problem = small_problem()
    frozen: list[bool] = []

    class Looking:
        done = 0

        def step(self, model, optimizer, *batch):
            frozen.append(model.network.get_submodule("norm1").frozen)
            return batch_losses(model, problem.data, *batch).detach()

        def epoch_done(self, model, data, epoch):
            pass

        def state(self):
            return {}

    shared = SharedWeights(problem.variants)
    shared.choose(problem.space.widest())
    SearchPhase("looking", 2, 1e-3, problem.config, None, "", Looking()).run(shared, problem.data, None)
    assert len(frozen) > 4
    assert not any(frozen)


def trained(cost: float, quality: float, fits: bool = True) -> TrainedPoint:
    return TrainedPoint((0,), cost, fits, Evaluation(quality, quality, quality, quality), {}, "x", 1)


def test_the_front_leaves_out_what_is_beaten_or_does_not_fit():
    kept = [trained(1, 0.5), trained(3, 0.9)]
    assert (
        front_of([kept[1], trained(2, 0.4), kept[0], trained(2, 0.99, fits=False), trained(4, 0.9)]) == kept
    )


def test_a_point_that_no_folding_makes_fast_enough_costs_more_than_all_others():
    def price(points):
        cost = np.array([np.inf if point[0] == 0 else float(10 + sum(point)) for point in points])
        return cost, np.isfinite(cost)

    strategy = Fliqs(dataclasses.replace(small_problem(), price=price))
    rest = [0] * (len(strategy.space.variables) - 1)
    costs = strategy.finite_costs([(0, *rest), (1, *rest), (2, *rest)])
    assert np.isfinite(costs).all()
    assert costs[0] > costs[1:].max()
    with pytest.raises(CheckFailedError, match="reaches the rate"):
        strategy.finite_costs([(0, *rest)])


def test_strategies_that_train_are_found_by_name():
    assert {"fliqs", "gradient"} <= set(list_strategies())
    assert "training" not in list_strategies()
    assert strategy_class("fliqs") is Fliqs
