"""Built-in models: by name, for any images that they can take, the same weights for the same seed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from qhw.checkpoints import weights_hash
from qhw.data import Dataset, dataset_names
from qhw.errors import InputError
from qhw.models import build_model, model_entry, model_names


def blank(side: int, channels: int = 1, classes: int = 10) -> Dataset:
    images = np.zeros((4, channels, side, side), np.uint8)
    labels = np.arange(4) % classes
    return Dataset("blank", "zeros", images, labels, images, labels, classes, normalisation=-8)


@pytest.mark.parametrize("name", model_names())
@pytest.mark.parametrize(("side", "channels", "classes"), [(8, 1, 10), (28, 1, 10), (32, 3, 7), (5, 1, 2)])
def test_takes_images_of_any_size(name, side, channels, classes):
    data = blank(side, channels, classes)
    model = build_model(name, data).eval()
    assert model(torch.zeros(3, channels, side, side)).shape == (3, classes)


@pytest.mark.parametrize(("name", "side"), [("digits-cnn", 1), ("mnist-cnn", 3), ("resnet8", 3)])
def test_images_that_are_too_small(name, side):
    with pytest.raises(InputError, match=rf"{name} cannot take images of {side}x{side} pixels"):
        build_model(name, blank(side))


@pytest.mark.parametrize("name", model_names())
def test_weights_come_from_the_seed_alone(name):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = weights_hash(build_model(name, blank(8)))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    assert weights_hash(build_model(name, blank(8))) == first
    assert weights_hash(build_model(name, blank(8), seed=1)) != first


@pytest.mark.parametrize("name", model_names())
def test_entries(name):
    entry = model_entry(name)
    assert entry.dataset in dataset_names()
    assert entry.recipe().quantised_epochs > 0


def test_resnet8_has_the_parameters_of_mlperf_tiny():
    model = build_model("resnet8", blank(32, channels=3))
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 9
    # The reference counts 78,666 with Keras's biases in front of batch norm and its running statistics.
    weights = sum(module.weight.numel() for module in convolutions)
    biases = sum(module.out_channels for module in convolutions)
    norms = sum(4 * m.num_features for m in model.modules() if isinstance(m, nn.BatchNorm2d))
    assert weights + biases + norms + model.classify.weight.numel() + 10 == 78666


def test_unknown_model():
    with pytest.raises(InputError, match=r"unknown model 'resnet9'[\s\S]*did you mean resnet8"):
        model_entry("resnet9")


def test_listing_needs_no_torch():
    program = (
        "import sys; sys.modules['torch'] = None; from qhw.models import model_names; print(*model_names())"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root
    )
    assert result.stdout.split() == list(model_names())
