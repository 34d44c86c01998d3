"""The base of evaluators: a network in the formats of a point, judged on samples held out of training."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qhw.errors import CheckFailedError
from qhw.search.space import Point
from qhw.tasks.base import Judge

if TYPE_CHECKING:
    from torch import fx

    from qhw.search.network import Variants

CONFIDENCE = 1.959963984540054
"""Standard deviations of a two-sided interval of 95 %."""


@dataclass(frozen=True)
class Evaluation:
    """What a point is worth.

    Args:
        quality: the higher the better: the metric, negative where less of it is better.
        figure: the metric as tables show it; of a proxy, its own number.
        low, high: the 95 % interval of the figure for other samples of the same kind; equal to it where none
            is known.
        seconds: the time it took.
    """

    quality: float
    figure: float
    low: float
    high: float
    seconds: float = 0.0


@dataclass(frozen=True)
class Held:
    """Samples held out of training, by which points are compared; never the test split.

    Args:
        samples: (N, ...), as the network takes them.
        judge: the metric and the targets.
    """

    samples: NDArray[Any]
    judge: Judge


class Evaluator(ABC):
    """Gives points a quality.

    Attributes:
        name: as in ``--evaluator``.
        title: what it is, in a few words.
        rank: its place among the others by time, cheapest first.
        is_metric: whether its figure is the data set's metric; else a proxy's.
        trains: whether it trains points, for which it takes the data and a recipe too.
        takes_methods: whether it judges points as the methods of :mod:`qhw.ptq` leave them.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    rank: ClassVar[int]
    is_metric: ClassVar[bool] = True
    trains: ClassVar[bool] = False
    takes_methods: ClassVar[bool] = False

    def __init__(self, variants: Variants, held: Held) -> None:
        self.variants, self.held = variants, held

    @abstractmethod
    def quality_of(self, point: Point) -> Evaluation:
        """The evaluation of a point, without its time."""

    def network(self, point: Point) -> fx.GraphModule:
        """The quantised network of a point that was evaluated, to be exported."""
        return self.variants.module(point)

    def evaluate(self, point: Point) -> Evaluation:
        """The evaluation of a point.

        Raises:
            CheckFailedError: it is no finite number.
        """
        start = time.perf_counter()
        found = self.quality_of(point)
        if not math.isfinite(found.quality):
            raise CheckFailedError(
                f"The {self.name} of {self.variants.space.formats(point)} is {found.quality}"
            )
        return Evaluation(found.quality, found.figure, found.low, found.high, time.perf_counter() - start)

    def judged(self, outputs: NDArray[Any]) -> Evaluation:
        """The evaluation of a network's outputs on the samples held out."""
        return judged(self.held, outputs)


def judged(held: Held, outputs: NDArray[Any]) -> Evaluation:
    """The evaluation of a network's outputs (N, ...) on samples held out, without its time."""
    judge = held.judge
    figure = judge.score(outputs)
    quality = figure if judge.metric.higher_is_better else -figure
    low, high = interval(figure, len(outputs)) if judge.metric.is_share else (figure, figure)
    return Evaluation(quality, figure, low, high)


def interval(share: float, samples: int) -> tuple[float, float]:
    """Wilson's score interval of a share, 95 %."""
    z = CONFIDENCE
    centre = (share + z * z / (2 * samples)) / (1 + z * z / samples)
    half = z / (1 + z * z / samples) * math.sqrt(share * (1 - share) / samples + z * z / (4 * samples**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def relative_error(outputs: NDArray[Any], reference: NDArray[Any]) -> float:
    """The energy of the difference over that of the reference, whose mean over samples is left out."""
    power = float(np.square(reference - reference.mean(axis=0)).sum())
    return float(np.square(outputs - reference).sum()) / max(power, 1e-30)
