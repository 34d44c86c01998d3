"""A tree of adders with a register behind each."""

from __future__ import annotations

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
from qhw.rtl.shared.energy import tree_pj
from qhw.rtl.shared.structure import levels


def _ports(values: Values) -> Ports:
    total = Port("y", values["W"] + levels(values["N"]), signed=bool(values["S"]))
    return Ports((Port("x", values["W"], values["N"]),), (total,))


def _reference(values: Values, inputs: Streams) -> Streams:
    format = Integer(values["W"], bool(values["S"]))
    numbers = mantissas(format, inputs["x"], values["W"] + levels(values["N"]))
    return {"y": numbers.sum(axis=1)[:, None]}


def _features(values: Values) -> Features:
    numbers, bits = values["N"], values["W"]
    if values["S"]:
        single = numbers // 2 if bits == 1 else 0
        return {"tree bits": structure.adder_tree(numbers, bits), "sums of two bits": single}
    tree = structure.unsigned_tree(numbers, bits, bits)
    return {"tree bits": tree.bits, "sums of two bits": tree.single}


def _features_of_lut4(values: Values) -> Features:
    return {"tree LUTs": lut4.adder_tree(values["N"], values["W"])}


def _registers(values: Values) -> int:
    return values["N"] * values["W"] + structure.tree_registers(values["N"], values["W"])


def _energy(v: Values) -> float:
    return tree_pj(v["N"], v["W"])


def _closed_forms(family: str) -> ClosedForms:
    wide = cells_of(family).inputs == 6
    return ClosedForms(_features if wide else _features_of_lut4, _registers)


UNIT = MeasuredUnit(
    name="adder_tree",
    summary="y = the sum of N integers",
    ranges=(
        Parameter("N", 1, 256, "numbers"),
        Parameter("W", 1, 64, "bits of each"),
        Parameter("S", 0, 1, "whether they are signed", default=1),
    ),
    sources=("extend", "sum_tree", "adder_tree"),
    ports=_ports,
    latency=lambda values: 1 + levels(values["N"]),
    reference=_reference,
    space=Space(place=13, points=50, axes=(Axis("N", 2, 64), Axis("W", 1, 16), Axis("S", choices=FLAG))),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
