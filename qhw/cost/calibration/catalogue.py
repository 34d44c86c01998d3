"""The designs that are measured: a low-discrepancy sample of each unit's parameters, and what is held out.

Nothing here is drawn at random: the sample is an additive recurrence (Roberts' generalisation of the golden
ratio), so that the first n designs of a unit spread over the whole space for every n, and the split follows
from a hash of the design. Whole number formats are held out too: a model must price a format it never saw.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import TypeAlias

from qhw import rtl
from qhw.cost.calibration.measured import Split
from qhw.cost.oracle.synth import Circuit
from qhw.devices import fabric_of
from qhw.errors import InputError

Values: TypeAlias = "Mapping[str, int]"
Bound: TypeAlias = "int | Callable[[Values], int]"

HELD_OUT_FORMATS = frozenset({(3, 2), (4, 1)})
"""(exponent bits, mantissa bits) of which no design is ever fitted, in either operand."""

HELD_OUT_ONE_IN = 5
"""One design in this many is held out besides."""

_FORMAT_PARAMETERS = (("EA", "MA"), ("EB", "MB"), ("E", "M"))


@dataclass(frozen=True)
class Axis:
    """One parameter: an integer from low to high, whose bounds may follow from the parameters before it.

    ``choices`` in place of bounds: one of these.
    """

    name: str
    low: Bound = 0
    high: Bound = 0
    choices: tuple[int, ...] = ()

    def at(self, fraction: float, values: Values) -> int:
        """The value at a fraction of the way, 0 <= fraction < 1."""
        if self.choices:
            return self.choices[int(fraction * len(self.choices))]
        low, high = _bound(self.low, values), _bound(self.high, values)
        return low + int(fraction * (max(high, low) - low + 1))


def _bound(bound: Bound, values: Values) -> int:
    return bound(values) if callable(bound) else bound


@dataclass(frozen=True)
class Space:
    """The parameters of a unit in order, and how many designs of it are measured."""

    points: int
    axes: tuple[Axis, ...]


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


def _from(least: Callable[[Values], int], more: int = 12) -> Axis:
    """The accumulator: from the width that one full sum needs to some bits more."""
    return Axis("A", least, lambda values: least(values) + more)


def _levels(values: Values) -> int:
    return (values.get("L", 1) - 1).bit_length()


def _integer_sum(values: Values) -> int:
    return values["WA"] + values["WB"] + _levels(values) + 1


def _minifloat_sum(values: Values) -> int:
    return values["MA"] + values["MB"] + 2 + (1 << values["EA"]) + (1 << values["EB"]) - 3 + _levels(values)


def _mixed_sum(values: Values) -> int:
    return values["WA"] + values["MB"] + (1 << values["EB"]) + 1


def _khot_minifloat_sum(values: Values) -> int:
    return values["MA"] + (1 << values["EA"]) + values["WB"] + 2


_LANES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 32, 48, 64)
_FLAG = (0, 1)
_DSP = -1
"""Stands for the family's own DSP slice."""

_MULTIPLIER = Axis("MULTIPLIER", choices=(0, 0, 0, 0, 0, 0, _DSP))
_INTEGERS = (Axis("WA", 1, 12), Axis("WB", 1, 12), Axis("SA", choices=_FLAG), Axis("SB", choices=_FLAG))
_LANE_INTEGERS = (Axis("WA", 1, 8), Axis("WB", 1, 8), Axis("SA", choices=_FLAG), Axis("SB", choices=_FLAG))
_FORMATS = (Axis("EA", 1, 5), Axis("MA", 0, 4), Axis("EB", 1, 5), Axis("MB", 0, 4))
_LANE_FORMATS = (Axis("EA", 1, 4), Axis("MA", 0, 4), Axis("EB", 1, 4), Axis("MB", 0, 4))
_QUEUE_WORDS = (2, 3, 4, 8, 12, 16, 24, 32, 48, 64, 100, 128, 200, 256, 512, 600, 1024, 2048, 4096)
_WEIGHT_WORDS = (16, 32, 48, 64, 100, 128, 200, 256, 300, 512, 784, 1024, 2048, 4096)
_COUNTS = (1, 1, 2, 3, 4, 6, 8, 9, 12, 16, 18, 25, 32, 36, 49, 64, 72, 96, 128, 144, 196, 256, 288, 400, 512)
_PIXELS = (*_COUNTS[1:], 676, 784, 1024, 1600, 2048, 3136, 4096)
_SIDES = (7, 8, 9, 12, 14, 16, 18, 28, 30, 32, 34, 56, 58, 64, 112, 114, 224)
_HALF_UP, _HALF_EVEN, _DOWN = 0, 4, 5
_ROUNDINGS = (_HALF_EVEN, _HALF_EVEN, _DOWN, _HALF_UP, 0, 1, 2, 3, 4, 5, 6, 7, 8)

SPACES: Mapping[str, Space] = {
    "integer_mac": Space(130, (*_INTEGERS, _from(_integer_sum), _MULTIPLIER)),
    "integer_dot": Space(160, (*_LANE_INTEGERS, Axis("L", choices=_LANES), _from(_integer_sum), _MULTIPLIER)),
    "packed_mac": Space(
        40,
        (
            *(Axis("WA", 1, 9), Axis("WB", 2, 9), Axis("SA", choices=_FLAG)),
            Axis("P", 2, 9),
            Axis("A", lambda values: values["WA"] + values["WB"] + 1, 28),
            Axis("MULTIPLIER", choices=(_DSP,)),
        ),
    ),
    "minifloat_mac": Space(130, (*_FORMATS, _from(_minifloat_sum))),
    "minifloat_dot": Space(130, (*_LANE_FORMATS, Axis("L", choices=_LANES[:10]), _from(_minifloat_sum))),
    "mixed_mac": Space(100, (Axis("WA", 1, 10), Axis("SA", choices=_FLAG), *_FORMATS[2:], _from(_mixed_sum))),
    "fixed_to_minifloat": Space(
        130,
        (
            Axis("A", 6, 64),
            Axis("E", 2, 5),
            Axis("M", 0, 5),
            Axis("P", 0, 12),
            Axis("ROUNDING", choices=_ROUNDINGS),
        ),
    ),
    "khot_mac": Space(
        100,
        (
            Axis("WA", 2, 10),
            Axis("SA", choices=_FLAG),
            Axis("WB", 2, 10),
            Axis("K", 1, 4),
            Axis("CSD", choices=_FLAG),
            _from(_integer_sum),
        ),
    ),
    "khot_minifloat_mac": Space(
        60,
        (
            *_FORMATS[:2],
            Axis("WB", 2, 10),
            Axis("K", 1, 3),
            Axis("CSD", choices=_FLAG),
            _from(_khot_minifloat_sum),
        ),
    ),
    "khot_constant_dot": Space(
        50,
        (
            Axis("WA", 2, 8),
            Axis("SA", choices=_FLAG),
            Axis("WB", 2, 8),
            Axis("K", 1, 3),
            Axis("L", choices=_LANES[:10]),
            _from(_integer_sum),
            Axis("SEED", 0, 999),
        ),
    ),
    "requantize": Space(
        120,
        (
            Axis("WI", 6, 40),
            Axis("WO", 2, 12),
            Axis("S", 0, lambda values: values["WI"] - 2),
            Axis("SI", choices=(1, 1, 0)),
            Axis("SO", choices=_FLAG),
            Axis("ROUNDING", choices=_ROUNDINGS),
        ),
    ),
    "threshold": Space(90, (Axis("A", 3, 28), Axis("T", 1, 63), Axis("S", choices=_FLAG))),
    "adder_tree": Space(50, (Axis("N", 2, 64), Axis("W", 1, 16), Axis("S", choices=_FLAG))),
    "xnor_popcount": Space(50, (Axis("L", 2, 256), Axis("A", lambda values: _levels(values) + 1, 24))),
    "max_pool": Space(45, (Axis("W", 1, 16), Axis("N", 2, 16), Axis("S", choices=_FLAG))),
    "line_buffer": Space(60, (Axis("K", 2, 5), Axis("W", 2, 32), Axis("N", 8, 256), Axis("STYLE", 0, 2))),
    "fifo": Space(
        60,
        (
            Axis("D", choices=_QUEUE_WORDS),
            Axis("W", 1, 64),
            Axis("STYLE", 0, 3),
        ),
    ),
    "weight_memory": Space(
        60,
        (
            Axis("D", choices=_WEIGHT_WORDS),
            Axis("W", 1, 72),
            Axis("STYLE", 1, 3),
        ),
    ),
    "layer_control": Space(
        45,
        (
            *(Axis("P", choices=_PIXELS), Axis("F", choices=_COUNTS), Axis("I", choices=_COUNTS)),
            Axis("D", 4, 24),
        ),
    ),
    "window_buffer": Space(
        60,
        (
            *(Axis("K", choices=(1, 2, 3, 3, 3, 5)), Axis("N", choices=_SIDES), Axis("M", choices=_SIDES)),
            *(Axis("C", choices=(1, 1, 2, 3, 4, 6, 8, 12, 16, 32)), Axis("DEPTHWISE", choices=(0, 0, 1))),
            Axis("F", 1, lambda values: 1 if values["DEPTHWISE"] else 24),
            *(Axis("W", 1, 72), Axis("STYLE", 1, 3)),
        ),
    ),
    "constant_matrix": Space(
        30,
        (
            *(Axis("N", 2, 8), Axis("M", 2, 8), Axis("WA", 2, 8), Axis("SA", choices=_FLAG)),
            *(Axis("WB", 2, 8), Axis("SEED", 0, 999)),
        ),
    ),
}
"""Every unit's parameters; the order is that of the measured sets."""


def units() -> list[str]:
    """Every unit that has a circuit and a space, in the catalogue's order."""
    return [name for name in SPACES if name in rtl.UNITS]


def points(family: str, chosen: Sequence[str]) -> list[Point]:
    """The designs of some units in one family: the first of each unit, then the second of each, ..."""
    each = [list(_points(unit, family)) for unit in chosen]
    longest = max((len(designs) for designs in each), default=0)
    return [designs[i] for i in range(longest) for designs in each if i < len(designs)]


def _points(unit: str, family: str) -> Iterator[Point]:
    """Different designs of a unit: as many as its space asks for, or as it holds."""
    space, fabric = SPACES[unit], fabric_of(family)
    wanted = max(1, round(space.points * fabric.measured_share))
    found: dict[tuple[tuple[str, int], ...], Point] = {}
    for fractions in islice(_sequence(unit, len(space.axes)), _TRIES * space.points):
        values = _values(space.axes, fractions)
        if values.get("MULTIPLIER") == _DSP:
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
