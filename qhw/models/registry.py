"""Built-in models by name, each with the data set and the training recipe that it is usually used with."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qhw.data.base import Dataset
from qhw.errors import InputError, closest

if TYPE_CHECKING:
    from torch import nn

    from qhw.train import TrainConfig


@dataclass(frozen=True)
class ModelEntry:
    """A built-in model.

    Args:
        name: its name on the command line.
        title: its description, one line.
        module: the module with its ``build(image_shape, classes, normalisation)`` and ``RECIPE``.
        dataset: the data set it is trained on unless another is asked for.
    """

    name: str
    title: str
    module: str
    dataset: str

    def recipe(self) -> TrainConfig:
        """The default training of this model on its data set."""
        recipe: TrainConfig = importlib.import_module(self.module).RECIPE
        return recipe


MODELS = {
    entry.name: entry
    for entry in (
        ModelEntry(
            "digits-cnn",
            "two convolutions with batch norm, a residual add, average pooling, a linear layer",
            "qhw.models.digits_cnn",
            "digits",
        ),
        ModelEntry(
            "mnist-cnn",
            "two convolutions with batch norm and max pooling, a linear layer",
            "qhw.models.mnist_cnn",
            "mnist",
        ),
        ModelEntry(
            "resnet8",
            "the residual network of MLPerf Tiny, 9 convolutions",
            "qhw.models.resnet8",
            "fashion-mnist",
        ),
        ModelEntry("mlp", "three linear layers with batch norm", "qhw.models.mlp", "digits"),
    )
}


def model_names() -> tuple[str, ...]:
    """The built-in models."""
    return tuple(MODELS)


def model_entry(name: str) -> ModelEntry:
    """The built-in model of that name.

    Raises:
        InputError: there is none; the closest names are offered.
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}", allowed=", ".join(MODELS), hint=closest(name, MODELS))
    return MODELS[name]


def build_model(name: str, data: Dataset, *, seed: int = 0) -> nn.Module:
    """A built-in model for the images and classes of ``data``, its weights drawn from ``seed``.

    The model takes pixels as they are stored (0..255, as floats) and returns one logit per class.

    Raises:
        InputError: no such model, or the images are too small for it.
    """
    import torch

    module = importlib.import_module(model_entry(name).module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = module.build(data.image_shape, data.classes, data.normalisation)
    return model
