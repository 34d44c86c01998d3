"""A graph with explicit patches is a graph like any other, and gives the same codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from test_plan import images, network

from qhw.graph import ir
from qhw.graph.builder import value_ranges
from qhw.graph.interpreter import interpret
from qhw.graph.serialize import graph_hash, load_graph, save_graph
from qhw.patch import layer_by_layer, make_plan, with_patches
from qhw.patch.plan import node_macs
from qhw.sim.fast import FastExecutor


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("image", "grid"), [((2, 12, 10), (2, 3)), ((3, 14), (3,))])
def test_it_gives_the_same_codes(seed: int, image: tuple[int, ...], grid: tuple[int, ...]) -> None:
    graph = network(seed, image)
    plan = make_plan(graph, "join", grid)
    patched, inputs = with_patches(graph, plan), images(graph)
    value_ranges(patched)  # every type is what its operation gives
    expected = interpret(graph, inputs, keep="all")
    found = interpret(patched, inputs, keep="all")
    assert np.array_equal(found["join"], expected["join"])
    assert np.array_equal(found["fc"], expected["fc"])
    assert np.array_equal(FastExecutor(patched)(inputs)["fc"], expected["fc"])


def test_it_computes_what_the_plan_says() -> None:
    graph = network(1)
    plan = make_plan(graph, "join", (3, 2))
    patched = with_patches(graph, plan)
    assert sum(node_macs(patched, node) for node in patched.nodes) == plan.macs > plan.layer_macs
    names = [node.name for node in patched.nodes]
    assert {"deep_c.patch0", "deep_c.patch5", "join.joined"} <= set(names)
    assert "deep_c" not in names
    assert all(isinstance(node, ir.Slice | ir.Concat) or "." not in node.source for node in patched.nodes)


def test_it_is_stored_and_read_as_any_graph(tmp_path: Path) -> None:
    patched = with_patches(network(0), make_plan(network(0), "pool", (2, 1)))
    save_graph(patched, tmp_path)
    assert graph_hash(load_graph(tmp_path)) == graph_hash(patched)


def test_without_patches_it_is_the_graph_itself() -> None:
    graph = network(2)
    assert with_patches(graph, layer_by_layer(graph)) is graph
