"""A network trained on scikit-learn's digits, its space of formats, and samples held out to judge by."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

from qhw.quant_config import QuantConfig
from qhw.search.evaluators.base import Held
from qhw.search.network import sites_of
from qhw.search.space import Space, SpaceSettings
from qhw.search.workers import Setup
from qhw.tasks import Judge
from qhw.tasks.classification import Classification

SETTINGS = SpaceSettings(
    weights=("ternary", "fixed<3>", "e2m1", "fixed<6>"), activations=("fixed<3>", "fixed<6>")
)


@cache
def trained() -> tuple[nn.Module, np.ndarray, np.ndarray]:
    """The network, trained on all digits but the last 400; and these, with their classes."""
    digits = load_digits()
    x = (digits.images[:, None] / 16).astype(np.float32)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(128, 24), nn.ReLU(), nn.Linear(24, 10)),
        )
        optimiser = torch.optim.Adam(model.parameters(), 0.01)
        inputs, targets = torch.from_numpy(x[:-400]), torch.from_numpy(digits.target[:-400])
        for _ in range(6):
            for rows in torch.randperm(len(inputs)).split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
                optimiser.step()
    return model.eval(), x[-400:], digits.target[-400:]


@cache
def setup(evaluator: str = "calibrated") -> Setup:
    """What a search of it hands to workers."""
    model, x, targets = trained()
    samples = torch.from_numpy(x[:64])
    base = QuantConfig()
    space = SETTINGS.space(sites_of(model, base, samples[:2]), base)
    return Setup(
        model, space, samples, Held(x, Judge(Classification(), Classification().metric(), targets)), evaluator
    )


def space() -> Space:
    """Its formats."""
    return setup().space
