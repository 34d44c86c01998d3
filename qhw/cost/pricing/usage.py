"""Resources of some hardware, as numbers or as arrays over design points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from numpy.typing import NDArray

Amount: TypeAlias = "float | NDArray[Any]"
"""A number, or an array of them over design points."""


@dataclass(frozen=True)
class Usage:
    """Resources of some hardware: LUT, FF, DSP slices, block RAMs of 18 Kb, UltraRAMs."""

    lut: Amount = 0.0
    ff: Amount = 0.0
    dsp: Amount = 0.0
    bram18: Amount = 0.0
    uram: Amount = 0.0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.lut + other.lut,
            self.ff + other.ff,
            self.dsp + other.dsp,
            self.bram18 + other.bram18,
            self.uram + other.uram,
        )

    def times(self, count: Amount) -> Usage:
        """The same hardware ``count`` times."""
        return Usage(
            self.lut * count, self.ff * count, self.dsp * count, self.bram18 * count, self.uram * count
        )
