"""Compares two executions code by code, layer by layer, with zero tolerance."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from qhw.errors import CheckFailedError, InputError
from qhw.formats.modes import IntArray, shift_left
from qhw.graph.ir import ExactGraph, TensorType
from qhw.graph.passes.constant_channels import Kept, kept_channels


@dataclass(frozen=True)
class Mismatch:
    """One element that differs: which sample, where in it, and both mantissas."""

    sample: int
    position: tuple[int, ...]
    left: int
    right: int


@dataclass(frozen=True)
class LayerComparison:
    """One tensor in both executions.

    ``layer`` is the node that wrote it (the input's own name for a graph input), ``source`` the node of the
    QONNX file behind it, ``distinct`` how many different codes the left execution holds. ``covers``: where it
    differs, the nodes in front of it whose own results were not compared.
    """

    tensor: str
    layer: str
    op: str
    source: str
    codes: int
    mismatches: int
    distinct: int
    first: Mismatch | None
    covers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two executions, in the order of the graph."""

    left: str
    right: str
    layers: tuple[LayerComparison, ...]

    @property
    def codes(self) -> int:
        """How many codes were compared."""
        return sum(layer.codes for layer in self.layers)

    @property
    def mismatches(self) -> int:
        """How many of them differ."""
        return sum(layer.mismatches for layer in self.layers)

    @property
    def first(self) -> LayerComparison | None:
        """The first layer, in the order of the graph, that differs."""
        return next((layer for layer in self.layers if layer.mismatches), None)

    def require_equal(self) -> Comparison:
        """This comparison; raises CheckFailedError (layer, element, both values) if any code differs."""
        if self.first is not None:
            raise CheckFailedError(
                f"{self.left} and {self.right} differ in {self.mismatches} of {self.codes} codes, "
                f"first in {describe(self.first, self.left, self.right)}",
                hint="`qhw diff` lists every layer of two executions",
            )
        return self


def describe(layer: LayerComparison, left: str = "left", right: str = "right") -> str:
    """A layer and its first differing element in words."""
    origin = f", from '{layer.source}'" if layer.source and layer.source != layer.layer else ""
    front = f", with {', '.join(layer.covers)} in front of it" if layer.covers else ""
    text = f"layer '{layer.layer}' ({layer.op}{origin}{front})"
    if layer.first is None:
        return f"{text}: {layer.codes} codes, none differs"
    at = layer.first
    place = f"sample {at.sample}, element ({', '.join(map(str, at.position))})"
    return (
        f"{text}: {layer.mismatches} of {layer.codes} codes; "
        f"{place} is {at.left} in {left} and {at.right} in {right}"
    )


def compare(
    graph: ExactGraph,
    left: Mapping[str, IntArray],
    right: Mapping[str, IntArray],
    *,
    names: tuple[str, str] = ("left", "right"),
    right_graph: ExactGraph | None = None,
) -> Comparison:
    """Compare every tensor that both executions hold, in the order of ``graph``.

    Channels that one of them lacks, because its design leaves them out (``graph.passes.constant_channels``),
    are left out of the other, too.

    Args:
        left, right: mantissas (N, *shape) by tensor name, as the interpreter returns them.
        names: the two executions' names in messages.
        right_graph: the right execution's graph, if it is another; tensors are matched by name, and numbers
            at another exponent are aligned before they are compared.

    Raises:
        InputError: no tensor is in both, or one has different shapes.
    """
    layers = []
    common = _Common(graph, right_graph or graph)
    for tensor, layer, op, source in _tensors(graph):
        if tensor in left and tensor in right:
            pair = _aligned(
                graph, right_graph or graph, tensor, *common.of(tensor, left[tensor], right[tensor])
            )
            found = LayerComparison(tensor, layer, op, source, *_difference(tensor, *pair, names))
            covers = _covered(graph, tensor, left.keys() & right.keys()) if found.mismatches else ()
            layers.append(replace(found, covers=covers))
    if not layers:
        raise InputError(
            f"{names[0]} and {names[1]} have no tensor of '{graph.name}' in common",
            hint="keep the same layers in both (keep='all')",
        )
    return Comparison(*names, tuple(layers))


class _Common:
    """The channels that two executions have in common where a design leaves some out."""

    def __init__(self, *graphs: ExactGraph) -> None:
        self._graphs = graphs

    def of(self, tensor: str, *both: IntArray) -> Iterator[IntArray]:
        """Two arrays (N, C, …) of a tensor; of the larger one, the channels that the other has."""
        for graph, x, other in zip(self._graphs, both, both[::-1], strict=True):
            if x.ndim == other.ndim > 1 and x.shape[1] > other.shape[1]:
                kept = self._kept[id(graph)].get(tensor)
                if kept is not None and (len(kept), kept.sum()) == (x.shape[1], other.shape[1]):
                    x = x[:, kept]
            yield x

    @cached_property
    def _kept(self) -> dict[int, dict[str, Kept]]:
        return {id(graph): kept_channels(graph) for graph in self._graphs}


def _covered(graph: ExactGraph, tensor: str, compared: Collection[str]) -> tuple[str, ...]:
    """The nodes that lead to a tensor without a compared one in between: where its fault may lie, too."""
    producers = {node.output: node for node in graph.nodes}
    pending, found = [tensor], set[str]()
    while pending:
        node = producers.get(pending.pop())
        hidden = (
            {name for name in node.inputs if name in producers and name not in compared} if node else set()
        )
        pending += hidden - found
        found |= hidden
    return tuple(node.name for node in graph.nodes if node.output in found)


def _tensors(graph: ExactGraph) -> Iterator[tuple[str, str, str, str]]:
    """Tensor, layer, operation and source of every activation, in order."""
    for name in graph.inputs:
        yield name, name, "Input", ""
    for node in graph.nodes:
        yield node.output, node.name, node.op, node.source


def _difference(
    tensor: str, left: IntArray, right: IntArray, names: tuple[str, str]
) -> tuple[int, int, int, Mismatch | None]:
    """Codes, mismatches, distinct codes on the left, and the first element that differs."""
    if left.shape != right.shape:
        raise InputError(
            f"'{tensor}' has shape {left.shape} in {names[0]} and {right.shape} in {names[1]}",
            hint="run both on the same samples",
        )
    differing = np.asarray(left != right)
    mismatches = int(np.count_nonzero(differing))
    first = None
    if mismatches:
        at = np.unravel_index(int(differing.argmax()), differing.shape)
        sample, *position = (int(i) for i in at)
        first = Mismatch(sample, tuple(position), int(left[at]), int(right[at]))
    return left.size, mismatches, distinct_codes(left), first


def distinct_codes(x: IntArray) -> int:
    """How many different numbers an array holds."""
    if x.size == 0 or x.dtype == object:
        return len(set(x.flat))
    low, high = int(x.min()), int(x.max())
    if high - low < 1 << 20:
        return int(np.count_nonzero(np.bincount((x - low).reshape(-1))))
    return int(np.unique(x).size)


def _aligned(
    graph: ExactGraph, other: ExactGraph, tensor: str, left: IntArray, right: IntArray
) -> tuple[IntArray, IntArray]:
    """Both arrays in units of the finer exponent, where the two graphs differ in it."""
    if tensor not in other.tensors:
        return left, right
    ours, theirs = graph.tensors[tensor], other.tensors[tensor]
    if ours.exponent == theirs.exponent or len(ours.shape) != len(theirs.shape):
        return left, right
    finest = min(*ours.exponent.values, *theirs.exponent.values)
    return _at_exponent(left, ours, finest), _at_exponent(right, theirs, finest)


def _at_exponent(x: IntArray, kind: TensorType, exponent: int) -> IntArray:
    shifts = kind.exponent.broadcast(len(kind.shape)) - exponent
    if shifts.ndim == 0:
        return shift_left(x, int(shifts))
    return np.asarray(x.astype(object) * np.left_shift(1, shifts.astype(object)))
