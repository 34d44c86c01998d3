"""Architectures: the units that a flow makes of an operation, their folding, and the timing.

Each flow has its own and hands it in; nothing here knows one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self, TypeAlias

import numpy as np

from qhw.cost.pricing.energy import layer_energy
from qhw.cost.pricing.hardware import Hardware
from qhw.cost.pricing.usage import Amount, Usage
from qhw.errors import InputError, UnsupportedError
from qhw.formats.base import Format
from qhw.formats.operand import product_width
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType


@dataclass(frozen=True)
class Fold:
    """The time-multiplexing of a node; each architecture subclasses it with its own factors.

    Its fields are whole numbers from 1, in the order of ``title``; their defaults are what a node has that
    nobody folded.
    """

    title: ClassVar[str] = ""
    """The factors' names in tables and messages."""

    def __post_init__(self) -> None:
        for name, value in self.to_json().items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"{name} must be a positive whole number, not {value!r}")

    def to_json(self) -> dict[str, int]:
        """The factors by name."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def from_json(cls, stored: Any) -> Self:
        """The factors as :meth:`to_json` gave them; raises InputError for anything else."""
        names = [item.name for item in fields(cls)]
        if not isinstance(stored, Mapping) or not set(stored) <= set(names):
            raise InputError(f"{stored!r} is not a folding", allowed=", ".join(names))
        return cls(**stored)

    def __str__(self) -> str:
        return ", ".join(f"{value:,}" for value in self.to_json().values())


@dataclass(frozen=True)
class LayerUsage:
    """A node's resources and cycles; arrays over the foldings that were asked for.

    Args:
        cycles: clock cycles between two images.
        fill: clock cycles from the first input to the first output.
        memory_bits: bits of weights, streams and line buffers.
    """

    usage: Usage
    cycles: Amount
    fill: Amount = 1.0
    memory_bits: Amount = 0.0


@dataclass(frozen=True)
class LayerFigures:
    """What every architecture says of a layer.

    Args:
        cycles: clock cycles from its first input to its last output when its inputs never wait.
        initiation_interval: cycles between two images.
    """

    node: str
    op: str
    fold: Fold
    cycles: int
    initiation_interval: int


@dataclass(frozen=True)
class LayerCost(LayerFigures):
    """One node's resources and its cycles for one image, the streams that feed it included.

    Args:
        energy_nj: the energy of one image, relative; see :mod:`qhw.cost.pricing.energy`.
        memory_bits: bits of weights, streams and line buffers.
    """

    lut: int
    ff: int
    dsp: int
    bram18: int
    uram: int
    energy_nj: float
    memory_bits: int


@dataclass(frozen=True)
class Site:
    """A node with everything that its cost depends on.

    Args:
        streamed: all channels of a pixel travel together, one pixel after the other; else a whole tensor is
            there at once.
        proven: accumulators have the width that the weights prove; else what the formats alone bound.
    """

    graph: ExactGraph
    node: Node
    streamed: bool
    hardware: Hardware
    proven: bool = True

    def type(self, index: int) -> TensorType:
        """The type of an input."""
        return self.graph.tensors[self.node.inputs[index]]

    @property
    def output(self) -> TensorType:
        return self.graph.tensors[self.node.output]

    def accumulator_bits(self, terms: int) -> int:
        """Bits of a sum of ``terms`` products of the first two inputs."""
        if self.proven:
            return self.output.format.width
        a, b = (self.type(i).format.operand() for i in (0, 1))
        return product_width(a, b) + (terms - 1).bit_length()

    def constant(self, index: int) -> bool:
        """Whether an input is a constant."""
        return self.node.inputs[index] in self.graph.constants

    def lanes(self, kind: TensorType) -> int:
        """Elements that are handled side by side."""
        return kind.shape[0] if self.streamed and kind.shape else kind.size

    def steps(self, kind: TensorType) -> int:
        """Cycles that a tensor takes to pass."""
        return max(1, math.prod(kind.shape[1:])) if self.streamed else 1


LayerRule: TypeAlias = "Callable[[Site, Sequence[Any]], LayerUsage]"
"""The resources of a node at each of some foldings."""

Timing: TypeAlias = "Callable[[ExactGraph, Mapping[str, LayerCost]], tuple[int, int]]"
"""Cycles until the last output, and between two images, from the costs of the layers by node."""


def as_data_arrives(graph: ExactGraph, layers: Mapping[str, LayerCost]) -> tuple[int, int]:
    """The timing of a dataflow design: every layer works while its inputs arrive."""
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


@dataclass(frozen=True)
class Written:
    """A design as its flow writes it.

    Args:
        latency_cycles, interval_cycles: of an image, and between two, to the cycle.
        usage: resources by node, streams included.
        label: what these figures are worth.
    """

    latency_cycles: int
    interval_cycles: int
    usage: Mapping[str, Usage]
    label: str


@dataclass(frozen=True)
class PartCost:
    """What a part of a program costs: these add up over the parts.

    Args:
        instructions: of one inference, modelled.
        cycles: of one inference, modelled.
        flash: bytes that are this part's own.
        memory: bytes of the maps that it reads and writes, and of its scratch memory.
        shared: bytes that are there once, however many parts need them, by a name of what they hold.
    """

    instructions: int
    cycles: int
    flash: int
    memory: int
    shared: Mapping[str, int]


@dataclass(frozen=True)
class Parts:
    """How programs are priced by the hundred thousand: their parts depend on nothing outside but types.

    Args:
        prepared: a lowered graph in the form that is split, whatever its types.
        split: the nodes of each part, by name; every node is in one.
        cost: of a graph with one part's nodes, whose outputs are what others read; those that the network
            gives out, and the device family.
        room: bytes that the memory of all parts may have together, so that it fits whatever comes after what;
            from a board's capacity and the share of it that may be used.
    """

    prepared: Callable[[ExactGraph], ExactGraph]
    split: Callable[[ExactGraph], Sequence[Sequence[str]]]
    cost: Callable[[ExactGraph, Sequence[str], str], PartCost]
    room: Callable[[Mapping[str, int], float], int]


@dataclass(frozen=True)
class Architecture:
    """The hardware that a flow makes of a graph.

    Args:
        flow: the flow's name.
        fold: the class of its folding factors.
        rules: the resources of each operation, by its name.
        streams: the resources of the streams that feed a node.
        legal_folding: the foldings that every foldable node of a graph may take; other nodes are not folded.
        streamed: see :class:`Site`.
        options: the flow's options as chosen.
        timing: latency and interval of the whole from the layers' costs.
        estimator: prices a whole design, where it is no sum of units: a firmware.
        parts: how such designs are priced by the hundred thousand.
        written: what the flow knows of a design by writing it; None where it does not.
    """

    flow: str
    fold: type[Fold]
    rules: Mapping[str, LayerRule]
    streams: LayerRule
    legal_folding: Callable[[ExactGraph], Mapping[str, Sequence[Fold]]]
    streamed: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    timing: Timing = as_data_arrives
    estimator: Callable[[Any], Any] | None = None
    parts: Parts | None = None
    written: Callable[[Any], Written | None] | None = None

    def layer(self, site: Site, folds: Sequence[Fold]) -> LayerUsage:
        """A node's resources at each folding, the streams that it reads included.

        Raises:
            UnsupportedError: an operation without a rule, or a format that no unit takes.
        """
        if site.node.op not in self.rules:
            raise UnsupportedError(
                f"{site.node.op} '{site.node.name}' has no cost model",
                allowed=", ".join(sorted(self.rules)),
            )
        layer, fed = self.rules[site.node.op](site, folds), self.streams(site, folds)
        usage = layer.usage + fed.usage + looked_up(site)
        return LayerUsage(usage, layer.cycles, layer.fill, layer.memory_bits + fed.memory_bits)

    def energy_pj(self, site: Site) -> float:
        """The energy of one image, whatever the folding; see :mod:`qhw.cost.pricing.energy`."""
        return layer_energy(site.graph, site.node)


def looked_up(site: Site) -> Usage:
    """The tables that turn the codes of a node's inputs into integers, where their formats need any."""
    total = Usage()
    if isinstance(site.node, _CODES_ALONE):
        return total
    for name in site.graph.activations(site.node):
        kind = site.graph.tensors[name]
        operand = kind.format.operand()
        if operand.lookup_bits:
            one = site.hardware.table(1 << operand.lookup_bits, operand.width)
            total += one.times(site.lanes(kind))
    return total


_CODES_ALONE = (ir.Reshape, ir.Transpose, ir.Concat, ir.Slice, ir.Pad, ir.Table)
"""Operations that move codes, or read them as they are."""


def is_priced(format: Format) -> bool:
    """Whether there are units that multiply numbers of a format."""
    try:
        format.operand()
    except UnsupportedError:
        return False
    return True
