"""Unrolled layers: in Verilator beside folded ones, their cycles and prices, and what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from rtl_designs import chain, residual

from qhw.boards import load_board
from qhw.cost.pricing.design import Design
from qhw.errors import InputError, UnsupportedError
from qhw.flows.base import default_vectors
from qhw.flows.rtl import RtlFlow
from qhw.flows.rtl.emission import emit, settled
from qhw.flows.rtl.priced import taken
from qhw.flows.rtl.simulation import simulate_project
from qhw.flows.rtl.unrolling import ADDITIONS, unrolled, weights_of, whole
from qhw.formats import parse_format
from qhw.formats.integer import Integer
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph, Node

if importlib.util.find_spec("alkaid") is None:
    pytest.skip("alkaid is not installed: pip install 'qhw[unrolled]'", allow_module_level=True)


def perceptron() -> ExactGraph:
    """A convolution with stride, dilation and padding, one with groups, three matrices, a batch norm."""
    rng = np.random.default_rng(5)
    b = GraphBuilder("perceptron")
    x = b.input("image", (2, 6, 5), Integer(4, False), -2)
    first = b.constant("w0", rng.integers(-4, 4, (4, 2, 3, 2)), Integer(3), -1)
    h = b.conv("conv", x, first, strides=(2, 1), dilations=(1, 2), pads=(1, 0, 0, 1))
    h = b.requant("q0", h, Integer(4), 1)
    second = b.constant("w1", rng.integers(-2, 2, (4, 2, 1, 2)), Integer(2))
    h = b.requant("q1", b.conv("grouped", h, second, groups=2), parse_format("e2m1"), 0)
    h = b.reshape("flat", h, (36,))
    bias = b.constant("b2", rng.integers(-60, 60, 6), Integer(7), 0)
    h = b.matmul("fc1", h, b.constant("w2", rng.integers(-8, 8, (36, 6)), Integer(4), -1), bias)
    scale, offset = (b.constant(name, rng.integers(1, 60, 6), Integer(7)) for name in ("scale", "offset"))
    h = b.requant("q2", b.affine("norm", h, scale, offset), Integer(4, False), 5)
    h = b.requant(
        "q3", b.matmul("fc2", h, b.constant("w3", rng.integers(-8, 8, (6, 4)), Integer(4))), Integer(5), 8
    )
    return b.finish([b.matmul("fc3", h, b.constant("w4", rng.integers(-2, 2, (4, 3)), Integer(2)))])


def design(graph: ExactGraph, chosen: str, board: str = "ultra96") -> Design:
    return RtlFlow(unrolled=chosen).prepare(graph, load_board(board))


@pytest.mark.slow
@pytest.mark.parametrize("registers", ["few", "many"])
def test_every_stream_and_every_cycle(tmp_path: Path, registers: str) -> None:
    """All layers unrolled but one, which is folded: words change their width twice."""
    graph = perceptron()
    names = "conv,grouped,fc1,norm,fc3"
    flow = RtlFlow(unrolled=names, registers=registers)
    made = flow.best(flow.prepare(graph, load_board("ulx3s")))
    assert all(made.folding[name] == whole(graph, node_named(graph, name)) for name in names.split(","))
    project = flow.write(made, tmp_path / "project")
    inputs = default_vectors(graph, 12)
    expected = interpret(graph, inputs, keep="all")
    for seed in (1, 2):
        run = simulate_project(project, inputs, "all", None, seed=seed)
        assert {"conv", "grouped", "fc1", "norm", "fc3"} <= set(run.values)
        assert {name for name, got in run.values.items() if not np.array_equal(got, expected[name])} == set()
    run, (_, schedule) = simulate_project(project, inputs, "outputs", None, seed=0), settled(made)
    cycles = run.ends[0] - run.begins[0], run.ends[-1] - run.ends[-2]
    assert cycles == (schedule.latency, schedule.interval)


def node_named(graph: ExactGraph, name: str) -> Node:
    return next(node for node in graph.nodes if node.name == name)


def test_a_whole_network_gives_an_image_a_cycle() -> None:
    graph = chain()
    flow = RtlFlow(unrolled="all")
    made = flow.best(flow.prepare(graph, load_board("ultra96")))
    assert settled(made)[1].interval == 1
    assert {c.module for c in settled(made)[0].components}.isdisjoint({"fifo", "gearbox"})


def test_the_matrix_of_a_convolution_is_the_convolution() -> None:
    graph = perceptron()
    conv = node_named(graph, "grouped")
    x = np.random.default_rng(0).integers(-8, 8, (1, 4, 1, 2))
    weight = graph.constants["w1"]
    expected = [
        sum(int(x[0, 2 * (f // 2) + c, 0, t]) * int(weight[f, c, 0, t]) for c in range(2) for t in range(2))
        for f in range(4)
    ]
    assert (x[0].transpose(1, 2, 0).reshape(-1) @ weights_of(graph, conv)).tolist() == expected


def test_the_price_is_that_of_the_additions_and_of_nothing_else() -> None:
    graph = chain()
    made = design(graph, "fc")
    fc = node_named(graph, "fc")
    cost = made.costing.layers(fc, [whole(graph, fc)])[0]
    counts = unrolled(graph, fc, ADDITIONS["few"]).counts()
    assert (cost.dsp, cost.bram18, cost.initiation_interval) == (0, 0, 1)
    assert cost.lut == counts.luts + counts.shift_luts
    assert cost.ff == counts.shifted_registers


def test_the_counted_circuit_has_the_additions_once() -> None:
    graph = chain()
    fc = node_named(graph, "fc")
    circuit = emit(design(graph, "fc").folded({"fc": whole(graph, fc)}))
    name = next(component.name for component in circuit.components if component.module in circuit.sums)
    made = unrolled(graph, fc, ADDITIONS["few"])
    counts = made.counts()
    for family, luts, registers in (
        ("7series", counts.luts + counts.shift_luts, counts.shifted_registers),
        ("ecp5", counts.lut4s, counts.registers),
    ):
        usage = taken(circuit, family)[name]
        # The control of the pipeline has one LUT; its flip-flops are among those of the layer.
        assert (usage.lut, usage.ff) == (luts + 1, registers)


def test_without_the_option_nothing_changes() -> None:
    graph, board = residual(), load_board("ulx3s")
    plain, none = (RtlFlow(**given).prepare(graph, board) for given in ({}, {"unrolled": "none"}))
    assert plain.legal == none.legal
    assert emit(plain).modules == emit(none).modules
    assert RtlFlow(unrolled="auto").prepare(graph, board).legal.keys() == plain.legal.keys()


def test_what_cannot_be_unrolled_is_refused_by_name() -> None:
    with pytest.raises(InputError, match="unrolled names 'fd', which is no node") as caught:
        design(chain(), "fd")
    assert "fc" in str(caught.value)
    with pytest.raises(UnsupportedError, match="Requant 'y' cannot be unrolled: it is none of MatMul"):
        design(chain(), "fc, y")
    b = GraphBuilder("attention")
    x, y = b.input("x", (4, 4), Integer(4)), b.input("y", (4, 4), Integer(4))
    with pytest.raises(UnsupportedError, match="MatMul 'scores' cannot be unrolled: its matrix is computed"):
        design(b.finish([b.matmul("scores", x, y)]), "scores")
