"""``cost_models/<family>/model.json``: the fitted weights of a family's units, and their held-out errors.

The file follows from ``measured.csv`` alone: the same rows give the same bytes. A file changed by hand is
refused, as is one that an older or newer version wrote.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qhw.cost.calibration.accuracy import UnitErrors
from qhw.cost.calibration.fit import Spread, fit
from qhw.cost.calibration.measured import Row
from qhw.cost.oracle.synth import check_family
from qhw.devices import fabrics
from qhw.errors import InputError
from qhw.outside import shown
from qhw.outside.schema import by_name, check, table
from qhw.outside.text import read_json
from qhw.resources import resource_dir
from qhw.rtl import closed_forms

FILE = "model.json"
SCHEMA_VERSION = 1
_CHECK_DIGITS = 16
_LARGEST_FILE = 1 << 24


@dataclass(frozen=True)
class FittedUnit:
    """One unit of a family.

    Args:
        weights: LUT of each feature.
        fitted: designs that were fitted.
        held_out, held_out_formats: errors on designs, and on number formats, that were not.
    """

    weights: Mapping[str, float]
    fitted: int
    held_out: UnitErrors
    held_out_formats: UnitErrors


@dataclass(frozen=True)
class FittedFamily:
    """All units of a family; ``tools`` says what measured them."""

    family: str
    tools: tuple[str, ...]
    units: Mapping[str, FittedUnit]


def path_of(family: str) -> Path:
    """The committed model of a family; raises InputError for an unknown one."""
    check_family(family)
    return resource_dir("cost_models") / family / FILE


def fit_family(family: str, rows: Iterable[Row]) -> FittedFamily:
    """Fit every unit that has rows."""
    by_unit: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_unit[row.unit].append(row)
    tools = sorted({f"{r.result.tool} {r.result.version}" for unit in by_unit.values() for r in unit})
    units = {unit: _fit_unit(family, unit, found) for unit, found in by_unit.items()}
    return FittedFamily(family, tuple(tools), units)


def _fit_unit(family: str, unit: str, rows: list[Row]) -> FittedUnit:
    model = closed_forms(unit, family)
    weights = fit(model, rows)

    def errors(split: str) -> UnitErrors:
        return UnitErrors.of(model, weights, [row for row in rows if row.split == split], family)

    fitted = sum(row.split == "fit" and row.result.counts is not None for row in rows)
    return FittedUnit(weights, fitted, errors("held-out"), errors("held-out format"))


def write(path: Path, fitted: FittedFamily) -> None:
    """Write a model, beside and renamed; the same model gives the same bytes."""
    content = {"schema_version": SCHEMA_VERSION, **plain(fitted)}
    text = json.dumps({**content, "check": _check(content)}, indent=1, sort_keys=False) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> FittedFamily:
    """Read a model.

    Raises:
        InputError: there is none, or it was damaged or changed by hand; names the field.
    """
    content = read_json(path, "fitted model", _LARGEST_FILE, _REFIT)
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise InputError(
            f"{path}, field 'schema_version': not {SCHEMA_VERSION}", allowed=str(SCHEMA_VERSION), hint=_REFIT
        )
    check(content, _SCHEMA, str(path), _REFIT)
    stated = content.pop("check")
    units = {name: _unit(given) for name, given in content["units"].items()}
    fitted = FittedFamily(content["family"], tuple(content["tools"]), units)
    if stated != _check(content):
        raise InputError(
            f"{path}, field 'check': {shown(stated)} is not the checksum of the other fields",
            allowed="a model as it was fitted",
            hint=_REFIT,
        )
    return fitted


_REFIT = "qhw calibrate --family F fits it again"


_COUNT = {"type": "integer", "minimum": 0}
_ERROR = {"type": ["number", "null"]}
_SPREAD = table({"median": _ERROR, "p95": _ERROR, "count": _COUNT})
_ERRORS = table(
    {
        "designs": _COUNT,
        "lut_percent": _SPREAD,
        "lut": _SPREAD,
        "ff_exact": _ERROR,
        "ff_beyond": _COUNT,
        "dsp_exact": _ERROR,
        "memory_exact": _ERROR,
    }
)
_UNIT = table(
    {
        "weights": by_name({"type": "number", "minimum": 0, "exclusiveMaximum": 1e6}),
        "fitted": _COUNT,
        "held_out": _ERRORS,
        "held_out_formats": _ERRORS,
    }
)
_SCHEMA = table(
    {
        "schema_version": {"const": SCHEMA_VERSION},
        "family": {"type": "string"},
        "tools": {"type": "texts"},
        "units": by_name(_UNIT),
        "check": {"type": "string"},
    }
)


def worst_lut_error(family: str) -> dict[str, float] | None:
    """The held-out error in LUT of the family's worst unit, in percent; None where nothing was measured."""
    if family not in fabrics() or not path_of(family).is_file():
        return None
    errors = [unit.held_out.lut_percent for unit in read(path_of(family)).units.values()]
    known = [error for error in errors if math.isfinite(error.p95)]
    if not known:
        return None
    worst = max(known, key=lambda error: error.p95)
    return {"median": worst.median, "p95": worst.p95}


def _unit(given: Mapping[str, Any]) -> FittedUnit:
    weights = {feature: float(weight) for feature, weight in given["weights"].items()}
    return FittedUnit(
        weights, given["fitted"], _errors(given["held_out"]), _errors(given["held_out_formats"])
    )


def _errors(given: Mapping[str, Any]) -> UnitErrors:
    def number(name: str) -> float:
        return float("nan") if given[name] is None else float(given[name])

    return UnitErrors(
        designs=given["designs"],
        lut_percent=_spread(given["lut_percent"]),
        lut=_spread(given["lut"]),
        ff_exact=number("ff_exact"),
        ff_beyond=given["ff_beyond"],
        dsp_exact=number("dsp_exact"),
        memory_exact=number("memory_exact"),
    )


def _spread(given: Mapping[str, Any]) -> Spread:
    median, p95 = (float("nan") if given[name] is None else given[name] for name in ("median", "p95"))
    return Spread(median, p95, given["count"])


def plain(fitted: FittedFamily | FittedUnit) -> Any:
    """The models as JSON values."""
    return _rounded(asdict(fitted))


def _rounded(value: Any) -> Any:
    """Plain data with the errors rounded; what is not a number is null."""
    if isinstance(value, Mapping):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, float):
        return None if value != value else round(value, 6)
    return list(value) if isinstance(value, tuple) else value


def _check(content: Any) -> str:
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_CHECK_DIGITS]
