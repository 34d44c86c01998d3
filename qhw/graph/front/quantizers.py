"""Quantizer nodes whose scales are powers of two: Requant, Threshold, and quantised constants."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.formats import TableFormat
from qhw.formats.integer import Integer, as_mantissas
from qhw.formats.modes import (
    QONNX_ROUNDING,
    IntArray,
    Overflow,
    Rounding,
    mantissa_bounds,
    requantize_mantissa,
)
from qhw.graph.front.dyadic import Dyadic, power_of_two
from qhw.graph.front.state import NodeView, State, is_per_channel, rule
from qhw.graph.front.values import LARGEST_BITS, Activation, Clamped, Lowered, RawInput
from qhw.graph.ir import Exponent, InputEncoding
from qhw.onnx_ops.float_quant import check_held, format_of_metadata

LARGEST_WIDTH = 64
LARGEST_FRACTION = 256

# round(x + z) - z == round(x) for every integer z; for RND_CONV only where z is even.
_TRANSLATION_INVARIANT = {Rounding.TRN, Rounding.CEIL, Rounding.RND, Rounding.RND_MIN_INF}


@dataclass(frozen=True)
class Grid:
    """Where a quantizer puts its input: ``mantissa = overflow(round(x * 2**-exponent + zero)) - zero``.

    Args:
        exponent, zero: whole numbers that broadcast over the tensor, as the node's parameters do.
        low, high: bounds of the code, before the zero point is taken off.
        bipolar: -1 or 1, by the sign of what would have been rounded.
    """

    exponent: NDArray[np.int64]
    zero: NDArray[np.int64]
    width: int
    signed: bool
    low: int
    high: int
    rounding: Rounding
    overflow: Overflow
    bipolar: bool = False


@rule("Quant")
def quant(state: State, node: NodeView) -> Lowered:
    """QONNX's Quant (and IntQuant)."""
    width = _bit_width(node, parameter(state, node, 3))
    signed, narrow = bool(node.options.get("signed", 1)), bool(node.options.get("narrow", 0))
    low, high = mantissa_bounds(width, signed)
    grid = Grid(
        exponents_of(node, parameter(state, node, 1)),
        _integers(node, "zero point", parameter(state, node, 2)),
        width,
        signed,
        low + (narrow and signed),
        high - (narrow and not signed),
        _rounding(node, "ROUND"),
        Overflow.SAT_SYM if narrow and signed else Overflow.SAT,
        bipolar=width == 1 and signed,  # as qonnx executes it
    )
    result = quantise(state, node, grid)
    named = format_of_metadata(str(node), node.proto)
    if named is None or not isinstance(result, Dyadic):
        return result
    return _typed(node, result, named)


@rule("FixedQuant")
def fixed_quant(state: State, node: NodeView) -> Lowered:
    """qhw's FixedQuant: any mode of ap_fixed, fraction bits per tensor or per channel."""
    width, signed = int(node.options.get("width", 0)), bool(node.options.get("signed", 1))
    if not 1 <= width <= LARGEST_WIDTH:
        raise node.refuse(f"width {width}", allowed=f"1 to {LARGEST_WIDTH} bits")
    has_fraction, has_scale = (i < len(node.proto.input) and node.proto.input[i] != "" for i in (1, 2))
    fraction = (
        _integers(node, "fraction", parameter(state, node, 1))
        if has_fraction
        else np.array(width - int(node.options.get("integer", 0)))
    )
    if np.abs(fraction).max(initial=0) > LARGEST_FRACTION:
        raise node.refuse(
            "its binary point is out of reach", allowed=f"at most {LARGEST_FRACTION} fraction bits"
        )
    if has_scale:
        fraction = fraction - exponents_of(node, parameter(state, node, 2))
    overflow = _mode(node, "overflow", Overflow, "SAT")
    low, high = mantissa_bounds(width, signed, overflow)
    rounding = _mode(node, "rounding", Rounding, "RND_CONV")
    return quantise(state, node, Grid(-fraction, np.array(0), width, signed, low, high, rounding, overflow))


@rule("BipolarQuant")
def bipolar_quant(state: State, node: NodeView) -> Lowered:
    """-scale or scale, by the sign; 0 counts as positive."""
    exponent = exponents_of(node, parameter(state, node, 1))
    grid = Grid(exponent, np.array(0), 2, True, -1, 1, Rounding.RND_CONV, Overflow.SAT, bipolar=True)
    return quantise(state, node, grid)


@rule("Trunc")
def trunc(state: State, node: NodeView) -> Lowered:
    """QONNX's Trunc: round to ``scale``, then drop low bits (version 1: and keep the scale)."""
    scale = scalar_of(node, "scale", exponents_of(node, parameter(state, node, 1)))
    if _integers(node, "zero point", parameter(state, node, 2)).any():
        raise node.inexact("its zero point is not 0")
    rounding = _rounding(node, "FLOOR")
    x = _rounded_to(state, node, state.tensor(node), scale)
    if len(node.proto.input) == 5:
        dropped, kept = (_bit_width(node, parameter(state, node, i)) for i in (3, 4))
        x = state.scaled(node, x, kept - dropped)
        return Activation(_rounded_to(state, node, x, scale, rounding, node.name))
    out = scalar_of(node, "output scale", exponents_of(node, parameter(state, node, 4)))
    width = _bit_width(node, parameter(state, node, 5))
    signed, narrow = bool(node.options.get("signed", 1)), bool(node.options.get("narrow", 0))
    low, high = mantissa_bounds(width, signed)
    overflow = Overflow.SAT_SYM if narrow and signed else Overflow.SAT
    low, high = low + (narrow and signed), high - (narrow and not signed)
    grid = Grid(np.array(out), np.array(0), width, signed, low, high, rounding, overflow)
    return _requantised(state, node, x, grid, None, None)


def _rounded_to(
    state: State,
    node: NodeView,
    x: str,
    exponent: int,
    rounding: Rounding = Rounding.RND_CONV,
    name: str = "",
) -> str:
    """The tensor on the grid of ``exponent``, as wide as it takes; nothing where it is there already."""
    kind = state.builder.type(x)
    if not name and min(kind.exponent.values) >= exponent:
        return x
    low, high = state.builder.ranges[
        state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    ].bounds
    finest = min(kind.exponent.values)
    ends = [int(requantise_number(v, exponent - finest, rounding)) for v in (low, high)]
    name = name or f"{node.name}_rounded"
    format = Integer.holding(*ends)
    return state.builder.requant(name, x, format, exponent, rounding=rounding, source=node.name)


def requantise_number(mantissa: int, bits: int, rounding: Rounding) -> int:
    """One integer times ``2**-bits``, rounded."""
    width = mantissa.bit_length() + abs(bits) + 2
    wide = np.array([mantissa], dtype=object)
    return int(requantize_mantissa(wide, bits, width, True, rounding, Overflow.SAT)[0])


@rule("MultiThreshold")
def multi_threshold(state: State, node: NodeView) -> Lowered:
    """Thresholds as integers: ``x >= t`` is ``mantissa >= ceil(t * 2**-exponent)``."""
    thresholds = state.stored(node.proto.input[1])
    if thresholds is None or thresholds.ndim != 2:
        raise node.refuse("its thresholds must be a constant of shape (channels or 1, count)")
    x = state.tensor(node)
    x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    axis = _threshold_axis(node, state.rank(x))
    moved = axis != 0 and thresholds.shape[0] > 1
    perm = [axis, *(i for i in range(state.rank(x)) if i != axis)]
    if moved:
        x = state.builder.transpose(f"{node.name}_channels_first", x, perm, source=node.name)
    levels, exponent = _levels(node, thresholds.shape[1])
    name = f"{node.name}_unmoved" if moved else node.name
    y = _stepped(state, node, x, thresholds, levels, exponent, name)
    if moved:
        y = state.builder.transpose(node.name, y, [int(i) for i in np.argsort(perm)], source=node.name)
    return Activation(y)


def _threshold_axis(node: NodeView, rank: int) -> int:
    """The channel axis (no batch), with QONNX's default layout for every rank."""
    layout = node.options.get("data_layout") or {1: "NC", 2: "NWC", 3: "NCHW"}.get(rank, "NC")
    return max(layout.index("C") - 1, 0) if "C" in layout and len(layout) == rank + 1 else 0


def _levels(node: NodeView, count: int) -> tuple[IntArray, int]:
    """What 0, 1, … reached thresholds stand for: mantissas and their exponent."""
    scale, bias = (
        Fraction(float(node.options.get(k, d))) for k, d in (("out_scale", 1.0), ("out_bias", 0.0))
    )
    if scale > 0 and (2 * bias / scale).denominator == 1 and power_of_two(scale) is None:
        raise node.inexact(f"its out_scale {float(scale):g} is not a power of two")
    levels = Dyadic.of(np.array([float(scale * i + bias) for i in range(count + 1)])).reduced()
    if levels.width > 32 or levels.fractions() != [scale * i + bias for i in range(count + 1)]:
        raise node.inexact(
            f"out_scale {float(scale)} and out_bias {float(bias)} are not on a power-of-two grid"
        )
    return levels.mantissa, int(levels.exponent.reshape(-1)[0])


def _stepped(
    state: State,
    node: NodeView,
    x: str,
    thresholds: NDArray[Any],
    levels: IntArray,
    exponent: int,
    name: str,
) -> str:
    """A Threshold from real thresholds in any order, equal ones merged."""
    unit = min(state.builder.type(x).exponent.values)
    low, high = state.builder.ranges[x].bounds
    rows = [[_first_reaching(float(t), unit, low, high) for t in row] for row in thresholds]
    merged = [_merged(sorted(row), levels, high) for row in rows]
    count = max(len(reached) for reached, _ in merged)
    t = np.array([[*reached, *range(high + 1, high + 1 + count - len(reached))] for reached, _ in merged])
    values = np.array([[*codes, *[codes[-1]] * (count - len(codes) + 1)] for _, codes in merged])
    return state.builder.threshold(
        name,
        x,
        state.builder.constant(f"{node.name}_thresholds", t.reshape(len(merged), count)),
        state.builder.constant(f"{node.name}_levels", values),
        Integer.holding(int(values.min()), int(values.max())),
        exponent,
        source=node.name,
    )


def _first_reaching(threshold: float, unit: int, low: int, high: int) -> int:
    """The lowest mantissa at or above a real threshold, kept within one of the tensor's range."""
    if np.isinf(threshold):
        return low if threshold < 0 else high + 1
    exact = Fraction(threshold) / Fraction(2) ** unit
    return min(max(-(-exact.numerator // exact.denominator), low), high + 1)


def _merged(reached: list[int], levels: IntArray, high: int) -> tuple[list[int], list[int]]:
    """From sorted thresholds: strictly ordered thresholds within the range, and the level behind each."""
    kept = sorted({t for t in reached if t <= high})
    return kept, [int(levels[c]) for c in (0, *(bisect_right(reached, t) for t in kept))]


# --- any grid onto any value ---


def quantise(state: State, node: NodeView, grid: Grid) -> Lowered:
    """Put a constant, an input or an activation onto a grid."""
    value = state.values[node.proto.input[0]]
    match value:
        case Dyadic():
            return _constant(node, value, grid)
        case RawInput(integers=None):
            return _float_input(state, node, value, grid)
        case Clamped(scale=None) if not grid.bipolar and grid.overflow in (Overflow.SAT, Overflow.SAT_SYM):
            return _requantised(state, node, value.tensor, grid, value.low, value.high, value)
        case _:
            x = state.settle(node, value)
            return (
                _bipolar(state, node, x, grid)
                if grid.bipolar
                else _requantised(state, node, x, grid, None, None)
            )


def _constant(node: NodeView, value: Dyadic, grid: Grid) -> Dyadic:
    """A quantised constant, by the operations that QONNX states, exact but for its float32 zero point."""
    for given in (grid.exponent.shape, grid.zero.shape):
        if not _fits_into(given, value.shape):
            raise node.refuse(f"its parameters of shape {given} do not fit its input of shape {value.shape}")
    exponents, zero = (p.reshape((1,) * (value.ndim - p.ndim) + p.shape) for p in (grid.exponent, grid.zero))
    scaled = Dyadic(value.mantissa, value.exponent - exponents)
    if zero.any():
        scaled = Dyadic.of(scaled.float32() + zero.astype(np.float32))
    return Dyadic(as_mantissas(_codes(scaled, grid) - zero), exponents).packed()


def _fits_into(given: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether numbers broadcast over a tensor without enlarging it."""
    last = shape[len(shape) - len(given) :]
    return len(given) <= len(shape) and all(a in (1, b) for a, b in zip(given, last, strict=True))


def _codes(scaled: Dyadic, grid: Grid) -> IntArray:
    if grid.bipolar:
        return np.where(scaled.mantissa >= 0, 1, -1)
    shifts = np.broadcast_to(-scaled.exponent, scaled.shape)
    codes = np.zeros(scaled.shape, dtype=np.int64 if grid.width < 63 else object)
    bounds = (grid.low, grid.high) if grid.overflow.saturates else (None, None)
    for bits in np.unique(shifts):
        here = shifts == bits
        codes[here] = requantize_mantissa(
            scaled.mantissa[here], int(bits), grid.width, grid.signed, grid.rounding, grid.overflow, *bounds
        )
    return as_mantissas(codes)


def _float_input(state: State, node: NodeView, value: RawInput, grid: Grid) -> Lowered:
    """A float input is encoded straight onto its first quantizer's grid."""
    exponent = scalar_of(node, "scale", grid.exponent)
    zero = scalar_of(node, "zero point", grid.zero)
    if grid.bipolar or grid.overflow not in (Overflow.SAT, Overflow.SAT_SYM):
        raise node.inexact("a quantizer that does not saturate encodes an input by its own operations")
    scale = 2.0 ** (exponent - value.exponent)
    encoding = InputEncoding(scale, float(zero), grid.low, grid.high, grid.rounding)
    return Activation(state.moved(state.declare_float_input(node, value, encoding, exponent), value))


def _bipolar(state: State, node: NodeView, x: str, grid: Grid) -> Lowered:
    """-1 or 1 by the sign of ``x * 2**-exponent + zero``."""
    exponent, zero = scalar_of(node, "scale", grid.exponent), scalar_of(node, "zero point", grid.zero)
    x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    edge = -float(zero) * 2.0**exponent
    levels = np.array([-1 - zero, 1 - zero])
    return Activation(_stepped(state, node, x, np.array([[edge]]), levels, exponent, node.name))


def _requantised(
    state: State,
    node: NodeView,
    x: str,
    grid: Grid,
    low: Fraction | None,
    high: Fraction | None,
    clamped: Clamped | None = None,
) -> Lowered:
    """A Requant; rounding is monotone, so bounds before it are rounded bounds after it."""
    exponent = tensor_exponent(state, node, x, grid.exponent)
    bounds = [b for b in (low, high) if b]
    if clamped is not None and bounds and not exponent.is_scalar:
        return _requantised(state, node, state.settle(node, clamped), grid, None, None)
    if grid.zero.any() and not _can_drop_zero(grid):
        if clamped is not None:
            x = state.settle(node, clamped)
        return _with_zero(state, node, x, grid, exponent)
    zero = scalar_of(node, "zero point", grid.zero)
    unit = Fraction(2) ** exponent.values[0]
    least, most = grid.low - zero, grid.high - zero
    if low is not None:
        least = min(max(least, _rounded(low / unit, grid.rounding)), most)
    if high is not None:
        most = max(min(most, _rounded(high / unit, grid.rounding)), least)
    moved = replace(grid, low=least, high=most) if (least, most) != (grid.low, grid.high) else grid
    return Activation(_requant(state, node, node.name, x, moved, exponent, is_moved=moved is not grid))


def _requant(
    state: State, node: NodeView, name: str, x: str, grid: Grid, exponent: Exponent, *, is_moved: bool
) -> str:
    """One Requant; ``is_moved`` where bounds are no longer those of the quantizer's format."""
    format = Integer.holding(grid.low, grid.high) if is_moved else Integer(grid.width, grid.signed)
    overflow = Overflow.SAT if is_moved and grid.overflow is Overflow.SAT_SYM else grid.overflow
    natural = mantissa_bounds(format.bits, format.is_signed, overflow)
    return state.builder.requant(
        name,
        x,
        format,
        exponent,
        rounding=grid.rounding,
        overflow=overflow,
        low=grid.low if overflow.saturates and grid.low != natural[0] else None,
        high=grid.high if overflow.saturates and grid.high != natural[1] else None,
        source=node.name,
    )


def _can_drop_zero(grid: Grid) -> bool:
    """Whether rounding commutes with a whole zero point, so that only the bounds move."""
    if grid.zero.size != 1:
        return False
    even = grid.rounding is Rounding.RND_CONV and int(grid.zero.reshape(-1)[0]) % 2 == 0
    return even or grid.rounding in _TRANSLATION_INVARIANT


def _with_zero(state: State, node: NodeView, x: str, grid: Grid, exponent: Exponent) -> Lowered:
    """Add the zero point, round and saturate, take it off again: as QONNX states it."""
    rank = state.rank(x)
    zero, exponents = (_ranked(node, p, rank) for p in (grid.zero, grid.exponent))
    shape = np.broadcast_shapes(zero.shape, exponents.shape)
    offset = Dyadic(np.broadcast_to(zero, shape), exponents)
    if not is_per_channel(offset, state.builder.type(x).shape):
        raise node.inexact("its zero points differ along another axis than the channels")
    shifted = state.affine(node, x, Dyadic.power(0), offset, "_zero_added")
    codes = _requant(state, node, f"{node.name}_code", shifted, grid, exponent, is_moved=False)
    return Activation(state.affine(node, codes, Dyadic.power(0), -offset))


def tensor_exponent(state: State, node: NodeView, x: str, exponents: NDArray[np.int64]) -> Exponent:
    """A quantizer's exponents as those of an activation: one, or one per index of one axis."""
    shape = state.builder.type(x).shape
    whole = _ranked(node, exponents, len(shape))
    if any(size not in (1, n) for size, n in zip(whole.shape, shape, strict=True)):
        raise node.refuse(f"its scale of shape {whole.shape} does not fit its input {shape}")
    varying = [axis for axis in range(len(shape)) if np.unique(whole, axis=axis).shape[axis] > 1]
    if not varying:
        return Exponent.scalar(int(whole.reshape(-1)[0]))
    if len(varying) > 1:
        raise node.refuse(
            "its scale differs along more than one axis", allowed="a scale per tensor or per channel"
        )
    return Exponent(tuple(int(e) for e in whole.reshape(-1)), varying[0])


def _rounded(value: Fraction, rounding: Rounding) -> int:
    """A dyadic number rounded to an integer."""
    bits = value.denominator.bit_length() - 1
    return requantise_number(value.numerator, bits, rounding)


def _typed(node: NodeView, value: Dyadic, format: TableFormat) -> Dyadic:
    """A quantised constant whose node says of which format its numbers are (k-hot weights)."""
    check_held(str(node), value.mantissa, format)
    return replace(value, format=format)


# --- parameters ---


def parameter(state: State, node: NodeView, index: int) -> Dyadic:
    """A constant input of a quantizer; UnsupportedError where it is computed."""
    if index >= len(node.proto.input):
        raise node.refuse(f"it has {len(node.proto.input)} inputs, and needs {index + 1}")
    value = state.values.get(node.proto.input[index])
    if not isinstance(value, Dyadic):
        raise node.refuse(
            f"its parameter '{node.proto.input[index]}' is computed in the graph",
            allowed="constant scales, zero points and bit widths",
            hint="export the model in evaluation mode, so that quantizers have fixed parameters",
        )
    return value


def exponents_of(node: NodeView, scale: Dyadic) -> NDArray[np.int64]:
    """Whole exponents of scales that are all powers of two."""
    powers = [power_of_two(value) for value in scale.fractions()]
    if not powers or None in powers:
        wrong = next((v for v, p in zip(scale.fractions(), powers, strict=True) if p is None), None)
        shown = "empty" if wrong is None else f"{float(wrong):g}"
        raise node.inexact(f"its scale {shown} is not a power of two")
    return np.array(powers, dtype=np.int64).reshape(scale.shape)


def _integers(node: NodeView, what: str, value: Dyadic) -> NDArray[np.int64]:
    numbers = value.fractions()
    if any(number.denominator != 1 for number in numbers):
        raise node.inexact(f"its {what} is not a whole number")
    if any(abs(number) >= 1 << LARGEST_BITS for number in numbers):
        raise node.refuse(f"its {what} has more than {LARGEST_BITS} bits", allowed="smaller numbers")
    return np.array([int(number) for number in numbers], dtype=np.int64).reshape(value.shape)


def _bit_width(node: NodeView, value: Dyadic) -> int:
    widths = set(value.fractions())
    width = next(iter(widths), Fraction(0))
    if len(widths) != 1 or width.denominator != 1 or not 1 <= width <= LARGEST_WIDTH:
        shown = ", ".join(f"{float(w):g}" for w in sorted(widths))
        raise node.refuse(
            f"its bit width is {shown or 'missing'}", allowed=f"one whole number from 1 to {LARGEST_WIDTH}"
        )
    return int(width)


def scalar_of(node: NodeView, what: str, values: NDArray[np.int64]) -> int:
    """The one number of a parameter that must not differ by channel."""
    numbers = set(values.flat)
    if len(numbers) != 1:
        raise node.inexact(f"its {what} differs by channel", allowed=f"one {what} for the whole tensor")
    return int(numbers.pop())


def _ranked(node: NodeView, values: NDArray[np.int64], rank: int) -> NDArray[np.int64]:
    """A parameter with as many axes as an activation, without the batch axis that it broadcasts over."""
    if values.ndim == rank + 1 and values.shape[0] == 1:
        values = values[0]
    if values.ndim > rank:
        raise node.refuse(f"a parameter of shape {values.shape} would broadcast along the batch axis")
    return values.reshape((1,) * (rank - values.ndim) + values.shape)


def _rounding(node: NodeView, default: str) -> Rounding:
    mode = str(node.options.get("rounding_mode", default)).upper()
    if mode not in QONNX_ROUNDING:
        raise node.refuse(f"rounding mode '{mode}'", allowed=", ".join(QONNX_ROUNDING))
    return QONNX_ROUNDING[mode]


def _mode(node: NodeView, what: str, kind: Any, default: str) -> Any:
    name = str(node.options.get(what, default))
    if name not in kind.__members__:
        raise node.refuse(f"{what} mode '{name}'", allowed=", ".join(kind.__members__))
    return kind[name]
