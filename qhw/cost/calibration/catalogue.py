"""The designs that are measured: a low-discrepancy sample of each unit's parameters, and what is held out.

Nothing here is drawn at random: the sample is an additive recurrence (Roberts' generalisation of the golden
ratio), so that the first n designs of a unit spread over the whole space for every n, and the split follows
from a hash of the design. Whole number formats are held out too: a model must price a format it never saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from qhw import rtl
from qhw.cost.calibration.measured import Split
from qhw.cost.oracle.synth import Circuit
from qhw.devices import fabric_of
from qhw.errors import InputError
from qhw.rtl.base import OWN_DSP, Axis, Values

HELD_OUT_FORMATS = frozenset({(3, 2), (4, 1)})
"""(exponent bits, mantissa bits) of which no design is ever fitted, in either operand."""

HELD_OUT_ONE_IN = 5
"""One design in this many is held out besides."""

_FORMAT_PARAMETERS = (("EA", "MA"), ("EB", "MB"), ("E", "M"))


@dataclass(frozen=True)
class Point:
    """One design of the catalogue."""

    unit: str
    parameters: tuple[tuple[str, int], ...]
    split: Split

    @property
    def circuit(self) -> Circuit:
        """The Verilog to measure; raises ToolMissingError where a package that emits it is not installed."""
        return _circuit(self.unit, self.parameters)

    @property
    def design(self) -> tuple[str, tuple[tuple[str, int], ...]]:
        """The design's key in a measured set."""
        return self.unit, self.parameters


def units() -> list[str]:
    """Every unit, in the order of the measured sets."""
    return list(rtl.UNITS)


def points(family: str, chosen: Sequence[str]) -> list[Point]:
    """The designs of some units in one family: the first of each unit, then the second of each, ..."""
    each = [list(_points(unit, family)) for unit in chosen]
    longest = max((len(designs) for designs in each), default=0)
    return [designs[i] for i in range(longest) for designs in each if i < len(designs)]


def _points(unit: str, family: str) -> Iterator[Point]:
    """Different designs of a unit: as many as its space asks for, or as it holds."""
    space, fabric = rtl.UNITS[unit].space, fabric_of(family)
    wanted = max(1, round(space.points * fabric.measured_share))
    found: dict[tuple[tuple[str, int], ...], Point] = {}
    for fractions in islice(_sequence(unit, len(space.axes)), _TRIES * space.points):
        values = _values(space.axes, fractions)
        if values.get("MULTIPLIER") == OWN_DSP:
            values["MULTIPLIER"] = fabric.multiplier
        parameters = tuple(values.items())
        if values.get("STYLE", 1) not in fabric.memories:
            continue
        if parameters in found or not _is_legal(unit, dict(parameters)):
            continue
        found[parameters] = Point(unit, parameters, split_of(unit, parameters))
        if len(found) == wanted:
            break
    yield from found.values()


def _circuit(unit: str, parameters: tuple[tuple[str, int], ...]) -> Circuit:
    given, values = rtl.UNITS[unit], dict(parameters)
    return Circuit(
        given.top,
        tuple(given.files),
        parameters,
        text=given.emit(values) if given.emit else "",
        memories=given.memories,
        vendor_cells=values.get("MULTIPLIER", 0) > 0,
        srl=given.srl,
    )


_TRIES = 20
"""Candidates per wanted design: small spaces repeat themselves, and some combinations are not legal."""


def _sequence(unit: str, dimensions: int) -> Iterator[list[float]]:
    """Points of the unit cube: x_k = x_0 + k (1/g, 1/g^2, ...) mod 1, g^(d+1) = g + 1 (Roberts 2018)."""
    g = 2.0
    for _ in range(64):
        g = (1 + g) ** (1 / (dimensions + 1))
    start = int(_digest(unit)[:8], 16) / 2**32
    for k in count(1):
        yield [(start + k * g ** -(axis + 1)) % 1.0 for axis in range(dimensions)]


def _values(axes: Sequence[Axis], fractions: Sequence[float]) -> dict[str, int]:
    values: dict[str, int] = {}
    for axis, fraction in zip(axes, fractions, strict=True):
        values[axis.name] = axis.at(fraction, values)
    return values


def _is_legal(unit: str, values: Values) -> bool:
    try:
        rtl.check_parameters(unit, values)
    except InputError:
        return False
    return True


def split_of(unit: str, parameters: tuple[tuple[str, int], ...]) -> Split:
    """The design's purpose (fit or held out), which depends on nothing but the design."""
    values = dict(parameters)
    formats = {(values[e], values[m]) for e, m in _FORMAT_PARAMETERS if e in values and m in values}
    if formats & HELD_OUT_FORMATS:
        return "held-out format"
    text = " ".join([unit, *(f"{name}={value}" for name, value in parameters)])
    return "fit" if int(_digest(text)[:8], 16) % HELD_OUT_ONE_IN else "held-out"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
