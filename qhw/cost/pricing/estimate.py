"""A design's cost: its layers added up, and how images flow through them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qhw.boards import Board
from qhw.cost.pricing.architecture import Fold, LayerCost
from qhw.cost.pricing.costing import ESTIMATED
from qhw.cost.pricing.design import Design

LABEL = "calibrated against Yosys, total not validated against HLS"
"""The label of every total: the errors of its units are known, no whole design was synthesised."""


@dataclass(frozen=True)
class Estimate:
    """The cost of a whole design on its board; ``label`` says what the figures are worth."""

    design: Design
    layers: tuple[LayerCost, ...]
    latency_cycles: int
    initiation_interval: int
    label: str = LABEL

    @property
    def board(self) -> Board:
        """The board of the design."""
        return self.design.board

    @property
    def clock_mhz(self) -> float:
        """The clock of the board."""
        return self.board.clock_mhz

    @property
    def flow(self) -> str:
        """The name of the flow that builds the design."""
        return self.design.architecture.flow

    @property
    def folding(self) -> Mapping[str, Fold]:
        """The folding of each folded node, by its name."""
        return self.design.folding

    @property
    def totals(self) -> dict[str, int]:
        """Every resource, of all layers."""
        return {name: sum(getattr(layer, name) for layer in self.layers) for name in ESTIMATED}

    @property
    def utilisation(self) -> dict[str, float]:
        """Totals over what the board has; 1 is full, infinite where it has none of what is needed."""
        there = self.board.amounts(ESTIMATED)
        return {name: _share(used, there[name]) for name, used in self.totals.items()}

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
        """Energy of one image, relative; see :mod:`qhw.cost.pricing.energy`."""
        return sum(layer.energy_nj for layer in self.layers) / 1e3

    @property
    def memory_bits(self) -> int:
        """Bits of all weights, streams and line buffers."""
        return sum(layer.memory_bits for layer in self.layers)

    @property
    def latency_us(self) -> float:
        """Time from an image's first pixel to its last output."""
        return self.latency_cycles / self.clock_mhz

    @property
    def throughput_fps(self) -> float:
        """Images per second."""
        return self.clock_mhz * 1e6 / self.initiation_interval


def estimate(design: Design) -> Estimate:
    """The cost of a design with its folding, by the calibrated models of its units.

    Raises:
        UnsupportedError: an operation has no cost model; the message names its node.
        InputError: the board's family has no model.
    """
    layers = tuple(design.costing.layers(node, [design.fold_of(node)])[0] for node in design.graph.nodes)
    exact = design.architecture.schedule
    timing = None if exact is None else exact(design)
    if timing is None:
        timing = design.architecture.timing(design.graph, {layer.node: layer for layer in layers})
    latency, interval = timing
    return Estimate(design, layers, latency, interval)


def _share(used: int, there: int) -> float:
    if there:
        return used / there
    return math.inf if used else 0.0
