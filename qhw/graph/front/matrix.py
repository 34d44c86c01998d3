"""Convolutions, matrix products and the pools that are sums over windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qhw.formats.integer import as_mantissas
from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.floating import extended, from_integers
from qhw.graph.front.integers import SAME_NUMBER, integers, summands
from qhw.graph.front.movement import apply, shape_of
from qhw.graph.front.state import SHORT, NodeView, State, rule
from qhw.graph.front.values import Activation, FreeConstant, Lowered, Movement, Scale


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


def window(node: NodeView, shape: Sequence[int], kernel: Sequence[int]) -> Window:
    """The node's window over spatial axes of ``shape``."""
    rank = len(shape)
    if rank not in (1, 2):
        raise node.refuse(f"it slides over {rank} axes", allowed="1 or 2 spatial axes")
    strides, pads, dilations = (tuple(node.options[name]) for name in ("strides", "pads", "dilations"))
    return Window(tuple(kernel), strides, pads, dilations)


@rule("Conv")
def conv(state: State, node: NodeView) -> Lowered:
    """An exact convolution; a depthwise one of equal numbers is a SumPool (and an Affine)."""
    depthwise = int(node.options["group"]) == shape_of(state, node)[1]
    x, x_scale = summands(state, node, by_channel=depthwise)
    return convolution(state, node, x, x_scale, weights_of(state, node), None)


def convolution(
    state: State, node: NodeView, x: str, x_scale: Scale | None, weight: Dyadic, frame: Window | None
) -> Lowered:
    """The convolution of integers with a constant weight (M, C / groups, ...), and the node's bias."""
    channels, *spatial = state.builder.type(x).shape
    groups = int(node.options["group"])
    if weight.ndim != len(spatial) + 2:
        raise node.refuse(f"its weight has shape {weight.shape} for {len(spatial)} spatial axes")
    frame = frame or window(node, spatial, weight.shape[2:])
    free = _product_scale(node, x_scale, weight, 0, channels, groups)
    bias, later = _bias(state, node, 2, free, _sum_exponents(state, x, weight))
    depthwise = groups == channels == weight.shape[0]
    exact = not isinstance(weight, FreeConstant)
    numbers = set(weight.fractions()) if exact and depthwise and frame.size > 1 else set()
    if len(numbers) == 1 and bias is None and set(frame.dilations) == {1} and numbers != {0}:
        one = weight.moved(lambda array: array.reshape(-1)[:1].reshape(()))
        result: Activation = _pooled_sum(state, node, x, free, frame, one)
    else:
        x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
        y = state.builder.conv(
            node.name,
            x,
            _stored_weight(state, node, weight, 0),
            None if bias is None else state.constant(f"{node.name}_bias", bias, 0),
            strides=frame.strides,
            pads=frame.pads,
            dilations=frame.dilations,
            groups=groups,
            source=node.name,
        )
        result = Activation(y, free)
    return result if later is None else _with_float_bias(state, node, result, later)


def weights_of(state: State, node: NodeView) -> Dyadic:
    """A constant that multiplies: quantised, or short enough to be taken as it is."""
    name = node.proto.input[1]
    value = state.values.get(name)
    if not isinstance(value, Dyadic):
        raise node.refuse(f"its weight '{name}' is computed", allowed="constant weights")
    if isinstance(value, FreeConstant):
        return value
    if not value.on_grid and value.width > SHORT:
        raise node.refuse(
            f"'{name}' is not a quantised constant (its numbers need {value.width} bits)",
            allowed=f"quantised constants, or numbers of at most {SHORT} bits times one power of two",
            hint="quantise the layer's weights (weight_quant=… in Brevitas, a Quant node in QONNX)",
        )
    return state.short(node, value)


def _stored_weight(state: State, node: NodeView, weight: Dyadic, axis: int | None) -> str:
    """A weight as a constant of the graph; at a free scale its integers alone."""
    name = f"{node.name}_weight"
    if not isinstance(weight, FreeConstant):
        return state.constant(name, weight, axis)
    zeros = np.zeros((1,) * weight.ndim, np.int64)
    return state.constant(name, Dyadic(as_mantissas(weight.integers), zeros, True, weight.listed), axis)


def _product_scale(
    node: NodeView, x: Scale | None, weight: Dyadic, axis: int, channels: int, groups: int = 1
) -> Scale | None:
    """The free scale of sums of products, one or one per output (``axis`` of the result), in float32."""
    if isinstance(weight, FreeConstant):
        scale, along = weight.scale, (0 if axis == 0 and node.op != "MatMul" else weight.scale.ndim - 1)
        if any(size > 1 for i, size in enumerate(scale.shape) if i != along):
            raise node.refuse(
                f"its weights have scales of shape {scale.shape}",
                allowed="one scale, or one per output channel",
                hint="quantise the weights per output channel, or per tensor",
            )
        factor = scale.reshape(-1)
    elif x is None:
        return None
    else:
        factor = np.ones(1, np.float32)
    if x is not None and not x.is_uniform:
        if not (axis == 0 and x.axis == 0 and groups == channels == len(x.values)):
            raise node.refuse(
                f"it sums over channels that have {len(x.values)} different scales",
                allowed="one scale for the whole input (or a depthwise convolution)",
                hint="quantise its input per tensor",
            )
        factor = np.repeat(np.array(x.values, np.float32), weight.shape[0] // channels) * factor
    elif x is not None:
        factor = factor * np.float32(x.values[0])
    numbers = np.asarray(factor, dtype=np.float32)
    if (numbers == numbers[0]).all():
        return Scale((float(numbers[0]),))
    return Scale(tuple(float(n) for n in numbers), axis)


def _sum_exponents(state: State, x: str, weight: Dyadic) -> NDArray[np.int64]:
    """The exponents of sums of products, one or one per output channel."""
    given = min(state.builder.type(x).exponent.values)
    if isinstance(weight, FreeConstant):
        return np.array([given])
    _, own = weight.typed(0)
    return given + np.array(own.values, dtype=np.int64)


def _bias(
    state: State, node: NodeView, index: int, free: Scale | None, exponents: NDArray[np.int64]
) -> tuple[Dyadic | None, NDArray[np.float32] | None]:
    """A bias that goes into the sum of integers, or one that is added behind it in float32; None for none."""
    name = node.proto.input[index] if len(node.proto.input) > index else ""
    if not name:
        return None, None
    value = state.values.get(name)
    if not isinstance(value, Dyadic):
        raise node.refuse(f"its bias '{name}' is computed", allowed="constant biases")
    if free is None:
        if not isinstance(value, FreeConstant) and (value.on_grid or value.width <= SHORT):
            return state.short(node, value), None
        state.reasons.append(f"{node}: its bias '{name}' is not quantised at a power of two")
    elif (whole := on_grid(value, free, exponents)) is not None:
        return whole, None
    numbers = value.float32()
    return None, numbers if numbers.any() else None


def on_grid(value: Dyadic, free: Scale, exponents: NDArray[np.int64]) -> Dyadic | None:
    """A quantised constant as integers of a sum, where it has the sum's scale to float32's precision.

    Args:
        exponents: the sum's exponents: one, or as many as ``free`` has numbers.
    """
    if not isinstance(value, FreeConstant):
        return None
    stated = value.scale.astype(np.float64).reshape(-1)
    wanted = np.ldexp(np.array(free.values, dtype=np.float64), exponents.astype(np.int32))
    if stated.size > 1 and wanted.size > 1 and stated.size != wanted.size:
        return None
    if not (np.abs(stated - wanted) <= SAME_NUMBER * wanted).all():
        return None
    if np.unique(exponents).size == 1:
        exponents = exponents[:1].reshape((1,) * value.ndim)
    elif value.ndim != 1 or value.shape != exponents.shape:
        return None
    return Dyadic(as_mantissas(value.integers), exponents)


def _with_float_bias(state: State, node: NodeView, result: Activation, bias: NDArray[np.float32]) -> Lowered:
    """A bias that is no integer of the sum: the first step of a tail."""
    shape = state.builder.type(result.tensor).shape
    value = from_integers(state, node, result, f"{node.proto.output[0]}_product")
    constant = bias.reshape((1, -1, *[1] * (len(shape) - 1)))
    return extended(state, node, value, "Add", node.proto.output[0], [None, constant])


def _pooled_sum(
    state: State, node: NodeView, x: str, free: Scale | None, frame: Window, factor: Dyadic
) -> Activation:
    """The sum over a window, times a number."""
    plain = factor.fractions() == [1]
    name = node.name if plain else f"{node.name}_sum"
    y = state.builder.sum_pool(name, x, frame.kernel, frame.strides, frame.pads, source=node.name)
    return Activation(y if plain else state.affine(node, y, factor), free)


def _mean(state: State, node: NodeView, name: str, total: str, free: Scale | None, count: int) -> Activation:
    """A sum over ``count``: a shift, or a free scale."""
    if not count & (count - 1):
        factor = Dyadic.power(1 - count.bit_length())
        return Activation(total if count == 1 else state.affine(node, total, factor), free)
    state.reasons.append(f"{node}: the mean of {count} numbers is no binary fraction of their sum")
    values = (1.0,) if free is None else free.values
    divided = tuple(float(np.float32(v) / np.float32(count)) for v in values)
    return Activation(total, Scale(divided, None if free is None else free.axis))


def _pooled_mean(state: State, node: NodeView, x: str, free: Scale | None, frame: Window) -> Activation:
    if free is not None and free.axis not in (None, 0):
        raise node.refuse(
            f"it sums numbers of different scales along axis {free.axis + 1}",
            allowed="one scale, or one per channel",
            hint="quantise per tensor",
        )
    name = node.name if frame.size == 1 or frame.size & (frame.size - 1) else f"{node.name}_sum"
    total = state.builder.sum_pool(name, x, frame.kernel, frame.strides, frame.pads, source=node.name)
    return _mean(state, node, node.name, total, free, frame.size)


@rule("AveragePool")
def average_pool(state: State, node: NodeView) -> Lowered:
    """The mean over windows; the sum of integers, and the divisor goes into the scale or a shift."""
    x, free = integers(state, node)
    shape = state.builder.type(x).shape[1:]
    frame = window(node, shape, node.options["kernel_shape"])
    if set(frame.dilations) != {1} or node.options["ceil_mode"]:
        raise node.refuse(
            "its windows are dilated or reach beyond the input (ceil_mode)",
            allowed="plain windows",
            hint="leave ceil_mode out, or pad with count_include_pad=True",
        )
    if any(frame.pads) and not node.options["count_include_pad"]:
        raise node.refuse(
            "its divisor differs at the padded edges",
            allowed="count_include_pad=1, or no padding",
            hint="nn.AvgPool2d(..., count_include_pad=True)",
        )
    return _pooled_mean(state, node, x, free, frame)


@rule("GlobalAveragePool")
def global_average_pool(state: State, node: NodeView) -> Lowered:
    """The mean over all spatial positions."""
    x, free = integers(state, node)
    return _pooled_mean(state, node, x, free, _everything(state, x))


def _everything(state: State, x: str) -> Window:
    spatial = state.builder.type(x).shape[1:]
    rank = len(spatial)
    return Window(spatial, (1,) * rank, (0,) * (2 * rank), (1,) * rank)


@rule("GlobalMaxPool")
def global_max_pool(state: State, node: NodeView) -> Lowered:
    """The maximum over all spatial positions."""
    spatial = shape_of(state, node)[2:]
    rank = len(spatial)
    return _maximum(state, node, Window(spatial, (1,) * rank, (0,) * (2 * rank), (1,) * rank))


@rule("MaxPool")
def max_pool(state: State, node: NodeView) -> Lowered:
    """The maximum over windows."""
    shape = shape_of(state, node)[2:]
    return _maximum(state, node, window(node, shape, node.options["kernel_shape"]))


def _maximum(state: State, node: NodeView, frame: Window) -> Lowered:
    def tensor(x: str, name: str) -> str:
        if state.builder.type(x).exponent.axis not in (None, 0):
            x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
        return state.builder.max_pool(
            name, x, frame.kernel, frame.strides, frame.pads, frame.dilations, source=node.name
        )

    out = node.output_shapes[0][1:]
    return apply(
        state,
        node,
        Movement(node.name, node.op, out, None, tensor, lambda axis: axis if axis == 0 else None, True),
    )


@rule("ReduceMean")
def reduce_mean(state: State, node: NodeView) -> Lowered:
    """The mean over axes."""
    x, free, axes, keepdims = _reduction(state, node)
    count = int(np.prod([state.builder.type(x).shape[a] for a in axes]))
    name = node.name if count & (count - 1) else f"{node.name}_sum"
    total = state.builder.reduce_sum(name, x, axes, keepdims, source=node.name)
    return _mean(state, node, node.name, total, free, count)


@rule("ReduceSum")
def reduce_sum(state: State, node: NodeView) -> Lowered:
    """The sum over axes."""
    x, free, axes, keepdims = _reduction(state, node)
    return Activation(state.builder.reduce_sum(node.name, x, axes, keepdims, source=node.name), free)


@rule("ReduceMax")
def reduce_max(state: State, node: NodeView) -> Lowered:
    """The maximum over axes."""
    axes, keepdims = _reduced_axes(state, node)

    def tensor(x: str, name: str) -> str:
        x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
        return state.builder.reduce_max(name, x, axes, keepdims, source=node.name)

    def axis_after(axis: int) -> int | None:
        if axis in axes:
            return None
        return axis if keepdims else axis - sum(a < axis for a in axes)

    out = node.output_shapes[0][1:]
    return apply(state, node, Movement(node.name, node.op, out, None, tensor, axis_after, True))


def _reduction(state: State, node: NodeView) -> tuple[str, Scale | None, tuple[int, ...], bool]:
    """The input and its free scale, the axes without the batch axis, and whether they stay with length 1."""
    x, free = integers(state, node)
    x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    axes, keepdims = _reduced_axes(state, node)
    if free is not None and not free.is_uniform:
        raise node.refuse("it sums numbers of different scales", hint="quantise per tensor")
    return x, free, axes, keepdims


def _reduced_axes(state: State, node: NodeView) -> tuple[tuple[int, ...], bool]:
    axes = state.numbers(node, 1)
    if 0 in axes:
        raise node.refuse("it reduces the batch axis", allowed="axes 1 and up")
    return tuple(axis - 1 for axis in axes), bool(node.options["keepdims"])


@rule("MatMul")
def matmul(state: State, node: NodeView) -> Lowered:
    """A matrix product; either operand may be a constant, or both are computed with a batch axis each."""
    a, b = (state.values[name] for name in node.proto.input)
    if isinstance(b, Dyadic):
        left, left_scale = summands(state, node)
        left = state.builder.uniform(f"{node.name}_aligned", left, source=node.name)
        weight = _stacked(node, weights_of(state, node), state.rank(left) + 1)
        right = _stored_weight(state, node, weight, 1 if weight.ndim == 2 else None)
        axis = (state.rank(left) if weight.ndim == 2 else max(state.rank(left), weight.ndim)) - 1
        free = _product_scale(node, left_scale, weight, axis, 0)
    elif isinstance(a, Dyadic):
        right, right_scale = summands(state, node, 1)
        right = state.builder.uniform(f"{node.name}_aligned", right, source=node.name)
        _check_ranks(node, state.rank(right) + 1, state.rank(right) + 1)
        weight = _stacked(
            node, a if isinstance(a, FreeConstant) else state.short(node, a), state.rank(right) + 1
        )
        left = _stored_weight(state, node, weight, None)
        free = _uniform_product(node, weight, right_scale)
    else:
        (left, one), (right, other) = (integers(state, node, i) for i in (0, 1))
        left, right = (
            state.builder.uniform(f"{node.name}_aligned", t, source=node.name) for t in (left, right)
        )
        _check_ranks(node, state.rank(left) + 1, state.rank(right) + 1)
        free = product_of_scales(node, one, other)
    return Activation(state.builder.matmul(node.name, left, right, source=node.name), free)


def _uniform_product(node: NodeView, constant: Dyadic, x: Scale | None) -> Scale | None:
    if not isinstance(constant, FreeConstant):
        own = None
    elif constant.is_uniform:
        own = Scale((float(constant.scale.reshape(-1)[0]),))
    else:
        raise node.refuse("its first operand has scales per channel", allowed="one scale")
    return product_of_scales(node, own, x)


def product_of_scales(
    node: NodeView, a: Scale | None, b: Scale | None, *, element_wise: bool = False
) -> Scale | None:
    """The free scale of a product of two tensors, in float32; per channel in an element-wise one alone."""
    if a is None or b is None:
        whole = a or b
    else:
        axes = {a.axis, b.axis} - {None}
        if len(axes) > 1:
            raise node.refuse(
                "it multiplies tensors with scales along different axes", allowed="one scale each"
            )
        numbers = np.array(a.values, dtype=np.float32) * np.array(b.values, dtype=np.float32)
        whole = Scale(tuple(float(n) for n in numbers), next(iter(axes), None))
    if whole is not None and not whole.is_uniform and not element_wise:
        raise node.refuse("it multiplies tensors with scales per channel", allowed="one scale each")
    return whole


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
