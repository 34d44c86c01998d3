"""How many of some thresholds a number has reached."""

from __future__ import annotations

import numpy as np

from qhw.formats import Integer
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
from qhw.rtl.shared import lut4, structure
from qhw.rtl.shared.arithmetic import mantissas
from qhw.rtl.shared.axes import FLAG
from qhw.rtl.shared.cells import cells_of
from qhw.rtl.shared.energy import addition_pj


def _reference(values: Values, inputs: Streams) -> Streams:
    kind = Integer(values["A"], bool(values["S"]))
    x = mantissas(kind, inputs["x"], values["A"])
    steps = mantissas(kind, inputs["thresholds"], values["A"])
    # The thresholds, which rest while a network runs, are compared one step after x has come in.
    steps = np.concatenate([steps[1:], steps[-1:]])
    return {"y": (steps <= x).sum(axis=1)[:, None]}


def _features(values: Values) -> Features:
    count, bits = values["T"], values["A"]
    code = count.bit_length()
    return {
        "comparison bits": count * structure.comparison(bits),
        "carries out": count,
        "multiplexers": sum((1 << level) - 1 for level in range(1, code)),
    }


def _features_of_lut4(values: Values) -> Features:
    """A threshold unit on ECP5: a thermometer that is not full has constants up to the next power of two."""
    count = values["T"]
    return {
        "comparison LUTs": count * lut4.comparison(values["A"]),
        "multiplexers": count,
        "full multiplexers": 1 << count.bit_length(),
    }


def _registers(values: Values) -> int:
    return values["A"] + values["T"] + values["T"].bit_length()


def _energy(v: Values) -> float:
    return v["T"] * addition_pj(v["A"])


def _closed_forms(family: str) -> ClosedForms:
    wide = cells_of(family).inputs == 6
    return ClosedForms(_features if wide else _features_of_lut4, _registers)


UNIT = MeasuredUnit(
    name="threshold",
    summary="y = how many of T rising thresholds are at most x",
    ranges=(
        Parameter("A", 1, 64, "bits of x"),
        Parameter("T", 1, 255, "thresholds"),
        Parameter("S", 0, 1, "whether x is signed", default=1),
    ),
    sources=("extend", "at_least", "threshold"),
    ports=lambda values: Ports(
        (
            Port("x", values["A"]),
            Port("thresholds", values["A"], values["T"], bool(values["S"]), rising=True),
        ),
        (Port("y", values["T"].bit_length()),),
    ),
    latency=lambda values: 3,
    reference=_reference,
    space=Space(place=12, points=90, axes=(Axis("A", 3, 28), Axis("T", 1, 63), Axis("S", choices=FLAG))),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
