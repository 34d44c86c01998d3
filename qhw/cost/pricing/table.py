"""Many design points at once: every option of every layer is priced once, and points are gathered from them.

A layer's option is one of some variants of the network (the same nodes in other formats), at one of its
foldings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qhw.boards import Board
from qhw.cost.pricing.architecture import Fold, LayerCost
from qhw.cost.pricing.costing import ESTIMATED, Costing
from qhw.errors import InputError
from qhw.formats.modes import IntArray


@dataclass(frozen=True)
class PointCosts:
    """Costs of some design points.

    Args:
        usage: resources of every point, shape (points, resources), in the order of ``ESTIMATED``.
        initiation_interval: cycles between two images, of the slowest layer.
        energy_nj: energy of one image, relative.
        memory_bits: bits of weights, streams and line buffers.
        binding: the place of the slowest layer.
    """

    usage: IntArray
    initiation_interval: IntArray
    energy_nj: NDArray[np.float64]
    memory_bits: IntArray
    binding: IntArray

    def fits(self, board: Board, budget: float = 1.0) -> NDArray[np.bool_]:
        """Which points take no more than a share of each of the board's resources."""
        there = np.array(list(board.amounts(ESTIMATED).values())) * budget
        return np.asarray((self.usage <= there).all(axis=1))


@dataclass(frozen=True)
class CostTable:
    """Every option of every layer.

    Args:
        nodes: names of the layers, in the order of the graph.
        variants: the number of sets of formats.
        options: the costs of each layer's variants and foldings, in the order of the places in a choice.
    """

    nodes: tuple[str, ...]
    variants: int
    options: tuple[tuple[LayerCost, ...], ...]
    _columns: tuple[NDArray[np.float64], ...]

    @classmethod
    def of(cls, variants: Sequence[Costing], legal: Mapping[str, Sequence[Fold]]) -> CostTable:
        """Price every option.

        Args:
            variants: the network in one set of formats each; the same nodes in the same order.
            legal: the foldings of each node that is folded.

        Raises:
            InputError: variants of different networks, or no variant.
        """
        names = [tuple(node.name for node in variant.graph.nodes) for variant in variants]
        if len(set(names)) != 1:
            raise InputError("Variants of a network must have the same nodes, in the same order")
        options = tuple(_options(variants, place, legal) for place in range(len(names[0])))
        return cls(names[0], len(variants), options, tuple(_rows(layer) for layer in options))

    @property
    def counts(self) -> IntArray:
        """How many options each layer has."""
        return np.array([len(layer) for layer in self.options])

    def place(self, layer: int, variant: int, fold: int) -> int:
        """The place of an option in its layer, by the places of its variant and folding."""
        return variant * (len(self.options[layer]) // self.variants) + fold

    def evaluate(self, choices: IntArray) -> PointCosts:
        """Price design points.

        Args:
            choices: the place of each layer's option, shape (points, layers).

        Raises:
            InputError: a wrong shape, or a place that is none.
        """
        if choices.ndim != 2 or choices.shape[1] != len(self.nodes):
            raise InputError(
                f"The choices have shape {choices.shape}", allowed=f"(points, {len(self.nodes)} layers)"
            )
        if (choices < 0).any() or (choices >= self.counts).any():
            raise InputError("A choice names an option that its layer does not have")
        # One layer after the other: sums stay in one small array.
        total = np.zeros((len(choices), len(ESTIMATED) + 2))
        interval, binding = np.zeros(len(choices)), np.zeros(len(choices), dtype=np.int64)
        for layer, rows in enumerate(self._columns):
            chosen = rows[choices[:, layer]]
            total += chosen[:, :-1]
            slower = chosen[:, -1] > interval
            binding[slower] = layer
            np.maximum(interval, chosen[:, -1], out=interval)
        counts = len(ESTIMATED)
        return PointCosts(
            total[:, :counts].astype(np.int64),
            interval.astype(np.int64),
            total[:, counts],
            total[:, counts + 1].astype(np.int64),
            binding,
        )


def _options(
    variants: Sequence[Costing], place: int, legal: Mapping[str, Sequence[Fold]]
) -> tuple[LayerCost, ...]:
    found: list[LayerCost] = []
    for variant in variants:
        node = variant.graph.nodes[place]
        found += variant.layers(node, legal.get(node.name, (variant.architecture.fold(),)))
    return tuple(found)


def _rows(layer: Sequence[LayerCost]) -> NDArray[np.float64]:
    """Every option: resources, energy, memory, interval."""
    return np.array(
        [
            [*(getattr(o, name) for name in ESTIMATED), o.energy_nj, o.memory_bits, o.initiation_interval]
            for o in layer
        ]
    )
