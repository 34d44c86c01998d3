"""Feature maps of fewer bits: which tensors can have them, and the exact graph in which they do.

A feature map's bits and exponent are those of the Requant that writes it, so a graph of mixed widths is an
exact graph like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from qhw.errors import UnsupportedError
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Overflow, Rounding, round_shift
from qhw.formats.requantise import requantise
from qhw.graph import ir
from qhw.graph.builder import value_ranges
from qhw.graph.infer import Operand, infer
from qhw.graph.ir import ExactGraph, Exponent, Node, TensorType

MOST_BITS = 8
"""The widest feature map that may become narrower: of wider ones (logits), every code counts."""


@dataclass(frozen=True)
class Width:
    """Bits of a feature map's codes, and the power of two that a mantissa of 1 stands for."""

    bits: int
    exponent: int


def carried(graph: ExactGraph) -> dict[str, str]:
    """For every tensor, the one whose codes it carries: through a pool, a Reshape or a Slice; else itself."""
    found = {name: name for name in (*graph.inputs, *graph.constants)}
    for node in graph.nodes:
        read = list(dict.fromkeys(graph.activations(node)))
        moved = node.moves_codes and len(read) == 1
        found[node.output] = found[read[0]] if moved else node.output
    return found


def feature_maps(graph: ExactGraph) -> list[str]:
    """The tensors that can have fewer bits, in order: what a saturating Requant writes, in up to 8 bits.

    Left out are the graph's outputs; what is joined with others in a Concat, whose formats must be equal; and
    what is padded with another number than 0, which would be another value.
    """
    codes = carried(graph)
    bound = {codes[name] for name in graph.outputs}
    for node in graph.nodes:
        if isinstance(node, ir.Concat) or any(node.inserted):
            bound |= {codes[name] for name in graph.activations(node)}
    return [
        node.output
        for node in graph.nodes
        if isinstance(node, ir.Requant)
        and node.overflow in (Overflow.SAT, Overflow.SAT_SYM)
        and node.output not in bound
        and _is_narrowable(graph.tensors[node.output])
    ]


def _is_narrowable(kind: TensorType) -> bool:
    return isinstance(kind.format, Integer) and kind.format.width <= MOST_BITS and kind.exponent.is_scalar


def narrow_requant(node: ir.Requant, kind: TensorType, width: Width) -> tuple[ir.Requant, TensorType]:
    """A feature map's Requant and type, for fewer bits; bounds (the 6 of a ReLU6) stay where they were.

    Raises:
        UnsupportedError: the exponent is finer than the feature map's own.
    """
    shift = width.exponent - kind.exponent.values[0]
    if shift < 0 or not 1 <= width.bits <= kind.format.width:
        raise UnsupportedError(
            f"'{node.output}' has {kind.format.width} bits at 2^{kind.exponent.values[0]}; it cannot have "
            f"{width.bits} at 2^{width.exponent}",
            allowed="as many bits or fewer, at the same exponent or a coarser one",
        )
    format = Integer(width.bits, kind.format.signed)
    low, high = (
        None
        if bound is None
        else int(np.clip(_rounded(bound, shift, node.rounding), format.mantissa_low, format.mantissa_high))
        for bound in (node.low, node.high)
    )
    return replace(node, low=low, high=high), TensorType(kind.shape, format, Exponent.scalar(width.exponent))


def _rounded(bound: int, shift: int, rounding: Rounding) -> int:
    return int(round_shift(np.array([bound], dtype=np.int64), shift, rounding)[0])


def narrowed(graph: ExactGraph, widths: Mapping[str, Width]) -> ExactGraph:
    """The graph with feature maps of other widths; types behind them follow, in their usual rules.

    Args:
        widths: by tensor, some of :func:`feature_maps` (of a graph with patches: each patch's own).

    Raises:
        UnsupportedError: a tensor is no such feature map, or the width is none that it can have.
    """
    if unknown := [name for name in widths if not _written_by_requant(graph, name)]:
        raise UnsupportedError(
            f"{', '.join(unknown)} cannot have fewer bits", allowed=", ".join(feature_maps(graph)) or None
        )
    retyped = _Retyping(graph)
    for node in graph.nodes:
        retyped.add(node, widths.get(node.output))
    tensors = {**graph.tensors, **retyped.tensors}
    result = replace(graph, tensors=tensors).replace_nodes(retyped.nodes)
    value_ranges(result)  # checks every type
    return result


def _written_by_requant(graph: ExactGraph, name: str) -> bool:
    return isinstance(graph.producer(name), ir.Requant) and _is_narrowable(graph.tensors[name])


class _Retyping:
    """Nodes one after the other, each with the type that its operation gives on the new types."""

    def __init__(self, graph: ExactGraph) -> None:
        self.graph = graph
        self.nodes: list[Node] = []
        self.tensors = {name: graph.tensors[name] for name in (*graph.inputs, *graph.constants)}
        self.ranges = value_ranges(replace(graph, nodes=[]))

    def add(self, node: Node, width: Width | None) -> None:
        declared = self.graph.tensors[node.output]
        if isinstance(node, ir.Threshold | ir.Table):
            node = self._with_old_input(node)
        elif isinstance(node, ir.Requant):
            if width is not None:
                node, declared = narrow_requant(node, declared, width)
        elif node.moves_codes:
            first = self.tensors[next(self.graph.activations(node))]
            declared = TensorType(declared.shape, first.format, first.exponent)
        else:
            declared = self._summed(node, declared)
        self._append(node, declared)

    def _summed(self, node: Node, declared: TensorType) -> TensorType:
        """The type of a result that nothing rounds: as it was, unless its operands changed it.

        A coarser feature map in front may reach further, by the rounding of its largest number.
        """
        result = infer(node, self._operands(node), declared)
        low, high = result.partial
        holds = declared.format.mantissa_low <= low and high <= declared.format.mantissa_high
        same = all(self.tensors[name] == self.graph.tensors[name] for name in node.inputs)
        return declared if same and holds else result.type()

    def _with_old_input(self, node: Node) -> Node:
        """Thresholds and tables are made for one exponent: a coarser input is shifted back to it, exactly."""
        name = next(self.graph.activations(node))
        old, new = self.graph.tensors[name], self.tensors[name]
        if (old.exponent, old.format) == (new.exponent, new.format):
            return node
        shift = max(new.exponent.values) - min(old.exponent.values)
        low, high = self.ranges[name].bounds
        holding = Integer.holding(min(0, low << shift), max(0, high << shift))
        back = f"{node.name}.unshifted"
        self._append(
            ir.Requant(back, (name,), back, rounding=Rounding.TRN, overflow=Overflow.SAT, source=node.source),
            TensorType(old.shape, holding, old.exponent),
        )
        return replace(node, inputs=tuple(back if given == name else given for given in node.inputs))

    def _operands(self, node: Node) -> list[Operand]:
        return [
            Operand(self.tensors[name], self.ranges[name], self.graph.constants.get(name))
            for name in node.inputs
        ]

    def _append(self, node: Node, declared: TensorType) -> None:
        self.ranges[node.output] = infer(node, self._operands(node), declared).range
        self.tensors[node.output] = declared
        self.nodes.append(node)


def code_map(node: ir.Requant, kind: TensorType, width: Width) -> IntArray:
    """What each code of a feature map becomes in another width: from the lowest mantissa of its format up."""
    narrow, type_ = narrow_requant(node, kind, width)
    codes = np.arange(kind.format.mantissa_low, kind.format.mantissa_high + 1, dtype=np.int64)
    shift = width.exponent - kind.exponent.values[0]
    return requantise(codes, shift, type_.format, narrow.rounding, narrow.overflow, narrow.low, narrow.high)


def best_width(node: ir.Requant, kind: TensorType, counts: IntArray, bits: int) -> Width:
    """The exponent at which so many bits give the least squared error; of several, the finest.

    Args:
        counts: how often each code of the feature map occurs, from its format's lowest mantissa up.
    """
    exponent, wide = kind.exponent.values[0], kind.format.width
    codes = np.arange(kind.format.mantissa_low, kind.format.mantissa_high + 1, dtype=np.int64)

    def error(shift: int) -> int:
        moved = code_map(node, kind, Width(bits, exponent + shift)) << shift
        return int(np.sum(counts * (moved - codes) ** 2))

    shifts = range(wide - bits + 1) if bits < wide else range(1)
    return Width(bits, exponent + min(shifts, key=lambda shift: (error(shift), shift)))
