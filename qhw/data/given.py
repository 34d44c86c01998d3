"""Data as a Python user has them: arrays, pairs, a ``torch.utils.data.Dataset`` or ``DataLoader``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.data.arrays import KEYS, NAMED, NEEDED, OF_SPLITS, of_arrays
from qhw.data.base import Dataset
from qhw.data.inputs import Array, Samples, parts_of
from qhw.data.reading import Reading
from qhw.errors import InputError

TAKEN = (
    "a qhw.data.Dataset; (x, y); ((train_x, train_y), (test_x, test_y)); a mapping with "
    f"{NAMED}; a torch Dataset or DataLoader, or a pair (train, test) of them; "
    "x of several inputs: a tuple (a, b), or a mapping by the names of forward()'s arguments"
)

Pair = tuple[Samples, NDArray[Any] | None]

Names = tuple[str, ...]
"""Of several inputs; () where they are not named."""


def as_dataset(given: Any, reading: Reading | None = None, name: str = "") -> Dataset:
    """A data set from what a user hands over; of what comes in one piece, every fifth sample is for testing.

    Args:
        given: one of :data:`TAKEN`.
        reading: what the data do not say themselves.
        name: its short name; "": by its type.

    Raises:
        InputError: it is something else, or its samples cannot be stacked.
    """
    reading = reading or Reading()
    name = name or type(given).__name__.lower()
    source = f"a {type(given).__name__} given in Python"
    if isinstance(given, Dataset):
        chosen = {key: value for key in ("task", "metric") if (value := getattr(reading, key))}
        return replace(given, **chosen) if chosen else given
    if isinstance(given, Mapping):
        read = KEYS if any(key in given for key in NEEDED) else OF_SPLITS
        arrays = {key: _array(value) for key, value in given.items() if key in read and value is not None}
        return of_arrays(arrays, reading, name, source, "the data lack")
    if _is_torch_data(given) or _is_array(given):
        (x, y), names = _pair(given)
        return reading.split(name, source, x, y, names)
    if isinstance(given, Sequence) and len(given) == 2:
        first, second = given
        if _is_samples(first) and (second is None or _is_column(second)):
            (x, y), names = _pair((first, second))
            return reading.split(name, source, x, y, names)
        (train, names), (test, others) = _pair(first), _pair(second)
        if set(names) != set(others):
            raise InputError(
                f"the inputs are {', '.join(names) or 'not named'} in the training split, and "
                f"{', '.join(others) or 'not named'} in the test split",
                allowed="the same names in both",
            )
        if names != others:
            parts = dict(zip(others, parts_of(test[0]), strict=True))
            test = tuple(parts[name] for name in names), test[1]
        return reading.dataset(name, source, train, test, names)
    raise InputError(f"the data are of type {type(given).__name__}", allowed=TAKEN)


def _pair(given: Any) -> tuple[Pair, Names]:
    """Samples and targets of one split, and the names of the inputs."""
    if _is_torch_data(given):
        return _of_torch(given)
    if _is_array(given):
        return (_array(given), None), ()
    if isinstance(given, Sequence) and len(given) == 2 and _is_samples(given[0]):
        x, names = _samples(given[0])
        return (x, None if given[1] is None else _array(given[1])), names
    raise InputError(f"a split of the data is of type {type(given).__name__}", allowed=TAKEN)


def _is_samples(given: Any) -> bool:
    """Whether something is an array of samples, or one for each of several inputs."""
    if isinstance(given, Mapping):
        return bool(given) and all(_is_column(part) for part in given.values())
    return _is_column(given) or (
        isinstance(given, tuple) and len(given) > 1 and all(_is_column(part) for part in given)
    )


def _samples(given: Any) -> tuple[Samples, Names]:
    """The arrays of one or several inputs, and their names."""
    if isinstance(given, Mapping):
        return tuple(_array(part) for part in given.values()), tuple(map(str, given))
    return (tuple(_array(part) for part in given) if isinstance(given, tuple) else _array(given)), ()


def _is_array(given: Any) -> bool:
    return hasattr(given, "__array__")


def _is_column(given: Any) -> bool:
    """An array, or a list of numbers or arrays (a tuple holds samples and targets)."""
    return _is_array(given) or (
        isinstance(given, list)
        and bool(given)
        and (_is_array(given[0]) or isinstance(given[0], int | float | list))
    )


def _array(given: Any) -> NDArray[Any]:
    try:
        array = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except ValueError:  # lists of arrays of different lengths
        array = np.asarray(None)
    if array.dtype == object:
        raise InputError(
            "the data hold arrays of different shapes, or other things than numbers",
            allowed="arrays of numbers, samples of one shape",
        )
    return array


def _is_torch_data(given: Any) -> bool:
    return any(
        kind.__module__.startswith("torch.utils.data") and kind.__name__ in ("Dataset", "DataLoader")
        for kind in type(given).__mro__
    )


def _of_torch(given: Any) -> tuple[Pair, Names]:
    """Every sample of a map-style torch data set, in its order; of a loader, its data set's."""
    from torch.utils.data import DataLoader, IterableDataset, TensorDataset

    data = given.dataset if isinstance(given, DataLoader) else given
    if isinstance(data, TensorDataset) and len(data.tensors) <= 2:
        arrays = [_array(tensor) for tensor in data.tensors]
        return (arrays[0], arrays[1] if len(arrays) > 1 else None), ()
    stored: Any = data
    items = list(stored) if isinstance(data, IterableDataset) else [stored[i] for i in range(len(stored))]
    if not items:
        raise InputError("the data set holds no samples")
    if not isinstance(items[0], tuple | list):
        x, names = _stacked(items)
        return (x, None), names
    if len(items[0]) != 2:
        raise InputError(
            f"a sample of the data set has {len(items[0])} parts",
            allowed="(x, y), or x alone; ((a, b), y) where the network has several inputs",
        )
    x, names = _stacked([item[0] for item in items])
    y, _ = _stacked([item[1] for item in items])
    if isinstance(y, tuple):
        raise InputError("the targets of the data set are several tensors", allowed="one")
    return (x, y), names


def _stacked(items: Sequence[Any]) -> tuple[Samples, Names]:
    """Samples of one or of several inputs in arrays, and the names of the inputs."""
    first = items[0]
    if isinstance(first, Mapping):
        names = tuple(map(str, first))
        return tuple(_column([item[key] for item in items]) for key in first), names
    if isinstance(first, tuple) and len(first) > 1 and all(_is_array(part) for part in first):
        return tuple(_column([item[place] for item in items]) for place in range(len(first))), ()
    return _column(items), ()


def _column(items: Sequence[Any]) -> Array:
    try:
        return np.stack([_array(item) for item in items])
    except ValueError as error:
        raise InputError(
            f"the samples of the data set cannot be stacked: {error}", allowed="one shape"
        ) from None
