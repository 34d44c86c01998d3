"""Exponents of tensors, and the shifts that align mantissas to them."""

from __future__ import annotations

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.tensors import Exponent, TensorType


def exponents(kind: TensorType, rank: int) -> IntArray:
    """A tensor's exponents, broadcast over ``rank`` axes of which it has the last ones."""
    exponent = kind.exponent
    if exponent.axis is None:
        return exponent.broadcast(rank)
    return Exponent(exponent.values, exponent.axis + rank - len(kind.shape)).broadcast(rank)


def aligned(*exponents: IntArray) -> tuple[IntArray, list[IntArray]]:
    """The finest of broadcast exponents, and each one's left shift to it."""
    finest = exponents[0]
    for exponent in exponents[1:]:
        finest = np.minimum(finest, exponent)
    return finest, [exponent - finest for exponent in exponents]


def factors(shift: IntArray) -> IntArray:
    """``2**shift`` as Python integers."""
    return np.array([1 << int(s) for s in shift.reshape(-1)], dtype=object).reshape(shift.shape)


def shifted(x: IntArray, shift: IntArray) -> IntArray:
    """``x * 2**shift`` in x's own type."""
    return x * np.left_shift(1, shift.astype(object)).astype(x.dtype) if np.any(shift) else x


def along(values: IntArray, axis: int) -> Exponent:
    """One exponent per index of ``axis``, or one for all where they are equal."""
    if np.unique(values).size == 1:
        return Exponent.scalar(int(values[0]))
    return Exponent(tuple(map(int, values)), axis)


def joined(exponents: IntArray) -> Exponent:
    """Broadcast exponents, which may vary along one axis, as an Exponent."""
    varying = [axis for axis, n in enumerate(exponents.shape) if n > 1]
    if len(varying) > 1 and np.unique(exponents).size > 1:
        raise ValueError("exponents vary along more than one axis")
    return along(exponents.reshape(-1), varying[0] if varying else 0)
