"""Every format of up to 8 bits in every mode: each number, neighbour and midpoint, by the definitions."""

from __future__ import annotations

import numpy as np
import pytest
from probes import FloatArray, probes, same

from qhw.formats import KHot, Minifloat, PowerOfTwo, Rounding, Special, TableFormat, parse_format

SHAPES = [(exponent, width - 1 - exponent) for width in range(3, 9) for exponent in range(1, width)]
KHOTS = [(width, k) for width in range(2, 9) for k in range(1, width)]


def rounded(values: FloatArray, numbers: FloatArray, rounding: Rounding) -> FloatArray:
    """The mode as it is defined, between neighbours of any distance; beyond them, the nearest bound.

    "Towards zero" says nothing between a negative and a positive neighbour: there, to the nearest.
    """
    inside = np.clip(values, numbers[0], numbers[-1])
    place = np.clip(np.searchsorted(numbers, inside, side="right") - 1, 0, len(numbers) - 2)
    low, high = numbers[place], numbers[place + 1]
    middle, gap = (low + high) / 2, high - low  # both exact
    even = np.where((low % gap == 0) & (low / gap % 2 == 0), low, high)
    inward = np.where(low >= 0, low, high)
    ties = {
        Rounding.RND: high,
        Rounding.RND_MIN_INF: low,
        Rounding.RND_ZERO: np.where(low >= 0, low, high),
        Rounding.RND_INF: np.where(high > 0, high, low),
        Rounding.RND_CONV: even,
    }
    nearest = np.where(inside < middle, low, np.where(inside > middle, high, ties.get(rounding, high)))
    across = (low < 0) & (high > 0)
    directed = {
        Rounding.TRN: low,
        Rounding.CEIL: high,
        Rounding.TRN_ZERO: np.where(across, nearest, inward),
        Rounding.UP: np.where(across, nearest, np.where(low >= 0, high, low)),
    }
    found = np.where(inside == low, low, np.where(inside == high, high, directed.get(rounding, nearest)))
    return np.asarray(found, dtype=np.float64)


def check(format: TableFormat, numbers: FloatArray) -> None:
    values = probes(numbers)
    values = values[np.isfinite(values)]
    assert np.array_equal(format.quantize(values), rounded(values, numbers, format.rounding)), format


@pytest.mark.parametrize("rounding", list(Rounding))
def test_k_hot(rounding: Rounding) -> None:
    for width, k in KHOTS:
        for csd in (False, True):
            format = KHot(width, k, csd, rounding)
            check(format, np.unique(format.enumerate()))


@pytest.mark.parametrize("rounding", list(Rounding))
def test_powers_of_two(rounding: Rounding) -> None:
    for signed in (False, True):
        for zero in (False, True):
            for width in range(2 + signed, 5 + signed):
                format = PowerOfTwo(width, None, signed, zero, False, rounding)
                check(format, np.unique(format.enumerate()))


def without_subnormals(format: Minifloat, values: FloatArray) -> FloatArray:
    """From the format with subnormals, which apytypes vouches for; below the smallest, by definition."""
    whole = Minifloat(*format_fields(format), True, format.rounding, format.saturate)
    smallest = 2.0 ** (1 - format.exponent_bias)
    inside = np.abs(values) < smallest
    numbers = np.array([-smallest, 0.0, smallest])
    below = rounded(np.where(inside, values, 0.0), numbers, format.rounding)
    below = np.copysign(below, np.where(inside, values, 1.0))
    if format.special is Special.FNUZ:
        below = below + 0.0
    return np.where(inside, below, whole.quantize(values))


def format_fields(format: Minifloat) -> tuple[int, int, int | None, Special]:
    return format.exponent_bits, format.mantissa_bits, format.bias, format.special


@pytest.mark.parametrize(("exponent", "mantissa"), SHAPES)
def test_minifloats_without_subnormals(exponent: int, mantissa: int) -> None:
    for special in Special:
        if special is Special.IEEE and exponent == 1:
            continue  # nothing is left but zero
        first = Minifloat(exponent, mantissa, None, special, False)
        finite = first.enumerate()[np.isfinite(first.enumerate())]
        if np.unique(finite).size < 3:
            continue
        values = probes(finite)
        for rounding in Rounding:
            for saturate in [True, False] if first.has_nan else [True]:
                format = Minifloat(exponent, mantissa, None, special, False, rounding, saturate)
                assert same(format.quantize(values), without_subnormals(format, values)), format


def test_binary_and_ternary() -> None:
    check(parse_format("ternary"), np.array([-1.0, 0.0, 1.0]))
    check(parse_format("binary"), np.array([-1.0, 1.0]))
