"""Several products that share a DSP slice and one operand."""

from __future__ import annotations

import numpy as np

from qhw.errors import InputError
from qhw.formats import Integer
from qhw.rtl.base import (
    OWN_DSP,
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
from qhw.rtl.shared.arithmetic import SUM_CONTROLS, at_least, mantissas, running_sum
from qhw.rtl.shared.axes import FLAG
from qhw.rtl.shared.energy import addition_pj, multiply_pj
from qhw.rtl.shared.integers import DSP_OPERANDS


def packed_products(a_bits: int, b_bits: int, port_bits: int) -> int:
    """How many signed weights of ``b_bits`` one DSP slice multiplies by one operand, 1 at least.

    As FINN's matrix-vector unit packs weights of the full range; ``port_bits`` is 27 in a DSP48E2 (UG579),
    25 in a DSP48E1 (UG479).
    """
    return max(1, 1 + (port_bits - 1 - b_bits) // (a_bits + b_bits - 1))


def _ports(values: Values) -> Ports:
    weights = Port("b", values["WB"], values["P"])
    return Ports(
        (Port("a", values["WA"]), weights), (Port("sum", values["A"], values["P"], True),), SUM_CONTROLS
    )


def _reference(values: Values, inputs: Streams) -> Streams:
    bits = values["WA"] + values["WB"]
    a = mantissas(Integer(values["WA"], bool(values["SA"])), inputs["a"], bits)
    b = mantissas(Integer(values["WB"]), inputs["b"], bits)
    first = inputs["first"][:, 0]
    sums = [running_sum(lane, first, values["A"]) for lane in (a * b).T]
    return {"sum": np.concatenate(sums, axis=1)}


def _rule(values: Values) -> None:
    at_least("packed_mac", values, "A", values["WA"] + values["WB"], "a product does not fit")
    port = DSP_OPERANDS[values["MULTIPLIER"]][0]
    most = packed_products(values["WA"], values["WB"], port)
    if values["P"] > most:
        raise InputError(
            f"P of packed_mac is {values['P']}: the slice's port has {port} bits", allowed=f"1 to {most}"
        )


def _features(values: Values) -> Features:
    products = values["P"]
    return {"accumulator bits": products * values["A"], "carries": products - 1}


def _registers(values: Values) -> int:
    # The last bits of a, those of every weight but the first, and `first` are delayed until the product.
    return values["P"] * values["A"] + 4 * (values["P"] - 1) + 8


def _energy(v: Values) -> float:
    return v["P"] * (multiply_pj(v["WA"], v["WB"]) + addition_pj(v["A"]))


def _closed_forms(family: str) -> ClosedForms:
    return ClosedForms(_features, _registers, dsp=lambda values: 1)


UNIT = MeasuredUnit(
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
    ports=_ports,
    latency=lambda values: 5,
    reference=_reference,
    rule=_rule,
    space=Space(
        place=3,
        points=40,
        axes=(
            *(Axis("WA", 1, 9), Axis("WB", 2, 9), Axis("SA", choices=FLAG)),
            Axis("P", 2, 9),
            Axis("A", lambda values: values["WA"] + values["WB"] + 1, 28),
            Axis("MULTIPLIER", choices=(OWN_DSP,)),
        ),
    ),
    closed_forms=_closed_forms,
    energy_pj=_energy,
)
