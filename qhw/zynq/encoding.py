"""A network's inputs as its user has them become integers. Copied beside drivers: it needs NumPy alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any
"""A NumPy array: int64, or Python integers where 63 bits do not suffice."""

_BEFORE: dict[str, Callable[..., Array]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": np.divide,
    "Min": np.minimum,
    "Max": np.maximum,
    "Neg": np.negative,
    "Abs": np.abs,
    "Identity": np.asarray,
    "Relu": lambda x: np.maximum(x, np.float32(0)),
}
"""Operations on float samples that :func:`encoded` carries out; a network with others says so."""


def checked_samples(samples: Array, shape: tuple[int, ...], name: str = "samples") -> Array:
    """Samples (N, *shape) as an array.

    Args:
        name: what they are called in messages.

    Raises:
        ValueError: another shape, no numbers, NaN or infinity.
    """
    x = np.asarray(samples)
    if x.dtype.kind not in "biuf":
        raise ValueError(f"{name} hold {x.dtype}: integers or floats are needed")
    if x.ndim == 0 or x.shape[1:] != shape:
        needed = ", ".join(map(str, ("N", *shape)))
        raise ValueError(f"{name} have shape {x.shape}: ({needed}) is needed, N samples")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(x))[0])
        raise ValueError(f"{name} hold NaN or infinity, first at {where}: finite numbers are needed")
    return x


def encoded(x: Array, encoding: dict[str, Any]) -> Array:
    """Samples as mantissas, as the graph's input encoding says.

    Raises:
        ValueError: numbers that the network does not take, or an operation that this script does not compute.
    """
    low, high = encoding["low"], encoding["high"]
    if encoding["exact"]:
        with np.errstate(invalid="ignore"):  # numbers beyond int64 are told below
            codes = x.astype(np.int64)
        if (codes != x).any() or (codes < low).any() or (codes > high).any():
            raise ValueError(f"samples hold other numbers than integers from {low} to {high}")
        return codes - int(encoding["zero_point"])
    zero, numbers = np.float32(encoding["zero_point"]), x.astype(np.float32)
    for step in encoding["before"]:
        if step["op"] not in _BEFORE:
            raise ValueError(f"this script does not compute {step['op']}: encode samples with qhw")
        operands = [numbers if value is None else np.array(value, np.float32) for value in step["operands"]]
        with np.errstate(all="ignore"):
            numbers = np.asarray(_BEFORE[step["op"]](*operands), dtype=np.float32)
    with np.errstate(all="ignore"):  # what is too large saturates
        scaled = numbers / np.float32(encoding["scale"])
        codes = scaled if "numbers" in encoding else _rounded(scaled + zero, encoding["rounding"])
    if np.isnan(codes).any():
        raise ValueError("samples hold numbers that overflow float32 in front of the first quantizer")
    if "numbers" in encoding:
        place = np.searchsorted(np.array(encoding["thresholds"]), codes.astype(np.float64), side="right")
        return np.clip(np.array(encoding["numbers"])[place], low, high)
    return (np.clip(codes, low, high) - zero).astype(np.int64)


def _rounded(x: Array, rounding: str) -> Array:
    floor = np.floor(x)
    rest, negative, half = x - floor, x < 0, np.float32(0.5)
    up = {
        "TRN": np.zeros_like(negative),
        "CEIL": rest > 0,
        "TRN_ZERO": negative & (rest > 0),
        "UP": ~negative & (rest > 0),
        "RND": rest >= half,
        "RND_MIN_INF": rest > half,
        "RND_INF": (rest > half) | ((rest == half) & ~negative),
        "RND_ZERO": (rest > half) | ((rest == half) & negative),
        "RND_CONV": (rest > half) | ((rest == half) & (floor % 2 == 1)),
    }
    return (floor + up[rounding]).astype(np.float32)


def decoded(mantissas: Array, output: dict[str, Any]) -> Array:
    """Mantissas (N, *shape) of an output as its values, float64."""
    scale, offset = (np.array(output[name], dtype=np.float64) for name in ("scale", "offset"))
    values = np.ldexp(mantissas.astype(np.float64), np.array(output["exponent"], dtype=np.int32))
    return values * scale + offset
