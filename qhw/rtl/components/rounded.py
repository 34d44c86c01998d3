"""Rounding and saturation in one clock cycle, behind sums that are as quick."""

from __future__ import annotations

from qhw.rtl import requantize
from qhw.rtl.base import CountedUnit, Values
from qhw.rtl.shared.counting import Counting, Taken


def _counted(values: Values, counting: Counting) -> Taken:
    """A LUT for each gate and each carry that needs one."""
    gates = sum(requantize.features(counting.cells, values).values())
    return Taken(lut=float(gates), ff=float(requantize.result_bits(values)))


UNIT = CountedUnit(
    name="rounded",
    summary="y = x * 2^-S, rounded and saturated, in one clock cycle",
    ranges=requantize.UNIT.ranges,
    sources=("extend", "round_up", "rounded"),
    ports=requantize.UNIT.ports,
    rule=requantize.UNIT.rule,
    latency=lambda values: 1,
    reference=requantize.UNIT.reference,
    counted=_counted,
    samples=(
        {"WI": 18, "WO": 4, "S": 9, "SI": 1, "SO": 0, "ROUNDING": 4},
        {"WI": 14, "WO": 8, "S": 3, "SI": 1, "SO": 1, "ROUNDING": 0},
        {"WI": 9, "WO": 4, "S": 1, "SI": 0, "SO": 0, "ROUNDING": 5},
        {"WI": 6, "WO": 12, "S": 0, "SI": 1, "SO": 1, "ROUNDING": 4},
        {"WI": 12, "WO": 3, "S": 6, "SI": 0, "SO": 1, "ROUNDING": 1},
        {"WI": 20, "WO": 1, "S": 17, "SI": 1, "SO": 1, "ROUNDING": 8},
        {"WI": 33, "WO": 5, "S": 25, "SI": 1, "SO": 1, "ROUNDING": 6},
        {"WI": 8, "WO": 8, "S": 7, "SI": 0, "SO": 1, "ROUNDING": 3},
    ),
)
