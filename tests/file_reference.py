"""What a quantised ONNX file means, worked out from the file alone: nothing of qhw's lowering is used.

The contract, as docs/design.md states it. Sums of products, pools and additions of one scale are taken over
integers. What stands between two of them is element-wise:

- exact real arithmetic where all of its numbers are powers of two and short binary constants;
- else NumPy float32, operation by operation in the order of the file, on the exact integers times
  their scale (one float32 product of the scales that met in the sum).

Exact numbers are Python integers times one power of two. Only the formats that qhw's own FormatQuant names
come from ``qhw.formats``, which define them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Array = NDArray[Any]

SHORT = 16
"""Bits of a constant that no quantizer chose and that is taken for an exact one."""

LARGEST_RATIO = 1 << 16
"""The largest ratio of two scales whose integers are added."""

LIMIT = 60
"""Bits up to which int64 is used."""


class OutsideError(Exception):
    """The contract does not say what the file means here: a sum over numbers that are not quantised, say."""


@dataclass(frozen=True)
class Exact:
    """``mantissa * 2**exponent``."""

    mantissa: Array
    exponent: int

    def __post_init__(self) -> None:
        # NumPy makes bare integers of what it computes from arrays without axes.
        object.__setattr__(self, "mantissa", np.asarray(self.mantissa, dtype=object))

    @classmethod
    def of(cls, values: Any) -> Exact:
        """Finite floats or integers, exactly."""
        array = np.asarray(values)
        if array.dtype.kind in "iu":
            return cls(array.astype(object), 0)
        fraction, power = np.frexp(array.astype(np.float64))
        integers = np.ldexp(fraction, 53).astype(np.int64)
        present = integers != 0
        if not present.any():
            return cls(np.zeros(array.shape, dtype=object), 0)
        finest = int((power[present] - 53).min())
        shifts = np.where(present, power - 53 - finest, 0)
        shifted = [int(m) << int(s) for m, s in zip(integers.flat, shifts.flat, strict=True)]
        return cls(np.array(shifted, dtype=object).reshape(array.shape), finest).reduced()

    def reduced(self) -> Exact:
        """At the coarsest exponent."""
        joined = 0
        for m in self.mantissa.flat:
            joined |= abs(int(m))
        if not joined:
            return Exact(self.mantissa, 0)
        twos = (joined & -joined).bit_length() - 1
        return Exact(self.mantissa >> twos if twos else self.mantissa, self.exponent + twos)

    @property
    def width(self) -> int:
        """Bits at one exponent, without a sign."""
        return max((abs(int(m)).bit_length() for m in self.reduced().mantissa.flat), default=0)

    def at(self, exponent: int) -> Array:
        """The mantissas at an exponent that is no coarser."""
        return self.mantissa * (1 << (self.exponent - exponent))

    def moved(self, function: Callable[[Array], Array]) -> Exact:
        return Exact(function(self.mantissa), self.exponent)

    def __add__(self, other: Exact) -> Exact:
        finest = min(self.exponent, other.exponent)
        return Exact(self.at(finest) + other.at(finest), finest)

    def __mul__(self, other: Exact) -> Exact:
        return Exact(self.mantissa * other.mantissa, self.exponent + other.exponent)

    def __neg__(self) -> Exact:
        return Exact(-self.mantissa, self.exponent)

    def clipped(self, low: float | None, high: float | None) -> Exact:
        result = self
        for bound, take in ((low, np.maximum), (high, np.minimum)):
            if bound is not None:
                limit = Exact.of(np.float64(bound))
                finest = min(result.exponent, limit.exponent)
                result = Exact(take(result.at(finest), limit.at(finest)), finest)
        return result


@dataclass(frozen=True)
class Constant:
    """A stored array; a quantised one has integers and a scale, the value being their float32 product.

    ``is_computed``: from quantised constants whose scales are powers of two, so as short as it gets.
    """

    value: Array
    integers: Array | None = None
    scale: Array | None = None
    is_computed: bool = False

    @property
    def exact(self) -> Exact:
        if self.integers is None:
            return Exact.of(self.value)
        assert self.scale is not None
        return Exact.of(self.integers.astype(np.float64)) * Exact.of(self.scale)

    @property
    def is_binary(self) -> bool:
        """Whether it takes part in exact arithmetic."""
        if self.integers is not None:
            assert self.scale is not None
            return all_powers(self.scale)
        return self.is_computed or Exact.of(self.value).width <= SHORT

    @property
    def is_on_grid(self) -> bool:
        """Whether quantizers with powers of two for scales chose it."""
        return self.is_computed or (self.integers is not None and self.is_binary)


@dataclass(frozen=True)
class Ints:
    """``integers * scale``: (N, …) int64 or Python integers, float32 that broadcasts over them."""

    integers: Array
    scale: Array

    @property
    def exact(self) -> Exact | None:
        if not all_powers(self.scale):
            return None
        return Exact(self.integers.astype(object), 0) * Exact.of(self.scale)

    @property
    def floats(self) -> Array:
        return (
            rounded_once(self.integers) * self.scale
            if (self.scale != 1).any()
            else rounded_once(self.integers)
        )


@dataclass(frozen=True)
class Floats:
    """Element-wise results in float32, and exactly where all numbers allow it.

    Args:
        rectified: the integers whose positive part this is, if it is.
        affine: the values of integers, in float64: ``integers * scale + offset``.
    """

    floats: Array
    exact: Exact | None
    rectified: Ints | None = None
    affine: tuple[Ints, Array, Array] | None = None


Value = Constant | Ints | Floats


@dataclass(frozen=True)
class Output:
    """``mantissa * scale + offset`` in float64; exactly ``mantissa * 2**exponent`` where scale is None."""

    mantissa: Array
    exponent: int = 0
    scale: Array | None = None
    offset: Array | None = None

    @property
    def values(self) -> Array:
        """As float64."""
        values = np.ldexp(self.mantissa.astype(np.float64), self.exponent)
        return values if self.scale is None else values * self.scale + self.offset


@dataclass
class Meaning:
    """What a file gives for a batch.

    Args:
        rounded: quantizers whose float32 reading gives other codes than exact arithmetic, which their
            numbers allow: sums or products of more than 24 bits.
        inexact: quantizers whose numbers do not allow exact arithmetic.
    """

    outputs: dict[str, Output]
    rounded: list[str] = field(default_factory=list)
    inexact: list[str] = field(default_factory=list)


def meaning(model: ModelProto, inputs: Mapping[str, Array], *, in_float32: bool = False) -> Meaning:
    """The outputs of a file.

    Args:
        in_float32: take float32, operation by operation, also where all numbers are powers of two.

    Raises:
        OutsideError: where the contract does not say what the file means.
    """
    walk = _Walk(model, inputs, in_float32)
    for node in model.graph.node:
        walk.visit(node)
    outputs = {value.name: walk.output(value.name) for value in model.graph.output}
    return Meaning(outputs, walk.rounded, walk.inexact)


# --- numbers ---


def all_powers(scale: Array) -> bool:
    """Whether every number is a positive power of two."""
    fraction, _ = np.frexp(scale.astype(np.float64))
    return bool((fraction == 0.5).all())


def is_by_channel(scale: Array) -> bool:
    """Whether numbers differ along the channels (axis 1) alone."""
    return scale.shape[1:2] == (scale.size,)


def is_by_channel_of(value: Value) -> bool:
    """Whether a value is integers of one scale, or of one per channel."""
    root = value.rectified if isinstance(value, Floats) else value
    return isinstance(root, Ints) and (root.scale.size == 1 or is_by_channel(root.scale))


def rounded_once(integers: Array) -> Array:
    """As float32, each with one rounding to nearest even."""
    if integers.dtype != object:
        return integers.astype(np.float32)
    return np.array([_float32(int(i)) for i in integers.flat], dtype=np.float32).reshape(integers.shape)


def _float32(integer: int) -> float:
    excess = max(abs(integer).bit_length() - 24, 0)
    return math.ldexp(float(round(Fraction(integer, 1 << excess))), excess)


def narrowed(integers: Array) -> Array:
    """int64 where that holds them with room to add."""
    if integers.dtype != object or not integers.size:
        return integers
    largest = max(abs(int(integers.min())), abs(int(integers.max())))
    return integers.astype(np.int64) if largest.bit_length() <= LIMIT else integers


def roomy(*operands: Array, terms: int = 1) -> list[Array]:
    """Operands of products that are summed: Python integers where int64 would not hold the sums."""
    bits = terms.bit_length()
    for operand in operands:
        bits += int(max(abs(int(operand.min())), abs(int(operand.max())))).bit_length() if operand.size else 0
    return [operand.astype(np.int64 if bits <= LIMIT else object) for operand in operands]


# --- rounding, as QONNX names it ---

_HALVES = {"ROUND": "even", "HALF_EVEN": "even", "HALF_UP": "away", "HALF_DOWN": "zero"}
_HALVES |= {"RND_CONV": "even", "RND_INF": "away", "RND_ZERO": "zero", "RND": "up", "RND_MIN_INF": "down"}
_DIRECTED = {
    "FLOOR": "floor",
    "CEIL": "ceil",
    "UP": "away",
    "DOWN": "zero",
    "TRN": "floor",
    "TRN_ZERO": "zero",
}


def round_floats(x: Array, mode: str) -> Array:
    """Floats to whole numbers, in their own precision."""
    if mode in _DIRECTED:
        towards = {"floor": np.floor, "ceil": np.ceil, "zero": np.trunc}
        towards["away"] = lambda v: np.copysign(np.ceil(np.abs(v)), v)
        return np.asarray(towards[_DIRECTED[mode]](x))
    low = np.floor(x)
    rest = x - low
    ties = {
        "even": np.mod(low, 2) == 1,
        "away": x > 0,
        "zero": x < 0,
        "up": np.ones(x.shape, bool),
        "down": np.zeros(x.shape, bool),
    }[_HALVES[mode]]
    return np.asarray(low + ((rest > 0.5) | ((rest == 0.5) & ties)), dtype=x.dtype)


def round_exact(x: Exact, exponents: Array, mode: str) -> Array:
    """``x / 2**exponents`` to whole numbers."""
    return np.array(
        [
            _round_fraction(Fraction(int(m)) * Fraction(2) ** (x.exponent - int(e)), mode)
            for m, e in np.broadcast(x.mantissa, exponents)
        ],
        dtype=object,
    ).reshape(np.broadcast_shapes(x.mantissa.shape, exponents.shape))


def _round_fraction(x: Fraction, mode: str) -> int:
    low = math.floor(x)
    rest = x - low
    if mode in _DIRECTED:
        ups = {"floor": False, "ceil": rest > 0, "zero": rest > 0 and x < 0, "away": rest > 0 and x > 0}
        return low + ups[_DIRECTED[mode]]
    ties = {"even": low % 2 == 1, "away": x > 0, "zero": x < 0, "up": True, "down": False}
    return low + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and ties[_HALVES[mode]]))


# --- windows ---


def windows(
    x: Array,
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    fill: Any,
) -> Array:
    """(N, C, *spatial) as (N, C, *out, *kernel)."""
    rank = len(kernel)
    edges = [(0, 0), (0, 0), *((pads[i], pads[i + rank]) for i in range(rank))]
    if any(any(edge) for edge in edges):
        x = np.pad(x, edges, constant_values=fill)
    for axis in range(rank):
        k, s, d = kernel[axis], strides[axis], dilations[axis]
        count = (x.shape[2 + axis] - (d * (k - 1) + 1)) // s + 1
        index = np.arange(count)[:, None] * s + np.arange(k)[None, :] * d
        # The kernel's axis goes to the end; spatial axes that are still to come stay where they are.
        x = np.moveaxis(np.take(x, index, axis=2 + axis), 3 + axis, -1)
    return x


def same_pads(
    shape: Sequence[int], kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], mode: str
) -> list[int]:
    """What auto_pad asks for."""
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    total = [
        max(0, (-(-n // s) - 1) * s + d * (k - 1) + 1 - n)
        for n, k, s, d in zip(shape, kernel, strides, dilations, strict=True)
    ]
    small, large = [t // 2 for t in total], [t - t // 2 for t in total]
    return small + large if mode == "SAME_UPPER" else large + small


# --- element-wise functions, each in float64 and rounded once unless ONNX's formula is arithmetic ---


def _once(function: Callable[..., Array]) -> Callable[..., Array]:
    return lambda *x: np.asarray(function(*(v.astype(np.float64) for v in x))).astype(np.float32)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _softplus(x: Array) -> Array:
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _gelu(x: Array, options: Mapping[str, Any]) -> Array:
    v = x.astype(np.float64)
    if options.get("approximate", b"none") in (b"tanh", "tanh"):
        inner = np.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))
    else:
        inner = _erf(v / math.sqrt(2))
    return np.asarray(0.5 * v * (1 + inner)).astype(np.float32)


def _below_zero(function: Callable[[Array, float], Array], default: float) -> Callable[..., Array]:
    """``x`` where it is positive, a function of it and of alpha below."""

    def apply(x: Array, options: Mapping[str, Any]) -> Array:
        v = x.astype(np.float64)
        return np.asarray(np.where(v < 0, function(v, options.get("alpha", default)), v)).astype(np.float32)

    return apply


def _selu(x: Array, options: Mapping[str, Any]) -> Array:
    v, alpha = x.astype(np.float64), options.get("alpha", 1.6732632423543772)
    gamma = options.get("gamma", 1.0507009873554805)
    return np.asarray(gamma * np.where(v < 0, alpha * np.expm1(v), v)).astype(np.float32)


def _hard_sigmoid(x: Array, options: Mapping[str, Any]) -> Array:
    alpha, beta = np.float32(options.get("alpha", 0.2)), np.float32(options.get("beta", 0.5))
    return np.clip(x * alpha + beta, np.float32(0), np.float32(1))


def _hard_swish(x: Array, options: Mapping[str, Any]) -> Array:
    return np.asarray(x * np.clip(x * np.float32(1 / 6) + np.float32(0.5), np.float32(0), np.float32(1)))


def _unary(function: Callable[[Array], Array]) -> Callable[..., Array]:
    return lambda x, options: np.asarray(function(x))


FUNCTIONS: dict[str, Callable[..., Array]] = {
    "Sigmoid": _unary(_once(lambda x: 1 / (1 + np.exp(-x)))),
    "Tanh": _unary(_once(np.tanh)),
    "Erf": _unary(_once(_erf)),
    "Exp": _unary(_once(np.exp)),
    "Log": _unary(_once(np.log)),
    "Softplus": _unary(_once(_softplus)),
    "Softsign": _unary(_once(lambda x: x / (1 + np.abs(x)))),
    "Mish": _unary(_once(lambda x: x * np.tanh(_softplus(x)))),
    "Gelu": _gelu,
    "Elu": _below_zero(lambda v, a: a * np.expm1(v), 1.0),
    "Celu": _below_zero(lambda v, a: a * np.expm1(v / a), 1.0),
    "Selu": _selu,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "ThresholdedRelu": lambda x, o: np.where(x > np.float32(o.get("alpha", 1.0)), x, np.float32(0)),
    "Abs": _unary(np.abs),
    "Sqrt": _unary(np.sqrt),
    "Reciprocal": _unary(np.reciprocal),
    "Round": _unary(np.rint),
    "Floor": _unary(np.floor),
    "Sign": _unary(np.sign),
}


class _Walk:
    """The values of a file's tensors, node by node."""

    def __init__(self, model: ModelProto, inputs: Mapping[str, Array], in_float32: bool):
        self.in_float32 = in_float32
        self.opset = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
        self.rounded: list[str] = []
        self.inexact: list[str] = []
        self.values: dict[str, Value] = {
            tensor.name: Constant(numpy_helper.to_array(tensor)) for tensor in model.graph.initializer
        }
        annotated = {
            note.tensor_name: next(
                e.value for e in note.quant_parameter_tensor_names if e.key == "finn_datatype"
            )
            for note in model.graph.quantization_annotation
        }
        for value in model.graph.input:
            array, one = np.asarray(inputs[value.name]), np.ones((), np.float32)
            if value.type.tensor_type.elem_type != TensorProto.FLOAT or value.name in annotated:
                self.values[value.name] = Ints(array.astype(np.int64), one)
            else:
                self.values[value.name] = Floats(array.astype(np.float32), None)

    # --- operands ---

    def visit(self, node: NodeProto) -> None:
        options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        method = getattr(self, f"on_{node.op_type.lower()}", None)
        if method is None and node.op_type in FUNCTIONS:
            method = self._function
        if method is None:
            raise OutsideError(node.op_type)
        with np.errstate(all="ignore"):
            results = method(node, options)
        results = results if isinstance(results, list) else [results]
        for name, value in zip(node.output, results, strict=False):
            self.values[name] = value

    def value(self, node: NodeProto, index: int = 0) -> Value:
        return self.values[node.input[index]]

    def constant(self, node: NodeProto, index: int, default: Any = None) -> Any:
        if index >= len(node.input) or not node.input[index]:
            return default
        value = self.values[node.input[index]]
        if not isinstance(value, Constant):
            raise OutsideError(f"{node.name}: computed parameter")
        return value.value

    def floats(self, value: Value) -> Array:
        """In float32."""
        return np.asarray(value.value, dtype=np.float32) if isinstance(value, Constant) else value.floats

    def exact(self, value: Value) -> Exact | None:
        """Exactly, where its numbers take part in exact arithmetic."""
        if isinstance(value, Constant):
            return value.exact if value.is_binary else None
        return value.exact

    def ints(self, node: NodeProto, value: Value, *, uniform: bool = True) -> Ints:
        """As integers of a scale (one of them, or one per channel)."""
        found = value if isinstance(value, Ints) else None
        if isinstance(value, Floats) and value.rectified is not None:
            found = Ints(np.maximum(value.rectified.integers, 0), value.rectified.scale)
        if found is not None and (found.scale.size == 1 or (not uniform and is_by_channel(found.scale))):
            return found
        exact = self.exact(value) if not isinstance(value, Constant) else None
        if exact is not None:
            exact = exact.reduced()
            scale = np.ldexp(np.float32(1), exact.exponent).astype(np.float32)
            return Ints(narrowed(exact.mantissa), np.asarray(scale))
        raise OutsideError(f"{node.op_type} '{node.name}' reads numbers that are not integers of one scale")

    def output(self, name: str) -> Output:
        value = self.values[name]
        assert not isinstance(value, Constant)
        exact = value.exact
        if exact is not None:
            return Output(exact.mantissa, exact.exponent)
        if isinstance(value, Ints):
            return Output(value.integers, 0, value.scale.astype(np.float64), np.zeros(()))
        if value.affine is None:
            raise OutsideError(f"the output '{name}' is computed in float")
        root, scale, offset = value.affine
        return Output(root.integers, 0, scale, offset)

    # --- quantizers ---

    def quantised(
        self, node: NodeProto, value: Value, codes: Array, scale: Array, exact: Array | None = None
    ) -> Value:
        """Integers that a quantizer gave in float32, and exactly where it could."""
        if isinstance(value, Constant):
            integers = codes.astype(np.float64)
            return Constant(np.asarray(codes * scale, dtype=np.float32), integers, scale)
        if exact is None:
            self.inexact.append(node.name)
        elif not np.array_equal(exact, codes.astype(object)):
            self.rounded.append(node.name)
        chosen = codes if exact is None or self.in_float32 else exact
        if chosen.dtype != object:
            if not np.isfinite(chosen).all():
                raise OutsideError(f"{node.name}: NaN")
            chosen = chosen.astype(np.int64)
        rank = chosen.ndim
        scale = (
            scale.reshape(()) if scale.size == 1 else scale.reshape((1,) * (rank - scale.ndim) + scale.shape)
        )
        return Ints(narrowed(np.asarray(chosen)), scale)

    def on_quant(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value = self.value(node)
        scale, zero, width = (np.asarray(self.constant(node, i), np.float32) for i in (1, 2, 3))
        bits, signed, narrow = int(width.reshape(-1)[0]), options.get("signed", 1), options.get("narrow", 0)
        mode = options.get("rounding_mode", b"ROUND").decode().upper()
        low = -(1 << (bits - 1)) + bool(narrow) if signed else 0
        high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1 - bool(narrow)
        x = self.floats(value)
        x = x / scale if (scale != 1).any() else x
        x = x + zero if zero.any() else x
        if bits == 1 and signed:  # as qonnx executes it
            codes = np.where(x >= 0, np.float32(1), np.float32(-1))
        else:
            codes = round_floats(np.clip(x, np.float32(low), np.float32(high)), mode)
        codes = codes - zero
        exact = self.exact(value)
        if exact is None or not all_powers(scale):
            return self.quantised(node, value, codes, scale)
        moved = exact + Exact.of(zero.astype(np.float64)) * Exact.of(scale)
        if bits == 1 and signed:
            found = np.where(moved.mantissa >= 0, 1, -1).astype(object)
        else:
            found = np.clip(round_exact(moved, _exponents(scale), mode), low, high)
        found = found - zero.astype(np.int64).astype(object)
        if isinstance(value, Constant):
            codes = found.astype(np.float64)
        return self.quantised(node, value, codes, scale, found)

    on_intquant = on_quant

    def on_quantizelinear(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        """``saturate(round(x / scale) + zero)``: the zero point is added behind the rounding."""
        value, scale = self.value(node), np.asarray(self.constant(node, 1), np.float32)
        zero = np.asarray(self.constant(node, 2, np.zeros((), np.uint8)))
        limits = np.iinfo(zero.dtype)
        scale, shift = (self._along(v, value, options) for v in (scale, zero.astype(np.int64)))
        codes = np.clip(np.rint(self.floats(value) / scale) + shift, limits.min, limits.max)
        if isinstance(value, Constant):
            return Constant(codes.astype(zero.dtype))
        exact = self.exact(value)
        found = None
        if exact is not None and all_powers(scale):
            whole = round_exact(exact, _exponents(scale), "ROUND") + shift.astype(object)
            found = np.clip(whole, limits.min, limits.max)
        return self.quantised(node, value, codes, np.ones((), np.float32), found)

    def on_dequantizelinear(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value, scale = self.value(node), np.asarray(self.constant(node, 1), np.float32)
        zero = np.asarray(self.constant(node, 2, 0)).astype(np.int64)
        scale, shift = (self._along(v, value, options) for v in (scale, zero))
        if isinstance(value, Constant):
            integers = (value.value.astype(np.int64) - shift).astype(np.float64)
            return Constant(np.asarray(integers.astype(np.float32) * scale), integers, scale)
        ints = self.ints(node, value)
        codes = ints.integers * int(ints.scale)
        return Ints(codes - shift, scale)

    def _along(self, parameter: Array, value: Value, options: Mapping[str, Any]) -> Array:
        """A parameter of one number, or one for each index of an axis, as it broadcasts."""
        if parameter.size == 1:
            return parameter.reshape(())
        shape = [1] * self.floats(value).ndim
        shape[options.get("axis", 1)] = parameter.size
        return parameter.reshape(shape)

    def on_bipolarquant(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value, scale = self.value(node), np.asarray(self.constant(node, 1), np.float32)
        exact = self.exact(value)
        codes = np.where(self.floats(value) >= 0, np.float32(1), np.float32(-1))
        found = None if exact is None else np.where(exact.mantissa >= 0, 1, -1).astype(object)
        return self.quantised(node, value, codes, scale, found)

    def on_fixedquant(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value = self.value(node)
        width, signed = options["width"], bool(options.get("signed", 1))
        fraction = np.asarray(self.constant(node, 1, width - options.get("integer", 0))).astype(np.int64)
        scale = np.asarray(self.constant(node, 2, np.ones((), np.float32)), np.float32)
        mode, overflow = (
            options.get(k, d).decode() for k, d in (("rounding", b"RND_CONV"), ("overflow", b"SAT"))
        )
        x = self.floats(value)
        x = x / scale if (scale != 1).any() else x
        unit = np.ldexp(scale, -fraction).astype(np.float32)
        if overflow.startswith("WRAP") and np.isinf(x).any():
            raise OutsideError(f"{node.name}: infinity wrapped")
        codes = _fixed(Exact.of(_bounded(node, x)), -fraction, width, signed, mode, overflow)
        exact = self.exact(value)
        found = None
        if exact is not None and all_powers(scale):
            found = _fixed(exact, _exponents(scale) - fraction, width, signed, mode, overflow)
        codes = codes.astype(np.float64)
        return self.quantised(node, value, codes, unit, found)

    def on_trunc(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value = self.value(node)
        scale, zero = (np.asarray(self.constant(node, i), np.float32) for i in (1, 2))
        mode = options.get("rounding_mode", b"FLOOR").decode().upper()
        x = self.floats(value)
        x = x / scale if (scale != 1).any() else x
        x = round_floats(x + zero if zero.any() else x, "ROUND")
        is_exact = self.exact(value) is not None and all_powers(scale) and not zero.any()
        if len(node.input) == 5:
            bits = [int(np.asarray(self.constant(node, i)).reshape(-1)[0]) for i in (3, 4)]
            drop = np.float32(2.0 ** (bits[0] - bits[1]))
            codes = round_floats(x / drop, mode) - zero
            found = None
            if is_exact:
                whole = round_exact(self.exact(value), _exponents(scale), "ROUND")
                found = round_exact(Exact(whole, 0), np.full((), bits[0] - bits[1]), mode)
            return self.quantised(node, value, codes, scale, found)
        out, bits = (
            np.asarray(self.constant(node, 4), np.float32),
            int(np.asarray(self.constant(node, 5)).reshape(-1)[0]),
        )
        signed, narrow = options.get("signed", 1), options.get("narrow", 0)
        low = -(1 << (bits - 1)) + bool(narrow) if signed else 0
        high = (1 << (bits - 1)) - 1 if signed else (1 << bits) - 1 - bool(narrow)
        ratio = np.exp2(np.round(np.log2(out / scale))).astype(np.float32)
        codes = round_floats(np.clip(x / ratio, np.float32(low), np.float32(high)), mode) - zero / ratio
        found = None
        if is_exact and all_powers(out):
            whole = round_exact(self.exact(value), _exponents(scale), "ROUND")
            found = np.clip(round_exact(Exact(whole, 0), _exponents(ratio), mode), low, high)
        return self.quantised(node, value, codes, out, found)

    def on_multithreshold(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value, thresholds = self.value(node), np.asarray(self.constant(node, 1), np.float32)
        scale, bias = np.float32(options.get("out_scale", 1.0)), np.float32(options.get("out_bias", 0.0))
        exact = self.exact(value)
        layout = options.get("data_layout", b"").decode() or {2: "NC", 3: "NWC", 4: "NCHW"}.get(
            np.ndim(self.floats(value)), "NC"
        )
        axis = layout.index("C")
        rank = self.floats(value).ndim

        def counted(x: Array, rows: Array) -> Array:
            shape = [1] * rank + [rows.shape[1]]
            shape[axis] = rows.shape[0]
            finite, always = (v.reshape(shape) for v in (np.isfinite(thresholds), thresholds == -np.inf))
            return np.asarray(((x[..., None] >= rows.reshape(shape)) & finite | always).sum(axis=-1))

        numbers = np.where(np.isfinite(thresholds), thresholds, np.float32(0))
        counts = counted(self.floats(value), numbers)
        found = None
        if exact is not None:
            rows = Exact.of(numbers)
            finest = min(exact.exponent, rows.exponent)
            found = counted(exact.at(finest), rows.at(finest))
        # Levels are count * scale + bias: on the grid of the scale, or of half of it.
        for factor in (1, 2):
            unit = np.float32(scale / factor)
            if unit > 0 and float(bias / unit).is_integer() and unit * factor == scale:
                start = int(bias / unit)
                codes = counts * factor + start
                whole = None if found is None else (found * factor + start).astype(object)
                if whole is not None and not all_powers(np.asarray(unit)):
                    whole = None
                return self.quantised(node, value, codes, np.asarray(unit), whole)
        if all_powers(np.asarray(scale)) or Exact.of(np.array([scale, bias])).width <= 32:
            step, start = Exact.of(np.asarray(scale, np.float64)), Exact.of(np.asarray(bias, np.float64))
            levels = Exact((counts if found is None else found).astype(object), 0) * step + start
            levels = levels.reduced()
            return Ints(
                narrowed(levels.mantissa), np.ldexp(np.float32(1), levels.exponent).astype(np.float32)
            )
        raise OutsideError(f"{node.name}: levels on no grid")

    def on_floatquant(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value = self.value(node)
        scale = np.asarray(self.constant(node, 1), np.float32)
        exponent, mantissa = (int(np.asarray(self.constant(node, i)).reshape(-1)[0]) for i in (2, 3))
        bias = int(np.asarray(self.constant(node, 4, 2 ** (exponent - 1) - 1)).reshape(-1)[0])
        largest = self.constant(node, 5)
        numbers = _minifloats(exponent, mantissa, bias, options)
        if largest is not None:
            most = Fraction(float(np.asarray(largest).reshape(-1)[0])) / Fraction(2) ** (1 - bias - mantissa)
            numbers = [(size, is_odd) for size, is_odd in numbers if size <= most]
        mode = options.get("rounding_mode", b"ROUND").decode().upper()
        unit = 1 - bias - mantissa
        return self._listed(node, value, scale, unit, _nearest(numbers, mode, unit))

    def on_formatquant(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        from qhw.formats import parse_format
        from qhw.formats.requantise import saturating

        named = parse_format(options["format"].decode())
        format = saturating(named, named.rounding)

        def nearest(x: Exact, exponents: Array) -> Array:
            parts = [
                format.from_mantissa(np.array([m], dtype=object), x.exponent - int(e))[0]
                for m, e in np.broadcast(x.mantissa, exponents)
            ]
            shape = np.broadcast_shapes(x.mantissa.shape, exponents.shape)
            return np.array([int(part) for part in parts], dtype=object).reshape(shape)

        return self._listed(
            node, self.value(node), np.asarray(self.constant(node, 1), np.float32), format.exponent, nearest
        )

    def _listed(
        self, node: NodeProto, value: Value, scale: Array, unit: int, nearest: Callable[[Exact, Array], Array]
    ) -> Value:
        """Onto listed numbers, whole multiples of ``2**unit``, times a scale."""
        x = self.floats(value)
        x = x / scale if (scale != 1).any() else x
        codes = nearest(Exact.of(_bounded(node, x)), np.zeros((), np.int64)).astype(np.float64)
        exact = self.exact(value)
        found = nearest(exact, _exponents(scale)) if exact is not None and all_powers(scale) else None
        return self.quantised(node, value, codes, np.ldexp(scale, unit).astype(np.float32), found)

    # --- element by element ---

    def _function(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        return Floats(FUNCTIONS[node.op_type](self.floats(self.value(node)), options), None)

    def _binary(
        self, node: NodeProto, function: Callable[[Array, Array], Array], exact: Any, affine: Any
    ) -> Value:
        a, b = self.value(node, 0), self.value(node, 1)
        if isinstance(a, Constant) and isinstance(b, Constant):
            result = np.asarray(function(a.value, b.value), dtype=np.result_type(a.value, b.value))
            return Constant(result, is_computed=a.is_on_grid and b.is_on_grid)
        floats = np.asarray(function(self.floats(a), self.floats(b)), dtype=np.float32)
        left, right = self.exact(a), self.exact(b)
        whole = None if left is None or right is None else exact(left, right)
        return Floats(floats, whole, affine=affine(_affine(a), _affine(b)))

    def on_add(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        if len(node.input) == 1:
            return self.value(node)
        a, b = self.value(node, 0), self.value(node, 1)
        integers = self._added(a, b)
        if integers is not None:
            return integers
        return self._binary(node, np.add, lambda x, y: x + y, lambda x, y: _affine_sum(x, y, 1))

    def on_sum(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        total = node.input[0]
        for index, name in enumerate(node.input[1:]):
            step = helper.make_node("Add", [total, name], [f"{node.output[0]}:{index}"], name=node.name)
            self.values[step.output[0]] = self.on_add(step, {})
            total = step.output[0]
        return self.values[total]

    def _added(self, a: Value, b: Value) -> Value | None:
        """Integers whose scales are whole multiples of each other; a bias on the sum's own grid."""
        a, b = (b, a) if isinstance(a, Constant) else (a, b)
        is_stored = isinstance(a, Ints) and isinstance(b, Constant) and b.scale is not None
        if is_stored and on_grid(b.scale, a.scale):
            left, right = _widened(a.integers, b.integers.astype(np.int64))
            return Ints(left + right, a.scale)
        if not isinstance(a, Ints) or not isinstance(b, Ints):
            return None
        if not (a.scale.size == b.scale.size == 1) and not np.array_equal(a.scale, b.scale):
            return None
        coarse, fine = (a, b) if a.scale.max() >= b.scale.max() else (b, a)
        ratio = float(coarse.scale.max()) / float(fine.scale.max())
        if not ratio.is_integer() or ratio > LARGEST_RATIO:
            return None
        left, right = _widened(coarse.integers, fine.integers)
        return Ints(narrowed(left * int(ratio) + right), fine.scale)

    def on_sub(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        return self._binary(node, np.subtract, lambda x, y: x + -y, lambda x, y: _affine_sum(x, y, -1))

    def on_mul(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        a, b = self.value(node, 0), self.value(node, 1)
        if isinstance(a, Ints) and isinstance(b, Ints):
            left, right = roomy(a.integers, b.integers)
            return Ints(left * right, np.asarray(a.scale * b.scale, np.float32))
        return self._binary(node, np.multiply, lambda x, y: x * y, _affine_product)

    def on_div(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        def exact(x: Exact, y: Exact) -> Exact | None:
            signs = np.sign(y.mantissa.astype(np.float64))
            if not all_powers(np.ldexp(np.abs(y.mantissa.astype(np.float64)), y.exponent)):
                return None
            inverse = np.ldexp(1.0, -y.exponent) / y.mantissa.astype(np.float64)
            return x * Exact.of(np.abs(inverse) * signs)

        is_constant = isinstance(self.value(node, 1), Constant)
        return self._binary(node, np.divide, exact if is_constant else lambda x, y: None, _affine_quotient)

    def on_neg(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value = self.value(node)
        if isinstance(value, Constant):
            return Constant(-value.value, is_computed=value.is_on_grid)
        exact = self.exact(value)
        return Floats(-self.floats(value), None if exact is None else -exact)

    def _bounded(self, value: Value, low: float | None, high: float | None) -> Value:
        if isinstance(value, Constant):
            return Constant(np.clip(value.value, low, high).astype(value.value.dtype))
        exact, floats = self.exact(value), self.floats(value)
        low, high = (None if b is None or abs(b) > 3e38 else b for b in (low, high))
        if low is not None:
            floats = np.maximum(floats, np.float32(low))
        if high is not None:
            floats = np.minimum(floats, np.float32(high))
        is_relu = low == 0 and high is None and isinstance(value, Ints)
        return Floats(floats, None if exact is None else exact.clipped(low, high), value if is_relu else None)

    def on_relu(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        return self._bounded(self.value(node), 0.0, None)

    def on_clip(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        bounds = [options.get(k, self.constant(node, i)) for i, k in ((1, "min"), (2, "max"))]
        low, high = (None if b is None else float(np.asarray(b).reshape(-1)[0]) for b in bounds)
        found = self._bounded(self.value(node), low, high)
        return Floats(found.floats, found.exact) if isinstance(found, Floats) else found

    def on_leakyrelu(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        return self._leaky(self.value(node), Constant(np.float32(options.get("alpha", 0.01))))

    def on_prelu(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        slope = self.value(node, 1)
        if not isinstance(slope, Constant):
            raise OutsideError(f"{node.name}: computed slope")
        return self._leaky(self.value(node), slope)

    def _leaky(self, value: Value, slope: Constant) -> Value:
        x, exact = self.floats(value), self.exact(value)
        floats = np.where(x < 0, np.asarray(slope.value, np.float32) * x, x)
        if exact is None or not slope.is_binary:
            return Floats(floats, None)
        return Floats(floats, exact.clipped(0.0, None) + exact.clipped(None, 0.0) * slope.exact)

    def on_min(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        return self._binary(node, np.minimum, lambda x, y: None, lambda x, y: None)

    def on_max(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        return self._binary(node, np.maximum, lambda x, y: None, lambda x, y: None)

    def on_pow(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        return self._binary(node, _once(np.power), lambda x, y: None, lambda x, y: None)

    def on_batchnormalization(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value = self.value(node)
        stored = [np.asarray(self.constant(node, i), np.float64) for i in range(1, 5)]
        gamma, beta, mean, variance = stored
        epsilon = float(np.float32(options.get("epsilon", 1e-5)))
        gain = gamma / np.sqrt(variance + epsilon)
        shift = beta - mean * gain
        rank = self.floats(value).ndim
        shape = (1, -1, *[1] * (rank - 2))
        a, b = (v.astype(np.float32).reshape(shape) for v in (gain, shift))
        floats = self.floats(value) * a + b
        affine = _affine_sum(_affine_product(_affine(value), a), b, 1)
        return Floats(floats, self._exact_batch_norm(value, stored, epsilon, shape), affine=affine)

    def _exact_batch_norm(
        self, value: Value, stored: Sequence[Array], epsilon: float, shape: tuple[int, ...]
    ) -> Exact | None:
        """Where gamma over the root of the variance is a short binary number in every channel."""
        exact = self.exact(value)
        gains, shifts = [], []
        for gamma, beta, mean, variance in zip(*(v.tolist() for v in stored), strict=True):
            square = Fraction(variance) + Fraction(epsilon)
            root = Fraction(math.isqrt(square.numerator), math.isqrt(square.denominator))
            if root <= 0 or root * root != square:
                return None
            gain = Fraction(gamma) / root
            if gain.denominator & (gain.denominator - 1):
                return None
            gains.append(gain)
            shifts.append(Fraction(beta) - Fraction(mean) * gain)
        factors = [_of_fractions(v) for v in (gains, shifts)]
        if exact is None or any(f.width > SHORT for f in factors):
            return None
        a, b = (f.moved(lambda m: m.reshape(shape)) for f in factors)
        return exact * a + b

    # --- sums of products ---

    def on_conv(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        weight = self._weight(node, self.value(node, 1))
        groups = options.get("group", 1)
        x = self.ints(node, self.value(node), uniform=False)
        filters, kernel = weight.integers.shape[0], weight.integers.shape[2:]
        rank, channels = len(kernel), x.integers.shape[1]
        if x.scale.size > 1 and not groups == channels == x.scale.size:
            x = self.ints(node, self.value(node))
        strides, dilations = (list(options.get(k, [1] * rank)) for k in ("strides", "dilations"))
        auto = options.get("auto_pad", b"NOTSET").decode()
        pads = list(options.get("pads", [0] * (2 * rank)))
        if auto != "NOTSET":
            pads = same_pads(x.integers.shape[2:], kernel, strides, dilations, auto)
        integers, weights = roomy(x.integers, weight.integers, terms=int(np.prod(weight.integers.shape[1:])))
        view = windows(integers, kernel, strides, pads, dilations, 0)
        n, _, *rest = view.shape
        view = view.reshape(n, groups, channels // groups, *rest)
        weights = weights.reshape(groups, filters // groups, channels // groups, *kernel)
        parts = [
            np.tensordot(
                view[:, g], weights[g], axes=([1, *range(2 + rank, 2 + 2 * rank)], [1, *range(2, 2 + rank)])
            )
            for g in range(groups)
        ]  # (N, *out, filters of the group) each
        total = np.moveaxis(np.concatenate(parts, axis=-1), -1, 1)
        per_channel = (1, -1, *[1] * rank)
        x_scale = np.repeat(x.scale, filters // channels, axis=1) if x.scale.size > 1 else x.scale
        scale = np.asarray(x_scale * _per_output(node, weight, 0).reshape(per_channel), np.float32)
        result = Ints(total, scale.reshape(()) if scale.size == 1 else scale)
        return self._biased(node, result, 2, per_channel)

    def on_convtranspose(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        weight, x = self._weight(node, self.value(node, 1)), self.ints(node, self.value(node))
        rank = weight.integers.ndim - 2
        if options.get("group", 1) != 1 or options.get("auto_pad", b"NOTSET") != b"NOTSET":
            raise OutsideError(f"{node.name}: groups or auto_pad")
        strides, dilations = (list(options.get(k, [1] * rank)) for k in ("strides", "dilations"))
        pads, more = options.get("pads", [0] * (2 * rank)), options.get("output_padding", [0] * rank)
        kernel, spatial = weight.integers.shape[2:], x.integers.shape[2:]
        integers, weights = roomy(x.integers, weight.integers, terms=weight.integers.size)
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        full = [(n - 1) * s + span + m for n, s, span, m in zip(spatial, strides, spans, more, strict=True)]
        total = np.zeros((len(integers), weights.shape[1], *full), dtype=integers.dtype)
        for where in np.ndindex(*kernel):
            part = np.moveaxis(np.tensordot(integers, weights[(..., *where)], axes=([1], [0])), -1, 1)
            cut = [
                slice(k * d, k * d + (n - 1) * s + 1, s)
                for k, d, n, s in zip(where, dilations, spatial, strides, strict=True)
            ]
            total[(slice(None), slice(None), *cut)] += part
        inside = [slice(pads[i], full[i] - pads[i + rank]) for i in range(rank)]
        per_channel = (1, -1, *[1] * rank)
        scale = np.asarray(x.scale * _per_output(node, weight, 1).reshape(per_channel), np.float32)
        result = Ints(
            total[(slice(None), slice(None), *inside)], scale.reshape(()) if scale.size == 1 else scale
        )
        return self._biased(node, result, 2, per_channel)

    def _biased(self, node: NodeProto, result: Ints, index: int, shape: tuple[int, ...]) -> Value:
        if index >= len(node.input) or not node.input[index]:
            return result
        bias = self.value(node, index)
        if not isinstance(bias, Constant):
            raise OutsideError(f"{node.name}: computed bias")
        scale = None if bias.scale is None else np.broadcast_to(bias.scale, bias.value.shape).reshape(shape)
        integers = None if bias.integers is None else bias.integers.reshape(shape)
        if integers is not None and scale is not None and on_grid(scale, result.scale):
            left, right = _widened(result.integers, integers.astype(np.int64))
            return Ints(left + right, result.scale)
        moved = Constant(bias.value.reshape(shape), integers, scale)
        self.values["bias:"], self.values["sum:"] = moved, result
        step = helper.make_node("Add", ["sum:", "bias:"], ["biased:"], name=node.name)
        return self._binary(step, np.add, lambda x, y: x + y, lambda x, y: _affine_sum(x, y, 1))

    def _weight(self, node: NodeProto, value: Value) -> Ints:
        """A constant as integers: quantised, integers as stored, or short binary numbers."""
        if not isinstance(value, Constant):
            raise OutsideError(f"{node.name}: computed weight")
        if value.integers is not None:
            assert value.scale is not None
            integers = np.array([int(i) for i in value.integers.flat], dtype=object)
            return Ints(narrowed(integers.reshape(value.integers.shape)), value.scale)
        exact = Exact.of(value.value)
        if (value.value == np.rint(value.value)).all():
            return Ints(narrowed(exact.at(min(0, exact.exponent))), np.ones((), np.float32))
        if exact.width > SHORT:
            raise OutsideError(f"{node.name}: its weight is not quantised")
        return Ints(narrowed(exact.mantissa), np.ldexp(np.float32(1), exact.exponent).astype(np.float32))

    def on_matmul(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        a, b = self.value(node, 0), self.value(node, 1)
        left = self._weight(node, a) if isinstance(a, Constant) else self.ints(node, a)
        right = self._weight(node, b) if isinstance(b, Constant) else self.ints(node, b)
        if isinstance(b, Constant):
            rank = max(left.integers.ndim, right.integers.ndim)
            per_column = _per_output(node, right, -1)
            scale = left.scale * (
                per_column.reshape((1,) * (rank - 1) + (-1,))
                if per_column.size > 1
                else per_column.reshape(())
            )
        elif isinstance(a, Constant):
            per_row = _per_output(node, left, -2)
            rank = max(left.integers.ndim, right.integers.ndim)
            scale = right.scale * (
                per_row.reshape((1,) * (rank - 2) + (-1, 1)) if per_row.size > 1 else per_row.reshape(())
            )
        else:
            scale = left.scale * right.scale
        x, y = roomy(left.integers, right.integers, terms=left.integers.shape[-1])
        return Ints(narrowed(np.asarray(np.matmul(x, y))), np.asarray(scale, np.float32))

    def on_gemm(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        """As MatMul, a product with alpha, and an Add."""
        if options.get("transA", 0):
            raise OutsideError(f"{node.name}: transA")
        weight = self.value(node, 1)
        if options.get("transB", 0):
            weight = _turned(weight)
        self.values["weight:"] = weight
        product = helper.make_node("MatMul", [node.input[0], "weight:"], ["product:"], name=node.name)
        self.values["product:"] = self.on_matmul(product, {})
        alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
        if alpha != 1.0:
            self.values["alpha:"] = Constant(np.float32(alpha))
            self.values["product:"] = self.on_mul(helper.make_node("Mul", ["product:", "alpha:"], ["_"]), {})
        if len(node.input) < 3 or not node.input[2] or beta == 0.0:
            return self.values["product:"]
        self.values["beta:"] = bias = self.value(node, 2)
        if beta != 1.0:
            assert isinstance(bias, Constant)
            factor = Constant(np.float32(beta))
            self.values["factor:"] = factor
            value = np.asarray(bias.value * factor.value, np.float32)
            scale = None if bias.scale is None else np.asarray(bias.scale * factor.value, np.float32)
            self.values["beta:"] = Constant(value, bias.integers, scale)
        return self.on_add(helper.make_node("Add", ["product:", "beta:"], ["_"], name=node.name), {})

    # --- pools and reductions ---

    def _frame(
        self, node: NodeProto, options: Mapping[str, Any], shape: Sequence[int]
    ) -> tuple[list[int], ...]:
        kernel = list(options["kernel_shape"])
        rank = len(kernel)
        strides, dilations = (list(options.get(k, [1] * rank)) for k in ("strides", "dilations"))
        pads = list(options.get("pads", [0] * (2 * rank)))
        auto = options.get("auto_pad", b"NOTSET").decode()
        if auto != "NOTSET":
            pads = same_pads(shape, kernel, strides, dilations, auto)
        if options.get("ceil_mode", 0):
            for i in range(rank):
                span = dilations[i] * (kernel[i] - 1) + 1
                whole = shape[i] + pads[i] + pads[i + rank] - span
                # No window begins beyond the tensor.
                last = min(-(-whole // strides[i]), (shape[i] + pads[i] - 1) // strides[i])
                pads[i + rank] = max(0, last * strides[i] + span - shape[i] - pads[i])
        return kernel, strides, pads, dilations

    def on_maxpool(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        shape = self.floats(self.value(node)).shape[2:]
        kernel, strides, pads, dilations = self._frame(node, options, shape)
        axes = tuple(range(-len(kernel), 0))

        def pooled(x: Array) -> Array:
            fill = -np.inf if x.dtype.kind == "f" else int(x.min()) if x.size else 0
            return np.asarray(windows(x, kernel, strides, pads, dilations, fill).max(axis=axes))

        return self._moved(node, pooled, keeps_channels=True)

    def on_globalmaxpool(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        rank = self.floats(self.value(node)).ndim
        return self._moved(
            node, lambda x: x.max(axis=tuple(range(2, rank)), keepdims=True), keeps_channels=True
        )

    def on_reducemax(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        axes = self._axes(node, options)
        keepdims = bool(options.get("keepdims", 1))
        return self._moved(node, lambda x: np.asarray(x.max(axis=axes, keepdims=keepdims)))

    def on_averagepool(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        x = self.ints(node, self.value(node), uniform=False)
        kernel, strides, pads, dilations = self._frame(node, options, x.integers.shape[2:])
        if options.get("ceil_mode", 0) or (any(pads) and not options.get("count_include_pad", 0)):
            raise OutsideError(f"{node.name}: windows of different sizes")
        (integers,) = roomy(x.integers, terms=math.prod(kernel))
        total = windows(integers, kernel, strides, pads, dilations, 0).sum(axis=tuple(range(-len(kernel), 0)))
        return Ints(np.asarray(total), _divided(x.scale, math.prod(kernel)))

    def on_globalaveragepool(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        x = self.ints(node, self.value(node), uniform=False)
        axes = tuple(range(2, x.integers.ndim))
        count = math.prod(x.integers.shape[2:])
        (integers,) = roomy(x.integers, terms=count)
        return Ints(np.asarray(integers.sum(axis=axes, keepdims=True)), _divided(x.scale, count))

    def on_reducesum(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        x, axes = self.ints(node, self.value(node)), self._axes(node, options)
        count = math.prod(x.integers.shape[a] for a in axes)
        (integers,) = roomy(x.integers, terms=count)
        total = np.asarray(integers.sum(axis=axes, keepdims=bool(options.get("keepdims", 1))))
        return Ints(total, _divided(x.scale, count) if node.op_type == "ReduceMean" else x.scale)

    on_reducemean = on_reducesum

    def _axes(self, node: NodeProto, options: Mapping[str, Any]) -> tuple[int, ...]:
        rank = self.floats(self.value(node)).ndim
        axes = options.get("axes", self.constant(node, 1))
        return tuple(sorted(int(a) % rank for a in np.asarray(axes).reshape(-1)))

    # --- movement ---

    def _moved(
        self, node: NodeProto, function: Callable[[Array], Array], *, keeps_channels: bool = False
    ) -> Value:
        return move(self.value(node), function, keeps_channels=keeps_channels)

    def on_reshape(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        stated = [int(n) for n in np.asarray(self.constant(node, 1)).reshape(-1)]
        if isinstance(self.value(node), Constant):
            return self._moved(node, lambda x: x.reshape(stated))

        def reshaped(x: Array) -> Array:
            # A stated batch of 1 is any batch: files are exported for one.
            shape = [x.shape[i] if n == 0 or i == 0 else n for i, n in enumerate(stated)]
            return x.reshape(shape)

        return self._moved(node, reshaped)

    def on_flatten(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        axis = options.get("axis", 1)
        return self._moved(node, lambda x: x.reshape(math.prod(x.shape[:axis]), -1))

    def on_squeeze(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        axes = tuple(int(a) for a in np.asarray(options.get("axes", self.constant(node, 1))).reshape(-1))
        return self._moved(node, lambda x: np.squeeze(x, axes))

    def on_unsqueeze(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        axes = tuple(int(a) for a in np.asarray(options.get("axes", self.constant(node, 1))).reshape(-1))
        return self._moved(node, lambda x: np.expand_dims(x, axes))

    def on_transpose(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        perm = options.get("perm")
        value = self.value(node)
        return (
            _turned(value, perm)
            if isinstance(value, Constant)
            else self._moved(node, lambda x: x.transpose(perm))
        )

    def on_identity(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        return self.value(node)

    on_dropout = on_identity

    def on_cast(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value = self.value(node)
        if options["to"] == TensorProto.FLOAT or isinstance(value, Constant):
            return value
        if (self.floats(value) != np.rint(self.floats(value))).any():
            raise OutsideError(f"{node.name}: a cast that rounds")
        return value

    def on_constant(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        (kind, value) = next(iter(options.items()))
        if kind == "value":
            return Constant(numpy_helper.to_array(value))
        return Constant(np.asarray(value, np.float32 if kind.startswith("value_float") else np.int64))

    def on_shape(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        return Constant(np.array(self.floats(self.value(node)).shape, dtype=np.int64))

    def on_depthtospace(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        b, mode = options["blocksize"], options.get("mode", b"DCR").decode()

        def moved(x: Array) -> Array:
            n, c, h, w = x.shape
            if mode == "DCR":
                parts = x.reshape(n, b, b, c // b**2, h, w).transpose(0, 3, 4, 1, 5, 2)
            else:
                parts = x.reshape(n, c // b**2, b, b, h, w).transpose(0, 1, 4, 2, 5, 3)
            return parts.reshape(n, c // b**2, h * b, w * b)

        return self._moved(node, moved)

    def on_spacetodepth(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        b = options["blocksize"]

        def moved(x: Array) -> Array:
            n, c, h, w = x.shape
            parts = x.reshape(n, c, h // b, b, w // b, b).transpose(0, 3, 5, 1, 2, 4)
            return parts.reshape(n, c * b * b, h // b, w // b)

        return self._moved(node, moved)

    def on_resize(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        """Nearest neighbours, whole factors."""
        shape = self.floats(self.value(node)).shape
        scales, sizes = self.constant(node, 2), self.constant(node, 3)
        if sizes is not None:
            scales = np.asarray(sizes)[1:] / shape[1:]
            scales = np.concatenate([[1.0], scales])
        factors = [int(f) for f in np.asarray(scales)]
        if options.get("mode", b"nearest") != b"nearest" or (factors != np.asarray(scales)).any():
            raise OutsideError(f"{node.name}: interpolation")

        def moved(x: Array) -> Array:
            for axis, factor in enumerate(factors):
                x = np.repeat(x, factor, axis=axis)
            return x

        return self._moved(node, moved, keeps_channels=factors[1] == 1)

    def on_pad(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        value = self.value(node)
        rank = self.floats(value).ndim
        pads = [int(p) for p in np.asarray(options.get("pads", self.constant(node, 1))).reshape(-1)]
        fill = float(options.get("value", np.asarray(self.constant(node, 2, 0.0)).reshape(-1)[0]))
        axes = self.constant(node, 3)
        axes = list(range(rank)) if axes is None else [int(a) % rank for a in np.asarray(axes).reshape(-1)]
        edges = [(0, 0)] * rank
        for i, axis in enumerate(axes):
            edges[axis] = (pads[i], pads[i + len(axes)])
        if fill == 0.0:
            return self._moved(node, lambda x: np.pad(x, edges))
        exact = self.exact(value)
        floats = np.pad(self.floats(value), edges, constant_values=np.float32(fill))
        if exact is None:
            return Floats(floats, None)
        filler = Exact.of(np.float64(fill))
        finest = min(exact.exponent, filler.exponent)
        whole = np.pad(exact.at(finest), edges, constant_values=int(filler.at(finest)))
        return Floats(floats, Exact(whole, finest))

    def on_slice(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        rank = self.floats(self.value(node)).ndim
        names = ("starts", "ends", "axes", "steps")
        given = [options.get(k, self.constant(node, i)) for i, k in enumerate(names, 1)]
        starts, ends, axes, steps = (
            [] if g is None else [int(n) for n in np.asarray(g).reshape(-1)] for g in given
        )
        cut = [slice(None)] * rank
        for i, start in enumerate(starts):
            cut[axes[i] if axes else i] = slice(start, ends[i], steps[i] if steps else 1)
        return self._moved(node, lambda x: x[tuple(cut)])

    def on_split(self, node: NodeProto, options: Mapping[str, Any]) -> list[Value]:
        axis = options.get("axis", 0)
        sizes = np.asarray(options.get("split", self.constant(node, 1))).reshape(-1)
        starts = np.cumsum([0, *sizes])
        return [
            self._moved(node, lambda x, a=a, b=b: np.take(x, np.arange(a, b), axis=axis))
            for a, b in pairwise(starts)
        ]

    def on_gather(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        index, axis = np.asarray(self.constant(node, 1)), options.get("axis", 0)
        return self._moved(node, lambda x: np.take(x, index, axis=axis))

    def on_concat(self, node: NodeProto, options: Mapping[str, Any]) -> Value:
        values = [self.values[name] for name in node.input]
        axis = options["axis"]
        if all(isinstance(v, Constant) for v in values):
            return _joined(values, axis)
        if all(isinstance(v, Ints) and v.scale.size == 1 and v.scale == values[0].scale for v in values):
            parts = _widened(*(v.integers for v in values))
            return Ints(np.concatenate(parts, axis=axis), values[0].scale)
        rank = self.floats(values[0]).ndim
        floats = np.concatenate([self.floats(v) for v in values], axis=axis)
        exacts = [self.exact(v) for v in values]
        if all(e is not None for e in exacts):
            finest = min(e.exponent for e in exacts)
            return Floats(floats, Exact(np.concatenate([e.at(finest) for e in exacts], axis=axis), finest))
        if axis % rank == 1 and all(is_by_channel_of(v) for v in values):
            # Different scales side by side: one for each channel.
            found = [self.ints(node, v, uniform=False) for v in values]
            scales = [np.broadcast_to(v.scale.reshape(-1), v.integers.shape[1:2]) for v in found]
            parts = _widened(*(v.integers for v in found))
            scale = np.concatenate(scales).reshape((1, -1, *[1] * (rank - 2)))
            return Ints(np.concatenate(parts, axis=1), scale)
        return Floats(floats, None)


# --- helpers of the walk ---


def _joined(values: Sequence[Value], axis: int) -> Constant:
    """Constants side by side; integers of one scale stay such, others get the coarsest binary one."""
    parts = [v for v in values if isinstance(v, Constant)]
    value = np.concatenate([part.value for part in parts], axis=axis)
    if any(part.scale is None for part in parts):
        return Constant(value)
    scales = [np.broadcast_to(part.scale, part.value.shape) for part in parts if part.scale is not None]
    integers = [part.integers for part in parts if part.integers is not None]
    scale = np.concatenate(scales, axis=axis)
    for i in range(scale.ndim):  # stored once along every axis that it does not vary along
        first = np.take(scale, [0], axis=i)
        scale = first if (scale == first).all() else scale
    return Constant(value, np.concatenate(integers, axis=axis), scale)


def on_grid(stated: Array, scale: Array) -> bool:
    """Whether a quantised bias states the scale of the sum, as precisely as float32 products do."""
    wanted = scale.astype(np.float64)
    return bool((np.abs(stated.astype(np.float64) - wanted) <= 2.0**-20 * wanted).all())


def move(value: Value, function: Callable[[Array], Array], *, keeps_channels: bool = False) -> Value:
    """What moves elements about; ``keeps_channels`` where each stays in its channel, or is left out."""
    if isinstance(value, Constant):
        if value.integers is None:
            return Constant(function(value.value), is_computed=value.is_computed)
        assert value.scale is not None
        scale = (
            value.scale
            if value.scale.size == 1
            else function(np.broadcast_to(value.scale, value.value.shape))
        )
        return Constant(function(value.value), function(value.integers), scale)
    if isinstance(value, Ints):
        if value.scale.size == 1 or (keeps_channels and is_by_channel(value.scale)):
            return Ints(function(value.integers), value.scale)
        exact = value.exact
        return Floats(function(value.floats), None if exact is None else exact.moved(function))
    exact = None if value.exact is None else value.exact.moved(function)
    rectified = (
        None if value.rectified is None else move(value.rectified, function, keeps_channels=keeps_channels)
    )
    return Floats(function(value.floats), exact, rectified if isinstance(rectified, Ints) else None)


def _turned(value: Value, perm: Sequence[int] | None = None) -> Value:
    """A constant transposed, with a scale of its own rank."""
    assert isinstance(value, Constant)
    if value.integers is None:
        return Constant(value.value.transpose(perm))
    assert value.scale is not None
    is_ranked = value.scale.ndim == value.value.ndim
    return Constant(
        value.value.transpose(perm),
        value.integers.transpose(perm),
        value.scale.transpose(perm) if is_ranked else value.scale,
    )


def _widened(*operands: Array) -> list[Array]:
    if any(operand.dtype == object for operand in operands):
        return [operand.astype(object) for operand in operands]
    return list(operands)


def _bounded(node: NodeProto, x: Array) -> Array:
    """Infinity as float32's largest number, which saturates as well."""
    if np.isnan(x).any():
        raise OutsideError(f"{node.name}: NaN")
    limit = np.finfo(np.float32).max
    return np.clip(x, -limit, limit)


def _exponents(scale: Array) -> Array:
    return np.asarray(np.frexp(scale.astype(np.float64))[1] - 1)


def _divided(scale: Array, count: int) -> Array:
    return np.asarray(scale / np.float32(count), dtype=np.float32)


def _per_output(node: NodeProto, weight: Ints, axis: int) -> Array:
    """A weight's scale as one number, or one per output channel."""
    if weight.scale.size == 1:
        return weight.scale.reshape(1)
    shape = (1,) * (weight.integers.ndim - weight.scale.ndim) + weight.scale.shape
    if any(n > 1 for i, n in enumerate(shape) if i != axis % len(shape)):
        raise OutsideError(f"{node.name}: scales of shape {weight.scale.shape}")
    return weight.scale.reshape(-1)


def _fixed(x: Exact, exponents: Array, width: int, signed: bool, mode: str, overflow: str) -> Array:
    """What ap_fixed does on assignment: round, then keep within ``width`` bits."""
    codes = round_exact(x, np.asarray(exponents), mode)
    low = -(1 << (width - 1)) if signed else 0
    high = (1 << (width - 1)) - 1 if signed else (1 << width) - 1
    if overflow == "SAT":
        return np.clip(codes, low, high)
    if overflow == "SAT_SYM":
        return np.clip(codes, low | 1 if signed else low, high)
    if overflow == "SAT_ZERO":
        return np.where((codes < low) | (codes > high), 0, codes)
    wrapped = ((codes - low) & ((1 << width) - 1)) + low
    if overflow == "WRAP":
        return wrapped
    # WRAP_SM: the bit above the sign, of the source without the carry of the rounding, decides.
    above = (round_exact(x, np.asarray(exponents), "TRN") >> width) & 1
    return np.where((wrapped != codes) & (above.astype(bool) != (wrapped < 0)), ~wrapped, wrapped)


def _minifloats(
    exponent: int, mantissa: int, bias: int, options: Mapping[str, Any]
) -> list[tuple[int, bool]]:
    """The numbers that are not negative, in units of the least subnormal ``2**(1 - bias - mantissa)``.

    Each with whether its last bit is set.
    """
    has_infinity = bool(options.get("has_inf", 0) or options.get("has_infinity", 0))
    has_nan = bool(options.get("has_nan", 0))
    numbers = {0: False}
    for e in range(1 << exponent):
        for m in range(1 << mantissa):
            is_last = e == (1 << exponent) - 1
            is_special = is_last and (has_infinity or (has_nan and m == (1 << mantissa) - 1))
            if is_special or (e == 0 and not options.get("has_subnormal", 1)):
                continue
            numbers[m if e == 0 else ((1 << mantissa) + m) << (e - 1)] = bool(m & 1)
    return sorted(numbers.items())


def _nearest(numbers: Sequence[tuple[int, bool]], mode: str, unit: int) -> Callable[[Exact, Array], Array]:
    """Rounding onto numbers and their negatives, times ``2**unit``; ties to even are to a last bit of 0."""
    sizes = [size for size, _ in numbers]

    def one(x: Fraction) -> int:
        size, sign = abs(x), 1 if x > 0 else -1
        if size >= sizes[-1]:
            return sign * sizes[-1]
        place = bisect_right(sizes, size) - 1
        (low, is_odd), (high, _) = numbers[place], numbers[place + 1]
        if size == low:
            return sign * low
        if mode in _DIRECTED:
            up = {"floor": x < 0, "ceil": x > 0, "zero": False, "away": True}[_DIRECTED[mode]]
        else:
            twice = 2 * size - low - high
            up = twice > 0 or (twice == 0 and {"even": is_odd, "away": True, "zero": False}[_HALVES[mode]])
        return sign * (high if up else low)

    def quantise(x: Exact, exponents: Array) -> Array:
        shape = np.broadcast_shapes(x.mantissa.shape, exponents.shape)
        found = [
            one(Fraction(int(m)) * Fraction(2) ** (x.exponent - int(e) - unit))
            for m, e in np.broadcast(x.mantissa, exponents)
        ]
        return np.array(found, dtype=object).reshape(shape)

    return quantise


def _of_fractions(values: Sequence[Fraction]) -> Exact:
    bits = max(v.denominator.bit_length() - 1 for v in values)
    return Exact(np.array([int(v * 2**bits) for v in values], dtype=object), -bits).reduced()


def _affine(value: Value) -> Any:
    """Integers, a scale and an offset; a constant as float64."""
    if isinstance(value, Constant):
        return np.asarray(value.value, np.float32).astype(np.float64)
    if isinstance(value, Ints):
        return value, value.scale.astype(np.float64), np.zeros(())
    return value.affine


def _affine_sum(a: Any, b: Any, sign: int) -> Any:
    if isinstance(a, tuple) and isinstance(b, np.ndarray):
        root, scale, offset = a
        return root, scale, offset + sign * b.astype(np.float64)
    if isinstance(b, tuple) and isinstance(a, np.ndarray) and sign == 1:
        return _affine_sum(b, a, 1)
    return None


def _affine_product(a: Any, b: Any) -> Any:
    if isinstance(a, tuple) and isinstance(b, np.ndarray):
        root, scale, offset = a
        return root, scale * b.astype(np.float64), offset * b.astype(np.float64)
    return _affine_product(b, a) if isinstance(b, tuple) and isinstance(a, np.ndarray) else None


def _affine_quotient(a: Any, b: Any) -> Any:
    if isinstance(a, tuple) and isinstance(b, np.ndarray):
        root, scale, offset = a
        return root, scale / b.astype(np.float64), offset / b.astype(np.float64)
    return None
