"""Maximum over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.ops.shared.reductions import reduced
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class ReduceMax(Node):
    """Maximum over ``axes`` (no batch axis); ``keepdims`` keeps them with length 1."""

    axes: tuple[int, ...]
    keepdims: bool

    moves_codes = True

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        return Result.unsummed(*reduced(operands[0], self.axes, self.keepdims))

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        return np.asarray(operands[0].max(axis=tuple(a + 1 for a in self.axes), keepdims=self.keepdims))
