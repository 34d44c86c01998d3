"""How the header library reads an element of a format: the C++ policies of ``qhw/operand.h`` and its kin."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import TypeGuard

import numpy as np

from qhw.errors import UnsupportedError
from qhw.flows.hls4ml.carry import FixedType, Stored
from qhw.formats.base import Format
from qhw.formats.integer import Integer
from qhw.formats.khot import KHot
from qhw.formats.modes import IntArray
from qhw.formats.shifts import shift_codes, shift_width
from qhw.formats.table import TableFormat

MOST_COMPARED = 8
"""Bits of a format that numbers reach by comparing with thresholds: what the pass makes them for."""

WIDEST_TABLE = 12
"""Bits of the widest code whose number is looked up."""

TABLES_HEADER = "tables.h"
"""The file of a project's header library with the numbers that are looked up."""


def operand_policy(format: Format) -> str:
    """The policy for an element that travels: a mantissa of an integer, or a code.

    Raises UnsupportedError for a format that the header library neither knows nor could look up.
    """
    if (policy := format.cpp_policy()) is not None:
        return policy
    if not is_looked_up(format):
        raise UnsupportedError(
            f"the hls4ml flow cannot read codes of {format}",
            allowed=f"formats that hls/include/qhw knows, others of at most {WIDEST_TABLE} bits",
        )
    return f"qhw::listed<qhw::tables::{_table_name(format)}>"


def is_read(format: Format) -> bool:
    """Whether the header library can read the format's elements at all."""
    return format.cpp_policy() is not None or is_looked_up(format)


def is_looked_up(format: Format) -> TypeGuard[TableFormat]:
    """Whether the header library has no circuit that reads the format, and finds its numbers in a table."""
    if not isinstance(format, TableFormat) or format.cpp_policy() is not None:
        return False
    return format.width <= WIDEST_TABLE and max(-format.mantissa_low, format.mantissa_high) < 1 << 62


def weight_policy(format: Format) -> str:
    """The policy for a stored weight: k-hot numbers are stored as shifts, those of no circuit as integers."""
    if isinstance(format, KHot):
        return f"qhw::khot<{format.width}, {format.k}, {str(format.csd).lower()}>"
    if is_looked_up(format):
        operand = _integers(format)
        return f"qhw::integer<{operand.bits}, {str(operand.signed).lower()}>"
    return operand_policy(format)


def stored_weights(format: Format, mantissas: IntArray) -> Stored:
    """Weights as ``weight_policy`` reads them."""
    if isinstance(format, KHot):
        return Stored.bits(shift_codes(format, mantissas), shift_width(format))
    if is_looked_up(format):
        return Stored(mantissas, 0, _integers(format))
    if isinstance(format, TableFormat):
        return Stored.bits(format.code_of(mantissas), format.width)
    return Stored(mantissas, 0, FixedType(format.width, format.signed, 0))


def _integers(format: Format) -> FixedType:
    """The type of a format's mantissas."""
    held = Integer.holding(format.mantissa_low, format.mantissa_high)
    return FixedType(held.bits, held.is_signed, 0)


def tables_header(formats: Iterable[TableFormat]) -> str:
    """The C++ header with a table of mantissas by code for each of the formats."""
    tables = {_table_name(format): format for format in formats}
    guard = "INCLUDE_QHW_TABLES_H_"
    text = [
        "// The numbers of this design's formats that are looked up, by code.",
        f"#ifndef {guard}",
        f"#define {guard}",
        "",
        "namespace qhw {",
        "namespace tables {",
    ]
    for name in sorted(tables):
        text += ["", *_table(name, tables[name])]
    return "\n".join([*text, "", "} // namespace tables", "} // namespace qhw", "#endif", ""])


def _table(name: str, format: TableFormat) -> list[str]:
    numbers = np.zeros(1 << format.width, dtype=np.int64)
    held = np.setdiff1d(format.codes(), list(format.special_codes))
    numbers[held] = format.mantissa_of(held)
    entries = ", ".join(map(str, numbers.tolist()))
    mantissa_width = _integers(format).bits + (not format.signed)
    has_zero = str(bool((format.numbers == 0).any())).lower()
    return [
        f"// {format}",
        f"struct {name} {{",
        f"    static const int width = {format.width}, mantissa_width = {mantissa_width};",
        f"    static const bool has_zero = {has_zero};",
        "    static long long number(unsigned code) {",
        f"        static const long long numbers[{numbers.size}] = {{{entries}}};",
        "        return numbers[code];",
        "    }",
        "};",
    ]


def _table_name(format: TableFormat) -> str:
    """A C++ name of the format's own: two formats share it where their codes are the same."""
    content = f"{format.width} {format.codes().tolist()} {format.decode(format.codes()).tolist()}"
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^a-z0-9]+', '_', str(format).lower()).strip('_')}_{digest}"


def has_encoder(format: TableFormat) -> bool:
    """Whether a number is rounded to the format by shifting; otherwise by comparing with thresholds."""
    return format.encoded_by_shifting


def ordinal(format: TableFormat, mantissa: int) -> int:
    """A number's place among the codes that the encoder counts: its magnitude's code, with its sign."""
    code = int(format.code_of([mantissa])[0])
    if not format.signed:
        return code
    sign = 1 << (format.width - 1)
    return -(code & ~sign) if code & sign else code
