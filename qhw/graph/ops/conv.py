"""Integer convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Result
from qhw.graph.ops.shared.sums import biased, product_sums, with_bias
from qhw.graph.ops.shared.windows import padded, patches, window_shape
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Conv(Node):
    """Integer convolution (cross-correlation, as in ONNX), one or two spatial axes.

    Inputs: ``x`` (C, *spatial), constant ``weight`` (M, C/groups, *kernel), optionally constant
    ``bias`` (M,). ``pads`` has the begins of every spatial axis, then the ends (the ONNX order);
    padding is mantissa 0.
    """

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        x, weight = operands[0], operands[1]
        value = weight.value
        if value is None:
            raise ValueError("the weight must be a constant")
        channels, *spatial = x.type.shape
        filters, depth, *kernel = weight.type.shape
        if depth * self.groups != channels or filters % self.groups:
            raise ValueError(
                f"weight {weight.type.shape} in {self.groups} groups does not fit {channels} input channels"
            )
        if weight.type.exponent.axis not in (None, 0):
            raise ValueError("weights may have exponents per output channel only")
        out = window_shape(spatial, kernel, self.strides, self.pads, self.dilations)
        span = x.range.including(0) if any(self.pads) else x.range
        group = np.arange(filters) // (filters // self.groups)
        index = group[:, None] * depth + np.arange(depth)[None, :]
        places = int(np.prod(kernel))
        low, high = span.low, span.high
        if low.ndim or high.ndim:  # (depth * places, filters): what each filter's weights are multiplied by
            low, high = (
                np.repeat(np.broadcast_to(v, (channels,))[index], places, axis=1).T for v in (low, high)
            )
        else:
            low, high = (np.broadcast_to(v, (depth * places,)) for v in (low, high))
        exponent, total, partial = biased(operands, *product_sums(low, high, value.reshape(filters, -1).T), 0)
        return Result((filters, *out), exponent, total, partial)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        x, weight = operands[0], operands[1][0]
        kernel = weight.shape[2:]
        filters, depth = weight.shape[:2]
        windows = patches(padded(x, self.pads, 0), kernel, self.strides, self.dilations, out.shape[1:])
        total = np.zeros((x.shape[0], filters, *out.shape[1:]), dtype=x.dtype)
        per_group = filters // self.groups
        for position, window in zip(np.ndindex(*kernel), windows, strict=True):
            for group in range(self.groups):
                rows = slice(group * per_group, (group + 1) * per_group)
                block = weight[(rows, slice(None), *position)]
                part = np.tensordot(block, window[:, group * depth : (group + 1) * depth], axes=(1, 1))
                total[:, rows] += np.moveaxis(part, 0, 1)
        return with_bias(total, operands, types, 1)
