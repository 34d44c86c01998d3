"""Convolutions, matrix products and the pools that are sums over windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.graph.lowering.dyadic import Dyadic
from qhw.graph.lowering.state import Activation, NodeView, State, Value, rule


@dataclass(frozen=True)
class Window:
    """A sliding window: kernel, strides, pads (begins, then ends), dilations."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    @property
    def size(self) -> int:
        return int(np.prod(self.kernel))

    def span(self, axis: int) -> int:
        return self.dilations[axis] * (self.kernel[axis] - 1) + 1

    def ends(self, shape: Sequence[int], out: Sequence[int]) -> tuple[int, ...]:
        """How far beyond the padded input the last window of every axis reaches (0 or more)."""
        rank = len(shape)
        reach = [(out[i] - 1) * self.strides[i] + self.span(i) for i in range(rank)]
        return tuple(max(0, reach[i] - shape[i] - self.pads[i] - self.pads[i + rank]) for i in range(rank))


def window(node: NodeView, shape: Sequence[int], kernel: Sequence[int]) -> Window:
    """The node's window over spatial axes of ``shape``; pads as numbers, also where ``auto_pad`` is set."""
    rank = len(shape)
    if rank not in (1, 2):
        raise node.refuse(f"it slides over {rank} axes", allowed="1 or 2 spatial axes")
    strides = tuple(node.options.get("strides", (1,) * rank))
    dilations = tuple(node.options.get("dilations", (1,) * rank))
    pads = tuple(node.options.get("pads", (0,) * (2 * rank)))
    auto = node.options.get("auto_pad", "NOTSET")
    if auto == "VALID":
        pads = (0,) * (2 * rank)
    elif auto != "NOTSET":
        pads = _same_pads(shape, kernel, strides, dilations, upper=auto == "SAME_UPPER")
    return Window(tuple(kernel), strides, pads, dilations)


def _same_pads(
    shape: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    upper: bool,
) -> tuple[int, ...]:
    """Pads that give ceil(size / stride) windows; an odd one goes to the end (SAME_UPPER) or the begin."""
    totals = [
        max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        for n, k, s, d in zip(shape, kernel, strides, dilations, strict=True)
    ]
    smaller, larger = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (*smaller, *larger) if upper else (*larger, *smaller)


@rule("Conv")
def conv(state: State, node: NodeView) -> Value:
    """An exact convolution; a depthwise one of equal numbers is a SumPool (and an Affine)."""
    x = state.tensor(node)
    weight = _weights(state, node, 1)
    channels, *spatial = state.builder.type(x).shape
    groups = int(node.options.get("group", 1))
    frame = window(node, spatial, weight.shape[2:])
    has_bias = len(node.proto.input) > 2 and node.proto.input[2] != ""
    depthwise = groups == channels == weight.shape[0]
    numbers = set(weight.fractions()) if depthwise and frame.size > 1 else set()
    if len(numbers) == 1 and not has_bias and set(frame.dilations) == {1} and numbers != {0}:
        one = weight.moved(lambda array: array.reshape(-1)[:1].reshape(()))
        return _pooled_sum(state, node, x, frame, one)
    x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    bias = state.constant(f"{node.name}_bias", _weights(state, node, 2), 0) if has_bias else None
    y = state.builder.conv(
        node.name,
        x,
        state.constant(f"{node.name}_weight", weight, 0),
        bias,
        strides=frame.strides,
        pads=frame.pads,
        dilations=frame.dilations,
        groups=groups,
        source=node.name,
    )
    return Activation(y)


def _weights(state: State, node: NodeView, index: int) -> Dyadic:
    value = state.values.get(node.proto.input[index])
    if not isinstance(value, Dyadic):
        raise node.refuse(f"its weight '{node.proto.input[index]}' is computed", allowed="constant weights")
    return state.short(node, value)


def _pooled_sum(state: State, node: NodeView, x: str, frame: Window, factor: Dyadic) -> Value:
    """The sum over a window, times a number."""
    plain = factor.fractions() == [1]
    name = node.name if plain else f"{node.name}_sum"
    y = state.builder.sum_pool(name, x, frame.kernel, frame.strides, frame.pads, source=node.name)
    return Activation(y if plain else state.affine(node, y, factor))


def _mean_factor(node: NodeView, count: int) -> Dyadic:
    if count & (count - 1):
        raise node.inexact(
            f"the mean of {count} numbers is no binary fraction of their sum",
            allowed="means of 2, 4, 8, 16… numbers, or the average pools of qhw.layers",
        )
    return Dyadic.power(1 - count.bit_length())


@rule("AveragePool")
def average_pool(state: State, node: NodeView) -> Value:
    """The mean over windows of a power of two."""
    x = state.tensor(node)
    shape = state.builder.type(x).shape[1:]
    frame = window(node, shape, node.options["kernel_shape"])
    if any(frame.pads) and not node.options.get("count_include_pad", 0):
        raise node.refuse(
            "its divisor differs at the padded edges", allowed="count_include_pad=1, or no padding"
        )
    if set(frame.dilations) != {1} or any(frame.ends(shape, node.output_shapes[0][2:])):
        raise node.refuse(
            "its windows are dilated or reach beyond the input (ceil_mode)", allowed="plain windows"
        )
    return _pooled_sum(state, node, x, frame, _mean_factor(node, frame.size))


@rule("GlobalAveragePool")
def global_average_pool(state: State, node: NodeView) -> Value:
    """The mean over all spatial positions, a power of two of them."""
    x = state.tensor(node)
    return _pooled_sum(state, node, x, _everything(state, x), _mean_factor(node, _everything(state, x).size))


def _everything(state: State, x: str) -> Window:
    spatial = state.builder.type(x).shape[1:]
    rank = len(spatial)
    return Window(spatial, (1,) * rank, (0,) * (2 * rank), (1,) * rank)


@rule("GlobalMaxPool")
def global_max_pool(state: State, node: NodeView) -> Value:
    """The maximum over all spatial positions."""
    x = state.tensor(node)
    frame = _everything(state, x)
    return Activation(state.builder.max_pool(node.name, x, frame.kernel, frame.strides, source=node.name))


@rule("MaxPool")
def max_pool(state: State, node: NodeView) -> Value:
    """The maximum over windows; ceil_mode is more padding at the end, which a maximum ignores."""
    if len([name for name in node.proto.output if name]) > 1:
        raise node.refuse("its indices are used", allowed="the first output only")
    x = state.tensor(node)
    shape = state.builder.type(x).shape[1:]
    frame = window(node, shape, node.options["kernel_shape"])
    rank = len(shape)
    ends = frame.ends(shape, node.output_shapes[0][2:])
    pads = (*frame.pads[:rank], *(p + more for p, more in zip(frame.pads[rank:], ends, strict=True)))
    y = state.builder.max_pool(
        node.name, x, frame.kernel, frame.strides, pads, frame.dilations, source=node.name
    )
    return Activation(y)


@rule("ReduceMean")
def reduce_mean(state: State, node: NodeView) -> Value:
    """The mean over axes with a power of two of numbers."""
    x, axes, keepdims = _reduction(state, node)
    count = int(np.prod([state.builder.type(x).shape[a] for a in axes]))
    factor = _mean_factor(node, count)
    total = state.builder.reduce_sum(f"{node.name}_sum", x, axes, keepdims, source=node.name)
    return Activation(state.affine(node, total, factor))


@rule("ReduceSum")
def reduce_sum(state: State, node: NodeView) -> Value:
    """The sum over axes."""
    x, axes, keepdims = _reduction(state, node)
    return Activation(state.builder.reduce_sum(node.name, x, axes, keepdims, source=node.name))


@rule("ReduceMax")
def reduce_max(state: State, node: NodeView) -> Value:
    """The maximum over axes."""
    x, axes, keepdims = _reduction(state, node)
    return Activation(state.builder.reduce_max(node.name, x, axes, keepdims, source=node.name))


def _reduction(state: State, node: NodeView) -> tuple[str, tuple[int, ...], bool]:
    """The input, the axes without the batch axis, and whether they stay with length 1."""
    x = state.builder.uniform(f"{node.name}_aligned", state.tensor(node), source=node.name)
    rank = state.rank(x)
    axes = node.options.get("axes")
    if axes is None and len(node.proto.input) > 1 and node.proto.input[1]:
        stored = state.stored(node.proto.input[1])
        if stored is None:
            raise node.refuse("its axes are computed", allowed="constant axes")
        axes = [int(a) for a in stored.reshape(-1)]
    if axes is None:
        axes = [] if node.options.get("noop_with_empty_axes") else list(range(rank + 1))
    whole = sorted({int(a) % (rank + 1) for a in axes})
    if not whole or 0 in whole:
        raise node.refuse("it reduces the batch axis, or none", allowed="axes 1 and up")
    return x, tuple(a - 1 for a in whole), bool(node.options.get("keepdims", 1))


@rule("MatMul")
def matmul(state: State, node: NodeView) -> Value:
    """A matrix product; either operand may be a constant, or both are computed with a batch axis each."""
    a, b = (state.values[name] for name in node.proto.input)
    if isinstance(b, Dyadic):
        left = state.builder.uniform(f"{node.name}_aligned", state.tensor(node), source=node.name)
        weight = _stacked(node, state.short(node, b), state.rank(left) + 1)
        right = state.constant(f"{node.name}_weight", weight, 1 if weight.ndim == 2 else None)
    elif isinstance(a, Dyadic):
        right = state.builder.uniform(f"{node.name}_aligned", state.tensor(node, 1), source=node.name)
        _check_ranks(node, state.rank(right) + 1, state.rank(right) + 1)
        left = state.constant(
            f"{node.name}_weight", _stacked(node, state.short(node, a), state.rank(right) + 1)
        )
    else:
        left, right = (
            state.builder.uniform(f"{node.name}_aligned", state.tensor(node, i), source=node.name)
            for i in (0, 1)
        )
        _check_ranks(node, state.rank(left) + 1, state.rank(right) + 1)
    return Activation(state.builder.matmul(node.name, left, right, source=node.name))


def _stacked(node: NodeView, value: Dyadic, rank: int) -> Dyadic:
    """A constant operand without a batch axis of its own."""
    if value.ndim < 2 or value.ndim > rank or (value.ndim == rank and rank > 2 and value.shape[0] != 1):
        raise node.refuse(f"a constant of shape {value.shape} does not multiply a tensor of {rank} axes")
    return value.moved(lambda array: array[0]) if value.ndim == rank > 2 else value


def _check_ranks(node: NodeView, left: int, right: int) -> None:
    if left != right or left < 3:
        raise node.refuse(
            f"it multiplies tensors of {left} and {right} axes, which mixes the samples of a batch",
            allowed="two computed operands with the same number of axes, 3 or more",
        )
