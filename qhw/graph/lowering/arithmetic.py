"""Sums, products, affine maps and activation functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from qhw.graph.lowering.dyadic import Dyadic, power_of_two
from qhw.graph.lowering.inputs import chained
from qhw.graph.lowering.state import (
    SHORT,
    Activation,
    Chain,
    Clamped,
    NodeView,
    RawInput,
    State,
    Value,
    is_per_channel,
    rule,
    with_exponent,
    without_batch,
)

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
    values = [state.values[name] for name in node.proto.input]
    if not all(isinstance(value, Dyadic) for value in values):
        return None
    result = values[0]
    for value in values[1:]:
        assert isinstance(result, Dyadic)
        assert isinstance(value, Dyadic)
        result = combine(result, value)
    assert isinstance(result, Dyadic)
    return result.packed()


def _unquantised(value: Dyadic) -> bool:
    return not value.on_grid and value.width > SHORT


@rule("Add", "Sum")
def add(state: State, node: NodeView) -> Value:
    """A sum of tensors, or of a tensor and constants."""
    known = _constants(state, node, lambda a, b: a + b)
    if known is not None:
        return known
    if len(node.proto.input) == 1:
        return state.operand(node)
    if len(node.proto.input) > 2:
        return _sum(state, node)
    index, constant = _split(state, node)
    if constant is not None:
        return _plus(state, node, index, constant, [None, constant][:: 1 if index == 0 else -1])
    a, b = _same_shape(state, node)
    return Activation(state.builder.add(node.name, a, b, source=node.name))


def _sum(state: State, node: NodeView) -> Value:
    """More than two operands, added in order."""
    if any(_is_constant(state, node, i) for i in range(len(node.proto.input))):
        raise node.refuse("it sums constants and tensors", allowed="Add for constants")
    total = state.tensor(node)
    last = len(node.proto.input) - 1
    for index in range(1, last + 1):
        operand = state.tensor(node, index)
        _check_shapes(state, node, total, operand)
        name = node.name if index == last else f"{node.name}_{index}"
        total = state.builder.add(name, total, operand, source=node.name)
    return Activation(total)


@rule("Sub")
def subtract(state: State, node: NodeView) -> Value:
    """A difference of tensors, or of a tensor and a constant."""
    known = _constants(state, node, lambda a, b: a + -b)
    if known is not None:
        return known
    index, constant = _split(state, node)
    if constant is not None and index == 0:
        return _plus(state, node, 0, -constant, [None, constant])
    if constant is not None:
        value = state.operand(node, 1)
        if isinstance(value, Chain) or (isinstance(value, RawInput) and _unquantised(constant)):
            return chained(node, value, [constant, None])
        return _affine(state, node, state.settle(node, value), MINUS_ONE, constant)
    a, b = _same_shape(state, node)
    negated = state.affine(node, b, MINUS_ONE, suffix="_negated")
    return Activation(state.builder.add(node.name, a, negated, source=node.name))


def _plus(state: State, node: NodeView, index: int, constant: Dyadic, order: list[Dyadic | None]) -> Value:
    value = state.operand(node, index)
    if isinstance(value, Chain) or (isinstance(value, RawInput) and _unquantised(constant)):
        return chained(node, value, order)
    return _affine(state, node, state.settle(node, value), ONE, constant)


@rule("Mul")
def multiply(state: State, node: NodeView) -> Value:
    """A product of tensors, or of a tensor and a constant."""
    known = _constants(state, node, lambda a, b: a * b)
    if known is not None:
        return known
    index, constant = _split(state, node)
    if constant is not None:
        return _times(state, node, index, constant, [None, constant][:: 1 if index == 0 else -1])
    a, b = _same_shape(state, node)
    a, b = (state.builder.uniform(f"{node.name}_aligned", t, source=node.name) for t in (a, b))
    return Activation(state.builder.mul(node.name, a, b, source=node.name))


@rule("Div")
def divide(state: State, node: NodeView) -> Value:
    """A quotient by a constant whose reciprocal is a short binary number."""
    divisor = state.values[node.proto.input[1]]
    if not isinstance(divisor, Dyadic):
        raise node.refuse("it divides by a computed tensor", allowed="division by a power of two")
    inverse = _reciprocal(divisor)
    value = state.values[node.proto.input[0]]
    if inverse is None:
        if isinstance(value, RawInput | Chain):
            return chained(node, value, [None, divisor])
        raise node.inexact("it divides by a number that is not a power of two")
    if isinstance(value, Dyadic):
        return (value * inverse).packed()
    return _times(state, node, 0, inverse, [None, divisor])


def _reciprocal(value: Dyadic) -> Dyadic | None:
    powers = [power_of_two(abs(v)) for v in value.fractions()]
    if None in powers:
        return None
    signs = np.sign(value.mantissa).astype(np.int64)
    return Dyadic(signs, -np.array(powers, dtype=np.int64).reshape(value.shape), value.on_grid).packed()


def _times(state: State, node: NodeView, index: int, constant: Dyadic, order: list[Dyadic | None]) -> Value:
    value = state.operand(node, index)
    power = power_of_two(constant.fractions()[0]) if len(set(constant.fractions())) == 1 else None
    if isinstance(value, RawInput) and power is not None:
        without_batch(node, constant, len(value.shape))
        return with_exponent(value, power)
    if isinstance(value, Chain) or (isinstance(value, RawInput) and _unquantised(constant)):
        return chained(node, value, order)
    return _affine(state, node, state.settle(node, value), constant, None)


@rule("Neg")
def negate(state: State, node: NodeView) -> Value:
    """The negative."""
    value = state.values[node.proto.input[0]]
    if isinstance(value, Dyadic):
        return -value
    if isinstance(value, Chain):
        return chained(node, value, [None])
    return Activation(state.affine(node, state.settle(node, value), MINUS_ONE))


def _affine(state: State, node: NodeView, x: str, multiplier: Dyadic, offset: Dyadic | None) -> Value:
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


def _same_shape(state: State, node: NodeView) -> tuple[str, str]:
    a, b = state.tensor(node, 0), state.tensor(node, 1)
    _check_shapes(state, node, a, b)
    return a, b


def _check_shapes(state: State, node: NodeView, a: str, b: str) -> None:
    shapes = [state.builder.type(t).shape for t in (a, b)]
    if shapes[0] != shapes[1]:
        raise node.refuse(
            f"it combines computed tensors of shapes {shapes[0]} and {shapes[1]} (batch left out)",
            allowed="equal shapes, or a constant that broadcasts",
        )


@rule("BatchNormalization")
def batch_normalization(state: State, node: NodeView) -> Value:
    """Affine per channel, where scale / sqrt(variance + epsilon) is a short binary number."""
    if node.options.get("training_mode"):
        raise node.refuse("it is in training mode", hint="export after model.eval()")
    x = state.tensor(node)
    gamma, beta, mean, variance = (_vector(state, node, i) for i in range(1, 5))
    epsilon = Fraction(float(np.float32(node.options.get("epsilon", 1e-5))))
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
def relu(state: State, node: NodeView) -> Value:
    """Kept pending: a quantizer behind it takes the bound over."""
    return _clamped(state, node, Fraction(0), None)


@rule("Clip")
def clip(state: State, node: NodeView) -> Value:
    """Kept pending, as Relu is; bounds as attributes or inputs."""
    return _clamped(state, node, _bound(state, node, 1, "min"), _bound(state, node, 2, "max"))


def _bound(state: State, node: NodeView, index: int, option: str) -> Fraction | None:
    if option in node.options:
        return _finite(float(node.options[option]))
    if len(node.proto.input) <= index or not node.proto.input[index]:
        return None
    stored = state.stored(node.proto.input[index])
    if stored is None or stored.size != 1:
        raise node.refuse(f"its bound '{node.proto.input[index]}' is not a constant number")
    return _finite(float(stored.reshape(-1)[0]))


def _finite(value: float) -> Fraction | None:
    """None for what bounds nothing: infinity, or the end of float32."""
    return None if abs(value) >= float(np.finfo(np.float32).max) else Fraction(value)


def _clamped(state: State, node: NodeView, low: Fraction | None, high: Fraction | None) -> Value:
    value = state.operand(node)
    if isinstance(value, Chain):
        limit = float(np.finfo(np.float32).max)
        bounds = {"min": -limit if low is None else float(low), "max": limit if high is None else float(high)}
        return chained(node, value, [None], {} if node.op == "Relu" else bounds)
    if low is not None and high is not None and low > high:
        raise node.refuse(f"its bounds {float(low)} and {float(high)} are the wrong way round")
    return Clamped(state.settle(node, value), low, high, node.name)


@rule("LeakyRelu")
def leaky_relu(state: State, node: NodeView) -> Value:
    """``slope * x + (1 - slope) * relu(x)``, exact for a slope that is a short binary number."""
    slope = Dyadic.of(np.float32(node.options.get("alpha", 0.01)))
    return _leaky(state, node, slope)


@rule("PRelu")
def prelu(state: State, node: NodeView) -> Value:
    """LeakyRelu with a constant slope per channel or per tensor."""
    slope = state.values.get(node.proto.input[1])
    if not isinstance(slope, Dyadic):
        raise node.refuse("its slope is computed", allowed="a constant")
    return _leaky(state, node, slope)


def _leaky(state: State, node: NodeView, slope: Dyadic) -> Value:
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
