"""The portable kernels against the interpreter: random graphs of every operation, layers of each kind."""

from __future__ import annotations

import numpy as np
import pytest
from firmware import differing, needs_gcc, needs_qemu

from qhw.errors import UnsupportedError
from qhw.flows.mcu.planner import plan_program
from qhw.formats.integer import Integer
from qhw.formats.modes import Overflow, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph
from tests.graph_factory import resnet8_graph
from tests.random_graphs import random_graph, random_inputs

SEEDS = range(6)
MORE_SEEDS = range(6, 60)


def is_exact(graph: ExactGraph, core: str = "") -> bool:
    """Whether firmware of a graph gives its codes; a graph that is refused by name says nothing."""
    try:
        found = differing(graph, random_inputs(graph, 4), core=core)
    except UnsupportedError as refused:
        return "The mcu flow has no kernel for" in refused.message
    assert found == []
    return True


@needs_gcc
@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs(seed: int) -> None:
    assert is_exact(random_graph(seed))


@needs_gcc
@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE_SEEDS)
def test_more_random_graphs(seed: int) -> None:
    assert is_exact(random_graph(seed))


@needs_qemu
@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m33"])
@pytest.mark.parametrize("seed", [1, 5, 8, 13])
def test_random_graphs_on_every_core(seed: int, core: str) -> None:
    assert is_exact(random_graph(seed), core)


def rounded_graph(rounding: Rounding, overflow: Overflow, wide: bool) -> ExactGraph:
    """Every shift to both sides, on numbers over the whole range, in 32 or in 64 bits."""
    b = GraphBuilder("rounded")
    bits = 40 if wide else 14
    x = b.input("x", (3, 4, 5), Integer(bits), 0)
    outputs = []
    for shift in (-2, -1, 0, 1, 2, 5, bits - 2, bits + 3):
        outputs.append(b.requant("y", x, Integer(6), shift, rounding=rounding, overflow=overflow))
    return b.finish(outputs)


@needs_gcc
@pytest.mark.parametrize("rounding", list(Rounding))
def test_every_rounding_and_overflow(rounding: Rounding) -> None:
    for overflow in Overflow:
        graph = rounded_graph(rounding, overflow, wide=overflow is Overflow.SAT)
        assert differing(graph, random_inputs(graph, 40)) == []


@needs_gcc
@pytest.mark.parametrize("bits", [2, 4, 8, 16])
@pytest.mark.parametrize("weight_bits", [2, 4, 8, 12])
def test_convolutions_of_every_width(bits: int, weight_bits: int) -> None:
    random, b = np.random.default_rng(bits + weight_bits), GraphBuilder("conv")
    x = b.input("x", (6, 7, 5), Integer(bits, bool(weight_bits % 8)), 0)
    high = 1 << (weight_bits - 1)
    outputs = []
    for groups, filters, kernel, pads, strides, dilations in (
        (1, 5, (3, 3), (1, 1, 1, 1), (1, 1), (1, 1)),
        (1, 3, (1, 1), (0, 0, 0, 0), (2, 1), (1, 1)),
        (2, 4, (2, 3), (0, 2, 1, 0), (1, 2), (2, 1)),
        (6, 6, (3, 3), (2, 1, 0, 1), (1, 1), (1, 1)),
        (6, 12, (3, 1), (1, 0, 1, 0), (2, 2), (1, 1)),
    ):
        values = random.integers(-high, high, (filters, 6 // groups, *kernel))
        w = b.constant("w", values, Integer(weight_bits), 0)
        bias = b.constant("b", random.integers(-50, 50, filters), Integer(8), 0)
        y = b.conv("conv", x, w, bias, strides=strides, pads=pads, dilations=dilations, groups=groups)
        outputs.append(b.requant("y", y, Integer(8), b.type(y).format.width - 8))
    graph = b.finish(outputs)
    assert differing(graph, random_inputs(graph, 4)) == []


@needs_gcc
@pytest.mark.parametrize(
    ("taps", "bits", "weight_bits", "kernel"),
    [
        (40, 8, 8, "qhw_conv_dsp8"),
        (40, 16, 8, "qhw_conv"),
        (2, 16, 16, "qhw_conv_wide"),  # 2 x 2^30 = 2^31: one more than 32 bits hold
    ],
)
def test_a_bias_far_finer_than_the_products(taps: int, bits: int, weight_bits: int, kernel: str) -> None:
    """Aligned to the bias, sums need more than 32 bits; as they are formed, only the last case does."""
    random, b = np.random.default_rng(taps), GraphBuilder("bias")
    x = b.input("x", (taps,), Integer(bits), 0)
    low = -1 << (weight_bits - 1)
    values = np.stack([np.full(taps, low), np.full(taps, -low - 1), random.integers(low, -low, taps)])
    w = b.constant("w", values.T, Integer(weight_bits), 0)
    bias = b.constant("b", random.integers(-(1 << 23), 1 << 23, 3), Integer(24), -20)
    y = b.matmul("linear", x, w, bias)
    graph = b.finish([b.requant("y", y, Integer(8), bits + weight_bits - 5)])
    assert graph.tensors[y].format.width > 32
    assert [step.kernel for step in plan_program(graph).steps] == [kernel]
    inputs = random_inputs(graph, 6)
    inputs["x"][:2] = np.array([[-1 << (bits - 1)], [(1 << (bits - 1)) - 1]])
    assert differing(graph, inputs) == []


@needs_qemu
@pytest.mark.slow
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7"])
def test_a_residual_network_on_a_core(core: str) -> None:
    graph = resnet8_graph(side=16, channels=3)
    assert differing(graph, random_inputs(graph, 3), core=core) == []
