"""Rounding and saturation of an integer to fewer bits."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from qhw.errors import InputError
from qhw.formats import Integer
from qhw.formats.modes import Overflow, requantize_mantissa
from qhw.rtl.base import (
    Axis,
    ClosedForms,
    Features,
    MeasuredUnit,
    Parameter,
    Port,
    Ports,
    Space,
    Streams,
    Values,
)
from qhw.rtl.shared import lut4
from qhw.rtl.shared.arithmetic import mantissas
from qhw.rtl.shared.axes import FLAG, ROUNDINGS_MEASURED
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.energy import addition_pj
from qhw.rtl.shared.rounding import ROUNDING, ROUNDINGS


def _reference(values: Values, inputs: Streams) -> Streams:
    x = mantissas(Integer(values["WI"], bool(values["SI"])), inputs["x"], values["WI"])
    rounding = ROUNDINGS[values["ROUNDING"]]
    y = requantize_mantissa(x, values["S"], values["WO"], bool(values["SO"]), rounding, Overflow.SAT)
    return {"y": y}


def _rule(values: Values) -> None:
    if values["S"] >= values["WI"]:
        raise InputError(
            f"S of requantize is {values['S']} with WI={values['WI']}", allowed=f"0 to {values['WI'] - 1}"
        )


class _Rounding(NamedTuple):
    """The dropped bits that a requantisation reads, and whether it ever rounds up."""

    half: bool
    sticky: bool
    up: bool


def _rounding(values: Values) -> _Rounding:
    """The bits that rounding needs, by mode, sign and shift, as in ``cost_models/rtl/round_up.v``."""
    mode, signed, dropped = values["ROUNDING"], values["SI"], values["S"]
    to_even, floor, to_zero, ceiling, away = 4, 5, 6, 7, 8
    if not dropped or mode == floor or (mode == to_zero and not signed):
        return _Rounding(False, False, False)
    if mode in (to_zero, ceiling, away):
        return _Rounding(True, dropped > 1, True)
    half_up, towards_zero, down, from_zero = 0, 1, 2, 3
    below = dropped > 1
    if mode == half_up or (mode == from_zero and not signed):
        return _Rounding(True, False, True)
    if mode == down or (mode == towards_zero and not signed):
        return _Rounding(below, below, below)
    assert mode in (to_even, towards_zero, from_zero)
    return _Rounding(True, below, True)


def _rounded_bits(values: Values) -> int:
    """Bits of the floor, and the carry of rounding up."""
    return values["WI"] - values["S"] + _rounding(values).up


def _bits_above(values: Values) -> int:
    """Bits of the rounded number that the result has no place for, its own sign bit among them."""
    return max(_rounded_bits(values) - (values["WO"] - values["SO"]), 0)


def features(cells: Cells, values: Values) -> Features:
    """Counts of structure: gates and carries."""
    rounding = _rounding(values)
    return {
        **_rounding_up(cells, values),
        "sticky": cells.reduction(values["S"] - 1) if rounding.sticky else 0,
        "overflow": _overflow(cells, values),
        "saturated bits": _saturated_bits(values),
    }


def _rounding_up(cells: Cells, values: Values) -> Features:
    """The carry into the floor: a chain's lowest position makes it; on ECP5 the chain has LUTs of its own."""
    rounding = _rounding(values)
    if cells.inputs == 6:
        return {"decision to round up": float(rounding.up)}
    decides = rounding.up and (rounding.sticky or _looks_at_number(values))
    increment = lut4.adder(_rounded_bits(values) + 1) if rounding.up else 0
    return {"decision to round up": float(decides), "increment LUTs": increment}


def _looks_at_number(values: Values) -> bool:
    """Whether a mode rounds by the sign or the last digit."""
    towards_zero, from_zero, to_even, to_zero, away = 1, 3, 4, 6, 8
    mode = values["ROUNDING"]
    return mode == to_even or bool(values["SI"] and mode in (towards_zero, from_zero, to_zero, away))


def _overflow(cells: Cells, values: Values) -> int:
    """LUTs that compare the bits above with the sign, or find one that is set."""
    above = _bits_above(values)
    if not (values["SI"] and values["SO"]):
        return max(cells.reduction(above), values["SI"])
    groups = cells.reduction(above)
    return groups + cells.reduction(groups)


def _saturated_bits(values: Values) -> int:
    """Bits that are the number's or its bound's."""
    bits = min(values["WO"] - values["SO"], _rounded_bits(values))
    if values["SI"]:
        return bits if _bits_above(values) > 1 or not values["SO"] else 0
    return bits if _bits_above(values) else 0


def _registers(values: Values) -> int:
    rounding, rounded, signed = _rounding(values), _rounded_bits(values), values["SI"]
    kept = values["WI"] - values["S"]
    below = rounding.half + (values["S"] - 1) * rounding.sticky
    decisions = rounding.half + rounding.sticky
    last = min(values["WO"] - values["SO"], rounded - signed) + signed
    fits = _bits_above(values) > (signed and values["SO"]) or (signed and not values["SO"])
    return kept + below + kept + decisions + rounded + last + fits + result_bits(values)


def result_bits(values: Values) -> int:
    """Bits of the result that are not always the same, nor another one's copies."""
    # The result of an unsigned number has no sign bit.
    return min(values["WO"] - (values["SO"] and not values["SI"]), _rounded_bits(values))


def _energy(v: Values) -> float:
    return addition_pj(v["WI"]) + addition_pj(v["WO"])


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(features, cells_of(family)), _registers)


UNIT = MeasuredUnit(
    name="requantize",
    summary="y = x * 2^-S, rounded and saturated",
    ranges=(
        Parameter("WI", 1, 128, "bits of x"),
        Parameter("WO", 1, 64, "bits of y"),
        Parameter("S", 0, 127, "bits that go"),
        Parameter("SI", 0, 1, "whether x is signed", default=1),
        Parameter("SO", 0, 1, "whether y is signed", default=1),
        ROUNDING,
    ),
    sources=("extend", "round_up", "requantize"),
    ports=lambda values: Ports(
        (Port("x", values["WI"]),), (Port("y", values["WO"], signed=bool(values["SO"])),)
    ),
    latency=lambda values: 5,
    reference=_reference,
    rule=_rule,
    space=Space(
        place=11,
        points=120,
        axes=(
            Axis("WI", 6, 40),
            Axis("WO", 2, 12),
            Axis("S", 0, lambda values: values["WI"] - 2),
            Axis("SI", choices=(1, 1, 0)),
            Axis("SO", choices=FLAG),
            Axis("ROUNDING", choices=ROUNDINGS_MEASURED),
        ),
    ),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
