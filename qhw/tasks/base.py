"""What a task says about targets, the loss in training, and the metrics of a network's outputs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError, closest

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = "NDArray[Any]"

Targets: TypeAlias = "NDArray[Any] | None"
"""Targets (N, ...); None: the inputs themselves."""


@dataclass(frozen=True)
class Metric:
    """A figure of merit on samples that were not trained on.

    Args:
        name: as it is written in tables and chosen with ``--metric``.
        score: maps a network's outputs (N, ...) and the targets to the figure.
        higher_is_better: whether more is better.
        is_share: whether it runs from 0 to 1, and is written in percent.
    """

    name: str
    score: Callable[[Array, Array], float]
    higher_is_better: bool = True
    is_share: bool = True

    def written(self, value: float) -> str:
        """The figure as a table shows it."""
        return f"{value:.2%}" if self.is_share else f"{value:.4g}"

    def loss_against(self, reference: float, value: float) -> float:
        """How much worse a figure is than a reference: shares in points/100, others relative to it."""
        worse = reference - value if self.higher_is_better else value - reference
        return worse if self.is_share else worse / max(abs(reference), 1e-12)


@dataclass(frozen=True)
class Judge:
    """A task's metric with the targets (N, ...) of some samples."""

    task: Task
    metric: Metric
    targets: Array

    def first(self, samples: int | None) -> Judge:
        """The same for the first samples alone; None: for all."""
        return replace(self, targets=self.targets[:samples])

    def score(self, outputs: Array) -> float:
        """The figure of a network's outputs (N, ...), or of the classes (N,) that it answers with.

        Raises:
            InputError: the outputs do not fit the targets, or the figure is no number.
        """
        given = tuple(outputs.shape[1:])
        wanted = self.task.outputs_of(self.targets, self.task.classes_of(self.targets))
        if outputs.dtype.kind not in "iu" and not self.task.takes_outputs(given, wanted):
            raise InputError(
                f"the model gives {given} for one sample, and the data are for {self.task.name}, "
                f"with targets for {wanted}",
                allowed=f"{wanted}: {self.task.gives}",
                hint="give the data that the model was made for, or name their --task",
            )
        figure = self.metric.score(outputs, self.targets)
        if not math.isfinite(figure):
            raise InputError(
                f"the metric {self.metric.name} is {figure} on {len(outputs)} samples",
                allowed="a finite number",
                hint="choose another --metric, or more samples",
            )
        return figure


class Task(ABC):
    """What a network is for.

    Attributes:
        name: as in ``--task``.
        takes: its targets, in words.
        gives: what a network gives for one sample, in words.
        metrics: its figures of merit; the first is used unless another is named.
        by_order: whether only the order of a network's outputs counts: a Softmax behind them changes nothing.
    """

    name: ClassVar[str]
    takes: ClassVar[str]
    gives: ClassVar[str]
    metrics: ClassVar[tuple[Metric, ...]]
    by_order: ClassVar[bool] = True

    @abstractmethod
    def is_of(self, targets: Targets) -> bool:
        """Whether targets are of this task by type and shape."""

    @abstractmethod
    def check_targets(self, targets: Array, classes: int) -> None:
        """Refuse targets that are none of this task; raises InputError without naming the data set."""

    @abstractmethod
    def outputs_of(self, targets: Array, classes: int) -> tuple[int, ...]:
        """The shape that a network must give for one sample."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of a batch, to be minimised."""

    def takes_outputs(self, given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        """Whether a network's outputs of one sample fit: as many numbers, in that order."""
        return math.prod(given) == math.prod(wanted)

    def remedy(self, given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        """A change to a network whose outputs do not fit."""
        return f"end the model with nn.Flatten() and nn.Linear(…, {math.prod(wanted)})"

    def classes_of(self, targets: Array) -> int:
        """The number of classes in the targets; 0 where there are none."""
        return 0

    def trained_on(self, targets: Array) -> Array:
        """Targets in the type that the loss takes."""
        return np.asarray(targets, dtype=np.float32)

    def metric(self, name: str = "") -> Metric:
        """A metric by its name, or the task's first; raises InputError for one that it has not."""
        known: Mapping[str, Metric] = {metric.name: metric for metric in self.metrics}
        if name and name not in known:
            raise InputError(
                f"{name!r} is not a metric of {self.name}",
                allowed=", ".join(known),
                hint=closest(name, known),
            )
        return known[name] if name else self.metrics[0]


def f1(predicted: Array, targets: Array, average: str) -> float:
    """The F1 score (scikit-learn's ``f1_score``), 0 where a class is neither there nor predicted."""
    from sklearn.metrics import f1_score

    return float(f1_score(targets, predicted, average=average, zero_division=0.0))


def area_under_roc(scores: Array, targets: Array) -> float:
    """The area under the ROC curve (``roc_auc_score``), the mean over one class against the rest.

    Args:
        scores: (N, K), the higher the likelier.
        targets: labels (N, K), or classes (N,).

    Raises:
        InputError: a class has no sample, or all of them.
    """
    from sklearn.metrics import roc_auc_score

    if targets.ndim == 1:
        targets = (targets[:, None] == np.arange(max(scores.shape[1], 2))).astype(np.int64)
        targets = targets[:, 1:] if scores.shape[1] == 1 else targets
    one_sided = np.flatnonzero(targets.min(axis=0) == targets.max(axis=0))
    if one_sided.size:
        raise InputError(
            f"the AUC is not defined: class {one_sided[0]} has none or all of the {len(targets)} samples",
            hint="choose another metric, or more samples",
        )
    return float(roc_auc_score(targets, scores, average="macro"))


def require_whole(targets: Array) -> None:
    """Refuse targets that are no integers by their type."""
    if targets.dtype.kind not in "biu":
        raise InputError(
            f"they are {targets.dtype} numbers, not classes",
            allowed="integers from 0",
            hint="store classes as integers (astype(np.int64)), or predict numbers: --task regression",
        )


def require_range(targets: Array, classes: int) -> None:
    """Refuse classes below 0 or beyond the last."""
    if targets.size and (targets.min() < 0 or targets.max() >= classes):
        raise InputError(f"they run from {targets.min()} to {targets.max()}", allowed=f"0 to {classes - 1}")


def require_finite(targets: Array) -> None:
    """Refuse NaN and infinity, and what is no number."""
    if targets.dtype.kind not in "biuf":
        raise InputError(f"they are of type {targets.dtype}", allowed="numbers")
    if targets.dtype.kind == "f" and not np.isfinite(targets).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(targets))[0])
        raise InputError(f"they hold {targets[where]} at {where}", allowed="finite numbers")
