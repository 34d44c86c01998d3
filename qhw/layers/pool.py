"""Average pooling in fixed point: the window's sum times a fixed-point constant, and the result's format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from torch import Tensor, nn
from torch.nn import functional

from qhw.errors import InputError, UnsupportedError
from qhw.formats import Fixed, Format, Integer, TableFormat
from qhw.layers.elementwise import result_quantizer
from qhw.quantizers.base import Quantizer


@dataclass(frozen=True)
class PoolWindow:
    """A pool's window per spatial axis: kernel, stride, and padding on both sides."""

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
        multiplier: format of the constant ``1 / area``, at the scale with the least error.
        result: the result's format, or a shared quantizer.
    """

    def __init__(
        self,
        kernel: Sequence[int],
        stride: Sequence[int],
        padding: Sequence[int],
        *,
        multiplier: Format,
        result: Format | Quantizer,
    ) -> None:
        super().__init__()
        self.static = PoolWindow(tuple(kernel), tuple(stride), tuple(padding))
        self.multiplier = multiplier
        self.result = result_quantizer(result)

    def window(self, spatial: Sequence[int]) -> PoolWindow:
        """The window for an input of that spatial size."""
        if len(spatial) != len(self.static.kernel):
            raise InputError(
                f"A pool over {len(self.static.kernel)} axes was given the size {tuple(spatial)}"
            )
        return self.static

    def reciprocal(self, area: int) -> Reciprocal:
        """The constant ``1 / area``, rounded onto its format."""
        return reciprocal(self.multiplier, area)

    def forward(self, x: Tensor) -> Tensor:
        window = self.window(x.shape[2:])
        return self.result.quantize(window_sum(x, window) * self.reciprocal(window.area).value)

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

    def __init__(self, output_size: Sequence[int], *, multiplier: Format, result: Format | Quantizer) -> None:
        none = (0,) * len(output_size)
        super().__init__(none, none, none, multiplier=multiplier, result=result)
        self.output_size = tuple(output_size)

    def window(self, spatial: Sequence[int]) -> PoolWindow:
        """The window that makes ``output_size`` of an input of that spatial size."""
        super().window(spatial)
        if any(size % wanted for size, wanted in zip(spatial, self.output_size, strict=True)):
            raise UnsupportedError(
                f"An adaptive average pool to {self.output_size} needs windows of one size, and the input is "
                f"{tuple(spatial)}",
                allowed="output sizes that divide the input's",
            )
        kernel = tuple(size // wanted for size, wanted in zip(spatial, self.output_size, strict=True))
        return PoolWindow(kernel, kernel, (0,) * len(kernel))

    def extra_repr(self) -> str:
        return f"output_size={self.output_size}, multiplier={self.multiplier}"


@dataclass(frozen=True)
class Reciprocal:
    """A constant ``mantissa * 2**-fraction`` close to ``1 / area``, ``mantissa`` being one of ``format``."""

    format: Fixed | TableFormat
    mantissa: int
    fraction: int

    @property
    def value(self) -> float:
        """The constant itself."""
        return math.ldexp(self.mantissa, -self.fraction)


@cache
def reciprocal(spec: Format, area: int) -> Reciprocal:
    """``1 / area`` in a format whose binary point or scale is open: the closest number; a stated one stays.

    Raises:
        InputError: the format holds no positive number.
    """
    if isinstance(spec, Integer):
        spec = Fixed(spec.width, spec.width, spec.signed)
    if isinstance(spec, TableFormat):
        return _closest(spec, area)
    assert isinstance(spec, Fixed)
    format = _reciprocal_format(spec, area)
    return Reciprocal(format, int(format.to_mantissa([1.0 / area])[0]), format.fraction)


def _closest(spec: TableFormat, area: int) -> Reciprocal:
    """The number of a list that is closest to ``1 / area`` at any scale, with the smallest mantissa."""
    tried = []
    for mantissa in spec.numbers[spec.numbers > 0].tolist():
        below = (mantissa * area).bit_length() - 1
        for fraction in (below, below + 1):
            tried.append((abs(Fraction(mantissa * area, 1 << fraction) - 1), mantissa, fraction))
    _, mantissa, fraction = min(tried)
    return Reciprocal(spec, mantissa, fraction)


def _reciprocal_format(spec: Fixed, area: int) -> Fixed:
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


def window_sum(x: Tensor, window: PoolWindow) -> Tensor:
    """Sums over a sliding window ``(N, C, *spatial)``; exact where the sums of quantised values are."""
    if len(window.kernel) == 1:
        padding, stride = (0, window.padding[0]), (1, window.stride[0])
        row = functional.avg_pool2d(
            x.unsqueeze(2), (1, window.kernel[0]), stride, padding, divisor_override=1
        )
        return row.squeeze(2)
    return functional.avg_pool2d(x, window.kernel, window.stride, window.padding, divisor_override=1)
