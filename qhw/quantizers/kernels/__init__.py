"""The quantizers' inner loops: eager (the definition), compiled and, for CUDA tensors, Triton: equal bits."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Protocol

import torch
from torch import Tensor

from qhw.errors import ToolMissingError
from qhw.quantizers.kernels import eager
from qhw.quantizers.kernels.build import library
from qhw.quantizers.kernels.compiled import Compiled
from qhw.quantizers.kernels.problem import Operands, Rule, Unit, units_of, units_on

logger = logging.getLogger(__name__)


class Backend(Protocol):
    """The functions that compute quantizers; ``eager`` documents each one."""

    def forward(self, operands: Operands, unit: Unit, rule: Rule) -> Tensor: ...

    def backward(self, operands: Operands, grad: Tensor, unit: Unit, rule: Rule) -> tuple[Tensor, Tensor]: ...

    def affine_sums(self, operands: Operands, grad: Tensor, unit: Unit, rule: Rule) -> Tensor: ...

    def affine_backward(
        self,
        operands: Operands,
        grad: Tensor,
        unit: Unit,
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


def backend(device: torch.device | None = None) -> Backend:
    """The backend in use for tensors of a device (the CPU's by default).

    On the CPU compiled where g++ is installed (a few seconds, once per machine), on a GPU Triton where it
    imports, else eager.
    """
    if _chosen:
        return _chosen[-1]
    return _on_gpu() if device is not None and device.type == "cuda" else _default()


def unit_of(theta: Tensor, rule: Rule) -> Unit:
    """The value of a mantissa of 1, where ``theta`` lies: a GPU is not waited for."""
    if theta.device.type == "cpu":
        return units_of(theta, rule)
    from_kernel: Callable[[Tensor, Rule], Tensor] = getattr(backend(theta.device), "units", units_on)
    return from_kernel(theta, rule)


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


@cache
def _on_gpu() -> Backend:
    try:
        from qhw.quantizers.kernels.triton_backend import Triton
    except ImportError as error:
        logger.warning("quantizers run several times slower on the GPU than with Triton: %s", error)
        return eager
    return Triton()


def _failure() -> str:
    try:
        library()
    except ToolMissingError as error:
        return error.message
    return ""
