"""Shapes, exponents and value ranges of every operation, by interval arithmetic on the real constants.

One rule per operation, used twice: to build a graph and to check one. Bounds are Python integers, so
nothing can overflow while overflow is being ruled out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from qhw.errors import InputError
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Overflow, round_shift
from qhw.formats.requantise import bounds, check_modes, requantise
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.ir import Exponent, Node, TensorType


@dataclass(frozen=True)
class Range:
    """Lowest and highest mantissa, per tensor (shape ``()``) or per index of axis 0 (shape ``(C,)``)."""

    low: IntArray
    high: IntArray

    @classmethod
    def of(cls, low: Any, high: Any) -> Range:
        return cls(np.asarray(low, dtype=object), np.asarray(high, dtype=object))

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest mantissa over all channels."""
        return int(np.min(self.low)), int(np.max(self.high))

    def whole(self) -> Range:
        """The same range for the whole tensor."""
        return Range.of(*self.bounds)

    def including(self, value: int) -> Range:
        return Range.of(np.minimum(self.low, value), np.maximum(self.high, value))


@dataclass(frozen=True)
class Operand:
    """An input of a node: its type, its range, and its value if it is a constant."""

    type: TensorType
    range: Range
    value: IntArray | None = None


@dataclass(frozen=True)
class Result:
    """What a node writes: shape, exponent, range, and the bounds of every partial sum on the way."""

    shape: tuple[int, ...]
    exponent: Exponent
    range: Range
    partial: tuple[int, int]

    def type(self) -> TensorType:
        """The type with the narrowest integer that holds every partial sum."""
        return TensorType(self.shape, Integer.holding(*self.partial), self.exponent)


def constant_range(value: IntArray) -> Range:
    """The range of a constant, over the whole tensor."""
    if value.size == 0:
        return Range.of(0, 0)
    return Range.of(int(value.min()), int(value.max()))


def infer(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    """Shape, exponent and range of a node's output.

    ``declared`` gives what an operation leaves open (the format of a Requant, the shape of a Reshape).
    Raises InputError, naming the node, where the operands do not fit the operation.
    """
    try:
        return _RULES[type(node)](node, operands, declared)
    except InputError as error:
        message = f"{node.op} '{node.name}': {error.message}"
        raise InputError(message, allowed=error.allowed, hint=error.hint) from error
    except (ValueError, IndexError) as error:
        raise InputError(f"{node.op} '{node.name}': {error}") from error


def window_shape(
    spatial: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
) -> tuple[int, ...]:
    """Spatial output shape of a sliding window (floor mode)."""
    rank = len(spatial)
    if not len(kernel) == len(strides) == len(dilations) == rank or len(pads) != 2 * rank:
        raise ValueError(f"a window over {rank} axes needs {rank} kernel, stride and dilation numbers")
    out = []
    for axis, (size, k, stride, dilation) in enumerate(zip(spatial, kernel, strides, dilations, strict=True)):
        padded = size + pads[axis] + pads[axis + rank]
        span = dilation * (k - 1) + 1
        if min(k, stride, dilation) < 1 or padded < span:
            raise ValueError(f"a window of {span} does not fit axis {axis} of {padded} elements")
        out.append((padded - span) // stride + 1)
    return tuple(out)


def aligned(*exponents: IntArray) -> tuple[IntArray, list[IntArray]]:
    """The finest of broadcast exponents, and each one's left shift to it."""
    finest = exponents[0]
    for exponent in exponents[1:]:
        finest = np.minimum(finest, exponent)
    return finest, [exponent - finest for exponent in exponents]


def per_axis(exponents: IntArray, axis: int) -> Exponent:
    """An Exponent from an array that varies along ``axis`` only, scalar where it does not vary."""
    flat = np.unique(exponents)
    if flat.size == 1:
        return Exponent.scalar(int(flat[0]))
    if exponents.size != exponents.shape[axis]:
        raise ValueError("exponents vary along more than one axis")
    return Exponent(tuple(int(e) for e in exponents.reshape(-1)), axis)


def _product(a_low: Any, a_high: Any, b_low: Any, b_high: Any) -> Range:
    products = (a_low * b_low, a_low * b_high, a_high * b_low, a_high * b_high)
    corners = [np.asarray(p, dtype=object) for p in products]
    low, high = corners[0], corners[0]
    for corner in corners[1:]:
        low, high = np.minimum(low, corner), np.maximum(high, corner)
    return Range.of(low, high)


def _scalar_exponent(operand: Operand, what: str) -> int:
    if not operand.type.exponent.is_scalar:
        raise ValueError(f"{what} must have one exponent for the whole tensor")
    return operand.type.exponent.values[0]


def _value(operand: Operand, what: str) -> IntArray:
    if operand.value is None:
        raise ValueError(f"{what} must be a constant")
    return operand.value.astype(object)


def _partial(low: IntArray, high: IntArray, bias: IntArray) -> tuple[int, int]:
    """Bounds of every partial sum of products and bias, in any order."""
    lowest, highest = low + np.minimum(bias, 0), high + np.maximum(bias, 0)
    return min(0, int(np.min(lowest))), max(0, int(np.max(highest)))


def _weighted(
    node: Node,
    operands: Sequence[Operand],
    low: IntArray,
    high: IntArray,
    spare: tuple[IntArray, IntArray],
    axis: int,
) -> tuple[Exponent, Range, tuple[int, int]]:
    """Align products (bounds per output channel) and bias; exponent, range, bounds of partial sums."""
    x, weight = operands[0], operands[1]
    exponent = _scalar_exponent(x, "the input") + np.array(weight.type.exponent.values, dtype=np.int64)
    bias = np.zeros(1, dtype=object)
    bias_exponent = exponent
    if len(operands) > 2:
        bias = _value(operands[2], "the bias").reshape(-1)
        if bias.size not in (1, low.size):
            raise ValueError(f"the bias has {bias.size} numbers for {low.size} output channels")
        bias_exponent = np.array(operands[2].type.exponent.values, dtype=np.int64)
    finest, (product_shift, bias_shift) = aligned(exponent, bias_exponent)
    scale = np.array([1 << int(s) for s in product_shift], dtype=object)
    bias = bias * np.array([1 << int(s) for s in bias_shift], dtype=object)
    partial = _partial(spare[0] * scale, spare[1] * scale, bias)
    result = (
        Exponent.scalar(int(finest[0]))
        if np.unique(finest).size == 1
        else Exponent(tuple(map(int, finest)), axis)
    )
    return result, Range.of(low * scale + bias, high * scale + bias), partial


def _matmul(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    a, b = operands[0], operands[1]
    if not a.type.shape or len(b.type.shape) < 2 or a.type.shape[-1] != b.type.shape[-2]:
        raise ValueError(f"shapes {a.type.shape} and {b.type.shape} do not multiply")
    inner, columns = b.type.shape[-2:]
    lead = np.broadcast_shapes(a.type.shape[:-2], b.type.shape[:-2])
    shape = (*lead, *a.type.shape[-2:-1], columns)
    if b.value is None or len(b.type.shape) > 2:
        corners = _product(*a.range.bounds, *b.range.bounds)
        low, high = (np.array([int(v) * inner], dtype=object) for v in (corners.low, corners.high))
        spare = (np.minimum(low, 0), np.maximum(high, 0))
        if len(b.type.exponent.values) > 1:
            raise ValueError("a computed or stacked right operand must have one exponent")
    else:
        span = a.range if len(a.type.shape) == 1 else a.range.whole()
        a_low, a_high = (np.broadcast_to(v, (inner,)).reshape(-1, 1) for v in (span.low, span.high))
        terms = _product(a_low, a_high, b.value.astype(object), b.value.astype(object))
        low, high = terms.low.sum(axis=0), terms.high.sum(axis=0)
        spare = (np.minimum(terms.low, 0).sum(axis=0), np.maximum(terms.high, 0).sum(axis=0))
        if b.type.exponent.axis not in (None, 1):
            raise ValueError("weights may have exponents per output column only")
    exponent, total, partial = _weighted(node, operands, low, high, spare, len(shape) - 1)
    return Result(
        shape, exponent, total if len(shape) == 1 and total.low.size == columns else total.whole(), partial
    )


def _conv(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    assert isinstance(node, ir.Conv)
    x, weight = operands[0], operands[1]
    value = _value(weight, "the weight")
    channels, *spatial = x.type.shape
    filters, depth, *kernel = weight.type.shape
    if depth * node.groups != channels or filters % node.groups:
        raise ValueError(
            f"weight {weight.type.shape} in {node.groups} groups does not fit {channels} input channels"
        )
    if weight.type.exponent.axis not in (None, 0):
        raise ValueError("weights may have exponents per output channel only")
    out = window_shape(spatial, kernel, node.strides, node.pads, node.dilations)
    span = x.range.including(0) if any(node.pads) else x.range
    group = np.arange(filters) // (filters // node.groups)
    index = group[:, None] * depth + np.arange(depth)[None, :]
    shape = (filters, depth, *[1] * len(kernel))
    x_low, x_high = (np.broadcast_to(v, (channels,))[index].reshape(shape) for v in (span.low, span.high))
    terms = _product(x_low, x_high, value, value)
    axes = tuple(range(1, value.ndim))
    spare = (np.minimum(terms.low, 0).sum(axis=axes), np.maximum(terms.high, 0).sum(axis=axes))
    exponent, total, partial = _weighted(
        node, operands, terms.low.sum(axis=axes), terms.high.sum(axis=axes), spare, 0
    )
    return Result((filters, *out), exponent, total, partial)


def _channelwise(operand: Operand, rank: int) -> tuple[IntArray, IntArray]:
    """A range as arrays that broadcast over ``rank`` axes, channel first."""
    shape = (-1, *[1] * (rank - 1)) if rank else ()
    low, high = operand.range.low, operand.range.high
    if operand.value is not None:
        value = operand.value.astype(object)
        low = high = value.reshape((1,) * (rank - value.ndim) + value.shape)
        return low, high
    return (low, high) if low.ndim == 0 else (low.reshape(shape), high.reshape(shape))


def _to_range(low: IntArray, high: IntArray, rank: int) -> Range:
    """Fold broadcast bounds back to per channel or per tensor."""
    low, high = np.asarray(low, dtype=object), np.asarray(high, dtype=object)
    if low.ndim != rank or rank == 0 or low.shape[0] == 1:
        return Range.of(low.min(), high.max())
    axes = tuple(range(1, rank))
    return Range.of(low.min(axis=axes) if axes else low, high.max(axis=axes) if axes else high)


def _binary_shape(operands: Sequence[Operand]) -> tuple[int, ...]:
    a, b = operands
    shape = np.broadcast_shapes(a.type.shape, b.type.shape)
    for operand in operands:
        if operand.value is None and operand.type.shape != shape:
            raise ValueError(f"shapes {a.type.shape} and {b.type.shape}: only a constant may broadcast")
    return shape


def _exponents(operand: Operand, rank: int) -> IntArray:
    exponent = operand.type.exponent
    if exponent.axis is None:
        return exponent.broadcast(rank)
    return Exponent(exponent.values, exponent.axis + rank - len(operand.type.shape)).broadcast(rank)


def _shift_factors(shift: IntArray) -> IntArray:
    return np.array([1 << int(s) for s in shift.reshape(-1)], dtype=object).reshape(shift.shape)


def _joined_exponent(exponents: IntArray) -> Exponent:
    if exponents.ndim == 0 or exponents.size == 1:
        return Exponent.scalar(int(exponents.reshape(-1)[0]))
    axis = next(i for i, n in enumerate(exponents.shape) if n > 1)
    return per_axis(exponents, axis)


def _add(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    shape = _binary_shape(operands)
    rank = len(shape)
    finest, shifts = aligned(*(_exponents(o, rank) for o in operands))
    low: Any = 0
    high: Any = 0
    for operand, shift in zip(operands, shifts, strict=True):
        factor = _shift_factors(shift)
        o_low, o_high = _channelwise(operand, rank)
        low, high = low + o_low * factor, high + o_high * factor
    total = _to_range(low, high, rank)
    return Result(shape, _joined_exponent(finest), total, total.including(0).bounds)


def _mul(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    shape = _binary_shape(operands)
    rank = len(shape)
    exponent = _exponents(operands[0], rank) + _exponents(operands[1], rank)
    corners = _product(*_channelwise(operands[0], rank), *_channelwise(operands[1], rank))
    total = _to_range(corners.low, corners.high, rank)
    return Result(shape, _joined_exponent(np.asarray(exponent)), total, total.bounds)


def _affine(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    x = operands[0]
    multiplier = _value(operands[1], "the multiplier").reshape(-1)
    exponents = [x.type.exponent, *(o.type.exponent for o in operands[1:])]
    if any(e.axis not in (None, 0) for e in exponents):
        raise ValueError("exponents may vary along the channel axis only")
    x_e, m_e, *o_e = (np.array(e.values, dtype=np.int64) for e in exponents)
    product = _product(x.range.low, x.range.high, multiplier, multiplier)
    finest, shifts = aligned(x_e + m_e, *o_e)
    scale = _shift_factors(shifts[0])
    offset = np.zeros(1, dtype=object)
    if len(operands) > 2:
        offset = _value(operands[2], "the offset").reshape(-1) * _shift_factors(shifts[1])
    channels = x.type.shape[0] if x.type.shape else 1
    for name, array in (("multiplier", multiplier), ("offset", offset)):
        if array.size not in (1, channels):
            raise ValueError(f"the {name} has {array.size} numbers for {channels} channels")
    low, high = product.low * scale, product.high * scale
    total = Range.of(low + offset, high + offset)
    total = total if total.low.size == channels and x.type.shape else total.whole()
    exponent = (
        Exponent.scalar(int(finest[0]))
        if np.unique(finest).size == 1
        else Exponent(tuple(map(int, finest)), 0)
    )
    return Result(x.type.shape, exponent, total, _partial(low, high, offset))


def requant_bounds(node: ir.Requant, declared: TensorType) -> tuple[int, int]:
    """The mantissa bounds that a Requant saturates to."""
    return bounds(declared.format, node.overflow, node.low, node.high)


def _requant(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    assert isinstance(node, ir.Requant)
    x = operands[0]
    rank = len(x.type.shape)
    if declared.shape != x.type.shape:
        raise ValueError(f"the output shape {declared.shape} is not the input's {x.type.shape}")
    low_bound, high_bound = requant_bounds(node, declared)
    if not declared.format.mantissa_low <= low_bound <= high_bound <= declared.format.mantissa_high:
        raise ValueError(f"the bounds [{low_bound}, {high_bound}] are outside {declared.format}")
    if isinstance(declared.format, TableFormat):
        check_modes(declared.format, node.rounding, node.overflow)
        if not declared.format.holds([low_bound, high_bound]):
            raise ValueError(f"the bounds [{low_bound}, {high_bound}] are no numbers of {declared.format}")
    shift = declared.exponent.broadcast(rank) - x.type.exponent.broadcast(rank)
    if sum(n > 1 for n in shift.shape) > 1:
        raise ValueError("the exponents of input and output vary along different axes")
    low, high = _channelwise(x, rank)
    size = np.broadcast_shapes(np.shape(low), shift.shape)
    low, high, shift = np.broadcast_to(low, size), np.broadcast_to(high, size), np.broadcast_to(shift, size)
    lows, highs = (_rounded(ends, shift, node, declared) for ends in (low, high))
    if node.overflow in (Overflow.SAT, Overflow.SAT_SYM):
        lows, highs = np.clip(lows, low_bound, high_bound), np.clip(highs, low_bound, high_bound)
    else:
        beyond = (lows < low_bound) | (highs > high_bound)
        lows, highs = np.where(beyond, low_bound, lows), np.where(beyond, high_bound, highs)
    total = _to_range(lows, highs, rank)
    return Result(x.type.shape, declared.exponent, total, total.bounds)


def _rounded(ends: IntArray, shift: IntArray, node: ir.Requant, declared: TensorType) -> IntArray:
    """The ends of ranges, rounded (in a format that lists its codes, saturated too)."""
    rounded = np.empty(ends.shape, dtype=object)
    for bits in np.unique(shift):
        here = shift == bits
        if isinstance(declared.format, TableFormat):
            rounded[here] = requantise(ends[here], int(bits), declared.format, node.rounding, node.overflow)
        else:
            rounded[here] = round_shift(ends[here], int(bits), node.rounding)
    return rounded


def _threshold(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    x, thresholds, levels = operands
    t, values = _value(thresholds, "the thresholds"), _value(levels, "the levels")
    channels = x.type.shape[0] if x.type.shape else 1
    if t.ndim != 2 or t.shape[0] not in (1, channels):
        raise ValueError(f"thresholds have shape {t.shape}: ({channels} or 1, count) is needed")
    if values.ndim != 2 or values.shape[0] not in (1, channels) or values.shape[1] != t.shape[1] + 1:
        raise ValueError(f"levels have shape {values.shape}: ({channels} or 1, {t.shape[1] + 1}) is needed")
    if (t[:, 1:] <= t[:, :-1]).any():
        raise ValueError("thresholds must be strictly ordered")
    return _looked_up(x, values, declared, _counts(t, x.range))


def _counts(thresholds: IntArray, span: Range) -> Range:
    """How many thresholds the lowest and the highest mantissa have reached."""
    low, high = (np.sum(thresholds <= v[..., np.newaxis], axis=-1) for v in (span.low, span.high))
    if len(thresholds) == 1:
        low, high = (v.reshape(w.shape) for v, w in ((low, span.low), (high, span.high)))
    return Range.of(low, high)


def _looked_up(x: Operand, values: IntArray, declared: TensorType, places: Range) -> Result:
    """The levels that the places, per tensor or per channel, can reach."""
    rows = np.broadcast_shapes(places.low.shape, (len(values),)) if x.type.shape else (1,)
    first, last = (np.broadcast_to(v, rows) for v in (places.low, places.high))
    reached = [
        row[int(a) : int(b) + 1]
        for row, a, b in zip(np.broadcast_to(values, (*rows, values.shape[1])), first, last, strict=True)
    ]
    low, high = (np.array([f(row) for row in reached], dtype=object) for f in (np.min, np.max))
    total = Range.of(low, high) if len(reached) > 1 else Range.of(low[0], high[0])
    return Result(x.type.shape, declared.exponent, total, total.bounds)


def _table(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    assert isinstance(node, ir.Table)
    x, table = operands
    values = _value(table, "the table")
    channels = x.type.shape[0] if x.type.shape else 1
    if values.ndim != 2 or values.shape[0] not in (1, channels) or not 0 < values.shape[1] <= 1 << 16:
        raise ValueError(f"a table has shape {values.shape}: ({channels} or 1, at most 65536) is needed")
    low, high = x.range.bounds
    if low < node.first or high >= node.first + values.shape[1]:
        last = node.first + values.shape[1] - 1
        raise ValueError(f"the input range [{low}, {high}] is outside the table's [{node.first}, {last}]")
    places = Range.of(x.range.low - node.first, x.range.high - node.first)
    return _looked_up(x, values, declared, places)


def _reduced_shape(x: Operand, axes: tuple[int, ...], keepdims: bool) -> tuple[int, ...]:
    if any(not 0 <= axis < len(x.type.shape) for axis in axes):
        raise ValueError(f"axes {axes} of a tensor with shape {x.type.shape}")
    kept = [(1 if i in axes else n) for i, n in enumerate(x.type.shape) if keepdims or i not in axes]
    return tuple(kept)


def _reduce(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    assert isinstance(node, ir.ReduceSum | ir.ReduceMax)
    x = operands[0]
    exponent = x.type.exponent
    if exponent.axis != 0 or 0 in node.axes:
        exponent = Exponent.scalar(_scalar_exponent(x, "the input"))
    shape = _reduced_shape(x, node.axes, node.keepdims)
    span = x.range.whole() if 0 in node.axes else x.range
    if isinstance(node, ir.ReduceMax):
        return Result(shape, exponent, span, span.bounds)
    count = int(np.prod([x.type.shape[a] for a in node.axes]))
    total = Range.of(span.low * count, span.high * count)
    return Result(shape, exponent, total, total.including(0).bounds)


def _pool(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    assert isinstance(node, ir.SumPool | ir.MaxPool)
    x = operands[0]
    channels, *spatial = x.type.shape
    if x.type.exponent.axis not in (None, 0):
        raise ValueError("exponents may vary along the channel axis only")
    dilations = node.dilations if isinstance(node, ir.MaxPool) else (1,) * len(node.kernel)
    out = window_shape(spatial, node.kernel, node.strides, node.pads, dilations)
    if isinstance(node, ir.MaxPool):
        for axis, size in enumerate(spatial):
            starts = np.arange(out[axis]) * node.strides[axis] - node.pads[axis]
            places = starts[:, None] + np.arange(node.kernel[axis]) * dilations[axis]
            if not ((places >= 0) & (places < size)).any(axis=1).all():
                raise ValueError("padding must leave an element of the tensor in every window")
        return Result((channels, *out), x.type.exponent, x.range, x.range.bounds)
    count = int(np.prod(node.kernel))
    span = x.range.including(0) if any(node.pads) else x.range
    total = Range.of(span.low * count, span.high * count)
    return Result((channels, *out), x.type.exponent, total, total.including(0).bounds)


def _reshape(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    x = operands[0]
    if int(np.prod(declared.shape)) != x.type.size:
        raise ValueError(f"{x.type.shape} cannot be reshaped to {declared.shape}")
    channels = x.type.shape[0] if x.type.shape else 1
    if declared.shape and declared.shape[0] == channels and x.type.exponent.axis in (None, 0):
        return Result(declared.shape, x.type.exponent, x.range, x.range.bounds)
    exponent = Exponent.scalar(_scalar_exponent(x, "a tensor whose channel axis is reshaped"))
    span = x.range
    if len(declared.shape) == 1 and span.low.ndim == 1:
        span = Range(*(np.repeat(v, x.type.size // channels) for v in (span.low, span.high)))
    else:
        span = span.whole()
    return Result(declared.shape, exponent, span, span.bounds)


def _transpose(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    assert isinstance(node, ir.Transpose)
    x = operands[0]
    if sorted(node.perm) != list(range(len(x.type.shape))):
        raise ValueError(f"{node.perm} does not permute the axes of {x.type.shape}")
    exponent = x.type.exponent
    if exponent.axis is not None:
        exponent = Exponent(exponent.values, node.perm.index(exponent.axis))
    span = x.range if node.perm[:1] == (0,) else x.range.whole()
    return Result(tuple(x.type.shape[p] for p in node.perm), exponent, span, span.bounds)


def _concat(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    assert isinstance(node, ir.Concat)
    first = operands[0].type
    for operand in operands:
        if (operand.type.format, operand.type.exponent) != (first.format, first.exponent):
            raise ValueError("the joined tensors differ in format or exponent")
    if not first.exponent.is_scalar:
        raise ValueError("the joined tensors must have one exponent")
    shapes = [list(o.type.shape) for o in operands]
    length = sum(s[node.axis] for s in shapes)
    for s in shapes:
        s[node.axis] = length
    if any(s != shapes[0] for s in shapes):
        raise ValueError(f"shapes {[o.type.shape for o in operands]} do not join along axis {node.axis}")
    if node.axis == 0:
        parts = [
            [np.broadcast_to(v, (o.type.shape[0],)) for v in (o.range.low, o.range.high)] for o in operands
        ]
        span = Range(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))
    else:
        lows, highs = zip(*(o.range.bounds for o in operands), strict=True)
        span = Range.of(min(lows), max(highs))
    return Result(tuple(shapes[0]), first.exponent, span, span.bounds)


def _slice(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    assert isinstance(node, ir.Slice)
    x = operands[0]
    if not 0 <= node.axis < len(x.type.shape) or node.start < 0 or node.step < 1:
        raise ValueError(f"axis {node.axis}, start {node.start}, step {node.step} of shape {x.type.shape}")
    picked = range(x.type.shape[node.axis])[node.start : node.stop : node.step]
    if not picked:
        raise ValueError("the slice is empty")
    shape = (*x.type.shape[: node.axis], len(picked), *x.type.shape[node.axis + 1 :])
    span, exponent = x.range, x.type.exponent
    if node.axis == 0 and span.low.ndim == 1:
        span = Range(*(v[node.start : node.stop : node.step] for v in (span.low, span.high)))
    if exponent.axis == node.axis:
        exponent = Exponent(exponent.values[node.start : node.stop : node.step], node.axis)
    return Result(shape, exponent, span, span.bounds)


def _pad(node: Node, operands: Sequence[Operand], declared: TensorType) -> Result:
    assert isinstance(node, ir.Pad)
    x = operands[0]
    rank = len(x.type.shape)
    if len(node.pads) != 2 * rank or min(node.pads, default=0) < 0:
        raise ValueError(f"pads {node.pads} of a tensor with shape {x.type.shape}")
    shape = tuple(n + node.pads[i] + node.pads[i + rank] for i, n in enumerate(x.type.shape))
    exponent = x.type.exponent
    if exponent.axis is not None and shape[exponent.axis] != x.type.shape[exponent.axis]:
        raise ValueError("the axis that carries the exponents cannot be padded")
    span = (x.range if shape[0] == x.type.shape[0] else x.range.whole()).including(node.value)
    return Result(shape, exponent, span, span.bounds)


_RULES: dict[type[Node], Callable[[Node, Sequence[Operand], TensorType], Result]] = {
    ir.MatMul: _matmul,
    ir.Conv: _conv,
    ir.Add: _add,
    ir.Mul: _mul,
    ir.Affine: _affine,
    ir.Requant: _requant,
    ir.Threshold: _threshold,
    ir.Table: _table,
    ir.ReduceSum: _reduce,
    ir.ReduceMax: _reduce,
    ir.SumPool: _pool,
    ir.MaxPool: _pool,
    ir.Reshape: _reshape,
    ir.Transpose: _transpose,
    ir.Concat: _concat,
    ir.Slice: _slice,
    ir.Pad: _pad,
}
