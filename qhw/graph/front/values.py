"""What a tensor of a file is while it is lowered: a constant, an input, integers, or the middle of a tail."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qhw.formats import TableFormat
from qhw.graph.front.dyadic import Dyadic, power_of_two
from qhw.graph.tails.operations import Step, Value

LARGEST_BITS = 62
"""Bits of a parameter's and of a free constant's integers, which are kept as int64."""


@dataclass(frozen=True)
class Scale:
    """A free factor, float32: one for a tensor, or one per index of ``axis`` (batch axis not counted)."""

    values: tuple[float, ...]
    axis: int | None = None

    @classmethod
    def of(cls, array: NDArray[Any], rank: int) -> Scale | None:
        """A float32 array that broadcasts over a tensor of ``rank`` axes (its batch axis included).

        None where it varies along the batch axis, or along more than one.
        """
        array = np.asarray(array, dtype=np.float32)
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        varying = [i for i, size in enumerate(array.shape) if size > 1]
        if not varying or (array == array.reshape(-1)[0]).all():
            return cls((float(array.reshape(-1)[0]),))
        if len(varying) > 1 or varying[0] == 0 or array.ndim > rank:
            return None
        return cls(tuple(float(v) for v in array.reshape(-1)), varying[0] - 1)

    @property
    def is_uniform(self) -> bool:
        return self.axis is None

    def array(self, rank: int) -> Value:
        """As a float32 array that broadcasts over a tensor of ``rank`` axes, no batch axis."""
        numbers = np.array(self.values, dtype=np.float32)
        if self.axis is None:
            return numbers.reshape(())
        shape = [1] * rank
        shape[self.axis] = numbers.size
        return numbers.reshape(shape)

    @property
    def powers(self) -> tuple[int, ...] | None:
        """Their exponents, where all of them are powers of two."""
        powers = [power_of_two(Fraction(value)) for value in self.values]
        return None if None in powers else tuple(p for p in powers if p is not None)


@dataclass(frozen=True)
class FreeConstant(Dyadic):
    """A constant that was quantised at a scale which is no power of two.

    Its numbers are those of float32's product, exactly; what multiplies it reads ``integers`` instead.

    Args:
        integers: the quantised integers, in the constant's shape.
        scale: float32, broadcasts over it.
        listed: the integers' format, where it is one that lists its codes.
    """

    integers: NDArray[Any] = field(default_factory=lambda: np.zeros(()))
    scale: Value = field(default_factory=lambda: np.ones((), np.float32))
    listed: TableFormat | None = None

    @classmethod
    def quantised(cls, integers: Value, scale: Value, listed: TableFormat | None) -> FreeConstant:
        numbers = Dyadic.of(np.asarray(integers * scale, dtype=np.float32))
        return cls(numbers.mantissa, numbers.exponent, False, None, integers, scale, listed)

    def moved(self, function: Callable[[NDArray[Any]], NDArray[Any]]) -> FreeConstant:
        scale = np.asarray(function(np.broadcast_to(self.scale, self.integers.shape)))
        for axis in range(scale.ndim):
            first = scale.take([0], axis=axis)
            scale = first if (scale == first).all() else scale
        return FreeConstant.quantised(np.asarray(function(self.integers)), scale, self.listed)

    @property
    def is_uniform(self) -> bool:
        return bool(self.scale.size == 1)


@dataclass(frozen=True)
class Activation:
    """A tensor of the exact graph; its values are ``mantissa * 2**exponent``, times a free ``scale``."""

    tensor: str
    scale: Scale | None = None


@dataclass(frozen=True)
class Clamped:
    """A tensor between bounds (a ReLU, a Clip) that a quantizer may still take over; None is no bound.

    At a free ``scale`` the only bound is 0.
    """

    tensor: str
    low: Fraction | None
    high: Fraction | None
    source: str
    scale: Scale | None = None


@dataclass(frozen=True)
class Fill:
    """Numbers that a Pad puts beside a tensor which is not quantised yet.

    Args:
        number: float32, as the file says it.
        at: the tensor of the tail that is padded; the steps behind it act on the number, too.
        tensor: pads integers by the one that the number became.
    """

    number: float
    at: str
    tensor: Callable[[str, str, int], str]


@dataclass(frozen=True)
class Movement:
    """What moves codes about and changes none.

    Args:
        name: the ONNX node's name.
        op: its operator, for messages.
        shape: the result's shape, no batch axis.
        array: the movement of NumPy arrays with a batch axis.
        tensor: appends it to the exact graph; takes the tensor that it moves, and a name.
        axis: the result's axis for an axis of the input, or None where it does not stay one axis.
        is_maximum: the largest of several, which commutes with what only rises.
        fill: what a Pad adds, until the quantizer is known that makes an integer of it.
    """

    name: str
    op: str
    shape: tuple[int, ...]
    array: Callable[[NDArray[Any]], NDArray[Any]] | None
    tensor: Callable[[str, str], str]
    axis: Callable[[int], int | None]
    is_maximum: bool = False
    fill: Fill | None = None

    def __str__(self) -> str:
        return f"{self.op} '{self.name}'"


@dataclass(frozen=True)
class RawInput:
    """A graph input that no quantizer has read yet, times ``2**exponent``, with what moves it about.

    ``integers`` are its bounds where it is annotated as an integer; None is a float input.
    """

    name: str
    shape: tuple[int, ...]
    integers: tuple[int, int] | None
    exponent: int = 0
    moves: tuple[Movement, ...] = ()

    @property
    def moved_shape(self) -> tuple[int, ...]:
        """The shape behind the movements."""
        return self.moves[-1].shape if self.moves else self.shape


@dataclass(frozen=True)
class Floating:
    """A float32 tensor inside a tail: what was done to integers since, in stored order.

    Args:
        roots: tensors of the exact graph, or the one float input of the model that ``raw`` names.
        constants: float32, of the roots' rank with a batch axis; thresholds have one axis more.
        output: the last step's, or the root itself.
        shape: no batch axis; that of the roots, before ``moves``.
        moves: are carried out behind the next quantizer, on its integers: element-wise operations commute
            with them.
    """

    roots: tuple[str, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, Value]
    output: str
    shape: tuple[int, ...]
    moves: tuple[Movement, ...] = ()
    raw: RawInput | None = None

    @property
    def moved_shape(self) -> tuple[int, ...]:
        return self.moves[-1].shape if self.moves else self.shape

    @property
    def spelled(self) -> str:
        """The operations in order, for messages."""
        return " → ".join(step.op for step in self.steps)


Lowered: TypeAlias = Activation | Clamped | RawInput | Floating | Dyadic
"""What the front knows of one tensor."""


def reshaped_axis(before: Sequence[int], after: Sequence[int], axis: int) -> int | None:
    """Where an axis is after a row-major reshape, if its elements still lie along one axis of that length."""
    ahead = int(np.prod(before[:axis], dtype=np.int64))
    count = 1
    for place, size in enumerate(after):
        if count == ahead and size == before[axis] and (size > 1 or place == axis):
            return place
        count *= size
    return None
