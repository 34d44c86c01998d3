"""What formats turn into inside a multiplier."""

from __future__ import annotations

import pytest

from qhw.formats import parse_format
from qhw.formats.operand import product_width

TEXTS = ["e4m3", "e5m2", "e3m2", "e2m1", "int8", "uint4", "pow2<4>", "khot<8,2>", "ternary", "binary"]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("other", TEXTS)
def test_a_product_is_as_wide_as_the_largest_mantissas_need(text: str, other: str) -> None:
    a, b = parse_format(text), parse_format(other)
    ends = [x * y for x in (a.mantissa_low, a.mantissa_high) for y in (b.mantissa_low, b.mantissa_high)]
    needed = max((~end if end < 0 else end).bit_length() for end in ends) + (min(ends) < 0)
    assert needed <= product_width(a.operand(), b.operand()) <= needed + 2


@pytest.mark.parametrize("text", TEXTS)
def test_a_number_has_the_bits_that_its_mantissas_need(text: str) -> None:
    format = parse_format(text)
    needed = max(format.mantissa_high.bit_length(), (~format.mantissa_low).bit_length())
    operand = format.operand()
    assert needed + (format.mantissa_low < 0) <= operand.width <= needed + 1 + (format.mantissa_low < 0)
    assert operand.signed == (format.mantissa_low < 0)


def test_k_hot_is_stored_as_its_shifts() -> None:
    assert parse_format("khot<8,2>").operand().stored_bits == 1 + 2 * 3
    assert parse_format("khot<8,2,csd>").operand().stored_bits == 2 * (4 + 1)
