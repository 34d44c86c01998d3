"""Encode the user's arrays as mantissas of graph inputs; decode output mantissas to values."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qhw.errors import InputError
from qhw.formats.modes import IntArray, Rounding
from qhw.formats.requantise import saturating
from qhw.graph.ir import ExactGraph, InputEncoding
from qhw.graph.tails.host import carry_out

_FLOAT_ROUNDING = {
    Rounding.TRN: np.floor,
    Rounding.CEIL: np.ceil,
    Rounding.TRN_ZERO: np.trunc,
    Rounding.RND_CONV: np.rint,
}


def round_float(x: NDArray[np.floating], rounding: Rounding) -> NDArray[np.floating]:
    """Round floats to integers in their own precision."""
    if rounding in _FLOAT_ROUNDING:
        return np.asarray(_FLOAT_ROUNDING[rounding](x))
    if rounding is Rounding.UP:
        return np.asarray(np.where(x < 0, np.floor(x), np.ceil(x)))
    floor = np.floor(x)
    rest = x - floor
    ties_up = {
        Rounding.RND: np.True_,
        Rounding.RND_MIN_INF: np.False_,
        Rounding.RND_INF: x > 0,
        Rounding.RND_ZERO: x < 0,
    }[rounding]
    return np.asarray(floor + ((rest > 0.5) | ((rest == 0.5) & ties_up)), dtype=x.dtype)


def encode_input(graph: ExactGraph, name: str, x: ArrayLike) -> IntArray:
    """A user's batch as the mantissas of input ``name``, shape (N, *shape).

    Raises InputError on another shape, on a type that is not numeric, and on NaN or infinity.
    """
    kind = graph.tensors[name]
    array = np.asarray(x)
    if array.dtype.kind not in "biuf":
        raise InputError(f"input '{name}' has type {array.dtype}", allowed="integers or floats")
    if array.shape[1:] != kind.shape or array.ndim == 0:
        raise InputError(
            f"input '{name}' has shape {array.shape}",
            allowed=f"(N, {', '.join(map(str, kind.shape))})",
            hint="give a batch: the first axis counts the samples",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"input '{name}' holds {array[where]} at {where}", allowed="finite numbers")
    encoding = graph.input_encodings.get(name)
    if encoding is None:
        encoding = InputEncoding(
            1.0, 0.0, kind.format.mantissa_low, kind.format.mantissa_high, Rounding.RND_CONV, True
        )
    return _encode_exact(name, array, encoding) if encoding.exact else _encode_rounded(name, array, encoding)


def _encode_exact(name: str, array: NDArray[np.generic], encoding: InputEncoding) -> IntArray:
    with np.errstate(invalid="ignore"):  # numbers beyond int64 are told below
        codes = array.astype(np.int64)
    wrong = (codes != array) | (codes < encoding.low) | (codes > encoding.high)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"input '{name}' holds {array[where]} at {where}",
            allowed=f"integers from {encoding.low} to {encoding.high}",
        )
    return np.asarray(codes - int(encoding.zero_point))


def _encode_rounded(name: str, array: NDArray[np.generic], encoding: InputEncoding) -> IntArray:
    scale, zero = np.float32(encoding.scale), np.float32(encoding.zero_point)
    with np.errstate(over="ignore", invalid="ignore"):  # what is too large saturates
        numbers = carry_out(encoding.before, array.astype(np.float32)) / scale
    if np.isnan(numbers).any():
        raise InputError(
            f"input '{name}' holds numbers that overflow float32 in front of its first quantizer",
            allowed="numbers of about the quantizer's range",
        )
    if encoding.format is not None:
        mantissas = saturating(encoding.format, encoding.rounding).to_mantissa(numbers)
        return np.asarray(np.clip(mantissas, encoding.low, encoding.high))
    codes = round_float(numbers + zero, encoding.rounding)
    return np.asarray(np.clip(codes, encoding.low, encoding.high) - zero).astype(np.int64)


def encode_inputs(graph: ExactGraph, x: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, IntArray]:
    """Every input's mantissas; a bare array is taken for the only input."""
    if not isinstance(x, Mapping):
        if len(graph.inputs) != 1:
            raise InputError(f"the graph has inputs {', '.join(graph.inputs)}", hint="give a dict of arrays")
        x = {graph.inputs[0]: x}
    if set(x) != set(graph.inputs):
        raise InputError(f"arrays are given for {', '.join(x)}", allowed=", ".join(graph.inputs))
    return {name: encode_input(graph, name, array) for name, array in x.items()}


def decode_output(graph: ExactGraph, name: str, mantissas: IntArray) -> NDArray[np.float64]:
    """Output mantissas (N, *shape) as real values, float64."""
    kind = graph.tensors[name]
    rank = len(kind.shape)
    exponent = kind.exponent.broadcast(rank)
    values = np.ldexp(np.asarray(mantissas).astype(np.float64), exponent.astype(np.int32))
    scale = graph.output_scales.get(name)
    if scale is None:
        return np.asarray(values)
    factor, offset = scale.arrays(rank)
    return np.asarray(values * factor + offset)
