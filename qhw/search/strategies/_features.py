"""Points as numbers that a regression learns quality from."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qhw.formats import parse_format
from qhw.formats.modes import IntArray
from qhw.search.space import Point, Space
from qhw.search.strategies._candidates import start_of
from qhw.search.strategies._sensitivities import Table, error_energies, total
from qhw.search.strategies.base import Problem

Features = NDArray[np.float64]

SMALLEST = 1e-4
"""Errors and losses below this share of the largest are told apart less and less."""


class FormatFeatures:
    """Per variable what its format is: bits, numbers, the largest mantissa, whether it needs multipliers."""

    def __init__(self, space: Space) -> None:
        self._tables = [np.array([_described(text) for text in v.options]) for v in space.variables]

    def of(self, points: IntArray | Sequence[Point]) -> Features:
        """The features of points (points, variables), (points, features)."""
        rows = np.asarray(points, dtype=np.int64)
        return np.concatenate([table[rows[:, v]] for v, table in enumerate(self._tables)], axis=1)


def _described(text: str) -> tuple[float, ...]:
    found = parse_format(text)
    numbers = len(np.unique(found.mantissa_of(found.codes())))
    return found.width, math.log2(numbers), math.log2(found.mantissa_high + 1), found.multiplier_free


class SensitivityFeatures:
    """What cheap models say that a point loses, in powers of ten: each format by itself, and all together.

    By the second-order model: what the loss increases by. By the proxy: the sum of the error energies that
    formats add one at a time. Without either, a format by itself is taken to lose a quarter of what one bit
    less does.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        start = start_of(problem)
        self._energies: tuple[float, Table] | None = None
        if problem.proxy is not None:
            self._energies = error_energies(problem, problem.proxy)
        if problem.second_order is not None:
            points = [
                [(*start[:v], option, *start[v + 1 :]) for option in range(count)]
                for v, count in enumerate(problem.space.counts)
            ]
            singles = [problem.second_order(column) for column in points]
        elif self._energies is not None:
            singles = self._energies[1]
        else:
            variables = problem.space.variables
            singles = [np.array([0.25 ** parse_format(text).width for text in v.options]) for v in variables]
        self._singles = [_logarithm(values) for values in singles]

    def of(self, points: IntArray | Sequence[Point]) -> Features:
        """The features of points (points, variables), (points, features)."""
        rows = np.asarray(points, dtype=np.int64)
        columns = [values[rows[:, variable]] for variable, values in enumerate(self._singles)]
        if self.problem.second_order is not None:
            columns.append(_logarithm(self.problem.second_order(rows)))
        if self._energies is not None:
            columns.append(_logarithm(self._energies[0] + total(self._energies[1], rows)))
        return np.stack(columns, axis=1)

    def loss(self, points: IntArray | Sequence[Point]) -> NDArray[np.float64] | None:
        """What a point is predicted to lose, (points,), in units of its own; None: nothing says so."""
        rows = np.asarray(points, dtype=np.int64)
        if self.problem.second_order is not None:
            return self.problem.second_order(rows)
        return None if self._energies is None else total(self._energies[1], rows)


class AllFeatures:
    """Both kinds beside each other."""

    def __init__(self, *parts: FormatFeatures | SensitivityFeatures) -> None:
        self._parts = parts

    def of(self, points: IntArray | Sequence[Point]) -> Features:
        """The features of points (points, variables), (points, features)."""
        return np.concatenate([part.of(points) for part in self._parts], axis=1)


def _logarithm(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """log10 of losses; what is not finite counts as the largest that is."""
    finite = np.isfinite(values)
    largest = max(float(values[finite].max(initial=0.0)), 1e-300)
    return np.asarray(np.log10(np.maximum(np.where(finite, values, largest), 0.0) / largest + SMALLEST))
