"""A dot product of integers that is accumulated, in LUTs or in DSP slices."""

from __future__ import annotations

from functools import partial

from qhw.rtl.base import Axis, ClosedForms, Features, MeasuredUnit, Parameter, Space, Values
from qhw.rtl.shared import structure
from qhw.rtl.shared.arithmetic import ACCUMULATOR
from qhw.rtl.shared.axes import FLAG, LANES, MULTIPLIERS, accumulator, least_integer_sum
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
    is_signed,
    lut_products,
    product_registers,
)
from qhw.rtl.shared.structure import levels

_LANE_INTEGERS = (Axis("WA", 1, 8), Axis("WB", 1, 8), Axis("SA", choices=FLAG), Axis("SB", choices=FLAG))


def _latency(values: Values) -> int:
    return 3 + levels(values["L"]) + (values["MULTIPLIER"] in DSP48)


def _tree_width(values: Values) -> int:
    """Bits of what the tree adds up: the top bit of a gated unsigned number is 0."""
    gated = not is_signed(values) and min(values["WA"], values["WB"]) == 1
    return values["WA"] + values["WB"] - (gated and not values["MULTIPLIER"])


def _features(cells: Cells, values: Values) -> Features:
    return {
        **lut_products(cells, values),
        **cells.tree(values["L"], _tree_width(values)),
        **cells.accumulator(values["A"]),
    }


def _registers(values: Values) -> int:
    lanes, multiplier = values["L"], values["MULTIPLIER"]
    operands = values["WA"] + values["WB"]
    in_logic = 0 if multiplier else lanes * (operands + product_registers(values))
    tree = structure.tree_registers(lanes, _tree_width(values))
    first = 2 + levels(lanes) + (multiplier in DSP48)
    return in_logic + tree + first + values["A"]


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(
        partial(_features, cells_of(family)),
        _registers,
        dsp=lambda values: values["L"] * int(values["MULTIPLIER"] > 0),
    )


UNIT = MeasuredUnit(
    name="integer_dot",
    summary="sum <= (first ? 0 : sum) + a . b, vectors of integers",
    ranges=(*OPERANDS, Parameter("L", 1, 64, "lanes"), ACCUMULATOR, MULTIPLIER),
    sources=("multiply", *ACCUMULATE, *IN_DSP, "sum_tree", "integer_dot"),
    ports=integer_ports,
    latency=_latency,
    reference=integer_sum,
    rule=integer_rule,
    space=Space(
        place=2,
        points=160,
        axes=(*_LANE_INTEGERS, Axis("L", choices=LANES), accumulator(least_integer_sum), MULTIPLIERS),
    ),
    closed_forms=_closed_forms,
    energy_pj=integer_pj,
)
