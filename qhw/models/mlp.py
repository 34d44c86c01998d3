"""A multi-layer perceptron for small images or tables of numbers."""

from __future__ import annotations

import math

from torch import Tensor, nn

from qhw.layers import Normalize
from qhw.train import TrainConfig

RECIPE = TrainConfig(float_epochs=25, quantised_epochs=12, batch_size=64, learning_rate=4e-3, threads=1)


class Mlp(nn.Module):
    """Two hidden layers with batch norm and ReLU; linear."""

    def __init__(self, features: int, classes: int, normalisation: int, hidden: tuple[int, int] = (64, 32)):
        super().__init__()
        self.normalize = Normalize(exponent=normalisation)
        self.hidden1 = nn.Linear(features, hidden[0], bias=False)
        self.norm1 = nn.BatchNorm1d(hidden[0])
        self.hidden2 = nn.Linear(hidden[0], hidden[1], bias=False)
        self.norm2 = nn.BatchNorm1d(hidden[1])
        self.relu = nn.ReLU()
        self.classify = nn.Linear(hidden[1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.normalize(x).flatten(1)
        x = self.relu(self.norm1(self.hidden1(x)))
        x = self.relu(self.norm2(self.hidden2(x)))
        result: Tensor = self.classify(x)
        return result


def build(image_shape: tuple[int, int, int], classes: int, normalisation: int) -> nn.Module:
    """The network for such images."""
    return Mlp(math.prod(image_shape), classes, normalisation)
