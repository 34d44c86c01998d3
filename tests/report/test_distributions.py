"""Distributions: shares of all numbers, each between the halves of its format's gaps."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from graph_factory import resnet8_graph

from qhw.formats import parse_format
from qhw.formats.integer import Integer
from qhw.graph.interpreter import interpret
from qhw.graph.tensors import Exponent, TensorType
from qhw.report.distributions import distribution, distributions, format_text


def kind_of(text: str) -> TensorType:
    format = parse_format(text)
    return TensorType((8,), format, Exponent.scalar(format.exponent))


@pytest.mark.parametrize("text", ["e2m1", "e4m3", "khot<4,2>", "ternary", "pow2<4>", "int4", "int8", "int12"])
def test_bars_hold_what_is_counted(text: str) -> None:
    kind, random = kind_of(text), np.random.default_rng(0)
    values = random.normal(0, 2.0 ** kind.exponent.values[0] * kind.format.mantissa_high / 4, 4000)
    mantissas = kind.format.to_mantissa(values)
    found = distribution("w", "weights", kind, mantissas)
    assert sum(bar["share"] for bar in found.bars) == pytest.approx(1, abs=1e-4)
    assert found.used == len(Counter(mantissas.tolist()))
    unit = Fraction(2) ** kind.exponent.values[0]
    for bar in found.bars:
        inside = sum(bar["low"] < float(mantissa * unit) <= bar["high"] for mantissa in mantissas.tolist())
        assert inside / len(mantissas) == pytest.approx(bar["share"], abs=0.02 if text == "int12" else 1e-6)
    lows = [bar["low"] for bar in found.bars]
    assert lows == sorted(lows)
    assert len(found.bars) <= 64


def test_numbers_at_the_ends_are_told() -> None:
    kind = TensorType((4,), Integer(4), Exponent.scalar(-2))
    found = distribution("x", "results", kind, np.array([-8, 7, 7, 0]))
    assert found.at_ends == 0.75
    assert found.grid[0] == -2.0
    assert found.grid[-1] == 1.75


@pytest.mark.parametrize(
    ("format", "exponent", "text"),
    [
        (Integer(8), Exponent.scalar(-5), "fixed<8,3>"),
        (Integer(8, False), Exponent.scalar(0), "ufixed<8,8>"),
        (Integer(6), Exponent((1, 2), 0), "fixed<6> per channel"),
        (parse_format("e4m3"), Exponent.scalar(parse_format("e4m3").exponent), "e4m3"),
        (parse_format("e2m1"), Exponent.scalar(parse_format("e2m1").exponent - 3), "e2m1 · 2^-3"),
    ],
)
def test_formats_are_named_as_users_write_them(format: object, exponent: Exponent, text: str) -> None:
    assert format_text(TensorType((2,), format, exponent)) == text  # type: ignore[arg-type]


def test_a_networks_weights_and_results_are_shown_in_its_order() -> None:
    graph = resnet8_graph()
    random = np.random.default_rng(0)
    x = {name: random.integers(0, 4, (2, *graph.tensors[name].shape)) for name in graph.inputs}
    found = distributions(graph, {**interpret(graph, x, keep="all"), **x})
    assert found[0].name == graph.inputs[0]
    weights = [one.name for one in found if one.role == "weights"]
    assert weights == [node.inputs[1] for node in graph.nodes if node.op in ("Conv", "MatMul")]
    rounded = [
        node.output
        for node in graph.nodes
        if node.op == "Requant" and graph.tensors[node.output].format.width <= 16
    ]
    assert [one.name for one in found if one.role == "results"][1:] == rounded
