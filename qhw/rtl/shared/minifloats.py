"""Products and sums of minifloats: what the MACs and the dot product have in common.

The minifloats are those whose codes are all finite, with the default bias. Sums are exact: fixed point whose
unit is the product of the operands' smallest steps.
"""

from __future__ import annotations

from qhw.formats import Minifloat
from qhw.rtl.base import Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared import lut4
from qhw.rtl.shared.arithmetic import SUM_CONTROLS, at_least, mantissas, running_sum
from qhw.rtl.shared.axes import lane_levels
from qhw.rtl.shared.cells import Cells
from qhw.rtl.shared.energy import addition_pj, multiply_pj, tree_pj
from qhw.rtl.shared.structure import levels

FORMAT_A = (Parameter("EA", 1, 5, "exponent bits of a"), Parameter("MA", 0, 10, "mantissa bits of a"))
FORMAT_B = (Parameter("EB", 1, 5, "exponent bits of b"), Parameter("MB", 0, 10, "mantissa bits of b"))
MINIFLOAT_PRODUCT = ("extend", "delay", "multiply", "minifloat_unpack", "minifloat_product")


def exponent_span(exponent_bits: int) -> int:
    """How far the significand of a minifloat is shifted at most."""
    return int((1 << exponent_bits) - 2)


def magnitude_bits(values: Values) -> int:
    """Bits of the product of two minifloats' magnitudes, in units of the smallest subnormals' product."""
    return values["MA"] + values["MB"] + 2 + exponent_span(values["EA"]) + exponent_span(values["EB"])


def product_span(values: Values) -> int:
    """How far the product of two significands is shifted at most."""
    return exponent_span(values["EA"]) + exponent_span(values["EB"])


def code_bits(values: Values, operand: str) -> int:
    """Bits of an operand, A or B."""
    return 1 + values[f"E{operand}"] + values[f"M{operand}"]


def minifloat_of(values: Values, operand: str) -> Minifloat:
    """The format of an operand, A or B."""
    return Minifloat(values[f"E{operand}"], values[f"M{operand}"])


def signed_total(values: Values) -> tuple[Port, ...]:
    """The sum."""
    return (Port("sum", values["A"], signed=True),)


def minifloat_ports(values: Values) -> Ports:
    """Both operands, lane by lane, and the sum."""
    lanes = values.get("L", 1)
    operands = (Port("a", code_bits(values, "A"), lanes), Port("b", code_bits(values, "B"), lanes))
    return Ports(operands, signed_total(values), SUM_CONTROLS)


def _sum_bits(values: Values) -> int:
    """Bits of one sum of products, its sign included."""
    return magnitude_bits(values) + 1 + levels(values.get("L", 1))


def minifloat_sum(values: Values, inputs: Streams) -> Streams:
    """The running sum of the products."""
    bits = _sum_bits(values)
    a = mantissas(minifloat_of(values, "A"), inputs["a"], bits)
    b = mantissas(minifloat_of(values, "B"), inputs["b"], bits)
    return {"sum": running_sum((a * b).sum(axis=1), inputs["first"][:, 0], values["A"])}


def minifloat_rule(values: Values) -> None:
    """Raise InputError for a sum that does not fit."""
    unit = "minifloat_dot" if "L" in values else "minifloat_mac"
    at_least(unit, values, "A", _sum_bits(values), "one sum of products does not fit")


def least_minifloat_sum(values: Values) -> int:
    """Bits of one sum of products, its sign included."""
    return (
        values["MA"] + values["MB"] + 2 + (1 << values["EA"]) + (1 << values["EB"]) - 3 + lane_levels(values)
    )


def significand_bits(values: Values) -> int:
    """Bits of a product's significand; a factor of one bit makes it no longer."""
    ma, mb = values["MA"], values["MB"]
    return ma + mb + (2 if ma and mb else 1)


def exponent_luts(cells: Cells, values: Values) -> int:
    """LUTs of the two leading bits and of the sum of the places; on ECP5 the sign's, too.

    Two decoded bits of fields of two bits fit the LUT of their sum; of longer fields, each takes its own.
    """
    short, long = sorted((values["EA"], values["EB"]))
    if cells.inputs == 4:
        return lut4.leading_bit(short) + lut4.leading_bit(long) + lut4.sum_of_places(short, long) + 1
    leading = (short > 1) + (long > 1)
    if short == 1:
        return leading + (long if long > 1 else 0)
    decoded = 2 * short if short > 2 else 2 if long > 2 else 0
    return leading + long + decoded


def significands(values: Values) -> tuple[int, int]:
    """Bits of the two that are multiplied."""
    return values["MA"] + 1, values["MB"] + 1


def operand_registers(values: Values) -> int:
    """Flip-flops of both operands."""
    return 2 + values["EA"] + values["MA"] + values["EB"] + values["MB"]


def minifloat_pj(v: Values) -> float:
    """Energy of one cycle."""
    lanes, product = v.get("L", 1), v["MA"] + v["MB"] + 2 + (1 << v["EA"]) + (1 << v["EB"]) - 4
    each = multiply_pj(v["MA"] + 1, v["MB"] + 1) + addition_pj(product)
    return lanes * each + tree_pj(lanes, product) + addition_pj(v["A"])
