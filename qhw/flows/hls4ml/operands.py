"""How the header library reads an element of a format: the C++ policies of ``qhw/operand.h`` and its kin."""

from __future__ import annotations

from qhw.errors import UnsupportedError
from qhw.flows.hls4ml.carry import FixedType, Stored
from qhw.formats.base import Format
from qhw.formats.few_valued import Binary, Ternary
from qhw.formats.integer import Integer
from qhw.formats.khot import KHot
from qhw.formats.minifloat import Minifloat
from qhw.formats.modes import IntArray
from qhw.formats.power_of_two import PowerOfTwo
from qhw.formats.shifts import shift_codes, shift_width
from qhw.formats.table import TableFormat

MOST_COMPARED = 8
"""Bits of a format that numbers reach by comparing with thresholds: what the pass makes them for."""


def operand_policy(format: Format) -> str:
    """The policy for an element that travels: a mantissa of an integer, or a code."""
    match format:
        case Integer():
            return f"qhw::integer<{format.bits}, {_cpp(format.is_signed)}>"
        case Minifloat():
            fields = f"{format.exponent_bits}, {format.mantissa_bits}"
            return f"qhw::minifloat<{fields}, {_cpp(format.subnormals)}>"
        case KHot():
            return f"qhw::sign_magnitude<{format.width}>"
        case PowerOfTwo():
            return f"qhw::pow2<{format.field_bits}, {_cpp(format.is_signed)}, {_cpp(format.zero)}>"
        case Binary() | Ternary():
            return f"qhw::{format}"
    raise UnsupportedError(f"the header library reads no {format}")


def weight_policy(format: Format) -> str:
    """The policy for a stored weight: k-hot numbers are stored as the shifts that they cost."""
    if isinstance(format, KHot):
        return f"qhw::khot<{format.width}, {format.k}, {_cpp(format.csd)}>"
    return operand_policy(format)


def stored_weights(format: Format, mantissas: IntArray) -> Stored:
    """Weights as ``weight_policy`` reads them."""
    if isinstance(format, KHot):
        return Stored.bits(shift_codes(format, mantissas), shift_width(format))
    if isinstance(format, TableFormat):
        return Stored.bits(format.code_of(mantissas), format.width)
    return Stored(mantissas, 0, FixedType(format.width, format.signed, 0))


def has_encoder(format: TableFormat) -> bool:
    """Whether a number is rounded to the format by shifting; otherwise by comparing with thresholds."""
    return isinstance(format, Minifloat) or (isinstance(format, PowerOfTwo) and format.zero)


def ordinal(format: TableFormat, mantissa: int) -> int:
    """A number's place among the codes that the encoder counts: its magnitude's code, with its sign."""
    code = int(format.code_of([mantissa])[0])
    if not format.signed:
        return code
    sign = 1 << (format.width - 1)
    return -(code & ~sign) if code & sign else code


def _cpp(value: bool) -> str:
    return "true" if value else "false"
