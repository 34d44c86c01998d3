"""One class per sample."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from qhw.errors import InputError
from qhw.tasks.base import Array, Metric, Targets, Task, area_under_roc, f1, require_range, require_whole

if TYPE_CHECKING:
    from torch import Tensor


def predicted(outputs: Array) -> Array:
    """The class of each sample: the largest of several outputs, the sign of one, or the index that it is."""
    flat = outputs.reshape(len(outputs), -1)
    if outputs.dtype.kind in "iu" and flat.shape[1] == 1:
        return np.asarray(flat[:, 0])
    return np.asarray((flat[:, 0] > 0).astype(np.int64) if flat.shape[1] == 1 else flat.argmax(axis=1))


def top1(outputs: Array, targets: Array) -> float:
    """The share of samples whose class is their target."""
    return float(np.mean(predicted(outputs) == targets))


class Classification(Task):
    """Cross entropy over one logit per class; of two classes, one logit is enough (its sign decides)."""

    name = "classification"
    takes = "one integer per sample, from 0"
    gives = "one number for each class"
    metrics = (
        Metric("top-1", top1),
        Metric("f1", lambda outputs, targets: f1(predicted(outputs), targets, "macro")),
        Metric("auc", lambda outputs, targets: area_under_roc(outputs.reshape(len(outputs), -1), targets)),
    )

    def is_of(self, targets: Targets) -> bool:
        return targets is not None and targets.ndim == 1 and targets.dtype.kind in "biu"

    def check_targets(self, targets: Array, classes: int) -> None:
        require_whole(targets)
        if targets.ndim != 1:
            raise InputError(f"they have shape {targets.shape}", allowed="(N,), one class per sample")
        require_range(targets, classes)

    def classes_of(self, targets: Array) -> int:
        return int(targets.max(initial=0)) + 1 if targets.dtype.kind in "biu" else 0

    def outputs_of(self, targets: Array, classes: int) -> tuple[int, ...]:
        return (classes,)

    def takes_outputs(self, given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        (classes,) = wanted
        outputs = math.prod(given)
        return given[:1] == (outputs,) and (outputs >= classes or (outputs == 1 and classes <= 2))

    def remedy(self, given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        if len(given) > 1 and given[0] >= wanted[0]:
            return "average over the pixels at the end: nn.AdaptiveAvgPool2d(1), nn.Flatten()"
        return super().remedy(given, wanted)

    def trained_on(self, targets: Array) -> Array:
        return np.asarray(targets, dtype=np.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        logits = outputs.flatten(1)
        if logits.shape[1] == 1:
            return functional.binary_cross_entropy_with_logits(logits[:, 0], targets.to(logits.dtype))
        return functional.cross_entropy(logits, targets)


TASK = Classification()
