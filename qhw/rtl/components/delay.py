"""Registers in a row; its Verilog is measured units' too."""

from __future__ import annotations

from qhw.rtl.base import CountedUnit, Parameter, Port, Ports
from qhw.rtl.shared.counting import Taken

UNIT = CountedUnit(
    name="delay",
    summary="D registers of W bits in a row",
    ranges=(Parameter("W", 1, 1 << 14, "bits of a number"), Parameter("D", 1, 1 << 12, "registers in a row")),
    sources=("delay",),
    ports=lambda values: Ports((Port("x", values["W"]),), (Port("y", values["W"]),)),
    latency=lambda values: values["D"],
    reference=lambda values, inputs: {"y": inputs["x"]},
    counted=lambda values, counting: Taken(ff=float(values["W"] * values["D"])),
    samples=({"W": 8, "D": 3}, {"W": 1, "D": 1}, {"W": 70, "D": 5}, {"W": 3, "D": 40}),
)
