"""Types and ranges of many points at once, by the operations' own rules.

A tensor of the exact graph has one type and range per point, of which few differ: each is numbered where it
is first met (:class:`Tensors`). What a node gives for operands of one exponent is asked of its own rule once;
for all other ranges of such operands the same interval arithmetic is done here, on arrays with an axis in
front. What has no such form, or needs more than 53 bits (sums of products) or 62, is asked of the rule, one
by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np

from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Overflow, round_shift
from qhw.formats.requantise import requantise
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.infer import Operand, Range, Result, infer, requant_bounds
from qhw.graph.ir import ExactGraph, Node, TensorType

Span: TypeAlias = "tuple[IntArray, IntArray]"
"""Lowest and highest mantissas, (types, channels) each; int64, or Python integers where that is too short."""

_FLOAT_BITS, _INT_BITS = 53, 62


@dataclass
class Tensors:
    """The types and ranges that one tensor was met with.

    Args:
        kinds: its types without ranges, each once.
        kind_of: the place in ``kinds``, by type.
        low, high: bounds per channel, (channels,), by type.
    """

    kinds: list[TensorType] = field(default_factory=list)
    kind_of: list[int] = field(default_factory=list)
    low: list[IntArray] = field(default_factory=list)
    high: list[IntArray] = field(default_factory=list)
    _kind_numbers: dict[TensorType, int] = field(default_factory=dict, repr=False)
    _numbers: dict[object, int] = field(default_factory=dict, repr=False)

    def kind(self, kind: TensorType) -> int:
        """The place of a type in ``kinds``."""
        if kind not in self._kind_numbers:
            self._kind_numbers[kind] = len(self.kinds)
            self.kinds.append(kind)
        return self._kind_numbers[kind]

    def number(self, kind: int, low: IntArray, high: IntArray) -> int:
        """The number of a type with a range."""
        key = (kind, _frozen(low), _frozen(high))
        found = self._numbers.setdefault(key, len(self.low))
        if found == len(self.low):
            self.kind_of.append(kind)
            self.low.append(low)
            self.high.append(high)
        return found

    def add(self, kind: TensorType, span: Range) -> int:
        """The number of a type with a range as the rules give it."""
        return self.number(self.kind(kind), *(_row(bound, kind) for bound in (span.low, span.high)))

    def span(self, numbers: Sequence[int]) -> Span:
        """The ranges of some types."""
        return np.stack([self.low[n] for n in numbers]), np.stack([self.high[n] for n in numbers])

    def operand(self, number: int) -> Operand:
        """A type as the rules take it."""
        low, high = self.low[number], self.high[number]
        is_whole = (low == low[0]).all() and (high == high[0]).all()
        span = Range.of(int(low[0]), int(high[0])) if is_whole else Range.of(low, high)
        return Operand(self.kinds[self.kind_of[number]], span)


def results(
    graph: ExactGraph, node: Node, tensors: Mapping[str, Tensors], given: Sequence[Sequence[int]]
) -> list[int]:
    """The numbers of what a node gives.

    Args:
        graph: the variant whose constants and declared type the node has.
        tensors: by name, the node's computed operands and its result.
        given: for each case, the numbers of its computed operands.
    """
    names = list(graph.activations(node))
    groups: dict[object, list[int]] = {}
    for case, numbers in enumerate(given):
        kinds = (
            tensors[name].kinds[tensors[name].kind_of[n]] for name, n in zip(names, numbers, strict=True)
        )
        key = tuple(kind if node.moves_codes else kind.exponent for kind in kinds)
        groups.setdefault(key, []).append(case)
    found = [0] * len(given)
    for cases in groups.values():
        for case, number in zip(
            cases, _alike(graph, node, tensors, names, [given[c] for c in cases]), strict=True
        ):
            found[case] = number
    return found


def _alike(
    graph: ExactGraph,
    node: Node,
    tensors: Mapping[str, Tensors],
    names: Sequence[str],
    given: Sequence[Sequence[int]],
) -> list[int]:
    """The numbers of what a node gives for operands that differ in range and width alone."""
    out = tensors[node.output]
    result, declared = _by_rule(graph, node, tensors, names, given[0])
    states = states_its_type(node)
    if len(given) > 1 and node.op in _BATCHED:
        operands = [tensors[name].operand(number).type for name, number in zip(names, given[0], strict=True)]
        spans = [tensors[name].span([case[k] for case in given]) for k, name in enumerate(names)]
        task = _Task(graph, node, operands, declared, result)
        if all(bound.dtype != object for span in spans for bound in span):
            batch = _BATCHED[node.op](task, spans)
            if batch is not None:
                return _numbered(out, result, declared if states else None, batch, len(given))
    found = []
    for case in given:
        if case is not given[0]:
            result, declared = _by_rule(graph, node, tensors, names, case)
        found.append(out.add(declared if states else result.type(), result.range))
    return found


def _by_rule(
    graph: ExactGraph,
    node: Node,
    tensors: Mapping[str, Tensors],
    names: Sequence[str],
    numbers: Sequence[int],
) -> tuple[Result, TensorType]:
    """What the node's own rule says of one case, and the type that the operation states or leaves open."""
    computed = {name: tensors[name].operand(n) for name, n in zip(names, numbers, strict=True)}
    operands = [
        computed[name]
        if name in computed
        else Operand(graph.tensors[name], _constant_range(graph, name), graph.constants[name])
        for name in node.inputs
    ]
    declared = graph.tensors[node.output]
    if node.moves_codes:  # the codes that it moves have the type that they had
        declared = TensorType(declared.shape, operands[0].type.format, operands[0].type.exponent)
    return infer(node, operands, declared), declared


def states_its_type(node: Node) -> bool:
    """Whether the type of a node's result does not follow from what its operands may be."""
    return isinstance(node, DECLARING) or node.moves_codes


DECLARING = (ir.Requant, ir.Threshold, ir.Table)
"""Operations that state the format of their result."""


# --- interval arithmetic on arrays ------------------------------------------------------------------


@dataclass(frozen=True)
class _Task:
    """A node at operands whose exponents are given.

    Args:
        operands: types of the computed operands, whose formats may be others.
        result: what the node's rule gave for one of the ranges.
    """

    graph: ExactGraph
    node: Any
    operands: Sequence[TensorType]
    declared: TensorType
    result: Result

    def constant(self, index: int) -> IntArray | None:
        """An input of the node, where it is a constant."""
        return self.graph.constants.get(self.node.inputs[index])

    def exponents(self, index: int) -> IntArray:
        """The exponents of an input, one or one per channel."""
        name = self.node.inputs[index]
        activations = list(self.graph.activations(self.node))
        kind = self.operands[activations.index(name)] if name in activations else self.graph.tensors[name]
        return np.array(kind.exponent.values, dtype=np.int64)

    def factors(self, exponents: IntArray) -> IntArray:
        """What mantissas of those exponents are multiplied by at those of the result; Python integers."""
        shifts = exponents - np.array(self.result.exponent.values, dtype=np.int64)
        return np.array([1 << int(shift) for shift in shifts], dtype=object)


@dataclass(frozen=True)
class _Batch:
    """Ranges of results (types, channels), and bounds of every partial sum (types,), 0 among them."""

    low: IntArray
    high: IntArray
    partial: Span | None = None


_Rule: TypeAlias = "Callable[[_Task, Sequence[Span]], _Batch | None]"


def _numbered(
    out: Tensors, result: Result, declared: TensorType | None, batch: _Batch, count: int
) -> list[int]:
    """The numbers of results, whose types hold every partial sum unless they are declared."""
    channels = result.shape[0] if result.shape else 1
    lows, highs = (
        np.ascontiguousarray(np.broadcast_to(bound, (count, channels))) for bound in (batch.low, batch.high)
    )
    if declared is not None:
        kinds = [out.kind(declared)] * count
    else:
        assert batch.partial is not None
        known: dict[tuple[int, int], int] = {}
        kinds = []
        for ends in zip(*(bound.tolist() for bound in batch.partial), strict=True):
            if ends not in known:
                known[ends] = out.kind(TensorType(result.shape, Integer.holding(*ends), result.exponent))
            kinds.append(known[ends])
    return [out.number(*case) for case in zip(kinds, lows, highs, strict=True)]


def _products(
    task: _Task, span: Span, weight: IntArray, groups: int, exponents: IntArray
) -> tuple[IntArray, IntArray, Span] | None:
    """Sums of products and bias: ranges per output channel, and bounds of partial sums.

    Args:
        span: of the inputs, (types, groups * depth).
        weight: (groups, depth, places, outputs of a group).
    """
    low, high = span
    bias, bias_factors = np.zeros(1, dtype=object), np.ones(1, dtype=object)
    if len(task.node.inputs) > 2:
        constant = task.constant(2)
        if constant is None:
            return None
        bias, bias_factors = constant.astype(object).reshape(-1), task.factors(task.exponents(2))
    bias, scale = bias * bias_factors, task.factors(exponents)
    most = max(1, _largest(low), _largest(high)) * int(np.abs(weight).sum(axis=(1, 2)).max(initial=1))
    if (most * int(scale.max()) + _largest(bias)).bit_length() > _FLOAT_BITS:
        return None
    positive = np.maximum(weight, 0).sum(axis=2).astype(np.float64)
    negative = np.minimum(weight, 0).sum(axis=2).astype(np.float64)
    ends = [bound.reshape(len(bound), groups, -1).transpose(1, 0, 2).astype(np.float64) for bound in span]
    least, greatest = np.minimum(ends[0], 0), np.maximum(ends[1], 0)

    def summed(one: Any, other: Any) -> IntArray:
        sums = one @ positive + other @ negative  # (groups, types, outputs)
        exact = sums.transpose(1, 0, 2).reshape(len(low), -1).astype(np.int64)
        return np.asarray(exact * scale.astype(np.int64))

    offset = bias.astype(np.int64)
    lowest = summed(least, greatest) + np.minimum(offset, 0)
    highest = summed(greatest, least) + np.maximum(offset, 0)
    return (
        summed(ends[0], ends[1]) + offset,
        summed(ends[1], ends[0]) + offset,
        (np.minimum(lowest.min(axis=1), 0), np.maximum(highest.max(axis=1), 0)),
    )


def _conv(task: _Task, spans: Sequence[Span]) -> _Batch | None:
    node, weight = task.node, task.constant(1)
    assert weight is not None
    span = _with_zero(spans[0]) if any(node.pads) else spans[0]
    filters, depth = weight.shape[:2]
    grouped = weight.reshape(node.groups, filters // node.groups, depth, -1).transpose(0, 2, 3, 1)
    found = _products(task, span, grouped, node.groups, task.exponents(0) + task.exponents(1))
    return None if found is None else _Batch(*found)


def _matmul(task: _Task, spans: Sequence[Span]) -> _Batch | None:
    weight, x = task.constant(1), task.operands[0]
    if len(spans) > 1 or weight is None or weight.ndim != 2:
        return None
    inner = len(weight)
    span = spans[0] if len(x.shape) == 1 else _whole(spans[0])
    span = tuple(np.broadcast_to(bound, (len(bound), inner)) for bound in span)  # type: ignore[assignment]
    found = _products(task, span, weight[None, :, None], 1, task.exponents(0) + task.exponents(1))
    if found is None:
        return None
    low, high, partial = found
    if len(task.result.shape) != 1:
        low, high = _whole((low, high))
    return _Batch(low, high, partial)


def _affine(task: _Task, spans: Sequence[Span]) -> _Batch | None:
    (low, high), multiplier = spans[0], task.constant(1)
    if multiplier is None:
        return None
    gain = multiplier.astype(object).reshape(-1) * task.factors(task.exponents(0) + task.exponents(1))
    offset = np.zeros(1, dtype=object)
    if len(task.node.inputs) > 2:
        constant = task.constant(2)
        if constant is None:
            return None
        offset = constant.astype(object).reshape(-1) * task.factors(task.exponents(2))
    largest = max(_largest(low), _largest(high))
    if (largest * _largest(gain) + _largest(offset)).bit_length() > _INT_BITS:
        return None
    ends = low * gain.astype(np.int64), high * gain.astype(np.int64)
    least, greatest, shift = np.minimum(*ends), np.maximum(*ends), offset.astype(np.int64)
    partial = (
        np.minimum((least + np.minimum(shift, 0)).min(axis=1), 0),
        np.maximum((greatest + np.maximum(shift, 0)).max(axis=1), 0),
    )
    return _Batch(least + shift, greatest + shift, partial)


def _add(task: _Task, spans: Sequence[Span]) -> _Batch | None:
    if len(spans) != 2 or any(kind.exponent.axis not in (None, 0) for kind in task.operands):
        return None
    low: Any = 0
    high: Any = 0
    for index, span in enumerate(spans):
        factor = task.factors(task.exponents(index))
        if (max(map(_largest, span)) * int(factor.max())).bit_length() >= _INT_BITS:
            return None
        low, high = (
            total + bound * factor.astype(np.int64) for total, bound in zip((low, high), span, strict=True)
        )
    return _Batch(low, high, _bounds_with_zero((low, high)))


def _requant(task: _Task, spans: Sequence[Span]) -> _Batch | None:
    node, declared, (low, high) = task.node, task.declared, spans[0]
    if any(kind.exponent.axis not in (None, 0) for kind in (task.operands[0], declared)):
        return None
    shift = np.array(declared.exponent.values) - task.exponents(0)
    largest = max(_largest(low), _largest(high)).bit_length()
    if largest - min(int(shift.min()), 0) > _INT_BITS or int(shift.max()) > _INT_BITS:
        return None
    lowest, highest = requant_bounds(node, declared)
    columns = np.broadcast_to(shift, low.shape[1:])
    ends = [np.empty_like(bound) for bound in (low, high)]
    for bits in np.unique(columns):
        here = columns == bits
        for end, bound in zip(ends, (low, high), strict=True):
            if isinstance(declared.format, TableFormat):
                end[:, here] = requantise(
                    bound[:, here], int(bits), declared.format, node.rounding, node.overflow
                )
            else:
                end[:, here] = round_shift(bound[:, here], int(bits), node.rounding)
    if node.overflow in (Overflow.SAT, Overflow.SAT_SYM):
        return _Batch(np.clip(ends[0], lowest, highest), np.clip(ends[1], lowest, highest))
    beyond = (ends[0] < lowest) | (ends[1] > highest)
    return _Batch(np.where(beyond, lowest, ends[0]), np.where(beyond, highest, ends[1]))


def _summed_up(task: _Task, spans: Sequence[Span]) -> _Batch | None:
    """A sum over axes or windows: so many numbers of one range."""
    node, (x,), span = task.node, task.operands, spans[0]
    if isinstance(node, ir.SumPool):
        count = int(np.prod(node.kernel))
        span = _with_zero(span) if any(node.pads) else span
    else:
        count = int(np.prod([x.shape[axis] for axis in node.axes]))
        span = _whole(span) if 0 in node.axes else span
    if (max(map(_largest, span)) * count).bit_length() > _INT_BITS:
        return None
    low, high = span[0] * count, span[1] * count
    return _Batch(low, high, _bounds_with_zero((low, high)))


def _passed(task: _Task, spans: Sequence[Span]) -> _Batch | None:
    """Codes of each channel that stay in it."""
    return _Batch(*spans[0])


def _reshaped(task: _Task, spans: Sequence[Span]) -> _Batch | None:
    shape, (x,), span = task.result.shape, task.operands, spans[0]
    channels = span[0].shape[1]
    if shape and shape[0] == channels:
        return _Batch(*span)
    if len(shape) == 1:
        each = x.size // channels
        return _Batch(np.repeat(span[0], each, axis=1), np.repeat(span[1], each, axis=1))
    return _Batch(*_whole(span))


_BATCHED: Mapping[str, _Rule] = {
    "Add": _add,
    "Affine": _affine,
    "Conv": _conv,
    "MatMul": _matmul,
    "MaxPool": _passed,
    "ReduceSum": _summed_up,
    "Requant": _requant,
    "Reshape": _reshaped,
    "SumPool": _summed_up,
}
"""Operations whose ranges are worked out together."""


def _with_zero(span: Span) -> Span:
    return np.minimum(span[0], 0), np.maximum(span[1], 0)


def _whole(span: Span) -> Span:
    return span[0].min(axis=1, keepdims=True), span[1].max(axis=1, keepdims=True)


def _bounds_with_zero(span: Span) -> Span:
    low, high = _with_zero(span)
    return low.min(axis=1), high.max(axis=1)


def _largest(values: IntArray) -> int:
    return max(abs(int(values.min())), abs(int(values.max()))) if values.size else 0


def _constant_range(graph: ExactGraph, name: str) -> Range:
    value = graph.constants[name]
    return Range.of(int(value.min()), int(value.max())) if value.size else Range.of(0, 0)


def _row(bound: IntArray, kind: TensorType) -> IntArray:
    """A bound of a range, per channel."""
    values = np.broadcast_to(bound, (kind.shape[0] if kind.shape else 1,))
    small = _largest(values).bit_length() <= _INT_BITS
    return np.ascontiguousarray(values.astype(np.int64) if small else values)


def _frozen(bound: IntArray) -> object:
    return bound.tobytes() if bound.dtype != object else tuple(map(int, bound))
