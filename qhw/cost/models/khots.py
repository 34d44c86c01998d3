"""Multiply-accumulators with k-hot weights: shifters, additions, and no multiplier."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from qhw.cost import lut4, structure
from qhw.cost.cells import Cells, cells_of
from qhw.cost.structure import levels
from qhw.cost.unit_models import Features, UnitModel, Values


def _places(values: Values) -> int:
    """The largest shift of a term; signed digits may go one beyond their sum."""
    return values["WB"] - (1 if values["CSD"] and values["K"] > 1 else 2)


def _product_bits(values: Values, bits: int) -> int:
    """Bits of an integer times a weight's magnitude; a single term is one bit shorter than a sum."""
    return bits + values["WB"] - (2 if values["K"] == 1 else 1)


def _stored_bits(values: Values) -> int:
    """Bits of a stored weight: its shifts, one code of which says "none", and one sign or one for each."""
    terms, csd = values["K"], values["CSD"]
    return terms * _code_bits(values) + (terms if csd else 1)


def _code_bits(values: Values) -> int:
    """Bits of one stored shift."""
    return (values["WB"] - 1 + values["CSD"]).bit_length()


def _shifts(cells: Cells, values: Values, bits: int, signed: bool) -> Features:
    """LUTs of the K shifters; a LUT clears a term that is absent, on ECP5 as many as its code takes."""
    terms = values["K"]
    if cells.inputs == 6:
        luts = structure.shift_luts(bits, _places(values), signed)
        return {"shifter LUTs": terms * luts, "terms": terms}
    luts = lut4.shift_up_to(bits, _places(values), signed)
    return {"shifter LUTs": terms * luts, "clear LUTs": terms * lut4.reduction(1 + _code_bits(values))}


def _tree(cells: Cells, values: Values, bits: int, signed: bool) -> Features:
    """LUTs of the K - 1 adders; the top bit of an unsigned term is 0."""
    terms, product = values["K"], _product_bits(values, bits)
    if cells.inputs == 4:
        return {"tree LUTs": (terms - 1) * _adder_of_lut4(values, bits)}
    if values["CSD"]:
        # One position more makes the carry of a subtraction, and one LUT compares the terms' signs.
        return {"tree bits": (terms - 1) * (product + 2)}
    free = 0 if signed else terms // 2 + (terms > 1) * (terms % 2)
    return {"tree bits": (terms - 1) * product - free}


def _adder_of_lut4(values: Values, bits: int) -> int:
    """LUTs of an adder on ECP5, where a term's bits are inverted beside the chain."""
    product = _product_bits(values, bits)
    if not values["CSD"]:
        return lut4.adder(product)
    return lut4.adder(product + 1) + bits + _places(values) + 1


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
    """Flip-flops of a product (``cost_models/rtl/khot_product.v``) and of the weight in front of it."""
    terms, product, term = values["K"], _product_bits(values, bits), bits + _places(values)
    signs = terms - 1 if values["CSD"] else 0
    shifted = terms * term + signs + 1
    return _stored_bits(values) + shifted + _tree_registers(values, product, term) + levels(terms)


def _khot_mac(cells: Cells, values: Values) -> Features:
    bits, signed = values["WA"], bool(values["SA"])
    return {
        **_shifts(cells, values, bits, signed),
        **_tree(cells, values, bits, signed),
        **cells.signed_accumulator(values["A"], _product_bits(values, bits)),
    }


def _khot_mac_registers(values: Values) -> int:
    product = _product_registers(values, values["WA"])
    return values["WA"] + product + 2 + levels(values["K"]) + values["A"]


def _khot_minifloat_mac(cells: Cells, values: Values) -> Features:
    bits = values["MA"] + 1
    product, span = _product_bits(values, bits), _span(values)
    terms = _shifts(cells, values, bits, signed=False)
    shift = structure.shift_luts if cells.inputs == 6 else lut4.shift_up_to
    terms["shifter LUTs"] += shift(product, span, False)
    return {
        **terms,
        **_exponent(cells, values["EA"]),
        **_tree(cells, values, bits, signed=False),
        **cells.signed_accumulator(values["A"], product + span),
    }


def _exponent(cells: Cells, bits: int) -> Features:
    """Its places and the leading bit; on ECP5 the sign's LUT, too."""
    if cells.inputs == 4:
        return {"exponent LUTs": lut4.places(bits) + lut4.leading_bit(bits) + 1}
    return {"exponent bits": bits + 1 if bits > 1 else 0}


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


def models(family: str) -> Mapping[str, UnitModel]:
    """The models of multiply-accumulators with k-hot weights, in one family's cells."""
    own = cells_of(family)
    return {
        "khot_mac": UnitModel(partial(_khot_mac, own), _khot_mac_registers),
        "khot_minifloat_mac": UnitModel(partial(_khot_minifloat_mac, own), _khot_minifloat_mac_registers),
    }
