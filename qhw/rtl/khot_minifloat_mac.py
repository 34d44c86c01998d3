"""A multiply-accumulator of a minifloat and a k-hot weight."""

from __future__ import annotations

from functools import partial

from qhw.formats import Minifloat
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
from qhw.rtl.shared.arithmetic import ACCUMULATOR, SUM_CONTROLS, at_least, mantissas, running_sum
from qhw.rtl.shared.axes import FLAG, FORMATS, accumulator
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.khots import (
    KHOT_PRODUCT,
    WEIGHT,
    check_shifts,
    khot_pj,
    shifted_terms,
    term_product_bits,
    term_tree,
    weight_numbers,
    weight_port,
    weighted_registers,
)
from qhw.rtl.shared.minifloats import exponent_span
from qhw.rtl.shared.structure import levels


def _product_bits(values: Values) -> int:
    """Bits of a product, its sign included, in units of the smallest subnormal."""
    return values["MA"] + exponent_span(values["EA"]) + values["WB"] + 1


def _ports(values: Values) -> Ports:
    operands = Port("a", 1 + values["EA"] + values["MA"]), weight_port(values)
    return Ports(operands, (Port("sum", values["A"], signed=True),), SUM_CONTROLS)


def _reference(values: Values, inputs: Streams) -> Streams:
    bits = _product_bits(values)
    a = mantissas(Minifloat(values["EA"], values["MA"]), inputs["a"], bits)
    products = (a * weight_numbers(values, inputs))[:, 0]
    return {"sum": running_sum(products, inputs["first"][:, 0], values["A"])}


def _rule(values: Values) -> None:
    check_shifts("khot_minifloat_mac", values)
    at_least("khot_minifloat_mac", values, "A", _product_bits(values), "one product does not fit")


def _features(cells: Cells, values: Values) -> Features:
    bits = values["MA"] + 1
    product, span = term_product_bits(values, bits), _span(values)
    terms = shifted_terms(cells, values, bits, signed=False)
    shift = structure.shift_luts if cells.inputs == 6 else lut4.shift_up_to
    terms["shifter LUTs"] += shift(product, span, False)
    return {
        **terms,
        **_exponent(cells, values["EA"]),
        **term_tree(cells, values, bits, signed=False),
        **cells.signed_accumulator(values["A"], product + span),
    }


def _exponent(cells: Cells, bits: int) -> Features:
    """Its places and the leading bit; on ECP5 the sign's LUT, too."""
    if cells.inputs == 4:
        return {"exponent LUTs": lut4.places(bits) + lut4.leading_bit(bits) + 1}
    return {"exponent bits": bits + 1 if bits > 1 else 0}


def _registers(values: Values) -> int:
    exponent, depth = values["EA"], 1 + levels(values["K"])
    operand = 1 + exponent + values["MA"]
    waiting = depth * (1 + (exponent if exponent > 1 else 0))
    product = weighted_registers(values, values["MA"] + 1) + waiting
    shifted = term_product_bits(values, values["MA"] + 1) + _span(values) + 1
    return operand + product + shifted + 2 + depth + values["A"]


def _span(values: Values) -> int:
    """Places that an exponent shifts by at most."""
    return (1 << values["EA"]) - 2


def _least_sum(values: Values) -> int:
    return values["MA"] + (1 << values["EA"]) + values["WB"] + 2


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, cells_of(family)), _registers)


UNIT = MeasuredUnit(
    name="khot_minifloat_mac",
    summary="sum <= (first ? 0 : sum) + a * b, a minifloat and a k-hot weight",
    ranges=(
        Parameter("EA", 1, 6, "exponent bits of a"),
        Parameter("MA", 0, 8, "mantissa bits of a"),
        *WEIGHT,
        ACCUMULATOR,
    ),
    sources=(*KHOT_PRODUCT, "minifloat_unpack", "khot_minifloat_mac"),
    ports=_ports,
    latency=lambda values: 4 + levels(values["K"]),
    reference=_reference,
    rule=_rule,
    space=Space(
        place=9,
        points=60,
        axes=(
            *FORMATS[:2],
            Axis("WB", 2, 10),
            Axis("K", 1, 3),
            Axis("CSD", choices=FLAG),
            accumulator(_least_sum),
        ),
    ),
    closed_forms=_closed_forms,
    energy_pj=khot_pj,
)
