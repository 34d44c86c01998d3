"""One or several numbers per sample."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qhw.errors import InputError
from qhw.tasks.base import Array, Metric, Targets, Task, require_finite

if TYPE_CHECKING:
    from torch import Tensor


def errors(outputs: Array, targets: Array) -> Array:
    """Differences in float64, (N, K)."""
    flat = np.asarray(targets, np.float64).reshape(len(targets), -1)
    return np.asarray(outputs, np.float64).reshape(flat.shape) - flat


def rmse(outputs: Array, targets: Array) -> float:
    """The root of the mean squared error, in the targets' unit."""
    return float(np.sqrt(np.mean(errors(outputs, targets) ** 2)))


def mae(outputs: Array, targets: Array) -> float:
    """The mean absolute error, in the targets' unit."""
    return float(np.mean(np.abs(errors(outputs, targets))))


def r2(outputs: Array, targets: Array) -> float:
    """The share of the targets' variance that is explained; below 0 for less than their mean does."""
    flat = np.asarray(targets, np.float64).reshape(len(targets), -1)
    spread = np.sum((flat - flat.mean(axis=0)) ** 2)
    return float(1 - np.sum(errors(outputs, targets) ** 2) / max(spread, np.finfo(np.float64).tiny))


class Regression(Task):
    """Mean squared error."""

    name = "regression"
    takes = "floats (N,) or (N, K)"
    gives = "one number for each target"
    by_order = False
    metrics = (
        Metric("rmse", rmse, higher_is_better=False, is_share=False),
        Metric("mae", mae, higher_is_better=False, is_share=False),
        Metric("r2", r2),
    )

    def is_of(self, targets: Targets) -> bool:
        return targets is not None and targets.dtype.kind == "f" and targets.ndim in (1, 2)

    def check_targets(self, targets: Array, classes: int) -> None:
        require_finite(targets)
        if targets.ndim not in (1, 2):
            raise InputError(f"they have shape {targets.shape}", allowed="(N,) or (N, K)")

    def outputs_of(self, targets: Array, classes: int) -> tuple[int, ...]:
        return (1,) if targets.ndim == 1 else tuple(targets.shape[1:])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        flat = outputs.flatten(1)
        return functional.mse_loss(flat, targets.reshape(flat.shape).to(flat.dtype))


TASK = Regression()
