"""SmoothQuant: outliers of activations move into the weights behind them."""

from __future__ import annotations

import torch
from torch import Tensor, fx

from qhw.ptq.equalization import ActivationRanges, equalizable
from qhw.ptq.methods.base import Method
from qhw.ptq.observation import batches

ALPHA = 0.5
"""The paper's own balance between activations and weights."""


class SmoothQuant(Method):
    """``s = max|X|^alpha / max|W|^(1 - alpha)`` per channel (arXiv 2211.10438, eq. 4), by Brevitas.

    Its ``GraphActivationEqualization`` folds the factors into the layers before and behind: nothing is added
    to the network. Ours is only how it is shown the network, and the ranges (:mod:`qhw.ptq.equalization`).
    """

    title = "SmoothQuant (arXiv 2211.10438)"
    order = 21

    def prepare(self, network: fx.GraphModule, samples: Tensor) -> int:
        with equalizable(network) as view, torch.no_grad():
            ranges = ActivationRanges(view)
            ranges.setup()
            for batch in batches(samples):
                view(batch)
            factors, _ = ranges.apply(ALPHA)
        return len(factors)


METHOD = SmoothQuant()
