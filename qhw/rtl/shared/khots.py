"""Products with k-hot weights: shifters, additions, and no multiplier."""

from __future__ import annotations

from functools import cache

import numpy as np

from qhw.errors import InputError
from qhw.formats import KHot
from qhw.formats.modes import IntArray
from qhw.formats.shifts import shift_codes, shift_width
from qhw.rtl.base import Features, Parameter, Port, Streams, Values
from qhw.rtl.shared import lut4, structure
from qhw.rtl.shared.cells import Cells
from qhw.rtl.shared.energy import addition_pj
from qhw.rtl.shared.structure import levels

KHOT_PRODUCT = ("extend", "delay", "accumulate_signed", "signed_sum", "shift_up_to", "khot_product")
WEIGHT = (
    Parameter("WB", 2, 16, "bits of b"),
    Parameter("K", 1, 8, "shifts that b may have"),
    Parameter("CSD", 0, 1, "whether each shift has a sign of its own", default=0),
)


def check_shifts(unit: str, values: Values) -> None:
    """Raise InputError for as many shifts as bits."""
    if values["K"] >= values["WB"]:
        raise InputError(
            f"K of {unit} is {values['K']} with WB={values['WB']}",
            allowed=f"1 to {values['WB'] - 1}",
            hint="the sign is one of the bits",
        )


@cache
def _stored(width: int, k: int, csd: int) -> tuple[IntArray, IntArray]:
    """Weights as their shifts, in rising order, and what each of them stands for.

    Not by the format: two that hold the same numbers are equal, but are stored with other signs.
    """
    format = KHot(width, k, bool(csd))
    stored = shift_codes(format, format.numbers)
    order = np.argsort(stored)
    return stored[order], format.numbers[order]


def weight_port(values: Values) -> Port:
    """The weight as it is stored: its shifts."""
    codes, _ = _stored(values["WB"], values["K"], values["CSD"])
    return Port("b", shift_width(KHot(values["WB"], values["K"], bool(values["CSD"]))), codes=codes)


def weight_numbers(values: Values, inputs: Streams) -> IntArray:
    """What the stored weights stand for."""
    codes, numbers = _stored(values["WB"], values["K"], values["CSD"])
    return numbers[np.searchsorted(codes, inputs["b"])]


def _places(values: Values) -> int:
    """The largest shift of a term; signed digits may go one beyond their sum."""
    return values["WB"] - (1 if values["CSD"] and values["K"] > 1 else 2)


def term_product_bits(values: Values, bits: int) -> int:
    """Bits of an integer times a weight's magnitude; a single term is one bit shorter than a sum."""
    return bits + values["WB"] - (2 if values["K"] == 1 else 1)


def _stored_bits(values: Values) -> int:
    """Bits of a stored weight: its shifts, one code of which says "none", and one sign or one for each."""
    terms, csd = values["K"], values["CSD"]
    return terms * _code_bits(values) + (terms if csd else 1)


def _code_bits(values: Values) -> int:
    """Bits of one stored shift."""
    return (values["WB"] - 1 + values["CSD"]).bit_length()


def shifted_terms(cells: Cells, values: Values, bits: int, signed: bool) -> Features:
    """LUTs of the K shifters; a LUT clears a term that is absent, on ECP5 as many as its code takes."""
    terms = values["K"]
    if cells.inputs == 6:
        luts = structure.shift_luts(bits, _places(values), signed)
        return {"shifter LUTs": terms * luts, "terms": terms}
    luts = lut4.shift_up_to(bits, _places(values), signed)
    return {"shifter LUTs": terms * luts, "clear LUTs": terms * lut4.reduction(1 + _code_bits(values))}


def term_tree(cells: Cells, values: Values, bits: int, signed: bool) -> Features:
    """LUTs of the K - 1 adders; the top bit of an unsigned term is 0."""
    terms, product = values["K"], term_product_bits(values, bits)
    if cells.inputs == 4:
        return {"tree LUTs": (terms - 1) * _adder_of_lut4(values, bits)}
    if values["CSD"]:
        # One position more makes the carry of a subtraction, and one LUT compares the terms' signs.
        return {"tree bits": (terms - 1) * (product + 2)}
    free = 0 if signed else terms // 2 + (terms > 1) * (terms % 2)
    return {"tree bits": (terms - 1) * product - free}


def _adder_of_lut4(values: Values, bits: int) -> int:
    """LUTs of an adder on ECP5, where a term's bits are inverted beside the chain."""
    product = term_product_bits(values, bits)
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


def weighted_registers(values: Values, bits: int) -> int:
    """Flip-flops of a product (``cost_models/rtl/khot_product.v``) and of the weight in front of it."""
    terms, product, term = values["K"], term_product_bits(values, bits), bits + _places(values)
    signs = terms - 1 if values["CSD"] else 0
    shifted = terms * term + signs + 1
    return _stored_bits(values) + shifted + _tree_registers(values, product, term) + levels(terms)


def khot_pj(v: Values) -> float:
    """Energy of one cycle: shifts count as additions."""
    bits = v["WA"] if "WA" in v else v["MA"] + (1 << v["EA"]) - 1
    return (2 * v["K"] - 1) * addition_pj(bits + v["WB"]) + addition_pj(v["A"])
