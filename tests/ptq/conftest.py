"""A digits-cnn that was trained in float, once for all tests of this folder."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from qhw.data import Dataset, load_dataset
from qhw.models import build_model
from qhw.ptq.run import chosen_samples
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.train import TrainConfig, train_float

RECIPE = TrainConfig(float_epochs=8, batch_size=32, learning_rate=4e-3, threads=1)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def _trained(digits: Dataset) -> nn.Module:
    model, accuracy = train_float(build_model("digits-cnn", digits), digits, RECIPE, QuantConfig())
    assert accuracy > 0.95
    return model.eval()


@pytest.fixture
def net(_trained: nn.Module) -> nn.Module:
    """The network; each test has its own."""
    return copy.deepcopy(_trained)


@pytest.fixture
def uneven(net: nn.Module) -> nn.Module:
    """The same function with channels of very different ranges: each is scaled by a power of two."""
    factors = 2.0 ** torch.tensor([-3, 3, 0, -2, 2, 0, 1, -1, 3, -3, 0, 2, -2, 1, -1, 0])
    with torch.no_grad():
        for norm in (net.norm1, net.norm2):
            norm.weight *= factors
            norm.bias *= factors
        net.conv2.weight /= factors[:, None, None]
        net.classify.weight /= factors.repeat_interleave(16)
    return net


@pytest.fixture(scope="session")
def samples(digits: Dataset) -> tuple[Tensor, Tensor]:
    """Samples of the training split: to calibrate with, and others."""
    return chosen_samples(digits, PtqSettings(samples=256))
