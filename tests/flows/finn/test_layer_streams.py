"""Words of AXI streams, against Python's integers and loops."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.flows.finn.layer_streams import Stream, chunks, read_words, write_words


def stream(shape: tuple[int, ...], lanes: int, bits: int, low: int, **window: int) -> Stream:
    return Stream("out0_V", "t", shape, lanes, bits, low, low + (1 << bits) - 1, **window)


def drawn(kind: Stream, count: int, seed: int = 1) -> np.ndarray:
    numbers = np.random.default_rng(seed).integers(kind.low, kind.high, (count, *kind.shape), endpoint=True)
    return numbers.astype(np.float32)


@given(st.integers(1, 23), st.integers(1, 9), st.booleans(), st.integers(0, 99))
def test_words_are_pythons_integers(bits: int, lanes: int, signed: bool, seed: int) -> None:
    kind = stream((2, 3 * lanes), lanes, bits, -(1 << (bits - 1)) if signed and bits > 1 else 0)
    values = drawn(kind, 2, seed)
    rows = kind.packed(values)
    assert rows.shape == (2 * kind.words, kind.row) == (12, -(-lanes * bits // 32))
    for row, elements in zip(rows, values.reshape(-1, lanes), strict=True):
        word = sum(int(part) << (32 * place) for place, part in enumerate(row))
        assert word == sum((int(x) % (1 << bits)) << (bits * lane) for lane, x in enumerate(elements))
    assert np.array_equal(kind.unpacked(rows), values.reshape(-1, lanes))
    assert kind.differences(rows, values) == (0, None)


def test_a_bipolar_number_is_a_bit() -> None:
    kind = Stream("in0_V", "t", (4,), 4, 1, -1, 1)
    values = np.array([[1.0, -1, -1, 1]])
    assert kind.packed(values).tolist() == [[0b1001]]
    assert np.array_equal(kind.unpacked(kind.packed(values)), values)


def test_a_depthwise_window_travels_in_blocks_of_channels() -> None:
    positions, channels, block = 4, 6, 2
    kind = stream((3, positions * channels), block, 5, -16, window=positions, block=block)
    values = drawn(kind, 2)
    expected = [
        [values[n, pixel, position * channels + first + c] for c in range(block)]
        for n in range(2)
        for pixel in range(3)
        for first in range(0, channels, block)
        for position in range(positions)
    ]
    assert np.array_equal(kind.ordered(values), expected)
    wrong = values.copy()
    wrong[1, 2, 3 * channels + 4] += 1 if values[1, 2, 3 * channels + 4] < 15 else -1
    count, first_one = kind.differences(kind.packed(wrong), values)
    assert count == 1
    assert str(first_one).startswith(f"t, vector 1, element (2, {3 * channels + 4}): ")


def test_every_difference_is_counted_and_the_first_is_told() -> None:
    kind = stream((3, 4), 2, 7, -64)
    values = drawn(kind, 5)
    wrong = values.copy()
    wrong[2, 1, 3] = wrong[4, 0, 0] = wrong[4, 2, 2] = 5
    values[2, 1, 3] = values[4, 0, 0] = values[4, 2, 2] = -60
    assert kind.differences(kind.packed(wrong), values) == (3, "t, vector 2, element (1, 3): 5, expected -60")


@pytest.mark.parametrize("number", [256, -1, 2.5])
def test_a_number_that_does_not_fit_is_not_taken_for_its_lowest_bits(number: float) -> None:
    kind = stream((4,), 2, 8, 0)
    values = np.zeros((2, 4), dtype=np.float32)
    values[1, 2] = number
    count, first = kind.differences(kind.packed(values), values)
    assert count == 1
    assert str(first).endswith(f"expected {number:g}")


def test_words_that_never_came_and_words_too_many_differ() -> None:
    kind = stream((4,), 2, 8, 0)
    values = drawn(kind, 3)
    rows = kind.packed(values)
    assert kind.differences(rows[:4], values) == (4, "t: 4 of 6 words came")
    assert kind.differences(np.concatenate([rows, rows[:1]]), values) == (2, "t: 7 of 6 words came")


def test_padding_of_a_word_is_left_open() -> None:
    kind = stream((3,), 3, 5, 0)
    values = drawn(kind, 2)
    rows = kind.packed(values)
    assert kind.differences(rows | np.uint32(1 << 15), values) == (0, None)
    assert kind.differences(rows ^ np.uint32(1 << 14), values)[0] == 2


def test_long_batches_are_packed_piece_by_piece(tmp_path: Path) -> None:
    kind = stream((1 << 18,), 8, 4, -8)
    values = drawn(kind, 9)
    assert len(list(chunks(kind, values))) == 3
    write_words(tmp_path / "words", kind, values)
    rows = read_words(tmp_path / "words", kind)
    assert np.array_equal(rows, kind.packed(values))
    wrong = replace(kind, tensor="long").differences(
        rows ^ np.eye(1, len(rows), 7 << 15, dtype=np.uint32).T, values
    )
    assert wrong[0] == 1
    assert str(wrong[1]).startswith("long, vector 7, element (0): ")
