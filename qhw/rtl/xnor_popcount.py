"""A count of binary lanes that agree, accumulated."""

from __future__ import annotations

from qhw.formats import Binary
from qhw.rtl.base import (
    ENABLE,
    FIRST,
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
from qhw.rtl.shared.arithmetic import at_least, running_sum
from qhw.rtl.shared.axes import lane_levels
from qhw.rtl.shared.cells import cells_of
from qhw.rtl.shared.energy import addition_pj, tree_pj
from qhw.rtl.shared.structure import levels


def _groups(values: Values) -> int:
    """Groups of three lanes, which are what the six inputs of a LUT hold."""
    return -(-values["L"] // 3)


def _ports(values: Values) -> Ports:
    lanes = Port("a", 1, values["L"]), Port("b", 1, values["L"])
    return Ports(lanes, (Port("sum", values["A"]),), (ENABLE, FIRST))


def _reference(values: Values, inputs: Streams) -> Streams:
    a, b = (Binary().mantissa_of(inputs[name]) for name in ("a", "b"))
    ones = ((a * b).sum(axis=1) + values["L"]) // 2
    return {"sum": running_sum(ones, inputs["first"][:, 0], values["A"], signed=False)}


def _rule(values: Values) -> None:
    least = levels(_groups(values)) + 2
    at_least("xnor_popcount", values, "A", least, "one count of all lanes does not fit")


def _counts(values: Values) -> tuple[int, int]:
    """Groups of three lanes, what the six inputs of a LUT hold, and the bits of the last one's count."""
    return -(-values["L"] // 3), 1 if values["L"] % 3 == 1 else 2


def _features(values: Values) -> Features:
    groups, last = _counts(values)
    return {
        "count bits": 2 * groups - (last == 1),
        "tree bits": structure.unsigned_tree(groups, 2, last).bits,
        "accumulator bits": values["A"],
    }


def _features_of_lut4(values: Values) -> Features:
    groups = -(-values["L"] // 3)
    lanes = values["L"] - 3 * (groups - 1)
    return {
        "count LUTs": 4 * (groups - 1) + (4 if lanes == 3 else lanes),
        "tree LUTs": lut4.adder_tree(groups, 2),
        "accumulator LUTs": lut4.accumulator(values["A"]),
    }


def _registers(values: Values) -> int:
    groups, last = _counts(values)
    counts = 2 * groups - (last == 1) + structure.unsigned_tree(groups, 2, last).registers
    return 2 * values["L"] + counts + 2 + levels(groups) + values["A"]


def _energy(v: Values) -> float:
    return tree_pj(v["L"], 1) + addition_pj(v["A"])


def _closed_forms(family: str) -> ClosedForms:
    wide = cells_of(family).inputs == 6
    return ClosedForms(_features if wide else _features_of_lut4, _registers)


UNIT = MeasuredUnit(
    name="xnor_popcount",
    summary="sum <= (first ? 0 : sum) + popcount(a xnor b), L binary lanes",
    ranges=(
        Parameter("L", 1, 1024, "lanes"),
        Parameter("A", 2, 64, "bits of the accumulator"),
    ),
    sources=("extend", "delay", "accumulate", "sum_tree", "xnor_popcount"),
    ports=_ports,
    latency=lambda values: 3 + levels(_groups(values)),
    reference=_reference,
    rule=_rule,
    space=Space(
        place=14, points=50, axes=(Axis("L", 2, 256), Axis("A", lambda values: lane_levels(values) + 1, 24))
    ),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
