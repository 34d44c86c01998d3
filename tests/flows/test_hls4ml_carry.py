"""Constants on their way into an hls4ml project: shifted and as float64, without a bit lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.errors import UnsupportedError
from qhw.flows.hls4ml.carry import Stored, scaled, to_float

SHIFTS = np.array([[0], [3], [62]])


@given(st.lists(st.integers(-(1 << 63), (1 << 63) - 1), min_size=1, max_size=6), st.integers(0, 70))
def test_constants_are_shifted_as_python_integers_are(values: list[int], shift: int) -> None:
    mantissas = np.array(values, dtype=np.int64)
    shifts = SHIFTS + shift
    got = scaled(mantissas, shifts)
    assert got.tolist() == [[value << int(s) for value in values] for s in shifts.flat]


def test_constants_within_64_bits_stay_int64() -> None:
    assert scaled(np.array([1, -3]), np.array([61])).dtype == np.int64
    assert scaled(np.array([1, -3]), np.array([62])).dtype == object
    assert scaled(np.zeros((0, 2), dtype=np.int64), np.array([62])).shape == (0, 2)


def test_a_constant_is_never_shifted_right() -> None:
    with pytest.raises(ValueError, match="negative shift"):
        scaled(np.array([4, 8]), np.array([0, -1]))


@pytest.mark.parametrize("dtype", [np.int64, object])
def test_constants_of_53_significant_bits_are_float64(dtype: type) -> None:
    values = [0, 1, -(1 << 53), (1 << 53) - 1, (1 << 53) + 2, 1 << 62, -(1 << 62) + (1 << 10)]
    got = to_float(np.array(values, dtype=dtype), -3, "fc1")
    assert [int(value * 8) for value in got] == values


@pytest.mark.parametrize("dtype", [np.int64, object])
@pytest.mark.parametrize("value", [(1 << 53) + 1, -(1 << 53) - 1, (1 << 63) - 1, 1 - (1 << 63)])
def test_a_constant_of_more_bits_is_refused_by_name(value: int, dtype: type) -> None:
    with pytest.raises(UnsupportedError, match="fc1: a constant needs more than 53 significant bits"):
        to_float(np.array([0, value], dtype=dtype), 0, "fc1")


@pytest.mark.parametrize(
    ("values", "bits", "signed"), [([3, 7], 3, False), ([-1, 7], 4, True), ([-(1 << 70), 1], 71, True)]
)
def test_units_take_the_narrowest_type(values: list[int], bits: int, signed: bool) -> None:
    kind = Stored.units(np.array(values, dtype=object)).type
    assert (kind.bits, kind.signed, kind.exponent) == (bits, signed, 0)
