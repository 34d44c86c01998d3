"""A user's own data: one ``.npz`` file with the four arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.data.base import Dataset
from qhw.data.idx import MAX_BYTES
from qhw.errors import InputError
from qhw.outside.arrays import read_npz

KEYS = ("train_x", "train_y", "test_x", "test_y")


def _classes(path: Path, key: str, labels: NDArray[Any]) -> NDArray[np.int64]:
    """Labels as int64; what is not whole by its type is a target of regression."""
    if labels.dtype.kind not in "biu":
        raise InputError(
            f"{path}: {key} holds {labels.dtype} numbers, not classes",
            allowed="one integer per image, from 0",
            hint="store the classes as integers (astype(np.int64)); a regression is trained by you, then "
            "converted (qhw.convert) and built as a quantised module",
        )
    return labels.astype(np.int64)


def load_npz(path: Path) -> Dataset:
    """Images (uint8, 0..255) and labels from an ``.npz`` file with the arrays of :data:`KEYS`.

    Nothing is unpickled.

    Raises:
        InputError: not such a file, an array is missing, or has the wrong type or shape.
    """
    arrays = read_npz(path, "data file", MAX_BYTES, KEYS)
    if missing := [key for key in KEYS if key not in arrays]:
        raise InputError(f"{path} lacks {', '.join(missing)}", allowed=f"arrays named {', '.join(KEYS)}")
    train_x, train_y, test_x, test_y = (arrays[key] for key in KEYS)
    labels = _classes(path, "train_y", train_y)
    return Dataset(
        name=path.stem,
        source=f"arrays in {path.name}",
        train_x=train_x,
        train_y=labels,
        test_x=test_x,
        test_y=_classes(path, "test_y", test_y),
        classes=int(labels.max(initial=0)) + 1,
        normalisation=-8,
    )
