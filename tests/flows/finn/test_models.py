"""What real networks bring, carried by FINN's layers: every tensor is the exact graph's after every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qhw.boards import load_board
from qhw.flows.base import default_vectors, load_project_flow
from qhw.flows.finn.host import Host
from qhw.flows.finn.prepare import prepared
from qhw.formats import Integer
from qhw.graph.builder import GraphBuilder, value_ranges
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph

pytest.importorskip("finn")

SAMPLES = 8


@dataclasses.dataclass(frozen=True)
class Checked:
    """A project: FINN's layers by name, in order, and the codes that were compared."""

    layers: list[str]
    tensors: int


Check = Callable[[ExactGraph], Checked]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """Writes a graph as a project, and compares every step of it with the exact graph."""

    def checked(graph: ExactGraph) -> Checked:
        from qhw.flows.finn.project import DATAFLOW, load_model
        from qhw.flows.finn.tools import finn

        flow = load_project_flow("finn", sources="generated")
        design = flow.prepare(graph, load_board("ultra96"))
        middle = {name: folds[len(folds) // 2] for name, folds in design.legal.items()}
        project = flow.write(design.folded(middle), tmp_path / "project")
        row, _ = next(iter(flow.verify(project, graph, samples(graph), tell=lambda share, text: None)))
        assert row["mismatches"] == 0, row
        assert row["distinct_codes"] > 1
        check_host(project.folder, graph)
        with finn():
            layers = [node.op_type for node in load_model(project.folder / DATAFLOW).graph.node]
        return Checked(layers, row["layers"])

    return checked


def check_host(folder: Path, graph: ExactGraph) -> None:
    """The script for the board gives the project's own inputs, and the graph's output of the stream's."""
    board = Host(folder / "driver")
    vectors = {name: np.load(folder / "vectors" / f"{name}.npy") for name in ("input", "expected_output")}
    ((name, given),) = default_vectors(graph).items()
    assert np.array_equal(board.encode(given), vectors["input"])
    expected = interpret(graph, {name: given})[graph.outputs[0]]
    assert np.array_equal(board.mantissas(vectors["expected_output"]), expected)


def samples(graph: ExactGraph, count: int = SAMPLES) -> dict[str, np.ndarray]:
    """Random mantissas over the whole range of every input."""
    random, ranges = np.random.default_rng(0), value_ranges(graph)
    shapes = {name: graph.tensors[name].shape for name in graph.inputs}
    return {
        name: random.integers(*ranges[name].bounds, (count, *shape), endpoint=True)
        for name, shape in shapes.items()
    }


class Net:
    """A GraphBuilder with small random layers."""

    def __init__(self, shape: tuple[int, ...], format: Integer | None = None, seed: int = 0) -> None:
        self.build = GraphBuilder("net")
        self.random = np.random.default_rng(seed)
        self.x = self.build.input("x", shape, format or Integer(4, False))

    def weights(self, *shape: int) -> str:
        values = self.random.integers(-3, 4, shape)
        return self.build.constant(self.build.unique("weights"), values, Integer(3))

    def conv(self, x: str, filters: int, kernel: int = 3, **given: Any) -> str:
        shape = self.build.type(x).shape
        pads = given.pop("pads", (kernel // 2,) * (2 * (len(shape) - 1)))
        weights = self.weights(filters, shape[0], *(kernel,) * (len(shape) - 1))
        return self.build.conv(self.build.unique("conv"), x, weights, pads=pads, **given)

    def act(self, x: str, bits: int = 4, signed: bool = False, drop: int = 3) -> str:
        exponent = self.build.type(x).exponent.values[0] + drop
        return self.build.requant(self.build.unique("act"), x, Integer(bits, signed), exponent)

    def finish(self, x: str) -> ExactGraph:
        return self.build.finish([x])


def test_an_image_with_its_channels_last_is_streamed_as_it_comes(check: Check) -> None:
    net = Net((6, 5, 3))
    x = net.build.transpose("first", net.x, (2, 0, 1))
    x = net.act(net.conv(x, 4))
    x = net.build.transpose("back", x, (1, 2, 0))
    found = check(net.finish(net.act(net.conv(net.build.transpose("again", x, (2, 0, 1)), 2))))
    assert not [layer for layer in found.layers if "Shuffle" in layer or "Transpose" in layer]


def test_a_transposed_sequence_is_streamed_as_it_comes(check: Check) -> None:
    net = Net((9, 3))
    check(net.finish(net.act(net.conv(net.build.transpose("permute", net.x, (1, 0)), 4))))


def test_an_image_is_flattened_with_its_channels_last(check: Check) -> None:
    net = Net((3, 4, 4))
    x = net.build.transpose("back", net.act(net.conv(net.x, 4)), (1, 2, 0))
    x = net.build.matmul("classify", net.build.reshape("flat", x, (64,)), net.weights(64, 5))
    check(net.finish(net.act(x)))


def test_a_matrix_is_multiplied_along_the_channel_of_every_pixel(check: Check) -> None:
    net = Net((4, 3, 3))
    x = net.act(net.conv(net.x, 6))
    rows = net.build.transpose("rows", net.build.reshape("flat", x, (6, 9)), (1, 0))
    mixed = net.act(net.build.matmul("mix", rows, net.weights(6, 4)))
    x = net.build.reshape("image", net.build.transpose("columns", mixed, (1, 0)), (4, 3, 3))
    check(net.finish(net.act(net.conv(x, 2))))


def test_wide_results_of_thresholds_are_the_hosts(check: Check) -> None:
    net = Net((16,))
    x = net.build.matmul("hidden", net.x, net.weights(16, 5))
    low, high = value_ranges(net.build.graph)[x].bounds
    steps = np.arange(low, high)[None, :]
    levels = (np.arange(low, high + 1) * 101)[None, :]
    constants = (
        net.build.constant(name, values, Integer(16)) for name, values in (("t", steps), ("v", levels))
    )
    graph = net.finish(net.build.threshold("wide", x, *constants, Integer(16)))
    assert check(graph).layers[-1].startswith("MVAU")


def test_pixels_of_channels_are_the_hosts(check: Check) -> None:
    """A pixel shuffle at the end: its axes are only moved."""
    net = Net((2, 4, 4))
    x = net.build.reshape("apart", net.act(net.conv(net.x, 8)), (2, 2, 2, 4, 4))
    x = net.build.transpose("between", x, (0, 3, 1, 4, 2))
    check(net.finish(net.build.reshape("together", x, (2, 8, 8))))


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("factors", [(2, 2), (3, 1)])
def test_an_image_is_made_larger(check: Check, factors: tuple[int, int], zeros: bool) -> None:
    net = Net((2, 4, 5))
    x = net.build.upsample("up", net.act(net.conv(net.x, 6)), factors, zeros)
    found = check(net.finish(net.act(net.conv(x, 3))))
    assert ("FMPadding_Pixel_hls" if zeros else "UpsampleNearestNeighbour_hls") in found.layers


def test_a_sequence_is_made_longer(check: Check) -> None:
    net = Net((2, 7))
    x = net.build.upsample("up", net.act(net.conv(net.x, 6)), (2,), True)
    check(net.finish(net.act(net.conv(x, 3))))


def test_channels_are_shuffled(check: Check) -> None:
    net = Net((3, 4, 5))
    x = net.build.reshape("groups", net.act(net.conv(net.x, 6)), (2, 3, 4, 5))
    x = net.build.reshape("mixed", net.build.transpose("swap", x, (1, 0, 2, 3)), (6, 4, 5))
    found = check(net.finish(net.act(net.conv(x, 3))))
    assert found.layers.count("InnerShuffle_rtl") == 1


def test_tokens_are_mixed(check: Check) -> None:
    """As MLP-Mixer does: along the pixels, then along the channels."""
    net = Net((3, 4, 2))
    x = net.build.reshape("tokens", net.act(net.conv(net.x, 6)), (6, 8))
    x = net.act(net.build.matmul("along_tokens", x, net.weights(8, 5)))
    x = net.build.transpose("turned", x, (1, 0))
    x = net.act(net.build.matmul("along_channels", x, net.weights(6, 4)))
    found = check(net.finish(x))
    assert "InnerShuffle_rtl" in found.layers


def test_pixels_are_cut_off(check: Check) -> None:
    net = Net((2, 6, 7))
    x = net.build.slice("rows", net.act(net.conv(net.x, 4)), 1, 1, 5, 1)
    x = net.build.slice("columns", x, 2, 0, 5, 1)
    found = check(net.finish(net.act(net.conv(x, 3))))
    assert found.layers.count("Crop_rtl") + found.layers.count("Crop_hls") == 2


def test_a_causal_convolution_is_cut_off_behind(check: Check) -> None:
    net = Net((2, 9))
    x = net.conv(net.x, 4, dilations=(2,), pads=(4, 4))
    check(net.finish(net.act(net.build.slice("chomp", x, 1, 0, 9, 1))))


@pytest.mark.parametrize("drop", [0, 3])
def test_signed_numbers_are_pooled_within_padding(check: Check, drop: int) -> None:
    """Padding never wins, also where all numbers of a window are negative."""
    net = Net((2, 5, 5))
    x = net.act(net.conv(net.x, 4), bits=6, signed=True)
    weights = net.build.constant("negative", np.full((4, 4, 1, 1), -1), Integer(3))
    x = net.build.conv("below_zero", net.build.requant("relu", x, Integer(5, False), 3), weights)
    x = net.build.max_pool("pool", x, (3, 3), (2, 2), (1, 1, 1, 1))
    check(net.finish(net.act(x, bits=4, signed=True, drop=drop)))


@pytest.mark.parametrize("by_channel", [False, True])
def test_a_function_that_rises_and_falls_is_the_difference_of_two_counts(
    check: Check, by_channel: bool
) -> None:
    """GELU's shape, and one of its own for each channel."""
    net = Net((2, 4, 4))
    x = net.act(net.conv(net.x, 3), bits=5, signed=True)
    codes = np.arange(-16, 16)
    gelu = np.rint(codes / (1 + np.exp(-codes / 3.0))).astype(np.int64)
    wave = np.rint(7 * np.sin(codes / 4.0)).astype(np.int64)
    table = np.stack([gelu, wave, -wave]) if by_channel else np.abs(wave)[None, :]
    constant = net.build.constant("function", table, Integer(6))
    x = net.build.table("table", x, constant, -16, Integer(6))
    found = check(net.finish(net.act(net.conv(x, 2))))
    assert "ElementwiseSub_hls" in found.layers


def test_a_leaky_relu_is_one_threshold(check: Check) -> None:
    """Its branches are added in front of the rounding: one with a rising slope, one with a falling one."""
    net = Net((2, 4, 4))
    for slope in (16, -24):
        x = net.conv(net.x, 3)
        positive = net.build.requant("positive", x, Integer(10, False), 0)
        gains = [net.build.constant("gain", np.array(gain), Integer(9), -7) for gain in (slope, 128 - slope)]
        scaled = net.build.affine("slope", x, gains[0]), net.build.affine("rest", positive, gains[1])
        graph = net.finish(net.act(net.build.add("leaky", *scaled), signed=True, drop=9))
        rising = slope > 0
        assert ("Threshold" in {node.op for node in prepared(graph).nodes}) == rising
        if rising:
            assert "ElementwiseAdd_hls" not in check(graph).layers
        net = Net((2, 4, 4))


def test_rounding_comes_before_a_pixel_shuffle(check: Check) -> None:
    net = Net((2, 4, 4))
    x = net.build.reshape("apart", net.conv(net.x, 8), (2, 2, 2, 4, 4))
    x = net.build.transpose("between", x, (0, 3, 1, 4, 2))
    check(net.finish(net.act(net.build.reshape("together", x, (2, 8, 8)))))


def test_constants_differ_along_the_axis_that_is_multiplied(check: Check) -> None:
    """A linear layer's bias on every row of a matrix, as a one-dimensional CNN ends with it."""
    net = Net((3, 4))
    rows = net.build.transpose("rows", net.act(net.conv(net.x, 6)), (1, 0))
    bias = net.build.constant("bias", np.arange(-2, 3), Integer(4))
    x = net.build.add("fc", net.build.matmul("mix", rows, net.weights(6, 5)), bias)
    check(net.finish(net.act(x, signed=True)))


def test_thresholds_of_each_row_are_of_each_channel(check: Check) -> None:
    """Behind a product along the other axis: the matrix is shuffled for them."""
    net = Net((5, 4))
    x = net.act(net.build.matmul("mix", net.x, net.weights(4, 6)), signed=True)
    thresholds = net.build.constant("t", np.arange(-2, 3)[:, None] + np.array([[0, 2]]), Integer(5))
    levels = net.build.constant("v", np.array([[0, 1, 2]]), Integer(2, False))
    check(net.finish(net.build.threshold("rows", x, thresholds, levels, Integer(2, False))))


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("largest", [False, True])
def test_tokens_are_pooled_along_the_other_axis(check: Check, largest: bool, keepdims: bool) -> None:
    """(tokens, features), as a mixer ends with them: features travel as channels."""
    net = Net((5, 4))
    x = net.act(net.build.matmul("mix", net.x, net.weights(4, 6)), signed=True)
    pool = net.build.reduce_max if largest else net.build.reduce_sum
    x = net.build.reshape("flat", pool("pool", x, (0,), keepdims), (6,))
    check(net.finish(net.act(net.build.matmul("classify", x, net.weights(6, 3)), drop=4)))


def test_matrix_units_of_both_variants_keep_their_own_foldings(check: Check) -> None:
    """Products in LUTs are FINN's HLS unit, others its RTL one: the files number layers as FINN does."""
    net = Net((9,))
    wide = net.build.constant("wide_weights", net.random.integers(-128, 128, (9, 5)), Integer(8))
    x = net.act(net.build.matmul("first", net.x, net.weights(9, 9)), bits=8, drop=0)
    x = net.act(net.build.matmul("wide", x, wide), drop=9)
    found = check(net.finish(net.act(net.build.matmul("last", x, net.weights(5, 3)), drop=2)))
    assert [layer for layer in found.layers if "MVAU" in layer] == ["MVAU_hls", "MVAU_rtl", "MVAU_hls"]
