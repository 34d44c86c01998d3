"""Scales of activations: each calibration against its definition, and on a trained network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from qhw.formats import parse_format
from qhw.ptq.calibrated import Calibrated
from qhw.ptq.calibrations import calibration_named
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.quantizers import make_quantizer
from qhw.quantizers.kernels.problem import Rule

FORMATS = ("fixed<4>", "ufixed<4>", "fixed<8>", "e2m1", "e4m3", "khot<4,2>")


def rule(text: str, *, free: bool = False) -> Rule:
    return Rule.of(parse_format(text), free=free)


def heavy_tailed() -> Tensor:
    """Student's t distribution of three degrees of freedom."""
    normal = torch.randn(20_000, 4, generator=torch.Generator().manual_seed(0))
    return normal[:, 0] / normal[:, 1:].square().mean(1).sqrt()


def quantised(values: Tensor, text: str, fraction: float, *, free: bool = False) -> Tensor:
    quantizer = make_quantizer(parse_format(text), scaling="free" if free else "power_of_two")
    quantizer.set_fraction(torch.tensor(fraction))
    return quantizer.quantize(values).detach()


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("free", [False, True])
def test_the_whole_range_fits_and_no_larger_one(text: str, free: bool) -> None:
    values = heavy_tailed().abs() if text.startswith("u") else heavy_tailed()
    found = calibration_named("max").fraction(values, rule(text, free=free))
    high = rule(text).mantissas[1] * 2.0**-found
    largest = float(values.abs().max())
    assert high >= largest * (1 - 1e-6)
    assert high < largest * (1 + 1e-6 if free else 2)


@pytest.mark.parametrize("percent", [99.9, 99.0])
def test_so_many_percent_fit(percent: float) -> None:
    values = heavy_tailed()
    found = calibration_named(f"percentile:{percent:g}").fraction(values, rule("fixed<6>", free=True))
    share = float((values.abs() <= 31 * 2.0**-found * (1 + 1e-6)).float().mean())
    assert share == pytest.approx(percent / 100, abs=1e-4)


@pytest.mark.parametrize("text", FORMATS)
def test_no_power_of_two_has_less_squared_error(text: str) -> None:
    values = heavy_tailed().abs() if text.startswith("u") else heavy_tailed()
    found = calibration_named("mse").fraction(values, rule(text))

    def error(fraction: float) -> float:
        return float((quantised(values, text, fraction) - values).double().square().sum())

    assert error(found) == pytest.approx(min(error(fraction) for fraction in range(-12, 16)), rel=1e-6)


def divergence(values: Tensor, text: str, fraction: float) -> float:
    """KL by its definition, number by number of the histogram, without NumPy's grouping."""
    magnitudes = values.abs().double().numpy()
    counts, edges = np.histogram(magnitudes, 2048)
    counts[0] = counts[1]
    centres = torch.from_numpy((edges[:-1] + edges[1:]) / 2)
    numbers = quantised(centres, text, fraction).tolist()
    top = rule(text).mantissas[1] * 2.0**-fraction
    within = min(max(sum(1 for edge in edges if edge < top), 1), len(counts))
    p, q = list(counts[:within].astype(float)), [0.0] * within
    p[-1] += counts[within:].sum()
    filled = [counts[i] > 0 or (i == within - 1 and p[i] > 0) for i in range(within)]
    for number in set(numbers[:within]):
        members = [i for i in range(len(filled)) if numbers[i] == number]
        share = sum(counts[i] for i in members) / max(sum(filled[i] for i in members), 1)
        for i in members:
            q[i] = share if filled[i] else 0.0
    p, q = ([x / max(sum(side), 1.0) + 1e-4 / len(side) for x in side] for side in (p, q))
    p, q = ([x / sum(side) for x in side] for side in (p, q))
    groups = {number for number, is_filled in zip(numbers, filled, strict=False) if is_filled}
    noise = (sum(filled) - len(groups)) / (2 * counts.sum())
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True)) - noise


@pytest.mark.parametrize("text", ["fixed<4>", "e2m1", "khot<4,2>"])
def test_no_threshold_loses_less_information(text: str) -> None:
    values = heavy_tailed()
    widest = calibration_named("max").fraction(values, rule(text))
    found = calibration_named("entropy").fraction(values, rule(text))
    tried = {widest + step: divergence(values, text, widest + step) for step in range(6)}
    assert tried[found] == pytest.approx(min(tried.values()))
    assert found > widest  # the tail is cut


@pytest.mark.parametrize("name", ["max", "percentile", "mse", "entropy"])
def test_numbers_that_are_all_zero_say_nothing(name: str) -> None:
    assert calibration_named(name).fraction(torch.zeros(100), rule("fixed<8>")) == 7.0


@pytest.mark.parametrize("name", ["percentile:99", "mse", "entropy"])
def test_a_tail_that_is_cut_lowers_the_error_of_a_trained_network(
    net: nn.Module, samples: tuple[Tensor, Tensor], name: str
) -> None:
    """A few numbers are far larger than all others: ``max`` makes room for them."""
    config = QuantConfig(activations="fixed<3>")
    found = {}
    for calibration in ("max", name):
        calibrated = Calibrated(net, samples[0], PtqSettings((), calibration), pixels=True)
        found[calibration] = calibrated.errors(calibrated.quantised(config), config, samples[1])[-1].sqnr
    assert found[name] > found["max"] + 2.0
