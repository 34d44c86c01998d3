"""Measures a family's catalogue of designs into its ``measured.csv``, several at a time, and fits its models.

A row whose key (of circuit, parameters, tool and script) still holds is kept; the rest is measured. So the
same command finishes an interrupted run, takes in a changed circuit, and with an empty folder starts anew.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from qhw.cost.calibration import catalogue, measured, model_file
from qhw.cost.calibration.catalogue import Point
from qhw.cost.calibration.measured import Row
from qhw.cost.calibration.model_file import FittedFamily
from qhw.cost.oracle.synth import Oracle, SynthesisResult, Yosys, measure
from qhw.cost.oracle.vivado import Vivado
from qhw.errors import InputError, QhwError, closest
from qhw.native import cache_folder

Progress = Callable[[float | None, str], None]

SAVE_SECONDS = 10.0
"""How often the rows measured so far are written; the cache keeps the others of an interrupted run."""


@dataclass(frozen=True)
class UnitRows:
    """How many rows a set holds of a unit, are held out, and ran out of time or memory."""

    rows: int
    held_out: int
    failed: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> UnitRows:
        """Count."""
        held_out = sum(row.split != "fit" for row in rows)
        return cls(len(rows), held_out, sum(bool(row.result.failure) for row in rows))


@dataclass(frozen=True)
class Calibration:
    """The result of :func:`calibrate`.

    Args:
        path: the file of the measured set; the fitted models, ``model.json``, lie beside it.
        rows: the rows of the set after the run.
        measured: rows that this run measured, out of ``missing`` that were not there.
        refused: designs that the tool refused, with what it said.
    """

    family: str
    path: Path
    rows: tuple[Row, ...]
    measured: int
    missing: int
    refused: Mapping[str, str]
    seconds: float
    fitted: FittedFamily

    @property
    def left(self) -> int:
        """Designs of the catalogue that still have no row."""
        return self.missing - self.measured

    def to_json(self) -> dict[str, Any]:
        """Counts per unit and in all."""
        return {
            "family": self.family,
            "path": str(self.path),
            "rows": len(self.rows),
            "measured": self.measured,
            "left": self.left,
            "units": {unit: asdict(of_unit) for unit, of_unit in self.units.items()},
            "model": str(model_beside(self.path)),
            "errors": {unit: model_file.plain(fitted) for unit, fitted in self.fitted.units.items()},
            "refused": dict(self.refused),
            "seconds": round(self.seconds, 1),
        }

    @property
    def units(self) -> dict[str, UnitRows]:
        """The rows of each unit in the set."""
        by_unit: dict[str, list[Row]] = {}
        for row in self.rows:
            by_unit.setdefault(row.unit, []).append(row)
        return {unit: UnitRows.of(rows) for unit, rows in by_unit.items()}


def calibrate(
    family: str,
    *,
    units: Sequence[str] = (),
    jobs: int | None = None,
    limit: int | None = None,
    path: Path | None = None,
    oracle: Oracle | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Measure what a family's set lacks, then fit the models to all of it.

    Args:
        units: only these; all without any.
        jobs: syntheses at a time; as many as there are processors.
        limit: measure at most this many designs.
        path: the measured set, instead of the project's own; the models are written beside it.
        oracle: the tool that measures; Yosys where none is given.
        cache: a folder for single results, instead of the user's own.

    Raises:
        InputError: an unknown family or unit, or a damaged set.
        ToolMissingError: the tool is not installed.
    """
    start = time.monotonic()
    path = path or measured.path_of(family)
    oracle = oracle or Yosys(family)
    points = catalogue.points(family, _known(units))
    rows = {row.design: row for row in (measured.read(path) if path.exists() else [])}
    missing = [point for point in points if not _holds(rows.get(point.design), oracle.key(point.circuit))]
    chosen = missing if limit is None else missing[:limit]
    run = _Run(family, path, rows)
    try:
        designs = [point.circuit for point in chosen]
        for index, result in measure(
            oracle, designs, jobs=jobs or os.cpu_count() or 1, cache=cache or cache_folder() / "synthesis"
        ):
            run.take(chosen[index], result)
            if progress:
                progress(run.done / len(chosen), f"{run.done} of {len(chosen)}  {chosen[index].circuit}")
    finally:
        ordered = tuple(run.save())
    fitted = model_file.fit_family(family, ordered)
    model_file.write(model_beside(path), fitted)
    seconds = time.monotonic() - start
    return Calibration(family, path, ordered, run.measured, len(missing), run.refused, seconds, fitted)


def model_beside(path: Path) -> Path:
    """The file of a measured set's models."""
    return path.with_name(model_file.FILE)


def oracle_of(tool: str, family: str) -> Oracle:
    """The tool of a name: yosys, vivado."""
    tools: dict[str, Callable[[str], Oracle]] = {"yosys": Yosys, "vivado": Vivado}
    if tool not in tools:
        raise InputError(f"{tool!r} does not synthesise", hint=closest(tool, tools))
    return tools[tool](family)


def _known(units: Sequence[str]) -> Sequence[str]:
    known = catalogue.units()
    for unit in units:
        if unit not in known:
            raise InputError(f"{unit!r} is not a unit", hint=closest(unit, known))
    return units or known


def _holds(row: Row | None, key: str) -> bool:
    return row is not None and row.result.key == key and row.result.counts is not None


class _Run:
    """The rows of a set while they grow, and when they were last saved."""

    def __init__(self, family: str, path: Path, rows: dict[Any, Row]):
        self._path, self._rows = path, rows
        by_unit = [point for unit in catalogue.units() for point in catalogue.points(family, [unit])]
        self._order = {point.design: place for place, point in enumerate(by_unit)}
        self._saved = time.monotonic()
        self.refused: dict[str, str] = {}
        self.measured = self.done = 0

    def take(self, point: Point, result: SynthesisResult | QhwError) -> None:
        self.done += 1
        if isinstance(result, QhwError):
            self.refused[str(point.circuit)] = result.hint or result.message
            return
        self._rows[point.design] = Row(*point.design, point.split, result)
        self.measured += 1
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> Iterable[Row]:
        """Write the rows of designs that are still in the catalogue, in its order."""
        kept = sorted((d for d in self._rows if d in self._order), key=self._order.__getitem__)
        rows = [self._rows[design] for design in kept]
        measured.write(self._path, rows)
        self._saved = time.monotonic()
        return rows
