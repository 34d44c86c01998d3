"""Floating point of a few bits."""

from __future__ import annotations

import enum
import math
import re
from dataclasses import dataclass

import numpy as np

from qhw.errors import InputError
from qhw.formats.base import as_mantissas
from qhw.formats.modes import IntArray, Rounding
from qhw.formats.notation import ENDS, ROUNDINGS, Notation, Reader, rounding_among
from qhw.formats.operand import MultiplierOperand
from qhw.formats.table import WIDEST, Listing, TableFormat

LARGEST_FIELD = 8
"""Bits of the widest exponent field."""

LARGEST_BIAS = 512
"""Bound of ``|bias|``; within it float64 holds every number and every midpoint."""


class Special(enum.Enum):
    """Which codes of a minifloat are infinity or NaN."""

    NONE = ""
    """None: every code is finite."""
    IEEE = "ieee"
    """The highest exponent: infinity where the mantissa is zero, else NaN (IEEE 754)."""
    FN = "fn"
    """Finite but for one NaN of each sign: all ones (OCP E4M3). Below 8 bits OCP has no NaN either."""
    FNUZ = "fnuz"
    """Finite, unsigned zero: the code of -0 is the only NaN; the default bias is one higher."""


def check_bias(format: object, bias: int | None) -> None:
    """Raise InputError unless a bias is left to its default or an integer within bounds."""
    if bias is not None and not (isinstance(bias, int) and abs(bias) <= LARGEST_BIAS):
        raise InputError(f"Bias of {format} must be an integer, -{LARGEST_BIAS} to {LARGEST_BIAS}")


@dataclass(frozen=True, eq=False)
class Minifloat(TableFormat):
    """Sign, exponent and mantissa of a few bits: ``e4m3``, ``e4m3fn``, ``e5m2ieee``, ``e3m2@5``.

    A code is sign, exponent field and mantissa field, from the top. Field 0 of the exponent holds zero
    and the subnormals; without subnormals, all of it reads as zero and only zero is written. Mantissas
    count in units of ``2**(1 - exponent_bias - mantissa_bits)``, the smallest subnormal.

    Args:
        exponent_bits: 1 to 8.
        mantissa_bits: 0 or more, so that a code has at most 16 bits.
        bias: subtracted from the exponent field; None: ``2**(exponent_bits-1) - 1``, one more
            for FNUZ.
        special: the codes that are infinity or NaN.
        subnormals: whether there are numbers between zero and the smallest normal one.
        rounding: any mode; ties to even by default.
        saturate: numbers beyond the range, infinities too, become the largest one. Otherwise they become
            infinity, or NaN in a format that has no infinity; directed rounding towards the range stays
            in it, as IEEE 754 has it.

    Sources: IEEE 754-2019; OCP 8-bit Floating Point Specification 1.0 and Microscaling Formats 1.0;
    FNUZ: arXiv 2206.02915. Checked against ml_dtypes and apytypes.
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int | None = None
    special: Special = Special.NONE
    subnormals: bool = True
    rounding: Rounding = Rounding.RND_CONV
    saturate: bool = True

    def __post_init__(self) -> None:
        exponent, most = self.exponent_bits, WIDEST - 1 - self.exponent_bits
        if not (isinstance(exponent, int) and 1 <= exponent <= LARGEST_FIELD):
            raise InputError(f"A minifloat has 1 to {LARGEST_FIELD} exponent bits, not {exponent}")
        if not (isinstance(self.mantissa_bits, int) and 0 <= self.mantissa_bits <= most):
            raise InputError(
                f"Beside {exponent} exponent bits, a minifloat has 0 to {most} mantissa bits,"
                f" not {self.mantissa_bits}"
            )
        check_bias(self, self.bias)
        if not self.saturate and self._overflow is None:
            raise InputError(
                f"{self} has neither infinity nor NaN that overflow could become",
                hint="let it saturate, or give it special values: ieee, fnuz, or fn at 8 bits and more",
            )

    @property
    def width(self) -> int:
        return 1 + self.exponent_bits + self.mantissa_bits

    @property
    def exponent(self) -> int:
        return 1 - self.exponent_bias - self.mantissa_bits

    @property
    def exponent_bias(self) -> int:
        """The bias that is subtracted from the exponent field."""
        return self._default_bias if self.bias is None else self.bias

    @property
    def signed(self) -> bool:
        return True

    @property
    def _default_bias(self) -> int:
        return (1 << (self.exponent_bits - 1)) - (self.special is not Special.FNUZ)

    @property
    def _sign(self) -> int:
        return 1 << (self.width - 1)

    @property
    def _infinity(self) -> int | None:
        return self._sign - (1 << self.mantissa_bits) if self.special is Special.IEEE else None

    @property
    def _nan(self) -> int | None:
        """The NaN that is written: quiet in IEEE formats."""
        if self._infinity is not None:
            return self._infinity + (1 << self.mantissa_bits - 1) if self.mantissa_bits else None
        if self.special is Special.FN and self.width >= 8:
            return self._sign - 1
        return self._sign if self.special is Special.FNUZ else None

    @property
    def _overflow(self) -> int | None:
        return self._nan if self._infinity is None else self._infinity

    def _listing(self) -> Listing:
        sign, infinity, first = self._sign, self._infinity, self._overflow
        magnitudes = self._magnitudes(sign + 1)
        reserved = [] if first is None else range(first, max(sign, first + 1))
        special = {code: math.inf if code == infinity else math.nan for code in reserved}
        return Listing(
            mantissas=np.concatenate([magnitudes[:sign], -magnitudes[:sign]]),
            special={**special, **{sign | code: -value for code, value in special.items()}},
            negative_zero=None if self.special is Special.FNUZ else sign,
            nan=None if self._nan is None else (self._nan, sign | self._nan),
            overflow=None if self.saturate or first is None else (sign | first, first),
            next_mantissa=int(magnitudes[sign if first is None else min(first, sign)]),
        )

    def _magnitudes(self, codes: int) -> IntArray:
        """The mantissas of the first codes, as if none of them were special."""
        code = np.arange(codes)
        fraction = code & ((1 << self.mantissa_bits) - 1)
        normal = fraction | 1 << self.mantissa_bits
        # Object arrays: with 8 exponent bits, mantissas have up to 262 bits.
        shifted = normal.astype(object) << np.maximum((code >> self.mantissa_bits) - 1, 0).astype(object)
        below = fraction if self.subnormals else np.zeros_like(fraction)
        return as_mantissas(np.where(code >> self.mantissa_bits == 0, below.astype(object), shifted))

    def operand(self) -> MultiplierOperand:
        """A significand and a shift; exponent fields 0 (subnormals) and 1 have the same weight."""
        return MultiplierOperand(
            "minifloat",
            self.mantissa_bits + 2 + (1 << self.exponent_bits) - 2,
            exponent_bits=self.exponent_bits,
            mantissa_bits=self.mantissa_bits,
            stored_bits=self.width,
            significant=self.mantissa_bits + 1,
        )

    @property
    def encoded_by_shifting(self) -> bool:
        return True

    def cpp_policy(self) -> str:
        fields = f"{self.exponent_bits}, {self.mantissa_bits}"
        return f"qhw::minifloat<{fields}, {str(self.subnormals).lower()}>"

    @classmethod
    def notation(cls) -> Notation:
        bits = (
            "write the bits: float8_e4m3fn is e4m3fn, float8_e4m3 is e4m3ieee, float16 e5m10ieee,"
            " bfloat16 e8m7ieee"
        )
        return Notation(
            "minifloat",
            r"e(\d{1,3})m(\d{1,3})",
            '"e" exponent bits "m" mantissa bits ["ieee" | "fn" | "fnuz"] ["@" bias]\n'
            '["<" ("nosubnormal" | rounding | "SAT" | "SPECIAL") {"," …} ">"]',
            ("e4m3", "e4m3fn", "e4m3fnuz", "e5m2ieee", "e4m3@7"),
            foreign={"float": bits, "bfloat": bits},
        )

    @classmethod
    def read(cls, start: re.Match[str], text: Reader) -> Minifloat:
        found = text.match(r"(ieee|fnuz|fn)(?!\w)")
        special = Special(found[1]) if found else Special.NONE
        bias = text.bias()
        options: set[str] = set()
        if text.take("<"):
            options = text.options(["nosubnormal"], ROUNDINGS, ENDS)
        elif bias is None:
            text.end("'@', '<' or the end" if found else "'ieee', 'fn', 'fnuz', '@', '<' or the end")
        subnormals, saturate = "nosubnormal" not in options, "SPECIAL" not in options
        rounding = rounding_among(options)
        return cls(int(start[1]), int(start[2]), bias, special, subnormals, rounding, saturate)

    def __str__(self) -> str:
        """The notation that ``parse_format`` reads; what is the default is left out."""
        bias = "" if self.exponent_bias == self._default_bias else f"@{self.bias}"
        options = [] if self.subnormals else ["nosubnormal"]
        options += [] if self.rounding is Rounding.RND_CONV else [self.rounding.value]
        options += [] if self.saturate else ["SPECIAL"]
        text = f"e{self.exponent_bits}m{self.mantissa_bits}{self.special.value}{bias}"
        return text + (f"<{','.join(options)}>" if options else "")
