"""QFX's claims (arXiv 2401.17544) on Fashion-MNIST: what training in fixed point gains, and what k-hot costs.

(a) Element-wise layers (batch norm, residual add, average pool) at 4 to 8 bits, everything else at 8: the
same float network rounded after training, and trained on with quantisers in place. Two controls stand
between them: the float network trained on for as long, then rounded; and quantised training in which the
binary points stay where the statistics put them.
(b) Weights and scales in k-hot against plain fixed point: accuracy, and the estimate of DSP and LUT.

Nothing is chosen on the test split. Every run's result is kept in a JSON file beside the table, by its
settings: what is there is not run again.

    python benchmarks/qfx_evidence.py [--seeds 3] [--quick] [--afresh | --estimate]
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from torch import nn

from qhw import checkpoints
from qhw.boards import load_board
from qhw.convert import QuantConfig, convert
from qhw.cost import Estimate, choose_folding, estimate
from qhw.cost.pricing.estimate import LABEL
from qhw.data import load_dataset
from qhw.data.base import Dataset
from qhw.errors import CheckFailedError
from qhw.export import export_qonnx
from qhw.flows.base import load_flow
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.models import build_model
from qhw.quantizers import binary_points
from qhw.train import CALIBRATION_IMAGES, Phase, TrainConfig, evaluate

RESULT = Path(__file__).parent / "results" / "qfx_evidence.md"
CHECKPOINTS = Path(__file__).parents[1] / "build" / "qfx_evidence"
BOARD = "ultra96-v2"
"""QFX's own board."""

RATE = 500.0
"""Images per second at which formats are compared: one that all of them reach on the board."""

BITS: tuple[int, ...] = (8, 6, 5, 4)
WEIGHT_FORMATS: tuple[str, ...] = ("fixed<8>", "fixed<4>", "khot<8,3>", "khot<8,2>", "khot<8,1>")
ELEMENT_WISE = ("*norm*", "*add*", "*pool*")
"""Paths of resnet8's element-wise layers: those that Brevitas leaves in float."""

ROUNDED = "rounded"
ROUNDED_LONGER = "float trained on, then rounded"
HELD = "trained, points held"
QFX = "QFX"
ESTIMATE = "estimate"


TRAINING = TrainConfig(
    float_epochs=6,
    quantised_epochs=2,
    batch_size=128,
    learning_rate=4e-3,
    quantised_learning_rate=1e-3,
    freeze_norms=1.0,
)
"""Batch norms are never frozen: what freezing them gains is measured by qfx_points.py."""


@dataclass(frozen=True)
class Recipe:
    """How many images of each split are used, and how the networks are trained on them."""

    images: int = 10_000
    test_images: int = 10_000
    training: TrainConfig = TRAINING


@dataclass(frozen=True)
class Job:
    """One result to find: a method on a network of one seed. Without formats, the network stays in float.

    ``name`` is that of the formats, for the reader.
    """

    name: str
    method: str
    seed: int
    quant: QuantConfig | None

    def key(self, recipe: Recipe) -> str:
        """Text that differs where the result may."""
        formats = None if self.quant is None else self.quant.to_mapping()
        identity = checkpoints.fingerprint(formats, recipe)
        return f"{self.name}, {self.method}, seed {self.seed}, settings {identity[:12]}"


Record = dict[str, Any]
"""A job's result: ``seconds``, and ``accuracy`` and ``moved`` (0 to 1) or the estimate of the hardware."""


def element_wise(bits: int) -> QuantConfig:
    """Everything at 8 bits (biases of convolutions at 16) but the element-wise layers: their constants and
    their results have so many bits.
    """
    narrow = dict.fromkeys(("scales", "biases", "activations"), f"fixed<{bits}>")
    return QuantConfig(overrides=dict.fromkeys(ELEMENT_WISE, narrow))


def weights_in(text: str) -> QuantConfig:
    """Weights, batch norm's scales and the pool's constant in a format, the rest as always."""
    return QuantConfig(weights=text, scales=text)


def jobs(seeds: Sequence[int], bits: Sequence[int], formats: Sequence[str]) -> list[Job]:
    """Everything that the tables need, one seed after the other."""
    wanted = []
    for seed in seeds:
        wanted += [Job("float", method, seed, None) for method in (ROUNDED, ROUNDED_LONGER)]
        for width in bits:
            methods = (ROUNDED, ROUNDED_LONGER, HELD, QFX)
            wanted += [Job(elements(width), method, seed, element_wise(width)) for method in methods]
        for text in formats:
            wanted += [Job(text, method, seed, weights_in(text)) for method in (ROUNDED, QFX, ESTIMATE)]
    return wanted


def elements(bits: int) -> str:
    """What the JSON calls the formats of part (a)."""
    return f"element-wise fixed<{bits}>"


class Store:
    """Results by their job's key, in a JSON file that is written after every one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[str, Record] = json.loads(path.read_text()) if path.is_file() else {}

    def get(self, key: str, find: Callable[[], Record]) -> Record:
        """The stored result, or a new one."""
        if key not in self.records:
            self.records[key] = find()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_name(f"{self.path.name}.part-{os.getpid()}")
            beside.write_text(json.dumps(self.records, indent=1, sort_keys=True) + "\n")
            beside.replace(self.path)
        return self.records[key]


class Bench:
    """Trains and measures: the float networks of each seed once, then whatever is asked for."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        self.data, self.recipe = shortened(data, recipe), recipe
        self.networks: dict[tuple[int, bool], nn.Module] = {}

    def run(self, job: Job) -> Record:
        """The result of a job."""
        started = time.monotonic()
        model, moved = self.network(job.seed, longer=job.method == ROUNDED_LONGER), 0.0
        if job.quant is not None:
            model, moved = self.quantised(model, job)
        if job.method == ESTIMATE:
            record = hardware(job.name, exact_graph(model))
        else:
            record = {"accuracy": evaluate(model, self.data), "moved": moved}
        return record | {"seconds": round(time.monotonic() - started)}

    def network(self, seed: int, longer: bool) -> nn.Module:
        """The float network of a seed; ``longer``: with the fine-tuning's epochs on top, in float."""
        if (seed, longer) not in self.networks:
            config = self.recipe.training
            if longer:
                model = copy.deepcopy(self.network(seed, longer=False))
                epochs, rate = config.quantised_epochs, config.quantised_learning_rate
            else:
                model = build_model("resnet8", self.data, seed=seed)
                epochs, rate = config.float_epochs, config.learning_rate
            self._train(model, seed, epochs, rate, longer)
            self.networks[seed, longer] = model
        return self.networks[seed, longer]

    def quantised(self, network: nn.Module, job: Job) -> tuple[nn.Module, float]:
        """A float network in a job's formats: binary points by statistics, then trained where asked for.

        Also the share of the learned binary points that training moved.
        """
        assert job.quant is not None
        config = self.recipe.training
        model = convert(network, job.quant, torch.from_numpy(self.data.train_x[:2]).float())
        self._train(model, job.seed, 0, config.quantised_learning_rate)  # no epochs: calibration only
        points = binary_points(model)
        before = [point.detach().round() for point in points]
        trains_points = job.method in (QFX, ESTIMATE)
        for point in points:
            point.requires_grad_(trains_points)
        if trains_points or job.method == HELD:
            epochs, rate = config.quantised_epochs, config.quantised_learning_rate
            self._train(model, job.seed, epochs, rate, job.quant, trains_points)
        moved = [bool((point.round() != old).any()) for point, old in zip(points, before, strict=True)]
        return model, statistics.mean(moved)

    def _train(self, model: nn.Module, seed: int, epochs: int, rate: float, *folder: object) -> None:
        """Train in place; the state is kept in a folder of its own by what is named here."""
        config = dataclasses.replace(self.recipe.training, seed=seed)
        kept = CHECKPOINTS / checkpoints.fingerprint(self.recipe, seed, *folder)[:12] if epochs else None
        if kept is not None:
            checkpoints.prepare_folder(kept)
        start = checkpoints.fingerprint(checkpoints.weights_hash(model), self.data.sha256, torch.__version__)
        # One name for all, so that every network sees its images in the same order.
        Phase("float", epochs, rate, config, kept, start).run(model, self.data, None)


def shortened(data: Dataset, recipe: Recipe) -> Dataset:
    """Training images from all over the split, and the first of the test split's."""
    chosen = np.linspace(0, len(data.train_x) - 1, recipe.images).astype(np.int64)
    test = slice(recipe.test_images)
    return dataclasses.replace(
        data,
        train_x=data.train_x[chosen],
        train_y=data.train_y[chosen],
        test_x=data.test_x[test],
        test_y=data.test_y[test],
    )


def exact_graph(model: nn.Module) -> ExactGraph:
    """The integers of a quantised model."""
    with tempfile.TemporaryDirectory() as folder:
        return lower(export_qonnx(model, Path(folder) / "model.onnx"))


def hardware(name: str, graph: ExactGraph) -> Record:
    """What the smallest design at ``RATE`` takes, of the whole board, and how fast the fastest is that fits.

    ``matrix_lut``: the part of ``lut`` in convolutions and linear layers. ``fastest``: images per second
    within the usual budget, 0 where nothing fits.

    Raises:
        CheckFailedError: k-hot takes DSP slices, or ``RATE`` is not reached.
    """
    design = load_flow("hls4ml").prepare(graph, load_board(BOARD))
    small = checked(name, estimate(choose_folding(design, fps=RATE, budget=1.0)))
    matrix = sum(layer.lut for layer in small.layers if layer.op in ("Conv", "MatMul"))
    try:
        folded = choose_folding(design)
    except CheckFailedError:
        return {**small.totals, "matrix_lut": matrix, "fastest": 0.0}
    fast = checked(name, estimate(folded))
    return {**small.totals, "matrix_lut": matrix, "fastest": fast.throughput_fps}


def checked(name: str, cost: Estimate) -> Estimate:
    """An estimate, refused where k-hot has a DSP slice.

    Raises:
        CheckFailedError: naming the layers.
    """
    layers = [f"{layer.node} ({layer.dsp})" for layer in cost.layers if layer.dsp]
    if name.startswith("khot") and layers:
        raise CheckFailedError(f"{name} is estimated to take DSP slices, in {', '.join(layers)}")
    return cost


# --- the tables

Found = Mapping[tuple[str, str], Sequence[float]]
"""Test accuracies (or what moved) by (formats, method), in the order of the seeds."""


def spread(values: Sequence[float], signed: bool = False) -> str:
    """Mean, lowest and highest, in percent or (signed) in percentage points."""
    sign = "+z" if signed else "z"  # z: never -0.00
    figures = statistics.mean(values), min(values), max(values)
    mean, low, high = (f"{100 * value:{sign}.2f}" for value in figures)
    return f"{mean} ({low} to {high})"


def gains(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """What ``a`` has over ``b``, seed by seed."""
    return [x - y for x, y in zip(a, b, strict=True)]


def verdict(differences: Sequence[float]) -> str:
    """Whether the seeds agree on who is better."""
    higher, lower = (sum(sign * value > 0 for value in differences) for sign in (1, -1))
    if max(higher, lower) == len(differences):
        return "higher in every seed" if higher else "lower in every seed"
    return f"higher in {higher} of {len(differences)} seeds: not told apart"


def element_table(found: Found, moved: Found, bits: Sequence[int]) -> list[str]:
    """Part (a)."""
    lines = [
        "| bits | rounded | float trained on, then rounded | points held | QFX | points that QFX moved |",
        "|---:|---|---|---|---|---|",
    ]
    for width in bits:
        name = elements(width)
        methods = [spread(found[name, method]) for method in (ROUNDED, ROUNDED_LONGER, HELD, QFX)]
        lines.append(f"| {' | '.join([str(width), *methods, spread(moved[name, QFX])])} |")
    lines.append("")
    return lines + [element_verdicts(found, width) for width in bits]


def element_verdicts(found: Found, bits: int) -> str:
    """What QFX gains over each of the others."""
    name = elements(bits)
    said = []
    for what, method in (
        ("rounded", ROUNDED),
        ("trained on, rounded", ROUNDED_LONGER),
        ("points held", HELD),
    ):
        over = gains(found[name, QFX], found[name, method])
        said.append(f"{what}: {spread(over, signed=True)}, {verdict(over)}")
    return f"- {bits} bits, QFX over {'; '.join(said)}."


def weight_table(found: Found, costs: Mapping[str, Sequence[Record]], formats: Sequence[str]) -> list[str]:
    """Part (b); the hardware's figures are medians over the seeds."""
    lines = [
        f"| weights and scales | rounded | trained | trained, over `{formats[0]}` | DSP | LUT "
        "| of which matrix products | BRAM18 | fastest, images/s |",
        "|---|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for text in formats:
        trained = found[text, QFX]
        over = spread(gains(trained, found[formats[0], QFX]), signed=True)
        figures = [
            f"{statistics.median(record[name] for record in costs[text]):,.0f}"
            for name in ("dsp", "lut", "matrix_lut", "bram18", "fastest")
        ]
        lines.append(
            f"| {' | '.join([f'`{text}`', spread(found[text, ROUNDED]), spread(trained), over, *figures])} |"
        )
    return lines


INTRODUCTION = """# QFX's claims, on Fashion-MNIST

resnet8, {images:,} training images; {float_epochs} epochs in float (learning rate {learning_rate:g}, batch \
{batch_size}), then {quantised_epochs} more (learning rate {quantised_learning_rate:g}) of whatever is \
trained on. Top-1 accuracy in percent on {test_images:,} test images: mean (lowest to highest) of {seeds} \
seeds; differences are in points, seed by seed. Every column of a seed starts from the same float network. \
All runs together took {minutes:.0f} minutes on one thread.

In these runs batch norms used each batch's statistics to the end, which in narrow formats leaves much to \
chance, and binary points hardly moved. [Why, and what was tried](qfx_points.md).

Float: {float}; trained on in float: {longer}.

## (a) Element-wise layers

Batch norm (scale, bias and result), residual add and average pool at so many bits, one binary point per \
tensor; weights of convolutions and of the linear layer at 8 bits, their biases and the logits at 16.

- Rounded: binary points with the least squared error on {calibration} training images, nothing trained.
- Points held: from there on the weights are trained with quantisers in place, the binary points are not.
- QFX: from there on both are trained. Points that moved: percent of the binary points.
"""

WEIGHTS = """
## (b) K-hot weights

Weights, batch norm's scales and the pool's constant in one format, activations `fixed<8>`, biases \
`fixed<16>`; trained: weights and scales' exponents, as QFX above. DSP, LUT and BRAM18 are estimated by \
`qhw.cost.estimate` ({label}) for the smallest design at {rate:,.0f} images/s on {board} ({lut:,} LUT, \
{dsp} DSP); fastest: of the designs in 80% of the board. Medians over the seeds.
"""


def report(
    records: Sequence[tuple[Job, Record]], recipe: Recipe, bits: Sequence[int], formats: Sequence[str]
) -> str:
    """The whole file."""
    accuracies: dict[tuple[str, str], list[float]] = {}
    moved: dict[tuple[str, str], list[float]] = {}
    costs: dict[str, list[Record]] = {}
    for job, record in records:
        if job.method == ESTIMATE:
            costs.setdefault(job.name, []).append(record)
        else:
            accuracies.setdefault((job.name, job.method), []).append(record["accuracy"])
            moved.setdefault((job.name, job.method), []).append(record["moved"])
    board = load_board(BOARD)
    introduction = INTRODUCTION.format(
        **dataclasses.asdict(recipe.training),
        images=recipe.images,
        test_images=recipe.test_images,
        seeds=len(accuracies["float", ROUNDED]),
        minutes=sum(record["seconds"] for _, record in records) / 60,
        float=spread(accuracies["float", ROUNDED]),
        longer=spread(accuracies["float", ROUNDED_LONGER]),
        calibration=CALIBRATION_IMAGES,
    )
    weights = WEIGHTS.format(
        label=LABEL,
        rate=RATE,
        board=board.title,
        lut=board.capacity["lut"],
        dsp=board.capacity["dsp"],
    )
    tables = element_table(accuracies, moved, bits), weight_table(accuracies, costs, formats)
    return "\n".join([introduction, *tables[0], weights, *tables[1], ""])


def collect(bench: Bench, wanted: Sequence[Job], store: Store) -> list[tuple[Job, Record]]:
    """Every job's result, with progress shown."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found = []
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(wanted))
        for job in wanted:
            bar.update(task, description=f"{job.name}, {job.method}, seed {job.seed}")
            found.append((job, store.get(job.key(bench.recipe), partial(bench.run, job))))
            bar.advance(task)
    return found


def main() -> None:
    """Train what is not stored yet, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a smoke test, its table shown and not kept")
    parser.add_argument("--afresh", action="store_true", help="forget the stored results")
    parser.add_argument("--estimate", action="store_true", help="forget the stored estimates of hardware")
    given = parser.parse_args()
    torch.set_num_threads(1)
    recipe, seeds, bits, formats, result = Recipe(), given.seeds, BITS, WEIGHT_FORMATS, RESULT
    if given.quick:
        training = dataclasses.replace(TRAINING, float_epochs=1, quantised_epochs=1)
        recipe = Recipe(images=640, test_images=500, training=training)
        seeds, bits, formats = 1, BITS[-1:], (WEIGHT_FORMATS[0], WEIGHT_FORMATS[-1])
        result = CHECKPOINTS / "quick.md"
    store, wanted = Store(result.with_suffix(".json")), jobs(range(seeds), bits, formats)
    for job in wanted:
        if given.afresh or (given.estimate and job.method == ESTIMATE):
            store.records.pop(job.key(recipe), None)
    records = collect(Bench(load_dataset("fashion-mnist"), recipe), wanted, store)
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text(report(records, recipe, bits, formats))
    Console().print(result.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
