"""Maximum over a sliding window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.ops.shared.windows import padded, patches, pooled_shape
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class MaxPool(Node):
    """Maximum over a sliding window of every channel; padding is ignored."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    moves_codes = True

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        (x,) = operands
        shape = pooled_shape(x, self.kernel, self.strides, self.pads, self.dilations)
        for axis, size in enumerate(x.type.shape[1:]):
            starts = np.arange(shape[axis + 1]) * self.strides[axis] - self.pads[axis]
            places = starts[:, None] + np.arange(self.kernel[axis]) * self.dilations[axis]
            if not ((places >= 0) & (places < size)).any(axis=1).all():
                raise ValueError("padding must leave an element of the tensor in every window")
        return Result.unsummed(shape, x.type.exponent, x.range)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        x, lowest = operands[0], types[0].format.mantissa_low
        # The padding is as low as any element: every window holds a real one, at least as high.
        if x.dtype.kind in "iu":
            lowest = max(lowest, int(np.iinfo(x.dtype).min))
        seen = padded(x, self.pads, lowest)
        first, *others = patches(seen, self.kernel, self.strides, self.dilations, out.shape[1:])
        highest = first.copy(order="K")
        for patch in others:
            np.maximum(highest, patch, out=highest)
        return highest
