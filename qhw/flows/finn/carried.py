"""How a tensor of the exact graph travels in FINN's: channels last, as integers of a map of its mantissas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.graph.infer import Range

Shape = tuple[int, ...]


def channels_last(shape: Shape) -> Shape:
    """The shape of one sample in FINN's graph: (1, H, W, C), or (1, C) of a vector.

    A sequence (C, L) is an image of one row.
    """
    if len(shape) == 3:
        return (1, shape[1], shape[2], shape[0])
    if len(shape) == 2:
        return (1, 1, shape[1], shape[0])
    return (1, *shape)


@dataclass(frozen=True)
class Carried:
    """A graph tensor in FINN's graph: ``mantissa = multiplier * integer + offset``, per channel or tensor.

    Args:
        tensor: its name in the exact graph.
        name: its name in FINN's graph.
        shape: in the exact graph, without a batch axis.
        multiplier: Python integers, never 0; a channel of a falling function is carried with its sign turned.
        offset: Python integers: a bias that the thresholds behind it have taken over.
        order: of a vector, the graph's index of each element that travels; None: as it is.
    """

    tensor: str
    name: str
    shape: Shape
    multiplier: IntArray
    offset: IntArray
    order: IntArray | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the integers are the mantissas themselves."""
        return bool((self.multiplier == 1).all() and (self.offset == 0).all())

    def integers_within(self, span: Range) -> tuple[int, int]:
        """Bounds of the integers, for bounds of the graph's mantissas, per channel or of all."""
        ends = [self._per_channel(bound) for bound in (span.low, span.high)]
        rows = np.broadcast(self.multiplier, self.offset, *ends)
        found = [(bound - shift) // factor for factor, shift, *both in rows for bound in both]
        return min(found), max(found)

    def _per_channel(self, bound: IntArray) -> IntArray:
        """A bound in the order in which channels travel."""
        each = numbers(bound)
        return each if self.order is None or each.size == 1 else each[self.order]

    def integers(self, mantissas: IntArray) -> NDArray[np.float32]:
        """Mantissas (N, *shape) as FINN's graph has them, (N, H, W, C) or (N, C), exact in float32."""
        moved = np.moveaxis(mantissas, 1, -1) if mantissas.ndim > 2 else mantissas
        if self.order is not None:
            moved = moved[:, self.order]
        if not self.is_plain:
            moved = (moved - self.offset.astype(np.int64)) // self.multiplier.astype(np.int64)
        rows = np.ascontiguousarray(moved, dtype=np.float32)
        return rows.reshape(len(moved), *channels_last(self.shape)[1:])

    def mantissas(self, integers: NDArray[Any]) -> IntArray:
        """FINN's integers (N, …) as mantissas (N, *shape)."""
        count = len(integers)
        rows = np.rint(integers).astype(np.int64).reshape(count, -1, self.channels)
        whole = rows * self.multiplier.astype(np.int64) + self.offset.astype(np.int64)
        if self.order is not None:
            back = np.empty_like(whole)
            back[..., self.order] = whole
            whole = back
        found: IntArray = np.moveaxis(whole, -1, 1).reshape(count, *self.shape)
        return found

    @property
    def channels(self) -> int:
        """Elements that travel together at most: axis 0."""
        return self.shape[0] if self.shape else 1


def numbers(values: Any) -> IntArray:
    """A one-dimensional array of Python integers."""
    return np.asarray(values, dtype=object).reshape(-1)
