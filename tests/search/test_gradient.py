"""Formats trained by gradients: slopes against their definitions, and what a run gives."""

from __future__ import annotations

import dataclasses

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
    lut_of,
    price_of_network,
    same,
    small_problem,
)

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.errors import CheckFailedError, InputError
from qhw.flows.base import load_flow
from qhw.graph.encode import encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.passes import constant_channels
from qhw.search.strategies._channels import ChannelGroup, channel_groups, gated, silenced
from qhw.search.strategies.gradient import (
    Gradient,
    GradientSettings,
    Positions,
    _watched,
    ladders,
)
from qhw.search.strategies.training import SharedWeights, batch_losses, front_of
from qhw.train import Progress, predict

QUICK = GradientSettings(cycles=2, epochs=2, beta=(0.1, 10.0), rate=0.2)


def positions() -> Positions:
    problem = small_problem()
    strategy = Gradient(problem, QUICK)
    rungs = ladders(strategy, problem.variants, torch.from_numpy(problem.data.train_x[:64]).float())
    return Positions(strategy, problem.data, rungs, QUICK, 1e-3, 10)


def batch(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    data = small_problem().data
    return torch.from_numpy(data.train_x[:size]).float(), torch.from_numpy(data.train_y[:size])


@pytest.fixture(scope="module")
def found():
    return Gradient(small_problem(), QUICK).run()


def test_rungs_cost_more_and_err_less():
    problem, walk = small_problem(), positions()
    widest = problem.space.widest()
    x = torch.from_numpy(problem.data.train_x[:64]).float()
    with torch.inference_mode():
        exact = problem.variants.model(x)
    for index, ladder in enumerate(walk.ladders):
        points = [(*widest[:index], place, *widest[index + 1 :]) for place in ladder]
        assert (np.diff(walk.strategy.costs(points)) > 0).all()
        with torch.inference_mode():
            errors = [float((problem.variants.module(p)(x) - exact).square().sum()) for p in points]
        assert (np.diff(errors) < 0).all()


def test_the_slope_of_the_price_is_that_of_its_formula():
    walk = positions()
    with torch.no_grad():
        walk.positions.copy_(walk.tops * 0.6 + 0.1)
    rungs = walk.rungs

    def cost(places: np.ndarray) -> float:
        total = 0.0
        for index, ladder in enumerate(walk.ladders):
            k = np.arange(len(ladder))
            weights = np.exp(-((k - places[index]) ** 2) / 2)
            points = [walk._point([*rungs[:index], rung, *rungs[index + 1 :]]) for rung in k]
            total += float(weights / weights.sum() @ walk.strategy.costs(points)) / walk.price_of_top
        return total

    start = walk.positions.detach().numpy()
    for index, slope in enumerate(walk._price_slopes(rungs)):
        step = np.zeros(len(start))
        step[index] = 1e-5
        assert slope == pytest.approx((cost(start + step) - cost(start - step)) / 2e-5, rel=1e-5, abs=1e-9)


def test_the_slope_of_the_task_is_that_between_two_rungs():
    """One variable's tensors are mixed, (1 - t) of this rung and t of the next: the derivative by t at 0."""
    walk = positions()
    x, y = batch()
    rungs = tuple(len(ladder) // 2 for ladder in walk.ladders)
    rungs = tuple(min(rung, len(ladder) - 2) for rung, ladder in zip(rungs, walk.ladders, strict=True))
    shared = SharedWeights(small_problem().variants).train()
    shared.choose(walk._point(rungs))
    slopes = torch.zeros(len(rungs), dtype=torch.float64)
    with _watched(shared, walk._raised(rungs), slopes):
        batch_losses(shared, small_problem().data, x, y).backward()
    for variable, slope in enumerate(slopes.tolist()):
        assert slope == pytest.approx(derivative(walk, rungs, variable, x, y), rel=1e-3, abs=1e-7)
    assert (slopes != 0).all()


def derivative(
    walk: Positions, rungs: tuple[int, ...], variable: int, x: torch.Tensor, y: torch.Tensor
) -> float:
    shared = SharedWeights(small_problem().variants).train()
    shared.choose(walk._point(rungs))
    t = torch.zeros((), requires_grad=True)
    for place in shared.places:
        if place.variable != variable:
            continue
        here = getattr(place.owner, place.attribute)
        above = place.options[walk.ladders[variable][rungs[variable] + 1]]
        if place.attribute == "tensor_quant":
            mix_weights(here, above, t)
        else:
            mix_results(place.owner, above, t)
    loss = batch_losses(shared, small_problem().data, x, y)
    return float(torch.autograd.grad(loss, t)[0])


def mix_weights(here, above, t):
    usual = here.forward

    def forward(weight):
        first, *rest = usual(weight)
        return (first + t * (above.forward(weight)[0] - first).detach(), *rest)

    here.forward = forward


def mix_results(layer, above, t):
    usual = layer.forward

    def forward(*inputs):
        first, here = usual(*inputs), layer.result
        layer.result = above
        with torch.no_grad():
            second = usual(*inputs)
        layer.result = here
        return first + t * (second - first).detach()

    layer.forward = forward


def test_watching_changes_neither_gradients_nor_statistics():
    walk = positions()
    x, y = batch()
    rungs = tuple(0 for _ in walk.ladders)
    states, gradients = [], []
    for watch in (False, True):
        shared = SharedWeights(small_problem().variants).train()
        shared.choose(walk._point(rungs))
        raised = walk._raised(rungs) if watch else [None] * len(rungs)
        with _watched(shared, raised, torch.zeros(len(rungs), dtype=torch.float64)):
            batch_losses(shared, small_problem().data, x, y).backward()
        states.append(shared.state_of_point())
        gradients.append({n: p.grad for n, p in shared.network.named_parameters() if p.grad is not None})
    assert same(*states)
    assert same(*gradients)
    assert "conv1.weight" in gradients[0]


def test_the_price_pulls_down_and_the_task_up():
    down, up = positions(), positions()
    start = down.tops / 2
    for walk, slope in ((down, 0.0), (up, -1e3)):
        with torch.no_grad():
            walk.positions.copy_(start)
        for _ in range(200):
            walk._move(torch.full_like(start, slope), [], walk.rungs, 1, 1.0)
    assert bool((up.positions == up.tops).all())
    assert float(down.strategy.costs([down._point(down.rungs)])[0]) < 0.7 * down.price_of_top
    assert bool((down.positions >= 0).all())


def test_kept_points_are_built_as_they_were_trained(found, tmp_path):
    problem = small_problem()
    assert found
    assert found == front_of(found)
    for point in found:
        module = point.network(problem.variants)
        assert point.evaluation.figure == problem.held.judge.score(predict(module, problem.held.samples))
        assert codes_differ(point, problem.variants, problem.held.samples[:64], tmp_path) == 0
    assert len({point.epoch for point in found}) == len(found)


def test_a_run_that_was_stopped_ends_with_the_same_bits(found, tmp_path):
    problem = dataclasses.replace(small_problem(), folder=tmp_path)

    def stop(told: Progress):
        if told.epoch == 3 and told.step == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Gradient(problem, QUICK).run(stop)
    again: list[Progress] = []
    resumed = Gradient(problem, QUICK).run(again.append)
    assert (again[0].phase, again[0].epoch) == ("gradient", 3)
    assert [(p.point, p.cost, p.epoch) for p in resumed] == [(p.point, p.cost, p.epoch) for p in found]
    assert all(same(a.state, b.state) for a, b in zip(resumed, found, strict=True))


def test_a_loss_that_is_no_number_names_the_epoch(monkeypatch):
    with (
        failing_loss(monkeypatch, after=25),
        pytest.raises(InputError, match="gradient phase, epoch 3"),
    ):
        Gradient(small_problem(), QUICK).run()


def test_a_budget_that_no_epoch_keeps_to_is_said():
    def price(points):
        costs, fits = small_problem().price(points)
        return costs, np.zeros_like(fits)

    with pytest.raises(CheckFailedError, match=r"none of 2 epochs .* budget"):
        Gradient(
            dataclasses.replace(small_problem(), price=price), GradientSettings(cycles=2, epochs=1)
        ).run()


@pytest.mark.parametrize("wrong", [{"cycles": 0}, {"epochs": 0}, {"beta": (1.0, 0.1)}, {"rate": -1.0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        GradientSettings(**wrong)


@pytest.mark.slow
def test_uniform_points_do_not_dominate_it_on_digits():
    """One run of 15 epochs, against every uniform point trained for 10 from the same float weights."""
    assert is_not_dominated(Gradient(digits_problem(), GradientSettings(cycles=5, epochs=3)).run())


# --- channels of 0 bits ------------------------------------------------------------------------------


def without_channels() -> Positions:
    """Positions whose group has lost channels 1 and 2 of 4."""
    walk = positions()
    (group,) = channel_groups(small_problem().variants)
    walk = dataclasses.replace(walk, prunable=[(group, 0.1)])
    with torch.no_grad():
        walk.channels[0].copy_(torch.tensor([1.0, 0.4, 0.0, 0.6]))
    return walk


def test_channels_that_meet_in_a_sum_go_together():
    """conv1 and conv2 of digits-cnn are added; what classify gives are the outputs."""
    assert channel_groups(small_problem().variants) == [ChannelGroup(4, ("norm1", "norm2"))]


def test_one_channel_stays():
    walk = without_channels()
    assert walk.masks[0].tolist() == [True, False, False, True]
    with torch.no_grad():
        walk.channels[0].copy_(torch.tensor([0.1, 0.0, 0.3, 0.3]))
    assert walk.masks[0].sum() == 1


def test_what_is_gated_while_it_trains_is_what_is_kept():
    """Zeros in batch norm give what the mask of its result gives; afterwards all is as it was."""
    walk, shared = without_channels(), SharedWeights(small_problem().variants).eval()
    shared.choose(walk._point(walk.rungs))
    x, _ = batch()
    before = shared(x)
    with gated(shared.network, walk.groups, walk.masks):
        masked = shared(x)
    with silenced(shared.network, walk.groups, walk.masks):
        assert torch.equal(shared(x), masked)
    assert not torch.equal(before, masked)
    assert torch.equal(shared(x), before)


def test_the_slope_of_a_channels_price_is_that_of_its_formula():
    walk = without_channels()
    (found,) = walk._price_slopes_of_channels(walk.rungs)
    price = float(walk.strategy.costs([walk._point(walk.rungs)])[0]) / walk.price_of_top

    def cost(place: float) -> float:
        weights = np.exp(-((np.arange(2) - place) ** 2) / 2)
        return float(weights[1] / weights.sum()) * 0.1 * price

    for slope, place in zip(found.tolist(), walk.channels[0].tolist(), strict=True):
        assert slope == pytest.approx((cost(place + 1e-5) - cost(place - 1e-5)) / 2e-5, rel=1e-6)


def test_lost_channels_make_the_design_smaller(tmp_path):
    """Only the price pulls: channels go, also of the exact graph, whose design has the point's price."""
    problem = dataclasses.replace(small_problem(), price_network=price_of_network)
    kept = Gradient(problem, dataclasses.replace(QUICK, beta=(300.0, 1000.0))).run()
    lost = 0
    for point in kept:
        module = point.network(problem.variants)
        graph = exact_graph(module, tmp_path)
        smaller, changed = constant_channels.apply(graph)
        if changed:
            lost = max(lost, graph.tensors["conv1"].shape[0] - smaller.tensors["conv1"].shape[0])
            assert point.cost == lut_of(graph) < lut_of_all(graph)
            assert codes_differ(point, problem.variants, problem.held.samples[:50], tmp_path) == 0
            inputs = encode_inputs(graph, problem.held.samples[:50])
            pair = [interpret(each, inputs)[graph.outputs[0]] for each in (graph, smaller)]
            np.testing.assert_array_equal(*pair)
    assert lost > 0


def lut_of_all(graph: ExactGraph) -> float:
    """The LUT of the design that keeps all channels."""
    flow, board = load_flow("hls4ml"), load_board("ultra96-v2")
    design = flow.best(flow.prepare(graph, board, WANTED.multipliers), fps=WANTED.fps)
    return float(estimate(design).totals["lut"])


def test_channels_stay_where_nothing_prices_them():
    widest = small_problem().space.widest()
    assert Gradient(small_problem(), QUICK).prunable(widest) == []
    problem = dataclasses.replace(small_problem(), price_network=price_of_network)
    assert Gradient(problem, dataclasses.replace(QUICK, prune=False)).prunable(widest) == []
