"""Samples of networks with one or several inputs: an array, or a tuple of arrays, one for each input."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError, closest

Array: TypeAlias = "NDArray[Any]"

Samples: TypeAlias = "Array | tuple[Array, ...]"
"""One array (N, ...); of several inputs a tuple of arrays with the same N."""

SPLITS = ("train", "test")

TARGETS = "y"
"""In the names of arrays: ``train_y`` are targets, any other ``train_NAME`` is an input."""

SEVERAL = (
    "of several inputs, train_NAME for each (the names of forward()'s arguments), or train_x0, train_x1, …"
)


def parts_of(samples: Samples) -> tuple[Array, ...]:
    """The arrays of samples, one for each input."""
    return samples if isinstance(samples, tuple) else (samples,)


def count_of(samples: Samples) -> int:
    """How many samples there are; of several inputs, as many as the first has."""
    return len(parts_of(samples)[0])


def rows_of(samples: Samples, index: slice | NDArray[np.int64]) -> Samples:
    """Some of the samples, of every input."""
    return tuple(part[index] for part in samples) if isinstance(samples, tuple) else samples[index]


def several_in(arrays: Mapping[str, Any], lacks: str) -> tuple[tuple[str, ...], dict[str, tuple[Any, ...]]]:
    """The inputs among arrays that are named ``train_NAME`` and ``test_NAME``.

    Returns:
        Their names, or () where they are numbered (``x0``, ``x1``, …); and the arrays of both splits.

    Raises:
        InputError: a split lacks an input (``lacks`` begins the message), or there are fewer than two.
    """
    found = {split: _named(arrays, f"{split}_") for split in SPLITS}
    names = list(found["train"])
    for split in SPLITS:
        missing = [f"{split}_{name}" for other in SPLITS for name in found[other] if name not in found[split]]
        if missing:
            raise InputError(f"{lacks} {', '.join(missing)}", allowed=_allowed())
    if len(names) < 2:
        raise InputError(f"{lacks} train_x, test_x", allowed=_allowed())
    if all(re.fullmatch(r"x\d+", name) for name in names):
        names.sort(key=lambda name: int(name[1:]))
    arranged = {split: tuple(found[split][name] for name in names) for split in SPLITS}
    is_numbered = names == [f"x{place}" for place in range(len(names))]
    return () if is_numbered else tuple(names), arranged


def _named(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    names = [name for name in arrays if name.startswith(prefix)]
    return {name.removeprefix(prefix): arrays[name] for name in names if name != f"{prefix}{TARGETS}"}


def _allowed() -> str:
    return f"arrays named train_x, train_y, test_x, test_y; {SEVERAL}"


def arrangement(given: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    """For each wanted input, the place of the one of that name.

    In files, names are in lower case, and one that a layer has too is numbered: those are taken as well.

    Raises:
        InputError: a name is missing.
    """
    places = []
    for name in wanted:
        likely = [i for i, other in enumerate(given) if other == name]
        likely += [i for i, other in enumerate(given) if _plain(other) == _plain(name)]
        likely += [i for i, other in enumerate(given) if _plain(other) == re.sub(r"_\d+$", "", _plain(name))]
        free = [i for i in likely if i not in places]
        if not free:
            raise InputError(
                f"{where} has no input {name!r}: its inputs are {', '.join(given)}",
                allowed=f"the network's: {', '.join(wanted)}",
                hint=closest(name, given),
            )
        places.append(free[0])
    return places


def _plain(name: str) -> str:
    """A name as the exporter writes it."""
    return re.sub(r"[^a-z0-9_.]", "_", name.lower())
