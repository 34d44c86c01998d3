"""Axes in another order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.tensors import Exponent, TensorType


@dataclass(frozen=True)
class Transpose(Node):
    """Axes in the order ``perm`` (no batch axis)."""

    perm: tuple[int, ...]

    moves_codes = True

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        (x,) = operands
        if sorted(self.perm) != list(range(len(x.type.shape))):
            raise ValueError(f"{self.perm} does not permute the axes of {x.type.shape}")
        exponent = x.type.exponent
        if exponent.axis is not None:
            exponent = Exponent(exponent.values, self.perm.index(exponent.axis))
        span = x.range if self.perm[:1] == (0,) else x.range.whole()
        return Result.unsummed(tuple(x.type.shape[p] for p in self.perm), exponent, span)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        return operands[0].transpose(0, *(p + 1 for p in self.perm))
