"""The base of the exact graph's operations, and the operands and results of their rules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray
from qhw.graph.tensors import Exponent, TensorType


@dataclass(frozen=True)
class Range:
    """Lowest and highest mantissa, per tensor (shape ``()``) or per index of axis 0 (shape ``(C,)``).

    Bounds are Python integers, so nothing can overflow while overflow is being ruled out.
    """

    low: IntArray
    high: IntArray

    @classmethod
    def of(cls, low: Any, high: Any) -> Range:
        return cls(np.asarray(low, dtype=object), np.asarray(high, dtype=object))

    @property
    def bounds(self) -> tuple[int, int]:
        """Lowest and highest mantissa over all channels."""
        return int(np.min(self.low)), int(np.max(self.high))

    def whole(self) -> Range:
        """The same range for the whole tensor."""
        return Range.of(*self.bounds)

    def including(self, value: int) -> Range:
        return Range.of(np.minimum(self.low, value), np.maximum(self.high, value))


@dataclass(frozen=True)
class Operand:
    """An input of a node: its type, its range, and its value if it is a constant."""

    type: TensorType
    range: Range
    value: IntArray | None = None

    @property
    def channels(self) -> int:
        """The length of axis 0; 1 without axes."""
        return self.type.shape[0] if self.type.shape else 1

    def constant(self, what: str) -> IntArray:
        """The value as Python integers; ``what`` names the operand in the error where it is computed."""
        if self.value is None:
            raise ValueError(f"{what} must be a constant")
        return self.value.astype(object)

    def scalar_exponent(self, what: str) -> int:
        """The one exponent; ``what`` names the operand in the error where it has several."""
        if not self.type.exponent.is_scalar:
            raise ValueError(f"{what} must have one exponent for the whole tensor")
        return self.type.exponent.values[0]


@dataclass(frozen=True)
class Result:
    """A node's result: shape, exponent, range, and the bounds of every partial sum on the way."""

    shape: tuple[int, ...]
    exponent: Exponent
    range: Range
    partial: tuple[int, int]

    @classmethod
    def unsummed(cls, shape: tuple[int, ...], exponent: Exponent, range: Range) -> Result:
        """The result of an operation that adds nothing up: its range bounds every partial sum."""
        return cls(shape, exponent, range, range.bounds)

    def type(self) -> TensorType:
        """The type with the narrowest integer that holds every partial sum."""
        return TensorType(self.shape, Integer.holding(*self.partial), self.exponent)


OPERATIONS: dict[str, type[Node]] = {}
"""Every operation of the exact graph, by name."""


@dataclass(frozen=True)
class Node(ABC):
    """One operation: ``output = op(inputs)``; ``name`` is unique in its graph.

    ``source`` names the node or layer of the QONNX file that it came from, for messages.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    source: str = field(default="", kw_only=True)

    op: ClassVar[str] = ""
    moves_codes: ClassVar[bool] = False
    """Whether it moves or compares codes and changes none: its output keeps its inputs' format."""

    def __init_subclass__(cls) -> None:
        cls.op = cls.__name__
        OPERATIONS[cls.op] = cls

    @property
    def inserted(self) -> tuple[int, ...]:
        """Mantissas that the operation puts beside those of its inputs."""
        return ()

    @abstractmethod
    def infer(self, operands: Sequence[Operand], declared: TensorType) -> Result:
        """Shape, exponent and range of the output, by interval arithmetic on the real constants.

        ``declared`` gives what the operation leaves open (the format of a Requant, the shape of a Reshape).
        Raises ValueError where the operands do not fit.
        """

    @abstractmethod
    def run(self, operands: Sequence[IntArray], types: Sequence[TensorType], out: TensorType) -> IntArray:
        """The meaning of the operation, on a batch of mantissas.

        Written to be read, not to be fast.

        Args:
            operands: (N, *shape), constants (1, *shape); int64 where 63 bits hold every partial sum, Python
                integers where they do not. An operation that moves codes takes any integer or float type.
            types: the operands' types; ``out`` is the result's.
        """


def constant_range(value: IntArray) -> Range:
    """The range of a constant, over the whole tensor."""
    if value.size == 0:
        return Range.of(0, 0)
    return Range.of(int(value.min()), int(value.max()))
