"""The minifloat that a number in fixed point rounds to."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from qhw.formats import Integer, Minifloat
from qhw.formats.modes import Rounding
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
from qhw.rtl.shared.arithmetic import at_least, mantissas
from qhw.rtl.shared.axes import ROUNDINGS_MEASURED
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.energy import addition_pj
from qhw.rtl.shared.minifloats import exponent_span
from qhw.rtl.shared.rounding import ROUNDING, ROUNDINGS
from qhw.rtl.shared.shifters import PipelinedShifter, shift_stages, shifter_features, staged_shifter


def normalised_places(values: Values) -> int:
    """How far the magnitude of a number is shifted at most before it is rounded to a minifloat."""
    smallest = values["P"] + values["M"] + 1
    return max(0, min(values["A"] - smallest, exponent_span(values["E"])))


def _reference(values: Values, inputs: Streams) -> Streams:
    rounding = ROUNDINGS[values["ROUNDING"]]
    kind = Minifloat(values["E"], values["M"], rounding=rounding)
    x = mantissas(Integer(values["A"], True), inputs["x"], values["A"])
    # Canonical: a negative number that rounds to zero is written as +0.
    return {"y": kind.canonical(kind.encode_mantissa(x, kind.exponent - values["P"]))}


def _rule(values: Values) -> None:
    why = f"with P={values['P']}, no bit of x is at or above the smallest step of y"
    at_least("fixed_to_minifloat", values, "A", values["P"] + 1, why)


class _Conversion(NamedTuple):
    """The values that ``cost_models/rtl/fixed_to_minifloat.v`` derives from its parameters.

    Args:
        range_bits: bits of the largest magnitude that may be in range.
        magnitude: bits of the magnitude that are looked at one by one.
        point: digits of the normalised magnitude that go.
        rounded: bits of the rounded code.
    """

    range_bits: int
    magnitude: int
    places: int
    point: int
    rounded: int
    shifter: PipelinedShifter


def _conversion(values: Values) -> _Conversion:
    a, e, m, p = values["A"], values["E"], values["M"], values["P"]
    range_bits = p + m + (1 << e) - 1
    magnitude, places = min(a, range_bits), normalised_places(values)
    point = p + places
    rounded = e + m + 1 if a > range_bits else m + (places + 1).bit_length() if a > p + m else a - p
    shifter = staged_shifter(magnitude, places, magnitude, unseen=_unseen(values, point))
    return _Conversion(range_bits, magnitude, places, point, rounded, shifter)


def _unseen(values: Values, point: int) -> int:
    """Digits below the point that the rounding does not look at."""
    rounding = ROUNDINGS[values["ROUNDING"]]
    if rounding is Rounding.TRN_ZERO:
        return point
    return max(0, point - 1) if rounding is Rounding.RND_INF else 0


def _features(cells: Cells, values: Values) -> Features:
    parts = _conversion(values)
    saturates = values["A"] > parts.range_bits
    return {
        "magnitude bits": values["A"],
        "leading zeros": parts.places,
        **shifter_features(cells, parts.shifter),
        "reduction LUTs": _reductions(cells, values, parts),
        "rounded bits": parts.rounded,
        "saturated bits": values["E"] + values["M"] + 1 if saturates else 0,
    }


def _reductions(cells: Cells, values: Values, parts: _Conversion) -> int:
    """LUTs that see whether any digit is set among those that go, and among those above the range."""
    sticky = cells.reduction(parts.point) if _unseen(values, parts.point) == 0 else 0
    return sticky + cells.reduction(values["A"] - parts.range_bits)


def _features_of_lut4(cells: Cells, values: Values) -> Features:
    parts, bits = _conversion(values), values["A"]
    code = values["E"] + values["M"]
    rounds = ROUNDINGS[values["ROUNDING"]] is not Rounding.TRN_ZERO
    # Where nothing is rounded, the mantissa passes below the exponent's addition.
    added = parts.rounded + 1 if rounds else parts.rounded - values["M"]
    return {
        "magnitude LUTs": bits - 1 + lut4.adder(bits + 1),
        "leading zeros": lut4.leading_zeros(parts.places),
        **shifter_features(cells, parts.shifter),
        "reduction LUTs": _reductions(cells, values, parts),
        "rounded LUTs": lut4.adder(added) + parts.places.bit_length(),
        "code LUTs": (code if bits > parts.range_bits else 0) + lut4.reduction(code + 2),
    }


def _registers(values: Values) -> int:
    parts, a = _conversion(values), values["A"]
    saturates, stages = a > parts.range_bits, parts.shifter.stages
    # The exponent comes from the leading zeros and the range check; both read the bits above the subnormals'.
    inspected = parts.shifter.read | set(range(values["P"] + values["M"] + 1, a))
    magnitudes = len(inspected) + len(parts.shifter.read)
    # The whole amount is delayed along the shifter: the exponent field is computed from it.
    amount = (stages + 1) * parts.places.bit_length()
    flags = stages + 3 + (stages + 2 if saturates else 0)
    code = 1 + min(parts.rounded, values["E"] + values["M"])
    return a + magnitudes + parts.shifter.data_registers + amount + flags + parts.rounded + code


def _energy(v: Values) -> float:
    return 3 * addition_pj(v["A"])


def _closed_forms(family: str) -> ClosedForms:
    own = cells_of(family)
    features = _features if own.inputs == 6 else _features_of_lut4
    return ClosedForms(partial(features, own), _registers)


UNIT = MeasuredUnit(
    name="fixed_to_minifloat",
    summary="y = the minifloat that x * 2^-P rounds to, saturated",
    ranges=(
        Parameter("A", 2, 128, "bits of x"),
        Parameter("E", 1, 5, "exponent bits of y"),
        Parameter("M", 0, 10, "mantissa bits of y"),
        Parameter("P", 0, 64, "bits of x below the smallest step of y"),
        ROUNDING,
    ),
    sources=("extend", "delay", "round_magnitude_up", "leading_zeros", "shift_left", "fixed_to_minifloat"),
    ports=lambda values: Ports((Port("x", values["A"]),), (Port("y", 1 + values["E"] + values["M"]),)),
    latency=lambda values: 5 + shift_stages(normalised_places(values)),
    reference=_reference,
    rule=_rule,
    space=Space(
        place=7,
        points=130,
        axes=(
            Axis("A", 6, 64),
            Axis("E", 2, 5),
            Axis("M", 0, 5),
            Axis("P", 0, 12),
            Axis("ROUNDING", choices=ROUNDINGS_MEASURED),
        ),
    ),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
