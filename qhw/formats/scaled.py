"""A format behind a scale and a zero point."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qhw.errors import InputError
from qhw.formats.base import FloatArray, Format, UniformFormat
from qhw.formats.modes import IntArray


@dataclass(frozen=True)
class Scaled:
    """Numbers ``scale * (n - zero_point)``, where ``n`` is a number of ``format``.

    ``Scaled(Integer(8, False), 0.05, 128)`` is an affine 8-bit integer. It is no format itself: formats
    are exact, a free scale rounds. Products and sums take ``mantissa_of(codes)``, exact integers with the
    zero point taken off, and the scale once, behind them.

    Args:
        format: any format; with a zero point, one whose numbers are integers (``int8``, ``uint4``).
        scale: finite and greater than 0.
        zero_point: the integer that stands for 0.

    Source: ``Quant`` of QONNX. In float64 here, operation by operation in its order: x / scale,
    plus zero point, onto the format; back: minus zero point, times scale.
    """

    format: Format
    scale: float = 1.0
    zero_point: int = 0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"Scale of {self.format} is {self.scale}", allowed="a finite number above 0")
        is_integer = isinstance(self.format, UniformFormat) and self.format.exponent == 0
        if self.zero_point != 0 and not is_integer:
            raise InputError(
                f"{self.format} has zero point {self.zero_point}", allowed="zero points of int and uint"
            )

    def encode(self, values: ArrayLike) -> IntArray:
        """The codes of real values (any shape); raises as the format's own ``encode`` does."""
        shifted = np.asarray(values).astype(np.float64) / self.scale
        return self.format.encode(shifted + self.zero_point if self.zero_point else shifted)

    def decode(self, codes: ArrayLike) -> FloatArray:
        """The real values that codes stand for, rounded to float64 by the scale."""
        return np.asarray((self.format.decode(codes) - self.zero_point) * self.scale)

    def quantize(self, values: ArrayLike) -> FloatArray:
        """Real values rounded onto the scaled numbers, as float64."""
        return self.decode(self.encode(values))

    def mantissa_of(self, codes: ArrayLike) -> IntArray:
        """The values of codes in units of ``scale * 2**format.exponent``: exact signed integers."""
        return np.asarray(self.format.mantissa_of(codes) - self.zero_point)
