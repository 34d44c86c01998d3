"""A multiply-accumulator of minifloats, exact in fixed point."""

from __future__ import annotations

from functools import partial

from qhw.rtl.base import ClosedForms, Features, MeasuredUnit, Space, Values
from qhw.rtl.shared.arithmetic import ACCUMULATOR
from qhw.rtl.shared.axes import FORMATS, accumulator
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
from qhw.rtl.shared.shifters import shift_stages, shifter_features, staged_shifter


def _features(cells: Cells, values: Values) -> Features:
    bits, span = significand_bits(values), product_span(values)
    return {
        **cells.multipliers(1, *significands(values)),
        "exponent LUTs": exponent_luts(cells, values),
        **shifter_features(cells, staged_shifter(bits, span, bits + span)),
        **cells.signed_accumulator(values["A"], bits + span),
    }


def _registers(values: Values) -> int:
    bits, span = significand_bits(values), product_span(values)
    shifter = staged_shifter(bits, span, bits + span)
    product = 1 + bits + span.bit_length()
    controls = shifter.stages + (2 + shifter.stages)
    return operand_registers(values) + product + shifter.registers + controls + values["A"]


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, cells_of(family)), _registers)


UNIT = MeasuredUnit(
    name="minifloat_mac",
    summary="sum <= (first ? 0 : sum) + a * b, minifloats, exact in fixed point",
    ranges=(*FORMAT_A, *FORMAT_B, ACCUMULATOR),
    sources=(*MINIFLOAT_PRODUCT, "shift_left", "accumulate_signed", "minifloat_mac"),
    ports=minifloat_ports,
    latency=lambda values: 3 + shift_stages(product_span(values)),
    reference=minifloat_sum,
    rule=minifloat_rule,
    space=Space(place=4, points=130, axes=(*FORMATS, accumulator(least_minifloat_sum))),
    closed_forms=_closed_forms,
    energy_pj=minifloat_pj,
)
