"""References that are clocked step by step: streams as rows, and back as columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from qhw.formats.modes import IntArray
from qhw.rtl.base import Control, Streams, Values

WILLING = (0.2, 0.6, 1.0)
"""Shares of cycles in which an end of a stream is ready."""

RESET = Control("reset", (0.0, 0.0, 0.0, 0.0002), start=1)
COUNTER = ("cycle", "counted")
"""The files of a counter."""


def rows_of(inputs: Streams, *names: str) -> Iterator[tuple[int, ...]]:
    """What the streams of these names hold, step by step."""
    return zip(*(inputs[name][:, 0].tolist() for name in names), strict=True)


def column(numbers: Sequence[int], width: int = 1) -> IntArray:
    """Numbers of so many bits, one a step, as a stream."""
    return np.array(numbers, dtype=object if width > _INT64 else np.int64)[:, None]


_INT64 = 62
"""Bits of a word up to which it fits NumPy's integers."""


def columns_of(names: tuple[str, ...], rows: Sequence[tuple[int, ...]], wide: bool = False) -> Streams:
    """A stream for each name of what was noted step by step, of Python integers where they are wide."""
    kind = object if wide else np.int64
    return {
        name: np.array(column, dtype=kind)[:, None]
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def drawn_words(values: Values) -> list[int]:
    """D words of W bits, as a proof fills a memory of constants with them."""
    rng = np.random.default_rng([values["D"], values["W"]])
    bits = rng.integers(0, 2, (values["D"], values["W"]))
    return [int("".join(map(str, word)), 2) for word in bits.tolist()]
