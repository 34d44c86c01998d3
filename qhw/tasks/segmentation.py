"""One class per pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from qhw.errors import InputError
from qhw.tasks.base import Array, Metric, Targets, Task, require_range, require_whole

if TYPE_CHECKING:
    from torch import Tensor


def predicted(outputs: Array) -> Array:
    """The class of each pixel (N, H, W): the largest of outputs (N, classes, H, W), or one channel's sign."""
    return np.asarray(
        (outputs[:, 0] > 0).astype(np.int64) if outputs.shape[1] == 1 else outputs.argmax(axis=1)
    )


def mean_iou(outputs: Array, targets: Array) -> float:
    """Intersection over union, the mean over the classes that are there or predicted (PASCAL VOC)."""
    classes = predicted(outputs)
    found = np.union1d(classes, targets)
    shares = [
        np.sum((classes == one) & (targets == one)) / np.sum((classes == one) | (targets == one))
        for one in found
    ]
    return float(np.mean(shares))


def pixel_accuracy(outputs: Array, targets: Array) -> float:
    """The share of pixels whose class is their target."""
    return float(np.mean(predicted(outputs) == targets))


class Segmentation(Task):
    """Cross entropy over one logit per class and pixel; of two classes, one channel is enough."""

    name = "segmentation"
    takes = "one integer per pixel, (N, H, W), from 0"
    gives = "one channel for each class, of the targets' height and width"
    metrics = (Metric("iou", mean_iou), Metric("pixel-accuracy", pixel_accuracy))

    def is_of(self, targets: Targets) -> bool:
        return targets is not None and targets.ndim == 3 and targets.dtype.kind in "biu"

    def check_targets(self, targets: Array, classes: int) -> None:
        require_whole(targets)
        if targets.ndim != 3:
            raise InputError(f"they have shape {targets.shape}", allowed="(N, H, W), one class per pixel")
        require_range(targets, classes)

    def classes_of(self, targets: Array) -> int:
        return int(targets.max(initial=0)) + 1 if targets.dtype.kind in "biu" else 0

    def outputs_of(self, targets: Array, classes: int) -> tuple[int, ...]:
        return (classes, *targets.shape[1:])

    def takes_outputs(self, given: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
        if given[1:] != wanted[1:]:
            return False
        return given[0] >= wanted[0] or (given[0] == 1 and wanted[0] == 2)

    def remedy(self, given: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        return f"end the model with a convolution of {wanted[0]} channels at the size of the targets"

    def trained_on(self, targets: Array) -> Array:
        return np.asarray(targets, dtype=np.int64)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        if outputs.shape[1] == 1:
            return functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.to(outputs.dtype))
        return functional.cross_entropy(outputs, targets)


TASK = Segmentation()
