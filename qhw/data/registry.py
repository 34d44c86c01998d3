"""Data sets by name, or a user's own by path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qhw.data import digits, fashion_mnist, mnist
from qhw.data.arrays import load_npz
from qhw.data.base import Dataset
from qhw.data.idx import load_folder
from qhw.errors import InputError, closest

LOADERS: dict[str, Callable[[Path | None], Dataset]] = {
    "digits": digits.load,
    "mnist": mnist.load,
    "fashion-mnist": fashion_mnist.load,
}


def dataset_names() -> tuple[str, ...]:
    """The built-in data sets."""
    return tuple(LOADERS)


def load_dataset(name: str, root: str | Path | None = None) -> Dataset:
    """A built-in data set by name, a folder of idx files, or an ``.npz`` file by path.

    Args:
        name: a name from :func:`dataset_names`, or a path.
        root: folder with the four idx files, instead of where the built-in one would be looked for.

    Raises:
        InputError: no such data set or path, or its files are damaged.
        ToolMissingError: the package that ships the data is not installed.
    """
    if name in LOADERS:
        return LOADERS[name](Path(root) if root is not None else None)
    path = Path(name)
    if path.is_dir():
        return load_folder(path, name=path.name)
    if path.exists():
        return load_npz(path)
    raise InputError(
        f"unknown data set {name!r}",
        allowed=f"{', '.join(LOADERS)}, a folder of idx files, or an .npz file",
        hint=closest(name, LOADERS),
    )
