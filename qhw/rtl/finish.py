"""Units behind an accumulator: rounding to fewer bits, thresholds, minifloat codes."""

from __future__ import annotations

import numpy as np

from qhw.errors import InputError
from qhw.formats import Integer
from qhw.formats.modes import Overflow, Rounding, requantize_mantissa
from qhw.rtl.unit import Parameter, Port, Ports, Streams, Unit, Values, mantissas

ROUNDINGS = tuple(Rounding)
"""A unit's ROUNDING parameter is an index into this."""

_ROUNDING = Parameter("ROUNDING", 0, len(ROUNDINGS) - 1, "a mode of Rounding, by place", default=4)


def _requantized(values: Values, inputs: Streams) -> Streams:
    x = mantissas(Integer(values["WI"], bool(values["SI"])), inputs["x"], values["WI"])
    rounding = ROUNDINGS[values["ROUNDING"]]
    y = requantize_mantissa(x, values["S"], values["WO"], bool(values["SO"]), rounding, Overflow.SAT)
    return {"y": y}


def _requantize_rule(values: Values) -> None:
    if values["S"] >= values["WI"]:
        raise InputError(
            f"S of requantize is {values['S']} with WI={values['WI']}", allowed=f"0 to {values['WI'] - 1}"
        )


REQUANTIZE = Unit(
    name="requantize",
    summary="y = x * 2^-S, rounded and saturated",
    ranges=(
        Parameter("WI", 1, 128, "bits of x"),
        Parameter("WO", 1, 64, "bits of y"),
        Parameter("S", 0, 127, "bits that go"),
        Parameter("SI", 0, 1, "whether x is signed", default=1),
        Parameter("SO", 0, 1, "whether y is signed", default=1),
        _ROUNDING,
    ),
    sources=("extend", "round_up", "requantize"),
    ports=lambda values: Ports(
        (Port("x", values["WI"]),), (Port("y", values["WO"], signed=bool(values["SO"])),)
    ),
    latency=lambda values: 5,
    reference=_requantized,
    rule=_requantize_rule,
)


def _counted(values: Values, inputs: Streams) -> Streams:
    kind = Integer(values["A"], bool(values["S"]))
    x = mantissas(kind, inputs["x"], values["A"])
    steps = mantissas(kind, inputs["thresholds"], values["A"])
    # The thresholds, which rest while a network runs, are compared one step after x has come in.
    steps = np.concatenate([steps[1:], steps[-1:]])
    return {"y": (steps <= x).sum(axis=1)[:, None]}


THRESHOLD = Unit(
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
    reference=_counted,
)
