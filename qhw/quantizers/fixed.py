"""The fixed-point quantizer: bit width and modes are given, the binary point is trained."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from qhw.errors import InputError
from qhw.formats.fixed import Fixed
from qhw.quantizers.activation import IDENTITY, Activation
from qhw.quantizers.functional import add_quantize, affine_quantize, quantize
from qhw.quantizers.kernels import eager
from qhw.quantizers.kernels.problem import Operands, Rule, fraction_bits, powers_of_two
from qhw.quantizers.statistics import best_fraction


class FixedQuantizer(nn.Module):
    """Maps a float tensor onto ``spec``; where its binary point is open (``fixed<8>``), it is trained.

    The binary point is ``fraction = round(theta)``; statistics of the first data that is seen only start it.
    Usable alone, as Brevitas's ``tensor_quant``, or shared by several layers.

    Args:
        spec: width and modes; a stated binary point (``fixed<8,3>``) stays as it is.
        channels: one binary point for each of so many channels; None for one for the whole tensor.
        axis: the channel axis of the tensors that will come.
        activation: applied before rounding, in the same pass.
        passes_outside: saturated numbers keep their gradient (the usual choice for weights).
        learn: train the binary point, or not; by default where ``spec`` leaves it open.

    Attributes:
        theta: the trainable fraction bits, ``()`` or ``(channels,)``.
        started: whether the binary point has been set, by ``spec``, by data or by a checkpoint.
    """

    started: Tensor

    def __init__(
        self,
        spec: Fixed,
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
        fraction = float(spec.fraction if spec.is_learned else spec.width - int(spec.signed))
        learn = not spec.is_learned if learn is None else learn
        start = torch.full(() if channels is None else (channels,), fraction)
        self.theta = nn.Parameter(start, requires_grad=learn)
        self.register_buffer("started", torch.tensor(spec.is_learned))

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
        """The current fraction bits, one per channel (or a single one).

        Raises:
            InputError: no data has been seen yet.
        """
        if not bool(self.started):
            raise InputError(
                f"A quantizer of {self.spec} has seen no data: its binary point is not known yet",
                hint="run the model once on real inputs (qhw.train does), or load a trained checkpoint",
            )
        return tuple(int(bits) for bits in fraction_bits(self.theta))

    @property
    def format(self) -> Fixed | tuple[Fixed, ...]:
        """The current format; per channel, a tuple of them. Raises InputError before any data was seen."""
        formats = tuple(self.spec.learned(self.spec.width - bits) for bits in self.fraction)
        return formats if self.per_channel else formats[0]

    def scale(self, rank: int) -> Tensor:
        """``2**-fraction``: ``()``, or per channel so that it broadcasts over tensors of that rank."""
        scale = torch.from_numpy(powers_of_two(-fraction_bits(self.theta))).to(self.theta)
        return scale.reshape(self._broadcast(rank))

    def _broadcast(self, rank: int) -> list[int]:
        shape = [1] * rank if self.per_channel else []
        if shape:
            shape[self.axis] = -1
        return shape

    def start(self, data: Tensor) -> None:
        """Set a binary point that is still open to the one that suits ``data`` best; a stated one stays."""
        if self.spec.is_learned:
            return
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
        return (values / self.scale(x.dim()).to(values)).to(torch.int64)

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
    """The trained binary points of a model, each once: for their own learning rate, without weight decay."""
    points = {id(m.theta): m.theta for m in model.modules() if isinstance(m, FixedQuantizer)}
    return [theta for theta in points.values() if theta.requires_grad]
