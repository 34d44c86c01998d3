"""A plain CNN for 28x28 images."""

from __future__ import annotations

from torch import Tensor, nn

from qhw.layers import Normalize
from qhw.models.shapes import require_side
from qhw.train import TrainConfig

RECIPE = TrainConfig(float_epochs=6, quantised_epochs=3, batch_size=64, learning_rate=3e-3)


class MnistCnn(nn.Module):
    """Two 3x3 convolutions with batch norm, ReLU and 2x2 max pooling; linear."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, normalisation: int):
        super().__init__()
        channels, height, width = image_shape
        self.normalize = Normalize(exponent=normalisation)
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.classify = nn.Linear(32 * (height // 4) * (width // 4), classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.norm1(self.conv1(self.normalize(x)))))
        x = self.pool(self.relu(self.norm2(self.conv2(x))))
        result: Tensor = self.classify(x.flatten(1))
        return result


def build(image_shape: tuple[int, int, int], classes: int, normalisation: int) -> nn.Module:
    """The network for such images; at least 4 pixels a side."""
    require_side("mnist-cnn", image_shape, 4)
    return MnistCnn(image_shape, classes, normalisation)
