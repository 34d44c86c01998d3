"""Numbers that are looked up in rows of constants, one row per channel or one for all."""

from __future__ import annotations

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Operand, Range, Result
from qhw.graph.tensors import TensorType


def looked_up(x: Operand, values: IntArray, declared: TensorType, places: Range) -> Result:
    """The levels that the places, per tensor or per channel, can reach."""
    rows = np.broadcast_shapes(places.low.shape, (len(values),)) if x.type.shape else (1,)
    first, last = (np.broadcast_to(v, rows) for v in (places.low, places.high))
    reached = [
        row[int(a) : int(b) + 1]
        for row, a, b in zip(np.broadcast_to(values, (*rows, values.shape[1])), first, last, strict=True)
    ]
    low, high = (np.array([f(row) for row in reached], dtype=object) for f in (np.min, np.max))
    total = Range.of(low, high) if len(reached) > 1 else Range.of(low[0], high[0])
    return Result.unsummed(x.type.shape, declared.exponent, total)
