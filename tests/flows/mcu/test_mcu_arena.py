"""The arena's packing, against painting every byte at every moment."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhw.errors import CheckFailedError
from qhw.flows.mcu.arena import ALIGNMENT, Arena, Buffer, check_apart, lower_bound, pack

BUFFERS = st.lists(
    st.tuples(st.integers(1, 200), st.integers(-1, 12), st.integers(0, 6)), min_size=1, max_size=14
)


def made(rows: list[tuple[int, int, int]]) -> list[Buffer]:
    return [Buffer(f"b{i}", size, first, first + length) for i, (size, first, length) in enumerate(rows)]


@settings(max_examples=60, deadline=None)
@given(BUFFERS)
def test_no_byte_is_held_twice_at_a_moment(rows: list[tuple[int, int, int]]) -> None:
    buffers = made(rows)
    arena = pack(buffers)
    moments = range(-1, 20)
    painted = np.zeros((len(moments), arena.bytes), dtype=int)
    for b in buffers:
        at = arena.offsets[b.name]
        assert at % ALIGNMENT == 0
        painted[b.first + 1 : b.last + 2, at : at + b.bytes] += 1
    assert painted.max() == 1
    assert arena.bytes >= arena.floor >= max(painted.sum(axis=1))


@given(BUFFERS)
@settings(max_examples=20, deadline=None)
def test_the_same_buffers_give_the_same_arena(rows: list[tuple[int, int, int]]) -> None:
    assert pack(made(rows)) == pack(made(rows))


def test_a_chain_is_packed_as_tight_as_can_be() -> None:
    chain = [Buffer(f"m{i}", size, i, i + 1) for i, size in enumerate((64, 800, 400, 400, 200, 1000, 8))]
    assert pack(chain).bytes == lower_bound(chain) == 1200


def test_a_residual_block_needs_what_it_holds_at_once() -> None:
    # x is read by the first layer and by the addition behind the second
    block = [Buffer("x", 512, 0, 3), Buffer("y", 512, 1, 2), Buffer("z", 512, 2, 3), Buffer("out", 512, 3, 4)]
    assert pack(block).bytes == lower_bound(block) == 1536


def test_an_overlap_is_found() -> None:
    buffers = [Buffer("a", 16, 0, 2), Buffer("b", 16, 2, 3)]
    with pytest.raises(CheckFailedError, match="'b' and 'a' overlap"):
        check_apart(buffers, Arena({"a": 0, "b": 8}, 32, 32))
    with pytest.raises(CheckFailedError, match="'b' lies outside"):
        check_apart(buffers, Arena({"a": 0, "b": 24}, 32, 32))
    check_apart(buffers, Arena({"a": 0, "b": 16}, 32, 32))
