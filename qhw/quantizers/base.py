"""What every quantizer does: the format is given, the power of two that it is scaled by is trained."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qhw.errors import InputError
from qhw.formats import Fixed, Format, TableFormat
from qhw.quantizers.activation import IDENTITY, Activation
from qhw.quantizers.functional import add_quantize, affine_quantize, quantize
from qhw.quantizers.kernels import eager
from qhw.quantizers.kernels.problem import Operands, Rule, fraction_bits, powers_of_two
from qhw.quantizers.statistics import best_fraction


class Quantizer(nn.Module):
    """Maps a float tensor onto a format; the power of two that a mantissa of 1 stands for is trained.

    ``mantissa = format(x * 2**fraction)`` with ``fraction = round(theta)``; statistics of the first data that
    is seen only start it. Usable alone, as Brevitas's ``tensor_quant``, or shared by several layers.

    Args:
        spec: the format.
        fraction: the fraction bits, or None where data will start them.
        channels: fraction bits for each of so many channels; None for the whole tensor.
        axis: the channel axis of the tensors that will come.
        activation: applied before rounding, in the same pass.
        passes_outside: saturated numbers keep their gradient (the usual choice for weights).
        learn: train the fraction bits, or not; by default where ``fraction`` is None.

    Attributes:
        theta: the trainable fraction bits, ``()`` or ``(channels,)``.
        started: whether they have been set, by the format, by data or by a checkpoint.
    """

    started: Tensor
    spec: Fixed | TableFormat

    def __init__(
        self,
        spec: Fixed | TableFormat,
        fraction: int | None,
        *,
        channels: int | None = None,
        axis: int = 0,
        activation: Activation = IDENTITY,
        passes_outside: bool = False,
        learn: bool | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.axis = axis
        self.rule = Rule.of(spec, activation, passes_outside)
        first = self.rule.mantissas[1].bit_length() if fraction is None else fraction
        start = torch.full(() if channels is None else (channels,), float(first))
        self.theta = nn.Parameter(start, requires_grad=fraction is None if learn is None else learn)
        self.register_buffer("started", torch.tensor(fraction is not None))
        self.is_open = fraction is None

    learns = "scale"
    """What its fraction bits are called."""

    @property
    def activation(self) -> Activation:
        """What is applied before rounding."""
        return self.rule.activation

    @property
    def per_channel(self) -> bool:
        """Whether every channel has its own binary point."""
        return self.theta.dim() > 0

    @property
    def fraction(self) -> tuple[int, ...]:
        """The current fraction bits of a mantissa, one per channel (or a single one).

        Raises:
            InputError: no data has been seen yet.
        """
        if not bool(self.started):
            raise InputError(
                f"A quantizer of {self.spec} has seen no data: its {self.learns} is not known yet",
                hint="run the model once on real inputs (qhw.train does), or load a trained checkpoint",
            )
        return tuple(int(bits) for bits in fraction_bits(self.theta))

    @property
    @abstractmethod
    def format(self) -> Format | tuple[Format, ...]:
        """The current format; per channel, a tuple. Raises InputError before any data was seen."""

    @abstractmethod
    def scale(self, rank: int) -> Tensor:
        """What a number of the format is multiplied by, as Brevitas sees it; broadcasts over that rank."""

    def _powers(self, exponents: NDArray[np.int64], rank: int) -> Tensor:
        """``2**exponents``: ``()``, or per channel so that it broadcasts over tensors of that rank."""
        return torch.from_numpy(powers_of_two(exponents)).to(self.theta).reshape(self._broadcast(rank))

    def _broadcast(self, rank: int) -> list[int]:
        shape = [1] * rank if self.per_channel else []
        if shape:
            shape[self.axis] = -1
        return shape

    def start(self, data: Tensor) -> None:
        """Set fraction bits that are still open to those that suit ``data`` best; stated ones stay.

        Raises:
            InputError: the data holds NaN or infinity.
        """
        if not self.is_open:
            return
        if not bool(torch.isfinite(data).all()):
            raise InputError(
                f"A quantizer of {self.spec} was given NaN or infinity, which it does not hold",
                hint="look for the layer before it whose result overflows, or lower the learning rate",
            )
        with torch.no_grad():
            axis = self.axis if self.per_channel else None
            self.theta.copy_(best_fraction(data.detach(), self.rule, axis).to(self.theta).view_as(self.theta))
            self.started.fill_(True)

    def quantize(self, x: Tensor) -> Tensor:
        """``x`` (float32 or float64, any shape) on the grid; the hot path."""
        if not bool(self.started):
            self.start(x)
        return quantize(x, self.theta, self.rule, self.axis)

    def quantize_sum(self, a: Tensor, b: Tensor) -> Tensor:
        """``a + b`` on the grid, in one pass."""
        if not bool(self.started):
            self.start(a + b)
        return add_quantize(a, b, self.theta, self.rule, self.axis)

    def quantize_affine(self, x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        """``x * gain + offset`` per channel (axis 1) on the grid, in one pass."""
        if not bool(self.started):
            self.start(_affine(x, gain, offset))
        return affine_quantize(x, gain, offset, self.theta, self.rule)

    def mantissas(self, x: Tensor) -> Tensor:
        """The int64 mantissas that ``x`` becomes."""
        bits = np.asarray(self.fraction, dtype=np.int64)
        axis = self.axis if self.per_channel else None
        values = eager.forward(Operands(x.detach(), axis=axis), bits, self.rule)
        unit = self._powers(-fraction_bits(self.theta), x.dim())
        return (values / unit.to(values)).to(torch.int64)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Brevitas's interface: quantised values, scale, zero point (0) and bit width."""
        y = self.quantize(x)
        return y, self.scale(x.dim()).to(y), y.new_zeros(()), y.new_tensor(float(self.spec.width))

    def extra_repr(self) -> str:
        shown = str(self.spec) if not bool(self.started) or self.per_channel else str(self.format)
        return f"{shown}{', per channel' if self.per_channel else ''}"


def _affine(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    shape = [1, -1, *[1] * (x.dim() - 2)]
    return x * gain.detach().to(x).reshape(shape) + offset.detach().to(x).reshape(shape)


def binary_points(model: nn.Module) -> list[nn.Parameter]:
    """The trained binary points and scales of a model, each once: for their own learning rate, no decay."""
    points = {id(m.theta): m.theta for m in model.modules() if isinstance(m, Quantizer)}
    return [theta for theta in points.values() if theta.requires_grad]
