"""The piecewise linear functions that a quantizer can apply before it rounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from qhw.errors import UnsupportedError


@dataclass(frozen=True)
class Activation:
    """``min(x > 0 ? x : x * slope, cap)``: identity, ReLU, ReLU6 and leaky ReLU are its cases.

    Its gradient is that of torch: 0 at the kink of a ReLU and at both ends of a ReLU6.
    """

    slope: float = 1.0
    cap: float = math.inf

    @property
    def is_identity(self) -> bool:
        return self == IDENTITY

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it; any shape."""
        if self.slope == 0.0:
            x = torch.where(x > 0, x, torch.where(x == x, 0.0, x))
        elif self.slope != 1.0:
            x = torch.where(x > 0, x, x * self.slope)
        return x if math.isinf(self.cap) else torch.where(x > self.cap, self.cap, x)


IDENTITY = Activation()
RELU = Activation(slope=0.0)
RELU6 = Activation(slope=0.0, cap=6.0)


def leaky_relu(slope: float) -> Activation:
    """A leaky ReLU whose negative slope is a power of two up to 1, so that it is a shift in hardware.

    Raises:
        UnsupportedError: any other slope.
    """
    mantissa, exponent = math.frexp(slope)
    if mantissa != 0.5 or slope > 1.0:
        near = 2.0 ** round(math.log2(slope)) if 0.0 < slope < math.inf else 0.125
        raise UnsupportedError(
            f"A leaky ReLU's slope must be a power of two up to 1, not {slope}",
            hint=f"use {min(near, 1.0)} (2^{math.frexp(min(near, 1.0))[1] - 1})",
        )
    return Activation(slope=math.ldexp(mantissa, exponent))
