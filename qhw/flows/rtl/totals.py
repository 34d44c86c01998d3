"""How far totals were from synthesis: the table that ``benchmarks/rtl_totals.py`` wrote."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from qhw.outside.schema import check, table
from qhw.outside.text import read_json
from qhw.resources import resource_dir

FILE = "rtl_totals.json"
SCHEMA_VERSION = 1
RESOURCES = ("lut", "ff", "dsp", "bram18")
_LARGEST_FILE = 1 << 24

_COUNTS = table({name: {"type": "integer", "minimum": 0} for name in RESOURCES})
_ROW = table(
    {
        "network": {"type": "string"},
        "formats": {"type": "string"},
        "family": {"type": "string"},
        "fps": {"type": "number", "exclusiveMinimum": 0},
        "multipliers": {"type": "string"},
        "folding": {"type": "string"},
        "held_out": {"type": "boolean"},
        "design": {"type": "string"},
        "tool": {"type": "string"},
        "estimated": _COUNTS,
        "synthesised": _COUNTS,
    }
)
_SCHEMA = table({"schema_version": {"const": SCHEMA_VERSION}, "rows": {"type": "array", "items": _ROW}})


def read() -> list[dict[str, Any]]:
    """The designs that were synthesised as a whole; none where there is no file.

    Raises InputError for a file that is something else.
    """
    path = resource_dir("cost_models") / FILE
    if not path.is_file():
        return []
    stored = read_json(path, "table of totals", _LARGEST_FILE)
    check(stored, _SCHEMA, str(path))
    return list(stored["rows"])


def error(row: Mapping[str, Any], resource: str) -> float:
    """How far the estimate is above what was synthesised, as a share of it."""
    given, counted = row["estimated"][resource], row["synthesised"][resource]
    if counted == 0:
        return 0.0 if given == 0 else float("inf")
    return float(given / counted - 1)


@dataclass(frozen=True)
class Errors:
    """Median and worst of the sizes of errors."""

    median: float
    worst: float

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, Any]], resource: str) -> Errors:
        sizes = [abs(error(row, resource)) for row in rows]
        return cls(statistics.median(sizes), max(sizes))

    def __str__(self) -> str:
        return f"±{self.median:.1%} (worst {self.worst:.1%})".replace("%", " %")


COUNTED = "counted from the emitted circuit, calibrated against Yosys, total not validated"


@cache
def label(family: str) -> str:
    """What a total on a family is worth: by the designs that nothing was corrected after."""
    rows = [row for row in read() if row["held_out"] and row["family"] == family]
    if not rows:
        return f"{COUNTED} on this family"
    said = ", ".join(f"{name.upper()} {Errors.of(rows, name)}" for name in ("lut", "ff"))
    exact = all(row["estimated"][name] == row["synthesised"][name] for row in rows for name in RESOURCES[2:])
    rest = "DSP and block RAM exact" if exact else "DSP and block RAM not always exact"
    return f"validated against synthesis by {rows[0]['tool']}: {said}, {rest}; {len(rows)} held-out designs"
