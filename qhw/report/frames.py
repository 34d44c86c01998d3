"""Results as pandas tables, for those who go on with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from qhw.errors import ToolMissingError

if TYPE_CHECKING:
    import pandas


def frame(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """A table of rows; values by name in one of a row's values become columns of their own.

    Raises:
        ToolMissingError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise ToolMissingError(
            "Tables in Python need pandas, which is not installed", hint="pip install pandas"
        ) from None
    return pandas.DataFrame([_flat(row) for row in rows])


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= dict(value) if isinstance(value, Mapping) else {name: value}
    return flat
