"""Average pooling in fixed point: the window's sum times a fixed-point constant, and the result's format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from qhw.errors import InputError, UnsupportedError
from qhw.formats.fixed import Fixed
from qhw.layers.elementwise import result_quantizer
from qhw.quantizers.fixed import FixedQuantizer


@dataclass(frozen=True)
class Window:
    """What a pool slides over its input, per spatial axis; padding on both sides."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    @property
    def area(self) -> int:
        return math.prod(self.kernel)


class QuantAvgPool(nn.Module):
    """The sum of a window, times ``1 / area`` in fixed point, in the result's format.

    Padding counts as zeros (torch's ``count_include_pad=True``).

    Args:
        kernel, stride, padding: per spatial axis (one or two).
        multiplier: format of the constant ``1 / area``; its binary point is the one with the least error.
        result: the result's format, or a shared quantizer.
    """

    def __init__(
        self,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        *,
        multiplier: Fixed,
        result: Fixed | FixedQuantizer,
    ) -> None:
        super().__init__()
        self.static = Window(tuple(kernel), tuple(stride), tuple(padding))
        self.multiplier = multiplier
        self.result = result_quantizer(result)

    def window(self, spatial: Sequence[int]) -> Window:
        """The window for an input of that spatial size."""
        if len(spatial) != len(self.static.kernel):
            raise InputError(
                f"A pool over {len(self.static.kernel)} axes was given the size {tuple(spatial)}"
            )
        return self.static

    def multiplier_format(self, area: int) -> Fixed:
        """The constant's format with its binary point."""
        return reciprocal_format(self.multiplier, area)

    def multiplier_value(self, area: int) -> float:
        """The constant: ``1 / area`` rounded onto its format."""
        return float(self.multiplier_format(area).quantize([1.0 / area])[0])

    def forward(self, x: Tensor) -> Tensor:
        window = self.window(x.shape[2:])
        return self.result.quantize(window_sum(x, window) * self.multiplier_value(window.area))

    def extra_repr(self) -> str:
        return f"{self.static}, multiplier={self.multiplier}"


class QuantAvgPool1d(QuantAvgPool):
    """``QuantAvgPool`` of ``(N, C, L)``."""


class QuantAvgPool2d(QuantAvgPool):
    """``QuantAvgPool`` of ``(N, C, H, W)``."""


class QuantAdaptiveAvgPool(QuantAvgPool):
    """Average pool to a given size, which has to divide the input's; ``1`` is a global average.

    Args:
        output_size: per spatial axis.
    """

    def __init__(
        self, output_size: Sequence[int], *, multiplier: Fixed, result: Fixed | FixedQuantizer
    ) -> None:
        none = (0,) * len(output_size)
        super().__init__(none, none, none, multiplier=multiplier, result=result)
        self.output_size = tuple(output_size)

    def window(self, spatial: Sequence[int]) -> Window:
        """The window that makes ``output_size`` of an input of that spatial size."""
        super().window(spatial)
        if any(size % wanted for size, wanted in zip(spatial, self.output_size, strict=True)):
            raise UnsupportedError(
                f"An adaptive average pool to {self.output_size} needs windows of one size, and the input is "
                f"{tuple(spatial)}",
                allowed="output sizes that divide the input's",
            )
        kernel = tuple(size // wanted for size, wanted in zip(spatial, self.output_size, strict=True))
        return Window(kernel, kernel, (0,) * len(kernel))

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, multiplier={self.multiplier}"


def reciprocal_format(spec: Fixed, area: int) -> Fixed:
    """``spec`` with the most fraction bits at which ``1 / area`` still fits; a stated binary point stays."""
    if spec.is_learned:
        return spec
    high = spec.learned(0).mantissa_high
    if high < 1:
        raise InputError(
            f"{spec} holds no positive number: 1/{area} needs one", allowed="ufixed, or more bits"
        )
    # round(2^f / area) <= high, in exact integers.
    fraction = (high * area).bit_length() - 1
    while 2 * (1 << fraction) > (2 * high + 1) * area:
        fraction -= 1
    while 2 * (2 << fraction) < (2 * high + 1) * area:
        fraction += 1
    while fraction > 0 and (1 << fraction) % (2 * area) == 0:
        fraction -= 1
    return spec.learned(spec.width - fraction)


def window_sum(x: Tensor, window: Window) -> Tensor:
    """Sums over a sliding window ``(N, C, *spatial)``; exact where the sums of quantised values are."""
    if len(window.kernel) == 1:
        padding, stride = (0, window.padding[0]), (1, window.stride[0])
        row = functional.avg_pool2d(
            x.unsqueeze(2), (1, window.kernel[0]), stride, padding, divisor_override=1
        )
        return row.squeeze(2)
    return functional.avg_pool2d(x, window.kernel, window.stride, window.padding, divisor_override=1)
