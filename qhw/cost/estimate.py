"""A network's cost: its layers added up, and how images flow through them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qhw.boards import Board
from qhw.cost.hardware import Hardware, Multipliers
from qhw.cost.templates import Fold, Site, Template, template_of
from qhw.errors import InputError, closest
from qhw.graph.ir import ExactGraph, Node

ESTIMATED = ("lut", "ff", "dsp", "bram18", "uram")
"""The resources that the models speak about."""

LABEL = "calibrated against Yosys, total not validated against HLS"
"""What every total is called: the errors of its units are known, no whole design was synthesised."""


@dataclass(frozen=True)
class LayerCost:
    """What one node uses, and its cycles for one image, the streams that feed it included.

    Args:
        fold: reuse factor, or (PE, SIMD).
        cycles: from its first input to its last output when its inputs never wait.
        initiation_interval: cycles between two images.
        energy_nj: of one image, relative; see :mod:`qhw.cost.energy`.
        memory_bits: of weights, streams and line buffers.
    """

    node: str
    op: str
    fold: Fold
    lut: int
    ff: int
    dsp: int
    bram18: int
    uram: int
    cycles: int
    initiation_interval: int
    energy_nj: float
    memory_bits: int


@dataclass(frozen=True)
class Estimate:
    """The cost of a whole design on a board; ``label`` says what the figures are worth."""

    graph: str
    board: Board
    flow: str
    io_type: str
    clock_mhz: float
    layers: tuple[LayerCost, ...]
    latency_cycles: int
    initiation_interval: int
    folding: Mapping[str, Fold] = field(default_factory=dict)
    label: str = LABEL

    @property
    def totals(self) -> dict[str, int]:
        """Every resource, of all layers."""
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
    def binding(self) -> LayerCost:
        """The layer that the throughput waits for: the slowest, of equals the one that takes most LUT."""
        return max(self.layers, key=lambda layer: (layer.initiation_interval, layer.lut))

    @property
    def energy_uj(self) -> float:
        """Of one image, relative; see :mod:`qhw.cost.energy`."""
        return sum(layer.energy_nj for layer in self.layers) / 1e3

    @property
    def memory_bits(self) -> int:
        """Of all weights, streams and line buffers."""
        return sum(layer.memory_bits for layer in self.layers)

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
    folding: Mapping[str, Fold],
    *,
    flow: str = "hls4ml",
    io_type: str = "io_stream",
    clock_mhz: float | None = None,
    multipliers: Multipliers = "auto",
) -> Estimate:
    """What a graph costs on a board with that folding, by the calibrated models of its units.

    Args:
        folding: by node name, reuse factors (hls4ml) or (PE, SIMD) (FINN); nodes that are left out are not
            folded (hls4ml), or folded altogether (FINN).
        clock_mhz: the board's target clock unless given.
        multipliers: what multiplies integers.

    Raises:
        UnsupportedError: for an operation that has no cost model, by its node.
        InputError: a family without a model, or a folding that is none.
    """
    costing = Costing.of(graph, board.family, flow, io_type, multipliers)
    costing.check_folding(folding)
    layers = tuple(
        costing.layers(node, [folding.get(node.name, costing.template.unfolded)])[0] for node in graph.nodes
    )
    latency, interval = timing(graph, {layer.node: layer for layer in layers})
    clock = clock_mhz or board.clock_mhz
    return Estimate(graph.name, board, flow, io_type, clock, layers, latency, interval, dict(folding))


@dataclass(frozen=True)
class Costing:
    """A graph in a flow's architecture, on a family of devices: prices its nodes at any folding.

    Args:
        proven: accumulators have the width that the weights prove; else what the formats alone bound, which
            holds before anything is trained.
    """

    graph: ExactGraph
    template: Template
    streamed: bool
    hardware: Hardware
    proven: bool = True

    @classmethod
    def of(
        cls,
        graph: ExactGraph,
        family: str,
        flow: str = "hls4ml",
        io_type: str = "io_stream",
        multipliers: Multipliers = "auto",
        proven: bool = True,
    ) -> Costing:
        """By names.

        Raises:
            InputError: a flow, interface or choice of multipliers that is none, a family without a model.
        """
        template = template_of(flow)
        if io_type not in template.io_types:
            allowed = template.io_types
            raise InputError(
                f"There is no io_type {io_type!r}", allowed=", ".join(allowed), hint=closest(io_type, allowed)
            )
        return cls(graph, template, io_type == "io_stream", Hardware.of(family, multipliers), proven)

    def layers(self, node: Node, folds: Sequence[Fold]) -> list[LayerCost]:
        """One node's cost at several foldings, evaluated at once."""
        site = Site(self.graph, node, self.streamed, self.hardware, self.proven)
        layer = self.template.layer(site, folds)
        count = len(folds)
        columns = [np.broadcast_to(getattr(layer.usage, name), count) for name in ESTIMATED]
        # A thousandth keeps sums of fitted weights that are whole from being rounded up.
        amounts = np.ceil(np.stack(columns) - 1e-3).astype(np.int64).T
        intervals = np.maximum(1, np.ceil(np.broadcast_to(layer.cycles, count))).astype(np.int64)
        fills = np.rint(np.broadcast_to(layer.fill, count)).astype(np.int64)
        memories = np.rint(np.broadcast_to(layer.memory_bits, count)).astype(np.int64)
        energy = round(self.template.energy_pj(site) / 1e3, 6)
        return [
            LayerCost(
                node.name,
                node.op,
                fold,
                **dict(zip(ESTIMATED, map(int, row), strict=True)),
                cycles=int(interval + fill),
                initiation_interval=int(interval),
                energy_nj=energy,
                memory_bits=int(memory),
            )
            for fold, row, interval, fill, memory in zip(
                folds, amounts, intervals, fills, memories, strict=True
            )
        ]

    def check_folding(self, folding: Mapping[str, Fold]) -> None:
        """Refuse nodes that the graph does not have, and foldings that are none."""
        nodes = {node.name: node for node in self.graph.nodes}
        for name, fold in folding.items():
            if name not in nodes:
                raise InputError(
                    f"The folding names a node {name!r}, which is not there", hint=closest(name, nodes)
                )
            self.template.check_fold(nodes[name], fold)


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


def _share(used: int, there: int) -> float:
    if there:
        return used / there
    return math.inf if used else 0.0
