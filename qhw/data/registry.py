"""Data sets by name, or a user's own by path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qhw.data import digits, fashion_mnist, mnist
from qhw.data.arrays import load_npz
from qhw.data.base import Dataset
from qhw.data.given import as_dataset
from qhw.data.idx import load_folder
from qhw.data.images import holds_images, load_image_folder
from qhw.data.reading import Reading
from qhw.data.tables import SUFFIXES, load_table
from qhw.errors import InputError, closest

LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "digits": digits.load,
    "mnist": mnist.load,
    "fashion-mnist": fashion_mnist.load,
}

OWN = "an .npz, .csv or .parquet file, a folder of images or of idx files, or file.py:function"
"""A user's own data, in words."""


def dataset_names() -> tuple[str, ...]:
    """The built-in data sets."""
    return tuple(LOADERS)


def load_dataset(name: str, root: str | Path | None = None, reading: Reading | None = None) -> Dataset:
    """A built-in data set by name, or a user's own by path.

    Args:
        name: a name from :func:`dataset_names`, or the path of one of :data:`OWN`.
        root: folder with the four idx files, instead of where the built-in one would be looked for.
        reading: what the files do not say themselves.

    Raises:
        InputError: no such data set or path, or its files are damaged.
        ToolMissingError: the package that ships the data is not installed.
    """
    reading = reading or Reading()
    if name in LOADERS:
        return as_dataset(LOADERS[name](Path(root) if root is not None else None), reading)
    path = Path(name)
    if path.is_dir():
        if holds_images(path):
            return load_image_folder(path, reading)
        return as_dataset(load_folder(path, name=path.name), reading)
    if path.exists():
        return load_table(path, reading) if path.suffix.lower() in SUFFIXES else load_npz(path, reading)
    raise InputError(
        f"unknown data set {name!r}", allowed=f"{', '.join(LOADERS)}, {OWN}", hint=closest(name, LOADERS)
    )
