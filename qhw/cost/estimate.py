"""A network's cost: its layers added up, and how images flow through them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qhw.boards import Board
from qhw.cost.layers import IO_TYPES, layer_usage
from qhw.errors import InputError, closest
from qhw.graph.ir import ExactGraph, Node

ESTIMATED = ("lut", "ff", "dsp", "bram18")
"""The resources that the models speak about; UltraRAM is not used."""

LABEL = "uncalibrated"
"""What every figure here is called: published formulas, not checked against synthesis."""


@dataclass(frozen=True)
class LayerCost:
    """What one node uses, and its cycles for one image, the streams that feed it included.

    ``initiation_interval`` is the cycles between two images; ``cycles`` from its first input to its last
    output when its inputs never wait.
    """

    node: str
    op: str
    reuse_factor: int
    lut: int
    ff: int
    dsp: int
    bram18: int
    cycles: int
    initiation_interval: int


@dataclass(frozen=True)
class Estimate:
    """The cost of a whole design on a board; ``label`` says what the figures are worth."""

    graph: str
    board: Board
    io_type: str
    clock_mhz: float
    layers: tuple[LayerCost, ...]
    latency_cycles: int
    initiation_interval: int
    folding: Mapping[str, int] = field(default_factory=dict)
    label: str = LABEL

    @property
    def totals(self) -> dict[str, int]:
        """LUT, FF, DSP and BRAM18 of all layers."""
        return {name: sum(getattr(layer, name) for layer in self.layers) for name in ESTIMATED}

    @property
    def utilisation(self) -> dict[str, float]:
        """Totals over what the board has; 1 is full, infinite where it has none of what is needed."""
        return {name: _share(used, self.board.resources[name]) for name, used in self.totals.items()}

    @property
    def fits(self) -> bool:
        """Whether no resource is used beyond what the board has."""
        return max(self.utilisation.values()) <= 1

    @property
    def latency_us(self) -> float:
        """From an image's first pixel to its last output."""
        return self.latency_cycles / self.clock_mhz

    @property
    def throughput_fps(self) -> float:
        """Images per second."""
        return self.clock_mhz * 1e6 / self.initiation_interval


def estimate(
    graph: ExactGraph,
    board: Board,
    folding: Mapping[str, int],
    *,
    io_type: str = "io_stream",
    clock_mhz: float | None = None,
) -> Estimate:
    """What a graph costs on a board with that folding, by published formulas.

    Args:
        folding: reuse factor by node name; nodes that are left out are not folded (1).
        clock_mhz: the board's target clock unless given.

    Raises:
        UnsupportedError: for an operation that has no cost model, by its node.
    """
    check_folding(graph, folding)
    check_io_type(io_type)
    layers = tuple(
        layer_costs(graph, node, [folding.get(node.name, 1)], io_type, board.family)[0]
        for node in graph.nodes
    )
    latency, interval = timing(graph, {layer.node: layer for layer in layers})
    return Estimate(
        graph.name, board, io_type, clock_mhz or board.clock_mhz, layers, latency, interval, dict(folding)
    )


def layer_costs(
    graph: ExactGraph, node: Node, reuse: Sequence[int], io_type: str, family: str
) -> list[LayerCost]:
    """One node's cost at several reuse factors, evaluated at once."""
    layer = layer_usage(graph, node, np.asarray(reuse), io_type, family)
    columns = [np.broadcast_to(getattr(layer.usage, name), len(reuse)) for name in ESTIMATED]
    amounts = np.ceil(np.stack(columns)).astype(np.int64).T
    intervals = np.maximum(1, np.rint(np.broadcast_to(layer.cycles, len(reuse)))).astype(np.int64)
    fills = np.rint(np.broadcast_to(layer.fill, len(reuse))).astype(np.int64)
    return [
        LayerCost(
            node.name,
            node.op,
            int(factor),
            **dict(zip(ESTIMATED, map(int, row), strict=True)),
            cycles=int(interval + fill),
            initiation_interval=int(interval),
        )
        for factor, row, interval, fill in zip(reuse, amounts, intervals, fills, strict=True)
    ]


def timing(graph: ExactGraph, layers: Mapping[str, LayerCost]) -> tuple[int, int]:
    """Cycles until the last output, and between two images: every layer works while its inputs arrive."""
    begin: dict[str, int] = {}
    end: dict[str, int] = {}
    for node in graph.nodes:
        layer = layers[node.name]
        fill = layer.cycles - layer.initiation_interval
        began = max((begin.get(name, 0) for name in node.inputs), default=0)
        fed = max((end.get(name, 0) for name in node.inputs), default=0)
        begin[node.output] = began + fill
        end[node.output] = max(began + layer.cycles, fed + fill)
    latency = max((end.get(name, 0) for name in graph.outputs), default=0)
    return latency, max((layer.initiation_interval for layer in layers.values()), default=1)


def check_folding(graph: ExactGraph, folding: Mapping[str, int]) -> None:
    """Refuse nodes that the graph does not have, and reuse factors below 1."""
    names = [node.name for node in graph.nodes]
    for name, reuse in folding.items():
        if name not in names:
            raise InputError(
                f"The folding names a node {name!r}, which is not there", hint=closest(name, names)
            )
        if isinstance(reuse, bool) or not isinstance(reuse, int | np.integer) or reuse < 1:
            raise InputError(f"Reuse factor of {name!r} must be a positive whole number, not {reuse!r}")


def check_io_type(io_type: str) -> None:
    """Refuse what is not an interface type of hls4ml."""
    if io_type not in IO_TYPES:
        raise InputError(
            f"There is no io_type {io_type!r}", allowed=", ".join(IO_TYPES), hint=closest(io_type, IO_TYPES)
        )


def _share(used: int, there: int) -> float:
    if there:
        return used / there
    return math.inf if used else 0.0
