"""What firmware is made of: steps that call kernels on maps, and the maps that they read and write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from qhw.flows.mcu.containers import Container, Map
from qhw.formats.modes import IntArray


@dataclass(frozen=True)
class Finish:
    """The end of a sum: ``v = sum * multiplier + addend``, then rounded, counted, looked up, or kept.

    Args:
        out: what is stored.
        kind: ``KEEP``, ``ROUND``, ``COUNT`` or ``LOOK_UP``, as in ``qhw_kernels.h``.
        wide: whether v, or what it is rounded to, needs more than 32 bits.
        multiplier, addend, shift: one number, or one per channel; a multiplier of None is 1, an addend 0.
        thresholds: (channels or 1, count); levels: (channels or 1, count + 1), or a table's entries.
        low, high: the bounds of the result; of a result that wraps, its format's.
        width: bits that WRAP wraps into.
    """

    out: Container
    kind: str = "KEEP"
    wide: bool = False
    rounding: str = "RND"
    overflow: str = "SAT"
    width: int = 0
    multiplier: tuple[int, ...] | None = None
    addend: tuple[int, ...] | None = None
    shift: tuple[int, ...] = (0,)
    thresholds: IntArray | None = None
    levels: IntArray | None = None
    first: int = 0
    low: int = 0
    high: int = 0


@dataclass(frozen=True, eq=False)
class ConvLayer:
    """Geometry and weights of a convolution, on rows and columns; equal to itself alone.

    Args:
        weights: mantissas (out channels, kernel rows, kernel columns, channels of a group).
    """

    x: Container
    weight: Container
    in_channels: int
    groups: int
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]
    weights: IntArray
    wide_sum: bool
    finish: Finish

    @property
    def out_channels(self) -> int:
        return int(self.weights.shape[0])

    @property
    def kernel(self) -> tuple[int, int]:
        return int(self.weights.shape[1]), int(self.weights.shape[2])

    @property
    def depth(self) -> int:
        """Input channels of a group."""
        return int(self.weights.shape[3])

    @property
    def is_depthwise(self) -> bool:
        return self.groups == self.in_channels == self.out_channels and self.groups > 1


@dataclass(frozen=True)
class ElementwiseLayer:
    """One map element by element, or two that are added or multiplied."""

    x: Container
    other: Container | None
    channels: int
    shifts: tuple[int, int]
    finish: Finish


@dataclass(frozen=True)
class PoolLayer:
    """A sum or maximum over windows; across: over all channels together.

    Args:
        plane: rows and columns of the result.
    """

    x: Container
    channels: int
    plane: tuple[int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[int, int]
    across: bool
    finish: Finish


@dataclass(frozen=True)
class MatMulLayer:
    """A product of matrices; see ``qhw_matmul_layer``."""

    a: Map
    b: Map
    out: Map
    batches: int
    rows: int
    depth: int
    columns: int
    a_batch: int
    b_batch: int
    bias: tuple[int, ...] | None
    finish: Finish


@dataclass(frozen=True)
class Box:
    """A copy of a box of elements: begins and steps of (row, column, channel), in both maps."""

    size: tuple[int, int, int]
    x: Map
    out: Map
    start: tuple[int, int, int] = (0, 0, 0)
    step: tuple[int, int, int] = (1, 1, 1)
    to: tuple[int, int, int] = (0, 0, 0)
    to_step: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class CopyLayer:
    """Copies of boxes, one per map that is read, into a map that is filled with ``fill`` first, if at all."""

    boxes: tuple[Box, ...]
    out: Map
    fill: int | None = None


@dataclass(frozen=True)
class UpsampleLayer:
    x: Map
    factors: tuple[int, int]


@dataclass(frozen=True)
class ReshapeLayer:
    x: Map
    out: Map


@dataclass(frozen=True)
class TransposeLayer:
    """``strides``: of the output's axes, in elements of the input, row-major."""

    x: Map
    out: Map
    strides: tuple[int, ...]


Layer: TypeAlias = (
    ConvLayer
    | ElementwiseLayer
    | PoolLayer
    | MatMulLayer
    | CopyLayer
    | UpsampleLayer
    | ReshapeLayer
    | TransposeLayer
)


@dataclass(frozen=True)
class Step:
    """One call of a kernel (or several copies), which carries out some nodes of the graph.

    Args:
        name: unique; the first node's.
        nodes: the graph's nodes, in order.
        kernel: the C function.
        reads: maps, in the kernel's order; some may be constants.
        writes: the map that it writes.
        scratch: bytes that the kernel needs while it runs.
    """

    name: str
    nodes: tuple[str, ...]
    kernel: str
    layer: Layer
    reads: tuple[str, ...]
    writes: str
    scratch: int = 0

    @property
    def finish(self) -> Finish | None:
        return getattr(self.layer, "finish", None)


@dataclass(frozen=True)
class Program:
    """Steps in order.

    Args:
        maps: every map that is in RAM, by its tensor.
        constants: maps in flash, with their mantissas.
        aliases: tensors whose bytes are those of another one.
        inputs, outputs: tensors, in the graph's order.
    """

    name: str
    steps: tuple[Step, ...]
    maps: Mapping[str, Map]
    constants: Mapping[str, tuple[Map, IntArray]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)

    def root(self, tensor: str) -> str:
        """The tensor whose memory another one lies in."""
        while tensor in self.aliases:
            tensor = self.aliases[tensor]
        return tensor


def macs_of(step: Step, pixels: int) -> int:
    """Multiply-accumulates of a step that writes so many pixels."""
    layer = step.layer
    if isinstance(layer, ConvLayer):
        return pixels * int(np.prod(layer.weights.shape, dtype=np.int64))
    if isinstance(layer, MatMulLayer):
        return layer.batches * layer.rows * layer.columns * layer.depth
    return 0
