"""K-hot, powers of two, binary and ternary against their definitions; every mode against exact fractions."""

from __future__ import annotations

import itertools
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from probes import probes
from qonnx.custom_op.general.bipolar_quant import binary_quant
from qonnx.custom_op.general.intquant import int_quant

from qhw.errors import InputError
from qhw.formats import (
    Binary,
    Fixed,
    Integer,
    KHot,
    Overflow,
    PowerOfTwo,
    Rounding,
    TableFormat,
    Ternary,
    parse_format,
)

KHOTS = [(width, k, csd) for width in range(2, 9) for k in range(1, width) for csd in (False, True)]


def magnitudes_of_khot(width: int, k: int, csd: bool) -> set[int]:
    """Every sum of at most k powers of two (of either sign), as the definition says."""
    signs = (1, -1) if csd else (1,)
    terms = [sign << place for place in range(width) for sign in signs]
    sums = {sum(chosen) for count in range(k + 1) for chosen in itertools.combinations(terms, count)}
    return {total for total in sums if 0 <= total < 1 << (width - 1)}


@pytest.mark.parametrize(("width", "k", "csd"), [shape for shape in KHOTS if not shape[2] or shape[1] <= 3])
def test_khot_holds_the_sums_of_k_powers_of_two(width: int, k: int, csd: bool) -> None:
    khot = KHot(width, k, csd)
    magnitudes = magnitudes_of_khot(width, k, csd)
    sign = 1 << (width - 1)
    expected = {magnitude: magnitude for magnitude in magnitudes}
    expected |= {sign | magnitude: -magnitude for magnitude in magnitudes}
    assert dict(zip(khot.codes().tolist(), khot.enumerate().tolist(), strict=True)) == expected
    assert khot.mantissa_high == -khot.mantissa_low == max(magnitudes)


@pytest.mark.parametrize(("width", "k", "csd"), KHOTS)
def test_khot_takes_the_nearest_and_the_even_one_of_two(width: int, k: int, csd: bool) -> None:
    khot = KHot(width, k, csd)
    numbers = np.unique(khot.enumerate())
    values = probes(numbers)
    values = values[np.isfinite(values) & (np.abs(values) < 1e6)]
    distance = np.abs(values[:, None] - numbers)
    nearest = distance == distance.min(axis=1, keepdims=True)
    low, high = numbers[nearest.argmax(axis=1)], numbers[len(numbers) - 1 - nearest[:, ::-1].argmax(axis=1)]
    gap = np.where(high > low, high - low, 1)
    assert not (low % gap).any(), "every gap divides both of its ends, so one of them is an even multiple"
    assert np.array_equal(khot.quantize(values), np.where((high / gap) % 2 == 0, high, low))


def test_khot_with_all_its_ones_is_a_symmetric_integer() -> None:
    values = probes(np.arange(-127.0, 128.0))
    for rounding in Rounding:
        khot = KHot(8, 7, rounding=rounding)
        fixed = Fixed(8, 8, True, rounding, Overflow.SAT_SYM)
        assert np.array_equal(khot.to_mantissa(values), fixed.to_mantissa(values)), rounding


def test_khot_codes_are_sign_and_magnitude() -> None:
    khot = KHot(8, 2)
    assert khot.encode([5, 7, -7, -0.0, 127, 1000, -1000]).tolist() == [5, 8, 0x88, 0x80, 96, 96, 0xE0]
    assert KHot(8, 2, csd=True).encode([7, 11, 127]).tolist() == [7, 12, 127]
    assert khot.canonical([0x80, 0x88]).tolist() == [0, 0x88]
    for wrong in (7, 0x87):
        with pytest.raises(InputError, match=f"{wrong:#x} is not a code of khot<8,2>"):
            khot.mantissa_of([1, wrong])
    assert khot.holds([3, 5, -96])
    assert not khot.holds([7])


def rounded(value: Fraction, numbers: list[Fraction], rounding: Rounding) -> Fraction:
    """The definition of each mode, between neighbours that may be any distance apart."""
    low = max((number for number in numbers if number <= value), default=numbers[0])
    high = min((number for number in numbers if number >= value), default=numbers[-1])
    inward, away = (low, high) if low >= 0 else (high, low)
    sides = {Rounding.TRN: low, Rounding.CEIL: high, Rounding.TRN_ZERO: inward, Rounding.UP: away}
    if rounding in sides or value <= numbers[0] or value >= numbers[-1]:
        return sides.get(rounding, low) if numbers[0] <= value <= numbers[-1] else min(max(value, low), high)
    if value - low != high - value:
        return low if value - low < high - value else high
    gap = high - low
    ties = {
        Rounding.RND: high,
        Rounding.RND_MIN_INF: low,
        Rounding.RND_ZERO: inward,
        Rounding.RND_INF: away,
        Rounding.RND_CONV: low if gap == 0 or low / gap % 2 == 0 else high,
    }
    return ties[rounding]


shapes = st.sampled_from(["khot<6,2", "khot<6,2,csd", "pow2<4", "upow2<3,nozero", "khot<2,1", "upow2<3,nan"])


@settings(deadline=None)
@given(shapes, st.sampled_from(Rounding), st.integers(-200, 200), st.integers(-6, 2))
def test_every_mode_as_defined(shape: str, rounding: Rounding, mantissa: int, exponent: int) -> None:
    format = parse_format(f"{shape},{rounding.value}>")
    finite = format.enumerate()
    numbers = sorted({Fraction(number) for number in finite[np.isfinite(finite)]})
    value = Fraction(mantissa) * Fraction(2) ** exponent
    expected = float(rounded(min(max(value, numbers[0]), numbers[-1]), numbers, rounding))
    assert format.decode(format.encode_mantissa([mantissa], exponent)).tolist() == [expected]
    assert format.quantize([float(value)]).tolist() == [expected]


def test_powers_of_two() -> None:
    assert PowerOfTwo(4).enumerate()[:8].tolist() == [0, 0.25, 0.5, 1, 2, 4, 8, 16]
    assert PowerOfTwo(3, 0, zero=False).enumerate().tolist() == [1, 2, 4, 8, -1, -2, -4, -8]
    assert PowerOfTwo(2, 3, is_signed=False, zero=False).enumerate().tolist() == [0.125, 0.25, 0.5, 1]
    with_nan = PowerOfTwo(4, nan=True)
    assert np.isnan(with_nan.decode([7, 15])).all()
    assert with_nan.encode([np.nan, -np.nan]).tolist() == [7, 15]
    assert with_nan.mantissa_high == 32
    assert PowerOfTwo(3, 0, zero=False).encode([0.0, -0.0, 0.1, -0.1, -1.5]).tolist() == [0, 0, 0, 4, 5]
    below = PowerOfTwo(8, None, False, False, True)
    assert below.encode([0.0, -3.0]).tolist() == [0, 0]
    assert PowerOfTwo(8, None, False, False, True, saturate=False).encode([0, -3, 1]).tolist() == [
        255,
        255,
        127,
    ]


def test_binary_is_the_bipolar_quantizer_of_qonnx() -> None:
    values = probes(np.array([-1.0, 0.0, 1.0]))
    assert np.array_equal(Binary().quantize(values), binary_quant(values, np.float64(1.0)))
    assert Binary().encode([-0.1, -0.0, 0.0, 3.0]).tolist() == [0, 1, 1, 1]
    assert Binary().encode_mantissa([-1, 0, 1], -70).tolist() == [0, 1, 1]
    assert Binary().code_of([-1, 1]).tolist() == [0, 1]
    assert not Binary().holds([0])


def test_ternary_is_a_narrow_two_bit_integer() -> None:
    values = probes(np.array([-1.0, 0.0, 1.0]))
    values = values[np.isfinite(values)]
    expected = int_quant(values, np.float64(1), np.float64(0), np.float64(2), 1, 1, "ROUND")
    assert np.array_equal(Ternary().quantize(values), expected)
    assert Ternary().codes().tolist() == [0, 1, 3]
    assert np.array_equal(Ternary().mantissa_of([0, 1, 3]), Integer(2).mantissa_of([0, 1, 3]))
    with pytest.raises(InputError, match="0x2 is not a code of ternary"):
        Ternary().decode([2])


@pytest.mark.parametrize("name", [name for name in dir(ml_dtypes) if name.lstrip("u").startswith("int")])
def test_integer_codes_are_those_of_ml_dtypes(name: str) -> None:
    integer = parse_format(name)
    assert isinstance(integer, Integer)
    codes = integer.codes()
    theirs = codes.astype(getattr(ml_dtypes, name)).astype(np.int64)
    assert np.array_equal(integer.mantissa_of(codes), theirs)
    assert np.array_equal(integer.code_of(theirs), codes)
    assert (integer.mantissa_low, integer.mantissa_high) == (theirs.min(), theirs.max())


def test_integers_round_exact_numbers_once() -> None:
    assert Integer(4).from_mantissa([5, 6, 7, -5, -6, 1000], -2).tolist() == [1, 2, 2, -1, -2, 7]
    assert Integer(8, False).encode_mantissa(np.array([-(1 << 80), 3 << 80], dtype=object), -80).tolist() == [
        0,
        3,
    ]


def test_listed_formats_say_what_they_are() -> None:
    for text in ("e4m3", "khot<8,2>", "pow2<4>", "binary", "ternary"):
        format = parse_format(text)
        assert isinstance(format, TableFormat)
        assert format.signed
        assert format.cpp_type() == f"ap_uint<{format.width}>"
    assert not PowerOfTwo(3, is_signed=False).signed
