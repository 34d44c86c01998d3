"""The range without its outliers."""

from __future__ import annotations

from brevitas.core.stats import AbsPercentile
from torch import Tensor

from qhw.ptq.calibrations.base import Calibration, fraction_of
from qhw.quantizers.kernels.problem import Rule

USUAL = 99.9


class Percentile(Calibration):
    """So many percent of the magnitudes fit, by Brevitas's statistic ``AbsPercentile`` (arXiv 2004.09602)."""

    title = "so many percent of the magnitudes fit"

    def __init__(self, percent: float = USUAL) -> None:
        self.percent = percent

    def fraction(self, values: Tensor, rule: Rule) -> float:
        return fraction_of(float(AbsPercentile(self.percent, None)(values)), rule)


CALIBRATION = Percentile
