"""Numbers with few ones: a product with one is a few shifts and additions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qhw.errors import InputError
from qhw.formats.modes import IntArray, Rounding
from qhw.formats.notation import ROUNDINGS, Notation, Reader, rounding_among
from qhw.formats.operand import MultiplierOperand
from qhw.formats.table import WIDEST, Listing, TableFormat


@dataclass(frozen=True, eq=False)
class KHot(TableFormat):
    """Sign and magnitude with at most ``k`` ones: ``khot<8,2>``; ``khot<8,2,csd>`` with signed digits.

    A code is the number itself, the sign bit in front of ``width - 1`` bits of magnitude; codes with
    more ones are no codes of the format. The hardware decides how a multiplier receives its shifts.
    Mantissas are integers, as in ``int8``; the scale is the tensor's exponent. The code of -0 is read
    and written, as in minifloats.

    Args:
        width: bits of a code, 2 to 16.
        k: the most ones, or signed digits, of a magnitude; 1 to ``width - 1``.
        csd: the magnitude is a sum of at most ``k`` powers of two of either sign (canonical signed
            digits), so 7 = 8 - 1 counts as two.
        rounding: by default to the nearest by true distance, ties to the even multiple of the gap.
            Numbers beyond the range become the highest magnitude.

    Source: the K-hot encoding of QFX, arXiv 2401.17544.
    """

    multiplier_free: ClassVar[bool] = True

    width: int
    k: int
    csd: bool = False
    rounding: Rounding = Rounding.RND_CONV

    def __post_init__(self) -> None:
        if not 2 <= self.width <= WIDEST:
            raise InputError(f"Width of {self} must be 2 to {WIDEST} bits, not {self.width}")
        if not 1 <= self.k < self.width:
            raise InputError(
                f"{self} must allow 1 to {self.width - 1} ones, not {self.k}",
                hint="its magnitude has one bit less than its width",
            )

    @property
    def exponent(self) -> int:
        return 0

    def _listing(self) -> Listing:
        sign = 1 << (self.width - 1)
        magnitudes = np.arange(sign)
        too_many = np.flatnonzero(ones(magnitudes, self.csd) > self.k)
        return Listing(
            mantissas=np.concatenate([magnitudes, -magnitudes]),
            missing=tuple(np.concatenate([too_many, sign | too_many]).tolist()),
            negative_zero=sign,
        )

    def operand(self) -> MultiplierOperand:
        """Stored as its shifts, one code of which says that there is no term."""
        positions = self.width - 1 + self.csd
        stored = 1 - self.csd + self.k * (positions.bit_length() + self.csd)
        return MultiplierOperand("khot", self.width, terms=self.k, csd=self.csd, stored_bits=stored)

    def cpp_policy(self) -> str:
        return f"qhw::sign_magnitude<{self.width}>"

    @classmethod
    def notation(cls) -> Notation:
        rule = '"khot<" width "," ones ["," "csd"] ["," rounding] ">"'
        return Notation("khot", r"khot(?!\w)", rule, ("khot<8,2>", "khot<8,2,csd>"), ("khot",))

    @classmethod
    def read(cls, start: re.Match[str], text: Reader) -> KHot:
        text.expect("<")
        width = text.number("the width")
        text.expect(",")
        k = text.number("the most ones")
        options = text.further_options(["csd"], ROUNDINGS)
        return cls(width, k, "csd" in options, rounding_among(options))

    def __str__(self) -> str:
        parts = [str(self.width), str(self.k)] + ["csd"] * self.csd
        parts += [] if self.rounding is Rounding.RND_CONV else [self.rounding.value]
        return f"khot<{','.join(parts)}>"


def ones(magnitudes: IntArray, csd: bool = False) -> IntArray:
    """How many ones (or, with ``csd``, non-zero signed digits) integers from 0 on have; any shape.

    The non-adjacent form is unique and has the fewest digits; it is non-zero where n and 3n differ, one
    place up (G. Reitwiesner, Binary Arithmetic, 1960).
    """
    bits = magnitudes ^ (3 * magnitudes) if csd else magnitudes
    return np.asarray(np.bitwise_count(bits), dtype=np.int64)
