"""A user's own data: one ``.npz`` file with the arrays of both splits."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qhw.data.base import Dataset
from qhw.data.idx import MAX_BYTES
from qhw.data.inputs import SEVERAL, SPLITS, several_in
from qhw.data.reading import Reading
from qhw.errors import InputError
from qhw.outside.arrays import read_npz

KEYS = ("train_x", "train_y", "test_x", "test_y")
NEEDED = ("train_x", "test_x")
NAMED = f"arrays named {', '.join(KEYS)}; {SEVERAL}"
"""The names of arrays, in words."""


class _OfSplits:
    """The names of all arrays of a split."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(tuple(f"{split}_" for split in SPLITS))


OF_SPLITS = _OfSplits()


def load_npz(path: Path, reading: Reading) -> Dataset:
    """Samples and targets from an ``.npz`` file with the arrays of :data:`NAMED`; targets may be missing.

    Nothing is unpickled.

    Raises:
        InputError: not such a file, an array is missing, or has the wrong type or shape.
    """
    arrays = read_npz(path, "data file", MAX_BYTES, KEYS)
    if not any(key in arrays for key in NEEDED):
        arrays = read_npz(path, "data file", MAX_BYTES, OF_SPLITS)
    return of_arrays(arrays, reading, path.stem, f"arrays in {path.name}", f"{path} lacks")


def of_arrays(arrays: Mapping[str, Any], reading: Reading, name: str, source: str, lacks: str) -> Dataset:
    """A data set of the arrays of :data:`NAMED`; any others beside ``train_x`` and ``test_x`` are not read.

    Raises:
        InputError: an array is missing (``lacks`` begins the message), or has the wrong type or shape.
    """
    targets = {split: arrays.get(f"{split}_y") for split in SPLITS}
    with_targets = any(y is not None for y in targets.values())
    if missing := [f"{split}_y" for split in SPLITS if with_targets and targets[split] is None]:
        raise InputError(f"{lacks} {', '.join(missing)}", allowed=NAMED)
    if any(key in arrays for key in NEEDED):
        if missing := [key for key in NEEDED if key not in arrays]:
            raise InputError(f"{lacks} {', '.join(missing)}", allowed=NAMED)
        train, test = ((arrays[f"{split}_x"], targets[split]) for split in SPLITS)
        return reading.dataset(name, source, train, test)
    names, samples = several_in(arrays, lacks)
    train, test = ((samples[split], targets[split]) for split in SPLITS)
    return reading.dataset(name, source, train, test, names)
