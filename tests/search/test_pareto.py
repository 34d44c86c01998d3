"""Fronts and hypervolumes, against their definitions by brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qhw.search.pareto import front, hypervolume

POINTS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12)


@given(POINTS)
def test_front(points: list[tuple[int, int]]) -> None:
    places = front([p[0] for p in points], [p[1] for p in points])
    kept = [points[i] for i in places]
    assert kept == sorted(kept)
    beaten = {(c, q) for c, q in points if any(a <= c and b >= q and (a, b) != (c, q) for a, b in points)}
    assert set(kept) == set(points) - beaten
    assert len(kept) == len(set(kept))


@given(POINTS)
def test_hypervolume_counts_cells(points: list[tuple[int, int]]) -> None:
    cells = sum(any(c <= x and q > y for c, q in points) for x in range(10) for y in range(10))
    assert hypervolume([p[0] for p in points], [p[1] for p in points], (10, 0)) == cells


def test_what_is_not_finite_is_left_out() -> None:
    assert front([1, 2, np.inf, 0], [1, np.nan, 5, 0.5]) == [3, 0]
    assert hypervolume([], [], (1, 0)) == 0
