"""The metric on samples held out after quantisation-aware training by the model's own recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx

from qhw import checkpoints
from qhw.data.base import Dataset
from qhw.search.evaluators.base import Evaluation, Evaluator, Held
from qhw.search.space import Point
from qhw.train import Phase, TrainConfig, predict, torch_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from qhw.search.network import Variants


class FullQat(Evaluator):
    """Quantisation-aware training from the float weights, with quantizers started on the float network.

    Args:
        variants, held: as for every evaluator.
        data: its training split is trained on; it holds none of the samples held out.
        config: the recipe of the quantised phase; each point is trained with its seed.

    Evaluating a point raises InputError, which names the epoch, where the loss is no finite number.
    """

    name = "full-qat"
    title = "metric on held-out samples after training by the model's recipe"
    rank = 4
    trains = True

    def __init__(self, variants: Variants, held: Held, data: Dataset, config: TrainConfig) -> None:
        super().__init__(variants, held)
        self.data, self.config = data, config
        self._latest: tuple[Point, fx.GraphModule] | None = None
        self._start = checkpoints.weights_hash(variants.model)

    @property
    def epochs(self) -> int:
        """Epochs that each point is trained for."""
        return self.config.quantised_epochs

    def quality_of(self, point: Point) -> Evaluation:
        outputs: NDArray[Any] = predict(self.network(point), self.held.samples)
        return self.judged(outputs)

    def network(self, point: Point) -> fx.GraphModule:
        """The trained network of a point; that of the latest point is remembered, any other is trained."""
        if self._latest is None or self._latest[0] != point:
            self._latest = (point, self._trained(point))
        return self._latest[1]

    def _trained(self, point: Point) -> fx.GraphModule:
        module = self.variants.module(point)
        identity = checkpoints.fingerprint(self._start, self.variants.space.config(point))
        phase = Phase(
            "quantised", self.epochs, self.config.quantised_learning_rate, self.config, None, identity
        )
        with torch_threads(self.config.threads):
            phase.run(module, self.data, None)
        return module


evaluator = FullQat
