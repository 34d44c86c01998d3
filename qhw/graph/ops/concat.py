"""Tensors joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Range, Result
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Concat(Node):
    """Tensors of one format and exponent joined along ``axis``."""

    axis: int

    moves_codes = True

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        first = operands[0].type
        for operand in operands:
            if (operand.type.format, operand.type.exponent) != (first.format, first.exponent):
                raise ValueError("the joined tensors differ in format or exponent")
        if not first.exponent.is_scalar:
            raise ValueError("the joined tensors must have one exponent")
        shapes = [list(o.type.shape) for o in operands]
        length = sum(s[self.axis] for s in shapes)
        for s in shapes:
            s[self.axis] = length
        if any(s != shapes[0] for s in shapes):
            raise ValueError(f"shapes {[o.type.shape for o in operands]} do not join along axis {self.axis}")
        return Result.unsummed(tuple(shapes[0]), first.exponent, self._range(operands))

    def _range(self, operands: Sequence[Operand]) -> Range:
        if self.axis != 0:  # each channel's numbers are those of its parts
            low, high = operands[0].range.low, operands[0].range.high
            for operand in operands[1:]:
                low, high = np.minimum(low, operand.range.low), np.maximum(high, operand.range.high)
            return Range.of(low, high)
        parts = [
            [np.broadcast_to(v, (o.type.shape[0],)) for v in (o.range.low, o.range.high)] for o in operands
        ]
        return Range(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]))

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        batch = max(x.shape[0] for x in operands)
        parts = [np.broadcast_to(x, (batch, *x.shape[1:])) for x in operands]
        return np.concatenate(parts, axis=self.axis + 1)
