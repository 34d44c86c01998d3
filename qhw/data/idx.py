"""The idx files of MNIST and everything that follows its layout, plain or gzipped.

Source of the layout: http://yann.lecun.com/exdb/mnist/ ("The IDX file format").
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qhw.data.base import Dataset
from qhw.errors import InputError
from qhw.outside import read_bytes, read_gzip

MAX_BYTES = 1 << 30
"""No idx file, and no file of arrays, may have or unpack to more than this."""

UNSIGNED_BYTE = 0x08
FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


def load_folder(folder: Path, name: str) -> Dataset:
    """A data set from the four files of :data:`FILES` in ``folder``, each plain or with ``.gz``.

    Raises:
        InputError: the folder or a file is missing, or a file is damaged.
    """
    if not folder.is_dir():
        raise InputError(
            f"data folder {folder} does not exist", hint=f"give a folder that holds {', '.join(FILES)}"
        )
    train_x, train_y, test_x, test_y = (read(_find(folder, stem)) for stem in FILES)
    return Dataset(
        name=name,
        source=f"idx files in {folder}",
        train_x=_images(train_x),
        train_y=train_y.astype(np.int64),
        test_x=_images(test_x),
        test_y=test_y.astype(np.int64),
        classes=int(train_y.max(initial=0)) + 1,
        normalisation=-8,
    )


def read(path: Path) -> NDArray[np.uint8]:
    """The array in one idx file of unsigned bytes, gzipped if its name ends in ``.gz``.

    Raises:
        InputError: not an idx file of bytes, cut short, longer than it says, or beyond ``MAX_BYTES``.
    """
    data = _unpacked(path)
    if len(data) < 4 or data[:2] != b"\0\0":
        raise InputError(f"{path} is not an idx file", allowed="two zero bytes, a type, a number of axes")
    kind, axes = data[2], data[3]
    if kind != UNSIGNED_BYTE or not 1 <= axes <= 4:
        raise InputError(
            f"{path}: idx type 0x{kind:02x} with {axes} axes", allowed="unsigned bytes (0x08), 1 to 4 axes"
        )
    header = 4 + 4 * axes
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, header, 4))
    if len(data) - header != math.prod(shape):
        raise InputError(
            f"{path}: the header says {shape}, the file holds {len(data) - header} bytes of data",
            hint="the file is damaged or cut short: fetch it again",
        )
    return (
        np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape).copy()
    )  # writable, as torch wants it


def _unpacked(path: Path) -> bytes | bytearray:
    if path.suffix == ".gz":
        return read_gzip(path, "idx file", MAX_BYTES, MAX_BYTES)
    return read_bytes(path, "idx file", MAX_BYTES)


def _find(folder: Path, stem: str) -> Path:
    for path in (folder / stem, folder / f"{stem}.gz"):
        if path.is_file():
            return path
    raise InputError(
        f"{folder} has no file {stem} or {stem}.gz", hint=f"a data folder holds {', '.join(FILES)}"
    )


def _images(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return array[:, np.newaxis] if array.ndim == 3 else array
