"""Random graphs over every operation, formats that list their codes among them: what holds for each one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st
from random_graphs import LISTED_FORMATS, random_graph, random_inputs

from qhw.formats import TableFormat
from qhw.graph.builder import value_ranges
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.passes import simplify, to_threshold
from qhw.graph.serialize import graph_hash, load_graph, node_hashes, save_graph

seeds = st.integers(0, 2**32)


def assert_same_outputs(before: ExactGraph, after: ExactGraph, seed: int) -> None:
    inputs = random_inputs(before, 5, seed)
    left, right = interpret(before, inputs), interpret(after, inputs)
    for a, b in zip(before.outputs, after.outputs, strict=True):
        np.testing.assert_array_equal(left[a], right[b])


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_every_tensor_stays_in_its_format_and_range(seed: int) -> None:
    graph = random_graph(seed, widest=60)
    ranges = value_ranges(graph)
    for name, mantissas in interpret(graph, random_inputs(graph, 6, seed), keep="all").items():
        low, high = ranges[name].bounds
        assert graph.tensors[name].format.holds(mantissas), name
        assert mantissas.size == 0 or low <= mantissas.min() <= mantissas.max() <= high, name


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_a_saved_graph_is_the_same(seed: int) -> None:
    graph = random_graph(seed)
    with tempfile.TemporaryDirectory() as folder:
        save_graph(graph, Path(folder))
        loaded = load_graph(Path(folder))
    assert loaded.tensors == graph.tensors
    assert loaded.nodes == graph.nodes
    assert (graph_hash(loaded), node_hashes(loaded)) == (graph_hash(graph), node_hashes(graph))
    # Formats with the same numbers are equal: their modes must come back too.
    for name, kind in graph.tensors.items():
        assert str(loaded.tensors[name].format) == str(kind.format)
    assert_same_outputs(graph, loaded, seed)


# Exponents along another axis than the channels', ranges by channel, bounds whose sum has 64 bits.
@example(24210)
@example(102)
@example(393)
@settings(max_examples=60, deadline=None)
@given(seeds)
def test_passes_keep_every_output(seed: int) -> None:
    graph = random_graph(seed, operations=14)
    simple = simplify(graph)
    value_ranges(simple)
    assert_same_outputs(graph, simple, seed)
    compared, _ = to_threshold.apply(simple)
    value_ranges(compared)
    assert_same_outputs(graph, compared, seed)


def test_listed_formats_take_part() -> None:
    """As inputs, constants, results, and under every operation that keeps a format."""
    found: set[str] = set()
    for seed in range(60):
        graph = random_graph(seed)
        listed = {name for name, kind in graph.tensors.items() if isinstance(kind.format, TableFormat)}
        found |= {"input"} if listed & set(graph.inputs) else set()
        found |= {"constant"} if listed & set(graph.constants) else set()
        found |= {node.op for node in graph.nodes if node.output in listed}
        found |= {str(graph.tensors[name].format) for name in listed}
    moving = {"Reshape", "Transpose", "Slice", "Concat", "Pad", "MaxPool"}
    assert found >= {"input", "constant", "Requant", "Threshold", "Table", *moving}
    assert found >= {str(format) for format in LISTED_FORMATS}
