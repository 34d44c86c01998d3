"""Published formulas against counts that are known otherwise: published results, brute force, definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.cost.pricing import published


@pytest.mark.parametrize(
    ("size", "vivado_hls"), [(8, 2023), (16, 7445), (32, 28032), (64, 108772)], ids=lambda value: str(value)
)
def test_how_far_finns_formula_is_from_published_results(size: int, vivado_hls: int) -> None:
    """Vivado HLS 2020.1, xczu3eg, 4 x 4 bits, PE = SIMD (arXiv 2201.11409): the formula is too high."""
    lut = published.finn_matrix_unit(4, 4, lanes=size, elements=size, accumulator_bits=8 + np.log2(size))
    assert 1.5 < float(lut) / vivado_hls < 1.7


def test_a_single_bit_only_gates_the_other_operand() -> None:
    assert published.finn_multiplier(np.array([1, 8, 4]), np.array([8, 1, 4])).tolist() == [8, 8, 24]


def test_effective_bit_operations() -> None:
    assert published.ebops(np.array([4, 8]), 4, np.array([64, 1])).tolist() == [1024, 32]


@given(st.integers(1, 40_000), st.integers(1, 2000))
def test_block_rams_hold_the_memory_in_the_best_shape(depth: int, width: int) -> None:
    blocks = int(published.bram18(depth, width))
    assert blocks * 18 * 1024 >= depth * width
    shapes = [(-(-depth // d)) * (-(-width // w)) for d, w in published.BRAM18_SHAPES]
    assert blocks == min(shapes)


def test_block_rams_of_arrays() -> None:
    depths, widths = np.array([512, 513, 1024, 16384]), np.array([36, 36, 18, 1])
    assert published.bram18(depths, widths).tolist() == [1, 2, 1, 1]


@given(st.lists(st.integers(-(1 << 40), 1 << 40), min_size=1, max_size=8))
def test_significant_bits(values: list[int]) -> None:
    expected = [len(bin(abs(value))[2:].strip("0")) for value in values]
    assert published.significant_bits(np.array(values)).tolist() == expected


def test_signed_digits_are_as_few_as_can_be() -> None:
    """Against every sum of at most five signed powers of two."""
    powers = [sign << exponent for exponent in range(9) for sign in (1, -1)]
    fewest = {0: 0}
    for count in range(1, 6):
        for chosen in itertools.combinations(powers, count):
            fewest.setdefault(sum(chosen), count)
    values = np.arange(-127, 128)
    assert published.signed_digits(values).tolist() == [fewest[int(value)] for value in values]
