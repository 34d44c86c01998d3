"""The networks of benchmarks/quantmcu.py: trained once, or read, with the samples that judge them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mcu_nets import silabs
from mcu_nets.mobilenet_v2 import RECIPE, MobileNetV2, enlarged
from qhw.data import Dataset, load_dataset
from qhw.models import build_model
from qhw.quant_config import QuantConfig
from qhw.train import TrainConfig, train_float

CALIBRATION, HELD_OUT = 256, 1_000

Arrays = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """A trained network.

    Args:
        name, title: for files and for the reader.
        memories: SRAM in KiB that feature maps may take.
        judged: what it is judged by, for the reader.
        load: the float network, and its samples; the folder keeps what was trained or unpacked.
    """

    name: str
    title: str
    memories: tuple[int, ...]
    judged: str
    load: Callable[[Path], tuple[nn.Module, Samples]]


@dataclass(frozen=True)
class Samples:
    """What a network is calibrated with, what settings are chosen by, and what is reported.

    Labels are None where there are none: then the float network's own answers are.
    """

    calibration: Arrays
    held_out: Arrays
    test: Arrays
    held_out_labels: Arrays | None = None
    test_labels: Arrays | None = None


def trained(path: Path, model: nn.Module, data: Dataset, recipe: TrainConfig) -> nn.Module:
    """The network, trained in float unless the file has its weights."""
    if not path.exists():
        network, _ = train_float(model, data, recipe, QuantConfig())
        torch.save(network.state_dict(), path)
    model.load_state_dict(torch.load(path, weights_only=True))
    return model.eval()


def fashion(
    images: int, resized: Callable[[Arrays], Arrays], judged: int | None = None
) -> tuple[Dataset, Samples]:
    """Fashion-MNIST: the first images to train and calibrate with, those behind them to choose by.

    Args:
        judged: how many test images are; None: all.
    """
    data = load_dataset("fashion-mnist")
    held = slice(images, images + HELD_OUT)
    train, targets = data.inputs("train")[0], data.train_targets
    used = dataclasses.replace(
        data,
        train_x=resized(train[:images]),
        train_y=targets[:images],
        test_x=resized(data.inputs("test")[0][:judged]),
        test_y=data.test_targets[:judged],
    )
    samples = Samples(
        used.inputs("train")[0][:CALIBRATION],
        resized(train[held]),
        used.inputs("test")[0],
        targets[held],
        used.test_targets,
    )
    return used, samples


def mobilenet_v2(folder: Path) -> tuple[nn.Module, Samples]:
    data, samples = fashion(16_000, enlarged, 2_000)
    torch.manual_seed(0)
    return trained(folder / "mobilenet-v2-96.pt", MobileNetV2(), data, RECIPE), samples


def resnet8(folder: Path) -> tuple[nn.Module, Samples]:
    data, samples = fashion(20_000, lambda images: images)
    recipe = TrainConfig(4, 0, batch_size=128, learning_rate=4e-3, threads=1)
    return trained(folder / "resnet8.pt", build_model("resnet8", data), data, recipe), samples


def crops(side: int, count: int, seed: int) -> NDArray[np.uint8]:
    """Squares of scikit-learn's two photographs, of any size down to the one given, scaled to it."""
    from sklearn.datasets import load_sample_images

    random = np.random.default_rng(seed)
    photographs = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]
    found = []
    for _ in range(count):
        image = photographs[random.integers(len(photographs))]
        size = int(random.integers(side, min(image.shape[1:]) + 1))
        top, left = (int(random.integers(whole - size + 1)) for whole in image.shape[1:])
        part = image[None, :, top : top + size, left : left + size].float()
        scaled = nn.functional.interpolate(part, size=(side, side), mode="area")
        found.append(scaled.round().to(torch.uint8)[0].numpy())
    return np.stack(found)


def image_classification(folder: Path) -> tuple[nn.Module, Samples]:
    parts = (CALIBRATION, 500, 1_000)
    pixels = [crops(32, count, seed).astype(np.float32) for seed, count in enumerate(parts)]
    return silabs.network(folder, "image_classification"), Samples(*((x - 128) / 128 for x in pixels))


CROPS = "agreement with the float network on 1,000 squares of scikit-learn's two photographs"

NETWORKS = {
    network.name: network
    for network in (
        Network(
            "mobilenet-v2-96",
            "MobileNetV2-style, 96 x 96, Fashion-MNIST",
            (32,),
            "top-1 on the first 2,000 test images",
            mobilenet_v2,
        ),
        Network(
            "resnet8", "resnet8, 28 x 28, Fashion-MNIST", (20, 28), "top-1 on 10,000 test images", resnet8
        ),
        Network(
            "image_classification",
            "MLPerf Tiny image classification (ResNet8, 32 x 32)",
            (28,),
            CROPS,
            image_classification,
        ),
    )
}
