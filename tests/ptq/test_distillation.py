"""Samples from batch norms alone: what they are like, and how far one gets with them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import qhw
from qhw.data import Dataset
from qhw.errors import InputError
from qhw.ptq.distillation import distil
from qhw.ptq.run import Shape, distilled, quantise
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.tracing import trace
from qhw.train import evaluate

SETTINGS = PtqSettings("gpfq", samples=128)


def distance(net: nn.Module, samples: Tensor) -> float:
    """How far the first batch norm's input is from its statistics, in deviations."""
    with torch.no_grad():
        found = net.conv1(net.normalize(samples)).transpose(0, 1).flatten(1)
    spread = net.norm1.running_var.sqrt()
    off = (found.mean(1) - net.norm1.running_mean) / spread
    return float(off.square().mean() + (found.std(1) / spread - 1).square().mean())


def test_statistics_come_to_be_those_of_the_batch_norms(net: nn.Module, digits: Dataset) -> None:
    made = distilled(net, Shape((1, 8, 8), pixels=True), SETTINGS)
    assert made.shape == (128, 1, 8, 8)
    assert torch.equal(made, made.round())
    assert float(made.min()) >= 0
    assert float(made.max()) <= 255
    noise = torch.randint(0, 256, made.shape).float()
    real = torch.from_numpy(digits.train_x[:128]).float()
    assert distance(net, made) < 0.05 * distance(net, noise)
    assert distance(net, made) < 0.1 + 2 * distance(net, real)


def test_the_same_seed_makes_the_same_samples(net: nn.Module) -> None:
    network = trace(net, (1, 8, 8))
    made = [distil(network, (1, 8, 8), 8, pixels=True, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


def test_without_data_a_network_keeps_its_accuracy(net: nn.Module, digits: Dataset) -> None:
    config = QuantConfig(weights="fixed<4>", activations="fixed<6>")
    result = quantise(net, Shape((1, 8, 8), pixels=True), config, SETTINGS)
    assert result.metric is None
    assert result.in_float is None
    assert evaluate(result.model, digits) > evaluate(net, digits) - 0.03


def test_floats_are_made_too() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    model(3 + 2 * torch.randn(4000, 6))  # the statistics of its training
    model.eval()
    quantised = qhw.ptq(model, None, "fixed<6>", shape=(6,), samples=64)
    x = 3 + 2 * torch.randn(500, 6)
    with torch.no_grad():
        error = (model(x) - quantised(x)).square().mean() / model(x).square().mean()
    assert float(error) < 0.05


def test_a_network_without_batch_norms_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with pytest.raises(InputError, match=r"has no batch norm[\s\S]*give --data"):
        qhw.ptq(model, None, shape=(4,))


def test_a_shape_that_the_network_does_not_take_is_refused(net: nn.Module) -> None:
    with pytest.raises(InputError, match=r"does not run on an input of shape \(2, 3, 8, 8\)"):
        qhw.ptq(net, None, shape=(3, 8, 8), pixels=True)
