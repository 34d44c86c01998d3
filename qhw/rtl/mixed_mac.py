"""A multiply-accumulator of an integer and a minifloat, exact in fixed point."""

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
from qhw.rtl.shared import lut4
from qhw.rtl.shared.arithmetic import ACCUMULATOR, SUM_CONTROLS, at_least, mantissas, running_sum
from qhw.rtl.shared.axes import FLAG, FORMATS, accumulator
from qhw.rtl.shared.cells import Cells, cells_of
from qhw.rtl.shared.energy import addition_pj, multiply_pj
from qhw.rtl.shared.minifloats import FORMAT_B, code_bits, exponent_span, minifloat_of, signed_total
from qhw.rtl.shared.shifters import shift_stages, shifter_features, staged_shifter


def _ports(values: Values) -> Ports:
    operands = Port("a", values["WA"]), Port("b", code_bits(values, "B"))
    return Ports(operands, signed_total(values), SUM_CONTROLS)


def _product_bits(values: Values) -> int:
    """Bits of one product, its sign included."""
    return values["WA"] + (not values["SA"]) + values["MB"] + 1 + exponent_span(values["EB"])


def _reference(values: Values, inputs: Streams) -> Streams:
    bits = _product_bits(values)
    a = mantissas(Integer(values["WA"], bool(values["SA"])), inputs["a"], bits)
    b = mantissas(minifloat_of(values, "B"), inputs["b"], bits)
    return {"sum": running_sum((a * b)[:, 0], inputs["first"][:, 0], values["A"])}


def _product(values: Values) -> tuple[int, int]:
    """Bits of the integer times the significand, and the places of the shift."""
    a, mantissa = values["WA"], values["MB"]
    bits = a if mantissa == 0 else mantissa + 1 if a == 1 and not values["SA"] else a + mantissa + 1
    return bits, (1 << values["EB"]) - 2


def _features(cells: Cells, values: Values) -> Features:
    bits, span = _product(values)
    signed = bool(values["SA"])
    return {
        **cells.multipliers(1, values["WA"], values["MB"] + 1, signed),
        "exponent LUTs": _exponent(cells, values["EB"]),
        **shifter_features(cells, staged_shifter(bits, span, bits + span, signed)),
        **cells.signed_accumulator(values["A"], bits + span),
    }


def _exponent(cells: Cells, bits: int) -> int:
    if cells.inputs == 4:
        return lut4.leading_bit(bits) + lut4.places(bits)
    return bits + 1 if bits > 1 else 0


def _registers(values: Values) -> int:
    bits, span = _product(values)
    shifter = staged_shifter(bits, span, bits + span, bool(values["SA"]))
    operands = values["WA"] + 1 + values["EB"] + values["MB"]
    product = 1 + bits + span.bit_length()
    controls = shifter.stages + (2 + shifter.stages)
    return operands + product + shifter.registers + controls + values["A"]


def _energy(v: Values) -> float:
    product = v["WA"] + v["MB"] + 1 + (1 << v["EB"]) - 2
    return multiply_pj(v["WA"], v["MB"] + 1) + addition_pj(product) + addition_pj(v["A"])


def _least_sum(values: Values) -> int:
    return values["WA"] + values["MB"] + (1 << values["EB"]) + 1


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(partial(_features, cells_of(family)), _registers)


UNIT = MeasuredUnit(
    name="mixed_mac",
    summary="sum <= (first ? 0 : sum) + a * b, an integer and a minifloat, exact in fixed point",
    ranges=(
        Parameter("WA", 1, 32, "bits of a"),
        Parameter("SA", 0, 1, "whether a is signed"),
        *FORMAT_B,
        ACCUMULATOR,
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
    ports=_ports,
    latency=lambda values: 3 + shift_stages(exponent_span(values["EB"])),
    reference=_reference,
    rule=lambda values: at_least("mixed_mac", values, "A", _product_bits(values), "one product does not fit"),
    space=Space(
        place=6,
        points=100,
        axes=(Axis("WA", 1, 10), Axis("SA", choices=FLAG), *FORMATS[2:], accumulator(_least_sum)),
    ),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
