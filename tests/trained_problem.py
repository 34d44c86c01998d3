"""A small trained network with its variants and prices, which the tests of searches that train share."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.data import load_dataset
from qhw.data.base import Dataset
from qhw.export import export_qonnx, to_onnx
from qhw.flows.base import load_flow
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.models.digits_cnn import DigitsCnn
from qhw.pipeline.designs import Wanted, best_design
from qhw.quant_config import QuantConfig
from qhw.search.evaluators.base import Held
from qhw.search.evaluators.full_qat import FullQat
from qhw.search.network import Variants, sites_of
from qhw.search.pricing import CircuitPricer
from qhw.search.space import Point, SpaceSettings
from qhw.search.strategies.base import Prices
from qhw.search.strategies.training import TrainedPoint, TrainingProblem
from qhw.tasks import Task
from qhw.train import Phase, TrainConfig, predict

SETTINGS = SpaceSettings(
    weights=("ternary", "fixed<3>", "e2m1", "fixed<6>"), activations=("fixed<2>", "fixed<4>", "e2m3")
)
CONFIG = TrainConfig(
    float_epochs=6,
    quantised_epochs=2,
    batch_size=32,
    learning_rate=1e-2,
    quantised_learning_rate=2e-3,
    threads=1,
)
FPS = 100_000.0
WANTED = Wanted(fps=FPS, multipliers="lut")


def split(train: int, held: int) -> tuple[Dataset, Held]:
    """The first digits to train on, and others that are held out of the same split."""
    digits = load_dataset("digits")
    data = dataclasses.replace(digits, train_x=digits.train_x[:train], train_y=digits.train_y[:train])
    rest = slice(train, train + held)
    return data, Held(digits.train_x[rest], dataclasses.replace(digits.judge, targets=digits.train_y[rest]))


def problem_of(
    settings: SpaceSettings, data: Dataset, held: Held, config: TrainConfig, width: int
) -> TrainingProblem:
    """A digits-cnn of so many channels, trained in float, in all formats of a space; its LUT as the cost."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = DigitsCnn(data.image_shape, data.classes, data.normalisation, width)
    Phase("float", config.float_epochs, config.learning_rate, config, None, "").run(model, data, None)
    example = torch.from_numpy(data.train_x[:64]).float()
    space = settings.space(sites_of(model, QuantConfig(), example[:2]), QuantConfig())
    variants = Variants(model, space, example)
    return TrainingProblem(variants, prices_of(variants), data, held, config)


def price_of_network(network: fx.GraphModule) -> tuple[float, bool]:
    """The LUT of a network's own design at the rate."""
    return lut_of(lower(to_onnx(network))), True


def lut_of(graph: ExactGraph) -> float:
    """The LUT of a graph's design at the rate."""
    design = best_design(graph, load_board("ultra96-v2"), load_flow("hls4ml"), WANTED)
    return float(estimate(design).totals["lut"])


def prices_of(variants: Variants) -> Callable[[Sequence[Point]], Prices]:
    """Estimated LUT at a rate."""
    space = variants.space
    graphs = [lower(to_onnx(module)) for module in variants.modules]
    choices = variants.sources()
    flow, board = load_flow("hls4ml"), load_board("ultra96-v2")
    pricer = CircuitPricer(graphs, choices, space.counts, flow, board, WANTED)

    def price(points: Sequence[Point]) -> Prices:
        costs = pricer.price(points)
        return costs.objective("lut"), costs.fits

    return price


@cache
def small_problem() -> TrainingProblem:
    """One for all tests; nothing changes it."""
    torch.set_num_threads(1)
    return problem_of(SETTINGS, *split(320, 200), CONFIG, width=4)


@cache
def digits_problem() -> TrainingProblem:
    """Most digits, trained for longer: what the slow tests share."""
    torch.set_num_threads(1)
    config = dataclasses.replace(CONFIG, float_epochs=15, quantised_epochs=10)
    return problem_of(SETTINGS, *split(1100, 333), config, width=4)


@cache
def trained_uniform_points() -> list[tuple[float, float]]:
    """Costs of all uniform points of the digits, and their quality after training by the recipe."""
    problem = digits_problem()
    qat = FullQat(problem.variants, problem.held, problem.data, problem.config)
    points = problem.space.uniform()
    costs, _ = problem.price(points)
    return [(float(cost), qat.evaluate(point).quality) for cost, point in zip(costs, points, strict=True)]


def is_not_dominated(ours: Sequence[TrainedPoint]) -> bool:
    """Whether some point has no trained uniform one that costs no more and is as good."""
    theirs = trained_uniform_points()
    return any(
        all(cost > point.cost or quality < point.evaluation.quality for cost, quality in theirs)
        for point in ours
    )


def exact_graph(module: fx.GraphModule, folder: Path) -> ExactGraph:
    """What a network lowers to, by way of its file."""
    return lower(export_qonnx(module, folder / "model.onnx"))


def codes_differ(point: TrainedPoint, variants: Variants, samples: np.ndarray, folder: Path) -> int:
    """How many outputs of the exact graph are not those of the trained network in float64."""
    module = point.network(variants)
    graph = exact_graph(module, folder)
    codes = interpret(graph, encode_inputs(graph, samples))[graph.outputs[0]]
    values = decode_output(graph, graph.outputs[0], codes)
    assert len(np.unique(codes)) > 5
    return int((values != predict(module, samples, dtype=torch.float64)).sum())


@contextmanager
def failing_loss(monkeypatch: pytest.MonkeyPatch, after: int) -> Iterator[None]:
    """While it is entered, the loss is NaN once so many were computed."""
    kind, calls = type(small_problem().data.kind), itertools.count()

    def loss(self: Task, outputs: Tensor, targets: Tensor) -> Tensor:
        value = usual(self, outputs, targets)
        return value * math.nan if next(calls) >= after else value

    usual = kind.loss
    with monkeypatch.context() as patch:
        patch.setattr(kind, "loss", loss)
        yield


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two states are the same, bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
