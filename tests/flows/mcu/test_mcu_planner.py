"""What becomes of a graph: joined layers, refusals by name, memory that is shared."""

from __future__ import annotations

import numpy as np
import pytest
from firmware import H743, differing, layout, needs_gcc

from qhw.errors import UnsupportedError
from qhw.flows.mcu import McuFlow
from qhw.flows.mcu.planner import _RULES, plan_program
from qhw.flows.mcu.program import ConvLayer
from qhw.formats.integer import Integer
from qhw.graph import ir
from qhw.graph.builder import GraphBuilder
from tests.graph_factory import resnet8_graph
from tests.random_graphs import random_graph, random_inputs


def test_a_residual_network_is_one_step_per_layer() -> None:
    graph = resnet8_graph()
    program = plan_program(graph)
    joined = {step.name: len(step.nodes) for step in program.steps}
    assert joined["conv"] == 3  # with its batch norm and its rounding
    assert joined["block1_add"] == 2
    assert joined["pool"] == 3
    assert joined["fc"] == 2  # with the Reshape in front of it
    assert {name for step in program.steps for name in step.nodes} == {node.name for node in graph.nodes}
    assert len(program.steps) == 9 + 3 + 1 + 1


def test_every_operation_has_a_rule() -> None:
    assert set(_RULES) == set(ir.OPERATIONS.values())


def test_a_flattened_map_keeps_its_layout() -> None:
    """A Linear behind a Flatten reads the map as it lies: its weights are turned, not the map."""
    b = GraphBuilder("flat")
    x = b.input("x", (3, 4, 5), Integer(8), 0)
    w = b.constant("w", np.arange(60 * 2).reshape(60, 2) % 7 - 3, Integer(4), 0)
    graph = b.finish([b.matmul("fc", b.reshape("flat", x, (60,)), w)])
    (step,) = plan_program(graph).steps
    assert isinstance(step.layer, ConvLayer)
    assert step.layer.weights.shape == (2, 4, 5, 3)
    assert step.reads == ("x",)


@pytest.mark.parametrize("seed", range(40))
def test_every_node_is_carried_out_once(seed: int) -> None:
    graph = McuFlow().rewritten(random_graph(seed))
    try:
        program = plan_program(graph)
    except UnsupportedError as refused:
        if not any(f"'{node.name}'" in refused.message for node in graph.nodes):
            raise
        return
    carried = [name for step in program.steps for name in step.nodes]
    aliased = [node.name for node in graph.nodes if node.output in program.aliases]
    assert len(carried) == len(set(carried))
    missing = {node.name for node in graph.nodes} - set(carried) - set(aliased)
    # A Reshape whose result is an output is carried out by the copy to it.
    assert all(isinstance(n, ir.Reshape) for n in graph.nodes if n.name in missing)


def test_what_no_kernel_takes_is_refused_with_its_layer() -> None:
    b = GraphBuilder("wide")
    x = b.input("x", (4,), Integer(40), 0)
    square = b.mul("square", x, x)
    graph = b.finish([b.mul("cube", square, x, source="net.cube")])
    with pytest.raises(UnsupportedError, match=r"no kernel for Mul .*: .*more than 64 b"):
        McuFlow().prepare(graph, H743)


def test_exponents_within_a_channel_are_refused() -> None:
    b = GraphBuilder("columns")
    x = b.input("x", (3, 4), Integer(8), ir.Exponent((0, 1, 2, 3), 1))
    graph = b.finish([b.requant("y", x, Integer(4), 2)])
    with pytest.raises(UnsupportedError, match=r"Requant 'y': 'x' has an exponent for each index of axis 1"):
        McuFlow().prepare(graph, H743)


def test_an_addition_is_done_in_place() -> None:
    made = layout(resnet8_graph())
    assert set(made.in_place) == {"block1_relu2", "block2_relu2", "block3_relu2"}
    # The first block holds three maps at most, and what its second convolution gathers its taps in.
    scratch = next(step.scratch for step in made.program.steps if step.name == "block1_conv2")
    assert made.arena.bytes == made.floor == 3 * 28 * 28 * 16 + scratch


@needs_gcc
def test_an_output_that_is_another_name_has_bytes_of_its_own() -> None:
    b = GraphBuilder("names")
    x = b.input("x", (2, 3, 2), Integer(4), 0)
    y = b.requant("y", x, Integer(3), 0)
    flat = b.reshape("flat", y, (2, 6))
    up = b.requant("up", flat, Integer(2), 1)
    graph = b.finish([flat, up])
    assert differing(graph, random_inputs(graph, 5)) == []
