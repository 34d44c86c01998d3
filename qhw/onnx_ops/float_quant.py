"""QONNX's FloatQuant as its specification says, and where qonnx's own executor departs from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from qhw.errors import InputError, UnsupportedError
from qhw.formats import Minifloat, Rounding, Special, TableFormat, parse_format
from qhw.formats.modes import QONNX_ROUNDING, IntArray

FORMAT_KEY = "qhw.format"
"""Metadata of a Quant node whose numbers are all of a narrower format: a k-hot weight."""


@dataclass(frozen=True)
class FloatFormat:
    """A format, and the mantissa of the largest magnitude that is written (None: the format's own)."""

    format: TableFormat
    high: int | None = None


def float_format(
    where: str,
    options: Mapping[str, Any],
    exponent_bits: NDArray[Any] | None,
    mantissa_bits: NDArray[Any] | None,
    bias: NDArray[Any] | None = None,
    largest: NDArray[Any] | None = None,
) -> FloatFormat:
    """The format of a FloatQuant node.

    Args:
        where: the node, for messages.
        options: its attributes; ``has_inf`` and ``has_infinity`` are the same.
        exponent_bits, mantissa_bits, bias, largest: its inputs 2 to 5.

    Raises:
        UnsupportedError: a width is not whole or too large, the largest value is no number of the format,
            or the node overflows to infinity or NaN.
    """
    if exponent_bits is None or mantissa_bits is None:
        raise UnsupportedError(f"{where}: it has no bit widths", allowed="six inputs, as QONNX defines")
    if not bool(options.get("saturation", 1)):
        raise UnsupportedError(
            f"{where}: it overflows to infinity or NaN",
            allowed="saturation=1",
            hint="export with a saturating quantizer: no code of the exact graph is infinite",
        )
    special = _special(options)
    try:
        format = Minifloat(
            _whole(where, "exponent width", exponent_bits),
            _whole(where, "mantissa width", mantissa_bits),
            bias=None if bias is None else _whole(where, "exponent bias", bias),
            special=special,
            subnormals=bool(options.get("has_subnormal", 1)),
            rounding=_rounding(where, str(options.get("rounding_mode", "ROUND"))),
        )
        high = None if largest is None else _largest(where, largest, format)
    except UnsupportedError:
        raise
    except InputError as error:
        raise UnsupportedError(f"{where}: {error.message}", allowed=error.allowed, hint=error.hint) from error
    return FloatFormat(format, high)


def format_of_attribute(where: str, options: Mapping[str, Any]) -> TableFormat:
    """The format that a FormatQuant node names."""
    text = options.get("format", "")
    text = text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)
    try:
        format = parse_format(text)
    except InputError as error:
        raise UnsupportedError(f"{where}: {error.message}", hint=error.hint) from error
    if not isinstance(format, TableFormat):
        raise UnsupportedError(
            f"{where}: its format is {format}", allowed="a minifloat, khot, pow2, binary or ternary"
        )
    return format


def format_of_metadata(where: str, node: NodeProto) -> TableFormat | None:
    """The format that a node's metadata names for its numbers, if any."""
    named = [entry.value for entry in node.metadata_props if entry.key == FORMAT_KEY]
    return format_of_attribute(where, {"format": named[-1]}) if named else None


def check_no_nan(where: str, values: NDArray[Any], format: TableFormat) -> None:
    """Raise InputError where a node is given NaN, which its format does not hold."""
    if not format.has_nan and np.isnan(values).any():
        raise InputError(
            f"{where} was given NaN, which {format} does not hold",
            hint="look for the node before it whose result overflows",
        )


def check_held(where: str, mantissas: IntArray, format: TableFormat | None) -> None:
    """Raise UnsupportedError where numbers are not all of the format that a node's metadata names, if any."""
    wrong = [] if format is None else [int(m) for m in np.unique(mantissas) if not format.holds([m])]
    if wrong:
        raise UnsupportedError(
            f"{where}: its metadata says {format}, which does not hold {wrong[0]}",
            hint=f"export the model again, or remove {FORMAT_KEY} from the node's metadata",
        )


def differences_of_qonnx(model: ModelProto) -> dict[str, str]:
    """The FloatQuant nodes that qonnx's own executor computes otherwise than the specification, and why.

    Seen in qonnx 1.0.0: ``has_subnormal`` changes nothing there, modes beside those of Quant are rejected,
    directed modes may round just below a power of two as if it was reached already (the logarithm in float32
    is), HALF_UP rounds up just below a half, and the largest magnitude is that of a format without special
    values unless ``max_val`` says less.
    """
    stored = {value.name: numpy_helper.to_array(value) for value in model.graph.initializer}
    found = {
        node.name: _difference(node, stored) for node in model.graph.node if node.op_type == "FloatQuant"
    }
    return {name: reason for name, reason in found.items() if reason}


def _difference(node: NodeProto, stored: Mapping[str, NDArray[Any]]) -> str:
    options = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    options = {k: v.decode() if isinstance(v, bytes) else v for k, v in options.items()}
    mode = str(options.get("rounding_mode", "ROUND")).upper()
    if not options.get("has_subnormal", 1):
        return "has_subnormal=0, which qonnx ignores"
    if mode not in QONNX_ROUNDING:
        return f"rounding mode {mode}, which qonnx rejects"
    if "has_infinity" in options:
        return "the attribute has_infinity, which qonnx rejects (it reads has_inf)"
    parameters = [stored.get(name) for name in node.input[2:6]]
    parameters += [None] * (4 - len(parameters))
    if any(value is None for value in parameters):
        return "inputs that are left out, which qonnx reads"
    format = float_format(node.name, options, *parameters).format
    assert isinstance(format, Minifloat)
    plain = Minifloat(format.exponent_bits, format.mantissa_bits, format.bias)
    largest = np.asarray(parameters[3]).reshape(-1)[0]
    own = float(format.quantize(np.inf))
    if min(float(largest), float(plain.quantize(np.inf))) > own:
        return f"max_val {largest:g}, beyond the {own:g} of its special values"
    if _computed_otherwise(format, mode, float(largest)):
        return f"rounding mode {mode}, which qonnx computes otherwise just below some of the numbers"
    return ""


def _computed_otherwise(format: Minifloat, mode: str, largest: float) -> bool:
    """Whether qonnx's float_quant gives another number just below some of the format's, or half the least."""
    from qonnx.custom_op.general.floatquant import float_quant

    numbers = np.ldexp(format.numbers.astype(np.float64), format.exponent)
    least = np.ldexp(0.5, format.exponent)
    beside = np.nextafter(np.append(numbers, [least, -least]).astype(np.float32), np.float32(0))
    with np.errstate(all="ignore"):
        sizes = np.float32(format.exponent_bits), np.float32(format.mantissa_bits)
        bias = np.float32(format.exponent_bias)
        theirs = float_quant(beside, np.float32(1), *sizes, bias, max_val=largest, rounding_mode=mode)
    return not np.array_equal(theirs, np.clip(format.quantize(beside), -largest, largest))


def _special(options: Mapping[str, Any]) -> Special:
    if options.get("has_inf", 0) or options.get("has_infinity", 0):
        return Special.IEEE
    return Special.FN if options.get("has_nan", 0) else Special.NONE


def _rounding(where: str, mode: str) -> Rounding:
    if mode.upper() not in QONNX_ROUNDING:
        raise UnsupportedError(f"{where}: rounding mode '{mode}'", allowed=", ".join(QONNX_ROUNDING))
    return QONNX_ROUNDING[mode.upper()]


def _whole(where: str, what: str, value: NDArray[Any]) -> int:
    numbers = np.unique(np.asarray(value, dtype=np.float64))
    if numbers.size != 1 or not float(numbers[0]).is_integer():
        raise UnsupportedError(f"{where}: its {what} is {numbers.tolist()}", allowed="one whole number")
    return int(numbers[0])


def _largest(where: str, value: NDArray[Any], format: Minifloat) -> int | None:
    """The mantissa of ``max_val``; None where the format reaches no further."""
    numbers = np.unique(np.asarray(value, dtype=np.float64))
    if numbers.size != 1 or not numbers[0] > 0:
        raise UnsupportedError(f"{where}: its max_val is {numbers.tolist()}", allowed="one number above 0")
    own = float(format.quantize(np.inf))
    if numbers[0] >= own:
        return None
    nearest = float(format.quantize(numbers[0]))
    if nearest != numbers[0]:
        raise UnsupportedError(
            f"{where}: its max_val {numbers[0]:g} is not a number of {format}",
            hint=f"the nearest is {nearest:g}",
        )
    return int(format.to_mantissa(numbers[0]))
