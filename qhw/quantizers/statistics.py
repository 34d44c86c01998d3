"""Initial binary points: those with the least squared error on the first data."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qhw.quantizers.activation import IDENTITY
from qhw.quantizers.kernels import eager
from qhw.quantizers.kernels.problem import LARGEST_FRACTION, Operands, Rule, units_of

SAMPLES = 1 << 16
"""Numbers per channel that are looked at."""

CANDIDATES = 8
"""Binary points that are tried, from the one that holds the largest number on."""

FREE_STEP = 0.25
"""Step between the free scales that are tried, in fraction bits."""


def best_fraction(data: Tensor, rule: Rule, axis: int | None) -> Tensor:
    """Fraction bits with the least squared error, ``(1,)`` or one per index of ``axis``.

    Whole ones, unless the scale is free.

    Data that is zero throughout says nothing: it gets the range [-1, 1) (unsigned: [0, 1)).
    """
    rows = data.reshape(1, -1) if axis is None else data.movedim(axis, 0).reshape(data.shape[axis], -1)
    rows = rule.activation(rows.double())
    widest = _widest(rows, rule)
    rows = rows[:, :: max(1, rows.shape[1] // SAMPLES)].contiguous()
    steps = np.arange(0, CANDIDATES, FREE_STEP if rule.free else 1)
    tried = np.clip(widest + steps[:, None], -LARGEST_FRACTION, LARGEST_FRACTION)
    errors = np.stack([_squared_error(rows, fraction, rule) for fraction in tried])
    return torch.from_numpy(tried[np.argmin(errors, axis=0), np.arange(rows.shape[0])])


def _widest(rows: Tensor, rule: Rule) -> NDArray[np.float64]:
    """The most fraction bits at which the largest magnitude still fits, less one to be sure."""
    high = float(max(rule.mantissas[1], 1))
    magnitudes = rows if not rule.signed else rows.abs()
    largest = magnitudes.amax(1).numpy() if rows.shape[1] else np.zeros(rows.shape[0])
    usable = np.isfinite(largest) & (largest > 0)
    exponents = np.floor(np.log2(high / np.where(usable, largest, 1.0))) - 1
    silent = rule.mantissas[1].bit_length()
    return np.where(usable, exponents, silent)


def _squared_error(rows: Tensor, fraction: NDArray[np.float64], rule: Rule) -> NDArray[np.float64]:
    plain = dataclasses.replace(rule, activation=IDENTITY)
    values = eager.forward(Operands(rows, axis=0), units_of(torch.from_numpy(fraction), rule), plain)
    return (values - rows).square().sum(1).numpy()
