"""How mantissas lie in memory, against packing bit by bit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qhw.errors import UnsupportedError
from qhw.flows.mcu.containers import WIDTHS, Container, Map


def test_a_container_is_the_smallest_that_holds_a_range() -> None:
    for low in (-129, -128, -9, -8, -3, -2, -1, 0):
        for high in (0, 1, 3, 4, 7, 8, 127, 128, 255, 256, 65535, 65536):
            found = Container.holding(low, high)
            assert found.low <= low <= high <= found.high
            narrower = [bits for bits in WIDTHS if bits < found.bits]
            assert all(
                not (Container(bits, low < 0).low <= low and high <= Container(bits, low < 0).high)
                for bits in narrower
            )


def test_the_widest_numbers() -> None:
    assert Container.holding(0, (1 << 64) - 1) == Container(64, False)
    with pytest.raises(UnsupportedError, match="more than 64 bits"):
        Container.holding(-1, (1 << 63))


def test_a_pixel_begins_at_a_byte_and_its_first_channel_is_lowest() -> None:
    values = np.array([[[1, -2], [3, -4], [5, -6]]])  # three channels of two pixels
    memory = Map((3, 2), Container(4, True)).pack(values)
    assert memory.tolist() == [[0x31, 0x05, 0xCE, 0x0A]]
    wide = Map((3, 2), Container(16, True)).pack(values)
    assert wide.view("<i2").tolist() == [[1, 3, 5, -2, -4, -6]]


@given(
    st.sampled_from(WIDTHS),
    st.booleans(),
    st.lists(st.integers(1, 5), min_size=0, max_size=4),
    st.integers(0, 2**32),
)
def test_what_is_packed_is_unpacked(bits: int, is_signed: bool, shape: list[int], seed: int) -> None:
    container = Container(bits, is_signed)
    chance = np.random.default_rng(seed)
    size = (2, *shape)
    raw = [
        int.from_bytes(chance.bytes(8), "little") % (1 << bits) + container.low
        for _ in range(int(np.prod(size)))
    ]
    values = np.array(raw, dtype=object).reshape(size)
    if bits < 64 or is_signed:
        values = values.astype(np.int64)
    m = Map(tuple(shape), container)
    memory = m.pack(values)
    assert memory.shape == (2, m.bytes)
    back = m.unpack(memory)
    assert back.shape == size
    assert (back.astype(object) == values.astype(object)).all()


@given(
    st.sampled_from(WIDTHS),
    st.sampled_from([(6,), (1, 6), (6, 1), (2, 3), (3, 2), (2, 3, 1), (1, 2, 3), (3, 1, 2)]),
    st.sampled_from([(6,), (1, 6), (6, 1), (2, 3), (3, 2), (2, 1, 3), (1, 3, 2)]),
)
def test_shapes_that_lie_alike_are_the_same_bytes(
    bits: int, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    a, b = Map(first, Container(bits, False)), Map(second, Container(bits, False))
    values = np.arange(6) % (1 << min(bits, 3))
    one, other = a.pack(values.reshape(1, *first)), b.pack(values.reshape(1, *second))
    if a.lies_like(b):
        assert one.tolist() == other.tolist()
    elif bits >= 8:
        assert one.tolist() != other.tolist()
