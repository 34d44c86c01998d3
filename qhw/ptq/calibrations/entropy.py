"""The range that loses the least information."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qhw.ptq.calibrations.base import Calibration, fraction_of
from qhw.quantizers.activation import IDENTITY
from qhw.quantizers.kernels import eager
from qhw.quantizers.kernels.problem import Operands, Rule, units_of

BINS = 2048
"""Of the histogram of magnitudes, as in TensorRT."""

OCTAVES = 6
"""Thresholds are tried from the largest magnitude down to 2^-6 of it."""

FREE_STEP = 0.125
"""Between the thresholds that are tried for a free scale, in fraction bits."""

SMOOTHING = 1e-4
"""Probability that an empty bin gets, so that the divergence is finite."""


class Entropy(Calibration):
    """The threshold whose clipped and quantised histogram has the least Kullback-Leibler divergence.

    S. Migacz, "8-bit inference with TensorRT", GTC 2017. Brevitas's ``KLMinimizerThreshold`` merges bins in
    equal shares, which is an integer's grid; here the bins that become the same number of the format are
    merged, so that it serves minifloats and k-hot too. What the merging of bins costs by their noise alone is
    taken off (Miller and Madow's correction): else few samples would speak for cutting far into the range.
    The bin of zero counts as the next one, as in NVIDIA's pytorch-quantization.
    """

    title = "the least Kullback-Leibler divergence"

    def fraction(self, values: Tensor, rule: Rule) -> float:
        magnitudes = np.abs(values.double().numpy())
        widest = fraction_of(float(magnitudes.max(initial=0.0)), rule)
        if not magnitudes.any():
            return widest
        histogram, edges = np.histogram(magnitudes, BINS)
        histogram[0] = histogram[1]  # zeros behind a ReLU say nothing of the range
        tried = widest + np.arange(0, OCTAVES, FREE_STEP if rule.free else 1.0)
        return float(min(tried, key=lambda fraction: _divergence(histogram, edges, fraction, rule)))


def _divergence(
    histogram: NDArray[np.int64], edges: NDArray[np.float64], fraction: float, rule: Rule
) -> float:
    """KL(clipped histogram, what is left of it on the format's grid)."""
    plain = dataclasses.replace(rule, activation=IDENTITY)
    unit = units_of(torch.tensor(fraction), plain)
    centres = torch.from_numpy((edges[:-1] + edges[1:]) / 2)
    numbers = eager.mantissas(Operands(centres), unit, plain).numpy()
    within = max(int(np.searchsorted(edges, rule.mantissas[1] * unit[0])), 1)
    clipped = histogram[:within].astype(np.float64)
    clipped[-1] += histogram[within:].sum()
    occupied = histogram[:within] > 0
    occupied[-1] |= clipped[-1] > 0
    _, groups = np.unique(numbers[:within], return_inverse=True)
    total = np.bincount(groups, weights=histogram[:within].astype(np.float64))
    spread = np.bincount(groups, weights=occupied.astype(np.float64))
    merged = np.where(occupied, (total / np.maximum(spread, 1))[groups], 0.0)
    p, q = (_smoothed(counts) for counts in (clipped, merged))
    noise = (occupied.sum() - (spread > 0).sum()) / (2 * histogram.sum())
    return float(np.sum(p * np.log(p / q))) - float(noise)


def _smoothed(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = counts / max(counts.sum(), 1.0) + SMOOTHING / len(counts)
    return np.asarray(shares / shares.sum())


CALIBRATION = Entropy
