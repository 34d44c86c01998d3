"""Tensors of the exact graph: a shape, the format of the mantissas, and their exponent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qhw.formats.base import Format
from qhw.formats.modes import IntArray


@dataclass(frozen=True)
class Exponent:
    """The power of two of a mantissa of 1: one for a whole tensor, or one per index of ``axis``."""

    values: tuple[int, ...]
    axis: int | None = None

    @classmethod
    def scalar(cls, value: int) -> Exponent:
        return cls((int(value),))

    @property
    def is_scalar(self) -> bool:
        return self.axis is None

    def broadcast(self, rank: int) -> IntArray:
        """The exponents as an int64 array that broadcasts over a tensor of that rank (no batch axis)."""
        if self.axis is None:
            return np.array(self.values[0], dtype=np.int64)
        shape = [1] * rank
        shape[self.axis] = len(self.values)
        return np.array(self.values, dtype=np.int64).reshape(shape)


@dataclass(frozen=True)
class TensorType:
    """Shape (no batch axis), format of the mantissas, and exponent of a tensor."""

    shape: tuple[int, ...]
    format: Format
    exponent: Exponent

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))
