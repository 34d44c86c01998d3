"""A user's own data: one ``.npz`` file with the arrays of both splits."""

from __future__ import annotations

from pathlib import Path

from qhw.data.base import Dataset
from qhw.data.idx import MAX_BYTES
from qhw.data.reading import Reading
from qhw.errors import InputError
from qhw.outside.arrays import read_npz

KEYS = ("train_x", "train_y", "test_x", "test_y")
NEEDED = ("train_x", "test_x")


def load_npz(path: Path, reading: Reading) -> Dataset:
    """Samples and targets from an ``.npz`` file with the arrays of :data:`KEYS`; targets may be missing.

    Nothing is unpickled.

    Raises:
        InputError: not such a file, an array is missing, or has the wrong type or shape.
    """
    arrays = read_npz(path, "data file", MAX_BYTES, KEYS)
    needed = KEYS if "train_y" in arrays or "test_y" in arrays else NEEDED
    if missing := [key for key in needed if key not in arrays]:
        raise InputError(f"{path} lacks {', '.join(missing)}", allowed=f"arrays named {', '.join(KEYS)}")
    train, test = ((arrays[f"{split}_x"], arrays.get(f"{split}_y")) for split in ("train", "test"))
    return reading.dataset(path.stem, f"arrays in {path.name}", train, test)
