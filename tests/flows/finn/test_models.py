"""What real networks bring, carried by FINN's layers: every tensor is the exact graph's after every step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qhw.boards import load_board
from qhw.flows.base import load_project_flow
from qhw.formats import Integer
from qhw.graph.builder import GraphBuilder, value_ranges
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

        flow = load_project_flow("finn")
        design = flow.prepare(graph, load_board("ultra96"))
        middle = {name: folds[len(folds) // 2] for name, folds in design.legal.items()}
        project = flow.write(design.folded(middle), tmp_path / "project")
        rows = [row for row, _ in flow.verify(project, graph, samples(graph), tell=lambda share, text: None)]
        assert [row["mismatches"] for row in rows] == [0, 0], rows
        assert rows[0]["distinct_codes"] > 1
        with finn():
            layers = [node.op_type for node in load_model(project.folder / DATAFLOW).graph.node]
        return Checked(layers, rows[0]["layers"])

    return checked


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
