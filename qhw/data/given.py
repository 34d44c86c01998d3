"""Data as a Python user has them: arrays, pairs, a ``torch.utils.data.Dataset`` or ``DataLoader``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.data.arrays import KEYS, NEEDED
from qhw.data.base import Dataset
from qhw.data.reading import Reading
from qhw.errors import InputError

TAKEN = (
    "a qhw.data.Dataset; (x, y); ((train_x, train_y), (test_x, test_y)); a mapping with "
    f"{', '.join(KEYS)}; a torch Dataset or DataLoader, or a pair (train, test) of them"
)

Pair = tuple[NDArray[Any], NDArray[Any] | None]


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
        if missing := [key for key in NEEDED if key not in given]:
            raise InputError(f"the data lack {', '.join(missing)}", allowed=f"arrays named {', '.join(KEYS)}")
        pairs = [_pair((given[f"{split}_x"], given.get(f"{split}_y"))) for split in ("train", "test")]
        return reading.dataset(name, source, pairs[0], pairs[1])
    if _is_torch_data(given) or _is_array(given):
        return reading.split(name, source, *_pair(given))
    if isinstance(given, Sequence) and len(given) == 2:
        first, second = given
        if _is_column(first) and (second is None or _is_column(second)):
            return reading.split(name, source, *_pair((first, second)))
        return reading.dataset(name, source, _pair(first), _pair(second))
    raise InputError(f"the data are of type {type(given).__name__}", allowed=TAKEN)


def _pair(given: Any) -> Pair:
    """Samples and targets of one split."""
    if _is_torch_data(given):
        return _of_torch(given)
    if _is_array(given):
        return _array(given), None
    if isinstance(given, Sequence) and len(given) == 2 and _is_column(given[0]):
        return _array(given[0]), None if given[1] is None else _array(given[1])
    raise InputError(f"a split of the data is of type {type(given).__name__}", allowed=TAKEN)


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


def _of_torch(given: Any) -> Pair:
    """Every sample of a map-style torch data set, in its order; of a loader, its data set's."""
    from torch.utils.data import DataLoader, IterableDataset, TensorDataset

    data = given.dataset if isinstance(given, DataLoader) else given
    if isinstance(data, TensorDataset) and len(data.tensors) <= 2:
        arrays = [_array(tensor) for tensor in data.tensors]
        return arrays[0], arrays[1] if len(arrays) > 1 else None
    stored: Any = data
    items = list(stored) if isinstance(data, IterableDataset) else [stored[i] for i in range(len(stored))]
    if not items:
        raise InputError("the data set holds no samples")
    if not isinstance(items[0], tuple | list):
        return np.stack([_array(item) for item in items]), None
    if len(items[0]) != 2:
        raise InputError(f"a sample of the data set has {len(items[0])} parts", allowed="(x, y), or x alone")
    try:
        x, y = (np.stack([_array(item[part]) for item in items]) for part in (0, 1))
    except ValueError as error:
        raise InputError(
            f"the samples of the data set cannot be stacked: {error}", allowed="one shape"
        ) from None
    return x, y
