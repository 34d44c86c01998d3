"""Arithmetic between tensors and with constants: plain layers as a model has them, and quantised ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from qhw.errors import UnsupportedError
from qhw.formats import Format
from qhw.layers.elementwise import QuantAdd, result_quantizer
from qhw.layers.moves import Pad
from qhw.layers.pool import Reciprocal, reciprocal
from qhw.quantizers.base import Quantizer
from qhw.quantizers.table import make_quantizer

# --- two tensors


class Add(nn.Module):
    """The sum of two tensors; an axis of length 1 is broadcast."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Subtract(nn.Module):
    """The difference of two tensors; an axis of length 1 is broadcast."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a - b


class Multiply(nn.Module):
    """The product of two tensors, number by number; an axis of length 1 is broadcast."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class MatMul(nn.Module):
    """The matrix product of two tensors with a batch axis each; its sums are exact."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return torch.matmul(a, b)


class QuantSubtract(QuantAdd):
    """``QuantAdd`` of the first tensor and the negative of the second."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return super().forward(a, -b)


class QuantMultiply(nn.Module):
    """The product of two quantised tensors, in the result's format; an axis of length 1 is broadcast.

    Args:
        result: the result's format, or a shared quantizer.
    """

    def __init__(self, result: Format | Quantizer) -> None:
        super().__init__()
        self.result = result_quantizer(result)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.result.quantize(a * b)


# --- a tensor and constants


class Affine(nn.Module):
    """``x * gain + offset``; both broadcast over a batch, and either may be missing.

    Args:
        gain, offset: what is multiplied by, and what is added: parameters stay trainable.
    """

    gain: Tensor | None
    offset: Tensor | None

    def __init__(self, gain: Tensor | None = None, offset: Tensor | None = None) -> None:
        super().__init__()
        _store(self, "gain", gain)
        _store(self, "offset", offset)

    @property
    def is_fixed(self) -> bool:
        """Whether neither constant is trained."""
        return not any(parameter.requires_grad for parameter in self.parameters())

    @property
    def keeps_sign(self) -> bool:
        """Whether numbers that are not negative stay so, whatever is trained."""
        constants = [constant for constant in (self.gain, self.offset) if constant is not None]
        return self.is_fixed and all(bool((constant >= 0).all()) for constant in constants)

    def then(self, other: Affine) -> Affine:
        """Both as one."""
        one = torch.ones((), dtype=torch.float64)
        gain, later = (one if part.gain is None else part.gain.double() for part in (self, other))
        offsets = [None if part.offset is None else part.offset.double() for part in (self, other)]
        offset = offsets[1]
        if offsets[0] is not None:
            offset = offsets[0] * later + (0.0 if offset is None else offset)
        gain = (gain * later).float()
        return Affine(None if bool((gain == 1).all()) else gain, None if offset is None else offset.float())

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.gain is None else x * self.gain.to(x.dtype)
        return x if self.offset is None else x + self.offset.to(x.dtype)


class QuantAffine(nn.Module):
    """``x * gain + offset`` with quantised constants, in the result's format.

    Args:
        plain: the constants.
        scale, bias: their formats.
        result: the result's format, or a shared quantizer.
    """

    gain: Tensor | None
    offset: Tensor | None

    def __init__(self, plain: Affine, *, scale: Format, bias: Format, result: Format | Quantizer) -> None:
        super().__init__()
        _store(self, "gain", plain.gain)
        _store(self, "offset", plain.offset)
        self.gain_quantizer = _started(scale, self.gain)
        self.offset_quantizer = _started(bias, self.offset)
        self.result = result_quantizer(result)

    def forward(self, x: Tensor) -> Tensor:
        if self.gain_quantizer is not None and self.gain is not None:
            x = x * self.gain_quantizer.quantize(self.gain).to(x.dtype)
        if self.offset_quantizer is not None and self.offset is not None:
            x = x + self.offset_quantizer.quantize(self.offset).to(x.dtype)
        return self.result.quantize(x)


class QuantPReLU(nn.Module):
    """``x``, or ``x * slope`` below zero, with trained slopes: one, or one per channel (axis 1).

    Args:
        slope: ``(1,)`` or ``(channels,)``.
        scale: the slopes' format.
        result: the result's format, or a shared quantizer.
    """

    weight: Tensor

    def __init__(self, slope: nn.Parameter, *, scale: Format, result: Format | Quantizer) -> None:
        super().__init__()
        _store(self, "weight", slope)
        self.scale_quantizer = make_quantizer(scale, passes_outside=True)
        self.scale_quantizer.start(slope)
        self.result = result_quantizer(result)

    def slopes(self, rank: int) -> Tensor:
        """The quantised slopes, broadcasting over tensors of that rank."""
        slopes = self.scale_quantizer.quantize(self.weight)
        return slopes.reshape(1, -1, *[1] * (rank - 2)) if slopes.numel() > 1 else slopes.reshape(())

    def forward(self, x: Tensor) -> Tensor:
        return self.result.quantize(torch.where(x > 0, x, x * self.slopes(x.dim()).to(x.dtype)))


class QuantPad(Pad):
    """A number around quantised samples: both are brought into the result's format before they meet.

    Args:
        before, behind, value: as of ``Pad``.
        result: the result's format, or a shared quantizer.
    """

    def __init__(
        self, before: Sequence[int], behind: Sequence[int], value: float, *, result: Format | Quantizer
    ) -> None:
        super().__init__(before, behind, value)
        self.result = result_quantizer(result)

    @property
    def quantised_value(self) -> float:
        """The number that is padded with."""
        value = torch.tensor([self.value], dtype=torch.float64, device=self.result.theta.device)
        return float(self.result.quantize(value).detach())

    def forward(self, x: Tensor) -> Tensor:
        if not self.result.has_started:
            self.result.start(super().forward(x))
        return self.padded(self.result.quantize(x), self.quantised_value)


# --- sums over axes, and means of neighbours


class Total(nn.Module):
    """The sum over axes (the batch is axis 0), which stay with length 1; or their mean."""

    def __init__(self, axes: Sequence[int], *, mean: bool = False) -> None:
        super().__init__()
        self.axes, self.mean = tuple(axes), mean

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(self.axes, keepdim=True) if self.mean else x.sum(self.axes, keepdim=True)

    def extra_repr(self) -> str:
        return f"axes={self.axes}, mean={self.mean}"


class QuantTotal(Total):
    """The sum over axes, times ``1 / count`` in fixed point if it is a mean, in the result's format.

    Args:
        axes, mean: as of ``Total``.
        multiplier: format of the constant ``1 / count``, at the scale with the least error.
        result: the result's format, or a shared quantizer.
    """

    def __init__(
        self, axes: Sequence[int], *, mean: bool, multiplier: Format, result: Format | Quantizer
    ) -> None:
        super().__init__(axes, mean=mean)
        self.multiplier = multiplier
        self.result = result_quantizer(result)

    def reciprocal(self, shape: Sequence[int]) -> Reciprocal:
        """The constant for an input of that shape."""
        return reciprocal(self.multiplier, math.prod(shape[axis] for axis in self.axes))

    def forward(self, x: Tensor) -> Tensor:
        total = x.sum(self.axes, keepdim=True)
        return self.result.quantize(total * self.reciprocal(x.shape).value if self.mean else total)


class Interpolate(nn.Module):
    """Linear upsampling (bilinear in two dimensions) by powers of two, pixels being areas.

    Its weights are odd numbers over twice the factor, so that every sum is exact.
    """

    def __init__(self, factors: Sequence[int]) -> None:
        super().__init__()
        self.factors = tuple(factors)
        if any(factor & (factor - 1) for factor in self.factors):
            raise UnsupportedError(
                f"linear upsampling by {self.factors}", allowed="factors that are powers of two"
            )

    def interpolated(self, x: Tensor) -> Tensor:
        """``x`` with every spatial axis as many times as long."""
        mode = "linear" if len(self.factors) == 1 else "bilinear"
        factors = [float(factor) for factor in self.factors]
        return functional.interpolate(x, scale_factor=factors, mode=mode, align_corners=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.interpolated(x)

    def extra_repr(self) -> str:
        return str(self.factors)


class QuantInterpolate(Interpolate):
    """``Interpolate``, in the result's format.

    Args:
        factors: per spatial axis.
        result: the result's format, or a shared quantizer.
    """

    def __init__(self, factors: Sequence[int], *, result: Format | Quantizer) -> None:
        super().__init__(factors)
        self.result = result_quantizer(result)

    def forward(self, x: Tensor) -> Tensor:
        return self.result.quantize(self.interpolated(x))


def _store(module: nn.Module, name: str, value: Tensor | None) -> None:
    """A parameter stays one; any other constant becomes a buffer."""
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, nn.Parameter(value.detach().clone(), value.requires_grad))
    else:
        module.register_buffer(name, None if value is None else value.detach().clone())


def _started(spec: Format, value: Tensor | None, **settings: Any) -> Quantizer | None:
    """A quantizer of a constant, which it has seen; None where there is no constant."""
    if value is None:
        return None
    quantizer = make_quantizer(spec, passes_outside=True, **settings)
    quantizer.start(value)
    return quantizer
