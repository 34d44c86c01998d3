"""Sums of many numbers at once: trees of adders, and counts of binary lanes that agree."""

from __future__ import annotations

from qhw.formats import Binary, Integer
from qhw.rtl.macs import running_sum
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


def _tree_ports(values: Values) -> Ports:
    total = Port("y", values["W"] + levels(values["N"]), signed=bool(values["S"]))
    return Ports((Port("x", values["W"], values["N"]),), (total,))


def _tree_sum(values: Values, inputs: Streams) -> Streams:
    format = Integer(values["W"], bool(values["S"]))
    numbers = mantissas(format, inputs["x"], values["W"] + levels(values["N"]))
    return {"y": numbers.sum(axis=1)[:, None]}


ADDER_TREE = Unit(
    name="adder_tree",
    summary="y = the sum of N integers",
    ranges=(
        Parameter("N", 1, 256, "numbers"),
        Parameter("W", 1, 64, "bits of each"),
        Parameter("S", 0, 1, "whether they are signed", default=1),
    ),
    sources=("extend", "sum_tree", "adder_tree"),
    ports=_tree_ports,
    latency=lambda values: 1 + levels(values["N"]),
    reference=_tree_sum,
)


def _groups(values: Values) -> int:
    """Groups of three lanes, which are what the six inputs of a LUT hold."""
    return -(-values["L"] // 3)


def _popcount_ports(values: Values) -> Ports:
    lanes = Port("a", 1, values["L"]), Port("b", 1, values["L"])
    return Ports(lanes, (Port("sum", values["A"]),), (ENABLE, FIRST))


def _agreeing(values: Values, inputs: Streams) -> Streams:
    a, b = (Binary().mantissa_of(inputs[name]) for name in ("a", "b"))
    ones = ((a * b).sum(axis=1) + values["L"]) // 2
    return {"sum": running_sum(ones, inputs["first"][:, 0], values["A"], signed=False)}


def _popcount_rule(values: Values) -> None:
    least = levels(_groups(values)) + 2
    at_least("xnor_popcount", values, "A", least, "one count of all lanes does not fit")


XNOR_POPCOUNT = Unit(
    name="xnor_popcount",
    summary="sum <= (first ? 0 : sum) + popcount(a xnor b), L binary lanes",
    ranges=(
        Parameter("L", 1, 1024, "lanes"),
        Parameter("A", 2, 64, "bits of the accumulator"),
    ),
    sources=("extend", "delay", "accumulate", "sum_tree", "xnor_popcount"),
    ports=_popcount_ports,
    latency=lambda values: 3 + levels(_groups(values)),
    reference=_agreeing,
    rule=_popcount_rule,
)
