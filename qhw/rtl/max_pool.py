"""The largest of some numbers."""

from __future__ import annotations

from functools import partial

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
from qhw.rtl.shared import structure
from qhw.rtl.shared.arithmetic import mantissas
from qhw.rtl.shared.axes import FLAG
from qhw.rtl.shared.energy import addition_pj
from qhw.rtl.shared.memories import XILINX
from qhw.rtl.shared.structure import levels


def _reference(values: Values, inputs: Streams) -> Streams:
    x = mantissas(Integer(values["W"], bool(values["S"])), inputs["x"], values["W"])
    return {"y": x.max(axis=1)[:, None]}


def _features(family: str, values: Values) -> Features:
    """Two bits are compared in one LUT on a carry chain, or in two of four inputs beside the chain's own."""
    pairs, width = values["N"] - 1, values["W"]
    positions = structure.comparison(width) if width > _IN_ONE_LUT else 0
    features: Features = {"selected bits": pairs * width}
    if family in XILINX:
        return {**features, "comparison bits": pairs * positions}
    if positions <= _WITHOUT_CARRY:
        return {**features, "comparison bits without a carry chain": pairs * positions}
    return {**features, "comparison bits": 2 * pairs * (positions + (positions + 2) // 2)}


_IN_ONE_LUT = 2
"""Bits of two numbers that one LUT compares and selects."""

_WITHOUT_CARRY = 3
"""Positions of a comparison up to which a LUT of four inputs takes no carry chain."""


def _registers(values: Values) -> int:
    count, registers = values["N"], values["N"]
    while count > 1:
        count = (count + 1) // 2
        registers += count
    return registers * values["W"]


def _energy(v: Values) -> float:
    return (v["N"] - 1) * addition_pj(v["W"])


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, family), _registers)


UNIT = MeasuredUnit(
    name="max_pool",
    summary="y = the largest of N integers",
    ranges=(
        Parameter("W", 1, 64, "bits of a number"),
        Parameter("N", 2, 256, "numbers"),
        Parameter("S", 0, 1, "whether they are signed", default=1),
    ),
    sources=("extend", "at_least", "max_pool"),
    ports=lambda values: Ports(
        (Port("x", values["W"], values["N"]),), (Port("y", values["W"], signed=bool(values["S"])),)
    ),
    latency=lambda values: 1 + levels(values["N"]),
    reference=_reference,
    space=Space(place=15, points=45, axes=(Axis("W", 1, 16), Axis("N", 2, 16), Axis("S", choices=FLAG))),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
