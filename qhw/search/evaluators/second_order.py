"""The loss by a second-order model with dependencies between layers: a proxy that needs no inference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from qhw.formats.modes import IntArray
from qhw.search.evaluators.base import Evaluation, Evaluator, Held
from qhw.search.space import Point

if TYPE_CHECKING:
    from qhw.search.network import Variants

SAMPLES = 128
"""Held-out samples that the model is made from."""


class SecondOrder(Evaluator):
    """Minus the increase of the loss over that of the widest point.

    With d_i what the format of variable i changes in its layer's result, J_i the Jacobian of the network's
    outputs with respect to that result, and H the Hessian of the loss in the outputs,

        increase(p) = 1/2 sum over i, j of d_i(p_i)^T J_i^T H J_j d_j(p_j),

    the Gauss-Newton form of the Hessian. Terms of i = j are what each layer does alone; the others are the
    dependencies between layers of "Augmenting Hessians with Inter-Layer Dependencies for Mixed-Precision
    Post-Training Quantization" (arXiv 2306.04879). The gradient of a trained network is taken for
    zero. J is that of the widest quantised network, whose quantizers pass gradients straight through. One
    backward pass per output of the network makes the model; a point is then a sum of numbers in a table.
    """

    name = "second-order"
    title = "loss predicted by a second-order model with dependencies between layers"
    rank = 0
    is_metric = False

    def __init__(self, variants: Variants, held: Held) -> None:
        super().__init__(variants, held)
        self.offsets = np.concatenate(([0], np.cumsum(variants.space.counts)[:-1]))
        samples = torch.from_numpy(held.samples[:SAMPLES]).float()
        judge = held.judge.first(SAMPLES)
        targets = torch.from_numpy(judge.task.trained_on(judge.targets))
        outputs, changes = self._changes_of_outputs(samples)
        with torch.enable_grad():
            leaf = outputs.clone().requires_grad_()
            (slope,) = torch.autograd.grad(judge.task.loss(leaf, targets), leaf, create_graph=True)
            curved = [_product(slope, leaf, change) for change in changes]
        rows = torch.stack(changes).flatten(1).double()
        self.products: NDArray[np.float64] = (rows @ torch.stack(curved).flatten(1).double().T).numpy()
        """d_i^T J_i^T H J_j d_j of every two options of the space, (options, options)."""

    def increase(self, points: IntArray | Sequence[Point]) -> NDArray[np.float64]:
        """The increase of the mean loss, (points,), of points (points, variables)."""
        rows = np.asarray(points, dtype=np.int64).reshape(-1, len(self.offsets)) + self.offsets
        total = np.zeros(len(rows))
        for i in range(rows.shape[1]):
            for j in range(rows.shape[1]):
                total += self.products[rows[:, i], rows[:, j]]
        return total / 2

    def quality_of(self, point: Point) -> Evaluation:
        increase = float(self.increase([point])[0])
        return Evaluation(-increase, increase, increase, increase)

    def _changes_of_outputs(self, samples: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The widest point's outputs, (N, ...), and by how much each option changes them, to first order."""
        point = self.variants.space.widest()
        recorder = _Recorder(self.variants, point)
        with torch.enable_grad():
            outputs = recorder.run(samples)
            flat = outputs.flatten(1)
            values = [value for value, _, _ in recorder.found]
            columns = [
                torch.autograd.grad(flat[:, k].sum(), values, retain_graph=True, materialize_grads=True)
                for k in range(flat.shape[1])
            ]
        counts = self.variants.space.counts
        changes = [torch.zeros_like(flat) for _ in range(int(counts.sum()))]
        for place, (_, variable, differences) in enumerate(recorder.found):
            slopes = torch.stack([column[place].flatten(1) for column in columns], dim=1)
            for option, difference in enumerate(differences):
                changed = torch.einsum("nkf,nf->nk", slopes, difference.flatten(1))
                changes[int(self.offsets[variable]) + option] += changed
        return outputs.detach(), [change.reshape(outputs.shape) for change in changes]


class _Recorder(fx.Interpreter):
    """Runs the network of a point, and keeps of each layer with a variable its result, a part of the graph of
    gradients, and how far the result in every other format is from it.
    """

    def __init__(self, variants: Variants, point: Point) -> None:
        super().__init__(variants.base)
        self.variants, self.point = variants, point
        self.found: list[tuple[Tensor, int, list[Tensor]]] = []

    def run_node(self, n: fx.Node) -> object:
        if n.op != "call_module":
            return super().run_node(n)
        arguments, named = self.fetch_args_kwargs_from_env(n)
        value: Tensor = self.variants.layer(n, self.point)(*arguments, **named)
        for variable in self.variants.variables(n):
            with torch.no_grad():
                differences = [
                    self.variants.layer(n, (*self.point[:variable], option, *self.point[variable + 1 :]))(
                        *arguments, **named
                    )
                    - value
                    for option in range(int(self.variants.space.counts[variable]))
                ]
            self.found.append((value, variable, differences))
        return value


def _product(slope: Tensor, outputs: Tensor, change: Tensor) -> Tensor:
    """The Hessian of the loss in the outputs, times a change of them; zero where the loss is linear."""
    if not slope.requires_grad:
        return torch.zeros_like(outputs)
    (product,) = torch.autograd.grad(slope, outputs, change, retain_graph=True, materialize_grads=True)
    return product


evaluator = SecondOrder
