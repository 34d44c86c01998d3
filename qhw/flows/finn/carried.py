"""How a tensor of the exact graph travels in FINN's: channels last, as integers of a map of its mantissas."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray
from qhw.graph.infer import Range

Shape = tuple[int, ...]
Axes = tuple[int, ...]


def last(rank: int) -> Axes:
    """The axes of a tensor of the graph, its channel behind all others."""
    return (*range(1, rank), 0) if rank else ()


def channels_last(shape: Shape) -> Shape:
    """The shape of one sample in FINN's graph: (1, H, W, C), or (1, C) of a vector.

    A sequence (C, L) is an image of one row.
    """
    return travelling(shape, last(len(shape)))


def travelling(shape: Shape, axes: Axes) -> Shape:
    """The shape in FINN's graph of a sample whose axes travel in that order."""
    moved = tuple(shape[axis] for axis in axes)
    return (1, 1, *moved) if len(shape) == 2 else (1, *moved)


def in_order(shape: Shape, axes: Axes) -> IntArray:
    """The flat index of each element of a shape, in the order in which they travel."""
    return np.arange(math.prod(shape)).reshape(shape).transpose(axes).reshape(-1)


def swap(travel: IntArray, wanted: IntArray) -> tuple[int, int, int] | None:
    """Sizes (outer, rows, columns): to swap the last two brings elements in another order. None: none do.

    Args:
        travel: an index for each element, in the order that there is.
        wanted: the same indices, in the order to be.
    """
    count = len(wanted)
    place = np.empty(count, dtype=np.int64)
    place[travel] = np.arange(count)
    way = place[wanted]
    if count < 2 or way[0] != 0:
        return None
    columns = int(way[1])  # the second element that is wanted is the first one of the next row
    turns = np.flatnonzero(np.diff(way) != columns)
    rows = int(turns[0]) + 1 if len(turns) else count
    if count % (rows * columns):
        return None
    outer = count // (rows * columns)
    found = np.arange(count).reshape(outer, rows, columns).swapaxes(1, 2).reshape(-1)
    return (outer, rows, columns) if np.array_equal(found, way) else None


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
        axes: the graph's axes in the order in which FINN has them; None: the channel last.
    """

    tensor: str
    name: str
    shape: Shape
    multiplier: IntArray
    offset: IntArray
    order: IntArray | None = None
    axes: Axes | None = None

    @property
    def layout(self) -> Axes:
        """The graph's axes in FINN's order."""
        return last(len(self.shape)) if self.axes is None else self.axes

    @property
    def is_plain(self) -> bool:
        """Whether the integers are the mantissas themselves."""
        return bool((self.multiplier == 1).all() and (self.offset == 0).all())

    @property
    def indices(self) -> IntArray:
        """The graph's (flat) index of each element of a sample, in the order in which they travel."""
        return self.order if self.order is not None else in_order(self.shape, self.layout)

    def integers_within(self, span: Range) -> tuple[int, int]:
        """Bounds of the integers, for bounds of the graph's mantissas, per channel or of all."""
        low, high = numbers(span.low), numbers(span.high)
        if self.order is not None:
            low, high = (each if each.size == 1 else each[self.order] for each in (low, high))
        elif self.layout[-1:] != (0,):  # the bounds are those of another axis than the one that travels
            low, high = numbers(low.min()), numbers(high.max())
        rows = np.broadcast(self.multiplier, self.offset, low, high)
        found = [(bound - shift) // factor for factor, shift, *both in rows for bound in both]
        return min(found), max(found)

    def integers(self, mantissas: IntArray) -> NDArray[np.float32]:
        """Mantissas (N, *shape) as FINN's graph has them, (N, H, W, C) or (N, C), exact in float32."""
        moved = mantissas.transpose(0, *(axis + 1 for axis in self.layout))
        if self.order is not None:
            moved = moved[:, self.order]
        if not self.is_plain:
            moved = (moved - self.offset.astype(np.int64)) // self.multiplier.astype(np.int64)
        rows = np.ascontiguousarray(moved, dtype=np.float32)
        return rows.reshape(len(moved), *travelling(self.shape, self.layout)[1:])

    def mantissas(self, integers: NDArray[Any]) -> IntArray:
        """FINN's integers (N, …) as mantissas (N, *shape)."""
        count, layout = len(integers), self.layout
        rows = np.rint(integers).astype(np.int64).reshape(count, *(self.shape[axis] for axis in layout))
        whole = rows * self.multiplier.astype(np.int64) + self.offset.astype(np.int64)
        if self.order is not None:
            back = np.empty_like(whole)
            back[..., self.order] = whole
            whole = back
        found: IntArray = whole.transpose(0, *(int(place) + 1 for place in np.argsort(layout)))
        return found

    @property
    def channels(self) -> int:
        """Elements that travel together at most."""
        return self.shape[self.layout[-1]] if self.shape else 1


def numbers(values: Any) -> IntArray:
    """A one-dimensional array of Python integers."""
    return np.asarray(values, dtype=object).reshape(-1)
