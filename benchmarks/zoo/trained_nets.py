"""Networks trained on real data: qhw's built-in ones, and a MobileNet on Fashion-MNIST."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor, nn

from qhw.data import Dataset, load_dataset
from qhw.layers import Normalize
from qhw.models.registry import build_model, model_entry
from qhw.train import TrainConfig
from zoo.entries import AbsentError, Entry, Kind

TRAINED_ON = 10_000
"""Samples at most: accuracies show that the networks are real ones, not how good they can get."""

SHORT = TrainConfig(float_epochs=2, quantised_epochs=1, batch_size=64, learning_rate=4e-3, threads=1)


class MobileNet(nn.Module):
    """MobileNetV1 (arXiv 1704.04861), an eighth as wide, 8 depthwise convolutions, for 28x28 pixels."""

    WIDTHS = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1), (128, 2), (128, 1))

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = [Normalize(exponent=-8), *_conv(1, 8, 3, 1)]
        channels = 8
        for width, stride in self.WIDTHS:
            layers += [*_conv(channels, channels, 3, stride, channels), *_conv(channels, width, 1, 1)]
            channels = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.classify(self.pool(self.features(x)).flatten(1))
        return result


def _conv(inputs: int, outputs: int, kernel: int, stride: int, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs), nn.ReLU()]


def _data(name: str) -> Dataset:
    try:
        data = load_dataset(name)
    except Exception as error:
        raise AbsentError(f"{name} is not here: {error}") from None
    return dataclasses.replace(data, train_x=data.train_x[:TRAINED_ON], train_y=data.train_y[:TRAINED_ON])


def write(name: str, dataset: str, folder: Path) -> Path:
    """Trained and exported."""
    import torch

    from qhw.export import export_qonnx
    from qhw.pipeline.input_type import annotated_copy
    from qhw.quant_config import QuantConfig
    from qhw.train import as_inputs, quant_of, train

    data = _data(dataset)
    torch.manual_seed(0)
    if name == "mobilenet":
        model, recipe = MobileNet(), SHORT
    else:
        model = build_model(name, data)
        recipe = SHORT if dataset == "fashion-mnist" else model_entry(name).recipe()
    trained = train(model, data, recipe, quant_of(QuantConfig(), data, model))
    path = Path(export_qonnx(trained.quantised_model, folder / "model.onnx", as_inputs(data.test_x[:1])))
    annotated_copy(path, path, None, data)
    (folder / "accuracy.txt").write_text(f"{trained.quantised_accuracy:.2%} of {dataset}'s test split")
    return path


def entries(cache: Path) -> Iterator[Entry]:
    """Every network, with the data set that it is trained on."""
    nets: tuple[tuple[str, Kind, str], ...] = (
        ("digits-cnn", "CNN", "digits"),
        ("mlp", "MLP", "digits"),
        ("mnist-cnn", "CNN", "mnist"),
        ("resnet8", "CNN", "fashion-mnist"),
        ("mobilenet", "CNN", "fashion-mnist"),
    )
    for name, kind, data in nets:
        make = functools.partial(write, name, data)
        note = f"trained on {data}"
        yield Entry(f"trained/{name}", kind, make, image=True, data=data, note=note)
