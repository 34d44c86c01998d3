"""Minifloats against ml_dtypes, apytypes and qonnx: every code, every pair of neighbours, every midpoint."""

from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from apytypes import APyFixedArray, APyFloatArray, QuantizationMode
from hypothesis import given, settings
from hypothesis import strategies as st
from probes import FloatArray, probes, same

from qhw.errors import InputError
from qhw.formats import Minifloat, PowerOfTwo, Rounding, Special, TableFormat, parse_format

ML_DTYPES = {
    "float4_e2m1fn": "e2m1",
    "float6_e2m3fn": "e2m3",
    "float6_e3m2fn": "e3m2",
    "float8_e3m4": "e3m4ieee<SPECIAL>",
    "float8_e4m3": "e4m3ieee<SPECIAL>",
    "float8_e4m3fn": "e4m3fn<SPECIAL>",
    "float8_e4m3fnuz": "e4m3fnuz<SPECIAL>",
    "float8_e4m3b11fnuz": "e4m3fnuz@11<SPECIAL>",
    "float8_e5m2": "e5m2ieee<SPECIAL>",
    "float8_e5m2fnuz": "e5m2fnuz<SPECIAL>",
    "float8_e8m0fnu": "upow2<8,nozero,nan,SPECIAL>",
    "bfloat16": "e8m7ieee<SPECIAL>",
}

ROUNDINGS = {
    Rounding.RND: QuantizationMode.TIES_POS,
    Rounding.RND_ZERO: QuantizationMode.TIES_ZERO,
    Rounding.RND_MIN_INF: QuantizationMode.TIES_NEG,
    Rounding.RND_INF: QuantizationMode.TIES_AWAY,
    Rounding.RND_CONV: QuantizationMode.TIES_EVEN,
    Rounding.TRN: QuantizationMode.TO_NEG,
    Rounding.TRN_ZERO: QuantizationMode.TO_ZERO,
    Rounding.CEIL: QuantizationMode.TO_POS,
    Rounding.UP: QuantizationMode.TO_AWAY,
}

SHAPES = [(exponent, width - 1 - exponent) for width in range(3, 9) for exponent in range(1, width)]
"""Exponent and mantissa bits of every minifloat of 3 to 8 bits."""


def finite(format: TableFormat) -> FloatArray:
    values = format.enumerate()
    return values[np.isfinite(values)]


def test_every_float_of_ml_dtypes_is_tested() -> None:
    floats = {name for name in dir(ml_dtypes) if name.startswith(("float", "bfloat"))}
    assert floats == set(ML_DTYPES)


@pytest.mark.parametrize("name", ML_DTYPES)
def test_codes_and_rounding_are_those_of_ml_dtypes(name: str) -> None:
    theirs, ours = np.dtype(getattr(ml_dtypes, name)), parse_format(ML_DTYPES[name])
    assert isinstance(ours, TableFormat)
    storage = np.uint16 if theirs.itemsize == 2 else np.uint8
    codes = np.arange(1 << ours.width)
    with np.errstate(invalid="ignore"):
        expected = codes.astype(storage).view(theirs).astype(np.float64)
    assert same(ours.decode(codes), expected)
    # From float32, since ml_dtypes rounds float64 to float32 first, and so twice.
    values = probes(finite(ours), np.float32)
    if name == "float8_e8m0fnu":
        values = values[(values <= 2.0**-127) | (values >= 2.0**-126)]
    with np.errstate(all="ignore"):
        written = values.astype(np.float32).astype(theirs).view(storage)
    assert np.array_equal(ours.encode(values), written)
    if ours.has_nan:
        nan = np.array([np.nan, -np.nan])
        assert np.array_equal(ours.encode(nan), nan.astype(theirs).view(storage))


def test_codes_and_rounding_are_those_of_ieee_half_precision() -> None:
    half = Minifloat(5, 10, special=Special.IEEE, saturate=False)
    codes = np.arange(1 << 16)
    assert same(half.decode(codes), codes.astype(np.uint16).view(np.float16).astype(np.float64))
    values = probes(finite(half))
    with np.errstate(all="ignore"):
        assert np.array_equal(half.encode(values), values.astype(np.float16).view(np.uint16))


def rounded_by_apytypes(values: FloatArray, exponent_bits: int, format: Minifloat) -> FloatArray:
    """Values through apytypes, with this many exponent bits and the format's bias and mode.

    Between the largest subnormal and the smallest normal number, where its cast loses the carry, through
    its fixed point: the grid is uniform there.
    """
    double = APyFloatArray.from_array(values, 11, 52)
    mode, fraction = ROUNDINGS[format.rounding], -format.exponent
    cast = np.asarray(double.cast(exponent_bits, format.mantissa_bits, format.exponent_bias, mode).to_numpy())
    smallest, step = 2.0 ** (1 - format.exponent_bias), 2.0**format.exponent
    between = (np.abs(values) > smallest - step) & (np.abs(values) < smallest)
    fixed = APyFixedArray.from_array(values[between], int_bits=64, frac_bits=1100)
    uniform = np.asarray(fixed.cast(int_bits=64, frac_bits=fraction, quantization=mode).to_numpy())
    if exponent_bits == 1 and format.special is Special.IEEE:
        uniform = np.where(np.abs(uniform) == smallest, np.inf, uniform)
    cast[between] = np.copysign(uniform, values[between])
    return cast


def comparable(format: Minifloat) -> bool:
    """With one significant bit apytypes breaks ties downwards; IEEE 754 and ml_dtypes say the larger one."""
    return format.mantissa_bits > 0 or format.rounding is not Rounding.RND_CONV


@pytest.mark.parametrize(("exponent", "mantissa"), SHAPES)
@pytest.mark.parametrize("offset", [0, 5])
def test_ieee_minifloats_are_those_of_apytypes(exponent: int, mantissa: int, offset: int) -> None:
    bias = (1 << (exponent - 1)) - 1 + offset
    codes = np.arange(2 << (exponent + mantissa))
    theirs = APyFloatArray.from_bits(codes.tolist(), exponent, mantissa, bias)
    plain = Minifloat(exponent, mantissa, bias, Special.IEEE)
    assert same(plain.decode(codes), np.asarray(theirs.to_numpy()))
    values = probes(np.append(finite(plain), plain.decode(1) if mantissa else 2.0**-bias))
    for rounding in Rounding:
        format = Minifloat(exponent, mantissa, bias, Special.IEEE, rounding=rounding, saturate=False)
        if comparable(format):
            assert same(format.quantize(values), rounded_by_apytypes(values, exponent, format)), rounding


def beyond_the_range(rounded: FloatArray, format: Minifloat) -> FloatArray:
    """What a wider format's result becomes in this one: nothing else differs between the two."""
    high = math.ldexp(format.mantissa_high, format.exponent)
    bounded = np.clip(rounded, -high, high)
    if format.saturate:
        return bounded
    upwards = format.rounding not in (Rounding.TRN, Rounding.TRN_ZERO)
    downwards = format.rounding not in (Rounding.CEIL, Rounding.TRN_ZERO)
    leaves = np.where(rounded > 0, upwards, downwards) | np.isinf(rounded)
    return np.where((np.abs(rounded) > high) & leaves, np.nan, bounded)


@pytest.mark.parametrize(("exponent", "mantissa"), SHAPES)
def test_other_special_values_against_a_wider_apytypes_format(exponent: int, mantissa: int) -> None:
    """One more exponent bit with the same bias: the same numbers, and room above them."""
    for special in Special:
        first = Minifloat(exponent, mantissa, special=special)
        values = probes(finite(first))
        for rounding in Rounding:
            # How IEEE formats overflow is compared above, with apytypes itself.
            for saturate in [True, False] if first.has_nan and special is not Special.IEEE else [True]:
                format = Minifloat(exponent, mantissa, None, special, True, rounding, saturate)
                if not comparable(format):
                    continue
                wider = rounded_by_apytypes(values, exponent + 1, format)
                # apytypes keeps infinity out where it rounds towards zero; it is an input here.
                expected = beyond_the_range(np.where(np.isinf(values), values, wider), format)
                if special is Special.FNUZ:
                    expected = expected + 0.0
                assert same(format.quantize(values), expected), format


@pytest.mark.parametrize(("exponent", "mantissa"), [(2, 0), (4, 0), (4, 3), (5, 2), (2, 5)])
def test_finite_minifloats_round_as_the_float_quantizer_of_qonnx(exponent: int, mantissa: int) -> None:
    from qonnx.custom_op.general.floatquant import float_quant

    format = Minifloat(exponent, mantissa)
    values = probes(finite(format))
    values = values[(np.abs(values) < 1e31) & (np.abs(values) > 1e-20)]
    expected = float_quant(values, 1.0, exponent, mantissa)
    assert np.array_equal(format.quantize(values), expected)


def nearest_even(value: Fraction, numbers: list[Fraction]) -> set[Fraction]:
    least = min(abs(number - value) for number in numbers)
    return {number for number in numbers if abs(number - value) == least}


@pytest.mark.parametrize("text", ["e3m3<nosubnormal>", "e3m2ieee<nosubnormal>", "e2m3@4<nosubnormal>"])
def test_without_subnormals_the_lowest_exponent_is_zero(text: str) -> None:
    format = parse_format(text)
    assert isinstance(format, Minifloat)
    whole = Minifloat(format.exponent_bits, format.mantissa_bits, format.bias, format.special)
    smallest = 2.0 ** (1 - format.exponent_bias)
    values = whole.enumerate()
    expected = np.where(np.abs(values) < smallest, np.copysign(0.0, values), values)
    assert same(format.enumerate(), expected)
    subnormal = np.arange(1 << format.mantissa_bits)
    assert not format.canonical(subnormal).any()
    inputs = probes(finite(format))
    inputs = inputs[np.isfinite(inputs)]
    numbers = sorted({Fraction(number) for number in finite(format)})
    for value, rounded in zip(inputs, format.quantize(inputs), strict=True):
        assert Fraction(rounded) in nearest_even(Fraction(value), numbers)
    assert format.quantize([smallest / 2, -smallest / 2, 0.75 * smallest]).tolist() == [0, 0, smallest]


mixed = st.sampled_from(
    [
        "e4m3",
        "e5m2ieee<SPECIAL>",
        "e3m2@9<TRN>",
        "e4m3fn<UP,SPECIAL>",
        "e2m1",
        "e8m7ieee",
        "pow2<4>",
        "khot<8,2>",
    ]
    + [f"e3m4fnuz<{mode.value},SPECIAL>" for mode in Rounding]
    + [f"khot<7,2,csd,{mode.value}>" for mode in Rounding]
)


@settings(deadline=None)
@given(mixed, st.lists(st.integers(-(1 << 40), 1 << 40), min_size=1), st.integers(-60, 60))
def test_exact_numbers_round_as_the_same_float64_does(text: str, mantissas: list[int], exponent: int) -> None:
    format = parse_format(text)
    values = np.ldexp(np.array(mantissas, dtype=np.float64), exponent)
    codes = format.encode(values)
    assert np.array_equal(format.encode_mantissa(mantissas, exponent), codes)
    wide = np.array([mantissa << 100 for mantissa in mantissas], dtype=object)
    assert np.array_equal(format.encode_mantissa(wide, exponent - 100), codes)


@settings(deadline=None)
@given(mixed, st.data())
def test_one_bit_far_behind_decides_a_tie(text: str, data: st.DataObject) -> None:
    format = parse_format(text)
    assert isinstance(format, TableFormat)
    numbers = np.unique(finite(format))
    place = data.draw(st.integers(0, len(numbers) - 2))
    low, high = Fraction(numbers[place]), Fraction(numbers[place + 1])
    middle = int((low + high) / 2 * Fraction(2) ** 400)
    beside = np.array([middle - 1, middle + 1], dtype=object)
    codes = format.encode_mantissa(beside, -400)
    if format.rounding.value.startswith("RND"):
        assert format.decode(codes).tolist() == [low, high]
    else:
        assert len(set(format.decode(codes).tolist())) == 1


def test_every_mantissa_and_code_round_trips() -> None:
    for text in ("e4m3", "e5m2ieee", "e2m5fnuz", "e8m7ieee", "e3m0", "e3m2<nosubnormal>"):
        format = parse_format(text)
        codes = np.setdiff1d(format.codes(), list(format.special_codes))
        mantissas = format.mantissa_of(codes)
        assert np.array_equal(format.code_of(mantissas), format.canonical(codes))
        exact = [math.ldexp(int(mantissa), format.exponent) for mantissa in mantissas]
        assert format.decode(codes).tolist() == exact
        assert format.holds(mantissas)
        assert (format.mantissa_low, format.mantissa_high) == (mantissas.min(), mantissas.max())


def test_zero_keeps_its_sign_until_codes_are_compared() -> None:
    e4m3 = Minifloat(4, 3)
    codes = e4m3.encode([0.0, -0.0, -1e-9, 1.0, -1.0])
    assert codes.tolist() == [0, 0x80, 0x80, 0x38, 0xB8]
    assert np.signbit(e4m3.decode(codes)).tolist() == [False, True, True, False, True]
    assert e4m3.canonical(codes).tolist() == [0, 0, 0, 0x38, 0xB8]
    assert e4m3.mantissa_of(codes).tolist() == [0, 0, 0, 512, -512]
    assert e4m3.code_of([0]).tolist() == [0]
    assert Minifloat(4, 3, special=Special.FNUZ).encode([-0.0, -1e-9]).tolist() == [0, 0]
    assert e4m3.encode_mantissa([-1, 1], -60).tolist() == [0x80, 0]


def test_ranges_of_the_well_known_ones() -> None:
    highest = {
        "e4m3": 480,
        "e4m3fn": 448,
        "e4m3fnuz": 240,
        "e5m2ieee": 57344,
        "e3m2": 28,
        "e2m3": 7.5,
        "e2m1": 6,
    }
    for text, value in highest.items():
        format = parse_format(text)
        assert math.ldexp(format.mantissa_high, format.exponent) == value
        assert math.ldexp(format.mantissa_low, format.exponent) == -value
        assert format.signed
    assert (Minifloat(4, 3).exponent, Minifloat(4, 3, 11).exponent) == (-9, -13)


def test_special_codes() -> None:
    assert dict(Minifloat(4, 3).special_codes) == {}
    assert list(Minifloat(4, 3, special=Special.FN).special_codes) == [0x7F, 0xFF]
    assert list(Minifloat(4, 3, special=Special.FNUZ).special_codes) == [0x80]
    ieee = Minifloat(5, 2, special=Special.IEEE)
    assert {code for code, value in ieee.special_codes.items() if math.isinf(value)} == {0x7C, 0xFC}
    assert (ieee.has_nan, ieee.has_infinity) == (True, True)
    assert ieee.canonical([0x7C, 0x7F, 0xFE]).tolist() == [0x7C, 0x7F, 0xFE]


def test_what_no_mantissa_and_no_code_stands_for() -> None:
    e4m3, e4m3fn = Minifloat(4, 3), Minifloat(4, 3, special=Special.FN, saturate=False)
    with pytest.raises(InputError, match="1 of 2 values are NaN, which e4m3 does not hold"):
        e4m3.encode([1.0, math.nan])
    with pytest.raises(InputError, match="0x7f of e4m3fn<SPECIAL> is nan"):
        e4m3fn.to_mantissa([1.0, 1e6])
    with pytest.raises(InputError, match="0x7f of e4m3fn<SPECIAL> is nan"):
        e4m3fn.from_mantissa([1 << 40], 0)
    with pytest.raises(InputError, match="17 is not a mantissa of e4m3"):
        e4m3.code_of([16, 17])
    assert not e4m3.holds([16, 17])
    with pytest.raises(InputError, match="256 is not a code of e4m3"):
        e4m3.decode([256])
    assert e4m3.to_mantissa([math.inf, -1e300]).tolist() == [e4m3.mantissa_high, e4m3.mantissa_low]


def test_shapes_are_kept() -> None:
    e4m3 = Minifloat(4, 3)
    for shape in [(), (0,), (2, 0, 3), (2, 3)]:
        values = np.full(shape, 0.4)
        assert e4m3.encode(values).shape == e4m3.quantize(values).shape == shape
        assert e4m3.to_mantissa(values).shape == e4m3.from_mantissa(np.ones(shape, int), -2).shape == shape
    assert e4m3.encode(0.5) == 0x30
    assert PowerOfTwo(4).encode(np.array(3)).shape == ()


def test_where_the_oracles_are_wrong() -> None:
    """What is left out above, or taken another way: should one of these change, compare it directly."""
    tie = APyFloatArray.from_float([3.0], 8, 23).cast(4, 0, 7, QuantizationMode.TIES_EVEN)
    assert tie.to_numpy().tolist() == [2.0]
    assert Minifloat(4, 0).quantize([3.0, -3.0, 1.5]).tolist() == [4.0, -4.0, 2.0]
    almost_normal = 2.0**-6 * 0.99
    lost = APyFloatArray.from_float([almost_normal], 8, 23).cast(4, 3, 7, QuantizationMode.TIES_EVEN)
    assert lost.to_numpy().tolist() == [0.0]
    assert Minifloat(4, 3).quantize([almost_normal]).tolist() == [2.0**-6]
    below_a_tie = np.array([1.25 * 2.0**-127])
    away = below_a_tie.astype(np.float32).astype(ml_dtypes.float8_e8m0fnu).astype(np.float64)
    assert away.tolist() == [2.0**-126]
    assert parse_format("e8m0fnu").quantize(below_a_tie).tolist() == [2.0**-127]
