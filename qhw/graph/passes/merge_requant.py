"""Drop a Requant that changes no number, and one that only widens for another one behind it."""

from __future__ import annotations

import numpy as np

from qhw.formats.modes import IntArray, shift_left
from qhw.formats.table import TableFormat
from qhw.graph.infer import Range, requant_bounds
from qhw.graph.ir import ExactGraph, Requant, TensorType
from qhw.graph.passes.rewriting import Rewriting, only_readers

MOST_TRIED = 1 << 16
"""Integers that are tried at most, whether a format that lists its codes holds them."""


def apply(graph: ExactGraph) -> tuple[ExactGraph, bool]:
    """Remove every Requant that is not needed."""
    changes, readers = Rewriting(graph), only_readers(graph)
    for node in graph.nodes:
        if not isinstance(node, Requant):
            continue
        (x,) = node.inputs
        if not keeps_numbers(node, graph.tensors[x], changes.ranges[x], graph.tensors[node.output]):
            continue
        reader = readers.get(node.output)
        joins_ends = x in graph.inputs and node.output in graph.outputs
        same = graph.tensors[x] == graph.tensors[node.output] and not joins_ends
        if same or (isinstance(reader, Requant) and not changes.touches(reader)):
            changes.remove(node, x)
    return changes.apply()


def keeps_numbers(node: Requant, before: TensorType, span: Range, after: TensorType) -> bool:
    """Whether the node keeps every number that reaches it, at the same exponent or a finer one.

    Args:
        before, after: the types of its operand and its result.
        span: the range of the operand.
    """
    rank = len(before.shape)
    shift = before.exponent.broadcast(rank) - after.exponent.broadcast(rank)
    if (shift < 0).any():
        return False
    low, high = span.bounds
    most = int(shift.max())
    least_bound, most_bound = requant_bounds(node, after)
    if not (least_bound <= min(low << most, low) and max(high << most, high) <= most_bound):
        return False
    return not isinstance(after.format, TableFormat) or _is_held(before, (low, high), shift, after.format)


def _is_held(before: TensorType, bounds: tuple[int, int], shift: IntArray, format: TableFormat) -> bool:
    """Whether every mantissa that may arrive, shifted, is a number of the format."""
    low, high = bounds
    if isinstance(before.format, TableFormat):
        numbers = before.format.numbers
        numbers = numbers[(numbers >= low) & (numbers <= high)]
    elif high - low < MOST_TRIED:
        numbers = np.arange(low, high + 1)
    else:
        return False
    return all(format.holds(shift_left(numbers, int(bits))) for bits in np.unique(shift))
