"""Patch plans against brute force: receptive fields, memory, the search; patches give the same codes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from finn_nets import Network

from qhw.errors import CheckFailedError, UnsupportedError
from qhw.graph import ir
from qhw.graph.builder import value_ranges
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.patch import best_plan, layer_by_layer, make_plan, plans, run_by_patches
from qhw.patch.plan import cuts, node_macs, patches_of, size_in_bytes, stored
from qhw.patch.regions import regions_of


def network(seed: int, image: tuple[int, ...] = (2, 12, 10)) -> ExactGraph:
    """An inverted residual or a residual block behind a strided stem, a pool, and a classifier."""
    n = Network(seed, image)
    b, rank = n.builder, len(image) - 1
    three, one = (3,) * rank, (1,) * rank
    x = n.act(
        "stem",
        n.norm("stem_n", n.conv("stem_c", n.last, 4, three, strides=(2,) * rank, pads=(1,) * 2 * rank)),
        8,
    )
    y = n.act("expand", n.conv("expand_c", x, 8, one), 4)
    if seed % 2:
        y = n.act("deep", n.conv("deep_c", y, 8, three, pads=(1,) * 2 * rank, groups=8), 6)
    else:
        y = n.act("deep", n.conv("deep_c", y, 8, three, pads=(2,) * 2 * rank, dilations=(2,) * rank), 6)
    y = n.act("back", n.conv("back_c", y, 4, one), 8, signed=True)
    x = n.act("join", b.add("sum", y, x), 8)
    if seed % 3 == 0:
        x = b.max_pool("pool", x, (2,) * rank, (2,) * rank)
    x = n.act("last", n.conv("last_c", x, 6, three, strides=(2,) * rank, pads=(0,) * rank + (1,) * rank), 8)
    return n.finish(n.matmul("fc", n.flat("flat", x), 5, bias=True))


def images(graph: ExactGraph, count: int = 3) -> dict[str, np.ndarray]:
    random, ranges = np.random.default_rng(0), value_ranges(graph)
    return {
        name: random.integers(*ranges[name].bounds, (count, *graph.tensors[name].shape), endpoint=True)
        for name in graph.inputs
    }


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("image", [(2, 12, 10), (3, 14)])
def test_patches_give_the_codes_of_layers(seed: int, image: tuple[int, ...]) -> None:
    graph = network(seed, image)
    inputs = images(graph)
    expected = interpret(graph, inputs)["fc"]
    tried = 0
    for cut in cuts(graph):
        sizes = graph.tensors[cut].shape[1:]
        for grid in itertools.product(*((1, 2, min(size, 3)) for size in sizes)):
            if max(g - s for g, s in zip(grid, sizes, strict=True)) <= 0:
                found = run_by_patches(graph, make_plan(graph, cut, grid), inputs)["fc"]
                assert np.array_equal(found, expected), (cut, grid)
                tried += 1
    assert tried >= 9


@pytest.mark.parametrize("seed", range(4))
def test_a_receptive_field_is_what_an_output_depends_on(seed: int) -> None:
    """Every pixel is changed in turn, in a network of sums alone: nothing outside of the field matters."""
    n = Network(seed, (1, 9, 8))
    x, b = n.last, n.builder
    for step, (stride, pad, dilation) in enumerate([(1, 1, 1), (2, 0, 1), (1, 2, 2)][: 2 + seed % 2]):
        ones = b.constant(f"w{step}", np.ones((1, 1, 3, 3), dtype=np.int64), None, 0)
        x = b.conv(f"c{step}", x, ones, strides=(stride,) * 2, pads=(pad,) * 4, dilations=(dilation,) * 2)
    graph = n.finish(x)
    base = np.zeros((1, 1, 9, 8), dtype=np.int64)
    changed = np.array(
        [
            interpret(graph, {"x": _one(base, row, column)})[x][0, 0] != 0
            for row in range(9)
            for column in range(8)
        ]
    ).reshape(9, 8, *graph.tensors[x].shape[1:])
    for patch in patches_of(graph, x, (2, 2)):
        rows, columns = (slice(*part) for part in patch)
        touched = changed[:, :, rows, columns].any(axis=(2, 3))
        field = tuple((int(where.min()), int(where.max()) + 1) for where in np.nonzero(touched))
        assert regions_of(graph, graph.nodes, x, patch)["x"] == field


def _one(base: np.ndarray, row: int, column: int) -> np.ndarray:
    changed = base.copy()
    changed[0, 0, row, column] = 1
    return changed


class Memory:
    """What is allocated while a network runs, written down step by step, without the planner's code."""

    def __init__(self, graph: ExactGraph) -> None:
        self.graph, self.bytes, self.peak = graph, dict[str, int](), 0

    def allocate(self, name: str, elements: int) -> None:
        bits = elements * self.graph.tensors[name].format.width
        self.bytes[name] = (bits + 7) // 8
        self.peak = max(self.peak, sum(self.bytes.values()))

    def run(self, steps: list[tuple[set[str], str, int]], keep: set[str]) -> None:
        for index, (_, writes, elements) in enumerate(steps):
            if writes not in self.bytes:
                self.allocate(writes, elements)
            later = set().union(*(reads for reads, _, _ in steps[index + 1 :]), keep)
            for name in [name for name in self.bytes if name not in later]:
                del self.bytes[name]


def steps_of(graph: ExactGraph, nodes: list[ir.Node]) -> list[tuple[set[str], str, list[str]]]:
    """Layers by hand: from one stored tensor to the next."""
    found, reads = [], dict[str, set[str]]()
    for node in nodes:
        mine = set().union(*(reads.get(name, {name}) for name in node.inputs if name not in graph.constants))
        reads[node.output] = mine
        if node.output in stored(graph):
            found.append((mine, node.output))
            reads[node.output] = {node.output}
    return found


def peak_by_hand(graph: ExactGraph, cut: str, grid: tuple[int, ...]) -> int:
    count = [node.output for node in graph.nodes].index(cut) + 1
    front, rest = graph.nodes[:count], graph.nodes[count:]
    memory = Memory(graph)
    memory.allocate("x", graph.tensors["x"].size)
    memory.allocate(cut, graph.tensors[cut].size)
    for patch in patches_of(graph, cut, grid):
        regions = regions_of(graph, front, cut, patch)
        sizes = {
            name: graph.tensors[name].shape[0] * int(np.prod([b - a for a, b in region]))
            for name, region in regions.items()
        }
        memory.run([(reads, name, sizes[name]) for reads, name in steps_of(graph, front)], {"x", cut})
    del memory.bytes["x"]
    memory.run([(reads, name, graph.tensors[name].size) for reads, name in steps_of(graph, rest)], {"fc"})
    return memory.peak


@pytest.mark.parametrize("seed", range(4))
def test_memory_is_what_is_allocated_step_by_step(seed: int) -> None:
    graph = network(seed)
    tried = 0
    for plan in plans(graph, 3):
        if plan.cut:
            assert plan.peak_bytes == peak_by_hand(graph, plan.cut, plan.grid), plan
            tried += 1
    assert tried > 10


def test_a_plan_for_every_memory_is_the_best_of_all() -> None:
    n = Network(1, (3, 16, 16))
    x = n.act("wide", n.conv("wide_c", n.last, 12, (3, 3), pads=(1,) * 4), 8)
    x = n.act("half", n.conv("half_c", x, 6, (3, 3), strides=(2, 2), pads=(1,) * 4), 8)
    x = n.act("less", n.conv("less_c", x, 6, (3, 3), strides=(2, 2), pads=(1,) * 4), 8)
    graph = n.finish(n.matmul("fc", n.flat("flat", x), 5))
    every = list(plans(graph, 4))
    assert layer_by_layer(graph) in every
    for limit in sorted({plan.peak_bytes for plan in every}):
        found = best_plan(graph, limit, 4)
        assert found.peak_bytes <= limit
        assert found.macs == min(plan.macs for plan in every if plan.peak_bytes <= limit)
    least = min(plan.peak_bytes for plan in every)
    assert least < layer_by_layer(graph).peak_bytes
    with pytest.raises(CheckFailedError, match=f"needs {least:,} bytes of SRAM at least .* 1 more than"):
        best_plan(graph, least - 1, 4)


def test_recomputation_is_what_neighbours_both_need() -> None:
    graph = network(1, (3, 16, 16))
    whole = make_plan(graph, "join", (1, 1))
    assert whole.macs == whole.layer_macs == sum(node_macs(graph, node) for node in graph.nodes)
    halves = make_plan(graph, "join", (2, 1))
    # A row of the 8 x 8 depthwise layer's input on either side of the cut through the middle: of 8 columns.
    channels, depth = graph.tensors["expand_c"].shape[0], graph.tensors["stem"].shape[0]
    stem = 2 * 8 * 4 * 3 * 9
    assert halves.macs - whole.macs == 2 * 8 * channels * depth + stem
    assert halves.recomputation == pytest.approx((halves.macs - whole.macs) / whole.macs)


def test_what_runs_by_patches_and_what_does_not() -> None:
    graph = network(3)
    assert "fc" not in cuts(graph)
    assert "expand" not in cuts(graph)  # the stem's result is read again behind it
    assert {"stem", "join", "pool", "last"} <= set(cuts(graph))
    with pytest.raises(UnsupportedError, match="cannot be cut at 'expand'"):
        make_plan(graph, "expand", (2, 2))
    with pytest.raises(UnsupportedError, match="which are not"):
        make_plan(graph, "join", (7, 2))


def test_codes_of_few_bits_are_packed() -> None:
    graph = network(0)
    assert size_in_bytes(graph, "expand") == graph.tensors["expand"].size // 2
    assert size_in_bytes(graph, "deep") == -(-graph.tensors["deep"].size * 6 // 8)
    assert size_in_bytes(graph, "expand", ((0, 3), (0, 1))) == 3 * 8 // 2
