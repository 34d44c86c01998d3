"""A multiplication and an addition per channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Range, Result
from qhw.graph.ops.shared.elementwise import per_channel, product_range
from qhw.graph.ops.shared.exponents import aligned, along, factors, shifted
from qhw.graph.ops.shared.sums import partial_bounds
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Affine(Node):
    """``x * multiplier + offset`` with constants per channel (C,) or per tensor ().

    Inputs: ``x`` (C, …), ``multiplier``, optionally ``offset``. Axis 0 is the channel.
    """

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        x = operands[0]
        multiplier = operands[1].constant("the multiplier").reshape(-1)
        exponents = [x.type.exponent, *(o.type.exponent for o in operands[1:])]
        if any(e.axis not in (None, 0) for e in exponents):
            raise ValueError("exponents may vary along the channel axis only")
        x_e, m_e, *o_e = (np.array(e.values, dtype=np.int64) for e in exponents)
        product = product_range(x.range.low, x.range.high, multiplier, multiplier)
        finest, shifts = aligned(x_e + m_e, *o_e)
        scale = factors(shifts[0])
        offset = np.zeros(1, dtype=object)
        if len(operands) > 2:
            offset = operands[2].constant("the offset").reshape(-1) * factors(shifts[1])
        for name, array in (("multiplier", multiplier), ("offset", offset)):
            if array.size not in (1, x.channels):
                raise ValueError(f"the {name} has {array.size} numbers for {x.channels} channels")
        low, high = product.low * scale, product.high * scale
        total = Range.of(low + offset, high + offset)
        total = total if total.low.size == x.channels and x.type.shape else total.whole()
        return Result(x.type.shape, along(finest, 0), total, partial_bounds(low, high, offset))

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        rank = len(out.shape)
        product = operands[0] * per_channel(operands[1], rank)
        exponent = per_channel(np.array(types[0].exponent.values) + np.array(types[1].exponent.values), rank)
        result = per_channel(np.array(out.exponent.values), rank)
        product = shifted(product, exponent - result)
        if len(operands) == 2:
            return np.asarray(product)
        shift = per_channel(np.array(types[2].exponent.values), rank) - result
        return np.asarray(product + shifted(per_channel(operands[2], rank), shift))
