"""Types and ranges of tensors whose axes are reduced."""

from __future__ import annotations

from qhw.graph.ops.base import Operand, Range
from qhw.graph.tensors import Exponent


def reduced(x: Operand, axes: tuple[int, ...], keepdims: bool) -> tuple[tuple[int, ...], Exponent, Range]:
    """Shape, exponent, and the range of the elements that one result is made of."""
    if any(not 0 <= axis < len(x.type.shape) for axis in axes):
        raise ValueError(f"axes {axes} of a tensor with shape {x.type.shape}")
    exponent = x.type.exponent
    if exponent.axis != 0 or 0 in axes:
        exponent = Exponent.scalar(x.scalar_exponent("the input"))
    kept = [(1 if i in axes else n) for i, n in enumerate(x.type.shape) if keepdims or i not in axes]
    return tuple(kept), exponent, x.range.whole() if 0 in axes else x.range
