"""A user's own data: one ``.npz`` file with the four arrays."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from qhw.arrays import UNREADABLE
from qhw.data.base import Dataset
from qhw.data.idx import MAX_BYTES
from qhw.errors import InputError

KEYS = ("train_x", "train_y", "test_x", "test_y")


def load_npz(path: Path) -> Dataset:
    """Images (uint8, 0..255) and labels from an ``.npz`` file with the arrays of :data:`KEYS`.

    Nothing is unpickled.

    Raises:
        InputError: not such a file, an array is missing, or has the wrong type or shape.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                raise InputError(f"{path} unpacks to more than {MAX_BYTES} bytes", allowed="up to 1 GiB")
        with np.load(path, allow_pickle=False) as file:
            missing = [key for key in KEYS if key not in file]
            if missing:
                raise InputError(
                    f"{path} lacks {', '.join(missing)}", allowed=f"arrays named {', '.join(KEYS)}"
                )
            train_x, train_y, test_x, test_y = (file[key] for key in KEYS)
    except (OSError, *UNREADABLE) as error:
        raise InputError(f"{path} cannot be read as .npz: {error}") from error
    return Dataset(
        name=path.stem,
        source=f"arrays in {path.name}",
        train_x=train_x,
        train_y=train_y.astype(np.int64),
        test_x=test_x,
        test_y=test_y.astype(np.int64),
        classes=int(train_y.max(initial=0)) + 1,
        normalisation=-8,
    )
