"""The input again: there are no targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qhw.tasks.base import Array, Metric, Targets, Task, require_finite
from qhw.tasks.regression import mae, rmse

if TYPE_CHECKING:
    from torch import Tensor


class Autoencoder(Task):
    """Mean squared error against the input."""

    name = "autoencoder"
    takes = "none: the inputs are the targets"
    gives = "the shape of its input"
    by_order = False
    metrics = (
        Metric("rmse", rmse, higher_is_better=False, is_share=False),
        Metric("mae", mae, higher_is_better=False, is_share=False),
    )

    def is_of(self, targets: Targets) -> bool:
        return targets is None

    def check_targets(self, targets: Array, classes: int) -> None:
        require_finite(targets)

    def outputs_of(self, targets: Array, classes: int) -> tuple[int, ...]:
        return tuple(targets.shape[1:])

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        from torch.nn import functional

        return functional.mse_loss(outputs.reshape(targets.shape), targets.to(outputs.dtype))


TASK = Autoencoder()
