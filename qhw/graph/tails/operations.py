"""The float32 operations that a tail may hold: what each computes, and how its result moves."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import Overflow, Rounding
from qhw.formats.requantise import saturating
from qhw.formats.rounding import requantize_values
from qhw.formats.table import TableFormat
from qhw.onnx_ops.float_quant import format_of_attribute

Value = NDArray[np.float32]


Directions = NDArray[np.int8]


RISING, CONSTANT, FALLING, UNKNOWN = 1, 0, -1, 2
"""How codes move with the integer, per channel."""


@dataclass(frozen=True)
class Step:
    """One float32 operation, named as in ONNX (or QONNX) with the same attributes."""

    op: str
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Directed:
    """An operand as the direction rules see it: its value if constant, and how it moves."""

    value: Value | None
    direction: Directions


@dataclass(frozen=True)
class Operation:
    """What an operation computes, and how its result moves with its operands."""

    function: Callable[[Step, Sequence[Value]], Value]
    direction: Callable[[Step, Sequence[Directed]], Directions]


def _unknown(step: Step, operands: Sequence[Directed]) -> Directions:
    return np.where(operands[0].direction == CONSTANT, CONSTANT, UNKNOWN).astype(np.int8)


def _follows(step: Step, operands: Sequence[Directed]) -> Directions:
    return operands[0].direction


def _opposes(step: Step, operands: Sequence[Directed]) -> Directions:
    return _times(operands[0].direction, np.int8(-1))


def _times(direction: Directions, sign: Any) -> Directions:
    """Scaled by a constant; what is not known may hold infinities, and stays unknown even for zero."""
    return np.where(direction == UNKNOWN, UNKNOWN, direction * sign).astype(np.int8)


def _joined(a: Directions, b: Directions) -> Directions:
    return np.where(a == b, a, np.where(a == CONSTANT, b, np.where(b == CONSTANT, a, UNKNOWN))).astype(
        np.int8
    )


def _sum(step: Step, operands: Sequence[Directed]) -> Directions:
    return _joined(operands[0].direction, operands[1].direction)


def _difference(step: Step, operands: Sequence[Directed]) -> Directions:
    return _joined(operands[0].direction, _times(operands[1].direction, np.int8(-1)))


def _signs(value: Value) -> Directions:
    return np.sign(value).astype(np.int8).reshape(-1)


def _product(step: Step, operands: Sequence[Directed]) -> Directions:
    for one, other in (operands, operands[::-1]):
        if one.value is not None:
            return _times(other.direction, _signs(one.value))
    return np.full(operands[0].direction.shape, UNKNOWN, np.int8)


def _quotient(step: Step, operands: Sequence[Directed]) -> Directions:
    divisor = operands[1].value
    if divisor is None or (divisor == 0).any():
        return np.full(operands[0].direction.shape, UNKNOWN, np.int8)
    return _times(operands[0].direction, _signs(divisor))


def _follows_slope(step: Step, operands: Sequence[Directed]) -> Directions:
    """PRelu: rising where no slope is negative."""
    slope = operands[1].value
    positive = slope is not None and bool((slope >= 0).all())
    return operands[0].direction if positive else _unknown(step, operands)


def _follows_alpha(default: float) -> Callable[[Step, Sequence[Directed]], Directions]:
    def rule(step: Step, operands: Sequence[Directed]) -> Directions:
        positive = step.attributes.get("alpha", default) >= 0
        return operands[0].direction if positive else _unknown(step, operands)

    return rule


def _unary(function: Callable[..., Any]) -> Callable[[Step, Sequence[Value]], Value]:
    return lambda step, x: np.asarray(function(x[0]))


def _binary(function: Callable[..., Any]) -> Callable[[Step, Sequence[Value]], Value]:
    return lambda step, x: np.asarray(function(x[0], x[1]))


def _precise(function: Callable[..., Any]) -> Callable[[Step, Sequence[Value]], Value]:
    """Compute in float64 and round once: the same on every machine, unlike float32 exponentials."""
    return lambda step, x: np.asarray(function(*(v.astype(np.float64) for v in x))).astype(np.float32)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _gelu(step: Step, x: Sequence[Value]) -> Value:
    v = x[0].astype(np.float64)
    if step.attributes.get("approximate", "none") == "tanh":
        inner = np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))
    else:
        inner = _erf(v / math.sqrt(2))
    return np.asarray(0.5 * v * (1 + inner)).astype(np.float32)


def _sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-x)))


def _softplus(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _leaky_relu(step: Step, x: Sequence[Value]) -> Value:
    return np.asarray(np.where(x[0] < 0, np.float32(step.attributes.get("alpha", 0.01)) * x[0], x[0]))


def _elu(step: Step, x: Sequence[Value]) -> Value:
    v = x[0].astype(np.float64)
    return np.asarray(np.where(v < 0, step.attributes.get("alpha", 1.0) * np.expm1(v), v)).astype(np.float32)


def _celu(step: Step, x: Sequence[Value]) -> Value:
    v, alpha = x[0].astype(np.float64), step.attributes.get("alpha", 1.0)
    return np.asarray(np.where(v < 0, alpha * np.expm1(v / alpha), v)).astype(np.float32)


def _selu(step: Step, x: Sequence[Value]) -> Value:
    v = x[0].astype(np.float64)
    alpha = step.attributes.get("alpha", 1.6732632423543772)
    gamma = step.attributes.get("gamma", 1.0507009873554805)
    return np.asarray(gamma * np.where(v < 0, alpha * np.expm1(v), v)).astype(np.float32)


def _thresholded_relu(step: Step, x: Sequence[Value]) -> Value:
    alpha = np.float32(step.attributes.get("alpha", 1.0))
    return np.asarray(np.where(x[0] > alpha, x[0], np.float32(0)))


def _fixed_quant(step: Step, x: Sequence[Value]) -> Value:
    """A FixedQuant without fraction bits: the mantissas, computed exactly."""
    options = step.attributes
    width, signed = options["width"], bool(options.get("signed", 1))
    modes = Rounding(options.get("rounding", "RND_CONV")), Overflow(options.get("overflow", "SAT"))
    return requantize_values(x[0].astype(np.float64), 0, width, signed, *modes).astype(np.float32)


def _format_quant(step: Step, x: Sequence[Value]) -> Value:
    """A FormatQuant at scale 1: the numbers of its format, exact in float32; NaN stays NaN."""
    unknown = np.isnan(x[0])
    numbers = format_named(step.attributes["format"]).quantize(np.where(unknown, 0, x[0]))
    return np.where(unknown, np.nan, numbers).astype(np.float32)


@lru_cache(maxsize=64)
def format_named(text: str) -> TableFormat:
    """The format that a FormatQuant names, saturating."""
    format = format_of_attribute("FormatQuant", {"format": text})
    return saturating(format, format.rounding)


def _follows_saturating(step: Step, operands: Sequence[Directed]) -> Directions:
    saturating = step.attributes["overflow"] in (Overflow.SAT.value, Overflow.SAT_SYM.value)
    return operands[0].direction if saturating else _unknown(step, operands)


def _hard_sigmoid(step: Step, x: Sequence[Value]) -> Value:
    alpha, beta = (np.float32(step.attributes.get(n, d)) for n, d in (("alpha", 0.2), ("beta", 0.5)))
    return np.asarray(np.clip(x[0] * alpha + beta, np.float32(0), np.float32(1)))


def _hard_swish(step: Step, x: Sequence[Value]) -> Value:
    gate = np.clip(x[0] * np.float32(1 / 6) + np.float32(0.5), np.float32(0), np.float32(1))
    return np.asarray(x[0] * gate)


def _clip(step: Step, x: Sequence[Value]) -> Value:
    low, high = (np.float32(step.attributes[n]) for n in ("min", "max"))
    return np.asarray(np.minimum(np.maximum(x[0], low), high))


def _half_up(x: Value) -> Value:
    return np.asarray(np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)))


def _half_down(x: Value) -> Value:
    return np.asarray(np.sign(x) * np.ceil(np.abs(x) - np.float32(0.5)))


ROUNDINGS: dict[str, Callable[[Value], Value]] = {
    "ROUND": np.rint,
    "HALF_EVEN": np.rint,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.asarray(np.sign(x) * np.ceil(np.abs(x))),
    "DOWN": np.trunc,
    "HALF_UP": _half_up,
    "HALF_DOWN": _half_down,
}
"""QONNX's rounding modes, in the float32 operations that QONNX names for them."""


def code_bounds(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """Lowest and highest code of a QONNX Quant (its operator description, ``min_int`` and ``max_int``)."""
    if signed:
        return -(1 << (bits - 1)) + int(narrow), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - int(narrow)


def _quant(step: Step, x: Sequence[Value]) -> Value:
    bounds = code_bounds(step.attributes["bits"], step.attributes["signed"], step.attributes["narrow"])
    low, high = (np.float32(bound) for bound in bounds)
    return ROUNDINGS[step.attributes["rounding_mode"]](np.asarray(np.minimum(np.maximum(x[0], low), high)))


def _bipolar(step: Step, x: Sequence[Value]) -> Value:
    return np.asarray(np.where(x[0] >= 0, np.float32(1), np.float32(-1)))


def _multi_threshold(step: Step, x: Sequence[Value]) -> Value:
    value, thresholds = x  # (C, n) and (C or 1, 1, T)
    counted = np.stack(
        [
            np.searchsorted(np.sort(row.reshape(-1)), line, side="right")
            for row, line in np.broadcast(_rows(thresholds), _rows(value))
        ]
    )
    return counted.astype(np.float32)


def _rows(array: Value) -> NDArray[np.object_]:
    """An object array of the rows, so that one row broadcasts over many."""
    rows = np.empty(len(array), dtype=object)
    rows[:] = list(array)
    return rows


OPERATIONS: dict[str, Operation] = {
    "Add": Operation(_binary(np.add), _sum),
    "Sub": Operation(_binary(np.subtract), _difference),
    "Mul": Operation(_binary(np.multiply), _product),
    "Div": Operation(_binary(np.divide), _quotient),
    "Min": Operation(_binary(np.minimum), _sum),
    "Max": Operation(_binary(np.maximum), _sum),
    "Neg": Operation(_unary(np.negative), _opposes),
    "Abs": Operation(_unary(np.abs), _unknown),
    "Identity": Operation(_unary(np.asarray), _follows),
    "Relu": Operation(_unary(lambda x: np.maximum(x, np.float32(0))), _follows),
    "Clip": Operation(_clip, _follows),
    "LeakyRelu": Operation(_leaky_relu, _follows_alpha(0.01)),
    "PRelu": Operation(_binary(lambda x, slope: np.where(x < 0, slope * x, x)), _follows_slope),
    "HardSigmoid": Operation(_hard_sigmoid, _follows_alpha(0.2)),
    "HardSwish": Operation(_hard_swish, _unknown),
    "Round": Operation(_unary(np.rint), _follows),
    "Floor": Operation(_unary(np.floor), _follows),
    "Ceil": Operation(_unary(np.ceil), _follows),
    "Sign": Operation(_unary(np.sign), _follows),
    "Sqrt": Operation(_unary(np.sqrt), _follows),
    "Pow": Operation(_precise(np.power), _unknown),
    "Reciprocal": Operation(_unary(np.reciprocal), _unknown),
    "Exp": Operation(_precise(np.exp), _unknown),
    "Log": Operation(_precise(np.log), _unknown),
    "Sigmoid": Operation(_precise(_sigmoid), _unknown),
    "Softplus": Operation(_precise(_softplus), _unknown),
    "Tanh": Operation(_precise(np.tanh), _unknown),
    "Elu": Operation(_elu, _unknown),
    "Celu": Operation(_celu, _unknown),
    "Selu": Operation(_selu, _unknown),
    "Softsign": Operation(_precise(lambda x: x / (1 + np.abs(x))), _unknown),
    "Mish": Operation(_precise(lambda x: x * np.tanh(_softplus(x))), _unknown),
    "ThresholdedRelu": Operation(_thresholded_relu, _unknown),
    "Erf": Operation(_precise(_erf), _unknown),
    "Gelu": Operation(_gelu, _unknown),
    "Quant": Operation(_quant, _follows),
    "BipolarQuant": Operation(_bipolar, _follows),
    "FixedQuant": Operation(_fixed_quant, _follows_saturating),
    "FormatQuant": Operation(_format_quant, _follows),
    "MultiThreshold": Operation(_multi_threshold, _follows),
}
"""Every operation that a tail may hold."""
