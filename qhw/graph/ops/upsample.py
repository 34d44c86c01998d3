"""Further elements between those of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Upsample(Node):
    """Along each spatial axis, every element is followed by ``factor - 1`` copies of it, or zeros.

    ``factors`` has one number per spatial axis, 1 where nothing is put in; n elements become n * factor, so
    the last one is followed, too. Copies make a nearest-neighbour Resize by whole factors, zeros the input
    of the Conv that a transposed convolution is.
    """

    factors: tuple[int, ...]
    zeros: bool

    moves_codes = True

    @property
    def inserted(self) -> tuple[int, ...]:
        return (0,) if self.zeros and max(self.factors, default=1) > 1 else ()

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        (x,) = operands
        channels, *spatial = x.type.shape
        if len(self.factors) != len(spatial) or min(self.factors, default=1) < 1:
            raise ValueError(f"factors {self.factors} of a tensor with shape {x.type.shape}")
        shape = (channels, *(n * factor for n, factor in zip(spatial, self.factors, strict=True)))
        exponent = x.type.exponent
        if exponent.axis is not None and shape[exponent.axis] != x.type.shape[exponent.axis]:
            raise ValueError("the axis that carries the exponents cannot be upsampled")
        return Result.unsummed(shape, exponent, x.range.including(0) if self.inserted else x.range)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        x = operands[0]
        if self.zeros:
            result = np.zeros((*x.shape[:2], *out.shape[1:]), dtype=x.dtype)
            every = (slice(None, None, factor) for factor in self.factors)
            result[(slice(None), slice(None), *every)] = x
            return result
        for axis, factor in enumerate(self.factors, start=2):
            x = x.repeat(factor, axis) if factor > 1 else x
        return x
