"""Strategies that search while they train, against formats that are the same everywhere.

(a) FLIQS (arXiv 2308.03290): the points of its runs against uniform points of no more cost, and against the
same points trained from the float weights, all for as many epochs.
(b) Formats trained by gradients (HGQ's idea, arXiv 2405.00645): the epochs of one run against uniform ones.

Cost is the estimated LUT of the smallest hls4ml design at a rate, multipliers in LUT. The network is trained
in float first. A fifth of the training split is held out: points are chosen by it, and by nothing else; the
test split is for the tables. Every network and seed is a job, kept in a JSON file beside the table.

    python benchmarks/one_shot_search.py [--seeds 3] [--workers 2] [--quick] [--afresh]
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import nn

from qhw import checkpoints
from qhw.boards import load_board
from qhw.cost.pricing.estimate import LABEL
from qhw.data import load_dataset
from qhw.data.base import Dataset, holdout
from qhw.export import to_onnx
from qhw.flows.base import load_flow
from qhw.graph.lower import lower
from qhw.models import build_model, model_entry
from qhw.models.digits_cnn import DigitsCnn
from qhw.pipeline.designs import Wanted
from qhw.quant_config import QuantConfig
from qhw.search.evaluators.base import Held
from qhw.search.evaluators.full_qat import FullQat
from qhw.search.evaluators.output_error import OutputError
from qhw.search.network import CALIBRATION, Variants, sites_of
from qhw.search.pareto import front, hypervolume
from qhw.search.pricing import CircuitPricer
from qhw.search.space import Point, SpaceSettings
from qhw.search.strategies.fliqs import Fliqs, FliqsSettings
from qhw.search.strategies.gradient import Gradient, GradientSettings
from qhw.search.strategies.training import TrainedPoint, TrainingProblem
from qhw.train import Phase, TrainConfig, evaluate

RESULT = Path(__file__).parent / "results" / "one_shot_search.md"
BOARD, FLOW = "ultra96-v2", "hls4ml"
HELD_OUT = 5
"""Every so-many-th training sample of a class is held out."""

LOWEST = 0.9
"""The accuracy from which the area under a front is taken; its highest cost is that of the widest point."""


@dataclass(frozen=True)
class Recipe:
    """How the networks are trained and searched.

    Args:
        fps: the rate that designs reach, images per second.
        float_epochs: epochs in float; 0: the model's own recipe.
        epochs: those of a FLIQS run, and of each network that is trained in fixed formats.
        targets: FLIQS's target costs.
        gradient: settings of the run that trains formats.
    """

    fps: float = 100_000.0
    float_epochs: int = 0
    epochs: int = 36
    targets: int = 3
    gradient: GradientSettings = dataclasses.field(default_factory=GradientSettings)


@dataclass(frozen=True)
class Network:
    """A network of the study."""

    title: str
    model: str
    build: Callable[[Dataset, int], nn.Module]


def narrow_digits(data: Dataset, seed: int) -> nn.Module:
    """digits-cnn with 4 channels in place of 16: small enough that formats cost it accuracy."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return DigitsCnn(data.image_shape, data.classes, data.normalisation, width=4)


NETWORKS = {
    network.title: network
    for network in (
        Network("digits-cnn", "digits-cnn", lambda data, seed: build_model("digits-cnn", data, seed=seed)),
        Network("digits-cnn, 4 channels", "digits-cnn", narrow_digits),
        Network("mnist-cnn", "mnist-cnn", lambda data, seed: build_model("mnist-cnn", data, seed=seed)),
    )
}
DEFAULT = ("digits-cnn", "digits-cnn, 4 channels")

Record = dict[str, Any]
"""A point: ``cost``, ``held`` and ``test`` (0 to 1), ``formats``; or all that a job found."""


class Bench:
    """One network of one seed: its float weights, its prices, and what is trained from them."""

    def __init__(self, network: Network, seed: int, recipe: Recipe) -> None:
        self.recipe = recipe
        full = load_dataset(model_entry(network.model).dataset)
        trained_on, held = holdout(full.train_y, HELD_OUT)
        self.data = dataclasses.replace(
            full, train_x=full.train_x[trained_on], train_y=full.train_y[trained_on]
        )
        judge = dataclasses.replace(full.judge, targets=full.train_y[held])
        self.held = Held(full.train_x[held], judge)
        own = model_entry(network.model).recipe()
        epochs = recipe.float_epochs or own.float_epochs
        self.config: TrainConfig = dataclasses.replace(
            own, seed=seed, threads=1, float_epochs=epochs, quantised_epochs=recipe.epochs
        )
        self.model = network.build(self.data, seed)
        identity = checkpoints.fingerprint(checkpoints.weights_hash(self.model), self.data.sha256)
        Phase("float", epochs, own.learning_rate, self.config, None, identity).run(
            self.model, self.data, None
        )
        example = torch.from_numpy(self.data.train_x[:CALIBRATION]).float()
        space = SpaceSettings().space(sites_of(self.model, QuantConfig(), example[:2]), QuantConfig())
        self.variants = Variants(self.model, space, example)
        graphs = [lower(to_onnx(module)) for module in self.variants.modules]
        choices = self.variants.sources()
        wanted = Wanted(fps=recipe.fps, multipliers="lut")
        pricer = CircuitPricer(graphs, choices, space.counts, load_flow(FLOW), load_board(BOARD), wanted)

        def price(points: Sequence[Point] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            costs = pricer.price(points)
            return costs.objective("lut"), costs.fits

        self.problem = TrainingProblem(self.variants, price, self.data, self.held, self.config)
        self.qat = FullQat(self.variants, self.held, self.data, self.config)

    def run(self) -> Record:
        """All that is compared."""
        seconds: dict[str, float] = {}

        def timed(what: str, find: Callable[[], Any]) -> Any:
            started = time.process_time()
            found = find()
            seconds[what] = seconds.get(what, 0.0) + time.process_time() - started
            return found

        settings = FliqsSettings(epochs=self.recipe.epochs, targets=self.recipe.targets)
        fliqs = timed("fliqs", Fliqs(self.problem, settings).run)
        gradient = timed("gradient", Gradient(self.problem, self.recipe.gradient).run)
        found = [*fliqs, *gradient]
        retrained = [timed("retrained", lambda p=point: self.trained(p.point)) for point in fliqs]
        uniform = [timed("uniform", lambda p=point: self.trained(p)) for point in self.uniform(found)]
        return {
            "float": evaluate(self.model, self.data),
            "widest": float(self.problem.price([self.variants.space.widest()])[0][0]),
            "fliqs": [self.shown(point) for point in fliqs],
            "retrained": retrained,
            "gradient": [self.shown(point) for point in gradient],
            "uniform": uniform,
            "seconds": seconds,
        }

    def shown(self, point: TrainedPoint) -> Record:
        """A point that a strategy trained."""
        test = evaluate(point.network(self.variants), self.data)
        return self.record(point.point, point.evaluation.figure, test)

    def trained(self, point: Point) -> Record:
        """A point that is trained from the float weights."""
        held = self.qat.evaluate(point).figure
        return self.record(point, held, evaluate(self.qat.network(point), self.data))

    def record(self, point: Point, held: float, test: float) -> Record:
        """A point as it is stored."""
        cost = float(self.problem.price([point])[0][0])
        return {"cost": cost, "held": held, "test": test, "formats": self.variants.space.formats(point)}

    def uniform(self, found: Sequence[TrainedPoint]) -> list[Point]:
        """For each point found, the uniform one of no more cost whose outputs are best; and the widest."""
        proxy = OutputError(self.variants, self.held)
        points = self.variants.space.uniform()
        costs, fits = self.problem.price(points)
        quality = np.where(fits, [proxy.evaluate(point).quality for point in points], -np.inf)
        chosen = {self.variants.space.widest(): None}
        for point in found:
            affordable = np.where(costs <= point.cost, quality, -np.inf)
            if np.isfinite(affordable.max()):
                chosen[points[int(affordable.argmax())]] = None
        return list(chosen)


def job(title: str, seed: int, recipe: Recipe) -> Record:
    """A job's result, in a process of its own."""
    torch.set_num_threads(1)
    return Bench(NETWORKS[title], seed, recipe).run()


def key(title: str, seed: int, recipe: Recipe) -> str:
    """Text that differs where the result may."""
    return f"{title}, seed {seed}, settings {checkpoints.fingerprint(recipe, torch.__version__)[:12]}"


# --- the tables


def best_within(points: Sequence[Record], cost: float) -> Record | None:
    """Of the points of no more cost, that best on the samples held out; of equals the dearer."""
    affordable = [point for point in points if point["cost"] <= cost]
    return max(affordable, key=lambda point: (point["held"], point["cost"]), default=None)


def verdict(differences: Sequence[float]) -> str:
    """Mean, lowest and highest in points, and in how many cases it is higher or lower."""
    if not differences:
        return "no pair"
    mean, low, high = (
        f"{100 * v:+.2f}" for v in (statistics.mean(differences), min(differences), max(differences))
    )
    higher, lower = (sum(sign * value > 0 for value in differences) for sign in (1, -1))
    return f"{mean} ({low} to {high}); higher in {higher}, lower in {lower} of {len(differences)}"


def fliqs_table(records: Sequence[Record]) -> list[str]:
    """A row per point of FLIQS."""
    lines = [
        "| seed | FLIQS, LUT | FLIQS | retrained | uniform, LUT | uniform | uniform formats |",
        "|---:|---:|---:|---:|---:|---:|---|",
    ]
    for seed, record in enumerate(records):
        for point, again in zip(record["fliqs"], record["retrained"], strict=True):
            other = best_within(record["uniform"], point["cost"])
            cells = [f"{seed}", f"{point['cost']:,.0f}", percent(point), percent(again)]
            cells += (
                ["", "", ""] if other is None else [f"{other['cost']:,.0f}", percent(other), summary(other)]
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def gradient_table(records: Sequence[Record]) -> list[str]:
    """A row per point of the gradient's front."""
    lines = ["| seed | gradient, LUT | gradient | uniform, LUT | uniform | uniform formats |"]
    lines += ["|---:|---:|---:|---:|---:|---|"]
    for seed, record in enumerate(records):
        for point in record["gradient"]:
            other = best_within(record["uniform"], point["cost"])
            cells = [f"{seed}", f"{point['cost']:,.0f}", percent(point)]
            cells += (
                ["", "", ""] if other is None else [f"{other['cost']:,.0f}", percent(other), summary(other)]
            )
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def percent(point: Record) -> str:
    """The accuracy on the test split."""
    return f"{100 * point['test']:.2f}"


def summary(point: Record) -> str:
    """The formats of a uniform point: of its weights, then of its results."""
    formats = point["formats"]
    order = sorted(formats, key=lambda name: not name.endswith(".weights"))
    return " ".join(f"`{text}`" for text in dict.fromkeys(formats[name] for name in order))


def differences(records: Sequence[Record], ours: str, theirs: str) -> list[float]:
    """By how much points of one kind are better on the test split than the others at no more cost."""
    found = []
    for record in records:
        for place, point in enumerate(record[ours]):
            other = (
                record["retrained"][place]
                if theirs == "retrained"
                else best_within(record[theirs], point["cost"])
            )
            if other is not None:
                found.append(point["test"] - other["test"])
    return found


def area(record: Record, kind: str) -> float:
    """The area under the front that was chosen on the samples held out, of the whole, on the test split."""
    points = record[kind]
    kept = [points[place] for place in front([p["cost"] for p in points], [p["held"] for p in points])]
    best = hypervolume([p["cost"] for p in kept], [p["test"] for p in kept], (record["widest"], LOWEST))
    return best / (record["widest"] * (1 - LOWEST))


INTRODUCTION = """# Search while training, against formats that are the same everywhere

Networks are trained in float, then searched; formats of weights: {weights}; of results: {activations}; one \
variable per layer's weights and one per result, results that meet in an addition sharing one.

- **FLIQS**: {targets} runs with as many target costs, {epochs} epochs each; its likeliest point with the \
weights at the end of the run.
- **Retrained**: the same point, {epochs} epochs of quantisation-aware training from the float weights.
- **Gradient**: one run of {gradient} epochs, of which the front is kept; cost weights {first:g} to {last:g}.
- **Uniform**: for each point found, of all points with one format for weights and one for results that cost \
no more, that whose outputs are closest to the float network's; and the widest. {epochs} epochs from the \
float weights. In a comparison, the one at no more cost that is best on the samples held out.

Every {held}th training sample of a class is held out, and all choices are made by those; accuracies are \
top-1 on the test split, in percent: one image of 364 is 0.27 points. Cost: estimated LUT of the smallest \
{flow} design at {fps:,.0f} images/s on {board}, multipliers in LUT ({label}). Differences are in points, \
over all pairs of all {seeds} seeds. Area: that under the front between the widest point's cost and an \
accuracy of {lowest:.0%}, as a share of the whole.
"""


def section(title: str, records: Sequence[Record]) -> list[str]:
    """What was seen on one network."""
    floats = [record["float"] for record in records]
    seconds = {
        kind: statistics.mean(record["seconds"][kind] for record in records) for kind in records[0]["seconds"]
    }
    spent = ", ".join(f"{kind} {value:.0f}" for kind, value in seconds.items())
    areas = {
        kind: [area(record, kind) for record in records]
        for kind in ("uniform", "fliqs", "retrained", "gradient")
    }
    shown = ", ".join(
        f"{kind} {statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
        for kind, values in areas.items()
    )
    return [
        f"## {title}",
        "",
        f"Float: {100 * statistics.mean(floats):.2f} ({100 * min(floats):.2f} to {100 * max(floats):.2f}).",
        "",
        f"- FLIQS over uniform at no more cost: {verdict(differences(records, 'fliqs', 'uniform'))}.",
        f"- FLIQS's one shot over retraining: {verdict(differences(records, 'fliqs', 'retrained'))}.",
        f"- FLIQS's points retrained over uniform: {verdict(differences(records, 'retrained', 'uniform'))}.",
        f"- Gradient over uniform at no more cost: {verdict(differences(records, 'gradient', 'uniform'))}.",
        f"- Area: {shown}.",
        f"- Processor seconds per seed: {spent}.",
        "",
        *fliqs_table(records),
        "",
        *gradient_table(records),
        "",
        "Formats of the gradient's front, seed 0:",
        "",
        *(
            f"- {point['cost']:,.0f} LUT, {percent(point)}: "
            + ", ".join(f"{name} `{text}`" for name, text in point["formats"].items())
            for point in records[0]["gradient"]
        ),
        "",
    ]


def report(found: dict[str, list[Record]], recipe: Recipe) -> str:
    """The whole file."""
    space = SpaceSettings()
    introduction = INTRODUCTION.format(
        weights=", ".join(f"`{text}`" for text in space.weights),
        activations=", ".join(f"`{text}`" for text in space.activations),
        targets=recipe.targets,
        epochs=recipe.epochs,
        gradient=recipe.gradient.cycles * recipe.gradient.epochs,
        first=recipe.gradient.beta[0],
        last=recipe.gradient.beta[1],
        held=HELD_OUT,
        flow=FLOW,
        fps=recipe.fps,
        board=load_board(BOARD).title,
        label=LABEL,
        seeds=len(next(iter(found.values()))),
        lowest=LOWEST,
    )
    sections = [line for title, records in found.items() for line in section(title, records)]
    return "\n".join([introduction, *sections])


def stored(path: Path) -> dict[str, Record]:
    """The results so far."""
    return json.loads(path.read_text()) if path.is_file() else {}


def keep(path: Path, records: dict[str, Record]) -> None:
    """Write the results: whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.part-{os.getpid()}")
    beside.write_text(json.dumps(records, indent=1) + "\n")
    beside.replace(path)


def main() -> None:
    """Train what is not stored yet, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=list(DEFAULT))
    parser.add_argument("--quick", action="store_true", help="a smoke test, its table shown and not kept")
    parser.add_argument("--afresh", action="store_true", help="forget the stored results")
    given = parser.parse_args()
    recipe, seeds, networks, result = Recipe(), given.seeds, given.networks, RESULT
    if given.quick:
        recipe = Recipe(float_epochs=2, epochs=2, targets=1, gradient=GradientSettings(cycles=2, epochs=1))
        seeds, networks = 1, [DEFAULT[-1]]
        result = Path(tempfile.mkdtemp()) / "quick.md"
    records = {} if given.afresh else stored(result.with_suffix(".json"))
    wanted = [(title, seed) for title in networks for seed in range(seeds)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, mp_context=context) as pool:
        running = {
            key(title, seed, recipe): pool.submit(job, title, seed, recipe)
            for title, seed in wanted
            if key(title, seed, recipe) not in records
        }
        for name, future in running.items():
            records[name] = future.result()
            keep(result.with_suffix(".json"), records)
            Console(stderr=True).print(f"{name}: done", highlight=False)
    found = {title: [records[key(title, seed, recipe)] for seed in range(seeds)] for title in networks}
    result.write_text(report(found, recipe))
    Console().print(result.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
