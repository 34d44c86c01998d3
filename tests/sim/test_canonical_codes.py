"""Codes of real values that no code stands for are told without a warning."""

from __future__ import annotations

import warnings

import numpy as np

from qhw.sim.canonical import TensorScale


def test_values_without_a_code() -> None:
    units = TensorScale(np.array(0.0), np.array(0.0), "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = units.integers(np.array([0.0, 1.0, -1.0, np.nan], dtype=np.float32))
    assert found.tolist() == [0, 1 << 62, -(1 << 62), 0]
