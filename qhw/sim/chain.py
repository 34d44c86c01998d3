"""Element-wise nodes as a short program over integers, fused and proven to fit its lanes.

A chain starts from one tensor (or the raw products of a Conv or MatMul) and applies per-channel steps
without writing anything in between. Each step says how large its intermediate numbers can become, so that
the whole chain runs in 32-bit lanes where they suffice, in 64-bit lanes where they do not, and not at all
(the interpreter takes over) beyond.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray, Overflow, Rounding, round_shift
from qhw.formats.requantise import saturating
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.infer import requant_bounds
from qhw.graph.ir import ExactGraph, Node, TensorType

Array = NDArray[np.generic]


@dataclass(frozen=True)
class MultiplyAdd:
    """``x * multiplier + offset``, per channel (C,), object dtype."""

    multiplier: IntArray
    offset: IntArray


@dataclass(frozen=True)
class Join:
    """``x * own + tensor * other``, factors per channel."""

    tensor: str
    own: IntArray
    other: IntArray


@dataclass(frozen=True)
class Product:
    """``x * tensor``."""

    tensor: str


@dataclass(frozen=True)
class Round:
    """``x * 2**-shift`` rounded; shifts per channel, none negative."""

    shift: IntArray
    rounding: Rounding


@dataclass(frozen=True)
class Bound:
    """Saturate, write zero, or wrap into ``[low, high]``."""

    low: int
    high: int
    overflow: Overflow


@dataclass(frozen=True)
class TableLookup:
    """``table[channel, x - first]``."""

    table: IntArray
    first: int


@dataclass(frozen=True)
class Count:
    """``levels[channel, number of thresholds that x reaches]``."""

    thresholds: IntArray
    levels: IntArray


ChainStep = MultiplyAdd | Join | Product | Round | Bound | TableLookup | Count
Interval = tuple[int, int]
"""Lowest and highest number, as Python integers."""


def steps_of(graph: ExactGraph, node: Node, main: str | None = None) -> list[ChainStep] | None:
    """A node as chain steps on its operand ``main``; None where a chain cannot express it.

    For Conv, MatMul and SumPool the steps are what follows the products: alignment and bias.
    """
    kinds = [graph.tensors[name] for name in node.inputs]
    out = graph.tensors[node.output]
    if isinstance(node, ir.SumPool):
        return []
    if isinstance(node, ir.Conv | ir.MatMul):
        # A MatMul of several rows has its bias along another axis than the chain's: it brings it along.
        aligned = len(node.inputs) == 2 or (isinstance(node, ir.MatMul) and len(out.shape) > 1)
        return [] if aligned else [MultiplyAdd(*weighted_factors(graph, node))]
    activations = [graph.tensors[name] for name in graph.activations(node)]
    if not out.shape or any(kind.exponent.axis not in (None, 0) for kind in (*activations, out)):
        return None
    match node:
        case ir.Affine():
            return [_affine_step(graph, node, kinds, out)]
        case ir.Add() | ir.Mul():
            return _binary_steps(graph, node, main or node.inputs[0], out)
        case ir.Requant():
            return _requant_steps(node, kinds[0], out)
        case ir.Threshold():
            return [Count(graph.constants[node.inputs[1]], graph.constants[node.inputs[2]])]
        case ir.Table():
            return [TableLookup(graph.constants[node.inputs[1]], node.first)]
    return None


def _exponents(kind: TensorType) -> IntArray:
    return np.array(kind.exponent.values, dtype=np.int64)


def _factor(shift: IntArray) -> IntArray:
    """``2**shift`` as Python integers."""
    return np.array([1 << int(s) for s in np.atleast_1d(shift)], dtype=object)


def _flat(value: IntArray) -> IntArray:
    return np.atleast_1d(value.astype(object)).reshape(-1)


_ZERO = np.zeros(1, dtype=object)
_ONE = np.ones(1, dtype=object)


def weighted_factors(graph: ExactGraph, node: Node) -> tuple[IntArray, IntArray]:
    """Multiplier and offset that turn the products of a Conv or MatMul with a bias into its sums."""
    x, weight, bias = (_exponents(graph.tensors[name]) for name in node.inputs)
    finest = np.minimum(x + weight, bias)
    return _factor(x + weight - finest), _flat(graph.constants[node.inputs[2]]) * _factor(bias - finest)


def _affine_step(graph: ExactGraph, node: Node, kinds: Sequence[TensorType], out: TensorType) -> MultiplyAdd:
    finest = _exponents(out)
    multiplier = _flat(graph.constants[node.inputs[1]])
    multiplier = multiplier * _factor(_exponents(kinds[0]) + _exponents(kinds[1]) - finest)
    if len(node.inputs) == 2:
        return MultiplyAdd(multiplier, _ZERO)
    offset = _flat(graph.constants[node.inputs[2]]) * _factor(_exponents(kinds[2]) - finest)
    return MultiplyAdd(multiplier, offset)


def _binary_steps(graph: ExactGraph, node: Node, main: str, out: TensorType) -> list[ChainStep] | None:
    if node.inputs[0] == node.inputs[1] or main in graph.constants:
        return None
    other = node.inputs[1] if node.inputs[0] == main else node.inputs[0]
    own_kind, other_kind = graph.tensors[main], graph.tensors[other]
    finest = _exponents(out)
    is_sum = isinstance(node, ir.Add)
    own, side = ((_factor(_exponents(kind) - finest) if is_sum else _ONE) for kind in (own_kind, other_kind))
    if other not in graph.constants:
        return [Join(other, own, side) if is_sum else Product(other)]
    value = graph.constants[other]
    if other_kind.exponent.axis is not None and value.ndim != len(out.shape):
        return None
    value = value.astype(object).reshape((1,) * (len(out.shape) - value.ndim) + value.shape)
    if any(n != 1 for n in value.shape[1:]):
        return None
    constant = value.reshape(-1) * side
    return [MultiplyAdd(own, constant) if is_sum else MultiplyAdd(constant, _ZERO)]


def _requant_steps(node: ir.Requant, kind: TensorType, out: TensorType) -> list[ChainStep] | None:
    shift = np.atleast_1d(_exponents(out) - _exponents(kind))
    if isinstance(out.format, TableFormat):
        return [_count_of(node, out, out.format, shift)]
    narrowed = node.low is not None or node.high is not None
    if node.overflow is Overflow.WRAP_SM or (narrowed and not node.overflow.saturates):
        return None
    steps: list[ChainStep] = []
    if (shift < 0).any():
        steps.append(MultiplyAdd(_factor(np.maximum(-shift, 0)), _ZERO))
    if (shift > 0).any():
        steps.append(Round(np.maximum(shift, 0), node.rounding))
    low, high = requant_bounds(node, out)
    return [*steps, Bound(low, high, node.overflow)]


def _count_of(node: ir.Requant, out: TensorType, format: TableFormat, shift: IntArray) -> Count:
    """Rounding to a format that lists its codes: which of its thresholds a number reaches."""
    rounded = saturating(format, node.rounding)
    rows = [rounded.mantissa_thresholds(format.exponent - int(bits)) for bits in shift]
    limits = np.iinfo(np.int64)
    # The chain's numbers fit 63 bits: a threshold beyond them is reached never, or always.
    thresholds = np.array([[min(max(t, int(limits.min)), int(limits.max)) for t in row] for row in rows])
    levels = np.clip(rounded.numbers, *requant_bounds(node, out))
    return Count(thresholds.reshape(len(rows), -1), levels.reshape(1, -1))


def fold(steps: Sequence[ChainStep]) -> list[ChainStep]:
    """Neighbouring MultiplyAdd steps as one (exact: integers distribute)."""
    folded: list[ChainStep] = []
    for step in steps:
        last = folded[-1] if folded else None
        if isinstance(step, MultiplyAdd) and isinstance(last, MultiplyAdd):
            folded[-1] = MultiplyAdd(
                last.multiplier * step.multiplier, last.offset * step.multiplier + step.offset
            )
        else:
            folded.append(step)
    return folded


def peak(step: ChainStep, x: Interval, intervals: Mapping[str, Interval]) -> tuple[Interval, int]:
    """The interval after a step on numbers in ``x``, and the largest magnitude that it forms on the way."""
    largest = max(abs(x[0]), abs(x[1]))
    match step:
        case MultiplyAdd(multiplier, offset):
            top = int(np.max(np.abs(multiplier) * largest + np.abs(offset)))
            return (-top, top), max(top, int(np.max(np.abs(multiplier))))
        case Join(tensor, own, other):
            side = max(map(abs, intervals[tensor]))
            top = int(np.max(own * largest + other * side))
            return (-top, top), max(top, int(np.max(own)), int(np.max(other)), side)
        case Product(tensor):
            side = max(map(abs, intervals[tensor]))
            return (-largest * side, largest * side), max(largest * side, side)
        case Round(shift, _):
            after = (largest >> int(shift.min())) + 1
            return (-after, after), largest + (1 << int(shift.max()))
        case Bound(low, high, Overflow.WRAP):
            return (low, high), largest + (high - low + 1)
        case Bound(low, high, _):
            after_low, after_high = (min(max(v, low), high) for v in (-largest, largest))
            return (min(after_low, 0), max(after_high, 0)), max(largest, abs(after_low), abs(after_high))
        case TableLookup(table, first):
            return (int(table.min()), int(table.max())), max(
                int(np.abs(table).max()), largest, table.size + abs(first)
            )
        case Count(thresholds, levels):
            top = max(int(np.abs(levels).max()), largest, 4 * thresholds.size + levels.size)
            return (int(levels.min()), int(levels.max())), top


def _per_channel(values: IntArray, rank: int) -> IntArray:
    """(C,) or (1,) as int64 that broadcasts over (N, C, …) of ``rank`` axes."""
    return values.astype(np.int64).reshape(-1, *[1] * (rank - 2))


def run_numpy(step: ChainStep, x: IntArray, tensors: Mapping[str, Array]) -> IntArray:
    """One step on int64 numbers (N, C, …), in NumPy."""
    match step:
        case MultiplyAdd(multiplier, offset):
            return np.asarray(x * _per_channel(multiplier, x.ndim) + _per_channel(offset, x.ndim))
        case Join(tensor, own, other):
            side = tensors[tensor].astype(np.int64)
            return np.asarray(x * _per_channel(own, x.ndim) + side * _per_channel(other, x.ndim))
        case Product(tensor):
            return np.asarray(x * tensors[tensor].astype(np.int64))
        case Round():
            return _round_numpy(step, x)
        case Bound():
            return _bound_numpy(step, x)
        case TableLookup(table, first):
            rows = _per_channel(np.arange(len(table)), x.ndim)
            return np.asarray(table[rows, x - first])
        case Count():
            return _count_numpy(step, x)


def _round_numpy(step: Round, x: IntArray) -> IntArray:
    if step.shift.size == 1:
        return round_shift(x, int(step.shift[0]), step.rounding)
    channels = [round_shift(x[:, c : c + 1], int(s), step.rounding) for c, s in enumerate(step.shift.flat)]
    return np.concatenate(channels, axis=1)


def _bound_numpy(step: Bound, x: IntArray) -> IntArray:
    low, high = step.low, step.high
    if step.overflow is Overflow.WRAP:
        return np.asarray(((x - low) & (high - low)) + low)
    if step.overflow is Overflow.SAT_ZERO:
        return np.where((x < low) | (x > high), 0, x)
    limits = np.iinfo(np.int64)
    return np.clip(x, max(low, int(limits.min)), min(high, int(limits.max)))


def _count_numpy(step: Count, x: IntArray) -> IntArray:
    result = np.empty(x.shape, dtype=np.int64)
    for channel in range(x.shape[1]):
        reached = np.searchsorted(
            step.thresholds[channel % len(step.thresholds)], x[:, channel], side="right"
        )
        result[:, channel] = step.levels[channel % len(step.levels)][reached]
    return result
