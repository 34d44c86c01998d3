"""A number within bounds."""

from __future__ import annotations

from math import ceil

import numpy as np

from qhw.errors import InputError
from qhw.formats.modes import IntArray
from qhw.rtl.base import CountedUnit, Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared.counting import Counting, Taken


def _number(values: Values, code: IntArray | int) -> IntArray:
    """The integer of a code."""
    half = 1 << values["W"] - 1
    codes = np.asarray(code)
    return np.asarray((codes ^ half) - half) if values["S"] else codes


def _reference(values: Values, inputs: Streams) -> Streams:
    x = inputs["x"]
    low, high = _number(values, values["LOW"]), _number(values, values["HIGH"])
    number = _number(values, x)
    return {"y": np.where(number < low, values["BELOW"], np.where(number > high, values["ABOVE"], x))}


def _counted(values: Values, counting: Counting) -> Taken:
    width = values["W"]
    return Taken(lut=width + 2.0 * ceil(width / counting.cells.inputs), ff=float(width))


def _rule(values: Values) -> None:
    for name in ("LOW", "HIGH", "BELOW", "ABOVE"):
        if values[name] >> values["W"]:
            raise InputError(f"{name} of clamp is {values[name]}", allowed=f"codes of {values['W']} bits")


_CODE = (1 << 62) - 1

UNIT = CountedUnit(
    name="clamp",
    summary="a number within bounds, else what stands for all below or above",
    ranges=(
        Parameter("W", 1, 62, "bits of a number"),
        Parameter("S", 0, 1, "whether it is two's complement"),
        Parameter("LOW", 0, _CODE, "the code of the lower bound"),
        Parameter("HIGH", 0, _CODE, "the code of the upper bound"),
        Parameter("BELOW", 0, _CODE, "the code of all below"),
        Parameter("ABOVE", 0, _CODE, "the code of all above"),
    ),
    sources=("extend", "at_least", "clamp"),
    ports=lambda values: Ports((Port("x", values["W"]),), (Port("y", values["W"]),)),
    rule=_rule,
    latency=lambda values: 1,
    reference=_reference,
    counted=_counted,
    samples=(
        {"W": 6, "S": 1, "LOW": 0x30, "HIGH": 0x0F, "BELOW": 0x30, "ABOVE": 0x0F},
        {"W": 8, "S": 0, "LOW": 3, "HIGH": 200, "BELOW": 3, "ABOVE": 200},
        {"W": 9, "S": 1, "LOW": 0x1F0, "HIGH": 0x01F, "BELOW": 0, "ABOVE": 0},
        {"W": 40, "S": 1, "LOW": 0xFF_0000_0001, "HIGH": 5 << 32, "BELOW": 0, "ABOVE": 1},
        {"W": 1, "S": 0, "LOW": 1, "HIGH": 1, "BELOW": 1, "ABOVE": 1},
    ),
)
