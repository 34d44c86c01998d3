"""Fixed point and integers against exact fractions, and the text notation."""

from __future__ import annotations

import math
import re
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.errors import InputError, UnsupportedError
from qhw.formats import Fixed, Integer, Overflow, Rounding, parse_fixed, parse_format
from qhw.formats.modes import overflow_mantissa, requantize_mantissa


def rounded(value: Fraction, rounding: Rounding) -> int:
    """The definition of each mode, on exact fractions."""
    low, high = math.floor(value), math.ceil(value)
    away, inward = (high, low) if value > 0 else (low, high)
    fixed_side = {
        Rounding.TRN: low,
        Rounding.CEIL: high,
        Rounding.TRN_ZERO: inward,
        Rounding.UP: away,
    }
    if rounding in fixed_side:
        return fixed_side[rounding]
    if value - low != Fraction(1, 2):
        return low if value - low < Fraction(1, 2) else high
    ties = {
        Rounding.RND: high,
        Rounding.RND_MIN_INF: low,
        Rounding.RND_INF: away,
        Rounding.RND_ZERO: inward,
        Rounding.RND_CONV: low if low % 2 == 0 else high,
    }
    return ties[rounding]


def overflowed(value: int, fixed: Fixed) -> int:
    low, high = fixed.mantissa_low, fixed.mantissa_high
    if low <= value <= high and not (fixed.overflow is Overflow.SAT_SYM and value == low < 0):
        return value
    match fixed.overflow:
        case Overflow.SAT:
            return low if value < low else high
        case Overflow.SAT_ZERO:
            return 0
        case Overflow.SAT_SYM:
            smallest = -max(high, 1) if fixed.signed else 0
            return smallest if value < 0 else high
        case _:
            return (value - low) % (1 << fixed.width) + low


widths = st.integers(1, 90)
modes = st.tuples(
    st.sampled_from(Rounding), st.sampled_from([mode for mode in Overflow if mode is not Overflow.WRAP_SM])
)
formats = st.builds(
    lambda width, integer, signed, pair: Fixed(width, integer, signed, *pair),
    widths,
    st.integers(-70, 100),
    st.booleans(),
    modes,
)


@given(formats, st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_real_values_round_exactly(fixed: Fixed, values: list[float]) -> None:
    expected = [
        overflowed(rounded(Fraction(value) * Fraction(2) ** fixed.fraction, fixed.rounding), fixed)
        for value in values
    ]
    assert fixed.to_mantissa(values).tolist() == expected


@given(formats, st.integers(-80, 80), st.lists(st.integers(-(1 << 120), 1 << 120), min_size=1, max_size=5))
def test_exact_integers_of_any_size(fixed: Fixed, exponent: int, values: list[int]) -> None:
    factor = Fraction(2) ** (fixed.fraction + exponent)
    expected = [overflowed(rounded(Fraction(value) * factor, fixed.rounding), fixed) for value in values]
    assert fixed.from_mantissa(np.array(values, dtype=object), exponent).tolist() == expected


@given(formats, st.integers(-(1 << 62), 1 << 62), st.integers(-60, 130))
def test_int64_and_python_integers_agree(fixed: Fixed, value: int, bits: int) -> None:
    pair = (fixed.rounding, fixed.overflow)
    narrow = requantize_mantissa(np.array([value]), bits, fixed.width, fixed.signed, *pair)
    wide = requantize_mantissa(np.array([value], dtype=object), bits, fixed.width, fixed.signed, *pair)
    assert narrow.tolist() == wide.tolist()


@given(formats, st.data())
def test_codes_round_trip(fixed: Fixed, data: st.DataObject) -> None:
    codes = data.draw(st.lists(st.integers(0, (1 << fixed.width) - 1), min_size=1))
    mantissas = fixed.mantissa_of(np.array(codes, dtype=object))
    assert fixed.code_of(mantissas).tolist() == codes
    assert fixed.holds(mantissas)
    assert {code >> (fixed.width - 1) for code in codes} == {
        int(fixed.signed and mantissa < 0) if fixed.signed else int(mantissa >= 1 << (fixed.width - 1))
        for mantissa in mantissas
    }


@given(formats)
def test_text_round_trips_with_its_modes(fixed: Fixed) -> None:
    again = parse_fixed(str(fixed))
    assert (again, again.rounding, again.overflow) == (fixed, fixed.rounding, fixed.overflow)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fixed<8,3>", Fixed(8, 3)),
        (" ufixed< 4 , 4 > ", Fixed(4, 4, False)),
        ("fixed<6,-2>", Fixed(6, -2)),
        ("fixed<8>", Fixed(8)),
        ("ufixed<8,TRN>", Fixed(8, None, False)),
        ("int8", Integer(8)),
        ("uint4", Integer(4, False)),
        ("int8", Fixed(8, 8)),
    ],
)
def test_notation(text: str, expected: Fixed | Integer) -> None:
    assert parse_format(text) == expected
    assert hash(parse_format(text)) == hash(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fixed<0,3>", "1 to 512 bits, not 0"),
        ("fixed<8,999>", "-512 to 512"),
        ("ufixed<8,3,TRN,WRAP_SM>", "needs a sign bit"),
        ("int0", "positive number of bits"),
    ],
)
def test_impossible_formats_are_explained(text: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        parse_format(text)


def test_modes_take_no_part_in_equality() -> None:
    assert Fixed(8, 3) == Fixed(8, 3, True, Rounding.TRN, Overflow.WRAP)
    assert Fixed(8, 3) != Fixed(8, 3, False)
    assert Fixed(8, 3) != Fixed(8, 4)
    assert Fixed(8) != Fixed(8, 8)
    assert len({Fixed(8, 8), Integer(8), Fixed(8, 8, overflow=Overflow.WRAP)}) == 1


def test_every_value_in_code_order() -> None:
    values = Fixed(3, 1).enumerate()
    assert values.tolist() == [0, 0.25, 0.5, 0.75, -1, -0.75, -0.5, -0.25]
    assert Fixed(2, 4, False).enumerate().tolist() == [0, 4, 8, 12]
    with pytest.raises(InputError, match="2\\^21"):
        Fixed(21, 2).enumerate()


def test_a_binary_point_still_to_be_learned() -> None:
    with pytest.raises(InputError, match="still to be learned"):
        Fixed(8).quantize([1.0])
    learned = Fixed(8, None, False, Rounding.TRN, Overflow.WRAP).learned(3)
    assert (str(learned), learned.fraction) == ("ufixed<8,3,TRN,WRAP>", 5)


def test_cpp_types() -> None:
    assert Fixed(8, 3).cpp_type() == "ap_fixed<8,3,AP_RND_CONV,AP_SAT>"
    assert Fixed(4, 6, False, Rounding.TRN, Overflow.WRAP).cpp_type() == "ap_ufixed<4,6,AP_TRN,AP_WRAP>"
    assert (Integer(8).cpp_type(), Integer(4, False).cpp_type()) == ("ap_int<8>", "ap_uint<4>")
    with pytest.raises(UnsupportedError, match="CEIL"):
        Fixed(8, 3, rounding=Rounding.CEIL).cpp_type()


def test_values_that_no_format_holds() -> None:
    with pytest.raises(InputError, match="1 of 2 values are NaN"):
        Fixed(8, 3).to_mantissa([1.0, math.nan])
    with pytest.raises(InputError, match="WRAP"):
        Fixed(8, 3, overflow=Overflow.WRAP).to_mantissa([math.inf])
    assert Fixed(8, 3).to_mantissa([math.inf, -math.inf]).tolist() == [127, -128]
    with pytest.raises(InputError, match="128 is not a mantissa of fixed<8,3>"):
        Fixed(8, 3).code_of([3, 128])
    with pytest.raises(InputError, match="-1 is not a code"):
        Fixed(8, 3).mantissa_of(-1)


def test_bounds_replace_the_formats_own_when_it_saturates() -> None:
    values = np.arange(-10, 11)
    assert overflow_mantissa(values, 4, True, Overflow.SAT, 0, 6).tolist() == np.clip(values, 0, 6).tolist()
    inside = np.where((values < -2) | (values > 6), 0, values)
    assert overflow_mantissa(values, 4, True, Overflow.SAT_ZERO, -2, 6).tolist() == inside.tolist()
    with pytest.raises(InputError, match="does not saturate"):
        overflow_mantissa(values, 4, True, Overflow.WRAP, high=6)


def test_shapes_are_kept() -> None:
    assert Fixed(8, 3).to_mantissa(0.5).shape == ()
    assert Fixed(90, 3).to_mantissa(np.full((2, 0, 3), 0.5)).shape == (2, 0, 3)
    assert Fixed(90, 3).to_mantissa(np.full((2, 3), 0.5)).tolist() == [[1 << 86] * 3] * 2
    assert Fixed(90, 3).decode(Fixed(90, 3).encode(-0.75)) == -0.75
