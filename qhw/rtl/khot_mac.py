"""A multiply-accumulator of an integer and a k-hot weight."""

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
from qhw.rtl.shared.arithmetic import ACCUMULATOR, SUM_CONTROLS, at_least, mantissas, running_sum
from qhw.rtl.shared.axes import FLAG, accumulator, least_integer_sum
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
from qhw.rtl.shared.structure import levels


def _product_bits(values: Values) -> int:
    """Bits of a product, its sign included."""
    return values["WA"] + values["WB"] - values["SA"]


def _ports(values: Values) -> Ports:
    operands = Port("a", values["WA"]), weight_port(values)
    return Ports(operands, (Port("sum", values["A"], signed=True),), SUM_CONTROLS)


def _reference(values: Values, inputs: Streams) -> Streams:
    a = mantissas(Integer(values["WA"], bool(values["SA"])), inputs["a"], _product_bits(values))
    products = (a * weight_numbers(values, inputs))[:, 0]
    return {"sum": running_sum(products, inputs["first"][:, 0], values["A"])}


def _rule(values: Values) -> None:
    check_shifts("khot_mac", values)
    at_least("khot_mac", values, "A", _product_bits(values), "one product does not fit")


def _features(cells: Cells, values: Values) -> Features:
    bits, signed = values["WA"], bool(values["SA"])
    return {
        **shifted_terms(cells, values, bits, signed),
        **term_tree(cells, values, bits, signed),
        **cells.signed_accumulator(values["A"], term_product_bits(values, bits)),
    }


def _registers(values: Values) -> int:
    product = weighted_registers(values, values["WA"])
    return values["WA"] + product + 2 + levels(values["K"]) + values["A"]


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, cells_of(family)), _registers)


UNIT = MeasuredUnit(
    name="khot_mac",
    summary="sum <= (first ? 0 : sum) + a * b, an integer and a k-hot weight",
    ranges=(
        Parameter("WA", 1, 32, "bits of a"),
        Parameter("SA", 0, 1, "whether a is signed"),
        *WEIGHT,
        ACCUMULATOR,
    ),
    sources=(*KHOT_PRODUCT, "khot_mac"),
    ports=_ports,
    latency=lambda values: 3 + levels(values["K"]),
    reference=_reference,
    rule=_rule,
    space=Space(
        place=8,
        points=100,
        axes=(
            Axis("WA", 2, 10),
            Axis("SA", choices=FLAG),
            Axis("WB", 2, 10),
            Axis("K", 1, 4),
            Axis("CSD", choices=FLAG),
            accumulator(least_integer_sum),
        ),
    ),
    closed_forms=_closed_forms,
    energy_pj=khot_pj,
)
