"""What a quantizer node of a QONNX file computes: float32 steps to an integer, and that integer's scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from onnx import NodeProto

from qhw.errors import UnsupportedError
from qhw.formats import Overflow, TableFormat
from qhw.formats.requantise import bounds, saturating
from qhw.graph.onnx_tools import Constants, attributes, describe
from qhw.graph.tails.operations import OPERATIONS, ROUNDINGS, Step, Value, code_bounds
from qhw.onnx_ops.float_quant import float_format, format_of_attribute

QUANTIZER_STEPS = frozenset({"Quant", "BipolarQuant", "MultiThreshold", "FixedQuant", "FormatQuant"})
"""Steps of a tail that are quantizers at scale 1."""

LARGEST_WIDTH = 24
"""Codes of more bits are not all float32 numbers."""

LARGEST_MANTISSA = 61
"""Bits of the largest mantissa of a format that lists its codes (each of them is a float32 number)."""

_FLOAT32_EXPONENT = 100
"""Bound of a format's exponent: with a scale of any usual size, float32 holds all products."""

_WIDEST_CONSTANT = 64
"""Bits that a quantised constant may claim: a bias usually claims 32."""


@dataclass(frozen=True)
class Stage:
    """One float32 operation of a quantizer, with the constant it takes, if any."""

    op: str
    constant: Value | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Quantizer:
    """``mantissa = stages(x)``, ``value = mantissa * scale``.

    Args:
        scale: positive, float32; broadcasts over the quantised tensor.
        low, high: bounds of the mantissa.
        format: the mantissas' format, where it is one that lists its codes.
    """

    stages: tuple[Stage, ...]
    scale: Value
    low: int
    high: int
    format: TableFormat | None = None

    def mantissas(self, values: Value) -> Value:
        """The integers (as float32) of values, by the same operations."""
        for stage in self.stages:
            operands = [values] if stage.constant is None else [values, stage.constant]
            step = Step(stage.op, (), "", stage.attributes)
            values = OPERATIONS[stage.op].function(step, operands).astype(np.float32, copy=False)
        return values


def quantizer_of(node: NodeProto, constants: Constants) -> Quantizer:
    """The meaning of a quantizer node, of QONNX's and of qhw's own.

    Raises:
        UnsupportedError: a parameter is computed, a scale is not positive, a zero point not an integer, a
            format's numbers are none of float32.
    """
    for name in node.input[1:]:
        if name and name not in constants:
            raise UnsupportedError(
                f"{describe(node)}: its parameter '{name}' is computed in the graph",
                allowed="constant scales, zero points and bit widths",
                hint="export the model in evaluation mode, so that quantizers have fixed parameters",
            )
    names = node.input[1:]
    parameters = [np.asarray(constants[name], dtype=np.float32) if name else None for name in names]
    quantizer = _READERS[node.op_type](node, parameters)
    if not (np.isfinite(quantizer.scale) & (quantizer.scale > 0)).all():
        raise UnsupportedError(f"{describe(node)}: its scale is not positive", allowed="scales above 0")
    return quantizer


def _quant(node: NodeProto, parameters: list[Any]) -> Quantizer:
    scale, zero, bits = parameters
    options = attributes(node)
    signed, narrow = bool(options.get("signed", 1)), bool(options.get("narrow", 0))
    width = _width(node, bits)
    if width == 1 and signed:  # as qonnx executes it
        stages = [*_shifted(node, scale, zero), Stage("BipolarQuant"), *_unshifted(zero)]
        return Quantizer(tuple(stages), scale, *_less(zero, -1, 1))
    rounding = _rounding(node, options.get("rounding_mode", "ROUND"))
    code = Stage("Quant", None, _code(width, signed, narrow, rounding))
    stages = [*_shifted(node, scale, zero), code, *_unshifted(zero)]
    return Quantizer(tuple(stages), scale, *_less(zero, *code_bounds(width, signed, narrow)))


def _bipolar_quant(node: NodeProto, parameters: list[Any]) -> Quantizer:
    return Quantizer((Stage("BipolarQuant"),), parameters[0], -1, 1)


def _trunc(node: NodeProto, parameters: list[Any]) -> Quantizer:
    scale, zero = parameters[:2]
    options = attributes(node)
    rounding = _rounding(node, options.get("rounding_mode", "FLOOR"))
    stages = [*_shifted(node, scale, zero), Stage("Round")]
    if len(parameters) == 4:  # version 1: no clamp, and the scale stays
        dropped, kept = _width(node, parameters[2]), _width(node, parameters[3])
        stages += [Stage("Div", np.array(2.0 ** (dropped - kept), np.float32))] if dropped != kept else []
        stages += [_rounding_stage(node, rounding), *_unshifted(zero)]
        bound = 1 << (LARGEST_WIDTH - 1)
        return Quantizer(tuple(stages), scale, *_less(zero, -bound, bound))
    output_scale, output_bits = parameters[3], parameters[4]
    signed, narrow = bool(options.get("signed", 1)), bool(options.get("narrow", 0))
    ratio = np.exp2(np.round(np.log2(output_scale / scale))).astype(np.float32)
    output_zero = zero / ratio
    _integer(node, "zero point over truncation scale", output_zero)
    width = _width(node, output_bits)
    stages += [Stage("Div", ratio)] if (ratio != 1).any() else []
    stages += [Stage("Quant", None, _code(width, signed, narrow, rounding)), *_unshifted(output_zero)]
    return Quantizer(tuple(stages), output_scale, *_less(output_zero, *code_bounds(width, signed, narrow)))


def _multi_threshold(node: NodeProto, parameters: list[Any]) -> Quantizer:
    thresholds = parameters[0]
    options = attributes(node)
    scale, bias = (np.float32(options.get(n, d)) for n, d in (("out_scale", 1.0), ("out_bias", 0.0)))
    stages = [Stage("MultiThreshold", thresholds, {"data_layout": options.get("data_layout", "")})]
    factor = 1 if scale == 0 or float(bias / scale).is_integer() else 2
    unit = np.float32(scale / factor)
    if unit <= 0 or not float(bias / unit).is_integer() or unit * factor != scale:
        raise UnsupportedError(
            f"{describe(node)}: its out_bias {bias} is no multiple of half its out_scale {scale}",
            allowed="a positive out_scale and an out_bias that is a multiple of half of it",
        )
    stages += [Stage("Mul", np.array(factor, np.float32))] if factor > 1 else []
    stages += [Stage("Add", np.array(bias / unit, np.float32))] if bias else []
    start = int(bias / unit)
    return Quantizer(tuple(stages), np.asarray(unit), start, start + factor * thresholds.shape[-1])


def _fixed_quant(node: NodeProto, parameters: list[Any]) -> Quantizer:
    options = attributes(node)
    width, signed = _width(node, np.array(options["width"])), bool(options.get("signed", 1))
    fraction, scale = [*parameters, None, None][:2]
    if fraction is None:
        fraction = np.array(width - int(options.get("integer", 0)), np.float32)
    code = {
        "width": width,
        "signed": signed,
        "rounding": options.get("rounding", "RND_CONV"),
        "overflow": options.get("overflow", "SAT"),
    }
    shift = [Stage("Mul", np.exp2(fraction))] if np.any(fraction) else []
    scaled = [] if scale is None or (scale == 1).all() else [Stage("Div", scale)]
    unit = np.exp2(-fraction) * (np.float32(1) if scale is None else scale)
    bounds = code_bounds(width, signed, narrow=False)
    return Quantizer((*scaled, *shift, Stage("FixedQuant", None, code)), np.asarray(unit), *bounds)


def _float_quant(node: NodeProto, parameters: list[Any]) -> Quantizer:
    scale, *rest = [*parameters, *[None] * 4][:5]
    found = float_format(describe(node), attributes(node), *rest)
    return _listed(node, scale, found.format, found.high)


def _format_quant(node: NodeProto, parameters: list[Any]) -> Quantizer:
    return _listed(node, parameters[0], format_of_attribute(describe(node), attributes(node)))


def _listed(node: NodeProto, scale: Value | None, given: TableFormat, high: int | None = None) -> Quantizer:
    """``format(x / scale)``, brought to its mantissas by a power of two; bounded by a smaller largest one."""
    if scale is None:
        raise UnsupportedError(f"{describe(node)} has no scale", allowed="a constant scale")
    format = saturating(given, given.rounding)
    if format.mantissa_high.bit_length() > LARGEST_MANTISSA or abs(format.exponent) > _FLOAT32_EXPONENT:
        raise UnsupportedError(
            f"{describe(node)}: {format} at a scale that is no power of two reaches beyond float32",
            allowed=f"mantissas of at most {LARGEST_MANTISSA} bits, a bias of at most about 100",
            hint="use powers of two for its scales, or fewer exponent bits",
        )
    low, most = bounds(format, Overflow.SAT, None if high is None else -high, high)
    stages = [Stage("Div", scale)] if (scale != 1).any() else []
    stages.append(Stage("FormatQuant", None, {"format": str(format)}))
    if format.exponent:
        stages.append(Stage("Mul", np.array(2.0**-format.exponent, np.float32)))
    if high is not None:
        stages.append(Stage("Clip", None, {"min": float(low), "max": float(most)}))
    unit = np.asarray(np.ldexp(scale, format.exponent), dtype=np.float32)
    if not (np.ldexp(unit.astype(np.float64), -format.exponent) == scale).all():
        raise UnsupportedError(f"{describe(node)}: {format} at its scale is out of float32's reach")
    return Quantizer(tuple(stages), unit, low, most, format)


_READERS: dict[str, Callable[[NodeProto, list[Any]], Quantizer]] = {
    "Quant": _quant,
    "BipolarQuant": _bipolar_quant,
    "Trunc": _trunc,
    "MultiThreshold": _multi_threshold,
    "FixedQuant": _fixed_quant,
    "FloatQuant": _float_quant,
    "FormatQuant": _format_quant,
}


def _code(width: int, signed: bool, narrow: bool, rounding: str) -> dict[str, Any]:
    return {"bits": width, "signed": signed, "narrow": narrow, "rounding_mode": rounding}


def _shifted(node: NodeProto, scale: Value, zero: Value) -> list[Stage]:
    """``x / scale + zero``, in the order that QONNX states."""
    _integer(node, "zero point", zero)
    stages = [Stage("Div", scale)] if (scale != 1).any() else []
    return stages + ([Stage("Add", zero)] if zero.any() else [])


def _unshifted(zero: Value) -> list[Stage]:
    return [Stage("Sub", zero)] if zero.any() else []


def _less(zero: Value, low: int, high: int) -> tuple[int, int]:
    return low - int(zero.max()), high - int(zero.min())


def _integer(node: NodeProto, what: str, value: Value) -> None:
    if (value != np.rint(value)).any():
        raise UnsupportedError(
            f"{describe(node)}: its {what} is {value.reshape(-1)[0]}",
            allowed="integers",
            hint="use a quantizer whose zero point is rounded to an integer",
        )


def _width(node: NodeProto, bits: Value) -> int:
    width = float(np.asarray(bits).reshape(-1)[0])
    if np.unique(bits).size != 1 or not width.is_integer() or not 1 <= width <= _WIDEST_CONSTANT:
        raise UnsupportedError(
            f"{describe(node)}: its bit width is {bits.tolist()}", allowed="one whole number"
        )
    return int(width)


def _rounding(node: NodeProto, mode: str) -> str:
    if mode.upper() not in ROUNDINGS:
        raise UnsupportedError(f"{describe(node)}: rounding mode '{mode}'", allowed=", ".join(ROUNDINGS))
    return mode.upper()


def _rounding_stage(node: NodeProto, mode: str) -> Stage:
    """A rounding without bounds, as an ONNX operator."""
    operators = {"ROUND": "Round", "HALF_EVEN": "Round", "FLOOR": "Floor", "CEIL": "Ceil"}
    if mode not in operators:
        raise UnsupportedError(f"{describe(node)}: rounding mode '{mode}'", allowed=", ".join(operators))
    return Stage(operators[mode])
