"""Why trained binary points hardly move (part (a) of qfx_evidence.py), and whether any recipe gains by them.

Every recipe starts from the same float network of a seed, sees the same batches in the same order, and is
compared with "held": quantised training in which the binary points stay where least squared error put them.
Recipes differ in where the points start, how fast and by which rule they are trained, until when, and whether
scales are free meanwhile. How far theta went, how often it crossed into another binary point and how much of
its gradient cancels out is recorded beside the accuracy.

Nothing is chosen on the test split within a run. Every run's result is kept in a JSON file beside the table,
by its settings: what is there is not run again.

    python benchmarks/qfx_points.py [--only NETWORK] [--quick]
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from qfx_evidence import TRAINING, Record, Store, element_wise, gains, spread, verdict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from torch import Tensor, nn

from qhw import checkpoints
from qhw.accelerator import Step
from qhw.convert import QuantConfig, convert
from qhw.data import load_dataset
from qhw.data.base import Dataset
from qhw.models import build_model
from qhw.models.digits_cnn import RECIPE as DIGITS_TRAINING
from qhw.models.resnet8 import ResidualBlock, ResNet8
from qhw.ptq.observation import watched
from qhw.quantizers import Quantizer
from qhw.quantizers.statistics import best_fraction
from qhw.train import CALIBRATION_IMAGES, Phase, TrainConfig, evaluate

RESULT = Path(__file__).parent / "results" / "qfx_points.md"
CHECKPOINTS = Path(__file__).parents[1] / "build" / "qfx_points"

HELD = "held"
ROUNDED = "rounded"
LOSS_IMAGES = 512
"""Training images by whose loss points are chosen where a recipe starts by the loss."""


@dataclass(frozen=True)
class Recipe:
    """How binary points are found and trained.

    Args:
        start: "mse": least squared error on 256 images, the middle of theta's cell; "optimum": the same
            binary point, theta where the error of a free scale is least, at most 0.49 off the middle; "max":
            the largest number of those images fits; "loss": as "mse", then each narrow point one bit up or
            down where the training loss of the network falls.
        rate: the points' learning rate over the weights'; 0: they are held.
        update: "adam": AdamW, as the weights; "sgd": plain gradient descent; "lsq": the same with the
            gradient over sqrt(n q_max) (LSQ, arXiv 1902.08153, section 2.2).
        until: share of the steps after which points are held, theta rounded.
        free: until then the scale is 2^-theta itself.
        renewed: how often least squared error on the network as it then is sets them anew, evenly over the
            first half of the steps.
        epochs: multiple of the quantised epochs.
        scratch: weights are trained with quantisers from their random start, for the float epochs too.
        freeze: share of the steps after which batch norms take their running statistics, as in evaluation.
        order: added to the seed of the images' order: what chance alone does to a run.
        trained: whether there is any training.
    """

    start: str = "mse"
    rate: float = 0.0
    update: str = "adam"
    until: float = 1.0
    free: bool = False
    renewed: int = 0
    epochs: int = 1
    scratch: bool = False
    freeze: float = 1.0
    order: int = 0
    trained: bool = True


RECIPES: Mapping[str, Recipe] = {
    ROUNDED: Recipe(trained=False),
    HELD: Recipe(),
    "another order": Recipe(order=1000),
    "rate 1": Recipe(rate=1),
    "rate 10": Recipe(rate=10),
    "rate 30": Recipe(rate=30),
    "rate 100": Recipe(rate=100),
    "rate 30, half": Recipe(rate=30, until=0.5),
    "optimum, rate 10": Recipe("optimum", rate=10),
    "SGD 100": Recipe(rate=100, update="sgd"),
    "SGD 10,000": Recipe(rate=10_000, update="sgd"),
    "LSQ 1,000": Recipe(rate=1_000, update="lsq"),
    "LSQ 100,000": Recipe(rate=100_000, update="lsq"),
    "free 30, half": Recipe(rate=30, free=True, until=0.5),
    "renewed 4": Recipe(renewed=4),
    "loss": Recipe("loss"),
    "max": Recipe("max"),
    "max, rate 10": Recipe("max", rate=10),
    "max, free 30, half": Recipe("max", rate=30, free=True, until=0.5),
    "4x": Recipe(epochs=4),
    "4x, rate 10": Recipe(rate=10, epochs=4),
    "4x, rate 30, half": Recipe(rate=30, until=0.5, epochs=4),
    "scratch": Recipe(scratch=True),
    "scratch, rate 10": Recipe(rate=10, scratch=True),
    "scratch, renewed 4": Recipe(renewed=4, scratch=True),
    "frozen": Recipe(freeze=0.5),
    "frozen, another order": Recipe(freeze=0.5, order=1000),
    "frozen, rate 10": Recipe(rate=10, freeze=0.5),
    "frozen, rate 30, half": Recipe(rate=30, until=0.5, freeze=0.5),
    "frozen, free 30, half": Recipe(rate=30, free=True, until=0.5, freeze=0.5),
    "frozen, renewed 4": Recipe(renewed=4, freeze=0.5),
    "frozen, loss": Recipe("loss", freeze=0.5),
    "frozen, max": Recipe("max", freeze=0.5),
    "frozen, max, rate 30, half": Recipe("max", rate=30, until=0.5, freeze=0.5),
    "frozen at once": Recipe(freeze=0.0),
}


HELD_SETTINGS = {"start": "mse", "rate": 0.0, "update": "adam", "until": 1.0, "free": False, "renewed": 0}
NAMES = {recipe: name for name, recipe in RECIPES.items()}


def points_held(recipe: str) -> str:
    """The recipe with the same training whose points stay where least squared error put them."""
    return NAMES[dataclasses.replace(RECIPES[recipe], **HELD_SETTINGS, order=0, trained=True)]


def norms_not_frozen(recipe: str) -> str:
    """The recipe that differs in nothing but that batch norms keep each batch's statistics."""
    return NAMES[dataclasses.replace(RECIPES[recipe], freeze=1.0)]


@dataclass(frozen=True)
class Formats:
    """A network's formats; ``bits``: of the narrow quantizers, whose points are reported."""

    quant: QuantConfig
    bits: int


def everything(bits: int, per_channel: bool = False) -> QuantConfig:
    """Weights, results, batch norm's scales and pools' constants at so many bits; biases and logits at 16."""
    narrow = dict.fromkeys(("weights", "scales", "activations"), f"fixed<{bits}>")
    return QuantConfig(**narrow, per_channel=per_channel)


FORMATS: Mapping[str, Formats] = {
    **{f"element-wise {bits}": Formats(element_wise(bits), bits) for bits in (8, 4, 3, 2)},
    **{f"everything {bits}": Formats(everything(bits), bits) for bits in (4, 3)},
    **{f"per channel {bits}": Formats(everything(bits, True), bits) for bits in (4, 3)},
}


class ThinResNet8(ResNet8):
    """resnet8 with 8, 16 and 32 channels in place of 16, 32 and 64."""

    WIDTH = 8

    def __init__(self, channels: int, classes: int, normalisation: int) -> None:
        super().__init__(channels, classes, normalisation)
        width = self.WIDTH
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.block1 = ResidualBlock(width, width, 1)
        self.block2 = ResidualBlock(width, 2 * width, 2)
        self.block3 = ResidualBlock(2 * width, 4 * width, 2)
        self.classify = nn.Linear(4 * width, classes)


def thin_resnet8(data: Dataset, seed: int) -> nn.Module:
    """The thin network with seeded weights."""
    torch.manual_seed(seed)
    return ThinResNet8(data.train_x.shape[1], data.classes, data.normalisation)


def fashion(images: int, test_images: int, halved: bool = False) -> Dataset:
    """Fashion-MNIST: training images from all over the split, the first test images.

    ``halved``: 14x14 pixels, each the rounded mean of four.
    """
    data = load_dataset("fashion-mnist")
    chosen = np.linspace(0, len(data.train_x) - 1, images).astype(np.int64)
    shrink = halve if halved else (lambda pixels: pixels)
    return dataclasses.replace(
        data,
        train_x=shrink(data.train_x[chosen]),
        train_y=data.train_y[chosen],
        test_x=shrink(data.test_x[:test_images]),
        test_y=data.test_y[:test_images],
    )


def halve(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 (N, C, H, W) to (N, C, H / 2, W / 2)."""
    count, channels, height, width = pixels.shape
    blocks = pixels.reshape(count, channels, height // 2, 2, width // 2, 2)
    return blocks.astype(np.float32).mean(axis=(3, 5)).round().astype(np.uint8)


@dataclass(frozen=True)
class Network:
    """A network, its data and how it is trained; ``about`` is for the reader."""

    name: str
    about: str
    build: Callable[[Dataset, int], nn.Module]
    data: Callable[[], Dataset]
    training: TrainConfig


NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        Network(
            "digits-cnn",
            "the reference network on scikit-learn's digits, 8x8, its own recipe",
            lambda data, seed: build_model("digits-cnn", data, seed=seed),
            lambda: load_dataset("digits"),
            DIGITS_TRAINING,
        ),
        Network(
            "thin-resnet8",
            "resnet8 of 8, 16 and 32 channels on Fashion-MNIST at 14x14, 10,000 training images",
            thin_resnet8,
            partial(fashion, 10_000, 10_000, halved=True),
            TRAINING,
        ),
        Network(
            "resnet8",
            "the network, images and epochs of qfx_evidence.py",
            lambda data, seed: build_model("resnet8", data, seed=seed),
            partial(fashion, 10_000, 10_000),
            TRAINING,
        ),
    )
}


@dataclass(frozen=True)
class Job:
    """One result to find."""

    network: str
    formats: str
    recipe: str
    seed: int

    @property
    def key(self) -> str:
        """Text that differs where the result may."""
        recipe, network = RECIPES[self.recipe], NETWORKS[self.network]
        quant = FORMATS[self.formats].quant.to_mapping()
        identity = checkpoints.fingerprint(recipe, quant, network.training, network.about)
        return f"{self.network}, {self.formats}, {self.recipe}, seed {self.seed}, settings {identity[:12]}"


# --- binary points on their way


@dataclass
class Course:
    """Trains a network's binary points as a recipe says, and writes down where they go.

    Args:
        images: float32 (N, ...) on which statistics are taken.
        bits: width of the narrow quantizers.
        rates: the peak learning rate of the weights.
    """

    model: nn.Module
    recipe: Recipe
    images: Tensor
    bits: int
    steps: int
    done: int = 0
    thetas: list[NDArray[np.float64]] = field(default_factory=list)
    gradients: list[NDArray[np.float64]] = field(default_factory=list)
    reach: float = 0.0

    def __post_init__(self) -> None:
        quantizers = [m for m in self.model.modules() if isinstance(m, Quantizer) and m.is_open]
        self.quantizers = list({id(q): q for q in quantizers}.values())
        self.points = list({id(q.theta): q.theta for q in self.quantizers}.values())
        widths = {id(q.theta): q.spec.width for q in self.quantizers}
        flat = [np.full(theta.numel(), widths[id(theta)] == self.bits) for theta in self.points]
        self.narrow = np.concatenate(flat)
        sizes = self._sizes() if self.recipe.update == "lsq" else {}
        self.factors = [sizes.get(id(theta), 1.0) for theta in self.points]
        if self.recipe.rate == 0.0:
            self.hold()
        if self.recipe.free:
            self._set_free(True)
        self._note()

    def _sizes(self) -> dict[int, float]:
        """1 / sqrt(n q_max), n the numbers of one image or of the weights that share a point."""
        found: dict[int, float] = {}

        def look(quantizer: Quantizer, x: Tensor) -> Tensor:
            count = x.numel() / quantizer.theta.numel()
            found[id(quantizer.theta)] = (count * quantizer.rule.mantissas[1]) ** -0.5
            return x

        run_watched(self.model, self.quantizers, self.images[:1], look)
        return found

    def hold(self) -> None:
        """Points are no longer trained; theta is a whole number, scales are powers of two."""
        self._set_free(False)
        with torch.no_grad():
            for theta in self.points:
                theta.requires_grad_(False).round_()

    def _set_free(self, free: bool) -> None:
        for quantizer in self.quantizers:
            quantizer.rule = dataclasses.replace(quantizer.rule, free=free)

    def renew(self) -> None:
        """Least squared error on the network as it is sets every point anew."""
        for quantizer in self.quantizers:
            quantizer.restart()
        with torch.no_grad():
            self.model.eval()(self.images)
        self.model.train()

    def step(self, take: Step, optimizer: torch.optim.Optimizer, *batch: Tensor) -> Tensor:
        """A training step, and the points' own part of it."""
        recipe = self.recipe
        if recipe.renewed and self.done and self.done in self._renewals():
            self.renew()
        if recipe.until < 1.0 and self.done == round(recipe.until * self.steps):
            self.hold()
        own = {id(theta) for theta in self.points}
        rate = optimizer.param_groups[0]["lr"] * recipe.rate  # the weights' group comes first
        for group in optimizer.param_groups:
            if own.issuperset(map(id, group["params"])):
                group["lr"] = rate if recipe.update == "adam" else 0.0
        loss = take(*batch)
        self._move(rate)
        self.done += 1
        return loss

    def _renewals(self) -> list[int]:
        return [round(0.5 * self.steps * (i + 1) / self.recipe.renewed) for i in range(self.recipe.renewed)]

    def _move(self, rate: float) -> None:
        trains = self.points[0].requires_grad
        if trains:
            self.reach += rate
            if self.recipe.update != "adam":
                with torch.no_grad():
                    for theta, factor in zip(self.points, self.factors, strict=True):
                        if theta.grad is not None:
                            theta -= rate * factor * theta.grad
            self.gradients.append(self._flat([t.grad if t.grad is not None else t * 0 for t in self.points]))
        self._note()

    def _note(self) -> None:
        self.thetas.append(self._flat(self.points))

    @staticmethod
    def _flat(tensors: Sequence[Tensor]) -> NDArray[np.float64]:
        return torch.cat([t.detach().reshape(-1) for t in tensors]).double().numpy().copy()

    def summary(self) -> Record:
        """What happened to the narrow points (``moved_all``: to all of them)."""
        thetas = np.stack(self.thetas)
        points = np.rint(thetas)
        crossed = (points[1:] != points[:-1])[:, self.narrow]
        late = crossed[len(crossed) * 3 // 4 :]
        moved = points[-1] != points[0]
        travelled = np.abs(thetas - thetas[0])[:, self.narrow].max(0)
        record: Record = {
            "points": int(self.narrow.sum()),
            "moved": float(moved[self.narrow].mean()),
            "moved_all": float(moved.mean()),
            "shift": float((points[-1] - points[0])[self.narrow].mean()),
            "crossings": float(crossed.sum(0).mean()),
            "late_crossings": float(late.sum(0).mean()),
            "travelled": float(np.median(travelled)),
            "travelled_most": float(travelled.max()),
            "reach": self.reach,
        }
        if self.gradients:
            gradients = np.stack(self.gradients)
            sizes = np.abs(gradients).mean(0)
            agreed = np.abs(gradients.mean(0)) / np.maximum(sizes, 1e-30)
            record["agreement"] = float(np.median(agreed[self.narrow]))
            record["gradient"] = float(np.median(sizes[self.narrow]))
            record["gradient_wide"] = float(np.median(sizes[~self.narrow])) if (~self.narrow).any() else 0.0
        return {name: round(value, 9) for name, value in record.items()}


@dataclass(frozen=True)
class PointsPhase(Phase):
    """A phase of training whose binary points follow a course."""

    course: Course

    def step_of(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, data: Dataset, device: torch.device
    ) -> Step:
        """A step of the phase, with the points' part."""
        take = super().step_of(model, optimizer, data, device)
        return partial(self.course.step, take, optimizer)


def run_watched(
    model: nn.Module,
    quantizers: Sequence[Quantizer],
    images: Tensor,
    look: Callable[[Quantizer, Tensor], Tensor],
) -> None:
    """Run the network with nothing rounded, each quantizer's tensors shown to ``look``."""
    watchers = {quantizer: partial(look, quantizer) for quantizer in quantizers}
    with watched(watchers), torch.no_grad():
        model.eval()(images)


# --- where points start


def start(model: nn.Module, recipe: Recipe, bits: int, data: Dataset, images: Tensor) -> None:
    """Set open binary points as the recipe says, where they stand at the least squared error."""
    quantizers = [m for m in model.modules() if isinstance(m, Quantizer) and m.is_open]
    if recipe.start == "max":
        run_watched(model, quantizers, images, largest_fits)
    elif recipe.start == "optimum":
        run_watched(model, quantizers, images, at_optimum)
    elif recipe.start == "loss":
        by_loss(model, [q for q in quantizers if q.spec.width == bits], data)


def largest_fits(quantizer: Quantizer, x: Tensor) -> Tensor:
    """The most fraction bits at which the largest magnitude does not saturate."""
    axis = quantizer.axis if quantizer.per_channel else None
    rows = x.detach().reshape(1, -1) if axis is None else x.detach().movedim(axis, 0).flatten(1)
    largest = rows.abs().amax(1).double().clamp_min(2.0**-64)
    quantizer.set_fraction(torch.floor(torch.log2(quantizer.rule.mantissas[1] / largest)))
    return x


def at_optimum(quantizer: Quantizer, x: Tensor) -> Tensor:
    """Theta in its cell where the squared error of a free scale is least."""
    axis = quantizer.axis if quantizer.per_channel else None
    best = best_fraction(x.detach(), dataclasses.replace(quantizer.rule, free=True), axis)
    middle = quantizer.theta.detach().reshape(-1).double()
    quantizer.set_fraction(middle + (best - middle).clamp(-0.49, 0.49))
    return x


def by_loss(model: nn.Module, narrow: Sequence[Quantizer], data: Dataset) -> None:
    """Each point one bit up or down where the loss of some training images falls, one after the other."""
    chosen = np.linspace(0, len(data.train_x) - 1, LOSS_IMAGES).astype(np.int64)
    images = torch.from_numpy(data.train_x[chosen]).float()
    targets = torch.from_numpy(np.asarray(data.train_y)[chosen])

    def loss() -> float:
        return float(data.kind.loss(model(images), targets))

    with torch.no_grad():
        model.eval()
        least = loss()
        for theta in {id(q.theta): q.theta for q in narrow}.values():
            first = theta.detach().clone()
            best = first
            for other in (first + 1, first - 1):
                theta.copy_(other)
                if (found := loss()) < least:
                    least, best = found, other
            theta.copy_(best)


# --- runs


class Bench:
    """Trains and measures: the float networks of each seed once, then whatever is asked for."""

    def __init__(self) -> None:
        self.datasets: dict[str, Dataset] = {}
        self.networks: dict[tuple[str, int], nn.Module] = {}

    def run(self, job: Job) -> Record:
        """The result of a job."""
        started = time.monotonic()
        network, recipe, formats = NETWORKS[job.network], RECIPES[job.recipe], FORMATS[job.formats]
        data = self.data(network)
        config = dataclasses.replace(network.training, seed=job.seed)
        images = torch.from_numpy(calibration(data)).float()
        source = network.build(data, job.seed) if recipe.scratch else self.network(network, job.seed)
        model = convert(source, formats.quant, images[:2])
        if recipe.scratch:  # the first batch starts the points, as in qhw.train without a float phase
            with torch.no_grad():
                model.train()(images[: config.batch_size])
        else:
            Phase("float", 0, 1.0, config, None, "").run(model, data, None)  # no epochs: calibration only
        start(model, recipe, formats.bits, data, images)
        record: Record = {}
        if recipe.trained:
            own = dataclasses.replace(config, seed=job.seed + recipe.order, freeze_norms=recipe.freeze)
            record = train_points(model, data, own, recipe, formats.bits, images)
        record = {"accuracy": evaluate(model, data), **record}
        return record | {"seconds": round(time.monotonic() - started, 1)}

    def data(self, network: Network) -> Dataset:
        """A network's data, read once."""
        if network.name not in self.datasets:
            self.datasets[network.name] = network.data()
        return self.datasets[network.name]

    def network(self, network: Network, seed: int) -> nn.Module:
        """The float network of a seed; its state is kept in the build folder."""
        if (network.name, seed) not in self.networks:
            data, config = self.data(network), dataclasses.replace(network.training, seed=seed)
            model = network.build(data, seed)
            folder = CHECKPOINTS / f"{network.name}-{seed}"
            checkpoints.prepare_folder(folder)
            identity = checkpoints.fingerprint(
                checkpoints.weights_hash(model), data.sha256, torch.__version__
            )
            Phase("float", config.float_epochs, config.learning_rate, config, folder, identity).run(
                model, data, None
            )
            self.networks[network.name, seed] = model
        return self.networks[network.name, seed]


def calibration(data: Dataset) -> NDArray[np.uint8]:
    """Images from the whole training split."""
    count = len(data.train_x)
    return data.train_x[np.linspace(0, count - 1, min(CALIBRATION_IMAGES, count)).astype(np.int64)]


def train_points(
    model: nn.Module, data: Dataset, config: TrainConfig, recipe: Recipe, bits: int, images: Tensor
) -> Record:
    """Train a quantised network in place, its points as the recipe says; what the points did."""
    epochs = config.quantised_epochs * recipe.epochs
    rate = config.quantised_learning_rate
    if recipe.scratch:
        epochs, rate = config.float_epochs + config.quantised_epochs, config.learning_rate
    steps = epochs * (len(data.train_x) // config.batch_size)
    course = Course(model, recipe, images, bits, steps)
    # One name for all, so that every network sees its images in the same order.
    PointsPhase("float", epochs, rate, config, None, "", course).run(model, data, None)
    return course.summary()


# --- the tables

Found = Mapping[tuple[str, str, str], Mapping[int, Record]]
"""Records by (network, formats, recipe), then by seed."""


def by_recipe(records: Sequence[tuple[Job, Record]]) -> Found:
    """The records of each recipe, in the order of the runs."""
    found: dict[tuple[str, str, str], dict[int, Record]] = {}
    for job, record in records:
        found.setdefault((job.network, job.formats, job.recipe), {})[job.seed] = record
    return found


def cases_of(found: Found) -> list[tuple[str, str]]:
    """Every network in every format, in the order of the runs."""
    return list(dict.fromkeys((network, formats) for network, formats, _ in found))


def over(found: Found, case: tuple[str, str], recipe: str, base: str) -> list[float]:
    """What a recipe's accuracy has over another's, seed by seed; nothing where one of them was not run."""
    own, other = (found.get((*case, name), {}) for name in (recipe, base))
    seeds = [seed for seed in own if seed in other]
    return gains([own[seed]["accuracy"] for seed in seeds], [other[seed]["accuracy"] for seed in seeds])


def mean_of(records: Mapping[int, Record], name: str) -> float:
    """The mean over the seeds of something that a course counted."""
    return statistics.mean(record[name] for record in records.values())


def counted(differences: Sequence[float]) -> str:
    """In how many runs there was a gain."""
    return f"{sum(gain > 0 for gain in differences)} of {len(differences)}"


def freezing_table(found: Found) -> list[str]:
    """What frozen batch norms gain, points held and points trained."""
    lines = [
        "| network | formats | points | not frozen | frozen | gain | |",
        "|---|---|---|---|---|---|---|",
    ]
    for case in cases_of(found):
        for recipe, points in (("frozen", "held"), ("frozen, rate 10", "trained")):
            gained = over(found, case, recipe, norms_not_frozen(recipe))
            if gained:
                columns = [
                    spread([record["accuracy"] for record in found[*case, name].values()])
                    for name in (norms_not_frozen(recipe), recipe)
                ]
                row = [*case, points, *columns, spread(gained, signed=True), verdict(gained)]
                lines.append(f"| {' | '.join(row)} |")
    return lines


def points_table(found: Found) -> list[str]:
    """Every recipe over the same training with points held, all networks and formats together."""
    lines = [
        "| recipe | over the same with points held | higher | cases | higher in every seed "
        "| lower in every seed |",
        "|---|---|---|---:|---:|---:|",
    ]
    for recipe in RECIPES:
        each = [over(found, case, recipe, points_held(recipe)) for case in cases_of(found)]
        each = [case for case in each if case]
        every = [gain for case in each for gain in case]
        if every and points_held(recipe) != recipe:
            up, down = (sum(all(sign * gain > 0 for gain in case) for case in each) for sign in (1, -1))
            row = [recipe, spread(every, signed=True), counted(every), *map(str, (len(each), up, down))]
            lines.append(f"| {' | '.join(row)} |")
    return lines


COURSES = ("rate 1", "rate 10", "rate 30", "rate 100", "SGD 100", "SGD 10,000", "LSQ 1,000", "LSQ 100,000")


def course_table(found: Found) -> list[str]:
    """How far narrow points went that were trained to the end."""
    lines = [
        "| network | formats | recipe | reach | gradient | agreement | travelled | crossings | of them late "
        "| moved |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for network, formats, recipe in found:
        if recipe in COURSES:
            records = found[network, formats, recipe]
            reach = f"{mean_of(records, 'reach'):.2f}" if RECIPES[recipe].update == "adam" else ""
            row = [network, formats, recipe, reach, f"{mean_of(records, 'gradient'):.1e}"]
            row += [f"{mean_of(records, name):.2f}" for name in ("agreement", "travelled")]
            row += [f"{mean_of(records, name):.1f}" for name in ("crossings", "late_crossings")]
            lines.append(f"| {' | '.join([*row, percent(mean_of(records, 'moved'))])} |")
    return lines


def percent(share: float) -> str:
    """A share for the reader."""
    return f"{100 * share:.0f}%"


def recipe_table(found: Found, case: tuple[str, str]) -> list[str]:
    """One network in one format."""
    lines = [
        "| recipe | accuracy | over the same with points held | higher | crossings | moved |",
        "|---|---|---|---|---:|---:|",
    ]
    for (*of_case, recipe), records in found.items():
        if tuple(of_case) != case:
            continue
        trained = RECIPES[recipe].trained
        gained = [] if points_held(recipe) == recipe else over(found, case, recipe, points_held(recipe))
        cells = [
            recipe,
            spread([record["accuracy"] for record in records.values()]),
            spread(gained, signed=True) if gained else "",
            counted(gained) if gained else "",
            f"{mean_of(records, 'crossings'):.1f}" if trained else "",
            percent(mean_of(records, "moved")) if trained else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


INTRODUCTION = """# Do trained binary points gain anything?

{conclusion}

## How it was measured

Top-1 accuracy in percent: mean (lowest to highest) over the seeds; differences are in points, seed by \
seed. Every recipe of a seed starts from the same float network and sees the same batches in the same \
order. The test split is looked at once per run, at its end; recipes are compared by it. That freezing \
batch norms gains was first seen on seed 0 of thin-resnet8, element-wise 3; all other rows came after. \
The networks:

{networks}

The formats: *element-wise b*: batch norm's scales, biases and results, residual add and average pool at \
b bits, weights at 8; *everything b*: weights, scales and results at b bits, biases at 16; *per channel \
b*: the same, each output channel with its own binary points for weights and batch norm's constants.

The recipes:

- *rounded*: binary points with the least squared error on {calibration} training images, nothing \
trained.
- *held*: from there on the weights are trained with quantisers in place, the points are not.
- *rate k*: the points are trained too, by AdamW at k times the weights' learning rate (qhw: 10).
- *half*: from the middle of the steps on they are held.
- *optimum*: theta starts at the free scale of least error, at most 0.49 off the middle of its cell.
- *SGD k*, *LSQ k*: gradient descent at k times the rate; LSQ with the gradient over sqrt(n q_max).
- *free*: the scale is 2^-theta itself, not a power of two, until the points are held.
- *renewed n*: points are held; least squared error on the network as it then is sets them n times anew.
- *loss*: each narrow point starts one bit up or down where the training loss falls by that.
- *max*: points start where the largest number fits.
- *4x*: four times the epochs. *scratch*: no float phase, weights are trained with quantisers from the \
first.
- *frozen*: from the middle of the steps on, batch norms use their running statistics (*at once*: all \
along).
- *another order*: the batches in another order and nothing else: what chance does to a run.
"""

WENT = """Means over the seeds, of the narrow points. Reach: the sum of the learning rates, the furthest \
that AdamW can take theta, in bits; the edge of a cell is 0.5 away. Gradient: median of the mean \
magnitude. Agreement: how much of the gradient is left when its steps are added up (1: all of one sign). \
Travelled: median of the furthest from the start, in bits. Crossings: changes of the binary point, per \
point, and those in the last quarter of the steps. Moved: ended at another binary point than they \
started with.
"""


def report(records: Sequence[tuple[Job, Record]], concluded: str) -> str:
    """The whole file, with what is concluded from it at the top."""
    found = by_recipe(records)
    lines = [
        INTRODUCTION.format(
            conclusion=concluded,
            calibration=CALIBRATION_IMAGES,
            networks="\n".join(f"- {network.name}: {network.about}." for network in NETWORKS.values()),
        ),
        "## Frozen batch norms\n",
        *freezing_table(found),
        "\n## Trained points, all networks and formats together\n",
        *points_table(found),
        "\n## Where the points went\n",
        WENT,
        *course_table(found),
    ]
    for case in cases_of(found):
        lines += [f"\n## {case[0]}, {case[1]}\n", *recipe_table(found, case)]
    seconds = sum(record["seconds"] for _, record in records)
    lines.append(f"\nAll runs together took {seconds / 60:.0f} minutes on one thread of a shared machine.")
    return "\n".join([*lines, ""])


CONCLUSION = """**Trained binary points gain nothing that can be told from chance over the same training \
with the points held where the least squared error put them.** Of {tried} pairs of a recipe and a case \
(a network in a format) {up} gained in every seed{which}, and {down} lost in every seed. At 2 bits a run \
of thin-resnet8 is mostly chance. Points trained as qhw does (*rate 10*): {default}; with frozen batch \
norms {default_frozen}. The order of the batches alone makes {chance}. What narrow formats gain by \
quantised training, they gain by the weights.

**The search came upon another loss, which is mended: batch norms were not trained as they are built.** \
Their constants are rounded, and those of a batch's own statistics round to other codes than those of \
the running statistics. Frozen from the middle of the steps on, with points trained: {frozen_gains}. The \
order of the batches then makes {chance_frozen}. On the resnet8 of qfx_evidence.py at 4 bits, that is \
{resnet8} over *held*. `freeze_norms = 0.5` is now the default of the quantised phase (`TrainConfig`, \
`[training]`). Three bits hardly lower the accuracy of digits-cnn, and one of its test images is 0.27 \
points: nothing is told apart there.

Why points hardly move, and why it gains nothing where they do:

1. *The gradient is not at fault.* It is that of TQT (arXiv 1903.08066), and of LSQ times -s ln 2: \
`tests/quantizers/test_fixed_quantizer.py` compares it with torch's own of the straight-through \
composition. Theta has no weight decay. AdamW divides by the gradient's size, so LSQ's factor 1 / sqrt(n \
q_max) cancels: gradients are about {gradient}, AdamW's epsilon is 1e-8. In plain gradient descent it \
counts; there, nothing moves at rates below the thousands (*SGD*, *LSQ*).
2. *The schedule is short.* Theta starts on a whole number, half a bit from where its binary point \
changes. In the {steps} steps of qfx_evidence.py all rates together are {reach} bits at *rate 10*. Steps \
of both signs leave {agreement} of the gradient's sum (thin-resnet8, element-wise 3): half of the points \
go less than {travelled} bits.
3. *Where it is long enough, points do not settle.* Rounding is passed straight through, so theta is not \
drawn to the better of two powers of two but to the edge between them, and crosses it to and fro: at \
*rate 30* on digits-cnn {crossings} times per point, {late} of them in the last quarter of the steps, \
when weights should settle. On which side it ends ({moved} end at another binary point than they started \
with) is decided by the moment at which the rate runs out.
4. *There is little to gain.* The nearest power of two is at most half a bit from the best free scale, \
and the least squared error has found it. Points by the loss, by free scales or by statistics of the \
trained network (*loss*, *free*, *renewed*) are no better.
5. *From a bad start, training the points works*, as the paper says: where they start at the largest \
number and norms are frozen, held points make {max_held} over *frozen*, points trained in the first half \
{max_trained}. qhw's points do not start there. Trained from random weights at the float phase's rate, \
points are needed, but can also ruin the network (*scratch*, digits-cnn): {scratch}."""


CONTROLS = (ROUNDED, "another order", "frozen, another order", "max", "frozen, max")
"""Recipes by which no point is trained or chosen anew."""


def conclusion(found: Found) -> str:
    """What was seen, in words; the figures are those of the tables."""
    course = found["thin-resnet8", "element-wise 3", "rate 10"]
    fast = found["digits-cnn", "element-wise 3", "rate 30"]
    training = NETWORKS["resnet8"].training
    frozen = [
        f"{network}, {formats} {spread(gained, signed=True)}"
        for network, formats in cases_of(found)
        if (gained := over(found, (network, formats), "frozen, rate 10", "rate 10"))
    ]
    gradients = [found[*case, "rate 10"] for case in cases_of(found)]
    low, high = (pick(mean_of(records, "gradient") for records in gradients) for pick in (min, max))
    tried = {
        f"*{recipe}*, {', '.join(case)}": gained
        for case in cases_of(found)
        for recipe in RECIPES
        if recipe not in CONTROLS and points_held(recipe) != recipe
        if len(gained := over(found, case, recipe, points_held(recipe))) == len(SEEDS)
    }
    up = [name for name, gained in tried.items() if min(gained) > 0]
    scratch = found["digits-cnn", "element-wise 3", "scratch, rate 10"]
    return CONCLUSION.format(
        tried=len(tried),
        up=len(up),
        which=f" ({'; '.join(up)})" if up else "",
        down=sum(max(gained) < 0 for gained in tried.values()),
        resnet8=spread(over(found, ("resnet8", "element-wise 4"), "frozen, rate 10", HELD), signed=True),
        scratch=spread([record["accuracy"] for record in scratch.values()]),
        default=pooled(found, "rate 10", HELD),
        default_frozen=pooled(found, "frozen, rate 10", "frozen"),
        chance=pooled(found, "another order", HELD),
        chance_frozen=pooled(found, "frozen, another order", "frozen"),
        frozen_gains="; ".join(frozen),
        gradient=f"{low:.0e} to {high:.0e}",
        steps=training.quantised_epochs * (10_000 // training.batch_size),
        reach=f"{mean_of(course, 'reach'):.2f}",
        agreement=percent(mean_of(course, "agreement")),
        travelled=f"{mean_of(course, 'travelled'):.2f}",
        crossings=f"{mean_of(fast, 'crossings'):.0f}",
        late=f"{mean_of(fast, 'late_crossings'):.0f}",
        moved=percent(mean_of(fast, "moved")),
        max_held=pooled(found, "frozen, max", "frozen"),
        max_trained=pooled(found, "frozen, max, rate 30, half", "frozen"),
    )


def pooled(found: Found, recipe: str, base: str) -> str:
    """A recipe over another, in all networks, formats and seeds that both were run in."""
    return spread([gain for case in cases_of(found) for gain in over(found, case, recipe, base)], signed=True)


def jobs(network: str, formats: Sequence[str], recipes: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """Every recipe in every format, one seed after the other."""
    return [Job(network, text, recipe, seed) for seed in seeds for text in formats for recipe in recipes]


SEEDS = (0, 1, 2)
SEARCHED = (
    ROUNDED,
    HELD,
    "another order",
    "rate 10",
    "rate 30, half",
    "frozen",
    "frozen, another order",
    "frozen, rate 10",
    "frozen, rate 30, half",
    "frozen, free 30, half",
    "frozen, renewed 4",
    "frozen, max",
    "frozen, max, rate 30, half",
    "frozen at once",
)
COMPARED = (HELD, "rate 10", "frozen", "frozen, rate 10")
CONFIRMED = (HELD, "rate 10", "frozen, rate 10")

SCREENS: Sequence[tuple[str, Sequence[str], Sequence[str], Sequence[int]]] = (
    ("thin-resnet8", ("element-wise 3",), SEARCHED, SEEDS),
    ("thin-resnet8", ("element-wise 4", "everything 3"), COMPARED, SEEDS),
    ("thin-resnet8", ("element-wise 8",), CONFIRMED, SEEDS),
    ("resnet8", ("element-wise 4",), CONFIRMED, SEEDS[:1]),
    ("digits-cnn", ("element-wise 3",), tuple(RECIPES), SEEDS),
    ("digits-cnn", ("element-wise 2", "per channel 3"), COMPARED, SEEDS),
    ("thin-resnet8", ("element-wise 2", "per channel 3"), COMPARED, SEEDS),
    ("resnet8", ("element-wise 4",), CONFIRMED, SEEDS),
)


def collect(bench: Bench, wanted: Sequence[Job], store: Store) -> list[tuple[Job, Record]]:
    """Every job's result, with progress shown."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    found = []
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=len(wanted))
        for job in wanted:
            bar.update(task, description=f"{job.network}, {job.formats}, {job.recipe}, seed {job.seed}")
            found.append((job, store.get(job.key, partial(bench.run, job))))
            bar.advance(task)
    return found


def main() -> None:
    """Train what is not stored yet, then write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=NETWORKS, help="one network's runs; the table is not written")
    parser.add_argument("--quick", action="store_true", help="a smoke test, its table shown and not kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    store, screens, result = Store(RESULT.with_suffix(".json")), SCREENS, RESULT
    if given.quick:
        result = CHECKPOINTS / "quick.md"
        store = Store(result.with_suffix(".json"))
        screens = [
            ("digits-cnn", ("element-wise 3",), (HELD, "rate 10", "frozen", "frozen, rate 10"), SEEDS[:1])
        ]
    wanted = list(dict.fromkeys(job for screen in screens for job in jobs(*screen)))
    records = collect(Bench(), [job for job in wanted if given.only in (None, job.network)], store)
    if given.only is None:
        result.parent.mkdir(parents=True, exist_ok=True)
        concluded = "" if given.quick else conclusion(by_recipe(records))
        result.write_text(report(records, concluded))
        Console().print(result.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
