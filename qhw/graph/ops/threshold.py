"""A number of thresholds, counted and mapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.formats.modes import IntArray
from qhw.graph.ops.base import Node, Operand, Range, Result
from qhw.graph.ops.shared.lookups import looked_up
from qhw.graph.tensors import TensorType


@dataclass(frozen=True)
class Threshold(Node):
    """``levels[number of thresholds that x reaches]``, per channel or per tensor.

    Inputs: ``x`` (C, …); constant ``thresholds`` (C or 1, T), in mantissas of ``x``, strictly ordered
    along T, the last one or more possibly beyond the range of ``x`` (never reached); constant ``levels``
    (C or 1, T + 1), output mantissas (rising, or falling for a negative gain).
    """

    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        x, thresholds, levels = operands
        t, values = thresholds.constant("the thresholds"), levels.constant("the levels")
        channels = x.channels
        if t.ndim != 2 or t.shape[0] not in (1, channels):
            raise ValueError(f"thresholds have shape {t.shape}: ({channels} or 1, count) is needed")
        if values.ndim != 2 or values.shape[0] not in (1, channels) or values.shape[1] != t.shape[1] + 1:
            raise ValueError(
                f"levels have shape {values.shape}: ({channels} or 1, {t.shape[1] + 1}) is needed"
            )
        if (t[:, 1:] <= t[:, :-1]).any():
            raise ValueError("thresholds must be strictly ordered")
        return looked_up(x, values, declared, _counts(t, x.range))

    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        x, thresholds, levels = operands[0], operands[1][0], operands[2][0]
        channels = x.shape[1] if x.ndim > 1 else 1
        result = np.empty(x.shape, dtype=levels.dtype)
        for channel in range(channels):
            where = (slice(None), channel) if x.ndim > 1 else (slice(None),)
            reached = np.searchsorted(thresholds[channel % len(thresholds)], x[where], side="right")
            result[where] = levels[channel % len(levels)][reached]
        return result


def _counts(thresholds: IntArray, span: Range) -> Range:
    """How many thresholds the lowest and the highest mantissa have reached."""
    low, high = (np.sum(thresholds <= v[..., np.newaxis], axis=-1) for v in (span.low, span.high))
    if len(thresholds) == 1:
        low, high = (v.reshape(w.shape) for v, w in ((low, span.low), (high, span.high)))
    return Range.of(low, high)
