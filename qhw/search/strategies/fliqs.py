"""FLIQS: a policy-gradient controller that chooses formats while the network trains (arXiv 2308.03290).

Each variable has a categorical distribution over its options, integers, minifloats and k-hot side by side.
Every step draws two points, trains the shared weights through the quantizers of the first, and moves the
distributions by REINFORCE on the reward

    r(point) = -loss(point) / s  -  w * |cost(point) / target - 1|

the absolute reward that FLIQS takes from TuNAS (arXiv 2008.06120), with the calibrated cost. At the end the
most likely point is the result, with the weights as they then are: nothing is trained again.

Where this is not the paper:

- The baseline of a point's reward is that of the other point on the same batch (leave one out), in place of a
  moving average: how hard a batch is then cancels. The second point is only run forward.
- The reward's quality is minus the loss of the batch, over ``s``, a moving average of the difference that two
  points make, so that one weight of the cost serves every task. The paper's networks see enough steps for
  accuracies.
- The cost of a point is known without running it, so its part of the policy's gradient is a mean over many
  points drawn.
- The coefficient of the entropy falls along a half cosine from +e to -e: the policy explores first and has
  settled at the end. The running statistics of batch norm are then taken anew for the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qhw import checkpoints
from qhw.data.base import Dataset
from qhw.errors import InputError
from qhw.search.space import Point
from qhw.search.strategies.training import (
    SharedWeights,
    TrainedPoint,
    TrainingProblem,
    TrainingStrategy,
    batch_losses,
    reestimate_batch_norm,
)
from qhw.train import ProgressCallback

MEMORY = 0.95
"""How much of the moving average of the losses' differences a step keeps."""


@dataclass(frozen=True)
class FliqsSettings:
    """How FLIQS searches.

    Args:
        epochs: epochs of each run; 0: three times the recipe's quantised ones.
        targets: how many target costs there are, one run each, in equal ratios between the cheapest point
            of one format for all and the widest point; or the target costs themselves.
        warm_up: share of the steps in which points are drawn evenly and only weights are trained.
        rate: learning rate of the controller (Adam).
        cost_weight: ``w`` of the reward.
        entropy: ``e``: the coefficient of the entropy runs from this to its negative.
        cost_samples: points whose costs are averaged over in each step.

    Raises:
        InputError: a number is out of its range.
    """

    epochs: int = 0
    targets: int | Sequence[float] = 4
    warm_up: float = 0.2
    rate: float = 0.06
    cost_weight: float = 8.0
    entropy: float = 0.1
    cost_samples: int = 32

    def __post_init__(self) -> None:
        targets = [self.targets] if isinstance(self.targets, int) else list(self.targets)
        allowed = {
            "epochs": (self.epochs >= 0, "a number from 0"),
            "targets": (bool(targets) and min(targets) > 0, "a number from 1, or costs above 0"),
            "warm_up": (0 <= self.warm_up < 1, "a share from 0 to below 1"),
            "rate": (0 < self.rate < math.inf, "a positive number"),
            "cost_weight": (0 <= self.cost_weight < math.inf, "a number from 0"),
            "entropy": (0 <= self.entropy < math.inf, "a number from 0"),
            "cost_samples": (self.cost_samples >= 2, "a number from 2"),
        }
        for name, (ok, what) in allowed.items():
            if not ok:
                raise InputError(f"fliqs: {name} is {getattr(self, name)!r}", allowed=what)


@dataclass
class Controller:
    """The policy, and what it learns from: one categorical distribution per variable.

    Args:
        strategy: knows the costs of points.
        data: for the loss.
        settings: as the user gave them.
        target: the target cost.
        steps: steps of the whole run.
    """

    strategy: Fliqs
    data: Dataset
    settings: FliqsSettings
    target: float
    steps: int
    done: int = 0
    difference: float = 0.0
    logits: list[Tensor] = field(init=False)

    def __post_init__(self) -> None:
        counts = self.strategy.space.counts
        self.logits = [torch.zeros(int(count), dtype=torch.float64, requires_grad=True) for count in counts]
        self.optimizer = torch.optim.Adam(self.logits, lr=self.settings.rate)

    # --- the policy

    def draw(self, count: int) -> list[Point]:
        """Points drawn from the policy, by torch's own random numbers."""
        drawn = [
            torch.multinomial(logit.detach().softmax(0), count, replacement=True) for logit in self.logits
        ]
        return [tuple(row) for row in torch.stack(drawn, dim=1).tolist()]

    @property
    def likeliest(self) -> Point:
        """The most likely point."""
        return tuple(int(logit.argmax()) for logit in self.logits)

    @property
    def certainty(self) -> float:
        """The probability of the most likely point."""
        return math.prod(float(logit.detach().softmax(0).max()) for logit in self.logits)

    def log_probabilities(self, points: Sequence[Point]) -> Tensor:
        """The logarithms of points' probabilities, (points,)."""
        places = torch.tensor(points)
        return torch.stack([logit.log_softmax(0)[places[:, i]] for i, logit in enumerate(self.logits)]).sum(0)

    def entropy(self) -> Tensor:
        """The policy's entropy in nats: the sum over variables, which are independent."""
        return torch.stack([-(logit.softmax(0) * logit.log_softmax(0)).sum() for logit in self.logits]).sum()

    # --- what a training phase asks for

    def step(self, model: SharedWeights, optimizer: torch.optim.Optimizer, *batch: Tensor) -> Tensor:
        """Train the weights at one point of two; once warm, the policy by the difference of both."""
        first, second = self.draw(2)
        warm = self.done >= round(self.settings.warm_up * self.steps)
        other = None
        if warm:
            model.choose(second)
            with torch.no_grad():
                other = batch_losses(model, self.data, *batch)
        model.choose(first)
        optimizer.zero_grad(set_to_none=True)
        loss = batch_losses(model, self.data, *batch)
        torch.autograd.backward(loss)
        optimizer.step()
        if other is not None and bool(torch.isfinite(loss.detach() + other)):
            self._learn([first, second], np.array([float(loss.detach()), float(other)]))
        self.done += 1
        return loss.detach()

    def epoch_done(self, model: SharedWeights, data: Dataset, epoch: int) -> None:
        """Nothing: the result is that of the last epoch."""

    def state(self) -> dict[str, Any]:
        """Logits, their optimizer and the moving average."""
        return {
            "logits": [logit.detach() for logit in self.logits],
            "controller": self.optimizer.state_dict(),
            "done": self.done,
            "difference": self.difference,
        }

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        with torch.no_grad():
            for logit, stored in zip(self.logits, state["logits"], strict=True):
                logit.copy_(stored)
        self.optimizer.load_state_dict(state["controller"])
        self.done, self.difference = state["done"], state["difference"]

    # --- REINFORCE

    def _learn(self, points: Sequence[Point], losses: np.ndarray) -> None:
        """One step of the controller, by the losses (2,) of two points on one batch."""
        apart = abs(float(losses[0] - losses[1]))
        self.difference = MEMORY * self.difference + (1 - MEMORY) * apart if self.difference else apart
        quality = -losses / max(self.difference, 1e-12)
        cost = self._penalties(drawn := self.draw(self.settings.cost_samples))
        gain = _surrogate(self.log_probabilities(points), quality)
        gain = gain - self.settings.cost_weight * _surrogate(self.log_probabilities(drawn), cost)
        gain = gain + self._entropy_weight() * self.entropy()
        self.optimizer.zero_grad()
        torch.autograd.backward(-gain)
        self.optimizer.step()

    def _penalties(self, points: Sequence[Point]) -> np.ndarray:
        """How far each point is from the target, as a share of it."""
        return np.abs(self.strategy.finite_costs(points) / self.target - 1)

    def _entropy_weight(self) -> float:
        first = round(self.settings.warm_up * self.steps)
        passed = (self.done - first) / max(self.steps - first, 1)
        return self.settings.entropy * math.cos(math.pi * passed)


class Fliqs(TrainingStrategy):
    """One run per target cost; each gives its most likely point.

    Args:
        problem: see :class:`TrainingProblem`.
        settings: see :class:`FliqsSettings`.
    """

    name = "fliqs"
    title = "one-shot: a policy chooses formats while the network trains"
    source = "arXiv 2308.03290"

    def __init__(self, problem: TrainingProblem, settings: FliqsSettings | None = None) -> None:
        super().__init__(problem)
        self.settings = settings or FliqsSettings()

    @property
    def epochs(self) -> int:
        """Epochs of each run."""
        return self.settings.epochs or 3 * max(self.problem.config.quantised_epochs, 1)

    def targets(self) -> list[float]:
        """The target costs, dearest first."""
        given = self.settings.targets
        if not isinstance(given, int):
            return sorted(map(float, given), reverse=True)
        low = float(self.finite_costs(self.space.uniform()).min())
        high = float(self.finite_costs([self.space.widest()])[0])
        return [float(high * (low / high) ** ((k + 1) / (given + 1))) for k in range(given)]

    def run(self, progress: ProgressCallback | None = None) -> list[TrainedPoint]:
        """See :class:`TrainingStrategy`; one point per target, of which several may be the same."""
        found = [self._run(number, target, progress) for number, target in enumerate(self.targets(), 1)]
        return sorted(found, key=lambda point: point.cost)

    def _run(self, number: int, target: float, progress: ProgressCallback | None) -> TrainedPoint:
        data, config = self.problem.data, self.problem.config
        size = min(config.batch_size, len(data.train_x))
        steps = self.epochs * (len(data.train_x) // size)
        controller = Controller(self, data, self.settings, target, steps)
        identity = checkpoints.fingerprint(self.identity(self.settings), target)
        phase = f"fliqs-{number}"
        model = self.train(phase, self.epochs, controller, identity, progress)
        model.choose(controller.likeliest)
        reestimate_batch_norm(model.network, data, size)
        return self.trained(model, phase, self.epochs)


strategy = Fliqs


def _surrogate(log_probabilities: Tensor, rewards: np.ndarray) -> Tensor:
    """Its gradient is that of the expected reward: each reward less the mean of the others (1 of n apart)."""
    count = len(rewards)
    advantages = (rewards - rewards.mean()) * count / (count - 1)
    return (torch.from_numpy(advantages) * log_probabilities).mean()
