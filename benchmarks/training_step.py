"""One training step of resnet8: float, QFX, and Brevitas's own fixed-point quantisation of the same network.

Forward, backward and AdamW on batches of 28x28 images. QFX quantises weights, biases, activations, batch norm
and additions; so do Brevitas's quantizers here, except batch norm: Brevitas has no quantised one that trains
on batch statistics, so it stays in float, which favours Brevitas. Its collection of statistics is cut to one
step, for the same reason. Rounds are interleaved; medians are reported.

    python benchmarks/training_step.py [--rounds 10] [--batch 128]
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from brevitas import nn as qnn
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8BiasPerTensorFixedPointInternalScaling,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
)
from torch import Tensor, nn

from qhw.convert import QuantConfig, convert
from qhw.models.resnet8 import ResidualBlock, build
from qhw.quantizers import kernels

RESULT = Path(__file__).parent / "results" / "training_step.md"


class Signed(Int8ActPerTensorFixedPoint):  # type: ignore[misc]
    """Brevitas's int8 activations, past their statistics after one step."""

    collect_stats_steps = 1


class Unsigned(Uint8ActPerTensorFixedPoint):  # type: ignore[misc]
    """Brevitas's uint8 activations, past their statistics after one step."""

    collect_stats_steps = 1


class BrevitasBlock(nn.Module):
    """A residual block whose addition, activations and batch norm results have Brevitas's quantizers."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        self.conv1, self.norm1 = brevitas_form(block.conv1), block.norm1
        self.conv2, self.norm2 = brevitas_form(block.conv2), block.norm2
        self.shortcut = brevitas_form(block.shortcut)
        self.relu1, self.relu2 = (qnn.QuantReLU(act_quant=Unsigned) for _ in range(2))
        self.norm2_result, self.shortcut_result = (qnn.QuantIdentity(act_quant=Signed) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        residual = self.norm2_result(self.norm2(self.conv2(y)))
        straight = x if isinstance(self.shortcut, nn.Identity) else self.shortcut_result(self.shortcut(x))
        return self.relu2(residual + straight)


def brevitas_form(layer: nn.Module) -> nn.Module:
    """The same layer with Brevitas's 8-bit fixed-point quantizers."""
    quant = {
        "weight_quant": Int8WeightPerTensorFixedPoint,
        "bias_quant": Int8BiasPerTensorFixedPointInternalScaling,
    }
    if isinstance(layer, nn.Conv2d):
        geometry = (layer.kernel_size, layer.stride, layer.padding)
        return qnn.QuantConv2d(
            layer.in_channels, layer.out_channels, *geometry, bias=layer.bias is not None, **quant
        )
    if isinstance(layer, nn.Linear):
        return qnn.QuantLinear(layer.in_features, layer.out_features, bias=True, **quant)
    if isinstance(layer, ResidualBlock):
        return BrevitasBlock(layer)
    return qnn.QuantReLU(act_quant=Unsigned) if isinstance(layer, nn.ReLU) else layer


def brevitas_network(model: nn.Module) -> nn.Module:
    """resnet8 with Brevitas's own quantizers everywhere but in batch norm."""
    layers = [brevitas_form(layer) for layer in copy.deepcopy(model).children()]
    pixels, pooled, result = (qnn.QuantIdentity(act_quant=Signed) for _ in range(3))
    return nn.Sequential(layers[0], pixels, *layers[1:-1], nn.Flatten(), pooled, layers[-1], result)


def stepper(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One training step of that model."""
    model.train()
    model(images)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def measure(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, measured in turns after two warm-ups."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn >= 2:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    options = parser.parse_args()
    torch.manual_seed(0)
    images = torch.randint(0, 256, (options.batch, 1, 28, 28), dtype=torch.uint8)
    labels = torch.randint(0, 10, (options.batch,))
    model = build((1, 28, 28), 10, -8)
    models = {
        "float": copy.deepcopy(model),
        "QFX (qhw)": convert(model, QuantConfig(), images[:2]),
        "Brevitas": brevitas_network(model),
    }
    times = measure({name: stepper(m, images, labels) for name, m in models.items()}, options.rounds)
    lines = [
        "# A training step of resnet8, 28x28 images",
        "",
        f"Batch {options.batch}, {torch.get_num_threads()} threads, {kernels.status().name} kernels, "
        f"median of {options.rounds} interleaved rounds. Brevitas's network keeps batch norm in float.",
        "",
        "| model | step | of float |",
        "|---|---:|---:|",
        *(f"| {name} | {value:.0f} ms | {value / times['float']:.2f}x |" for name, value in times.items()),
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
