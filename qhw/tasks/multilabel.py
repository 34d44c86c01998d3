"""Several labels per sample, each there or not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qhw.errors import InputError
from qhw.tasks.base import Array, Metric, Targets, Task, area_under_roc, f1, require_range, require_whole

if TYPE_CHECKING:
    from torch import Tensor


def predicted(outputs: Array) -> Array:
    """Labels (N, K): there where the output is above 0."""
    return np.asarray((outputs.reshape(len(outputs), -1) > 0).astype(np.int64))


class MultiLabel(Task):
    """Binary cross entropy over one logit per label."""

    name = "multilabel"
    takes = "0 or 1 per label, integers (N, K)"
    gives = "one number for each label"
    metrics = (
        Metric("f1", lambda outputs, targets: f1(predicted(outputs), targets, "macro")),
        Metric("auc", lambda outputs, targets: area_under_roc(outputs.reshape(len(outputs), -1), targets)),
        Metric(
            "exact-match",
            lambda outputs, targets: float(np.mean((predicted(outputs) == targets).all(axis=1))),
        ),
    )

    def is_of(self, targets: Targets) -> bool:
        return targets is not None and targets.ndim == 2 and targets.dtype.kind in "biu"

    def check_targets(self, targets: Array, classes: int) -> None:
        require_whole(targets)
        if targets.ndim != 2:
            raise InputError(f"they have shape {targets.shape}", allowed="(N, K), a label in each column")
        require_range(targets, 2)

    def outputs_of(self, targets: Array, classes: int) -> tuple[int, ...]:
        return tuple(targets.shape[1:])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        logits = outputs.flatten(1)
        return functional.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


TASK = MultiLabel()
