"""Models of the units behind an accumulator: rounding and saturation to fewer bits, thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

from qhw.cost import lut4, structure
from qhw.cost.cells import Cells, cells_of
from qhw.cost.unit_models import Features, UnitModel, Values


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


def _requantize(cells: Cells, values: Values) -> Features:
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


def _requantize_registers(values: Values) -> int:
    rounding, rounded, signed = _rounding(values), _rounded_bits(values), values["SI"]
    kept = values["WI"] - values["S"]
    below = rounding.half + (values["S"] - 1) * rounding.sticky
    decisions = rounding.half + rounding.sticky
    last = min(values["WO"] - values["SO"], rounded - signed) + signed
    fits = _bits_above(values) > (signed and values["SO"]) or (signed and not values["SO"])
    # The result of an unsigned number has no sign bit.
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


def _threshold_of_lut4(values: Values) -> Features:
    """A threshold unit on ECP5: a thermometer that is not full has constants up to the next power of two."""
    count = values["T"]
    return {
        "comparison LUTs": count * lut4.comparison(values["A"]),
        "multiplexers": count,
        "full multiplexers": 1 << count.bit_length(),
    }


def _threshold_registers(values: Values) -> int:
    return values["A"] + values["T"] + values["T"].bit_length()


def models(family: str) -> Mapping[str, UnitModel]:
    """The models of the units behind an accumulator, in one family's cells."""
    own = cells_of(family)
    threshold = _threshold if own.inputs == 6 else _threshold_of_lut4
    return {
        "requantize": UnitModel(partial(_requantize, own), _requantize_registers),
        "threshold": UnitModel(threshold, _threshold_registers),
    }
