"""Arrays of a build folder: what stands for classes is one whole number per sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qhw.arrays import read_labels
from qhw.errors import InputError


def test_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.npy"
    np.save(path, np.array([3, 1], dtype=np.uint8))
    labels = read_labels(path, 2)
    assert (labels.dtype, labels.tolist()) == (np.int64, [3, 1])
    for wrong in (np.zeros(3, int), np.zeros(2), np.zeros((2, 1), int), np.array(["a", "b"]), np.array(1)):
        np.save(path, wrong)
        with pytest.raises(InputError, match="2 classes, one per sample"):
            read_labels(path, 2)
