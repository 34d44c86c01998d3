"""The network of the default build: every kind of layer that a small CNN has, on 8x8 images."""

from __future__ import annotations

from torch import Tensor, nn

from qhw.layers import Normalize
from qhw.models.shapes import require_side
from qhw.train import TrainConfig

RECIPE = TrainConfig(float_epochs=25, quantised_epochs=12, batch_size=64, learning_rate=4e-3, threads=1)


class DigitsCnn(nn.Module):
    """Two 3x3 convolutions with batch norm, the second with a residual add; 2x2 average pooling; linear."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, normalisation: int, width: int = 16):
        super().__init__()
        channels, height, width_in = image_shape
        self.normalize = Normalize(exponent=normalisation)
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.pool = nn.AvgPool2d(2)
        self.classify = nn.Linear(width * (height // 2) * (width_in // 2), classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.conv1(self.normalize(x))))
        x = self.relu(self.norm2(self.conv2(x)) + x)
        result: Tensor = self.classify(self.pool(x).flatten(1))
        return result


def build(image_shape: tuple[int, int, int], classes: int, normalisation: int) -> nn.Module:
    """The network for such images; at least 2 pixels a side."""
    require_side("digits-cnn", image_shape, 2)
    return DigitsCnn(image_shape, classes, normalisation)
