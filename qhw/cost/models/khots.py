"""Multiply-accumulators with k-hot weights: shifters, additions, and no multiplier."""

from __future__ import annotations

from collections.abc import Mapping

from qhw.cost import structure
from qhw.cost.structure import levels
from qhw.cost.unit_models import Features, UnitModel, Values


def _places(values: Values) -> int:
    """By which a term is shifted at most; signed digits may go one beyond their sum."""
    return values["WB"] - (1 if values["CSD"] and values["K"] > 1 else 2)


def _product_bits(values: Values, bits: int) -> int:
    """Of an integer times a weight's magnitude; a single term is one bit shorter than a sum."""
    return bits + values["WB"] - (2 if values["K"] == 1 else 1)


def _stored_bits(values: Values) -> int:
    """Of a weight: its shifts, one code of which says that there is none, and one sign or as many."""
    terms, csd = values["K"], values["CSD"]
    return terms * (values["WB"] - 1 + csd).bit_length() + (terms if csd else 1)


def _shifts(values: Values, bits: int, signed: bool) -> Features:
    """Of the K shifters; one LUT clears a term that is absent."""
    terms = values["K"]
    return {"shifter LUTs": terms * structure.shift_luts(bits, _places(values), signed), "terms": terms}


def _tree_bits(values: Values, bits: int, signed: bool) -> int:
    """Carry bits of the K - 1 adders; the top one of an unsigned term is 0."""
    terms, product = values["K"], _product_bits(values, bits)
    if values["CSD"]:
        # One position more makes the carry of a subtraction, and one LUT compares the terms' signs.
        return (terms - 1) * (product + 2)
    free = 0 if signed else terms // 2 + (terms > 1) * (terms % 2)
    return (terms - 1) * product - free


def _tree_registers(values: Values, product: int, term: int) -> int:
    """Behind each adder; an odd term waits as it is, and each sum but the first waits for a sign's carry."""
    count, total, waits_as_term = values["K"], 0, True
    while count > 1:
        pairs, odd = divmod(count, 2)
        waits_as_term &= bool(odd)
        signs = pairs + odd - 1 if values["CSD"] else 0
        total += pairs * product + odd * (term if waits_as_term else product) + signs
        count = pairs + odd
    return total


def _product_registers(values: Values, bits: int) -> int:
    """Of ``cost_models/rtl/khot_product.v`` and of the weight in front of it."""
    terms, product, term = values["K"], _product_bits(values, bits), bits + _places(values)
    signs = terms - 1 if values["CSD"] else 0
    shifted = terms * term + signs + 1
    return _stored_bits(values) + shifted + _tree_registers(values, product, term) + levels(terms)


def _khot_mac(values: Values) -> Features:
    bits, signed = values["WA"], bool(values["SA"])
    return {
        **_shifts(values, bits, signed),
        "tree bits": _tree_bits(values, bits, signed),
        "accumulator bits": values["A"] + 1,
    }


def _khot_mac_registers(values: Values) -> int:
    product = _product_registers(values, values["WA"])
    return values["WA"] + product + 2 + levels(values["K"]) + values["A"]


def _khot_minifloat_mac(values: Values) -> Features:
    bits, exponent = values["MA"] + 1, values["EA"]
    product = _product_bits(values, bits)
    terms = _shifts(values, bits, signed=False)
    terms["shifter LUTs"] += structure.shift_luts(product, _span(values))
    return {
        **terms,
        "exponent bits": exponent + 1 if exponent > 1 else 0,
        "tree bits": _tree_bits(values, bits, signed=False),
        "accumulator bits": values["A"] + 1,
    }


def _khot_minifloat_mac_registers(values: Values) -> int:
    exponent, depth = values["EA"], 1 + levels(values["K"])
    operand = 1 + exponent + values["MA"]
    waiting = depth * (1 + (exponent if exponent > 1 else 0))
    product = _product_registers(values, values["MA"] + 1) + waiting
    shifted = _product_bits(values, values["MA"] + 1) + _span(values) + 1
    return operand + product + shifted + 2 + depth + values["A"]


def _span(values: Values) -> int:
    """Places that an exponent shifts by at most."""
    return (1 << values["EA"]) - 2


MODELS: Mapping[str, UnitModel] = {
    "khot_mac": UnitModel(_khot_mac, _khot_mac_registers),
    "khot_minifloat_mac": UnitModel(_khot_minifloat_mac, _khot_minifloat_mac_registers),
}
