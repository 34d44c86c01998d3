"""Rounding to a format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray, Overflow, Rounding, round_shift
from qhw.formats.requantise import bounds, check_modes, requantise
from qhw.formats.table import TableFormat
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.ops.shared.elementwise import broadcast_range, folded_range
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Requant(Node):
    """Conversion to the output's format and exponent: shift, round, then saturate or wrap.

    ``low`` and ``high`` are mantissa bounds of the output that replace the format's own when it saturates
    (a narrow range, the 6 of a ReLU6). Never writes -0, infinity or NaN.
    """

    rounding: Rounding
    overflow: Overflow
    low: int | None = None
    high: int | None = None

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        x = operands[0]
        rank = len(x.type.shape)
        low_bound, high_bound = self._checked_bounds(x, declared)
        shift = declared.exponent.broadcast(rank) - x.type.exponent.broadcast(rank)
        if sum(n > 1 for n in shift.shape) > 1:
            raise ValueError("the exponents of input and output vary along different axes")
        ends = broadcast_range(x, rank)
        size = np.broadcast_shapes(np.shape(ends[0]), shift.shape)
        shift = np.broadcast_to(shift, size)
        lows, highs = (self._rounded(np.broadcast_to(end, size), shift, declared) for end in ends)
        if self.overflow in (Overflow.SAT, Overflow.SAT_SYM):
            lows, highs = np.clip(lows, low_bound, high_bound), np.clip(highs, low_bound, high_bound)
        else:
            beyond = (lows < low_bound) | (highs > high_bound)
            lows, highs = np.where(beyond, low_bound, lows), np.where(beyond, high_bound, highs)
        return Result.unsummed(x.type.shape, declared.exponent, folded_range(lows, highs, rank))

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        x, rank = operands[0], len(out.shape)
        low, high = requant_bounds(self, out) if self.overflow.saturates else (None, None)

        def moved(part: IntArray, bits: int) -> IntArray:
            return requantise(part, bits, out.format, self.rounding, self.overflow, low, high)

        shift = out.exponent.broadcast(rank) - types[0].exponent.broadcast(rank)
        if shift.size == 1:
            return moved(x, int(shift.item()))
        axis = next(i for i, n in enumerate(shift.shape) if n > 1) + 1
        parts = np.split(x, x.shape[axis], axis=axis)
        return np.concatenate([moved(p, int(s)) for p, s in zip(parts, shift.flat, strict=True)], axis=axis)

    def _checked_bounds(self, x: Operand, declared: TensorType) -> tuple[int, int]:
        if declared.shape != x.type.shape:
            raise ValueError(f"the output shape {declared.shape} is not the input's {x.type.shape}")
        low, high = requant_bounds(self, declared)
        if not declared.format.mantissa_low <= low <= high <= declared.format.mantissa_high:
            raise ValueError(f"the bounds [{low}, {high}] are outside {declared.format}")
        if isinstance(declared.format, TableFormat):
            check_modes(declared.format, self.rounding, self.overflow)
            if not declared.format.holds([low, high]):
                raise ValueError(f"the bounds [{low}, {high}] are no numbers of {declared.format}")
        return low, high

    def _rounded(self, ends: IntArray, shift: IntArray, declared: TensorType) -> IntArray:
        """The ends of ranges, rounded (in a format that lists its codes, saturated too)."""
        rounded = np.empty(ends.shape, dtype=object)
        for bits in np.unique(shift):
            here = shift == bits
            if isinstance(declared.format, TableFormat):
                rounded[here] = requantise(
                    ends[here], int(bits), declared.format, self.rounding, self.overflow
                )
            else:
                rounded[here] = round_shift(ends[here], int(bits), self.rounding)
        return rounded


def requant_bounds(node: Requant, declared: TensorType) -> tuple[int, int]:
    """The mantissa bounds that a Requant saturates to."""
    return bounds(declared.format, node.overflow, node.low, node.high)
