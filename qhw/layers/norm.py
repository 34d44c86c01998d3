"""Batch norm in fixed point: ``x * scale + bias`` with quantised constants, and the result's format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from qhw.errors import InputError, UnsupportedError
from qhw.formats import Format
from qhw.layers.elementwise import result_quantizer
from qhw.quantizers.activation import IDENTITY, Activation
from qhw.quantizers.base import Quantizer, widened
from qhw.quantizers.functional import affine_operands, not_compiled, theta_gradient
from qhw.quantizers.kernels import backend, unit_of
from qhw.quantizers.kernels.problem import dense, same_order
from qhw.quantizers.table import make_quantizer


class QuantBatchNorm(nn.Module):
    """Batch norm whose scale ``gamma / sqrt(var + eps)`` and bias ``beta - mean * scale`` are fixed point.

    Training uses the batch's statistics, as torch does, and the gradient goes through them; evaluation uses
    the running ones. The constants are computed in float64 from the parameters, so a model and its
    ``.double()`` have the same. An activation and the result's quantizer are part of the same pass.

    Args:
        num_features: channels (axis 1).
        scale, bias: formats of the two constants.
        result: the result's format, or a shared quantizer.
        activation: applied before the result is rounded.
        per_channel: one binary point per channel for scale and bias.
        eps, momentum: as in :class:`torch.nn.BatchNorm2d`.

    Attributes:
        scale_quantizer, bias_quantizer, result: the three quantizers.
        frozen: use the running statistics in training too, and leave them as they are.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        num_features: int,
        *,
        scale: Format,
        bias: Format,
        result: Format | Quantizer,
        activation: Activation = IDENTITY,
        per_channel: bool = False,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
    ) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.frozen = False
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))
        channels = num_features if per_channel else None
        self.scale_quantizer = make_quantizer(scale, channels=channels, passes_outside=True)
        self.bias_quantizer = make_quantizer(bias, channels=channels, passes_outside=True)
        self.result = result_quantizer(result, activation)

    @classmethod
    def from_float(cls, norm: nn.BatchNorm1d | nn.BatchNorm2d, **settings: Any) -> QuantBatchNorm:
        """The quantised form of a torch batch norm, parameters and running statistics included.

        Raises:
            UnsupportedError: the layer keeps no running statistics.
        """
        if norm.running_mean is None or norm.running_var is None:
            raise UnsupportedError(
                f"{norm} keeps no running statistics, so its constants are not known after training",
                hint="use track_running_stats=True",
            )
        quantised = cls(norm.num_features, eps=norm.eps, momentum=norm.momentum, **settings)
        quantised.load_state_dict(norm.state_dict(), strict=False)
        for name, parameter in quantised.named_parameters(recurse=False):
            given = getattr(norm, name)
            parameter.requires_grad_(given is not None and given.requires_grad)
        return quantised.train(norm.training)

    @property
    def activation(self) -> Activation:
        """The activation that is applied before the result is rounded."""
        return self.result.activation

    def constants(self) -> tuple[Tensor, Tensor]:
        """The quantised scale and bias of evaluation, float64 ``(channels,)``."""
        return self.constants_from(self.running_mean.double(), self.running_var.double())

    def constants_from(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """The quantised constants for given float64 statistics; the bias makes up for a rounded scale."""
        exact = self.weight.double() / torch.sqrt(var + self.eps)
        scale = self.scale_quantizer.quantize(exact)
        return scale, self.bias_quantizer.quantize(self.bias.double() - mean * scale)

    @not_compiled
    def forward(self, x: Tensor) -> Tensor:
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise InputError(f"Batch norm of {self.num_features} channels was given {tuple(x.shape)}")
        x = widened(x)
        if not self.training or self.frozen:
            return self.result.quantize_affine(x, *self.constants())
        return self._train(x)

    def _train(self, x: Tensor) -> Tensor:
        x = dense(x, 1)
        mean, var, count = self._statistics(x.detach())
        if not self.result.has_started:
            self.result.start(_normalised(x.detach(), *self.constants_from(mean, var)))
        trained = (self.weight, self.bias, self.scale_quantizer.theta, self.bias_quantizer.theta)
        return _apply_norm(x, mean, var, count, self, self.result.theta, *trained)

    @torch.no_grad()
    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor, int]:
        """Float64 mean and (biased) variance of the batch per channel; updates the running ones."""
        count = x.numel() // self.num_features
        if count < 2:
            raise InputError(
                f"Training batch norm needs more than one value per channel, not {tuple(x.shape)}"
            )
        total, squares = backend(x.device).moments(x, 1)
        mean = total / count
        var = (squares / count - mean * mean).clamp_min(0.0)
        self.num_batches_tracked += 1
        factor = 1.0 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), factor)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var), factor)
        return mean, var, count

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}"


class QuantBatchNorm1d(QuantBatchNorm):
    """``QuantBatchNorm`` of ``(N, C)`` or ``(N, C, L)``."""


class QuantBatchNorm2d(QuantBatchNorm):
    """``QuantBatchNorm`` of ``(N, C, H, W)``."""


def _normalised(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    shape = [1, -1, *[1] * (x.dim() - 2)]
    return x * scale.detach().to(x).reshape(shape) + bias.detach().to(x).reshape(shape)


class _TrainedNorm(torch.autograd.Function):
    """Batch norm over the batch's own statistics, its activation and its result's quantizer.

    Two passes forward (sums, result) and two backward (sums, input gradient); everything between them
    happens on tensors of one number per channel, whose graph torch keeps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        mean: Tensor,
        var: Tensor,
        count: int,
        norm: QuantBatchNorm,
        theta: Tensor,
        *trained: Tensor,
    ) -> Tensor:
        with torch.enable_grad():
            leaves = [mean.requires_grad_(), var.requires_grad_()]
            constants = norm.constants_from(*leaves)
        x = x.detach()
        ctx.rule, ctx.count, ctx.mean = norm.result.rule, count, mean.detach()
        ctx.leaves, ctx.constants = [*leaves, *trained], constants
        ctx.unit = unit_of(theta, ctx.rule)
        ctx.save_for_backward(x, theta)
        return backend(x.device).forward(affine_operands(x, *constants), ctx.unit, ctx.rule)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, theta = ctx.saved_tensors
        operands, grad = affine_operands(x, *ctx.constants), same_order(grad, x)
        offset_sum, gain_sum, scale_sum = backend(x.device).affine_sums(operands, grad, ctx.unit, ctx.rule)
        wanted = [leaf for leaf in ctx.leaves if leaf.requires_grad]
        found = torch.autograd.grad(ctx.constants, wanted, (gain_sum, offset_sum))
        by_leaf = dict(zip(map(id, wanted), found, strict=True))
        dmean, dvar, *trained = (by_leaf.get(id(leaf)) for leaf in ctx.leaves)
        assert dmean is not None
        assert dvar is not None
        slope = 2.0 * dvar / ctx.count
        constant = dmean / ctx.count - slope * ctx.mean
        dx = backend(x.device).affine_backward(operands, grad, ctx.unit, ctx.rule, constant, slope)
        dtheta = theta_gradient(scale_sum, ctx.unit, theta)
        return dx, None, None, None, None, dtheta, *trained


_apply_norm: Callable[..., Tensor] = _TrainedNorm.apply
