"""Prices the nodes of a graph in an architecture, at any folding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.cost.pricing.architecture import Architecture, Fold, LayerCost, Site
from qhw.cost.pricing.hardware import Hardware, Multipliers
from qhw.errors import InputError, UnsupportedError
from qhw.graph.ir import ExactGraph, Node

ESTIMATED = ("lut", "ff", "dsp", "bram18", "uram")
"""The resources that the models speak about."""


@dataclass(frozen=True)
class Costing:
    """A graph in an architecture, on a family of devices.

    Args:
        proven: accumulators have the width that the weights prove; else what the formats alone bound, which
            holds before anything is trained.
    """

    graph: ExactGraph
    architecture: Architecture
    hardware: Hardware
    proven: bool = True

    @classmethod
    def of(
        cls,
        graph: ExactGraph,
        family: str,
        architecture: Architecture,
        multipliers: Multipliers = "auto",
        proven: bool = True,
    ) -> Costing:
        """Costs on a family, by its name, with a choice of multipliers.

        Raises:
            InputError: an unknown choice of multipliers, or a family without a model.
        """
        return cls(graph, architecture, Hardware.of(family, multipliers), proven)

    def layers(self, node: Node, folds: Sequence[Fold]) -> list[LayerCost]:
        """One node's cost at several foldings, evaluated at once.

        Raises:
            UnsupportedError: something in it has no cost model; names the node, and the layer it came from.
        """
        site = Site(self.graph, node, self.architecture.streamed, self.hardware, self.proven)
        try:
            layer = self.architecture.layer(site, folds)
            energy = round(self.architecture.energy_pj(site) / 1e3, 6)
        except (UnsupportedError, InputError) as error:
            raise _naming(node, error) from error
        count = len(folds)
        columns = [np.broadcast_to(getattr(layer.usage, name), count) for name in ESTIMATED]
        # Less a thousandth, a whole sum of fitted weights is not rounded up to the next number.
        amounts = np.ceil(np.stack(columns) - 1e-3).astype(np.int64).T
        intervals = np.maximum(1, np.ceil(np.broadcast_to(layer.cycles, count))).astype(np.int64)
        fills = np.rint(np.broadcast_to(layer.fill, count)).astype(np.int64)
        memories = np.rint(np.broadcast_to(layer.memory_bits, count)).astype(np.int64)
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


def _naming(node: Node, error: UnsupportedError | InputError) -> UnsupportedError | InputError:
    """The error with its node, and the layer that the node came from, in front of it."""
    if f"'{node.name}'" in error.message:
        return error
    source = f" (from {node.source})" if node.source and node.source != node.name else ""
    message = f"{node.op} '{node.name}'{source} cannot be priced: {error.message}"
    return type(error)(message, allowed=error.allowed, hint=error.hint)
