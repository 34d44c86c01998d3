"""Costs of operations that several flows' architectures build the same way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qhw.cost.pricing.architecture import LayerUsage, Site
from qhw.cost.pricing.usage import Amount, Usage
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.infer import requant_bounds
from qhw.graph.ir import ExactGraph, Node, TensorType

CHAIN_DEPTH = 2
"""Words of a stream between two layers that follow each other."""


def requantised(site: Site) -> Usage:
    """Resources of a Requant of one number."""
    node, x = site.node, site.type(0)
    assert isinstance(node, ir.Requant)
    result, hardware, bits = site.output.format, site.hardware, x.format.operand().width
    finest, coarsest = min(x.exponent.values), max(site.output.exponent.values)
    if isinstance(result, TableFormat) and result.encoded_by_shifting:
        return hardware.to_minifloat(bits, result, coarsest - finest)
    if isinstance(result, TableFormat):
        low, high = requant_bounds(node, site.output)
        numbers = int(((result.numbers >= low) & (result.numbers <= high)).sum())
        return hardware.threshold(bits, max(numbers - 1, 1), x.format.mantissa_low < 0)
    return hardware.requantise(x.format, result, coarsest - finest, node.rounding, node.overflow.saturates)


def compared(site: Site) -> Usage:
    """Resources of a Threshold of one number."""
    x = site.type(0).format
    return site.hardware.threshold(x.width, site.type(1).shape[-1], x.mantissa_low < 0)


def multiplied(site: Site) -> Usage:
    """Resources of one product of a Mul or Affine: by a constant, at their mean, or of two numbers."""
    node = site.node
    constant = next((i for i in (1, 0) if site.constant(i)), None)
    bits = [site.type(i).format.operand().width for i in (0, 1)]
    if constant is not None:
        values = site.graph.constants[node.inputs[constant]]
        return site.hardware.constant_products(values, bits[1 - constant])
    a, b = (site.type(i).format for i in (0, 1))
    return site.hardware.dots(a, b, 1, 1, site.output.format.width)


def added(site: Site) -> Usage:
    """Resources of a sum of two numbers."""
    return site.hardware.sums(2, site.output.format.width)


def pooled(site: Site, count: Amount) -> Usage:
    """Resources of the sum or the largest of some numbers."""
    format = site.output.format
    if site.node.op in ("SumPool", "ReduceSum"):
        return site.hardware.sums(count, site.type(0).format.operand().width)
    return site.hardware.maximum(count, format.width, format.mantissa_low < 0)


def padded_shape(spatial: tuple[int, ...], pads: tuple[int, ...]) -> list[int]:
    """The spatial shape of an image with its padding."""
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


def streams(site: Site, folds: Sequence[Any], lanes: Amount | None = None) -> LayerUsage:
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
