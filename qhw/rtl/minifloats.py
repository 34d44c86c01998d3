"""Multiply-accumulators and dot products of minifloats, also with integers, and conversion from fixed point.

The minifloats are those whose codes are all finite, with the default bias. Sums are exact: fixed point whose
unit is the product of the operands' smallest steps.
"""

from __future__ import annotations

from qhw.formats import Integer, Minifloat
from qhw.rtl.finish import ROUNDINGS
from qhw.rtl.macs import exponent_span, magnitude_bits, running_sum
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

_FORMAT_A = (Parameter("EA", 1, 5, "exponent bits of a"), Parameter("MA", 0, 10, "mantissa bits of a"))
_FORMAT_B = (Parameter("EB", 1, 5, "exponent bits of b"), Parameter("MB", 0, 10, "mantissa bits of b"))
_ACCUMULATOR = Parameter("A", 2, 128, "bits of the accumulator")
_CONTROLS = (ENABLE, FIRST)
_PRODUCT = ("extend", "delay", "multiply", "minifloat_unpack", "minifloat_product")


def product_span(values: Values) -> int:
    """How far the product of two significands is shifted at most."""
    return exponent_span(values["EA"]) + exponent_span(values["EB"])


def normalised_places(values: Values) -> int:
    """How far the magnitude of a number is shifted at most before it is rounded to a minifloat."""
    smallest = values["P"] + values["M"] + 1
    return max(0, min(values["A"] - smallest, exponent_span(values["E"])))


def _shift_stages(places: int) -> int:
    """Stages of a shifter by 0 to ``places``: at least one, each with two bits of the amount."""
    return max(1, (places.bit_length() + 1) // 2)


def _code_bits(values: Values, operand: str) -> int:
    return 1 + values[f"E{operand}"] + values[f"M{operand}"]


def _format(values: Values, operand: str) -> Minifloat:
    return Minifloat(values[f"E{operand}"], values[f"M{operand}"])


def _total(values: Values) -> tuple[Port, ...]:
    return (Port("sum", values["A"], signed=True),)


def _ports(values: Values) -> Ports:
    lanes = values.get("L", 1)
    operands = (Port("a", _code_bits(values, "A"), lanes), Port("b", _code_bits(values, "B"), lanes))
    return Ports(operands, _total(values), _CONTROLS)


def _sum_bits(values: Values) -> int:
    """Bits of one sum of products, its sign included."""
    return magnitude_bits(values) + 1 + levels(values.get("L", 1))


def _sum(values: Values, inputs: Streams) -> Streams:
    bits = _sum_bits(values)
    a = mantissas(_format(values, "A"), inputs["a"], bits)
    b = mantissas(_format(values, "B"), inputs["b"], bits)
    return {"sum": running_sum((a * b).sum(axis=1), inputs["first"][:, 0], values["A"])}


def _rule(values: Values) -> None:
    unit = "minifloat_dot" if "L" in values else "minifloat_mac"
    at_least(unit, values, "A", _sum_bits(values), "one sum of products does not fit")


MINIFLOAT_MAC = Unit(
    name="minifloat_mac",
    summary="sum <= (first ? 0 : sum) + a * b, minifloats, exact in fixed point",
    ranges=(*_FORMAT_A, *_FORMAT_B, _ACCUMULATOR),
    sources=(*_PRODUCT, "shift_left", "accumulate_signed", "minifloat_mac"),
    ports=_ports,
    latency=lambda values: 3 + _shift_stages(product_span(values)),
    reference=_sum,
    rule=_rule,
)

MINIFLOAT_DOT = Unit(
    name="minifloat_dot",
    summary="sum <= (first ? 0 : sum) + a . b, vectors of minifloats, exact in fixed point",
    ranges=(*_FORMAT_A, *_FORMAT_B, Parameter("L", 1, 64, "lanes"), _ACCUMULATOR),
    sources=(*_PRODUCT, "shift_left", "accumulate", "sum_tree", "minifloat_dot"),
    ports=_ports,
    latency=lambda values: 4 + _shift_stages(product_span(values)) + levels(values["L"]),
    reference=_sum,
    rule=_rule,
)


def _mixed_ports(values: Values) -> Ports:
    operands = Port("a", values["WA"]), Port("b", _code_bits(values, "B"))
    return Ports(operands, _total(values), _CONTROLS)


def _mixed_bits(values: Values) -> int:
    """Bits of one product, its sign included."""
    return values["WA"] + (not values["SA"]) + values["MB"] + 1 + exponent_span(values["EB"])


def _mixed_sum(values: Values, inputs: Streams) -> Streams:
    bits = _mixed_bits(values)
    a = mantissas(Integer(values["WA"], bool(values["SA"])), inputs["a"], bits)
    b = mantissas(_format(values, "B"), inputs["b"], bits)
    return {"sum": running_sum((a * b)[:, 0], inputs["first"][:, 0], values["A"])}


MIXED_MAC = Unit(
    name="mixed_mac",
    summary="sum <= (first ? 0 : sum) + a * b, an integer and a minifloat, exact in fixed point",
    ranges=(
        Parameter("WA", 1, 32, "bits of a"),
        Parameter("SA", 0, 1, "whether a is signed"),
        *_FORMAT_B,
        _ACCUMULATOR,
    ),
    sources=(
        "extend",
        "delay",
        "multiply",
        "minifloat_unpack",
        "shift_left",
        "accumulate_signed",
        "mixed_mac",
    ),
    ports=_mixed_ports,
    latency=lambda values: 3 + _shift_stages(exponent_span(values["EB"])),
    reference=_mixed_sum,
    rule=lambda values: at_least("mixed_mac", values, "A", _mixed_bits(values), "one product does not fit"),
)


def _converted(values: Values, inputs: Streams) -> Streams:
    rounding = ROUNDINGS[values["ROUNDING"]]
    kind = Minifloat(values["E"], values["M"], rounding=rounding)
    x = mantissas(Integer(values["A"], True), inputs["x"], values["A"])
    # Canonical: a negative number that rounds to zero is written as +0.
    return {"y": kind.canonical(kind.encode_mantissa(x, kind.exponent - values["P"]))}


def _conversion_rule(values: Values) -> None:
    why = f"with P={values['P']}, no bit of x is at or above the smallest step of y"
    at_least("fixed_to_minifloat", values, "A", values["P"] + 1, why)


FIXED_TO_MINIFLOAT = Unit(
    name="fixed_to_minifloat",
    summary="y = the minifloat that x * 2^-P rounds to, saturated",
    ranges=(
        Parameter("A", 2, 128, "bits of x"),
        Parameter("E", 1, 5, "exponent bits of y"),
        Parameter("M", 0, 10, "mantissa bits of y"),
        Parameter("P", 0, 64, "bits of x below the smallest step of y"),
        Parameter("ROUNDING", 0, len(ROUNDINGS) - 1, "a mode of Rounding, by place", default=4),
    ),
    sources=("extend", "delay", "round_magnitude_up", "leading_zeros", "shift_left", "fixed_to_minifloat"),
    ports=lambda values: Ports((Port("x", values["A"]),), (Port("y", 1 + values["E"] + values["M"]),)),
    latency=lambda values: 5 + _shift_stages(normalised_places(values)),
    reference=_converted,
    rule=_conversion_rule,
)
