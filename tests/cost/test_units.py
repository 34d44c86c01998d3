"""Cost formulas against counts that are known otherwise: published results, brute force, definitions."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.cost import units


@pytest.mark.parametrize(
    ("size", "vivado_hls"), [(8, 2023), (16, 7445), (32, 28032), (64, 108772)], ids=lambda value: str(value)
)
def test_how_far_the_matrix_unit_is_from_published_results(size: int, vivado_hls: int) -> None:
    """Vivado HLS 2020.1, xczu3eg, 4 x 4 bits, PE = SIMD (arXiv 2201.11409): the formula is too high."""
    unit = units.matrix_unit(
        inputs=size,
        outputs=size,
        product=units.multiplier(4, 4, "ultrascale-plus"),
        product_bits=8,
        accumulator_bits=8 + np.log2(size),
        reuse=1,
    )
    assert 1.5 < float(unit.lut) / vivado_hls < 1.7
    assert unit.dsp == 0


def test_multipliers_move_to_dsp_slices_from_nine_bits_on() -> None:
    bits = np.arange(2, 9)
    one = units.multiplier(bits[:, None], bits[None, :], "7series")
    in_lut = bits[:, None] + bits[None, :] <= 8
    assert ((one.dsp == 0) == in_lut).all()
    assert ((one.lut > 0) == in_lut).all()


@pytest.mark.parametrize(
    ("a", "b", "family", "slices"),
    [
        (8, 8, "7series", 1),
        (25, 18, "7series", 1),
        (26, 18, "7series", 2),
        (26, 18, "ultrascale-plus", 1),
        (18, 27, "ultrascale-plus", 1),
        (28, 18, "ultrascale-plus", 2),
        (27, 19, "ultrascale-plus", 2),
        (53, 35, "ultrascale-plus", 4),
    ],
)
def test_dsp_slices_by_port_width(a: int, b: int, family: str, slices: int) -> None:
    assert units.dsp_slices(a, b, family) == slices


@given(st.integers(1, 40_000), st.integers(1, 2000))
def test_block_rams_hold_the_memory_in_the_best_shape(depth: int, width: int) -> None:
    blocks = int(units.bram18(depth, width))
    assert blocks * 18 * 1024 >= depth * width
    shapes = [(-(-depth // d)) * (-(-width // w)) for d, w in units.BRAM18_SHAPES]
    assert blocks == min(shapes)


def test_block_rams_of_arrays() -> None:
    assert units.bram18(np.array([512, 513, 1024, 16384]), np.array([36, 36, 18, 1])).tolist() == [1, 2, 1, 1]


@given(st.lists(st.integers(-(1 << 40), 1 << 40), min_size=1, max_size=8))
def test_significant_bits(values: list[int]) -> None:
    expected = [len(bin(abs(value))[2:].strip("0")) for value in values]
    assert units.significant_bits(np.array(values)).tolist() == expected


def test_signed_digits_are_as_few_as_can_be() -> None:
    """Against every sum of at most five signed powers of two."""
    powers = [sign << exponent for exponent in range(9) for sign in (1, -1)]
    fewest = {0: 0}
    for count in range(1, 6):
        for chosen in itertools.combinations(powers, count):
            fewest.setdefault(sum(chosen), count)
    values = np.arange(-127, 128)
    assert units.signed_digits(values).tolist() == [fewest[int(value)] for value in values]


def test_unrolled_constants_are_priced_by_their_bits_and_folded_ones_by_finns_formula() -> None:
    unit = units.matrix_unit(
        inputs=9,
        outputs=16,
        product=units.multiplier(8, 8, "ultrascale-plus"),
        product_bits=16,
        accumulator_bits=20,
        reuse=np.array([1, 9, 144]),
        unrolled_lut=5000.0,
    )
    assert unit.dsp.tolist() == [0, 16, 1]
    assert unit.lut.tolist() == pytest.approx([5000, 300 + 1.1 * 16 * (16 + 20), 300 + 1.1 * (16 + 20)])


def test_thresholds_compare_at_once_while_few_and_bisect_when_many() -> None:
    one = units.threshold(20, np.array([15, 255]), 8)
    assert one.lut.tolist() == [15 * 10 + 15, 8 * 20 + 4 * 20]


def test_requantising_costs_what_the_modes_need() -> None:
    def lut(*, dropped: int, rounds: bool, clips: bool) -> float:
        return float(units.requantise(20, 8, dropped, rounds, clips).lut)

    assert lut(dropped=0, rounds=True, clips=False) == 0
    assert lut(dropped=6, rounds=False, clips=False) == 0
    assert lut(dropped=6, rounds=True, clips=False) == 9 + 2
    assert lut(dropped=6, rounds=False, clips=True) == 2 + 8


def test_memories_change_their_kind_with_depth() -> None:
    weights = units.weight_memory(np.array([1, 64, 512]), 72)
    assert (weights.lut.tolist(), weights.bram18.tolist()) == ([0, 72, 0], [0, 0, 2])
    stream = units.fifo(np.array([2, 8, 9, 784]), 128)
    assert stream.bram18.tolist() == [0, 0, 4, 8]
    assert units.table_memory(np.array([256, 65536]), 8).bram18.tolist() == [0, 32]


def test_usage_adds_and_multiplies() -> None:
    total = units.adder(8) + units.maximum(8).times(2)
    assert (total.lut, total.ff, total.dsp, total.bram18) == (32, 24, 0, 0)
