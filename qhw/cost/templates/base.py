"""What an architecture template is, and what every one of them prices the same way."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from qhw.cost.energy import layer_energy
from qhw.cost.hardware import Hardware
from qhw.cost.operands import operand_of, product_width
from qhw.cost.usage import Amount, Usage
from qhw.errors import InputError, UnsupportedError
from qhw.formats import Minifloat, PowerOfTwo
from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node, TensorType

Fold: TypeAlias = "int | tuple[int, int]"
"""How far a node is time-multiplexed: hls4ml's reuse factor, or FINN's (PE, SIMD)."""

CHAIN_DEPTH = 2
"""Words of a stream between two layers that follow each other."""


@dataclass(frozen=True)
class LayerUsage:
    """What a node uses, and its cycles; arrays over the foldings that were asked for.

    Args:
        cycles: between two images.
        fill: from the first input to the first output.
        memory_bits: of weights, streams and line buffers.
    """

    usage: Usage
    cycles: Amount
    fill: Amount = 1.0
    memory_bits: Amount = 0.0


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
        """Of a sum of so many products of the first two inputs."""
        if self.proven:
            return self.output.format.width
        a, b = (operand_of(self.type(i).format) for i in (0, 1))
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


LayerRule: TypeAlias = "Callable[[Site, Sequence[Fold]], LayerUsage]"


@dataclass(frozen=True)
class Template:
    """A flow's architecture.

    Args:
        io_types: its interfaces, the usual one first.
        rules: what each operation becomes.
        streams: what feeds a node.
        unfolded: the folding of a node that is left out.
        folding: checks one folding of a node; raises InputError.
    """

    name: str
    io_types: tuple[str, ...]
    rules: Mapping[str, LayerRule]
    streams: LayerRule
    unfolded: Fold
    check_fold: Callable[[Node, Fold], None]

    def layer(self, site: Site, folds: Sequence[Fold]) -> LayerUsage:
        """What a node uses at each folding, the streams that it reads included.

        Raises:
            UnsupportedError: an operation without a rule.
        """
        if site.node.op not in self.rules:
            raise UnsupportedError(
                f"{site.node.op} '{site.node.name}' has no cost model: it is not silently free",
                allowed=", ".join(sorted(self.rules)),
            )
        layer, fed = self.rules[site.node.op](site, folds), self.streams(site, folds)
        memory = layer.memory_bits + fed.memory_bits
        return LayerUsage(layer.usage + fed.usage, layer.cycles, layer.fill, memory)

    def energy_pj(self, site: Site) -> float:
        """Of one image, whatever the folding; see :mod:`qhw.cost.energy`."""
        return layer_energy(site.graph, site.node)


def check_positive(node: Node, value: object, what: str) -> None:
    """Raise InputError unless a factor is a positive whole number."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{what} of {node.name!r} must be a positive whole number, not {value!r}")


def requantised(site: Site) -> Usage:
    """What a Requant does to one number."""
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.Requant)
    result, hardware = site.output.format, site.hardware
    finest, coarsest = min(x.exponent.values), max(site.output.exponent.values)
    if isinstance(result, Minifloat | PowerOfTwo):
        return hardware.to_minifloat(operand_of(x.format).width, result, coarsest - finest)
    return hardware.requantise(x.format, result, coarsest - finest, node.rounding, node.overflow.saturates)


def compared(site: Site) -> Usage:
    """What a Threshold does to one number."""
    x = site.type(0).format
    return site.hardware.threshold(x.width, site.type(1).shape[-1], x.mantissa_low < 0)


def multiplied(site: Site) -> Usage:
    """One product of a Mul or Affine: by a constant at the mean over the constants, or of two numbers."""
    node = site.node
    constant = next((i for i in (1, 0) if site.constant(i)), None)
    bits = [operand_of(site.type(i).format).width for i in (0, 1)]
    if constant is not None:
        values = site.graph.constants[node.inputs[constant]]
        return site.hardware.constant_products(values, bits[1 - constant])
    a, b = (site.type(i).format for i in (0, 1))
    return site.hardware.dots(a, b, 1, 1, site.output.format.width)


def added(site: Site) -> Usage:
    """One sum of two numbers."""
    return site.hardware.sums(2, site.output.format.width)


def pooled(site: Site, count: Amount) -> Usage:
    """The sum or the largest of some numbers."""
    format = site.output.format
    if site.node.op in ("SumPool", "ReduceSum"):
        return site.hardware.sums(count, operand_of(site.type(0).format).width)
    return site.hardware.maximum(count, format.width, format.mantissa_low < 0)


def padded_shape(spatial: tuple[int, ...], pads: tuple[int, ...]) -> list[int]:
    """An image with its padding."""
    rank = len(spatial)
    return [size + pads[axis] + pads[rank + axis] for axis, size in enumerate(spatial)]


def before_moves(graph: ExactGraph, name: str) -> str:
    """The tensor whose codes a chain of Reshape passes on, unmoved in the stream."""
    while isinstance(source := graph.producer(name), ir.Reshape):
        name = source.inputs[0]
    return name


def absorbed(site: Site) -> bool:
    """Whether a Requant is the result type of the layer before it, which alone it reads."""
    source = site.graph.producer(site.node.inputs[0])
    if not isinstance(site.node, ir.Requant) or source is None or isinstance(source, ir.Requant):
        return False
    scalar = site.type(0).exponent.is_scalar and site.output.exponent.is_scalar
    return scalar and len(site.graph.consumers(source.output)) == 1


def streams(site: Site, folds: Sequence[Fold], lanes: Amount | None = None) -> LayerUsage:
    """The streams that feed a node: two words in a chain, a whole image where branches meet.

    A tensor with several readers is copied, so its readers share one more stream; a convolution's padding is
    a layer before it.

    Args:
        lanes: numbers of a word, for each folding; all that :class:`Site` has side by side unless given.
    """
    nothing = LayerUsage(Usage(), 0)
    if not site.streamed or isinstance(site.node, ir.Reshape | ir.Transpose) or absorbed(site):
        return nothing
    sources = list(site.graph.activations(site.node))
    total, bits = Usage(), np.asarray(0)
    for name in sources:
        readers = len(site.graph.consumers(name))
        kind = site.graph.tensors[before_moves(site.graph, name)]
        wide = np.asarray(site.lanes(kind) if lanes is None else lanes)
        steps, width = -(-site.lanes(kind) * site.steps(kind) // wide), wide * kind.format.width
        chain = np.minimum(CHAIN_DEPTH, steps)
        chained = site.hardware.fifo(chain, width)
        total += site.hardware.fifo(steps, width) if len(sources) > 1 else chained
        total += chained.times((1 / readers if readers > 1 else 0) + _is_padded(site.node))
        bits = bits + width * (steps if len(sources) > 1 else chain)
    return LayerUsage(total, 0, memory_bits=bits)


def _is_padded(node: Node) -> bool:
    return isinstance(node, ir.Conv) and any(node.pads)


def repeated(site: Site, lanes: Amount) -> tuple[Usage, Amount]:
    """The memory of what an Upsample gives several times, and its bits; zeros need none.

    Along the last axis that is a pixel, along an axis before it all pixels behind that axis. One word is
    given again by the stream that it comes from.
    """
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.Upsample)
    axis = next((i for i, factor in enumerate(node.factors) if factor > 1), None)
    if node.zeros or axis is None:
        return Usage(), 0.0
    pixels, width = math.prod(x.shape[axis + 2 :]), lanes * x.format.width
    words = pixels * -(-x.shape[0] // lanes)
    return site.hardware.weights(words, width), words * width * (words > 1)


def line_memory(site: Site, kind: TensorType, rows: int, row_length: int) -> float:
    """Bits of the rows that a window keeps."""
    return float(rows * row_length * site.lanes(kind) * kind.format.width)
