"""ResNet8, the image classification network of MLPerf Tiny (arXiv 2106.07597), for images of any size."""

from __future__ import annotations

from torch import Tensor, nn

from qhw.layers import Normalize
from qhw.models.shapes import require_side
from qhw.train import TrainConfig

RECIPE = TrainConfig(float_epochs=6, quantised_epochs=2, batch_size=128, learning_rate=4e-3)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm, added to the input or to a 1x1 convolution of it."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        plain = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if plain else nn.Conv2d(channels_in, channels, 1, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        result: Tensor = self.relu(self.norm2(self.conv2(y)) + self.shortcut(x))
        return result


class ResNet8(nn.Module):
    """A 3x3 convolution, three residual blocks (16, 32, 64 channels), global average pooling, linear."""

    def __init__(self, channels: int, classes: int, normalisation: int):
        super().__init__()
        self.normalize = Normalize(exponent=normalisation)
        self.conv = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.block1 = ResidualBlock(16, 16, 1)
        self.block2 = ResidualBlock(16, 32, 2)
        self.block3 = ResidualBlock(32, 64, 2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classify = nn.Linear(64, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(self.normalize(x))))
        x = self.block3(self.block2(self.block1(x)))
        result: Tensor = self.classify(self.pool(x).flatten(1))
        return result


def build(image_shape: tuple[int, int, int], classes: int, normalisation: int) -> nn.Module:
    """The network for such images; at least 4 pixels a side."""
    require_side("resnet8", image_shape, 4)
    return ResNet8(image_shape[0], classes, normalisation)
