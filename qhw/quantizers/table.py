"""The quantizer of minifloats, k-hot, powers of two, binary and ternary numbers."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

import torch
from torch import Tensor

from qhw.errors import InputError
from qhw.formats import Fixed, Format, Integer, Minifloat, TableFormat
from qhw.quant_config import Scaling
from qhw.quantizers.base import Quantizer
from qhw.quantizers.fixed import FixedQuantizer
from qhw.quantizers.functional import not_compiled
from qhw.quantizers.kernels import unit_of

Learned = Literal["scale", "bias"]


class TableQuantizer(Quantizer):
    """``format(x / scale) * scale`` with a trained scale, gradients straight through.

    Args:
        spec: a format that lists its codes; numbers beyond it saturate.
        learns: the name of the trained power of two: the scale; or, of a minifloat, its exponent bias
            (a scale of ``2**s`` is a bias that is lower by ``s``), and the scale is 1.
        settings: as for :class:`Quantizer`.

    Raises:
        InputError: the format overflows to infinity or NaN, has no bias, or a free scale is to be a bias.
    """

    spec: TableFormat

    def __init__(self, spec: TableFormat, *, learns: Learned = "scale", **settings: Any) -> None:
        if not getattr(spec, "saturate", True):
            raise InputError(
                f"A quantizer of {spec} cannot be trained: it overflows to infinity or NaN",
                hint="leave SPECIAL out, so that it saturates",
            )
        if learns == "bias" and not isinstance(spec, Minifloat):
            raise InputError(
                f"{spec} has no exponent bias to learn", allowed="minifloats", hint="learn the scale"
            )
        if learns == "bias" and settings.get("free"):
            raise InputError(
                "A free scale and an exponent bias cannot be learned together", hint="learn one of the two"
            )
        self.learns = learns
        super().__init__(spec, None, **settings)

    @property
    def scale_exponent(self) -> tuple[int, ...]:
        """The exponent of the scale, one per channel (or a single one); 0 where the bias is learned."""
        exponents = self._exponents()
        return (0,) * len(exponents) if self.learns == "bias" else exponents

    @property
    def format(self) -> Format | tuple[Format, ...]:
        """The format; with the learned bias in it where that is what is learned, per channel then."""
        if not (self.learns == "bias" and isinstance(self.spec, Minifloat)):
            return self.spec
        biases = [self.spec.exponent_bias - exponent for exponent in self._exponents()]
        formats = tuple(dataclasses.replace(self.spec, bias=bias) for bias in biases)
        return formats if self.per_channel else formats[0]

    @not_compiled
    def scale(self, rank: int) -> Tensor:
        """The factor of a number of the format, 1 where the bias is learned; broadcasts over that rank."""
        scales = torch.as_tensor(unit_of(self.theta, self.rule)) * math.ldexp(1.0, -self.spec.exponent)
        return self._broadcastable(scales if self.learns == "scale" else torch.ones_like(scales), rank)

    def _exponents(self) -> tuple[int, ...]:
        return tuple(-bits - self.spec.exponent for bits in self.fraction)


def make_quantizer(spec: Format, *, scaling: Scaling = "power_of_two", **settings: Any) -> Quantizer:
    """The quantizer of any format; settings as for :class:`Quantizer`.

    An integer stands for fixed point without fraction bits.
    """
    settings |= {"free": True} if scaling == "free" else {}
    if isinstance(spec, TableFormat):
        learns: Learned = "bias" if scaling == "exponent_bias" and isinstance(spec, Minifloat) else "scale"
        return TableQuantizer(spec, learns=learns, **settings)
    if isinstance(spec, Integer):
        spec = Fixed(spec.width, spec.width, spec.signed)
    if not isinstance(spec, Fixed):
        raise InputError(
            f"There is no quantizer of {spec}", allowed="fixed point, minifloats, khot, pow2, binary"
        )
    return FixedQuantizer(spec, **settings)
