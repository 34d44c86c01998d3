"""The notation of formats: every form, back to the same text, and what is said about the wrong ones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.errors import InputError
from qhw.formats import (
    Binary,
    Fixed,
    Format,
    Integer,
    KHot,
    Minifloat,
    Overflow,
    PowerOfTwo,
    Rounding,
    Special,
    Ternary,
    parse_fixed,
    parse_format,
)
from qhw.formats.parse import format_classes

roundings = st.sampled_from(Rounding)


@st.composite
def minifloats(draw: st.DrawFn) -> Minifloat:
    exponent_bits = draw(st.integers(1, 6))
    special = draw(st.sampled_from(Special))
    mantissa_bits = draw(st.integers(0, 9 - exponent_bits))
    has_special = special is not Special.NONE and (
        special is not Special.FN or exponent_bits + mantissa_bits > 6
    )
    return Minifloat(
        exponent_bits,
        mantissa_bits,
        draw(st.none() | st.integers(-512, 512)),
        special,
        draw(st.booleans()),
        draw(roundings),
        draw(st.booleans()) if has_special else True,
    )


@st.composite
def powers_of_two(draw: st.DrawFn) -> PowerOfTwo:
    nan = draw(st.booleans())
    return PowerOfTwo(
        draw(st.integers(3, 8)),
        draw(st.none() | st.integers(-512, 512)),
        draw(st.booleans()),
        draw(st.booleans()),
        nan,
        draw(roundings),
        draw(st.booleans()) if nan else True,
    )


khots = st.integers(2, 10).flatmap(
    lambda width: st.builds(KHot, st.just(width), st.integers(1, width - 1), st.booleans(), roundings)
)


@given(minifloats() | powers_of_two() | khots | st.sampled_from([Binary(), Ternary(), Integer(5)]))
def test_text_round_trips_with_everything_in_it(format: Format) -> None:
    again = parse_format(str(format))
    assert again == format
    assert hash(again) == hash(format)
    assert str(again) == str(format)
    assert getattr(again, "rounding", None) is getattr(format, "rounding", None)
    assert getattr(again, "saturate", None) is getattr(format, "saturate", None)


def test_every_class_reads_its_own_examples() -> None:
    """The classes of the package are all there, and none takes another's texts."""
    classes = format_classes()
    assert {Binary, Fixed, Integer, KHot, Minifloat, PowerOfTwo, Ternary} <= set(classes)
    assert len({kind.notation().name for kind in classes}) == len(classes)
    for kind in classes:
        for example in kind.notation().examples:
            format = parse_format(example)
            assert type(format) is kind, example
            assert parse_format(str(format)) == format


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("e4m3", Minifloat(4, 3)),
        ("e4m3fn", Minifloat(4, 3, special=Special.FN)),
        ("e4m3fnuz", Minifloat(4, 3, 8, Special.FNUZ)),
        ("e5m2ieee", Minifloat(5, 2, special=Special.IEEE)),
        ("e4m3@7", Minifloat(4, 3)),
        ("e3m2@-4", Minifloat(3, 2, -4)),
        ("e2m1fn", Minifloat(2, 1)),
        (" e4m3fn < nosubnormal , SPECIAL > ", Minifloat(4, 3, None, Special.FN, False)),
        ("khot<8,2>", KHot(8, 2)),
        ("khot< 8, 2 ,csd >", KHot(8, 2, True)),
        ("pow2<4>", PowerOfTwo(4)),
        ("upow2<8,nozero>@100", PowerOfTwo(8, 100, False, False)),
        ("e8m0fnu", PowerOfTwo(8, 127, False, False, True)),
        ("pow2<4>", Minifloat(3, 0)),
        ("binary", Binary()),
        ("ternary", Ternary()),
        ("fixed<8,TRN>", Fixed(8)),
    ],
)
def test_notation(text: str, expected: Format) -> None:
    assert parse_format(text) == expected
    assert hash(parse_format(text)) == hash(expected)


def test_modes_are_read() -> None:
    minifloat = parse_format("e5m2ieee<TRN,SPECIAL>")
    assert isinstance(minifloat, Minifloat)
    assert (minifloat.rounding, minifloat.saturate) == (Rounding.TRN, False)
    fixed = parse_format("ufixed<8,3,UP,WRAP>")
    assert isinstance(fixed, Fixed)
    assert (fixed.rounding, fixed.overflow) == (Rounding.UP, Overflow.WRAP)


def test_formats_differ_when_their_codes_do() -> None:
    texts = ["e4m3", "e4m3fn", "e4m3fnuz", "e4m3ieee", "e4m3@8", "e4m3<nosubnormal>", "e3m4", "khot<8,2>"]
    texts += ["khot<8,2,csd>", "int2", "ternary", "binary", "int1", "pow2<4>", "pow2<4,nozero>"]
    assert len({parse_format(text) for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("text", "place", "expected"),
    [
        ("", 1, "a format"),
        ("float32", 1, "a format"),
        ("E4M3", 1, "a format"),
        ("ternary2", 1, "a format"),
        ("int8 8", 6, "the end"),
        ("fixed<8", 8, "',' or '>'"),
        ("fixed<>", 7, "the width"),
        ("fixed<8,3,2>", 11, "a mode of rounding"),
        ("fixed<8,TRN,3>", 13, "a mode of overflow"),
        ("fixed<8,3,SAT>", 11, "a mode of rounding"),
        ("fixed<8,3,TRN,SAT,4>", 18, "'>'"),
        ("e4m3x", 5, "'ieee', 'fn', 'fnuz', '@', '<' or the end"),
        ("e4m3fn!", 7, "'@', '<' or the end"),
        ("e4m3@", 6, "the bias"),
        ("e4m3@7x", 7, "the end"),
        ("e4m3<TRN,UP>", 10, "an option (nosubnormal, SAT, SPECIAL)"),
        ("e4m3<TRN", 9, "',' or '>'"),
        ("khot<8>", 7, "','"),
        ("khot<8,two>", 8, "the most ones"),
        ("khot<8,2,cds>", 10, "an option (csd"),
        ("pow2<4,csd>", 8, "an option (nozero, nan"),
        ("  binary\tx", 10, "the end"),
    ],
)
def test_where_a_text_stops_being_a_format(text: str, place: int, expected: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_format(text)
    found = f"character {place} is {text[place - 1]!r}" if place <= len(text) else "the text ends"
    assert f"{text!r} is not a format: {found} where {expected}" in caught.value.message
    pointer = caught.value.message.splitlines()[-1]
    assert pointer == " " * (place + 1) + "^"
    assert 'minifloat = "e" exponent bits "m" mantissa bits' in str(caught.value)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("ap_fixed<8,3>", "without the prefix"),
        ("float8_e4m3", "float8_e4m3 is e4m3ieee"),
        ("fixed<8,3,TRM>", "did you mean TRN"),
        ("fixed<8,3,TRN,WRAPS>", "did you mean WRAP"),
        ("khot<8,2,cds>", "did you mean csd"),
        ("E4M3FN", "names in lower case"),
        ("Fixed<8,3,TRN>", "names in lower case"),
        ("ternery", "did you mean ternary?"),
    ],
)
def test_what_to_do_about_it(text: str, hint: str) -> None:
    with pytest.raises(InputError, match=re.escape(hint)):
        parse_format(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("e9m3", "1 to 8 exponent bits, not 9"),
        ("e0m3", "1 to 8 exponent bits, not 0"),
        ("e4m12", "0 to 11 mantissa bits, not 12"),
        ("e4m3@600", "-512 to 512"),
        ("e4m3<SPECIAL>", "neither infinity nor NaN"),
        ("e2m1fn<SPECIAL>", "neither infinity nor NaN"),
        ("khot<8,8>", "1 to 7 ones, not 8"),
        ("khot<17,2>", "2 to 16 bits, not 17"),
        ("pow2<1>", "2 to 9 bits, not 1"),
        ("upow2<9>", "1 to 8 bits, not 9"),
        ("pow2<4,SPECIAL>", "no NaN that overflow could become"),
        ("pow2<2,nan>", "nothing but zero and NaN"),
        ("e4m3" * 26, "104 characters"),
    ],
)
def test_impossible_formats_are_explained(text: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)):
        parse_format(text)


def test_only_fixed_point_where_it_is_asked_for() -> None:
    assert parse_fixed("int8") == Fixed(8, 8)
    with pytest.raises(InputError, match="'e4m3' is not a fixed-point format"):
        parse_fixed("e4m3")


@given(st.text("efixedkhotpow2binaryternary<>,@u mnz0123456789-", max_size=16))
def test_any_text_ends_in_a_format_or_one_message(text: str) -> None:
    try:
        format = parse_format(text)
    except InputError:
        return
    assert parse_format(str(format)) == format
