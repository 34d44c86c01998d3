"""The sum of some numbers, one after the other."""

from __future__ import annotations

from qhw.formats.integer import Integer
from qhw.rtl.base import ENABLE, FIRST, CountedUnit, Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared import lut4
from qhw.rtl.shared.arithmetic import mantissas, running_sum
from qhw.rtl.shared.counting import Counting, Taken


def _reference(values: Values, inputs: Streams) -> Streams:
    x = mantissas(Integer(values["W"], bool(values["S"])), inputs["x"][:, 0], values["A"])
    return {"y": running_sum(x, inputs["first"][:, 0], values["A"], bool(values["S"]))}


def _counted(values: Values, counting: Counting) -> Taken:
    total = values["A"]
    lut = total if counting.is_xilinx else lut4.accumulator(total)
    # The registers of what starts a sum are counted with the component.
    return Taken(lut=float(lut), ff=float(values["W"] + total + 1))


UNIT = CountedUnit(
    name="running_sum",
    summary="the sum of the integers since `first`, in A bits",
    ranges=(
        Parameter("W", 1, 62, "bits of a number"),
        Parameter("S", 0, 1, "whether it is two's complement"),
        Parameter("A", 1, 128, "bits of the sum"),
    ),
    sources=("extend", "accumulate", "running_sum"),
    ports=lambda values: Ports(
        (Port("x", values["W"]),), (Port("y", values["A"], signed=bool(values["S"])),), (ENABLE, FIRST)
    ),
    latency=lambda values: 2,
    reference=_reference,
    counted=_counted,
    samples=(
        {"W": 4, "S": 1, "A": 9},
        {"W": 1, "S": 0, "A": 8},
        {"W": 8, "S": 0, "A": 12},
        {"W": 8, "S": 1, "A": 8},
        {"W": 30, "S": 1, "A": 36},
    ),
)
