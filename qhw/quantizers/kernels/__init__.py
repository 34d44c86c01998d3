"""The quantizers' inner loops: eager (the definition) and compiled, with equal bits."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from qhw.errors import ToolMissingError
from qhw.quantizers.kernels import eager
from qhw.quantizers.kernels.build import library
from qhw.quantizers.kernels.compiled import Compiled
from qhw.quantizers.kernels.problem import Operands, Rule

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """The functions that compute quantizers; ``eager`` documents each one."""

    def forward(self, operands: Operands, unit: NDArray[np.float64], rule: Rule) -> Tensor: ...

    def backward(
        self, operands: Operands, grad: Tensor, unit: NDArray[np.float64], rule: Rule
    ) -> tuple[Tensor, Tensor]: ...

    def affine_sums(
        self, operands: Operands, grad: Tensor, unit: NDArray[np.float64], rule: Rule
    ) -> Tensor: ...

    def affine_backward(
        self,
        operands: Operands,
        grad: Tensor,
        unit: NDArray[np.float64],
        rule: Rule,
        constant: Tensor,
        slope: Tensor,
    ) -> Tensor: ...

    def moments(self, x: Tensor, axis: int) -> Tensor: ...


@dataclass(frozen=True)
class Status:
    """Which kernels are in use.

    Args:
        name: ``compiled`` or ``eager``.
        compile_seconds: compilation time of the compiled kernels (None: eager).
        reason: why they are not the compiled ones.
    """

    name: str
    compile_seconds: float | None = None
    reason: str = ""


_chosen: list[Backend] = []


def backend() -> Backend:
    """The backend in use: compiled where g++ is installed (a few seconds, once per machine), else eager."""
    return _chosen[-1] if _chosen else _default()


def status() -> Status:
    """Which kernels are in use, and how long their compilation took."""
    current = backend()
    if isinstance(current, Compiled):
        return Status("compiled", current.library.compile_seconds)
    return Status("eager", reason="asked for" if _chosen else _failure())


@contextlib.contextmanager
def use_eager() -> Iterator[None]:
    """Inside this context the eager kernels run."""
    _chosen.append(eager)
    try:
        yield
    finally:
        _chosen.pop()


@cache
def _default() -> Backend:
    try:
        return Compiled(library())
    except ToolMissingError as error:
        logger.warning("quantizers run several times slower than compiled: %s", error)
        return eager


def _failure() -> str:
    try:
        library()
    except ToolMissingError as error:
        return error.message
    return ""
