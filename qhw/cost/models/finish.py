"""What follows an accumulator: rounding and saturation to fewer bits, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from qhw.cost import structure
from qhw.cost.unit_models import Features, UnitModel, Values


class _Rounding(NamedTuple):
    """What a requantisation needs of the bits that go, and whether it ever rounds up."""

    half: bool
    sticky: bool
    up: bool


def _rounding(values: Values) -> _Rounding:
    """By mode, sign and shift; ``cost_models/rtl/round_up.v`` has the functions."""
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
    """Of the floor, and the carry of rounding up."""
    return values["WI"] - values["S"] + _rounding(values).up


def _bits_above(values: Values) -> int:
    """Of the rounded number that the result has no place for, its own sign bit among them."""
    return max(_rounded_bits(values) - (values["WO"] - values["SO"]), 0)


def _requantize(values: Values) -> Features:
    rounding = _rounding(values)
    return {
        "decision to round up": float(rounding.up),
        "sticky": structure.reduction(values["S"] - 1) if rounding.sticky else 0,
        "overflow": _overflow(values),
        "saturated bits": _saturated_bits(values),
    }


def _overflow(values: Values) -> int:
    """LUTs that compare the bits above with the sign, or find one that is set."""
    above = _bits_above(values)
    if not (values["SI"] and values["SO"]):
        return max(structure.reduction(above), values["SI"])
    groups = structure.reduction(above)
    return groups + structure.reduction(groups)


def _saturated_bits(values: Values) -> int:
    """Bits that are the number's or its bound's; a lone upper bound is set, all bits by one LUT."""
    bits = min(values["WO"] - values["SO"], _rounded_bits(values))
    if values["SI"]:
        return bits if _bits_above(values) > 1 or not values["SO"] else 0
    return min(bits, _SET_AT_ONCE) if _bits_above(values) else 0


_SET_AT_ONCE = 3
"""Bits from which on a flip-flop's set input is used."""


def _requantize_registers(values: Values) -> int:
    rounding, rounded, signed = _rounding(values), _rounded_bits(values), values["SI"]
    kept = values["WI"] - values["S"]
    below = rounding.half + (values["S"] - 1) * rounding.sticky
    decisions = rounding.half + rounding.sticky
    last = min(values["WO"] - values["SO"], rounded - signed) + signed
    fits = _bits_above(values) > (signed and values["SO"]) or (signed and not values["SO"])
    # An unsigned number has no sign to show.
    result = min(values["WO"] - (values["SO"] and not signed), rounded)
    return kept + below + kept + decisions + rounded + last + fits + result


def _threshold(values: Values) -> Features:
    count, bits = values["T"], values["A"]
    code = count.bit_length()
    return {
        "comparison bits": count * structure.comparison(bits),
        "carries out": count,
        "multiplexers": sum((1 << level) - 1 for level in range(1, code)),
    }


def _threshold_registers(values: Values) -> int:
    return values["A"] + values["T"] + values["T"].bit_length()


MODELS: Mapping[str, UnitModel] = {
    "requantize": UnitModel(_requantize, _requantize_registers),
    "threshold": UnitModel(_threshold, _threshold_registers),
}
