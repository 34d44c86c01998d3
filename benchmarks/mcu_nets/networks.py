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
from mcu_nets.distilled import distilled
from mcu_nets.mobilenet_v2 import RECIPE, MobileNetV2, enlarged
from qhw.data import Dataset, load_dataset
from qhw.models import build_model
from qhw.quant_config import QuantConfig
from qhw.train import TrainConfig, train_float

CALIBRATION = 256

Arrays = NDArray[Any]


@dataclass(frozen=True)
class Network:
    """A trained network.

    Args:
        name, title: for files and for the reader.
        memories: SRAM in KiB that feature maps may take.
        judged: what it is judged by, for the reader.
        decides: classes of outputs (N, outputs) and samples (N, *shape); left out, the largest output's.
        load: the float network, and its samples; the folder keeps what was trained or unpacked.
    """

    name: str
    title: str
    memories: tuple[int, ...]
    judged: str
    load: Callable[[Path], tuple[nn.Module, Samples]]
    decides: Callable[[Arrays, Arrays], Arrays] = lambda outputs, samples: outputs.argmax(axis=1)


@dataclass(frozen=True)
class Samples:
    """What a network is calibrated with, what settings are chosen by, what is reported, and what it may be
    trained further with.

    Labels are None where there are none: then the float network's own answers are.
    """

    calibration: Arrays
    held_out: Arrays
    test: Arrays
    training: Arrays
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
    images: int, held_out: int, resized: Callable[[Arrays], Arrays], judged: int | None = None
) -> tuple[Dataset, Samples]:
    """Fashion-MNIST: the first images to train and calibrate with, those behind them to choose by.

    Args:
        images, held_out: how many there are of each.
        judged: how many test images are; None: all.
    """
    data = load_dataset("fashion-mnist")
    held = slice(images, images + held_out)
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
        used.inputs("train")[0],
        targets[held],
        used.test_targets,
    )
    return used, samples


def mobilenet_v2(folder: Path) -> tuple[nn.Module, Samples]:
    data, samples = fashion(16_000, 4_000, enlarged, 2_000)
    torch.manual_seed(0)
    return trained(folder / "mobilenet-v2-96.pt", MobileNetV2(), data, RECIPE), samples


def resnet8(folder: Path) -> tuple[nn.Module, Samples]:
    data, samples = fashion(20_000, 10_000, lambda images: images)
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
    parts = (CALIBRATION, 2_000, 1_000, 4_000)
    pixels = [crops(32, count, seed).astype(np.float32) for seed, count in enumerate(parts)]
    return silabs.network(folder, "image_classification"), Samples(*((x - 128) / 128 for x in pixels))


def keyword_spotting(folder: Path) -> tuple[nn.Module, Samples]:
    network = silabs.network(folder, "keyword_spotting")
    return network, Samples(*made(folder, network, "keyword_spotting", 12, (64, 512, 256, 512), (0, 40)))


def visual_wake_words(folder: Path) -> tuple[nn.Module, Samples]:
    network = silabs.network(folder, "visual_wake_words")
    return network, Samples(*made(folder, network, "visual_wake_words", 2, (64, 256, 256, 256), (0.5, 0.25)))


def anomaly_detection(folder: Path) -> tuple[nn.Module, Samples]:
    """Distilled samples stand for normal machines; to every other one noise of growing strength is added."""
    network = silabs.network(folder, "anomaly_detection")
    parts = list(made(folder, network, "anomaly_detection", 0, (CALIBRATION, 1_024, 1_024, 1_024), (200, 60)))
    for seed, part in enumerate(parts):
        noise = np.random.default_rng(seed).normal(size=part[1::2].shape).astype(np.float32)
        part[1::2] += noise * np.linspace(0, 60, len(noise), dtype=np.float32)[:, None, None, None]
    return network, Samples(*parts)


def made(
    folder: Path,
    network: silabs.KerasNet,
    name: str,
    classes: int,
    counts: tuple[int, ...],
    around: tuple[float, float],
) -> list[Arrays]:
    """Distilled samples, made once: to calibrate with, to choose by, to report and to train with."""
    path = folder / f"{name}.npz"
    if not path.exists():
        parts = [
            distilled(network, network.shape, count, classes, seed, around)
            for seed, count in enumerate(counts)
        ]
        np.savez(path, *parts)
    with np.load(path) as stored:
        return [stored[part] for part in stored]


def is_anomaly(outputs: Arrays, samples: Arrays) -> Arrays:
    """Whether a sample is reconstructed worse than the threshold: that of half of the samples in float."""
    errors = np.mean((outputs - samples.reshape(len(samples), -1)) ** 2, axis=1)
    return errors > ANOMALY_ERROR


ANOMALY_ERROR = 6_000.0
"""Mean squared error of a reconstruction from which on a sample counts as an anomaly."""

CROPS = "agreement with the float network on 1,000 squares of scikit-learn's two photographs"

DISTILLED = "distilled samples"

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
        Network(
            "keyword_spotting",
            "MLPerf Tiny keyword spotting (DS-CNN, 50 x 10)",
            (12,),
            f"agreement with the float network on 256 {DISTILLED}, of 12 classes",
            keyword_spotting,
        ),
        Network(
            "visual_wake_words",
            "MLPerf Tiny visual wake words (MobileNetV1 0.25, 96 x 96)",
            (48,),
            f"agreement with the float network on 256 {DISTILLED}, of 2 classes",
            visual_wake_words,
        ),
        Network(
            "anomaly_detection",
            "MLPerf Tiny anomaly detection (autoencoder of dense layers)",
            (8,),
            "agreement with the float network on which of 1,024 samples are reconstructed with a mean "
            f"squared error above {ANOMALY_ERROR:g}; they are {DISTILLED}, every other one with noise added",
            anomaly_detection,
            is_anomaly,
        ),
    )
}
