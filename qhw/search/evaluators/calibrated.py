"""The metric of the quantised network on samples held out, without any training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from qhw.search.evaluators.base import Evaluation, Evaluator, Held
from qhw.search.network import PrefixCache
from qhw.search.space import Point

if TYPE_CHECKING:
    from qhw.search.network import Variants


class Calibrated(Evaluator):
    """Quantizers as they were started on the float network; layers whose input is known are not run again."""

    name = "calibrated"
    title = "metric on held-out samples, no training"
    rank = 2

    def __init__(self, variants: Variants, held: Held) -> None:
        super().__init__(variants, held)
        self.cache = PrefixCache(variants, torch.from_numpy(held.samples).float())

    def quality_of(self, point: Point) -> Evaluation:
        return self.judged(self.cache.outputs(point))


evaluator = Calibrated
