"""qhw's quantizers for Brevitas's layers: ``weight_quant=``, ``act_quant=``, ``bias_quant=``."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from brevitas.core.function_wrapper.misc import Identity
from brevitas.inject import ExtendedInjector
from brevitas.inject.enum import FloatToIntImplType
from brevitas.proxy.parameter_quant import BiasQuantProxyFromInjector, WeightQuantProxyFromInjector
from brevitas.proxy.runtime_quant import ActQuantProxyFromInjector
from torch import Tensor, nn

from qhw.errors import InputError
from qhw.formats import Fixed, Format, Overflow, Rounding
from qhw.quant_config import Scaling
from qhw.quantizers.activation import IDENTITY, RELU
from qhw.quantizers.base import Quantizer
from qhw.quantizers.table import make_quantizer

_BREVITAS_ROUNDING = {
    Rounding.RND_CONV: FloatToIntImplType.ROUND,
    Rounding.TRN: FloatToIntImplType.FLOOR,
    Rounding.TRN_ZERO: FloatToIntImplType.ROUND_TO_ZERO,
    Rounding.CEIL: FloatToIntImplType.CEIL,
}


def weight_quantizer(
    spec: Format, per_channel: bool = False, scaling: Scaling = "power_of_two", axis: int = 0
) -> type[ExtendedInjector]:
    """A ``weight_quant=`` for Brevitas's layers; per output channel, or one scale for the tensor.

    Args:
        axis: the axis of the output channels in the weight (1 in a transposed convolution).
    """
    return _injector(spec, WeightProxy, per_channel=per_channel, scaling=scaling, axis=axis)


def bias_quantizer(
    spec: Format, per_channel: bool = False, scaling: Scaling = "power_of_two"
) -> type[ExtendedInjector]:
    """A ``bias_quant=`` for Brevitas's layers; it needs no input scale."""
    settings = {"per_channel": per_channel, "scaling": scaling}
    return _injector(spec, BiasProxy, requires_input_scale=False, **settings)


def activation_quantizer(
    spec: Format, channels: int | None = None, scaling: Scaling = "power_of_two"
) -> type[ExtendedInjector]:
    """An ``act_quant=``, ``input_quant=`` or ``output_quant=`` for Brevitas's layers.

    A ``QuantReLU``'s ReLU runs in the quantizer's own pass.

    Args:
        channels: the number of channels (axis 1), each with a binary point; None: one for all.
    """
    return _injector(spec, ActivationProxy, channels=channels, scaling=scaling)


def _injector(spec: Format, proxy: type, **settings: Any) -> type[ExtendedInjector]:
    known = _BREVITAS_ROUNDING.get(getattr(spec, "rounding", Rounding.RND_CONV))
    namespace = {
        "proxy_class": proxy,
        "spec": spec,
        "signed": spec.signed,
        "narrow_range": isinstance(spec, Fixed) and spec.overflow is Overflow.SAT_SYM,
        "bit_width": spec.width,
        **({"float_to_int_impl_type": known} if known else {}),
        **settings,
    }
    injector: type[ExtendedInjector] = type(ExtendedInjector)(
        f"{proxy.__name__}Injector", (ExtendedInjector,), namespace
    )
    return injector


class _OneQuantizer:
    """The scale and bit width of a proxy's one quantizer, without running it."""

    quantizer: Quantizer

    def scale(self, *_: object) -> Tensor:
        return self.quantizer.scale(self._rank())

    def zero_point(self, *_: object) -> Tensor:
        return self.quantizer.theta.new_zeros(())

    def bit_width(self, *_: object) -> Tensor:
        return self.quantizer.theta.new_full((), float(self.quantizer.spec.width))

    @abstractmethod
    def _rank(self) -> int:
        """Axes that the scale has to broadcast over."""


class _ParameterQuantizer(_OneQuantizer):
    """A proxy whose quantizer is started by its parameter, and again when another parameter takes its place.

    The quantizer itself stays (Brevitas makes a new one on each ``load_state_dict``), so that an optimizer's
    hold on its binary point stays good.
    """

    tensor_quant: Quantizer | None
    tracked_parameter_list: list[Tensor]
    quant_injector: Any

    @property
    def quantizer(self) -> Quantizer:  # type: ignore[override]
        """The quantizer of the weight or bias."""
        if self.tensor_quant is None:
            raise InputError("This layer has no parameter to quantize yet")
        return self.tensor_quant

    def init_tensor_quant(self, preserve_state_dict: bool = False) -> None:
        parameters = self.tracked_parameter_list
        if not parameters:
            return
        if self.tensor_quant is None:
            injector = self.quant_injector
            axis = injector.axis if "axis" in injector else 0
            channels = parameters[0].shape[axis] if injector.per_channel else None
            settings = {
                "channels": channels,
                "passes_outside": True,
                "scaling": injector.scaling,
                "axis": axis,
            }
            self.tensor_quant = make_quantizer(injector.spec, **settings)
        if not preserve_state_dict:
            self.tensor_quant.start(parameters[0])

    @property
    def input_view_impl(self) -> Any:
        return Identity()

    def _rank(self) -> int:
        return self.tracked_parameter_list[0].dim()


class WeightProxy(_ParameterQuantizer, WeightQuantProxyFromInjector):  # type: ignore[misc]
    """A weight's quantizer in a Brevitas layer."""


class BiasProxy(_ParameterQuantizer, BiasQuantProxyFromInjector):  # type: ignore[misc]
    """A bias's quantizer in a Brevitas layer."""


class _ActivationAndQuantizer(nn.Module):
    """An activation, then its quantizer; in one pass where the quantizer applies the activation itself.

    ``activation_impl`` is there in either case: Brevitas calls it in export, and with quantizers disabled.
    """

    def __init__(self, activation_impl: nn.Module, tensor_quant: Quantizer) -> None:
        super().__init__()
        self.activation_impl, self.tensor_quant = activation_impl, tensor_quant

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.tensor_quant.activation.is_identity:
            x = self.activation_impl(x)
        result: tuple[Tensor, Tensor, Tensor, Tensor] = self.tensor_quant(x)
        return result


class ActivationProxy(_OneQuantizer, ActQuantProxyFromInjector):  # type: ignore[misc]
    """An activation's quantizer in a Brevitas layer, made once."""

    @property
    def quantizer(self) -> Quantizer:  # type: ignore[override]
        """The quantizer of the activation."""
        quantizer: Quantizer = self.fused_activation_quant_proxy.tensor_quant
        return quantizer

    def init_tensor_quant(self) -> None:
        if "fused_activation_quant_proxy" in self._modules:
            return
        injector = self.quant_injector
        act = injector.act_impl if "act_impl" in injector else None
        fused = RELU if isinstance(act, nn.ReLU) else IDENTITY
        settings = {"channels": injector.channels, "scaling": injector.scaling}
        quantizer = make_quantizer(injector.spec, axis=1, activation=fused, **settings)
        self.fused_activation_quant_proxy = _ActivationAndQuantizer(act or Identity(), quantizer)
        self.is_quant_enabled = True

    @property
    def input_view_impl(self) -> Any:
        return Identity()

    def _rank(self) -> int:
        return 4 if self.quantizer.per_channel else 0


def plain_tensors(model: nn.Module) -> nn.Module:
    """Let this module's quantizers hand plain tensors to each other: quicker, for models that need no more.

    Brevitas's ``QuantTensor`` carries scales from layer to layer; a model whose formats are all given by its
    own quantizers reads them there. Returns the module.
    """
    for module in model.modules():
        if isinstance(module, WeightProxy | BiasProxy | ActivationProxy):
            module.skip_create_quant_tensor = True
    return model
