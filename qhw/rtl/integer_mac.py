"""A multiply-accumulator of integers, in LUTs or in a DSP slice."""

from __future__ import annotations

from functools import partial

from qhw.rtl.base import Axis, ClosedForms, Features, MeasuredUnit, Space, Values
from qhw.rtl.shared.arithmetic import ACCUMULATOR
from qhw.rtl.shared.axes import FLAG, MULTIPLIERS, accumulator, least_integer_sum
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.integers import (
    ACCUMULATE,
    DSP48,
    IN_DSP,
    MULTIPLIER,
    OPERANDS,
    integer_pj,
    integer_ports,
    integer_rule,
    integer_sum,
    lut_products,
    product_registers,
)

_INTEGERS = (Axis("WA", 1, 12), Axis("WB", 1, 12), Axis("SA", choices=FLAG), Axis("SB", choices=FLAG))


def _features(cells: Cells, values: Values) -> Features:
    if values["MULTIPLIER"] in DSP48:
        return {"start of a sum": 1}
    return {**lut_products(cells, values), **cells.accumulator(values["A"])}


def _registers(values: Values) -> int:
    if values["MULTIPLIER"] in DSP48:
        return 1
    operands = values["WA"] + values["WB"]
    in_logic = 0 if values["MULTIPLIER"] else operands + product_registers(values)
    return in_logic + values["A"] + 2


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(
        partial(_features, cells_of(family)), _registers, dsp=lambda values: int(values["MULTIPLIER"] > 0)
    )


UNIT = MeasuredUnit(
    name="integer_mac",
    summary="sum <= (first ? 0 : sum) + a * b, integers",
    ranges=(
        *OPERANDS,
        ACCUMULATOR,
        MULTIPLIER,
    ),
    sources=("multiply", *ACCUMULATE, *IN_DSP, "integer_mac"),
    ports=integer_ports,
    latency=lambda values: 3,
    reference=integer_sum,
    rule=integer_rule,
    space=Space(place=1, points=130, axes=(*_INTEGERS, accumulator(least_integer_sum), MULTIPLIERS)),
    closed_forms=_closed_forms,
    energy_pj=integer_pj,
)
