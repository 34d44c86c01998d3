"""The whole range."""

from __future__ import annotations

from brevitas.core.stats import AbsMax
from torch import Tensor

from qhw.ptq.calibrations.base import Calibration, fraction_of
from qhw.quantizers.kernels.problem import Rule


class Maximum(Calibration):
    """The largest magnitude fits, by Brevitas's statistic ``AbsMax``."""

    title = "the largest magnitude fits"

    def fraction(self, values: Tensor, rule: Rule) -> float:
        return fraction_of(float(AbsMax()(values)), rule)


CALIBRATION = Maximum
