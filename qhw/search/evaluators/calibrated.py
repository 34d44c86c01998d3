"""The metric of the quantised network on samples held out, without any training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import fx

from qhw.search.adjusted import AdjustedLayers, adjusts_layers
from qhw.search.evaluators.base import Evaluation, Evaluator, Held
from qhw.search.network import PrefixCache
from qhw.search.space import Point
from qhw.train import predict

if TYPE_CHECKING:
    from qhw.search.network import Variants


class Calibrated(Evaluator):
    """Quantizers as they were started on the float network, weights as the methods leave them.

    Layers whose input is known are neither adjusted nor run again, where all methods go from layer to layer;
    others are given the whole network of each point.

    Args:
        variants, held: as for every evaluator.
        methods: names of :mod:`qhw.ptq.methods`.
    """

    name = "calibrated"
    title = "metric on held-out samples, quantised by --methods, no training"
    rank = 2
    takes_methods = True

    def __init__(self, variants: Variants, held: Held, methods: Sequence[str] = ()) -> None:
        super().__init__(variants, held)
        self.methods = tuple(methods)
        self.layers: AdjustedLayers | None = None
        if self.methods and adjusts_layers(self.methods):
            self.layers = AdjustedLayers(variants, self.methods, variants.samples)
        layer = None if self.layers is None else self.layers.layer
        self.cache = PrefixCache(variants, torch.from_numpy(held.samples).float(), layer=layer)

    def quality_of(self, point: Point) -> Evaluation:
        if self.methods and self.layers is None:
            outputs: NDArray[Any] = predict(self.network(point), self.held.samples)
            return self.judged(outputs)
        return self.judged(self.cache.outputs(point))

    def network(self, point: Point) -> fx.GraphModule:
        """The network that was judged."""
        if self.layers is not None:
            return self.layers.network(point)
        return self.variants.quantised(point, self.methods)


evaluator = Calibrated
