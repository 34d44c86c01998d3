"""How far the quantised network's outputs are from the float network's: a proxy that needs no targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from qhw.search.evaluators.base import Evaluation, Evaluator, Held, relative_error
from qhw.search.network import PrefixCache
from qhw.search.space import Point

if TYPE_CHECKING:
    from qhw.search.network import Variants

SAMPLES = 128
"""Held-out samples that are looked at."""


class OutputError(Evaluator):
    """Minus the relative squared error of the outputs, in decibels: the network's SQNR."""

    name = "output-error"
    title = "signal-to-quantisation-noise ratio of the outputs"
    rank = 1
    is_metric = False

    def __init__(self, variants: Variants, held: Held) -> None:
        super().__init__(variants, held)
        samples = torch.from_numpy(held.samples[:SAMPLES]).float()
        self.cache = PrefixCache(variants, samples)
        with torch.inference_mode():
            self.reference = variants.model(samples).numpy()

    def quality_of(self, point: Point) -> Evaluation:
        error = relative_error(self.cache.outputs(point), self.reference)
        sqnr = float(-10 * np.log10(max(error, 1e-12)))
        return Evaluation(sqnr, sqnr, sqnr, sqnr)


evaluator = OutputError
