"""Any function of a short code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Range, Result
from qhw.graph.ops.shared.elementwise import per_channel
from qhw.graph.ops.shared.lookups import looked_up
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Table(Node):
    """``table[channel, x - first]``: any element-wise function of a code of up to 16 bits.

    Inputs: ``x`` (C, …); constant ``table`` (C or 1, entries), output mantissas.
    ``first`` is the mantissa of ``x`` that entry 0 stands for.
    """

    first: int

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        x, table = operands
        values = table.constant("the table")
        channels = x.channels
        if values.ndim != 2 or values.shape[0] not in (1, channels) or not 0 < values.shape[1] <= 1 << 16:
            raise ValueError(f"a table has shape {values.shape}: ({channels} or 1, at most 65536) is needed")
        low, high = x.range.bounds
        if low < self.first or high >= self.first + values.shape[1]:
            last = self.first + values.shape[1] - 1
            raise ValueError(f"the input range [{low}, {high}] is outside the table's [{self.first}, {last}]")
        places = Range.of(x.range.low - self.first, x.range.high - self.first)
        return looked_up(x, values, declared, places)

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        x, table = operands[0], operands[1][0]
        index = (x - self.first).astype(np.int64)
        if len(table) == 1:
            return np.asarray(table[0][index])
        return np.asarray(table[per_channel(np.arange(len(table)), x.ndim - 1), index])
