"""Quantised element-wise layers: activation, residual add, concatenation, input normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from qhw.errors import InputError, UnsupportedError
from qhw.formats import Format
from qhw.quantizers.activation import IDENTITY, Activation
from qhw.quantizers.base import Quantizer
from qhw.quantizers.table import make_quantizer


def result_quantizer(
    result: Format | Quantizer, activation: Activation = IDENTITY, channels: int | None = None
) -> Quantizer:
    """The quantizer of a layer's result: a new one, or one that is shared with other layers.

    Raises:
        InputError: a shared quantizer applies another activation.
    """
    if isinstance(result, Format):
        return make_quantizer(result, channels=channels, axis=1, activation=activation)
    if result.activation != activation:
        raise InputError(
            f"A shared quantizer applies {result.activation}, but this layer needs {activation}",
            hint="share quantizers between layers of the same activation",
        )
    return result


class QuantActivation(nn.Module):
    """ReLU, ReLU6, leaky ReLU, or none, and its result's format, in one pass.

    Args:
        result: the result's format (its binary point is learned where it is open), or a shared quantizer.
        activation: ``IDENTITY``, ``RELU``, ``RELU6`` or ``leaky_relu(slope)``.
        channels: one binary point per channel (axis 1).
    """

    def __init__(
        self,
        result: Format | Quantizer,
        activation: Activation = IDENTITY,
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.result = result_quantizer(result, activation, channels)

    @property
    def activation(self) -> Activation:
        """The activation that is applied before rounding."""
        return self.result.activation

    def forward(self, x: Tensor) -> Tensor:
        return self.result.quantize(x)


class QuantAdd(nn.Module):
    """Residual add: the sum of two quantised tensors, an activation, and the result's format.

    An axis of length 1 is broadcast.

    Args:
        result: the result's format, or a shared quantizer.
        activation: applied to the sum, in the same pass.
    """

    def __init__(self, result: Format | Quantizer, activation: Activation = IDENTITY) -> None:
        super().__init__()
        self.result = result_quantizer(result, activation)

    @property
    def activation(self) -> Activation:
        """The activation that is applied to the sum before rounding."""
        return self.result.activation

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        if a.shape != b.shape:
            a, b = _broadcast(a, b)
        return self.result.quantize_sum(a, b)


def _broadcast(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    pairs = list(zip(a.shape, b.shape, strict=False))
    if a.dim() != b.dim() or any(m != n and 1 not in (m, n) for m, n in pairs):
        raise InputError(
            f"An addition needs two tensors of one shape, or axes of 1, not {a.shape} and {b.shape}"
        )
    shape = [max(pair) for pair in pairs]
    return a.expand(shape), b.expand(shape)


class QuantConcat(nn.Module):
    """Concatenation: one shared quantizer brings every branch into one format.

    Args:
        result: the common format, or a shared quantizer.
        axis: the axis to join along, batch axis counted.
    """

    def __init__(self, result: Format | Quantizer, axis: int = 1) -> None:
        super().__init__()
        self.result = result_quantizer(result)
        self.axis = axis

    def forward(self, *branches: Tensor) -> Tensor:
        return self.result.quantize(torch.cat(branches, dim=self.axis))


class Normalize(nn.Module):
    """Raw inputs times a power of two: ``x * 2**exponent`` (-8 for pixels of 0..255, -4 for 0..16).

    Integer tensors become the floating-point type of the module (float64 after ``.double()``).
    """

    factor: Tensor

    def __init__(self, *, exponent: int) -> None:
        super().__init__()
        self.exponent = exponent
        self.register_buffer("factor", torch.tensor(math.ldexp(1.0, exponent)), persistent=False)

    @classmethod
    def by(cls, factor: float) -> Normalize:
        """The layer for a factor, which has to be a power of two (UnsupportedError otherwise)."""
        mantissa, exponent = math.frexp(factor)
        if mantissa != 0.5:
            raise UnsupportedError(f"The input's factor must be a power of two, not {factor}")
        return cls(exponent=exponent - 1)

    def forward(self, x: Tensor) -> Tensor:
        return x.to(self.factor.dtype) * self.factor

    def extra_repr(self) -> str:
        return f"exponent={self.exponent}"


class HasResult(Protocol):
    """A layer with a result quantizer."""

    result: Quantizer


def share(layers: Sequence[HasResult]) -> None:
    """Give all these layers the first one's result quantizer, so that their results have one format.

    For branches that meet in a concat or an add. Raises InputError where their activations differ.
    """
    first = layers[0].result
    for layer in layers[1:]:
        layer.result = result_quantizer(first, layer.result.activation)
