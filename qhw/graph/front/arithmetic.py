"""Sums, products, affine maps and activation functions, where integer operations carry them exactly."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from qhw.graph.front.broadcast import broadcast
from qhw.graph.front.dyadic import Dyadic, power_of_two
from qhw.graph.front.matrix import on_grid, product_of_scales
from qhw.graph.front.state import (
    SHORT,
    NodeView,
    State,
    is_per_channel,
    rule,
    with_exponent,
    without_batch,
)
from qhw.graph.front.values import Activation, Clamped, Lowered, RawInput, Scale

ONE = Dyadic.power(0)
MINUS_ONE = -ONE


def _is_constant(state: State, node: NodeView, index: int) -> bool:
    return isinstance(state.values[node.proto.input[index]], Dyadic)


def _split(state: State, node: NodeView) -> tuple[int, Dyadic | None]:
    """Which operand is computed, and the other one if it is a constant."""
    first, second = (state.values[name] for name in node.proto.input[:2])
    if isinstance(first, Dyadic):
        return 1, first
    return 0, second if isinstance(second, Dyadic) else None


def _constants(state: State, node: NodeView, combine: Callable[[Dyadic, Dyadic], Dyadic]) -> Dyadic | None:
    """The result where both operands are constants."""
    first, second = (state.values[name] for name in node.proto.input)
    if not (isinstance(first, Dyadic) and isinstance(second, Dyadic)):
        return None
    return combine(first, second).packed()


@rule("Add")
def add(state: State, node: NodeView) -> Lowered:
    """A sum of tensors, or of a tensor and constants."""
    known = _constants(state, node, lambda a, b: a + b)
    if known is not None:
        return known
    index, constant = _split(state, node)
    if constant is not None:
        return _plus(state, node, index, constant)
    return _sum_of_two(state, node, node.name, *_scaled_pair(state, node))


def _scaled_pair(state: State, node: NodeView) -> tuple[Activation, Activation]:
    """Two computed operands, of one shape: a spatial axis or channel of length 1 is repeated."""
    found = [_settled(state, node, index) for index in (0, 1)]
    a, b = found
    if state.builder.type(a.tensor).shape != state.builder.type(b.tensor).shape:
        a, b = broadcast(state, node, a, b)
    return a, b


def _settled(state: State, node: NodeView, index: int) -> Activation:
    """A computed operand with what is pending carried out.

    Raises:
        InexactError: the tensor is in the middle of a tail.
    """
    return Activation(*state.scaled_tensor(node, state.operand(node, index)))


def _sum_of_two(state: State, node: NodeView, name: str, a: Activation, b: Activation) -> Activation:
    """Tensors of one unit, or of units that are whole multiples of each other."""
    if a.scale is None and b.scale is None:
        return Activation(state.builder.add(name, a.tensor, b.tensor, source=node.name))
    ratio = _ratio(state, a, b)
    if ratio is None:
        raise node.inexact(
            "it adds tensors of different scales",
            allowed="one scale, or scales that are whole multiples of each other",
            hint="quantise both operands with one shared quantizer",
        )
    factor, is_first = ratio
    coarse, fine = (a, b) if is_first else (b, a)
    x = coarse.tensor
    if factor != Dyadic.power(0).fractions()[0]:
        x = state.affine(node, x, Dyadic.of(np.float64(float(factor)), on_grid=True), suffix="_ratio")
    return Activation(state.builder.add(name, x, fine.tensor, source=node.name), fine.scale)


_LARGEST_RATIO = 1 << 16


def _ratio(state: State, a: Activation, b: Activation) -> tuple[Fraction, bool] | None:
    """What the coarser operand's mantissas are multiplied by, so that both have the finer one's free scale.

    Also whether the first operand is the coarser one; None where units are no whole multiples.
    """
    scales = [Scale((1.0,)) if v.scale is None else v.scale for v in (a, b)]
    if scales[0] == scales[1]:
        return Fraction(1), True
    exponents = [state.builder.type(v.tensor).exponent for v in (a, b)]
    if not all(s.is_uniform for s in scales) or not all(e.is_scalar for e in exponents):
        return None
    units = [np.ldexp(np.float32(s.values[0]), e.values[0]) for s, e in zip(scales, exponents, strict=True)]
    is_first = bool(units[0] >= units[1])
    coarse, fine = (0, 1) if is_first else (1, 0)
    ratio = float(units[coarse]) / float(units[fine])
    if not ratio.is_integer() or ratio > _LARGEST_RATIO:
        return None
    # The integer operation aligns exponents itself.
    shift = exponents[fine].values[0] - exponents[coarse].values[0]
    return Fraction(int(ratio)) * Fraction(2) ** shift, is_first


@rule("Sub")
def subtract(state: State, node: NodeView) -> Lowered:
    """A difference of tensors, or of a tensor and a constant."""
    known = _constants(state, node, lambda a, b: a + -b)
    if known is not None:
        return known
    index, constant = _split(state, node)
    if constant is not None and index == 0:
        return _plus(state, node, 0, -constant)
    if constant is not None:
        return _affine(state, node, state.tensor(node, 1), MINUS_ONE, constant)
    a, b = _scaled_pair(state, node)
    negated = state.affine(node, b.tensor, MINUS_ONE, suffix="_negated")
    return _sum_of_two(state, node, node.name, a, Activation(negated, b.scale))


def _plus(state: State, node: NodeView, index: int, constant: Dyadic) -> Lowered:
    value = state.operand(node, index)
    if isinstance(value, Activation) and value.scale is not None:
        return _plus_on_grid(state, node, value, constant)
    return _affine(state, node, state.settle(node, value), ONE, constant)


def _plus_on_grid(state: State, node: NodeView, value: Activation, constant: Dyadic) -> Lowered:
    """A bias on the accumulator's own grid is added to the integers."""
    assert value.scale is not None
    kind = state.builder.type(value.tensor)
    exponent = kind.exponent
    whole = on_grid(constant, value.scale, np.array(exponent.values)) if exponent.is_scalar else None
    rank = len(kind.shape)
    if whole is None or whole.ndim > rank + 1:
        raise node.inexact("it adds a constant that is not on the grid of the sum")
    if value.scale.axis is not None and value.scale.axis != _varying_axis(whole, rank):
        raise node.inexact("it adds a constant that is not on the grid of the sum")
    added = _affine(state, node, value.tensor, ONE, whole)
    assert isinstance(added, Activation)
    return Activation(added.tensor, value.scale)


def _varying_axis(value: Dyadic, rank: int) -> int | None:
    """The axis of an activation of ``rank`` axes that a constant differs along, if it is one."""
    shape = (1,) * (rank + 1 - value.ndim) + value.shape
    varying = [axis - 1 for axis, size in enumerate(shape) if size > 1]
    return varying[0] if len(varying) == 1 else None


@rule("Mul")
def multiply(state: State, node: NodeView) -> Lowered:
    """A product of tensors, or of a tensor and a constant."""
    known = _constants(state, node, lambda a, b: a * b)
    if known is not None:
        return known
    index, constant = _split(state, node)
    if constant is not None:
        return _times(state, node, index, constant)
    a, b = _scaled_pair(state, node)
    left, right = (state.builder.uniform(f"{node.name}_aligned", t.tensor, source=node.name) for t in (a, b))
    free = product_of_scales(node, a.scale, b.scale, element_wise=True)
    return Activation(state.builder.mul(node.name, left, right, source=node.name), free)


@rule("Div")
def divide(state: State, node: NodeView) -> Lowered:
    """A quotient by a constant whose reciprocal is a short binary number."""
    divisor = state.values[node.proto.input[1]]
    if not isinstance(divisor, Dyadic):
        raise node.inexact("it divides by a computed tensor")
    inverse = _reciprocal(divisor)
    value = state.values[node.proto.input[0]]
    if inverse is None:
        raise node.inexact("it divides by a number that is not a power of two")
    if isinstance(value, Dyadic):
        return (value * inverse).packed()
    return _times(state, node, 0, inverse)


def _reciprocal(value: Dyadic) -> Dyadic | None:
    powers = [power_of_two(abs(v)) for v in value.fractions()]
    if None in powers:
        return None
    signs = np.sign(value.mantissa).astype(np.int64)
    return Dyadic(signs, -np.array(powers, dtype=np.int64).reshape(value.shape), value.on_grid).packed()


def _times(state: State, node: NodeView, index: int, constant: Dyadic) -> Lowered:
    value = state.operand(node, index)
    power = power_of_two(constant.fractions()[0]) if len(set(constant.fractions())) == 1 else None
    if isinstance(value, RawInput) and power is not None:
        without_batch(node, constant, len(value.shape))
        return with_exponent(value, power)
    if isinstance(value, Activation) and value.scale is not None and power is not None:
        scaled = tuple(float(np.ldexp(np.float32(v), power)) for v in value.scale.values)
        return replace(value, scale=replace(value.scale, values=scaled))
    return _affine(state, node, state.settle(node, value), constant, None)


@rule("Neg")
def negate(state: State, node: NodeView) -> Lowered:
    """The negative."""
    value = state.values[node.proto.input[0]]
    if isinstance(value, Dyadic):
        return -value
    assert not isinstance(value, Dyadic)
    tensor, scale = state.scaled_tensor(node, value)
    return Activation(state.affine(node, tensor, MINUS_ONE), scale)


def _affine(state: State, node: NodeView, x: str, multiplier: Dyadic, offset: Dyadic | None) -> Lowered:
    """``x * multiplier + offset``: Affine per channel, else Mul and Add with a whole constant."""
    shape = state.builder.type(x).shape
    multiplier = state.short(node, without_batch(node, multiplier, len(shape)))
    offset = None if offset is None else state.short(node, without_batch(node, offset, len(shape)))
    for constant in (multiplier, *([] if offset is None else [offset])):
        if np.broadcast_shapes(constant.shape, shape) != shape:
            raise node.refuse(f"a constant of shape {constant.shape} enlarges a tensor of shape {shape}")
    if all(is_per_channel(c, shape) for c in (multiplier, offset) if c is not None):
        return Activation(state.affine(node, x, multiplier, offset))
    x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    if multiplier.fractions() != [1]:
        name = node.name if offset is None else f"{node.name}_product"
        stored = state.constant(f"{node.name}_multiplier", multiplier)
        x = state.builder.mul(name, x, stored, source=node.name)
    if offset is not None:
        x = state.builder.add(node.name, x, state.constant(f"{node.name}_offset", offset), source=node.name)
    return Activation(x)


@rule("BatchNormalization")
def batch_normalization(state: State, node: NodeView) -> Lowered:
    """Affine per channel, where scale / sqrt(variance + epsilon) is a short binary number."""
    x = state.tensor(node)
    gamma, beta, mean, variance = (_vector(state, node, i) for i in range(1, 5))
    epsilon = Fraction(float(np.float32(node.options["epsilon"])))
    gains = [_gain(node, g, v + epsilon) for g, v in zip(gamma, variance, strict=True)]
    offsets = [b - m * g for b, m, g in zip(beta, mean, gains, strict=True)]
    shape = (len(gains), *[1] * (state.rank(x) - 1))
    multiplier, offset = (
        _of_fractions(values).moved(lambda a: a.reshape(shape)) for values in (gains, offsets)
    )
    return _affine(state, node, x, multiplier, offset)


def _vector(state: State, node: NodeView, index: int) -> list[Fraction]:
    value = state.values.get(node.proto.input[index])
    if not isinstance(value, Dyadic):
        raise node.refuse(f"its parameter '{node.proto.input[index]}' is computed", allowed="constants")
    return value.fractions()


def _gain(node: NodeView, gamma: Fraction, variance: Fraction) -> Fraction:
    """gamma / sqrt(variance), if that is a binary number."""
    if variance > 0:
        root = Fraction(math.isqrt(variance.numerator), math.isqrt(variance.denominator))
        gain = gamma / root if root else Fraction(0)
        if root * root == variance and _is_binary(gain):
            return gain
    raise node.inexact("its parameters do not make short binary factors (gamma / sqrt(variance + epsilon))")


def _is_binary(value: Fraction) -> bool:
    return value.denominator & (value.denominator - 1) == 0


def _of_fractions(values: list[Fraction]) -> Dyadic:
    """Binary fractions as one exact vector."""
    bits = max(v.denominator.bit_length() - 1 for v in values)
    mantissas = np.array([int(v * 2**bits) for v in values], dtype=object)
    return Dyadic(mantissas, np.array([-bits]), on_grid=False).reduced()


@rule("Relu")
def relu(state: State, node: NodeView) -> Lowered:
    """Kept pending: a quantizer behind it takes the bound over."""
    return _clamped(state, node, Fraction(0), None)


@rule("Clip")
def clip(state: State, node: NodeView) -> Lowered:
    """Kept pending, as Relu is."""
    low, high = (_bound(state, name) for name in (*node.proto.input[1:], "")[:2])
    return _clamped(state, node, low, high)


def _bound(state: State, name: str) -> Fraction | None:
    """None for what bounds nothing: no number, infinity, or the end of float32."""
    stored = state.stored(name)
    value = np.inf if stored is None else float(stored)
    return None if abs(value) >= float(np.finfo(np.float32).max) else Fraction(value)


def _clamped(state: State, node: NodeView, low: Fraction | None, high: Fraction | None) -> Lowered:
    value = state.operand(node)
    if low is not None and high is not None and low > high:
        raise node.refuse(f"its bounds {float(low)} and {float(high)} are the wrong way round")
    tensor, scale = state.scaled_tensor(node, value)
    if scale is not None and (low or high or any(v <= 0 for v in scale.values)):
        raise node.inexact("its bounds are not on the grid of its input")
    return Clamped(tensor, low, high, node.name, scale)


@rule("LeakyRelu")
def leaky_relu(state: State, node: NodeView) -> Lowered:
    """``slope * x + (1 - slope) * relu(x)``, exact for a slope that is a short binary number."""
    slope = Dyadic.of(np.float32(node.options["alpha"]))
    return _leaky(state, node, slope)


@rule("PRelu")
def prelu(state: State, node: NodeView) -> Lowered:
    """LeakyRelu with a constant slope per channel or per tensor."""
    slope = state.values.get(node.proto.input[1])
    if not isinstance(slope, Dyadic):
        raise node.refuse("its slope is computed", allowed="a constant")
    return _leaky(state, node, slope)


def _leaky(state: State, node: NodeView, slope: Dyadic) -> Lowered:
    x = state.tensor(node)
    if state.builder.ranges[x].bounds[0] >= 0:
        return Activation(x)
    shape = state.builder.type(x).shape
    slope = without_batch(node, slope, len(shape))
    if (not slope.on_grid and slope.width > SHORT) or not is_per_channel(slope, shape):
        raise node.inexact("its slope is not a short binary number", allowed="a power of two, as 0.125")
    if not slope.mantissa.any():
        return Clamped(x, Fraction(0), None, node.name)
    positive = state.settle(node, Clamped(x, Fraction(0), None, f"{node.name}_positive"))
    below = state.affine(node, x, slope, suffix="_slope")
    above = state.affine(node, positive, ONE + -slope, suffix="_rest")
    return Activation(state.builder.add(node.name, below, above, source=node.name))
