"""A design's cost: its layers added up, and how images flow through them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from qhw.boards import Board
from qhw.cost.pricing.architecture import Fold, LayerCost, LayerFigures
from qhw.cost.pricing.costing import ESTIMATED
from qhw.cost.pricing.design import Design
from qhw.cost.pricing.energy import LABEL as ENERGY_LABEL
from qhw.cost.pricing.usage import Usage
from qhw.devices import fabric_of

LABEL = "calibrated against Yosys, total not validated against HLS"
"""The label of every total: the errors of its units are known, no whole design was synthesised."""


def label_of(family: str) -> str:
    """The label of totals on a family; one that was not measured says whose models they are by."""
    like = fabric_of(family).priced_as
    return f"not calibrated on {family}: by the models of {like}; --synth checks the fit" if like else LABEL


@dataclass(frozen=True)
class Estimate:
    """The cost of a whole design on its board; ``label`` says what the figures are worth."""

    design: Design
    layers: tuple[LayerFigures, ...]
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
        return {name: sum(getattr(layer, name) for layer in self._circuits) for name in ESTIMATED}

    @property
    def _circuits(self) -> tuple[LayerCost, ...]:
        return tuple(layer for layer in self.layers if isinstance(layer, LayerCost))

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
    def binding(self) -> LayerFigures:
        """The layer that the throughput waits for: the slowest, of equals the one that takes most LUT."""
        return max(self._circuits, key=lambda layer: (layer.initiation_interval, layer.lut))

    @property
    def energy_uj(self) -> float:
        """Energy of one image, relative; see :mod:`qhw.cost.pricing.energy`."""
        return sum(layer.energy_nj for layer in self._circuits) / 1e3

    @property
    def memory_bits(self) -> int:
        """Bits of all weights, streams and line buffers."""
        return sum(layer.memory_bits for layer in self._circuits)

    @property
    def latency_us(self) -> float:
        """Time from an image's first pixel to its last output."""
        return self.latency_cycles / self.clock_mhz

    @property
    def throughput_fps(self) -> float:
        """Images per second."""
        return self.clock_mhz * 1e6 / self.initiation_interval

    @property
    def figures(self) -> dict[str, float]:
        """What a search may minimise, by name: ``qhw.search.pricing.OBJECTIVES`` of the kind of board."""
        return {
            **self._common_figures,
            "memory": float(self.memory_bits),
            "energy": self.energy_uj * 1e3,
        }

    @property
    def _common_figures(self) -> dict[str, float]:
        return {
            **{name: float(value) for name, value in self.totals.items()},
            "share": max(self.utilisation.values()),
            "interval": float(self.initiation_interval),
        }

    def columns(self) -> tuple[str, ...]:
        """The columns of a table of layers."""
        fold = self.design.architecture.fold.title
        return ("layer", "operation", fold, "LUT", "FF", "DSP", "BRAM18", "cycles", "interval", "nJ")

    def rows(self) -> Iterator[tuple[int | str, ...]]:
        """A row of that table for each layer."""
        for x in self._circuits:
            figures = (x.lut, x.ff, x.dsp, x.bram18, x.cycles, x.initiation_interval)
            yield (x.node, x.op, _fold(x.fold), *figures, f"{x.energy_nj:,.1f}")

    def notes(self) -> list[str]:
        """What is said below: the rate, the energy, and what the figures are worth."""
        return [
            f"{self.latency_cycles:,} cycles at {self.clock_mhz:g} MHz = {self.latency_us:,.1f} µs; "
            f"{self.throughput_fps:,.0f} inferences/s, for which '{self.binding.node}' is the slowest layer",
            f"{self.energy_uj:,.2f} µJ an image ({ENERGY_LABEL}); "
            f"{self.memory_bits / 8192:,.1f} KiB of memory",
            f"cost model: {self.label}",
        ]

    def further(self) -> dict[str, Any]:
        """What a JSON document says beside resources, latency and layers."""
        energy = {"uj_per_image": round(self.energy_uj, 6), "source": ENERGY_LABEL}
        return {"energy": energy, "memory_bits": self.memory_bits}


def _fold(fold: Fold) -> int | str:
    """A number where there is one factor, so that the column is one of numbers."""
    factors = list(fold.to_json().values())
    return factors[0] if len(factors) == 1 else str(fold)


def estimate(design: Design) -> Estimate:
    """The cost of a design with its folding, by the calibrated models of its units, or its flow's own.

    Raises:
        UnsupportedError: an operation has no cost model; the message names its node.
        InputError: the board's family has no model.
    """
    if design.architecture.estimator is not None:
        whole: Estimate = design.architecture.estimator(design)
        return whole
    layers = tuple(design.costing.layers(node, [design.fold_of(node)])[0] for node in design.graph.nodes)
    written = design.written
    if written is None:
        timing = design.architecture.timing(design.graph, {layer.node: layer for layer in layers})
        return Estimate(design, layers, *timing, label_of(design.board.family))
    counted = tuple(_counted(layer, written.usage.get(layer.node, Usage())) for layer in layers)
    return Estimate(design, counted, written.latency_cycles, written.interval_cycles, written.label)


def _counted(layer: LayerCost, usage: Usage) -> LayerCost:
    """The layer with the resources that were counted, in whole numbers."""
    counts: dict[str, Any] = {name: round(float(getattr(usage, name))) for name in ESTIMATED}
    return replace(layer, **counts)


def _share(used: int, there: int) -> float:
    if there:
        return used / there
    return math.inf if used else 0.0
