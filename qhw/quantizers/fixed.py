"""The fixed-point quantizer: bit width and modes are given, the binary point (or a free scale) is trained."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from qhw.formats.fixed import Fixed
from qhw.quantizers.base import Quantizer
from qhw.quantizers.functional import not_compiled
from qhw.quantizers.kernels import unit_of


class FixedQuantizer(Quantizer):
    """Maps a float tensor onto ``spec``; where its binary point is open (``fixed<8>``), it is trained.

    With a free scale, numbers are ``spec``'s mantissas times any number: integers with a scale.

    Args:
        spec: width and modes; a stated binary point (``fixed<8,3>``) stays as it is.
        settings: as for :class:`Quantizer`.
    """

    spec: Fixed
    learns = "binary point"

    def __init__(self, spec: Fixed, **settings: Any) -> None:
        super().__init__(spec, spec.fraction if spec.is_learned else None, **settings)

    @property
    def format(self) -> Fixed | tuple[Fixed, ...]:
        """The current format; per channel, a tuple of them; of a free scale, its integers.

        Raises InputError before any data was seen.
        """
        if self.is_free:
            self.check_started()
            return self.spec.learned(self.spec.width)
        formats = tuple(self.spec.learned(self.spec.width - bits) for bits in self.fraction)
        return formats if self.per_channel else formats[0]

    @not_compiled
    def scale(self, rank: int) -> Tensor:
        """The value of a mantissa of 1: ``()``, or per channel so that it broadcasts over that rank."""
        return self._broadcastable(unit_of(self.theta, self.rule), rank)
