"""What designs save by leaving channels out: of a network pruned by torch, and of a search that gives 0 bits.

(a) A convolutional network of the digits is trained, a quarter of the channels of each hidden layer is
pruned by torch.nn.utils.prune (batch norm with them), trained on, quantised by GPFQ, and priced with
every flow: its design with all channels, and without those that are constant. The outputs of both exact
graphs are compared.
(b) `gradient` searches formats with and without channels of 0 bits: the same network, seed and schedule.
A point's cost is that of its own design.

    python benchmarks/pruned_channels.py [--seeds 0]
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import fx, nn
from torch.nn import functional
from torch.nn.utils import prune

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.data import load_dataset
from qhw.data.base import Dataset, holdout
from qhw.export import to_onnx
from qhw.flows.base import load_flow
from qhw.graph.encode import encode_inputs
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.graph.passes import constant_channels
from qhw.models.digits_cnn import DigitsCnn
from qhw.pipeline.designs import Wanted, best_design
from qhw.ptq.calibrated import Calibrated
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.search.evaluators.base import Held
from qhw.search.network import CALIBRATION, Variants, sites_of
from qhw.search.pricing import CircuitPricer
from qhw.search.space import Point, SpaceSettings
from qhw.search.strategies.base import Prices
from qhw.search.strategies.gradient import Gradient, GradientSettings
from qhw.search.strategies.training import TrainedPoint, TrainingProblem
from qhw.sim.fast import FastExecutor
from qhw.tasks.base import Judge
from qhw.train import Phase, TrainConfig

RESULT = Path(__file__).parent / "results" / "pruned_channels.md"

TARGETS = (("hls4ml", "zcu104"), ("finn", "ultra96"), ("rtl", "ulx3s"), ("mcu", "stm32h743"))
"""Flows and boards that a pruned network is priced for."""

PRUNED = 0.25
"""Share of each hidden layer's channels."""

SPACE = SpaceSettings(
    weights=("ternary", "fixed<3>", "e2m1", "fixed<6>"), activations=("fixed<2>", "fixed<4>", "e2m3")
)
SETTINGS = GradientSettings(cycles=6, epochs=3, beta=(0.05, 20.0))
BOARD, FLOW, WANTED, WIDTH = "ultra96-v2", "hls4ml", Wanted(fps=100_000, multipliers="lut"), 8


# --- (a) a network that torch pruned ------------------------------------------------------------------


def network() -> nn.Sequential:
    """Two convolutions, two linear layers."""
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(48, 16), nn.ReLU(), nn.Linear(16, 10)),
    )


def trained_and_pruned(data: Dataset) -> nn.Sequential:
    """Trained, pruned channel by channel, trained on; zeros in place of what was pruned."""
    torch.manual_seed(0)
    model = network()
    x, y = torch.from_numpy(data.train_x).float(), torch.from_numpy(np.asarray(data.train_targets)).long()

    def train(epochs: int) -> None:
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                functional.cross_entropy(model(x[rows]), y[rows]).backward()
                optimizer.step()

    train(8)
    for place in (0, 4, 9):
        layer, norm = model[place], model[place + 1]
        prune.ln_structured(layer, "weight", amount=PRUNED, n=2, dim=0)
        kept = layer.weight_mask.flatten(1).any(dim=1).float()
        if isinstance(norm, nn.BatchNorm2d):
            prune.custom_from_mask(norm, "weight", kept)
            prune.custom_from_mask(norm, "bias", kept)
        else:
            prune.custom_from_mask(layer, "bias", kept)
    train(3)
    for layer in model:
        for name in ("weight", "bias"):
            if hasattr(layer, f"{name}_mask"):
                prune.remove(layer, name)
    return model.eval()


def pruned() -> Iterator[str]:
    """The section of the pruned network."""
    data = load_dataset("digits")
    model = trained_and_pruned(data)
    samples = torch.from_numpy(data.train_x[:CALIBRATION]).float()
    module = Calibrated(model, samples, PtqSettings(), pixels=True).quantised(QuantConfig())
    graph = lower(to_onnx(module))
    smaller, _ = constant_channels.apply(graph)
    inputs = encode_inputs(graph, {graph.inputs[0]: data.test_x})
    codes = [FastExecutor(each)(inputs)[graph.outputs[0]] for each in (graph, smaller)]
    correct = np.mean(codes[0].argmax(axis=1) == np.asarray(data.test_targets))
    yield "## A pruned network"
    yield ""
    yield (
        f"{constant_channels.removed(graph, smaller)} channels of {8 + 12 + 16} are left out; "
        f"{correct:.1%} of {len(data.test_x)} test samples are right. Of {codes[0].size:,} codes of the "
        f"outputs {int((codes[0] != codes[1]).sum())} differ. Each design is its flow's fastest that fits."
    )
    yield ""
    yield "| flow, board | | all channels | without |"
    yield "|---|---|---:|---:|"
    for flow_name, board_name in TARGETS:
        flow, board = load_flow(flow_name), load_board(board_name)
        pair = [estimate(flow.best(flow.prepare(each, board))) for each in (graph, smaller)]
        figures = {"inferences/s": [each.throughput_fps for each in pair]}
        for name in pair[0].totals:
            figures[name.upper()] = [each.totals[name] for each in pair]
        if "instructions" in pair[0].figures:
            figures["instructions"] = [each.figures["instructions"] for each in pair]
        for name, (whole, left) in figures.items():
            if whole:
                yield f"| {flow_name}, {board_name} | {name} | {whole:,.0f} | {left:,.0f} |"
    yield ""


# --- (b) a search -------------------------------------------------------------------------------------


def problem_of(seed: int) -> TrainingProblem:
    """digits-cnn of some channels, trained in float, in all formats of the space."""
    whole = load_dataset("digits")
    kept, out = holdout(whole.train_targets, 4)
    data = dataclasses.replace(whole, train_x=whole.train_x[kept], train_y=whole.train_targets[kept])
    held = Held(whole.train_x[out], Judge(whole.kind, whole.figure, whole.train_targets[out]))
    config = TrainConfig(float_epochs=10, batch_size=32, learning_rate=1e-2, quantised_learning_rate=2e-3)
    config = dataclasses.replace(config, seed=seed, threads=1)
    torch.manual_seed(seed)
    model: nn.Module = DigitsCnn(data.image_shape, data.classes, data.normalisation, WIDTH)
    Phase("float", config.float_epochs, config.learning_rate, config, None, "").run(model, data, None)
    samples = torch.from_numpy(data.train_x[:CALIBRATION]).float()
    space = SPACE.space(sites_of(model.eval(), QuantConfig(), samples[:2]), QuantConfig())
    variants = Variants(model, space, samples)
    graphs = [lower(to_onnx(module)) for module in variants.modules]
    flow, board = load_flow(FLOW), load_board(BOARD)
    pricer = CircuitPricer(graphs, variants.sources(), space.counts, flow, board, WANTED)

    def price(points: Sequence[Point]) -> Prices:
        found = pricer.price(points)
        return found.objective("lut"), found.fits

    def price_network(network: fx.GraphModule) -> tuple[float, bool]:
        return lut_of(lower(to_onnx(network))), True

    return TrainingProblem(variants, price, data, held, config, price_network=price_network)


def lut_of(graph: ExactGraph) -> float:
    """The LUT of a graph's own design."""
    return float(estimate(best_design(graph, load_board(BOARD), load_flow(FLOW), WANTED)).totals["lut"])


def row_of(point: TrainedPoint, variants: Variants) -> tuple[float, float, int]:
    """A point's LUT, its accuracy, and the channels that its design has."""
    graph = lower(to_onnx(point.network(variants)))
    smaller, _ = constant_channels.apply(graph)
    return lut_of(graph), point.evaluation.figure, smaller.tensors["conv1"].shape[0]


def searched(seeds: Sequence[int]) -> Iterator[str]:
    """The section of the search."""
    yield "## A search"
    yield ""
    yield (
        f"digits-cnn of {WIDTH} channels, {SETTINGS.cycles * SETTINGS.epochs} epochs, one run each; LUT "
        f"({FLOW}, {BOARD}, {WANTED.fps:,.0f} images/s), accuracy on held-out samples of the training "
        "split, channels. A run with 0 bits takes another way through the formats, so not every part of its "
        "front is better."
    )
    for seed in seeds:
        problem = problem_of(seed)
        for gives_0_bits in (False, True):
            settings = dataclasses.replace(SETTINGS, prune=gives_0_bits)
            rows = [row_of(point, problem.variants) for point in Gradient(problem, settings).run()]
            yield ""
            yield f"Seed {seed}, {'with' if gives_0_bits else 'without'} 0 bits:"
            yield ""
            yield "| LUT | accuracy | channels |"
            yield "|---:|---:|---:|"
            for lut, figure, channels in sorted(rows):
                yield f"| {lut:,.0f} | {figure:.1%} | {channels} |"
    yield ""


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0])
    given = parser.parse_args()
    torch.set_num_threads(1)
    lines = ["# Channels that are not built", "", *pruned(), *searched(given.seeds)]
    RESULT.write_text("\n".join(lines))
    Console().print(RESULT.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
