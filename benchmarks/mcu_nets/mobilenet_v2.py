"""A small MobileNetV2 (arXiv 1801.04381) for images of 96 x 96 pixels, and Fashion-MNIST of that size."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qhw.layers import Normalize
from qhw.train import TrainConfig

SIDE = 96
RECIPE = TrainConfig(float_epochs=5, quantised_epochs=0, batch_size=64, learning_rate=6e-3, threads=1)

BLOCKS = ((1, 8, 1), (4, 16, 2), (4, 16, 1), (4, 24, 2), (4, 24, 1), (4, 32, 2), (4, 32, 1))
"""Expansion, output channels and stride of the inverted residuals."""


def _layers(channels_in: int, channels: int, size: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(channels_in, channels, size, stride, size // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(channels)]


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, depthwise 3x3, 1x1 to fewer; added to its input where sizes allow."""

    def __init__(self, channels_in: int, expansion: int, channels: int, stride: int):
        super().__init__()
        wide = channels_in * expansion
        expand = [*_layers(channels_in, wide, 1), nn.ReLU6()] if expansion > 1 else []
        self.body = nn.Sequential(
            *expand,
            *_layers(wide, wide, 3, stride, wide),
            nn.ReLU6(),
            *_layers(wide, channels, 1),
        )
        self.adds = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return x + y if self.adds else y


class MobileNetV2(nn.Module):
    """A strided 3x3 convolution, seven inverted residuals, a 1x1 convolution, average pooling, linear."""

    def __init__(self, channels: int = 1, classes: int = 10, normalisation: int = -8):
        super().__init__()
        self.normalize = Normalize(exponent=normalisation)
        self.stem = nn.Sequential(*_layers(channels, 16, 3, 2), nn.ReLU6())
        blocks, wide = [], 16
        for expansion, narrow, stride in BLOCKS:
            blocks.append(InvertedResidual(wide, expansion, narrow, stride))
            wide = narrow
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*_layers(wide, 128, 1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(self.blocks(self.stem(self.normalize(x))))
        result: Tensor = self.classify(self.pool(x).flatten(1))
        return result


def enlarged(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Images (N, C, H, W) at 96 x 96 pixels, interpolated and rounded to whole pixels."""
    parts = [
        nn.functional.interpolate(torch.from_numpy(part).float(), size=(SIDE, SIDE), mode="bilinear")
        for part in np.array_split(images, max(1, len(images) // 1000))
    ]
    return torch.cat([part.round().to(torch.uint8) for part in parts]).numpy()
