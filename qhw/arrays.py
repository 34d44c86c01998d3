"""Named arrays in one .npz file, read without unpickling anything."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError
from qhw.formats.modes import IntArray
from qhw.outside import shown
from qhw.outside.arrays import read_npy, read_npz

_PREFIX = "tensor:"
"""Before every name in a file, so that no name collides with numpy's own ("file", "allow_pickle")."""

LARGEST_FILE = 4 << 30
"""Bytes of an array file that are read at most."""


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays by name; integers beyond 63 bits as decimal text.

    Raises:
        InputError: the file cannot be written.
    """
    stored = {_PREFIX + name: x.astype(str) if x.dtype == object else x for name, x in arrays.items()}
    try:
        with path.open("wb") as file:
            np.savez_compressed(file, **stored)  # type: ignore[arg-type]
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror or error}") from None


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read what :func:`save_arrays` wrote.

    Raises:
        InputError: the file is missing, too large, or something else.
    """
    arrays = read_npz(path, "array file", LARGEST_FILE)
    wrong = [name for name in arrays if not name.startswith(_PREFIX)]
    if wrong or not arrays:
        raise InputError(
            f"{path} was not saved by qhw: it holds {shown(wrong[0]) if wrong else 'nothing'}",
            hint="save a trace with qhw simulate MODEL --out FILE.npz",
        )
    return {name.removeprefix(_PREFIX): _numbers(path, x) for name, x in arrays.items()}


def load_mantissas(path: Path) -> dict[str, IntArray]:
    """Read integers (N, *shape) by name.

    Raises:
        InputError: as for :func:`load_arrays`, or an array does not hold integers.
    """
    arrays = load_arrays(path)
    for name, x in arrays.items():
        if x.dtype.kind not in "iuO":
            raise InputError(f"{path}: {name} is of type {x.dtype}", allowed="integers")
    return {name: x if x.dtype == object else x.astype(np.int64) for name, x in arrays.items()}


def read_array(path: Path, what: str = "input file") -> NDArray[Any]:
    """The one array of a .npy file.

    Raises:
        InputError: the file is missing, too large, or not such a file.
    """
    return read_npy(path, what, LARGEST_FILE)


def _numbers(path: Path, x: NDArray[Any]) -> NDArray[Any]:
    """Decimal text as Python integers."""
    if x.dtype.kind != "U":
        return x
    try:
        return np.array([int(text) for text in x.flat], dtype=object).reshape(x.shape)
    except ValueError as error:
        raise InputError(f"{path} holds text that is not an integer: {shown(str(error))}") from None
