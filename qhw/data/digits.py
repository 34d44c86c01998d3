"""scikit-learn's digits: 1,797 images of 8x8 pixels, 0..16 (UCI, Optical Recognition of Digits)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from qhw.data.base import Dataset, holdout
from qhw.errors import ToolMissingError


def load(root: Path | None = None) -> Dataset:
    """The digits, a fifth of each class held out for testing; ``root`` is not needed.

    Raises:
        ToolMissingError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ToolMissingError(
            "the digits data set comes with scikit-learn, which is not installed",
            hint="pip install scikit-learn",
        ) from error
    images, labels = load_digits(return_X_y=True)
    pixels = images.reshape(-1, 1, 8, 8).astype(np.uint8)
    labels = labels.astype(np.int64)
    train, test = holdout(labels)
    return Dataset(
        name="digits",
        source="scikit-learn load_digits",
        train_x=pixels[train],
        train_y=labels[train],
        test_x=pixels[test],
        test_y=labels[test],
        classes=10,
        normalisation=-4,
    )
