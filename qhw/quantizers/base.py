"""The base of every quantizer: the format is given, the scale is trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qhw.errors import InputError
from qhw.formats import Fixed, Format, TableFormat
from qhw.quantizers.activation import IDENTITY, Activation
from qhw.quantizers.functional import add_quantize, affine_quantize, not_compiled, quantize
from qhw.quantizers.kernels import eager
from qhw.quantizers.kernels.problem import Operands, Rule, Unit, fraction_bits, units_of
from qhw.quantizers.statistics import best_fraction


class Quantizer(nn.Module):
    """Maps a float tensor onto a format; what a mantissa of 1 stands for, its unit, is trained.

    ``mantissa = format(x / unit)`` with ``unit = 2**-round(theta)``, a power of two, or of a free scale
    ``2**-theta`` as a float32 number; statistics of the first data that is seen only start it. Usable alone,
    as Brevitas's ``tensor_quant``, or shared by several layers. ``torch.compile`` leaves quantizers alone and
    breaks its graph at them: it would take what a kernel reads in compiling for a constant.

    Args:
        spec: the format.
        fraction: the fraction bits, or None where data will start them.
        channels: the number of channels, each with fraction bits; None: one for the whole tensor.
        axis: the channel axis of the tensors that will come.
        activation: applied before rounding, in the same pass.
        passes_outside: saturated numbers keep their gradient (the usual choice for weights).
        learn: train the fraction bits, or not; by default where ``fraction`` is None.
        free: the scale may be any number, where ``fraction`` is None; a stated one stays a power of two.

    Attributes:
        theta: the trainable fraction bits, ``()`` or ``(channels,)``.
        started: whether ``theta`` has been set, by the format, by data or by a checkpoint.
        layer: the path of its layer, for messages; see :func:`name_quantizers`.
        observer: while it is set, nothing is rounded: it is given what would be, behind the activation, and
            its answer goes on in place of that (:mod:`qhw.ptq.observation`).
    """

    started: Tensor
    layer = ""
    spec: Fixed | TableFormat
    observer: Callable[[Tensor], Tensor] | None = None

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
        free: bool = False,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.axis = axis
        self.rule = Rule.of(spec, activation, passes_outside, free and fraction is None)
        first = self.rule.mantissas[1].bit_length() if fraction is None else fraction
        start = torch.full(() if channels is None else (channels,), float(first))
        self.theta = nn.Parameter(start, requires_grad=fraction is None if learn is None else learn)
        self.register_buffer("started", torch.tensor(fraction is not None))
        self.is_open = fraction is None
        self._has_started = False

    learns = "scale"
    """The name of the trained parameter, for messages."""

    @property
    def activation(self) -> Activation:
        """The activation that is applied before rounding."""
        return self.rule.activation

    @property
    def per_channel(self) -> bool:
        """Whether every channel has its own binary point."""
        return self.theta.dim() > 0

    @property
    def is_free(self) -> bool:
        """Whether the scale may be any number, not only a power of two."""
        return self.rule.free

    @property
    def fraction(self) -> tuple[int, ...]:
        """The current fraction bits of a mantissa, one per channel (or a single one).

        Raises:
            InputError: no data has been seen yet, or the scale is free.
        """
        self.check_started()
        if self.is_free:
            raise InputError(
                f"A quantizer of {self.spec} has a free scale, and so no whole fraction bits",
                hint="read its unit, the value of a mantissa of 1",
            )
        return tuple(int(bits) for bits in fraction_bits(self.theta))

    @property
    def unit(self) -> NDArray[np.float64]:
        """The value of a mantissa of 1, one per channel (or a single one): exact in float32.

        Raises:
            InputError: no data has been seen yet.
        """
        self.check_started()
        return units_of(self.theta, self.rule)

    def check_started(self) -> None:
        """Raise InputError while the scale is not known."""
        if not self.has_started:
            raise InputError(
                f"A quantizer of {self.spec} has seen no data: its {self.learns} is not known yet",
                hint="run the model once on real inputs (qhw.train does), or load a trained checkpoint",
            )

    @property
    @abstractmethod
    def format(self) -> Format | tuple[Format, ...]:
        """The current format; per channel, a tuple. Raises InputError before any data was seen."""

    @abstractmethod
    def scale(self, rank: int) -> Tensor:
        """The scale as Brevitas sees it: the factor of a number of the format; broadcasts over that rank."""

    @property
    def has_started(self) -> bool:
        """Whether the scale is known; once it is, a GPU is no longer asked."""
        self._has_started = self._has_started or bool(self.started)
        return self._has_started

    def share_scale(self, other: Quantizer) -> None:
        """Take another quantizer's scale, to be trained as one: sums of both then stay sums of integers."""
        self.theta, self.started = other.theta, other.started
        self._has_started = False

    def _broadcastable(self, numbers: Unit, rank: int) -> Tensor:
        """``()``, or per channel so that it broadcasts over tensors of that rank."""
        return torch.as_tensor(numbers).to(self.theta).reshape(self._broadcast(rank))

    def _broadcast(self, rank: int) -> list[int]:
        shape = [1] * rank if self.per_channel else []
        if shape:
            shape[self.axis] = -1
        return shape

    def _load_from_state_dict(self, *arguments: Any, **settings: Any) -> None:
        super()._load_from_state_dict(*arguments, **settings)
        self._has_started = False

    def start(self, data: Tensor) -> None:
        """Set fraction bits that are still open to those that suit ``data`` best; stated ones stay.

        Raises:
            InputError: the data holds NaN or infinity.
        """
        if not self.is_open:
            return
        if not bool(torch.isfinite(data).all()):
            where = f"Layer {self.layer}: a" if self.layer else "A"
            raise InputError(
                f"{where} quantizer of {self.spec} was given NaN or infinity, which it does not hold",
                hint="look for the layer before it whose result overflows, or lower the learning rate",
            )
        axis = self.axis if self.per_channel else None
        self.set_fraction(best_fraction(data.detach().cpu(), self.rule, axis))

    def set_fraction(self, fraction: Tensor) -> None:
        """Set fraction bits that are still open, one number or one per channel; stated ones stay."""
        if not self.is_open:
            return
        with torch.no_grad():
            self.theta.copy_(fraction.to(self.theta).view_as(self.theta))
            self.started.fill_(True)
            self._has_started = True

    def restart(self) -> None:
        """Let the next data set fraction bits that are open; stated ones stay."""
        if self.is_open:
            self.started.fill_(False)
            self._has_started = False

    @not_compiled
    def quantize(self, x: Tensor) -> Tensor:
        """``x`` (float32 or float64, any shape) on the grid; the hot path.

        Under autocast a result in bfloat16 or float16 is taken to float32 first, which is exact.
        """
        x = widened(x)
        if self.observer is not None:
            return self.observer(self.activation(x))
        if not self.has_started:
            self.start(x)
        return quantize(x, self.theta, self.rule, self.axis)

    @not_compiled
    def quantize_sum(self, a: Tensor, b: Tensor) -> Tensor:
        """``a + b`` on the grid, in one pass."""
        a, b = widened(a), widened(b)
        if self.observer is not None:
            return self.observer(self.activation(a + b))
        if not self.has_started:
            self.start(a + b)
        return add_quantize(a, b, self.theta, self.rule, self.axis)

    @not_compiled
    def quantize_affine(self, x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
        """``x * gain + offset`` per channel (axis 1) on the grid, in one pass."""
        x = widened(x)
        if self.observer is not None:
            return self.observer(self.activation(_affine(x, gain, offset)))
        if not self.has_started:
            self.start(_affine(x, gain, offset))
        return affine_quantize(x, gain, offset, self.theta, self.rule)

    def mantissas(self, x: Tensor) -> Tensor:
        """The int64 mantissas that ``x`` becomes."""
        axis = self.axis if self.per_channel else None
        return eager.mantissas(Operands(x.detach(), axis=axis), self.unit, self.rule).to(torch.int64)

    @not_compiled
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Brevitas's interface: quantised values, scale, zero point (0) and bit width."""
        y = self.quantize(x)
        return y, self.scale(x.dim()).to(y), y.new_zeros(()), y.new_full((), float(self.spec.width))

    def extra_repr(self) -> str:
        shown = str(self.spec) if not self.has_started or self.per_channel else str(self.format)
        more = [", per channel"] * self.per_channel + [", free scale"] * self.is_free
        return "".join([shown, *more])


def widened(x: Tensor) -> Tensor:
    """What a layer gave under autocast, in float32; anything else as it is."""
    is_narrow = x.dtype in (torch.bfloat16, torch.float16) and torch.is_autocast_enabled(x.device.type)
    return x.float() if is_narrow else x


def _affine(x: Tensor, gain: Tensor, offset: Tensor) -> Tensor:
    shape = [1, -1, *[1] * (x.dim() - 2)]
    return x * gain.detach().to(x).reshape(shape) + offset.detach().to(x).reshape(shape)


def name_quantizers(model: nn.Module) -> None:
    """Tell every quantizer of a model the path of its layer, for messages."""
    for path, module in model.named_modules():
        if isinstance(module, Quantizer) and not module.layer:
            module.layer = path.removesuffix(".tensor_quant").removesuffix(".result")


def first_not_finite(model: nn.Module, *inputs: Tensor) -> str:
    """The path of the first quantised layer that the inputs make the model give NaN or infinity to, or ""."""
    found: list[str] = []

    def watch(path: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def look(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            if any(isinstance(value, Tensor) and not bool(value.isfinite().all()) for value in inputs):
                found.append(path)

        return look

    quantised = {
        path.rpartition(".")[0] for path, module in model.named_modules() if isinstance(module, Quantizer)
    }
    hooks = [
        module.register_forward_pre_hook(watch(path))
        for path, module in model.named_modules()
        if path and any(name == path or name.startswith(f"{path}.") for name in quantised)
    ]
    try:
        with torch.no_grad():
            model(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else ""


def binary_points(model: nn.Module) -> list[nn.Parameter]:
    """The trained binary points and scales of a model, each once: for their own learning rate, no decay."""
    points = {id(m.theta): m.theta for m in model.modules() if isinstance(m, Quantizer)}
    return [theta for theta in points.values() if theta.requires_grad]
