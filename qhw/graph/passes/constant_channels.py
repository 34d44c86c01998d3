"""Channels that hold one number whatever the input, or that nothing reads, are left out: structured pruning.

A channel whose weights are all zero gives its bias: behind batch norm, ReLU and rounding that is still one
number. Ranges prove it, so a ReLU that never opens counts too. What a convolution or matrix product would add
for such a channel goes into its bias, which is exact where no padding stands in the channel's place, or where
its number is 0. A channel that meets weights of zero alone is not needed either.

A channel is kept where anything needs it: operations that work channel by channel keep the same channels on
both sides, so a sum keeps what any of its operands needs. Graph outputs keep all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.builder import GraphBuilder, value_ranges
from qhw.graph.infer import Range, infer
from qhw.graph.ir import ExactGraph, Exponent, Node, TensorType

Kept = NDArray[np.bool_]
"""Which channels of a tensor are kept, (C,)."""

_EACH_BY_ITSELF = (
    *(ir.Add, ir.Affine, ir.Concat, ir.MaxPool, ir.Mul, ir.Pad, ir.ReduceMax, ir.ReduceSum, ir.Requant),
    *(ir.Reshape, ir.Slice, ir.SumPool, ir.Table, ir.Threshold, ir.Transpose, ir.Upsample),
)
"""Operations whose channels do not meet, where the axis of the channels stays what it is."""

_PER_CHANNEL = (ir.Affine, ir.Table, ir.Threshold)
"""Operations whose constants have the channels as their first axis, or one entry for all."""


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """Leave out every channel that nothing needs; tensors keep their names, the last channel of one stays."""
    ranges = value_ranges(graph)
    kept = _kept(graph, ranges)
    if all(mask.all() for mask in kept.values()):
        return graph, False
    return _Rebuilding(graph, ranges, kept).run(), True


def removed(before: ExactGraph, after: ExactGraph) -> int:
    """How many channels of convolutions and matrix products a graph has less than the one that it was."""
    sums = [node.output for node in after.nodes if isinstance(node, ir.Conv | ir.MatMul)]
    shapes = [
        (before.tensors[name].shape, after.tensors[name].shape) for name in sums if name in before.tensors
    ]
    return sum(full[0] - left[0] for full, left in shapes if full)


def kept_channels(graph: ExactGraph) -> dict[str, Kept]:
    """Which channels of each input and each computed tensor :func:`apply` keeps."""
    return _kept(graph, value_ranges(graph))


# --- which channels are needed ----------------------------------------------------------------------


def _kept(graph: ExactGraph, ranges: Mapping[str, Range]) -> dict[str, Kept]:
    """The channels of each computed tensor and input that something needs: the least that is consistent."""
    names = [*graph.inputs, *(node.output for node in graph.nodes)]
    kept = {name: np.zeros(_channels(graph, name), dtype=np.bool_) for name in names}
    for name in (*graph.inputs, *graph.outputs):
        kept[name][:] = True
    before = -1
    while (count := sum(int(mask.sum()) for mask in kept.values())) != before:
        before = count
        for node in reversed(graph.nodes):
            _spread(graph, ranges, node, kept)
        for mask in kept.values():
            if not mask.any():
                mask[0] = True  # a tensor has one channel at least
    return kept


def _spread(graph: ExactGraph, ranges: Mapping[str, Range], node: Node, kept: dict[str, Kept]) -> None:
    """Keep in a node's operands what its result needs of them, and in its result what they have."""
    out, sources = kept[node.output], list(graph.activations(node))
    links = _links(graph, node)
    if links is not None:
        for name, link in zip(sources, links, strict=True):
            # An element of the result belongs to one channel of an operand; -1: to none.
            own = link >= 0
            np.logical_or.at(kept[name], link[own], out[own])
            out[own] |= kept[name][link[own]]
    elif (weight := _weight(graph, node)) is not None:
        kept[sources[0]] |= _demanded(graph, ranges, node, weight[out])
    else:
        for mask in (out, *(kept[name] for name in sources)):
            mask[:] = True


def _links(graph: ExactGraph, node: Node) -> list[IntArray] | None:
    """For each computed operand, the channel of it that each channel of the result comes from; None: many."""
    out, sources = graph.tensors[node.output], list(graph.activations(node))
    shapes = [graph.tensors[name].shape for name in sources]
    if not out.shape or any(not shape for shape in shapes):
        return None
    same = np.arange(out.shape[0])
    if isinstance(node, ir.Conv):
        by_itself = node.groups == shapes[0][0] == out.shape[0]
        return [same] if by_itself else None
    if not isinstance(node, _EACH_BY_ITSELF):
        return None
    if isinstance(node, ir.Concat) and node.axis == 0:
        if len(sources) < len(node.inputs):
            return None
        ends = np.cumsum([0, *(shape[0] for shape in shapes)])
        return [np.where((same >= a) & (same < b), same - a, -1) for a, b in pairwise(ends)]
    if isinstance(node, ir.Slice) and node.axis == 0:
        return [same + node.start] if node.step == 1 else None
    if isinstance(node, ir.Reshape) and len(out.shape) == 1 and out.shape != shapes[0]:
        return [np.repeat(np.arange(shapes[0][0]), out.shape[0] // shapes[0][0])]
    constants = [graph.tensors[n].shape for n in node.inputs if n in graph.constants]
    splits = isinstance(node, _PER_CHANNEL) or all(_is_split(shape, out.shape) for shape in constants)
    if not _keeps_axis(node) or not splits or any(shape[0] != out.shape[0] for shape in shapes):
        return None
    return [same] * len(sources)


def _keeps_axis(node: Node) -> bool:
    """Whether the axis of the channels is the result's first, too, and as long."""
    match node:
        case ir.Transpose():
            return node.perm[0] == 0
        case ir.Pad():
            return node.pads[0] == node.pads[len(node.pads) // 2] == 0
        case ir.ReduceMax() | ir.ReduceSum():
            return 0 not in node.axes
        case _:
            return True


def _is_split(constant: tuple[int, ...], out: tuple[int, ...]) -> bool:
    """Whether a constant of an element-wise operation has the result's channels, or one number for all."""
    return len(constant) < len(out) or constant[0] in (1, out[0])


def _weight(graph: ExactGraph, node: Node) -> IntArray | None:
    """Constant weights (outputs, inputs, places) of a sum over all channels; None: the node is none."""
    if node.inputs[1:2] == () or node.inputs[0] in graph.constants:
        return None
    value = graph.constants.get(node.inputs[1])
    if value is None:
        return None
    if isinstance(node, ir.Conv) and node.groups == 1:
        return value.reshape(*value.shape[:2], -1)
    if isinstance(node, ir.MatMul) and len(graph.tensors[node.inputs[0]].shape) == 1 and value.ndim == 2:
        return value.T[:, :, np.newaxis]
    return None


def _demanded(graph: ExactGraph, ranges: Mapping[str, Range], node: Node, weight: IntArray) -> Kept:
    """The input channels that a sum with those weights cannot do without."""
    x = node.inputs[0]
    low, high = _span(graph, ranges, x)
    padded = isinstance(node, ir.Conv) and any(node.pads)
    is_constant = (low == high) & ((low == 0) | (not padded))
    has_one_exponent = graph.tensors[x].exponent.is_scalar
    absorbed = is_constant.astype(np.bool_) if has_one_exponent else np.zeros(len(low), dtype=np.bool_)
    return np.asarray((weight != 0).any(axis=(0, 2)) & ~absorbed)


def _span(graph: ExactGraph, ranges: Mapping[str, Range], name: str) -> tuple[IntArray, IntArray]:
    """The lowest and the highest mantissa of each channel."""
    channels = (_channels(graph, name),)
    low, high = (np.broadcast_to(bound, channels) for bound in (ranges[name].low, ranges[name].high))
    return low, high


def _channels(graph: ExactGraph, name: str) -> int:
    shape = graph.tensors[name].shape
    return shape[0] if shape else 1


# --- the graph without the others -------------------------------------------------------------------


@dataclass
class _Rebuilding:
    """Builds the graph anew: every type that follows from operands is inferred again."""

    graph: ExactGraph
    ranges: Mapping[str, Range]
    kept: Mapping[str, Kept]

    def __post_init__(self) -> None:
        self.builder = GraphBuilder(self.graph.name)
        self._constants: dict[tuple[str | bytes, ...], str] = {}

    def run(self) -> ExactGraph:
        graph = self.graph
        for name in graph.inputs:
            kind = graph.tensors[name]
            self.builder.input(name, kind.shape, kind.format, kind.exponent, graph.input_encodings.get(name))
        taken = [node.output for node in graph.nodes]
        self.builder.graph.tensors |= {
            name: graph.tensors[name] for name in taken
        }  # no constant is called so
        for node in graph.nodes:
            self._add(node)
        built = self.builder.graph
        return dataclasses.replace(
            graph,
            tensors=built.tensors, constants=built.constants, nodes=built.nodes,
        ).replace_nodes(built.nodes)  # fmt: skip

    def _add(self, node: Node) -> None:
        kept, declared = self.kept[node.output], self.graph.tensors[node.output]
        new = self._with_constants(node, kept)
        if isinstance(new, ir.Conv) and new.groups > 1:
            depth = self.builder.type(new.inputs[1]).shape[1]
            new = dataclasses.replace(new, groups=int(self.kept[node.inputs[0]].sum()) // depth)
        if isinstance(new, ir.Slice) and new.axis == 0:
            before = self.kept[node.inputs[0]]
            new = dataclasses.replace(
                new, start=int(before[: new.start].sum()), stop=int(before[: new.stop].sum())
            )
        if node.moves_codes:
            first = self.builder.type(new.inputs[0])
            shape = (int(kept.sum()), *declared.shape[1:]) if declared.shape else ()
            operands = [self.builder.operand(name) for name in new.inputs]
            result = infer(new, operands, TensorType(shape, first.format, first.exponent))
            self.builder.add_node(new, TensorType(result.shape, first.format, result.exponent))
        elif isinstance(node, ir.Requant | ir.Threshold | ir.Table):
            self.builder.add_node(new, _of_channels(declared, 0, kept))
        elif any(reader.moves_codes for reader in self.graph.consumers(node.output)):
            # Codes that meet there, or are put between them, need the format that they had.
            self.builder.add_node(new, _of_channels(declared, 0, kept))
        else:
            self.builder.add_node(new)

    def _with_constants(self, node: Node, kept: Kept) -> Node:
        """The node with the parts of its constants that are left, and a bias for what is not."""
        inputs = [self._name(node, place, kept) for place in range(len(node.inputs))]
        weight = _weight(self.graph, node)
        source = node.inputs[0]
        if weight is not None and (lost := ~self.kept[source]).any():
            numbers = _span(self.graph, self.ranges, source)[0]
            added = (weight[kept][:, lost].astype(object).sum(axis=2) * numbers[lost]).sum(axis=1)
            if (added != 0).any():
                inputs[2:] = [self._bias(node, inputs, added)]
        return dataclasses.replace(node, inputs=tuple(inputs))

    def _name(self, node: Node, place: int, kept: Kept) -> str:
        """An operand's name; of a constant, that of the part which is left."""
        name = node.inputs[place]
        if name not in self.graph.constants:
            return name
        value, kind = self.graph.constants[name], self.graph.tensors[name]
        cuts: list[tuple[int, Kept]] = []
        if place == 1 and _weight(self.graph, node) is not None:
            of_source = self.kept[node.inputs[0]]
            cuts = [(0, of_source), (1, kept)] if isinstance(node, ir.MatMul) else [(0, kept), (1, of_source)]
        elif value.ndim and len(value) == len(kept) > 1:
            by_channel = isinstance(node, (ir.Conv, ir.MatMul, *_PER_CHANNEL))
            if by_channel or value.ndim == len(self.graph.tensors[node.output].shape):
                cuts = [(0, kept)]
        key: tuple[str | bytes, ...] = (name, *(mask.tobytes() for _, mask in cuts))
        if key not in self._constants:
            for axis, mask in cuts:
                value, kind = np.compress(mask, value, axis), _of_channels(kind, axis, mask)
            self._constants[key] = self.builder.constant(name, value, kind.format, kind.exponent)
        return self._constants[key]

    def _bias(self, node: Node, inputs: Sequence[str], added: IntArray) -> str:
        """A bias (outputs,) that holds the old one and what is added, both exactly."""
        weight = self.builder.type(inputs[1]).exponent
        unit = np.array(
            self.builder.type(inputs[0]).exponent.values[0] + np.array(weight.values), dtype=np.int64
        )
        unit = np.broadcast_to(unit, added.shape)
        finest, old = unit, np.zeros(len(added), dtype=object)
        if len(inputs) > 2:
            of_old = np.broadcast_to(np.array(self.builder.type(inputs[2]).exponent.values), added.shape)
            finest = np.minimum(unit, of_old)
            old = self.builder.graph.constants[inputs[2]].astype(object).reshape(-1) << (
                of_old - finest
            ).astype(object)
        total = old + (added << (unit - finest).astype(object))
        exponent = (
            Exponent.scalar(int(finest[0]))
            if len(set(finest.tolist())) == 1
            else Exponent(tuple(finest.tolist()), 0)
        )
        return self.builder.constant(f"{node.name}_bias_of_constant_channels", total, exponent=exponent)


def _of_channels(kind: TensorType, axis: int, kept: Kept) -> TensorType:
    """A type with fewer indices along an axis."""
    shape = list(kind.shape)
    shape[axis] = int(kept.sum())
    exponent = kind.exponent
    if exponent.axis == axis:
        exponent = Exponent(tuple(np.array(exponent.values)[kept].tolist()), axis)
    return TensorType(tuple(shape), kind.format, exponent)
