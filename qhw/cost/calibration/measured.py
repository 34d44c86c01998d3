"""Measured sets: ``cost_models/<family>/measured.csv``, one row per synthesised design, each with a checksum.

A row is what a tool measured, never what somebody typed: a row whose fields do not give its checksum is
refused, so is one that its schema or the catalogue's split does not allow.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from qhw.cost.oracle.netlist import Counts
from qhw.cost.oracle.synth import SynthesisResult, check_family
from qhw.errors import InputError
from qhw.outside import shown
from qhw.outside.text import read_csv
from qhw.resources import resource_dir

Split = Literal["fit", "held-out", "held-out format"]
"""A row's purpose: to fit a model, or only to measure its error."""

Status = Literal["ok", "time", "memory"]

FILE = "measured.csv"

_LARGEST_FILE = 1 << 26

_COUNTS = tuple(field.name for field in fields(Counts))
COLUMNS = (
    "unit", "parameters", "split", "tool", "version", "mapper", "status", *_COUNTS,
    "fmax_mhz", "key", "check",
)  # fmt: skip
_CHECK_DIGITS = 12


@dataclass(frozen=True)
class Row:
    """One measured design; ``result`` has no counts where the synthesis ran out of time or memory."""

    unit: str
    parameters: tuple[tuple[str, int], ...]
    split: Split
    result: SynthesisResult

    @property
    def design(self) -> tuple[str, tuple[tuple[str, int], ...]]:
        """The key of the measured design, whatever came out."""
        return self.unit, self.parameters

    @property
    def values(self) -> dict[str, int]:
        """The parameters by name."""
        return dict(self.parameters)

    @property
    def counts(self) -> Counts:
        """The design's resources.

        Raises:
            InputError: its synthesis failed.
        """
        if self.result.counts is None:
            raise InputError(
                f"{self.unit} {_parameters_text(self.parameters)} has no counts: {self.result.failure}"
            )
        return self.result.counts


def path_of(family: str) -> Path:
    """The committed set of a family.

    Raises:
        InputError: an unknown family.
    """
    check_family(family)
    return resource_dir("cost_models") / family / FILE


def write(path: Path, rows: Iterable[Row]) -> None:
    """Write a set, beside and renamed; the same rows give the same bytes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        cells = _cells(row)
        writer.writerow([*cells, _check(cells)])
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    beside.write_text(text.getvalue(), encoding="utf-8")
    beside.replace(path)


def read(path: Path) -> list[Row]:
    """Read a set.

    Raises:
        InputError: there is none, or a row was damaged or changed by hand; names the row and the field.
    """
    lines = read_csv(path, "measured set", _LARGEST_FILE, "qhw calibrate --family F measures it")
    if not lines or tuple(lines[0]) != COLUMNS:
        raise InputError(f"{path}, row 1: not the columns of a measured set", allowed=", ".join(COLUMNS))
    rows = [_row(cells, f"{path}, row {number}") for number, cells in enumerate(lines[1:], start=2)]
    seen: dict[Any, int] = {}
    for number, row in enumerate(rows, start=2):
        if row.design in seen:
            raise InputError(
                f"{path}, row {number}, field 'parameters': the design of row {seen[row.design]} again"
            )
        seen[row.design] = number
    return rows


def _cells(row: Row) -> list[str]:
    result = row.result
    counts = (
        [""] * len(_COUNTS) if result.counts is None else [str(n) for n in asdict(result.counts).values()]
    )
    return [
        row.unit,
        _parameters_text(row.parameters),
        row.split,
        result.tool,
        result.version,
        result.mapper,
        result.failure or "ok",
        *counts,
        "" if result.fmax_mhz is None else f"{result.fmax_mhz:.2f}",
        result.key,
    ]


def _check(cells: Sequence[str]) -> str:
    return hashlib.sha256("\x1f".join(cells).encode()).hexdigest()[:_CHECK_DIGITS]


def _row(cells: list[str], where: str) -> Row:
    if len(cells) != len(COLUMNS):
        raise InputError(f"{where}: {len(cells)} fields", allowed=f"{len(COLUMNS)}: {', '.join(COLUMNS)}")
    given = dict(zip(COLUMNS, cells, strict=True))

    def field(name: str, allowed: Sequence[str]) -> Any:
        if given[name] not in allowed:
            raise InputError(f"{where}, field {name!r}: {shown(given[name])}", allowed=", ".join(allowed))
        return given[name]

    status, split = field("status", get_args(Status)), field("split", get_args(Split))
    counts = Counts(*(_natural(given[name], where, name) for name in _COUNTS)) if status == "ok" else None
    if counts is None and any(given[name] for name in _COUNTS):
        raise InputError(f"{where}, field 'status': {status!r} beside counts", allowed="ok")
    parameters = _parameters(given["parameters"], where)
    fmax = _megahertz(given["fmax_mhz"], where)
    if given["check"] != _check(cells[:-1]):
        raise InputError(
            f"{where}, field 'check': {shown(given['check'])} is not the checksum of this row's fields",
            allowed=f"rows as they were measured ({shown(given['unit'])} {shown(given['parameters'])})",
            hint="delete the row and run qhw calibrate: it measures what is missing",
        )
    failure = "" if status == "ok" else status
    result = SynthesisResult(
        given["key"], given["tool"], given["version"], given["mapper"], counts, failure, fmax
    )
    return Row(given["unit"], parameters, split, result)


def _natural(text: str, where: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise InputError(f"{where}, field {name!r}: {shown(text)}", allowed="a count")
    return int(text)


def _megahertz(text: str, where: str) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 < value < 10_000:
        raise InputError(f"{where}, field 'fmax_mhz': {shown(text)}", allowed="MHz, or nothing")
    return value


def _parameters_text(parameters: tuple[tuple[str, int], ...]) -> str:
    return " ".join(f"{name}={value}" for name, value in parameters)


def _parameters(text: str, where: str) -> tuple[tuple[str, int], ...]:
    pairs = [part.split("=") for part in text.split()]
    try:
        return tuple((name, int(value)) for name, value in pairs)
    except ValueError:
        raise InputError(
            f"{where}, field 'parameters': {shown(text)}", allowed="NAME=INTEGER NAME=INTEGER ..."
        ) from None
