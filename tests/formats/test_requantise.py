"""Requantisation against the definition in real numbers, for formats that list their codes."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from qhw.errors import InputError
from qhw.formats import Overflow, Rounding, parse_format
from qhw.formats.requantise import bounds, requantise, saturating
from qhw.formats.table import TableFormat

FORMATS = ["e4m3", "e4m3fn", "e3m2", "e2m1", "e5m2ieee", "khot<8,2>", "khot<6,2,csd>", "pow2<4>"]


def table(text: str) -> TableFormat:
    format = parse_format(text)
    assert isinstance(format, TableFormat)
    return format


def around(format: TableFormat, bits: int) -> np.ndarray:
    """Every number of a format, and every midpoint between two, one more and one less, in finer units."""
    fine = [int(number) << (bits + 1) for number in format.numbers]
    middles = [(a + b) // 2 for a, b in itertools.pairwise(fine)]
    return np.array([v + d for v in (*fine, *middles) for d in (-1, 0, 1)], dtype=object)


def nearest(value: Fraction, format: TableFormat) -> set[int]:
    distances = {int(number): abs(Fraction(int(number)) - value) for number in format.numbers}
    least = min(distances.values())
    return {number for number, distance in distances.items() if distance == least}


@pytest.mark.parametrize("text", FORMATS)
def test_to_the_nearest_by_true_distance(text: str) -> None:
    format, bits = table(text), 3
    values = around(format, bits)
    got = requantise(values, bits + 1, format, Rounding.RND_CONV, Overflow.SAT)
    step = max(1, len(values) // 300)
    for value, mantissa in zip(values[::step], got[::step], strict=True):
        assert int(mantissa) in nearest(Fraction(int(value), 1 << (bits + 1)), format)


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("rounding", list(Rounding))
def test_directed_modes_and_ties(text: str, rounding: Rounding) -> None:
    """Between two neighbours: which of them, by the mode's own definition on the real line."""
    format = table(text)
    numbers = [int(n) for n in format.numbers if n >= 0]
    for low, high in list(itertools.pairwise(numbers))[:64]:
        for sign in (1, -1):
            tie, above = sign * 4 * (low + high), sign * (4 * (low + high) + 1)
            got_tie, got_above = (
                int(requantise(np.array([v]), 3, format, rounding, Overflow.SAT)[0]) * sign
                for v in (tie, above)
            )
            up = {  # whether the magnitude grows
                Rounding.TRN: sign < 0,
                Rounding.TRN_ZERO: False,
                Rounding.CEIL: sign > 0,
                Rounding.UP: True,
            }
            ties = {
                Rounding.RND: sign > 0,
                Rounding.RND_MIN_INF: sign < 0,
                Rounding.RND_ZERO: False,
                Rounding.RND_INF: True,
            }
            if rounding in up:
                assert got_tie == got_above == (high if up[rounding] else low)
            else:
                assert got_above == high
                if rounding in ties:
                    assert got_tie == (high if ties[rounding] else low)
                else:
                    assert got_tie in (low, high)


def test_beyond_the_range_and_beyond_its_own_bounds() -> None:
    format = table("e3m2")
    far = np.array([10**30, -(10**30)], dtype=object)
    top = format.mantissa_high
    assert requantise(far, 0, format, Rounding.RND_CONV, Overflow.SAT).tolist() == [top, -top]
    assert requantise(far, 0, format, Rounding.RND_CONV, Overflow.SAT, 0, 40).tolist() == [40, 0]
    assert bounds(format, Overflow.SAT, 0) == (0, top)


def test_what_overflows_to_special_values_saturates_here() -> None:
    format = parse_format("e5m2ieee<SPECIAL>")
    assert isinstance(format, TableFormat)
    assert saturating(format, Rounding.TRN).encode([1e9]).tolist() == [0x7B]
    got = requantise(np.array([1 << 60]), 0, format, Rounding.RND_CONV, Overflow.SAT)
    assert got.tolist() == [format.mantissa_high]


def test_modes_that_a_format_has_not() -> None:
    with pytest.raises(InputError, match="e3m2 cannot overflow by WRAP"):
        requantise(np.array([1]), 0, table("e3m2"), Rounding.RND_CONV, Overflow.WRAP)
    with pytest.raises(InputError, match="ternary cannot round by CEIL"):
        requantise(np.array([1]), 0, table("ternary"), Rounding.CEIL, Overflow.SAT)
