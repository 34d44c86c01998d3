"""A dot product of minifloats that is accumulated, exact in fixed point."""

from __future__ import annotations

from functools import partial

from qhw.rtl.base import Axis, ClosedForms, Features, MeasuredUnit, Parameter, Space, Values
from qhw.rtl.shared import lut4, structure
from qhw.rtl.shared.arithmetic import ACCUMULATOR
from qhw.rtl.shared.axes import LANES, accumulator
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.minifloats import (
    FORMAT_A,
    FORMAT_B,
    MINIFLOAT_PRODUCT,
    exponent_luts,
    least_minifloat_sum,
    minifloat_pj,
    minifloat_ports,
    minifloat_rule,
    minifloat_sum,
    operand_registers,
    product_span,
    significand_bits,
    significands,
)
from qhw.rtl.shared.shifters import PipelinedShifter, shift_stages, shifter_features, staged_shifter
from qhw.rtl.shared.structure import levels

_LANE_FORMATS = (Axis("EA", 1, 4), Axis("MA", 0, 4), Axis("EB", 1, 4), Axis("MB", 0, 4))


def _lane_shifter(values: Values) -> PipelinedShifter:
    bits, span = significand_bits(values) + 1, product_span(values)
    return staged_shifter(bits, span, bits + span, signed=True)


def _features(cells: Cells, values: Values) -> Features:
    lanes, bits = values["L"], significand_bits(values)
    return {
        **cells.multipliers(lanes, *significands(values)),
        "exponent LUTs": lanes * exponent_luts(cells, values),
        **_negated(cells, lanes, bits),
        **shifter_features(cells, _lane_shifter(values), lanes),
        **cells.tree(lanes, bits + product_span(values) + 1),
        **cells.accumulator(values["A"]),
    }


def _negated(cells: Cells, lanes: int, bits: int) -> Features:
    """A sign taken into a number; on ECP5 its bits are inverted beside the chain."""
    if cells.inputs == 4:
        return {"sign LUTs": lanes * lut4.negation(bits)}
    return {"sign bits": lanes * (bits + 1)}


def _registers(values: Values) -> int:
    lanes, bits, span = values["L"], significand_bits(values), product_span(values)
    shifter = _lane_shifter(values)
    lane = operand_registers(values) + 1 + bits + (bits + 1) + 2 * span.bit_length() + shifter.registers
    tree = structure.tree_registers(lanes, bits + span + 1)
    return lanes * lane + tree + 3 + shifter.stages + levels(lanes) + values["A"]


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, cells_of(family)), _registers)


UNIT = MeasuredUnit(
    name="minifloat_dot",
    summary="sum <= (first ? 0 : sum) + a . b, vectors of minifloats, exact in fixed point",
    ranges=(*FORMAT_A, *FORMAT_B, Parameter("L", 1, 64, "lanes"), ACCUMULATOR),
    sources=(*MINIFLOAT_PRODUCT, "shift_left", "accumulate", "sum_tree", "minifloat_dot"),
    ports=minifloat_ports,
    latency=lambda values: 4 + shift_stages(product_span(values)) + levels(values["L"]),
    reference=minifloat_sum,
    rule=minifloat_rule,
    space=Space(
        place=5,
        points=130,
        axes=(*_LANE_FORMATS, Axis("L", choices=LANES[:10]), accumulator(least_minifloat_sum)),
    ),
    closed_forms=_closed_forms,
    energy_pj=minifloat_pj,
)
