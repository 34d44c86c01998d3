"""Differentiable quantisation with a trainable binary point or scale (QFX, arXiv 2401.17544).

With ``s = 2^-f`` and ``f = round(theta)``, rounding and the choice of ``f`` passed straight through:

- inside the range ``dy/dx = 1`` and ``dy/ds = round(x/s) - x/s``;
- beyond it ``dy/ds`` is the bound on that side, and ``dy/dx`` is 0;
- ``dy/dtheta = -ln 2 * s * dy/ds``.

Under WRAP and WRAP_SM, ``dy/dx`` stays 1 beyond the range, since a wrapped value still moves with ``x``, and
``dy/ds`` is the bound there too: the exact slope would lower ``s`` to shrink the jump and thereby make more
values wrap, while the bound's widens the range until nothing wraps. SAT_ZERO takes the bound for the same
reason.

A free scale is ``s = 2^-theta``, not rounded to a power of two, with the same gradients.

``x/s`` is computed in the type of ``x``: exact for a power of two, unless it underflows (below 2^-126 in
float32).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qhw.errors import UnsupportedError
from qhw.quantizers.kernels import backend, unit_of
from qhw.quantizers.kernels.problem import Operands, Rule, Unit, dense, same_order

_Function = TypeVar("_Function", bound=Callable[..., Any])


def not_compiled(function: _Function) -> _Function:
    """A function that ``torch.compile`` leaves as it is, its graph broken there."""
    left: _Function = torch.compiler.disable(function)  # type: ignore[no-untyped-call]
    return left


def quantize(x: Tensor, theta: Tensor, rule: Rule, axis: int | None = None) -> Tensor:
    """``x`` on the fixed-point grid, differentiable in ``x`` and ``theta``.

    Args:
        x: float32 or float64, any shape.
        theta: fraction bits before rounding, ``()`` or ``(channels,)``.
        rule: width, modes and activation.
        axis: the channel axis of ``x`` that a per-channel ``theta`` belongs to.
    """
    _check(x)
    return _quantize_op(x, theta, rule, axis)


def add_quantize(a: Tensor, b: Tensor, theta: Tensor, rule: Rule, axis: int | None = None) -> Tensor:
    """``a + b`` (one shape) on the fixed-point grid, in one pass; otherwise as ``quantize``."""
    _check(a)
    return _add_op(a, b, theta, rule, axis)


def affine_quantize(x: Tensor, gain: Tensor, offset: Tensor, theta: Tensor, rule: Rule) -> Tensor:
    """``x * gain + offset`` per channel (axis 1) on the fixed-point grid, in one pass.

    Args:
        gain, offset: ``(channels,)``; exact in the type of ``x`` (they are fixed-point numbers themselves).
        theta: ``()`` or ``(channels,)``.
    """
    _check(x)
    return _affine_op(x, gain, offset, theta, rule)


def _check(x: Tensor) -> None:
    if x.dtype not in (torch.float32, torch.float64) or x.device.type not in ("cpu", "cuda"):
        raise UnsupportedError(
            f"A quantizer was given a tensor of {x.dtype} on {x.device}",
            allowed="float32 and float64 on the CPU or a CUDA device",
        )


class _Quantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, theta: Tensor, rule: Rule, axis: int | None) -> Tensor:
        ctx.rule, ctx.axis = rule, axis if theta.dim() else None
        x = dense(x.detach(), ctx.axis)
        ctx.save_for_backward(x, theta)
        ctx.unit = unit_of(theta, rule)
        return backend(x.device).forward(Operands(x, axis=ctx.axis), ctx.unit, rule)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        x, theta = ctx.saved_tensors
        operands = Operands(x, axis=ctx.axis)
        passed, sums = backend(x.device).backward(operands, same_order(grad, x), ctx.unit, ctx.rule)
        return passed, theta_gradient(sums, ctx.unit, theta), None, None


class _AddQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, theta: Tensor, rule: Rule, axis: int | None) -> Tensor:
        ctx.rule, ctx.axis = rule, axis if theta.dim() else None
        a = dense(a.detach(), ctx.axis)
        b = same_order(b.detach(), a)
        ctx.save_for_backward(a, b, theta)
        ctx.unit = unit_of(theta, rule)
        return backend(a.device).forward(Operands(a, b, axis=ctx.axis), ctx.unit, rule)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        a, b, theta = ctx.saved_tensors
        operands = Operands(a, b, axis=ctx.axis)
        passed, sums = backend(a.device).backward(operands, same_order(grad, a), ctx.unit, ctx.rule)
        return passed, passed, theta_gradient(sums, ctx.unit, theta), None, None


class _AffineQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: Tensor, offset: Tensor, theta: Tensor, rule: Rule) -> Tensor:
        x = dense(x.detach(), 1)
        ctx.rule = rule
        ctx.save_for_backward(x, gain, offset, theta)
        ctx.unit = unit_of(theta, rule)
        return backend(x.device).forward(affine_operands(x, gain, offset), ctx.unit, rule)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        x, gain, offset, theta = ctx.saved_tensors
        operands, grad = affine_operands(x, gain, offset), same_order(grad, x)
        offset_sum, gain_sum, scale_sum = backend(x.device).affine_sums(operands, grad, ctx.unit, ctx.rule)
        zero = torch.zeros_like(offset_sum)
        dx = backend(x.device).affine_backward(operands, grad, ctx.unit, ctx.rule, zero, zero)
        dtheta = theta_gradient(scale_sum, ctx.unit, theta)
        return dx, gain_sum.to(gain.dtype), offset_sum.to(offset.dtype), dtheta, None


_quantize_op: Callable[..., Tensor] = _Quantize.apply
_add_op: Callable[..., Tensor] = _AddQuantize.apply
_affine_op: Callable[..., Tensor] = _AffineQuantize.apply


def affine_operands(x: Tensor, gain: Tensor, offset: Tensor) -> Operands:
    """The operands of ``x * gain + offset`` along axis 1."""
    return Operands(x, gain=gain.detach().double(), offset=offset.detach().double(), axis=1)


def theta_gradient(sums: Tensor, unit: Unit, theta: Tensor) -> Tensor:
    """``-ln 2 * s * sum(grad * dy/ds)`` in the shape and type of ``theta``; ``sums`` per channel."""
    if theta.numel() == 1:
        sums = sums.sum(dim=0, keepdim=True)
    return (-math.log(2.0) * torch.as_tensor(unit) * sums).reshape(theta.shape).to(theta)
