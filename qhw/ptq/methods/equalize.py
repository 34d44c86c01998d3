"""Cross-layer equalization."""

from __future__ import annotations

import torch
from brevitas.graph.equalize import EqualizeGraph
from torch import Tensor, fx

from qhw.ptq.equalization import equalizable
from qhw.ptq.methods.base import Method

ITERATIONS = 20
"""As many as it takes at most: it stops where factors stay within 5 % of 1."""


class CrossLayerEqualization(Method):
    """Channels are scaled so that two layers' weights have equal ranges (arXiv 1906.04721, eq. 11).

    By Brevitas's ``EqualizeGraph``, on the float network, through additions and pools; ours is only how it is
    shown the network (:mod:`qhw.ptq.equalization`). It stops at what is no homogeneous function (ReLU6, a
    table) and at concatenations.
    """

    title = "cross-layer equalization (arXiv 1906.04721)"
    order = 20

    def prepare(self, network: fx.GraphModule, samples: Tensor) -> int:
        with equalizable(network) as view, torch.no_grad():
            _, regions = EqualizeGraph(iterations=ITERATIONS, return_regions=True).apply(view)
        return len(regions)


METHOD = CrossLayerEqualization()
