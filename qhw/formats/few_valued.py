"""The smallest formats: -1 and 1, with or without 0."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qhw.formats.modes import Rounding
from qhw.formats.notation import Notation, Reader
from qhw.formats.operand import MultiplierOperand
from qhw.formats.table import Listing, TableFormat


@dataclass(frozen=True, eq=False)
class Binary(TableFormat):
    """-1 (code 0) and 1 (code 1): the sign of a number, that of zero (-0 too) being 1.

    Source: QONNX's BipolarQuant.
    """

    multiplier_free: ClassVar[bool] = True
    rounding = Rounding.RND

    @property
    def width(self) -> int:
        return 1

    @property
    def exponent(self) -> int:
        return 0

    def _listing(self) -> Listing:
        return Listing(mantissas=np.array([-1, 1]))

    def operand(self) -> MultiplierOperand:
        return MultiplierOperand("binary", 2, stored_bits=self.width)

    def cpp_policy(self) -> str:
        return "qhw::binary"

    @classmethod
    def notation(cls) -> Notation:
        return Notation("binary", r"binary(?!\w)", '"binary"', ("binary",), ("binary",))

    @classmethod
    def read(cls, start: re.Match[str], text: Reader) -> Binary:
        return cls()

    def __str__(self) -> str:
        return "binary"


@dataclass(frozen=True, eq=False)
class Ternary(TableFormat):
    """-1, 0 and 1 in two bits of two's complement; to the nearest, so ±0.5 becomes 0."""

    multiplier_free: ClassVar[bool] = True
    rounding = Rounding.RND_CONV

    @property
    def width(self) -> int:
        return 2

    @property
    def exponent(self) -> int:
        return 0

    def _listing(self) -> Listing:
        return Listing(mantissas=np.array([0, 1, -2, -1]), missing=(2,))

    def operand(self) -> MultiplierOperand:
        return MultiplierOperand("integer", 2, stored_bits=self.width)

    def cpp_policy(self) -> str:
        return "qhw::ternary"

    @classmethod
    def notation(cls) -> Notation:
        return Notation("ternary", r"ternary(?!\w)", '"ternary"', ("ternary",), ("ternary",))

    @classmethod
    def read(cls, start: re.Match[str], text: Reader) -> Ternary:
        return cls()

    def __str__(self) -> str:
        return "ternary"
