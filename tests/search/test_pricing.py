"""Prices of points are those of their lowered graphs, folded by the integer program."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from qhw.boards import Board, load_board
from qhw.cost import estimate
from qhw.cost.pricing.costing import ESTIMATED
from qhw.cost.pricing.folding import DoesNotFitError
from qhw.errors import UnsupportedError
from qhw.export import to_onnx
from qhw.flows.base import load_flow
from qhw.graph.lower import lower
from qhw.patch.plan import cuts
from qhw.pipeline.designs import Wanted, best_design
from qhw.quant_config import QuantConfig
from qhw.search.network import Variants, sites_of
from qhw.search.pricing import OBJECTIVES, CircuitPricer, Pricer, _check_alike, pricer_for
from qhw.search.space import SpaceSettings

BOARD = "zcu104"


def pricer(small: Any, flow: str, wanted: Wanted) -> CircuitPricer:
    graphs = [lower(to_onnx(module)) for module in small.variants.modules]
    choices = small.variants.sources()
    return CircuitPricer(
        graphs, choices, small.space.counts.tolist(), load_flow(flow), load_board(BOARD), wanted
    )


@pytest.mark.parametrize(
    ("searched", "flow", "fps"),
    [("small", "hls4ml", 300_000), ("small", "rtl", 50_000), ("small_integers", "finn", 50_000)],
)
def test_at_a_rate_a_price_is_that_of_the_graph(
    request: pytest.FixtureRequest, searched: str, flow: str, fps: float
) -> None:
    """Codes, widths and foldings, resource by resource."""
    small, wanted = request.getfixturevalue(searched), Wanted(fps=fps)
    prices = pricer(small, flow, wanted)
    points = small.space.sample(np.random.default_rng(0), 12)
    found = prices.price(points)
    assert found.reaches.all()
    same = 0
    for row, point in enumerate(points):
        graph = lower(to_onnx(small.variants.module(point)))
        design = best_design(graph, load_board(BOARD), load_flow(flow), wanted)
        # By the closed forms: the rtl flow counts what it wrote, when a design is chosen.
        priced = estimate(replace(design, architecture=replace(design.architecture, written=None)))
        usage = dict(zip(ESTIMATED, found.usage[row], strict=True))
        assert found.share[row] >= max(priced.utilisation.values()) - 1e-9  # the program's is proven least
        more = [usage[name] - priced.totals[name] for name in ESTIMATED]
        # A layer may trade one resource for another, and nothing else.
        assert not any(more) or min(more) < 0 < max(more)
        same += not any(more)
    assert same >= 10


def test_the_types_are_those_of_the_lowered_graph(small: Any) -> None:
    prices = pricer(small, "hls4ml", Wanted(fps=300_000))
    points = small.space.sample(np.random.default_rng(1), 6)
    prices.price(points)  # together: most of them go the way of many
    for point in points:
        graph = lower(to_onnx(small.variants.module(point)))
        built = load_flow("hls4ml").prepare(graph, load_board(BOARD)).graph
        names = {
            node.output: other.output for node, other in zip(prices.graph.nodes, built.nodes, strict=True)
        }
        for name, kind in prices.types(point).items():
            assert kind == built.tensors[names.get(name, name)]


class Mixed(nn.Module):
    """Results of every kind: of bare convolutions, behind a ReLU of its own, joined, added, pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.left, self.right = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.shortcut = nn.Conv2d(8, 6, 1, stride=2)
        self.main, self.norm = nn.Conv2d(8, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6)
        self.hidden, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.cat([self.left(x), self.right(x)], 1)
        x = torch.relu(self.norm(self.main(x)) + self.shortcut(x))
        x = nn.functional.max_pool2d(x, 4).flatten(1)
        return self.last(torch.relu(self.hidden(x)))


def test_results_of_every_kind_have_their_variable() -> None:
    torch.manual_seed(0)
    model, samples = Mixed().eval(), torch.randn(64, 1, 8, 8)
    base = QuantConfig(inputs="fixed<8>")
    settings = SpaceSettings(weights=("fixed<3>", "e2m1"), activations=("fixed<4>", "e3m2"), residual=False)
    space = settings.space(sites_of(model, base, samples[:2]), base)
    names = [variable.name for variable in space.variables if variable.kind == "activations"]
    assert "shortcut.activations" in names
    variants = Variants(model, space, samples)
    prices = pricer(SimpleNamespace(variants=variants, space=space), "hls4ml", Wanted(fps=300_000))
    for point in space.sample(np.random.default_rng(4), 8):
        priced = prices.price([point])
        graph = lower(to_onnx(variants.module(point)))
        totals = estimate(
            best_design(graph, load_board(BOARD), load_flow("hls4ml"), Wanted(fps=300_000))
        ).totals
        assert priced.usage[0].tolist() == [float(totals[name]) for name in ESTIMATED]


def test_without_a_rate_the_interval_is_that_of_the_fastest_design(small: Any) -> None:
    prices = pricer(small, "hls4ml", Wanted())
    points = small.space.sample(np.random.default_rng(2), 5)
    found = prices.price(points)
    for row, point in enumerate(points):
        graph = lower(to_onnx(small.variants.module(point)))
        priced = estimate(best_design(graph, load_board(BOARD), load_flow("hls4ml")))
        assert found.interval[row] == priced.initiation_interval


def test_what_is_known_is_not_priced_again(small: Any) -> None:
    prices = pricer(small, "hls4ml", Wanted(fps=300_000))
    points = small.space.sample(np.random.default_rng(3), 30)
    first = prices.price(points)
    count = prices.priced
    again = prices.price([*reversed(points)])
    assert prices.priced == count
    for name in OBJECTIVES["fpga"]:
        assert np.array_equal(first.objective(name), again.objective(name)[::-1])


def test_a_rate_beyond_every_folding_is_told(small: Any) -> None:
    found = pricer(small, "hls4ml", Wanted(fps=1e8)).price(small.space.uniform()[:3])
    assert not found.reaches.any()
    assert not found.fits.any()
    assert np.isinf(found.objective("lut")).all()


def test_variants_of_other_networks_are_refused(small: Any) -> None:
    graph = lower(to_onnx(small.variants.modules[0]))
    with pytest.raises(
        UnsupportedError, match="other operations in other formats, from 'classify_result' on"
    ):
        _check_alike([graph, graph.replace_nodes(graph.nodes[:-1])])


# --- programs -----------------------------------------------------------------------------------------


MCU = "stm32h743"


def program_pricer(searched: Any, board: Board, wanted: Wanted, **options: str) -> Pricer:
    graphs = [lower(to_onnx(module)) for module in searched.variants.modules]
    counts = searched.space.counts.tolist()
    return pricer_for(graphs, searched.variants.sources(), counts, load_flow("mcu", **options), board, wanted)


def figures_of(searched: Any, point: Any, board: Board, **options: str) -> dict[str, float]:
    """What the design of a point itself, with all channels, is estimated to take."""
    graph, flow = lower(to_onnx(searched.variants.module(point))), load_flow("mcu", **options)
    return estimate(flow.best(flow.prepare(graph, board))).figures


def mixed() -> Any:
    torch.manual_seed(0)
    model, samples = Mixed().eval(), torch.randn(64, 1, 8, 8)
    base = QuantConfig(inputs="fixed<8>")
    settings = SpaceSettings(
        weights=("fixed<3>", "e2m1", "fixed<8>"), activations=("fixed<2>", "fixed<8>"), residual=False
    )
    space = settings.space(sites_of(model, base, samples[:2]), base)
    return SimpleNamespace(variants=Variants(model, space, samples), space=space)


@pytest.mark.parametrize("searched", ["small", "small_integers", "mixed"])
def test_the_price_of_a_program_is_that_of_its_design(request: pytest.FixtureRequest, searched: str) -> None:
    """Instructions and cycles of every point; flash where no result is found by comparing."""
    net = mixed() if searched == "mixed" else request.getfixturevalue(searched)
    board = load_board(MCU)
    points = net.space.sample(np.random.default_rng(5), 12)
    found = program_pricer(net, board, Wanted()).price(points)
    assert found.fits.all()
    for row, point in enumerate(points):
        own = figures_of(net, point, board)
        for name in ("instructions", "interval"):
            assert found.objective(name)[row] == own[name]
        flash = found.objective("flash")[row]
        if any(text == "e3m2" for name, text in net.space.formats(point).items() if "activations" in name):
            assert own["flash"] <= flash < 1.01 * own["flash"]  # codes that no number reaches count, too
        else:
            assert flash == own["flash"]


def test_parts_of_a_program_are_priced_once(small: Any) -> None:
    prices = program_pricer(small, load_board(MCU), Wanted())
    points = small.space.sample(np.random.default_rng(6), 60)
    first = prices.price(points)
    count = prices.priced
    again = prices.price([*reversed(points)])
    assert prices.priced == count < 60 * 5
    for name in OBJECTIVES["microcontroller"]:
        assert np.array_equal(first.objective(name), again.objective(name)[::-1])


def test_a_rate_is_for_programs_too(small_integers: Any) -> None:
    board = load_board(MCU)
    points = small_integers.space.sample(np.random.default_rng(7), 12)
    rates = [board.clock_mhz * 1e6 / figures_of(small_integers, point, board)["interval"] for point in points]
    middle = sorted(rates)[6]
    found = program_pricer(small_integers, board, Wanted(fps=middle)).price(points)
    assert found.reaches.tolist() == [rate >= middle for rate in rates]
    assert 0 < found.fits.sum() < 12


def test_memory_is_for_the_design_to_say(small_integers: Any) -> None:
    """Where maps find no room side by side, a point costs what its patches take; or it does not fit."""
    points = small_integers.space.sample(np.random.default_rng(8), 12)
    plain = load_board(MCU)
    arenas = [figures_of(small_integers, point, plain)["contiguous_sram"] for point in points]
    board = plain.having(contiguous_sram=int(sorted(arenas)[6] / 0.8))
    prices = program_pricer(small_integers, board, Wanted())
    kinds = set()
    for point in points:
        found = prices.settle(point)
        try:
            own = figures_of(small_integers, point, board)
        except DoesNotFitError:
            kinds.add("none")
            assert not found.fits[0]
            continue
        assert found.fits[0]
        for name in OBJECTIVES["microcontroller"]:
            assert found.objective(name)[0] == own[name]
        patched = own["instructions"] != prices.price([point]).objective("instructions")[0]
        kinds.add("patches" if patched else "whole")
    assert len(kinds) > 1


def test_a_plan_that_is_asked_for_is_priced(small_integers: Any) -> None:
    board = load_board(MCU)
    point = small_integers.space.uniform()[0]
    graph = lower(to_onnx(small_integers.variants.module(point)))
    plan = f"{[*cuts(load_flow('mcu').prepare(graph, board).graph)][-1]}:2x2"
    prices = program_pricer(small_integers, board, Wanted(), patches=plan)
    own = figures_of(small_integers, point, board, patches=plan)
    assert prices.settle(point).objective("instructions")[0] == own["instructions"]
    assert own["instructions"] > prices.price([point]).objective("instructions")[0]
