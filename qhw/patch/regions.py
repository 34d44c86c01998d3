"""Which part of a node's input a part of its output is computed from: receptive fields, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from qhw.graph import ir
from qhw.graph.ir import ExactGraph, Node

Interval: TypeAlias = tuple[int, int]
"""Places ``[start, stop)`` along an axis."""

Region: TypeAlias = tuple[Interval, ...]
"""One interval per spatial axis; every channel belongs to it."""

ELEMENTWISE = (ir.Affine, ir.Requant, ir.Threshold, ir.Table)
"""Operations of one tensor, element by element."""

WINDOWED = (ir.Conv, ir.MaxPool, ir.SumPool)


@dataclass(frozen=True)
class Reading:
    """What a node reads for a part of its output: a region of its input, and the padding that it still adds.

    Args:
        region: of the input, within its bounds.
        before, after: padding per spatial axis.
    """

    region: Region
    before: tuple[int, ...]
    after: tuple[int, ...]


def runs_by_patches(graph: ExactGraph, node: Node) -> bool:
    """Whether a part of a node's output is computed from a part of its input."""
    if len(graph.tensors[node.output].shape) < 2:
        return False
    if isinstance(node, (*WINDOWED, *ELEMENTWISE)):
        return True
    if isinstance(node, ir.Concat | ir.Slice):
        return node.axis == 0
    if isinstance(node, ir.Add | ir.Mul):
        rank = len(graph.tensors[node.output].shape)
        shapes = [graph.tensors[name].shape for name in node.inputs if name in graph.constants]
        return all(max(shape[1:], default=1) == 1 and len(shape) in (0, rank) for shape in shapes)
    return False


def reading(graph: ExactGraph, node: Node, region: Region) -> Reading:
    """What a node reads of its computed inputs for a region of its output.

    Along an axis with kernel k, stride s, dilation d and padding p in front, outputs ``[a, b)`` read inputs
    from ``a s - p`` up to and with ``(b - 1) s - p + (k - 1) d``.
    """
    nothing = (0,) * len(region)
    if not isinstance(node, WINDOWED):
        return Reading(region, nothing, nothing)
    sizes = graph.tensors[node.inputs[0]].shape[1:]
    places, before, after = [], [], []
    for axis, (start, stop) in enumerate(region):
        kernel, stride, dilation, pad = _window(graph, node, axis)
        first = start * stride - pad
        last = (stop - 1) * stride - pad + (kernel - 1) * dilation
        places.append((max(first, 0), min(last + 1, sizes[axis])))
        before.append(max(-first, 0))
        after.append(max(last + 1 - sizes[axis], 0))
    return Reading(tuple(places), tuple(before), tuple(after))


def _window(graph: ExactGraph, node: Node, axis: int) -> tuple[int, int, int, int]:
    """Kernel, stride, dilation and padding in front, along a spatial axis."""
    assert isinstance(node, WINDOWED)
    kernel = graph.tensors[node.inputs[1]].shape[2:] if isinstance(node, ir.Conv) else node.kernel
    dilation = 1 if isinstance(node, ir.SumPool) else node.dilations[axis]
    return kernel[axis], node.strides[axis], dilation, node.pads[axis]


def on_region(node: Node, read: Reading) -> Node:
    """The node as it runs on the region that it reads."""
    if isinstance(node, WINDOWED):
        return replace(node, pads=(*read.before, *read.after))
    return node


def joined(regions: Sequence[Region]) -> Region:
    """The smallest region that holds several: what readers of one tensor need together."""
    return tuple(
        (min(part[0] for part in axis), max(part[1] for part in axis)) for axis in zip(*regions, strict=True)
    )


def regions_of(graph: ExactGraph, nodes: Sequence[Node], tensor: str, region: Region) -> dict[str, Region]:
    """The region of every tensor that a region of one of them is computed from.

    Args:
        nodes: those that lead to the tensor, in order.

    Returns:
        By tensor; those that the region does not depend on are left out.
    """
    needed: dict[str, list[Region]] = {tensor: [region]}
    found: dict[str, Region] = {}
    for node in reversed(nodes):
        if node.output not in needed:
            continue
        found[node.output] = joined(needed[node.output])
        read = reading(graph, node, found[node.output]).region
        for name in graph.activations(node):
            needed.setdefault(name, []).append(read)
    inputs = {name: joined(parts) for name, parts in needed.items() if name not in found}
    return {**inputs, **found}
