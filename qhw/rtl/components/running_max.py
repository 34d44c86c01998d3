"""The largest of some numbers, one after the other."""

from __future__ import annotations

from qhw.rtl.base import ENABLE, FIRST, CountedUnit, Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared import lut4
from qhw.rtl.shared.counting import Counting, Taken
from qhw.rtl.shared.streams import column, rows_of
from qhw.rtl.shared.structure import comparison


def _reference(values: Values, inputs: Streams) -> Streams:
    """Step by step."""
    half = 1 << values["W"] - 1 if values["S"] else 0
    largest, rows = 0, []
    for first, x in rows_of(inputs, "first", "x"):
        number = (x ^ half) - half
        largest = number if first else max(largest, number)
        rows.append(largest)
    return {"y": column(rows, values["W"])}


def _counted(values: Values, counting: Counting) -> Taken:
    width = values["W"]
    compared = comparison(width) if counting.is_xilinx else lut4.comparison(width)
    return Taken(lut=float(compared) + 1, ff=float(2 * width + 1))


UNIT = CountedUnit(
    name="running_max",
    summary="the largest of the integers since `first`",
    ranges=(
        Parameter("W", 1, 62, "bits of a number"),
        Parameter("S", 0, 1, "whether it is two's complement"),
    ),
    sources=("extend", "at_least", "running_max"),
    ports=lambda values: Ports(
        (Port("x", values["W"]),), (Port("y", values["W"], signed=bool(values["S"])),), (ENABLE, FIRST)
    ),
    latency=lambda values: 2,
    reference=_reference,
    counted=_counted,
    samples=({"W": 5, "S": 1}, {"W": 1, "S": 0}, {"W": 8, "S": 0}, {"W": 33, "S": 1}),
)
