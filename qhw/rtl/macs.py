"""Multiply-accumulators and dot products of integers and minifloats."""

from __future__ import annotations

import numpy as np

from qhw.errors import InputError
from qhw.formats import Integer
from qhw.formats.modes import IntArray, Overflow, overflow_mantissa
from qhw.rtl.unit import (
    ENABLE,
    FIRST,
    Parameter,
    Port,
    Ports,
    Streams,
    Unit,
    Values,
    at_least,
    levels,
    mantissas,
)

_ACCUMULATE = ("extend", "delay", "accumulate")
_WIDTHS = (
    Parameter("WA", 1, 32, "bits of a"),
    Parameter("WB", 1, 32, "bits of b"),
    Parameter("SA", 0, 1, "whether a is signed"),
    Parameter("SB", 0, 1, "whether b is signed"),
)
_LANES = Parameter("L", 1, 64, "lanes")
_MULTIPLIER = Parameter("MULTIPLIER", 0, 3, "0 LUT, 1 DSP48E2, 2 DSP48E1, 3 MULT18X18D", default=0)
_IN_DSP = ("dsp48_mac", "mult18_multiply")
_CONTROLS = (ENABLE, FIRST)
DSP_OPERANDS = {1: (27, 18), 2: (25, 18), 3: (18, 18)}
"""Signed bits of the operands of a DSP48E2 (UG579), a DSP48E1 (UG479) and a MULT18X18D (FPGA-TN-02205)."""

_DSP48 = (1, 2)
"""Values of MULTIPLIER whose slice accumulates."""

_DSP_SUM = 48
"""Bits of the accumulator of a DSP48."""


def running_sum(terms: IntArray, first: IntArray, width: int, signed: bool = True) -> IntArray:
    """Sums over steps that start anew where ``first`` is 1, in ``width`` bits of an accumulator.

    Args:
        terms, first: the terms, and where a sum starts, shape (steps,); the first step starts one.
    """
    total = np.cumsum(terms)
    starts = np.maximum.accumulate(np.where(first != 0, np.arange(len(terms)), 0))
    sums = total - (total - terms)[starts]
    return overflow_mantissa(sums, width, signed, Overflow.WRAP)[:, None]


def exponent_span(exponent_bits: int) -> int:
    """How far the significand of a minifloat is shifted at most."""
    return int((1 << exponent_bits) - 2)


def magnitude_bits(values: Values) -> int:
    """Bits of the product of two minifloats' magnitudes, in units of the smallest subnormals' product."""
    return values["MA"] + values["MB"] + 2 + exponent_span(values["EA"]) + exponent_span(values["EB"])


def _total(values: Values, signed: bool) -> tuple[Port, ...]:
    return (Port("sum", values["A"], signed=signed),)


def _integer_ports(values: Values) -> Ports:
    lanes = values.get("L", 1)
    operands = Port("a", values["WA"], lanes), Port("b", values["WB"], lanes)
    return Ports(operands, _total(values, _is_signed(values)), _CONTROLS)


def _is_signed(values: Values) -> bool:
    return bool(values["SA"] or values["SB"])


def _product_bits(values: Values) -> int:
    return values["WA"] + values["WB"] + levels(values.get("L", 1))


def _integer_sum(values: Values, inputs: Streams) -> Streams:
    bits = _product_bits(values)
    a = mantissas(Integer(values["WA"], bool(values["SA"])), inputs["a"], bits)
    b = mantissas(Integer(values["WB"], bool(values["SB"])), inputs["b"], bits)
    dot = (a * b).sum(axis=1)
    return {"sum": running_sum(dot, inputs["first"][:, 0], values["A"], _is_signed(values))}


def _integer_rule(values: Values) -> None:
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


def _dot_latency(values: Values) -> int:
    return 3 + levels(values["L"]) + (values["MULTIPLIER"] in _DSP48)


INTEGER_MAC = Unit(
    name="integer_mac",
    summary="sum <= (first ? 0 : sum) + a * b, integers",
    ranges=(
        *_WIDTHS,
        Parameter("A", 2, 128, "bits of the accumulator"),
        _MULTIPLIER,
    ),
    sources=("multiply", *_ACCUMULATE, *_IN_DSP, "integer_mac"),
    ports=_integer_ports,
    latency=lambda values: 3,
    reference=_integer_sum,
    rule=_integer_rule,
)

INTEGER_DOT = Unit(
    name="integer_dot",
    summary="sum <= (first ? 0 : sum) + a . b, vectors of integers",
    ranges=(*_WIDTHS, _LANES, Parameter("A", 2, 128, "bits of the accumulator"), _MULTIPLIER),
    sources=("multiply", *_ACCUMULATE, *_IN_DSP, "sum_tree", "integer_dot"),
    ports=_integer_ports,
    latency=_dot_latency,
    reference=_integer_sum,
    rule=_integer_rule,
)


def product_spacing(values: Values) -> int:
    """Bits between the products in one DSP slice: a product's own, less the one that its neighbour tells."""
    return values["WA"] + values["WB"] - 1


def packed_products(a_bits: int, b_bits: int, port_bits: int) -> int:
    """How many signed weights of ``b_bits`` one DSP slice multiplies by one operand, 1 at least.

    As FINN's matrix-vector unit packs weights of the full range; ``port_bits`` is 27 in a DSP48E2 (UG579),
    25 in a DSP48E1 (UG479).
    """
    return max(1, 1 + (port_bits - 1 - b_bits) // (a_bits + b_bits - 1))


def _packed_ports(values: Values) -> Ports:
    weights = Port("b", values["WB"], values["P"])
    return Ports(
        (Port("a", values["WA"]), weights), (Port("sum", values["A"], values["P"], True),), _CONTROLS
    )


def _packed_sums(values: Values, inputs: Streams) -> Streams:
    bits = values["WA"] + values["WB"]
    a = mantissas(Integer(values["WA"], bool(values["SA"])), inputs["a"], bits)
    b = mantissas(Integer(values["WB"]), inputs["b"], bits)
    first = inputs["first"][:, 0]
    sums = [running_sum(lane, first, values["A"]) for lane in (a * b).T]
    return {"sum": np.concatenate(sums, axis=1)}


def _packed_rule(values: Values) -> None:
    at_least("packed_mac", values, "A", values["WA"] + values["WB"], "a product does not fit")
    port = DSP_OPERANDS[values["MULTIPLIER"]][0]
    most = packed_products(values["WA"], values["WB"], port)
    if values["P"] > most:
        raise InputError(
            f"P of packed_mac is {values['P']}: the slice's port has {port} bits", allowed=f"1 to {most}"
        )


PACKED_MAC = Unit(
    name="packed_mac",
    summary="sum_i <= (first ? 0 : sum_i) + a * b_i, P signed weights in one DSP slice",
    ranges=(
        Parameter("WA", 1, 17, "bits of a"),
        Parameter("WB", 2, 18, "bits of a weight"),
        Parameter("SA", 0, 1, "whether a is signed"),
        Parameter("P", 1, 12, "weights in the slice"),
        Parameter("A", 3, 64, "bits of an accumulator"),
        Parameter("MULTIPLIER", 1, 2, "1 DSP48E2, 2 DSP48E1", default=1),
    ),
    sources=("extend", "delay", "dsp48_preadd", "packed_mac"),
    ports=_packed_ports,
    latency=lambda values: 5,
    reference=_packed_sums,
    rule=_packed_rule,
)
