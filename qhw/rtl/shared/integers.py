"""Products and sums of integers, in LUTs or in DSP slices: what MAC and dot product have in common."""

from __future__ import annotations

from qhw.errors import InputError
from qhw.formats import Integer
from qhw.rtl.base import Features, Parameter, Port, Ports, Streams, Values
from qhw.rtl.shared.arithmetic import SUM_CONTROLS, at_least, mantissas, running_sum
from qhw.rtl.shared.cells import Cells
from qhw.rtl.shared.energy import addition_pj, multiply_pj, tree_pj
from qhw.rtl.shared.structure import levels

ACCUMULATE = ("extend", "delay", "accumulate")
OPERANDS = (
    Parameter("WA", 1, 32, "bits of a"),
    Parameter("WB", 1, 32, "bits of b"),
    Parameter("SA", 0, 1, "whether a is signed"),
    Parameter("SB", 0, 1, "whether b is signed"),
)
MULTIPLIER = Parameter("MULTIPLIER", 0, 3, "0 LUT, 1 DSP48E2, 2 DSP48E1, 3 MULT18X18D", default=0)
IN_DSP = ("dsp48_mac", "mult18_multiply")

DSP_OPERANDS = {1: (27, 18), 2: (25, 18), 3: (18, 18)}
"""Signed bits of the operands of a DSP48E2 (UG579), a DSP48E1 (UG479) and a MULT18X18D (FPGA-TN-02205)."""

DSP48 = (1, 2)
"""Values of MULTIPLIER whose slice accumulates."""

_DSP_SUM = 48
"""Bits of the accumulator of a DSP48."""


def _total(values: Values, signed: bool) -> tuple[Port, ...]:
    return (Port("sum", values["A"], signed=signed),)


def integer_ports(values: Values) -> Ports:
    """Both operands, lane by lane, and the sum."""
    lanes = values.get("L", 1)
    operands = Port("a", values["WA"], lanes), Port("b", values["WB"], lanes)
    return Ports(operands, _total(values, is_signed(values)), SUM_CONTROLS)


def is_signed(values: Values) -> bool:
    """Whether the sum is signed."""
    return bool(values["SA"] or values["SB"])


def _product_bits(values: Values) -> int:
    return values["WA"] + values["WB"] + levels(values.get("L", 1))


def integer_sum(values: Values, inputs: Streams) -> Streams:
    """The running sum of the products."""
    bits = _product_bits(values)
    a = mantissas(Integer(values["WA"], bool(values["SA"])), inputs["a"], bits)
    b = mantissas(Integer(values["WB"], bool(values["SB"])), inputs["b"], bits)
    dot = (a * b).sum(axis=1)
    return {"sum": running_sum(dot, inputs["first"][:, 0], values["A"], is_signed(values))}


def integer_rule(values: Values) -> None:
    """Raise InputError for a sum that does not fit, or operands beyond the slice's ports."""
    unit = "integer_dot" if "L" in values else "integer_mac"
    at_least(unit, values, "A", _product_bits(values), "one sum of products does not fit")
    multiplier = values.get("MULTIPLIER", 0)
    if not multiplier:
        return
    wide = sorted((values["WA"] + (not values["SA"]), values["WB"] + (not values["SB"])), reverse=True)
    limits = DSP_OPERANDS[multiplier]
    if wide[0] > limits[0] or wide[1] > limits[1]:
        raise InputError(
            f"Operands of {unit} have {wide[0]} and {wide[1]} bits with their signs",
            allowed=f"{limits[0]} and {limits[1]} bits with MULTIPLIER={multiplier}",
        )
    if "L" not in values and multiplier != 3 and values["A"] > _DSP_SUM:
        raise InputError(
            f"A of {unit} is {values['A']} with MULTIPLIER={multiplier}", allowed=f"up to {_DSP_SUM}"
        )


def lut_products(cells: Cells, values: Values) -> Features:
    """Multipliers of LUTs; none where DSP slices multiply."""
    if values["MULTIPLIER"]:
        return {}
    operands = values["WA"], values["WB"], bool(values["SA"]), bool(values["SB"])
    return cells.multipliers(values.get("L", 1), *operands)


def product_registers(values: Values) -> int:
    """Behind one multiplier; a bit that is constant, or equal to the one below it, has none of its own."""
    a, b = values["WA"], values["WB"]
    if a == b == 1:
        return 1
    gates_only = (a == 1 and not values["SA"]) or (b == 1 and not values["SB"])
    return a + b - gates_only


def integer_pj(v: Values) -> float:
    """Energy of one cycle, in LUTs or not."""
    lanes = v.get("L", 1)
    return lanes * multiply_pj(v["WA"], v["WB"]) + tree_pj(lanes, v["WA"] + v["WB"]) + addition_pj(v["A"])
