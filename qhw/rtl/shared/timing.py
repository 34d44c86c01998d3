"""In which clock cycle words pass through a component, whatever their numbers are: a few counters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from qhw.formats.modes import IntArray


class Machine(ABC):
    """A component's state between two clock edges.

    Within a cycle ``valid`` is asked first, from the inputs on, then ``ready``, from the outputs back, then
    ``clock``: the edge.
    """

    @abstractmethod
    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        """Which outputs have a word, by which inputs have one."""

    @abstractmethod
    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        """Which inputs are taken, by which inputs have a word and which outputs are taken."""

    @abstractmethod
    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        """The edge: by which inputs had a word, and which outputs were ready."""


class Timing(ABC):
    """When a component takes and gives words.

    ``kind`` and ``numbers`` say it to ``flows/rtl/schedule.cpp``.
    """

    kind: ClassVar[int]

    @property
    def flags(self) -> IntArray:
        """Whether each word of an image belongs to a part of it, where that is asked."""
        return np.zeros(0, dtype=np.bool_)

    @property
    @abstractmethod
    def numbers(self) -> tuple[int, ...]:
        """Its parameters as numbers."""

    @abstractmethod
    def machine(self) -> Machine:
        """Its state after a reset."""
