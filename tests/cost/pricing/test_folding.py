"""Folding: what is chosen fits, is as fast as brute force finds, and failure names the resource."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from qhw.boards import Board, load_board
from qhw.cost import Design, Estimate, choose_folding, estimate
from qhw.cost.pricing.architecture import Fold
from qhw.cost.pricing.costing import ESTIMATED, Costing
from qhw.errors import CheckFailedError, InputError
from qhw.flows.hls4ml.folding import ReuseFactor
from qhw.flows.hls4ml.template import architecture
from qhw.formats import Integer
from qhw.formats.modes import IntArray
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

ULTRA96 = load_board("ultra96")
STREAMED = architecture("io_stream")
Legal = dict[str, tuple[int, ...]]


def folds(factors: tuple[int, ...]) -> tuple[ReuseFactor, ...]:
    return tuple(map(ReuseFactor, factors))


def chosen_for(
    graph: ExactGraph, board: Board, legal: Legal, budget: float = 0.8, fps: float | None = None
) -> Estimate:
    """The estimate of the best design at those reuse factors."""
    design = Design(graph, board, STREAMED)
    every = {name: folds(factors) for name, factors in legal.items()}
    return estimate(choose_folding(design, every, budget=budget, fps=fps))


def priced(graph: ExactGraph, folding: dict[str, int]) -> Estimate:
    return estimate(
        Design(graph, ULTRA96, STREAMED, folding={name: ReuseFactor(f) for name, f in folding.items()})
    )


def divisors(number: int) -> tuple[int, ...]:
    return tuple(factor for factor in range(1, number + 1) if number % factor == 0)


def chain(seed: int, channels: tuple[int, ...], side: int = 8) -> tuple[ExactGraph, Legal]:
    """Convolutions with an activation each, then a dense layer; random 8-bit weights."""
    random = np.random.default_rng(seed)
    builder, legal = GraphBuilder("chain"), {}
    x = builder.input("x", (1, side, side), Integer(8, False), -8)
    for index, filters in enumerate(channels):
        depth = builder.type(x).shape[0]
        weight = builder.constant(f"w{index}", random.integers(-128, 128, (filters, depth, 3, 3)), Integer(8))
        y = builder.conv(f"conv{index}", x, weight, pads=(1, 1, 1, 1))
        x = builder.requant(f"act{index}", y, Integer(8, False), 8)
        legal[f"conv{index}"] = divisors(depth * 9 * filters)
    x = builder.reduce_sum("pool", x, (1, 2), False)
    classes = builder.constant("w", random.integers(-128, 128, (builder.type(x).shape[0], 10)), Integer(8))
    legal["dense"] = divisors(builder.type(x).shape[0] * 10)
    return builder.finish([builder.matmul("dense", x, classes)]), legal


def fits(result: Estimate, budget: float) -> bool:
    there = result.board.amounts(ESTIMATED)
    return all(used <= int(there[name] * budget) for name, used in result.totals.items())


def test_a_board_with_ten_dsp_slices_only_makes_the_design_slower() -> None:
    graph, legal = chain(0, (16, 16, 16))
    ten = replace(ULTRA96.having(dsp=10), name="ten")
    before, after = (chosen_for(graph, board, legal) for board in (ULTRA96, ten))
    assert fits(before, 0.8)
    assert fits(after, 0.8)
    assert after.totals["dsp"] <= 8 < before.totals["dsp"]
    assert max(map(factor, after.folding.values())) > max(map(factor, before.folding.values()))
    assert after.latency_cycles > 4 * before.latency_cycles
    assert after.initiation_interval > 4 * before.initiation_interval


def factor(fold: Fold) -> int:
    return fold.to_json()["reuse_factor"]


def test_a_large_board_unrolls_everything() -> None:
    graph, legal = chain(0, (4, 4))
    assert set(chosen_for(graph, load_board("u250"), legal).folding.values()) == {ReuseFactor(1)}


@dataclass(frozen=True)
class Combinations:
    """All choices at once: usage (combinations, resources), interval and sum of cycles (combinations)."""

    usage: IntArray
    interval: IntArray
    cycles: IntArray

    @classmethod
    def of(cls, graph: ExactGraph, board: Board, legal: Legal) -> Combinations:
        usage, interval, cycles = np.zeros((1, len(ESTIMATED)), dtype=np.int64), np.ones(1), np.zeros(1)
        costing = Costing.of(graph, board.family, STREAMED)
        for node in graph.nodes:
            costs = costing.layers(node, folds(legal.get(node.name, (1,))))
            rows = np.array([[getattr(cost, name) for name in ESTIMATED] for cost in costs])
            usage = (usage[:, None] + rows).reshape(-1, len(ESTIMATED))
            interval = np.maximum(interval[:, None], [c.initiation_interval for c in costs]).reshape(-1)
            cycles = (cycles[:, None] + [c.cycles for c in costs]).reshape(-1)
        return cls(usage, interval, cycles)


def case(seed: int) -> tuple[ExactGraph, Board, Legal, Combinations, NDArray[np.bool_]]:
    """A small network, a board it may fit, every combination, and which of them fit."""
    random = np.random.default_rng(seed)
    graph, legal = chain(seed, tuple(random.integers(2, 9, 2).tolist()))
    board = ULTRA96.having(lut=int(random.integers(6, 30)) * 1000, dsp=int(random.integers(2, 80)))
    every = Combinations.of(graph, board, legal)
    return graph, board, legal, every, (every.usage <= list(board.amounts(ESTIMATED).values())).all(axis=1)


@pytest.mark.parametrize("seed", range(12))
def test_the_best_of_all_combinations(seed: int) -> None:
    graph, board, legal, every, feasible = case(seed)
    assert feasible.any()
    result = chosen_for(graph, board, legal, budget=1.0)
    assert fits(result, 1.0)
    assert result.initiation_interval == every.interval[feasible].min()
    fastest = feasible & (every.interval == result.initiation_interval)
    assert sum(layer.cycles for layer in result.layers) == every.cycles[fastest].min()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("slower", [1.0, 3.0, 40.0])
def test_the_smallest_of_all_combinations_at_a_rate(seed: int, slower: float) -> None:
    graph, board, legal, every, feasible = case(seed)
    interval = int(every.interval[feasible].min() * slower)
    fps = board.clock_mhz * 1e6 / (interval + 0.5)
    result = chosen_for(graph, board, legal, budget=1.0, fps=fps)
    assert result.initiation_interval <= interval
    there = np.maximum(list(board.amounts(ESTIMATED).values()), 1)
    shares = (every.usage / there)[feasible & (every.interval <= interval)]
    used = np.array([result.totals[name] for name in ESTIMATED]) / there
    assert used.max() == shares.max(axis=1).min()
    as_scarce = shares[shares.max(axis=1) == used.max()]
    assert used.sum() == pytest.approx(as_scarce.sum(axis=1).min(), rel=1e-12)


def test_a_rate_out_of_reach_names_the_layer() -> None:
    graph, legal = chain(0, (4, 4))
    said = r"does not reach 1e\+07 images/s at any folding of the hls4ml flow \(reuse factor\): 'conv0'"
    with pytest.raises(CheckFailedError, match=said) as caught:
        chosen_for(graph, ULTRA96, legal, fps=1e7)
    told = str(caught.value)
    found = re.search(r"needs at least ([\d,]+) cycles per image; this rate allows ([\d,]+)", told)
    assert found is not None
    needed, allowed = (int(number.replace(",", "")) for number in found.groups())
    assert allowed == ULTRA96.clock_mhz * 1e6 // 1e7 < needed
    most = re.search(r"at most ([\d,.]+) images/s", told)
    assert most is not None
    design = chosen_for(graph, ULTRA96, legal, fps=float(most[1].replace(",", "")))
    assert design.initiation_interval == needed


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_a_wrong_rate_is_explained(fps: float) -> None:
    graph, legal = chain(0, (2,))
    with pytest.raises(InputError, match="images per second above 0"):
        chosen_for(graph, ULTRA96, legal, fps=fps)


def test_what_cannot_fit_names_the_resource_and_by_how_much() -> None:
    graph, legal = chain(0, (16, 16))
    with pytest.raises(CheckFailedError) as caught:
        chosen_for(graph, replace(ULTRA96.having(lut=1000), name="tiny"), legal)
    least = sum(
        min(priced(graph, {name: factor}).layers[place].lut for factor in legal.get(name, (1,)))
        for place, name in enumerate(node.name for node in graph.nodes)
        if name in legal
    ) + sum(layer.lut for layer in priced(graph, {}).layers if layer.node not in legal)
    text = str(caught.value)
    assert (
        f"chain does not fit tiny at any folding of the hls4ml flow (reuse factor): it needs {least:,} LUT"
        in text
    )
    assert f"{least - 800:,} more than the 800 (80% of 1,000)" in text


def test_resources_that_only_together_do_not_fit() -> None:
    """Unrolled, the layer takes no DSP slice but many LUT; folded, the reverse."""
    graph, legal = chain(0, (16,))
    folded = priced(graph, {name: factors[-1] for name, factors in legal.items()})
    board = replace(ULTRA96.having(lut=folded.totals["lut"] + 400, dsp=1), name="odd")
    said = r"at any folding .*: it needs 2 DSP where it exceeds the budget least, 1 more"
    with pytest.raises(CheckFailedError, match=said):
        chosen_for(graph, board, legal, budget=1.0)


@pytest.mark.parametrize("budget", [0.0, -1.0, 1.01, float("nan")])
def test_a_wrong_budget_is_explained(budget: float) -> None:
    graph, legal = chain(0, (2,))
    with pytest.raises(InputError, match="share of the board"):
        chosen_for(graph, ULTRA96, legal, budget=budget)


def test_wrong_legal_factors_are_explained() -> None:
    graph, _ = chain(0, (2,))
    with pytest.raises(InputError, match="did you mean conv0"):
        chosen_for(graph, ULTRA96, {"conv": (1,)})
    with pytest.raises(InputError, match="No folding is legal for 'conv0'"):
        chosen_for(graph, ULTRA96, {"conv0": ()})
