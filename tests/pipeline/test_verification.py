"""What float32 can vouch for: the tensors that it holds, and none beyond."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.pipeline import verification
from qhw.sim.compare import compare

INPUTS = {"x": np.arange(24).reshape(4, 6)}


def graph_with_a_wide_tensor() -> ExactGraph:
    """A narrow sum, one of 34 bits behind it, and what is made of each."""
    b = GraphBuilder("wide")
    x = b.input("x", (6,), Integer(6, False))
    narrow = b.matmul("narrow", x, b.constant("w", np.ones((6, 3), dtype=np.int64)))
    wide = b.matmul("wide", narrow, b.constant("v", np.full((3, 2), (1 << 24) - 1)))
    return b.finish([b.requant("cut", wide, Integer(8), 26), b.requant("small", narrow, Integer(4), 3)])


GRAPH = graph_with_a_wide_tensor()


def row(changed: str | None) -> verification.Row:
    """The row of qonnx's execution with one code of a tensor off by one."""
    expected = interpret(GRAPH, INPUTS, keep="all")
    found: dict[str, IntArray] = {name: array.copy() for name, array in expected.items()}
    if changed is not None:
        found[changed].flat[1] += 1
    return within_float32(expected, found)


def within_float32(expected: Mapping[str, IntArray], found: Mapping[str, IntArray]) -> verification.Row:
    comparison = compare(GRAPH, expected, found, names=("exact graph", "qonnx"))
    return verification._within_float32(GRAPH, comparison, INPUTS)


def test_what_is_computed_from_a_wide_tensor_is_not_held() -> None:
    assert GRAPH.tensors["wide"].format.width > 24
    computed = {node.output for node in GRAPH.nodes}
    assert computed & verification.held_by(GRAPH, 24) == {"narrow", "small"}
    assert verification.held_by(GRAPH, 60) == set(GRAPH.tensors)


def test_a_difference_beyond_float32_leaves_the_rest_compared() -> None:
    for changed in ("wide", "cut"):
        found = row(changed)
        assert (found["mismatches"], found["layers"]) == (0, 3)
        assert "wide has" in found["not_compared"]


def test_a_difference_that_float32_would_have_held_counts() -> None:
    for changed in ("narrow", "small"):
        found = row(changed)
        assert found["mismatches"] == 1
        assert f"'{changed}'" in found["first_difference"]


def test_where_nothing_differs_everything_counts() -> None:
    found = row(None)
    assert (found["mismatches"], found["layers"]) == (0, 5)
    assert "not_compared" not in found


def test_a_comparison_of_wide_tensors_alone_is_none() -> None:
    expected = {"wide": interpret(GRAPH, INPUTS, keep="all")["wide"]}
    found = within_float32(expected, {"wide": expected["wide"] + 1})
    assert found["mismatches"] is None
    assert "not_compared" in found


def test_values_beyond_63_bits_become_exact_mantissas() -> None:
    b = GraphBuilder("wider")
    x = b.input("x", (1,), Integer(40))
    wide = b.matmul("wide", x, b.constant("w", np.array([[1 << 35, 3]])))
    graph = b.finish([b.requant("cut", wide, Integer(8), 70)])
    values = np.array([[2.0**74, -(2.0**41)]])
    assert verification.mantissas_of(graph, {"wide": values})["wide"].tolist() == [[1 << 74, -(1 << 41)]]
