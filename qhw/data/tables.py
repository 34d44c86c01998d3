"""Tables: CSV with a header line, or Parquet; one row per sample, numbers as features, targets in columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.data.base import Dataset
from qhw.data.reading import Reading
from qhw.errors import InputError, ToolMissingError, closest
from qhw.outside import opened
from qhw.outside.text import read_csv

SUFFIXES = (".csv", ".parquet")
SPLIT = "split"
"""A column of this name says "train" or "test" of each row."""

MAX_BYTES = 1 << 30
_FLOATS = np.float32

Columns = dict[str, NDArray[Any]]


def load_table(path: Path, reading: Reading) -> Dataset:
    """A data set from a table.

    The targets are in the columns that ``reading`` names, or in the last. Whole numbers and words are classes
    (words in alphabetical order), other numbers are predicted; every other column is a float32 feature.

    Raises:
        InputError: the file is no such table, a feature is no number, or a column is missing.
        ToolMissingError: Parquet without pyarrow.
    """
    columns = _read_parquet(path) if path.suffix == ".parquet" else _read_csv(path)
    splits = columns.pop(SPLIT, None)
    chosen = reading.target or tuple(columns)[-1:]
    for name in chosen:
        if name not in columns:
            raise InputError(f"{path} has no column {name!r}", hint=closest(name, columns))
    features = [name for name in columns if name not in chosen]
    if not features:
        raise InputError(f"{path} has no features beside its targets {', '.join(chosen)}")
    x = np.stack([_feature(path, name, columns[name]) for name in features], axis=1)
    y = _targets(path, {name: columns[name] for name in chosen}, reading.task)
    source = f"{path.name}: {len(features)} features, target {', '.join(chosen)}"
    if splits is None:
        return reading.split(path.stem, source, x, y)
    parts = [splits == "train", splits == "test"]
    if not (parts[0] | parts[1]).all():
        raise InputError(f"{path}: the column {SPLIT!r} holds other words", allowed="train, test")
    return reading.dataset(path.stem, source, (x[parts[0]], y[parts[0]]), (x[parts[1]], y[parts[1]]))


def _read_csv(path: Path) -> Columns:
    rows = [row for row in read_csv(path, "table", MAX_BYTES) if row]
    if len(rows) < 2:
        raise InputError(f"{path} holds {len(rows)} lines", allowed="a header line, and a line per sample")
    names = [name.strip().removeprefix("\ufeff") for name in rows[0]]
    if len(set(names)) != len(names) or "" in names:
        raise InputError(f"{path}: its header {', '.join(names)} has empty or equal names")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise InputError(f"{path}, row {number}: {len(row)} fields, the header has {len(names)}")
    texts = np.array(rows[1:])
    return {name: _numbers_or_words(np.char.strip(texts[:, i])) for i, name in enumerate(names)}


def _numbers_or_words(texts: NDArray[Any]) -> NDArray[Any]:
    """A column of texts as integers, else as floats (an empty field is NaN), else as it is."""
    for kind in (np.int64, np.float64):
        try:
            return np.where(texts == "", "nan", texts).astype(kind)
        except (ValueError, OverflowError):
            continue
    return texts


def _read_parquet(path: Path) -> Columns:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError:
        raise ToolMissingError(
            f"{path} is a Parquet file, and pyarrow is not installed", hint="pip install 'qhw[tables]'"
        ) from None
    try:
        with opened(path, "table", MAX_BYTES) as file:
            stored = parquet.ParquetFile(file)
            groups = (stored.metadata.row_group(i) for i in range(stored.metadata.num_row_groups))
            if (size := sum(group.total_byte_size for group in groups)) > MAX_BYTES:
                raise InputError(f"{path} unpacks to {size} bytes", allowed=f"at most {MAX_BYTES}")
            table = stored.read()
        return {name: table[name].to_numpy() for name in table.column_names}
    except (OSError, ValueError, ArrowException) as error:
        raise InputError(f"{path} cannot be read as Parquet: {error}") from None


def _feature(path: Path, name: str, column: NDArray[Any]) -> NDArray[np.float32]:
    if column.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: the column {name!r} holds words, as in {str(column[0])[:40]!r}",
            allowed="numbers in every column but those of targets",
            hint="encode it in numbers first (one column per category), or leave it out",
        )
    return column.astype(_FLOATS)


def _targets(path: Path, columns: Columns, task: str) -> NDArray[Any]:
    arrays = []
    for name, column in columns.items():
        if column.dtype.kind in "OUS":
            if len(columns) > 1:
                raise InputError(f"{path}: the target {name!r} holds words, beside other targets")
            return np.asarray(np.unique(column.astype(str), return_inverse=True)[1])
        arrays.append(column)
    joined = arrays[0] if len(arrays) == 1 else np.stack(arrays, axis=1)
    return joined.astype(_FLOATS) if task == "regression" or joined.dtype.kind == "f" else joined
