"""Patch plans: how many layers run per patch, on how many patches, in how much memory, at what recomputation.

Layers up to one tensor, the **cut**, run patch by patch; the rest runs layer by layer. A patch computes its
part of the cut from its receptive field, so what neighbouring patches both need is computed twice. Memory
holds the network's input, the whole cut, and the parts of the tensors in between that a patch has at a time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from qhw.errors import CheckFailedError, UnsupportedError
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node
from qhw.patch.regions import ELEMENTWISE, Region, regions_of, runs_by_patches

MOST_PATCHES = 16
"""Patches along an axis that a search tries at most."""


@dataclass(frozen=True)
class PatchPlan:
    """How a network runs.

    Args:
        cut: the tensor up to which layers run patch by patch; "" where all run layer by layer.
        grid: patches along each spatial axis of the cut.
        peak_bytes: the most memory that is in use at a time, weights left out: of feature maps, or, where
            :func:`plans` was given another footprint, of what that counts.
        macs: multiply-accumulates of one inference, recomputation included.
        layer_macs: those of the same network, layer by layer.
    """

    cut: str
    grid: tuple[int, ...]
    peak_bytes: int
    macs: int
    layer_macs: int

    @property
    def patches(self) -> int:
        """How many patches there are."""
        return math.prod(self.grid) if self.cut else 1

    @property
    def recomputation(self) -> float:
        """The share of multiply-accumulates that is added to those of the network."""
        return self.macs / self.layer_macs - 1 if self.layer_macs else 0.0


def stored(graph: ExactGraph) -> set[str]:
    """The tensors that lie in memory; the others are sums that the next operation rounds at once.

    A result that is read once, by an operation that works element by element, is such a sum.
    """
    found = set(graph.inputs)
    for node in graph.nodes:
        readers = graph.consumers(node.output)
        is_sum = (
            len(readers) == 1 and isinstance(readers[0], ELEMENTWISE) and node.output not in graph.outputs
        )
        if not is_sum and not isinstance(node, ir.Reshape):
            found.add(node.output)
    return found


def elements_of(graph: ExactGraph, tensor: str, region: Region | None = None) -> int:
    """How many codes a tensor has, or a region of it."""
    kind = graph.tensors[tensor]
    return kind.size if region is None else kind.shape[0] * math.prod(b - a for a, b in region)


def packed_bytes(elements: int, bits: int) -> int:
    """Bytes of so many codes; those of less than 8 bits are packed."""
    return -(-elements * bits // 8)


def size_in_bytes(graph: ExactGraph, tensor: str, region: Region | None = None) -> int:
    """Bytes of a tensor, or of a region of it; codes of less than 8 bits are packed."""
    return packed_bytes(elements_of(graph, tensor, region), graph.tensors[tensor].format.width)


def node_macs(graph: ExactGraph, node: Node, region: Region | None = None) -> int:
    """Multiply-accumulates of a node, or of a region of its output."""
    if not isinstance(node, ir.Conv | ir.MatMul):
        return 0
    weight = graph.tensors[node.inputs[1]]
    elements = elements_of(graph, node.output, region)
    depth = math.prod(weight.shape[1:]) if isinstance(node, ir.Conv) else weight.shape[-2]
    return elements * depth


Footprint: TypeAlias = "Callable[[ExactGraph, PatchPlan], int | None]"
"""Bytes of SRAM that a graph takes when it runs by a plan; None where it cannot.

A flow says here what its firmware takes: scratch memory, the output, rounding to whole words.
"""


def cuts(graph: ExactGraph) -> dict[str, int]:
    """The tensors that a network can be cut at, and how many nodes lead to each.

    Everything behind such a tensor reads it alone of what is in front of it, and everything in front of it
    runs by patches.
    """
    in_memory, found = stored(graph), dict[str, int]()
    for count, node in enumerate(graph.nodes, 1):
        if not runs_by_patches(graph, node):
            break
        front = {*graph.inputs, *(earlier.output for earlier in graph.nodes[:count])}
        read = {name for later in graph.nodes[count:] for name in later.inputs if name in front}
        leaves = {name for name in graph.outputs if name in front}
        if node.output in in_memory and read | leaves <= {node.output}:
            found[node.output] = count
    return found


def tiles(size: int, count: int) -> list[tuple[int, int]]:
    """An axis in ``count`` parts whose lengths differ by one at most."""
    edges = [index * size // count for index in range(count + 1)]
    return list(itertools.pairwise(edges))


def patches_of(graph: ExactGraph, cut: str, grid: Sequence[int]) -> list[Region]:
    """The regions of the cut, patch by patch."""
    axes = [tiles(size, count) for size, count in zip(graph.tensors[cut].shape[1:], grid, strict=True)]
    if len(axes) == 1:
        return [(part,) for part in axes[0]]
    return [(rows, columns) for rows in axes[0] for columns in axes[1]]


def make_plan(graph: ExactGraph, cut: str, grid: Sequence[int]) -> PatchPlan:
    """The plan with this cut and these patches, with its memory and recomputation.

    Raises:
        UnsupportedError: the network cannot be cut there, or the cut not into as many patches.
    """
    counts = cuts(graph)
    if cut not in counts:
        raise UnsupportedError(f"The network cannot be cut at '{cut}'", allowed=", ".join(counts) or None)
    sizes = graph.tensors[cut].shape[1:]
    if len(grid) != len(sizes) or any(not 1 <= n <= size for n, size in zip(grid, sizes, strict=False)):
        raise UnsupportedError(f"'{cut}' has {sizes} pixels, which are not {tuple(grid)} patches")
    front = graph.nodes[: counts[cut]]
    macs = sum(node_macs(graph, node) for node in graph.nodes[counts[cut] :])
    for patch in patches_of(graph, cut, grid):
        regions = regions_of(graph, front, cut, patch)
        macs += sum(node_macs(graph, node, regions[node.output]) for node in front if node.output in regions)
    peak = peak_bytes(graph, live_sets(graph, cut, grid))
    return PatchPlan(cut, tuple(grid), peak, macs, sum(node_macs(graph, node) for node in graph.nodes))


def layer_by_layer(graph: ExactGraph) -> PatchPlan:
    """The plan without patches."""
    macs = sum(node_macs(graph, node) for node in graph.nodes)
    return PatchPlan("", (), peak_bytes(graph, live_sets(graph, "", ())), macs, macs)


@dataclass(frozen=True)
class Held:
    """A tensor, or the part of it that a patch has, in memory.

    Args:
        tensor: its name in the graph without patches.
        patch: the number of the patch; None where the whole tensor is there.
        elements: how many codes it has.
    """

    tensor: str
    patch: int | None
    elements: int


LiveSet: TypeAlias = frozenset[Held]
"""What is in memory at one time."""

Bits: TypeAlias = Callable[[str, int | None], int]
"""The width of a tensor's codes in a patch, or (None) of the whole tensor."""


def live_sets(graph: ExactGraph, cut: str, grid: Sequence[int]) -> list[LiveSet]:
    """What a plan has in memory, step by step; equal sets once."""
    count = cuts(graph)[cut] if cut else 0
    front, rest = graph.nodes[:count], graph.nodes[count:]

    def whole(name: str) -> Held:
        return Held(name, None, graph.tensors[name].size)

    steps, sources = _steps(graph, rest)
    kept = set().union(*(sources.get(name, {name}) for name in graph.outputs))
    found = [
        frozenset(map(whole, names)) for names in _live(steps, {cut} if cut else set(graph.inputs), kept)
    ]
    beside = {*graph.inputs, cut}
    for patch, region in enumerate(patches_of(graph, cut, grid) if cut else ()):
        regions = regions_of(graph, front, cut, region)
        steps, _ = _steps(graph, [node for node in front if node.output in regions])
        for names in _live(steps, set(), set()):
            parts = {Held(name, patch, elements_of(graph, name, regions[name])) for name in names - beside}
            found.append(frozenset({*map(whole, beside), *parts}))
    return list(dict.fromkeys(found))


def peak_bytes(graph: ExactGraph, sets: Sequence[LiveSet], bits: Bits | None = None) -> int:
    """The most memory that any of the sets takes; codes of less than 8 bits are packed, tensor by tensor.

    Args:
        bits: the width of each tensor's codes; left out, that of the graph's own formats.
    """

    def size(held: Held) -> int:
        width = graph.tensors[held.tensor].format.width if bits is None else bits(held.tensor, held.patch)
        return packed_bytes(held.elements, width)

    return max(sum(map(size, held)) for held in sets)


@dataclass(frozen=True)
class _Step:
    """A layer with what it does to its sums before they are stored: what it reads and writes in memory."""

    reads: frozenset[str]
    writes: str


def _steps(graph: ExactGraph, nodes: Sequence[Node]) -> tuple[list[_Step], dict[str, frozenset[str]]]:
    """The steps of some nodes, in order; and the tensors in memory that each tensor is read from."""
    in_memory = stored(graph)
    sources: dict[str, frozenset[str]] = {}
    steps = []
    for node in nodes:
        reads = frozenset[str]().union(
            *(sources.get(name, frozenset({name})) for name in graph.activations(node))
        )
        if node.output in in_memory:
            steps.append(_Step(reads, node.output))
        sources[node.output] = frozenset({node.output}) if node.output in in_memory else reads
    return steps, sources


def _live(steps: Sequence[_Step], live: set[str], kept: set[str]) -> list[set[str]]:
    """The tensors in memory at each step; a tensor lives from its step to the last one that reads it."""
    last = {name: index for index, step in enumerate(steps) for name in step.reads}
    found, live = [set(live)], set(live)
    for index, step in enumerate(steps):
        live.add(step.writes)
        found.append(set(live))
        live = {name for name in live if name in kept or last.get(name, -1) > index}
    return found


def plans(
    graph: ExactGraph, most_patches: int = MOST_PATCHES, footprint: Footprint | None = None
) -> Iterator[PatchPlan]:
    """Every plan: layer by layer, and each cut with each grid of up to ``most_patches`` along an axis.

    Args:
        footprint: what the plans' ``peak_bytes`` count; left out, feature maps alone. Plans that cannot run
            by it are left out.
    """
    for plan in _every_plan(graph, most_patches):
        if footprint is None:
            yield plan
        elif (peak := footprint(graph, plan)) is not None:
            yield replace(plan, peak_bytes=peak)


def _every_plan(graph: ExactGraph, most_patches: int) -> Iterator[PatchPlan]:
    yield layer_by_layer(graph)
    for cut in cuts(graph):
        sizes = graph.tensors[cut].shape[1:]
        grids: list[tuple[int, ...]] = [()]
        for size in sizes:
            grids = [(*grid, n) for grid in grids for n in range(1, min(size, most_patches) + 1)]
        for grid in grids:
            if math.prod(grid) > 1:
                yield make_plan(graph, cut, grid)


def best_plan(
    graph: ExactGraph,
    sram_bytes: int,
    most_patches: int = MOST_PATCHES,
    footprint: Footprint | None = None,
) -> PatchPlan:
    """The plan with the fewest multiply-accumulates that keeps to a memory; of several, the least peak.

    Every plan is tried, so the answer is exact. ``footprint`` is as for :func:`plans`.

    Raises:
        CheckFailedError: none does; tells the least that any needs.
    """
    every = list(plans(graph, most_patches, footprint))
    fitting = [plan for plan in every if plan.peak_bytes <= sram_bytes]
    if not fitting:
        least = min(every, key=lambda plan: (plan.peak_bytes, plan.macs))
        how = (
            f"with '{least.cut}' in {' x '.join(map(str, least.grid))} patches"
            if least.cut
            else "layer by layer"
        )
        raise CheckFailedError(
            f"{graph.name} needs {least.peak_bytes:,} bytes of SRAM at least ({how}), "
            f"{least.peak_bytes - sram_bytes:,} more than the {sram_bytes:,} that it may use",
            hint="use fewer bits, a smaller input, or a larger microcontroller",
        )
    return min(fitting, key=lambda plan: (plan.macs, plan.peak_bytes, plan.patches))


def front_of(graph: ExactGraph, plan: PatchPlan) -> tuple[list[Node], list[Node]]:
    """The nodes that run patch by patch, and those that run layer by layer behind them."""
    count = cuts(graph)[plan.cut] if plan.cut else 0
    return graph.nodes[:count], graph.nodes[count:]
