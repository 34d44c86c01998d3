"""The range with the least squared error."""

from __future__ import annotations

from torch import Tensor

from qhw.ptq.calibrations.base import Calibration
from qhw.quantizers.kernels.problem import Rule
from qhw.quantizers.statistics import best_fraction


class SquaredError(Calibration):
    """The scale with the least squared error over candidates, as the quantizers of training start.

    Brevitas's ``MSE`` statistic searches through the proxy of one of its own quantizers; ours are none.
    """

    title = "the least squared error"

    def fraction(self, values: Tensor, rule: Rule) -> float:
        return float(best_fraction(values, rule, None))


CALIBRATION = SquaredError
