"""Multiply-accumulators whose weights are k-hot: shifts and additions in place of a multiplier."""

from __future__ import annotations

from functools import cache

import numpy as np

from qhw.errors import InputError
from qhw.formats import Integer, KHot, Minifloat
from qhw.formats.modes import IntArray
from qhw.formats.shifts import shift_codes, shift_width
from qhw.rtl.macs import exponent_span, running_sum
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

_PRODUCT = ("extend", "delay", "accumulate_signed", "signed_sum", "shift_up_to", "khot_product")
_WEIGHTS = (
    Parameter("WB", 2, 16, "bits of b"),
    Parameter("K", 1, 8, "shifts that b may have"),
    Parameter("CSD", 0, 1, "whether each shift has a sign of its own", default=0),
)
_ACCUMULATOR = Parameter("A", 2, 128, "bits of the accumulator")


def check_shifts(unit: str, values: Values) -> None:
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


def _weight_port(values: Values) -> Port:
    codes, _ = _stored(values["WB"], values["K"], values["CSD"])
    return Port("b", shift_width(KHot(values["WB"], values["K"], bool(values["CSD"]))), codes=codes)


def _weights(values: Values, inputs: Streams) -> IntArray:
    codes, numbers = _stored(values["WB"], values["K"], values["CSD"])
    return numbers[np.searchsorted(codes, inputs["b"])]


_CONTROLS = (ENABLE, FIRST)


def _product_bits(values: Values) -> int:
    """Bits of a product, its sign included."""
    return values["WA"] + values["WB"] - values["SA"]


def _integer_ports(values: Values) -> Ports:
    operands = Port("a", values["WA"]), _weight_port(values)
    return Ports(operands, (Port("sum", values["A"], signed=True),), _CONTROLS)


def _integer_sum(values: Values, inputs: Streams) -> Streams:
    a = mantissas(Integer(values["WA"], bool(values["SA"])), inputs["a"], _product_bits(values))
    products = (a * _weights(values, inputs))[:, 0]
    return {"sum": running_sum(products, inputs["first"][:, 0], values["A"])}


def _integer_rule(values: Values) -> None:
    check_shifts("khot_mac", values)
    at_least("khot_mac", values, "A", _product_bits(values), "one product does not fit")


KHOT_MAC = Unit(
    name="khot_mac",
    summary="sum <= (first ? 0 : sum) + a * b, an integer and a k-hot weight",
    ranges=(
        Parameter("WA", 1, 32, "bits of a"),
        Parameter("SA", 0, 1, "whether a is signed"),
        *_WEIGHTS,
        _ACCUMULATOR,
    ),
    sources=(*_PRODUCT, "khot_mac"),
    ports=_integer_ports,
    latency=lambda values: 3 + levels(values["K"]),
    reference=_integer_sum,
    rule=_integer_rule,
)


def _minifloat_product_bits(values: Values) -> int:
    """Bits of a product, its sign included, in units of the smallest subnormal."""
    return values["MA"] + exponent_span(values["EA"]) + values["WB"] + 1


def _minifloat_ports(values: Values) -> Ports:
    operands = Port("a", 1 + values["EA"] + values["MA"]), _weight_port(values)
    return Ports(operands, (Port("sum", values["A"], signed=True),), _CONTROLS)


def _minifloat_sum(values: Values, inputs: Streams) -> Streams:
    bits = _minifloat_product_bits(values)
    a = mantissas(Minifloat(values["EA"], values["MA"]), inputs["a"], bits)
    products = (a * _weights(values, inputs))[:, 0]
    return {"sum": running_sum(products, inputs["first"][:, 0], values["A"])}


def _minifloat_rule(values: Values) -> None:
    check_shifts("khot_minifloat_mac", values)
    at_least("khot_minifloat_mac", values, "A", _minifloat_product_bits(values), "one product does not fit")


KHOT_MINIFLOAT_MAC = Unit(
    name="khot_minifloat_mac",
    summary="sum <= (first ? 0 : sum) + a * b, a minifloat and a k-hot weight",
    ranges=(
        Parameter("EA", 1, 6, "exponent bits of a"),
        Parameter("MA", 0, 8, "mantissa bits of a"),
        *_WEIGHTS,
        _ACCUMULATOR,
    ),
    sources=(*_PRODUCT, "minifloat_unpack", "khot_minifloat_mac"),
    ports=_minifloat_ports,
    latency=lambda values: 4 + levels(values["K"]),
    reference=_minifloat_sum,
    rule=_minifloat_rule,
)
