"""Formats that are trained like weights, as HGQ trains bit widths (arXiv 2405.00645), by calibrated prices.

Each variable has a **ladder**: those of its options that no other beats in both price and error, cheapest
first, and a trained position ``u`` on it. The network always runs at whole rungs, ``k = round(u)``, so what
is trained is what is built. One run sweeps the front: the loss is ``task + beta * C(u)``, and ``beta``
rises from cycle to cycle; every epoch whose point is not dominated is kept, with its weights (HGQ2's way to
a front).

The task's gradient goes straight through the rounding of ``u``: between rungs, a quantised tensor is taken
to be ``y_k + (u - k) (y_{k+1} - y_k)``, so

    d task / du  =  sum over the tensors of the variable of  < d task / dy , y_{k+1} - y_k >

at the ``y_k`` that was run, and 0 at the top rung. In the place of ``y_{k+1} - y_k`` HGQ has the derivative
of the rounding error by the width, ``-ln 2`` times the error; a difference also holds between an integer and
a minifloat.

``C`` takes the place of HGQ's EBOPs: the priced table itself, smoothed over each variable's rungs at the
others' whole ones, relative to the price of the topmost point:

    C(u)  =  sum over variables v of  sum_k g_k(u_v) price(point with v at rung k) / price(top)
    g_k(u)  =  exp(-(k - u)^2 / (2 s^2)) / sum_j exp(-(j - u)^2 / (2 s^2))

with ``s = 1`` rung: prices are no monotone function of the format (a multiplier turns into a DSP slice),
and a slope between two rungs alone would be caught in each dent.

**0 bits.** Every channel that can be left out of a design (:mod:`._channels`) has a ladder of its own, of two
rungs: 0 bits, which is the number 0, and the layer's format. The slope of the task is the same as above, with
``y_0 = 0``; that of the price is what the topmost design saves per channel where half of them are left out,
by the exact graph that is then built. So channels go as ``beta`` rises, and come back where the task asks for
them: ``y_1`` is computed all along. A point that was kept has zeros in place of its lost channels, and the
price of its own design.

What HGQ has and this has not: a position per weight, and widths per channel between 0 and the layer's: units
that are folded compute all channels with one multiplier, as wide as the widest of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qhw.data.base import Dataset
from qhw.errors import CheckFailedError, InputError
from qhw.layers import QuantBatchNorm
from qhw.quantizers import Quantizer
from qhw.search.evaluators.base import relative_error
from qhw.search.network import PrefixCache, Variants
from qhw.search.pareto import front
from qhw.search.space import Point
from qhw.search.strategies._channels import ChannelGroup, channel_groups, gated, silenced
from qhw.search.strategies.training import (
    Place,
    SharedWeights,
    TrainedPoint,
    TrainingProblem,
    TrainingStrategy,
    batch_losses,
    front_of,
)
from qhw.train import ProgressCallback, set_rate

SMOOTHING = 1.0
"""``s``, in rungs."""

SAMPLES = 128
"""Samples by which ladders are built."""


@dataclass(frozen=True)
class GradientSettings:
    """How formats are trained.

    Args:
        cycles: values of ``beta``, one after the other; the learning rates fall to 0 along half a cosine in
            each.
        epochs: epochs of each cycle.
        beta: the first and the last value, of a loss in the task's own unit per price of the topmost point;
            those between are in equal ratios.
        rate: peak learning rate of the positions (Adam), in rungs.
        prune: whether channels may have 0 bits.

    Raises:
        InputError: a number is out of its range.
    """

    cycles: int = 10
    epochs: int = 4
    beta: tuple[float, float] = (0.01, 10.0)
    rate: float = 0.05
    prune: bool = True

    def __post_init__(self) -> None:
        first, last = self.beta
        allowed = {
            "cycles": (self.cycles >= 1, "a number from 1"),
            "epochs": (self.epochs >= 1, "a number from 1"),
            "beta": (0 < first <= last < math.inf, "two positive numbers, rising"),
            "rate": (0 < self.rate < math.inf, "a positive number"),
        }
        for name, (ok, what) in allowed.items():
            if not ok:
                raise InputError(f"gradient: {name} is {getattr(self, name)!r}", allowed=what)


def ladders(strategy: TrainingStrategy, variants: Variants, samples: Tensor) -> list[Point]:
    """The rungs of each variable, as places of its options, cheapest first.

    An option is judged by its price and by the error of the network's outputs, all else at the widest.

    Args:
        samples: (N, ...), as the network takes them.
    """
    widest = variants.space.widest()
    cache = PrefixCache(variants, samples)
    with torch.inference_mode():
        reference = variants.model(samples).numpy()
    found = []
    for index, variable in enumerate(variants.space.variables):
        points = [(*widest[:index], place, *widest[index + 1 :]) for place in range(len(variable.options))]
        errors = [relative_error(cache.outputs(point), reference) for point in points]
        found.append(tuple(front(strategy.finite_costs(points), -np.array(errors))))
    return found


@dataclass
class Positions:
    """Where each variable stands on its ladder, and how it moves.

    Args:
        strategy: knows the costs of points.
        data: for the loss.
        ladders: the rungs of each variable.
        settings: as the user gave them.
        rate: the peak learning rate of the weights.
        steps: steps of an epoch.
        prunable: groups of channels that may be left out, each with the share of the topmost point's price
            that one of its channels saves.
    """

    strategy: Gradient
    data: Dataset
    ladders: Sequence[Point]
    settings: GradientSettings
    rate: float
    steps: int
    prunable: Sequence[tuple[ChannelGroup, float]] = ()
    done: int = 0
    kept: list[TrainedPoint] = field(default_factory=list)

    def __post_init__(self) -> None:
        tops = [float(len(ladder) - 1) for ladder in self.ladders]
        self.tops = torch.tensor(tops, dtype=torch.float64)
        self.positions = self.tops.clone().requires_grad_()
        self.groups = [group for group, _ in self.prunable]
        self.channels = [torch.ones(g.channels, dtype=torch.float64).requires_grad_() for g in self.groups]
        self.optimizer = torch.optim.Adam([self.positions, *self.channels], lr=self.settings.rate)
        top = self._point([int(rung) for rung in tops])
        self.price_of_top = float(self.strategy.finite_costs([top])[0])

    @property
    def rungs(self) -> tuple[int, ...]:
        """The whole rungs that the network runs at."""
        return tuple(int(rung) for rung in torch.round(self.positions.detach()))

    @property
    def masks(self) -> list[Tensor]:
        """Per group (channels,): whether a channel has its format, else 0 bits; one of them stays."""
        masks = [each.detach() > 0.5 for each in self.channels]
        for mask, each in zip(masks, self.channels, strict=True):
            mask[each.detach().argmax()] = True
        return masks

    def _point(self, rungs: Sequence[int]) -> Point:
        return tuple(ladder[rung] for ladder, rung in zip(self.ladders, rungs, strict=True))

    # --- what a training phase asks for

    def step(self, model: SharedWeights, optimizer: torch.optim.Optimizer, *batch: Tensor) -> Tensor:
        """Train weights and positions on one batch."""
        cycle, passed = divmod(self.done, self.settings.epochs * self.steps)
        share = _falling(passed / (self.settings.epochs * self.steps))
        if self.done % self.steps == 0:
            self._restart_others(model)
        set_rate(optimizer, self.rate * share)
        rungs = self.rungs
        model.choose(self._point(rungs))
        slopes = torch.zeros_like(self.positions)
        optimizer.zero_grad(set_to_none=True)
        masks = [mask.double().requires_grad_() for mask in self.masks]
        with _watched(model, self._raised(rungs), slopes), gated(model.network, self.groups, masks):
            loss = batch_losses(model, self.data, *batch)
            torch.autograd.backward(loss)
        optimizer.step()
        of_channels = [mask.grad if mask.grad is not None else torch.zeros_like(mask) for mask in masks]
        if all(bool(torch.isfinite(each).all()) for each in (slopes, *of_channels)):
            self._move(slopes, of_channels, rungs, cycle, share)
        self.done += 1
        return loss.detach()

    def epoch_done(self, model: SharedWeights, data: Dataset, epoch: int) -> None:
        """Keep the point that was trained last, and its weights, if no other epoch's beats it."""
        with silenced(model.network, self.groups, self.masks):
            trained = self.strategy.trained(model, self.strategy.name, epoch + 1)
        if not all(bool(mask.all()) for mask in self.masks):
            trained = self.strategy.priced_alone(trained)
        self.kept = front_of([*self.kept, trained])

    def state(self) -> dict[str, Any]:
        """Positions, their optimizer and what was kept."""
        return {
            "positions": self.positions.detach(),
            "channels": [each.detach() for each in self.channels],
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
            "kept": [point.to_mapping() for point in self.kept],
        }

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        with torch.no_grad():
            self.positions.copy_(state["positions"])
            for each, stored in zip(self.channels, state["channels"], strict=True):
                each.copy_(stored)
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]
        self.kept = [TrainedPoint.from_mapping(stored) for stored in state["kept"]]

    # --- how positions move

    def _move(
        self, slopes: Tensor, of_channels: Sequence[Tensor], rungs: tuple[int, ...], cycle: int, share: float
    ) -> None:
        """One step of the positions, by the task's slopes and the price's."""
        first, last = self.settings.beta
        beta = first * (last / first) ** (cycle / max(self.settings.cycles - 1, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate * share
        self.positions.grad = slopes + beta * torch.from_numpy(self._price_slopes(rungs))
        for channels, slope, price in zip(
            self.channels, of_channels, self._price_slopes_of_channels(rungs), strict=True
        ):
            channels.grad = slope + beta * price
        self.optimizer.step()
        with torch.no_grad():
            self.positions.clamp_(min=torch.zeros_like(self.tops), max=self.tops)
            for channels in self.channels:
                channels.clamp_(min=0, max=1)

    def _price_slopes(self, rungs: tuple[int, ...]) -> NDArray[np.float64]:
        """``dC/du`` of each variable: the covariance of price and rung under ``g``, over ``s^2``."""
        places = self.positions.detach().numpy()
        tables = self._prices(rungs)
        found = np.zeros(len(rungs))
        for index, table in enumerate(tables):
            rung = np.arange(len(table))
            weight = np.exp(-((rung - places[index]) ** 2) / (2 * SMOOTHING**2))
            weight /= weight.sum()
            apart = rung - weight @ rung
            found[index] = (weight * apart) @ table / SMOOTHING**2
        return found

    def _price_slopes_of_channels(self, rungs: tuple[int, ...]) -> list[Tensor]:
        """``dC/dv`` of each channel's position: the same, with two rungs."""
        price = float(self.strategy.finite_costs([self._point(rungs)])[0]) / self.price_of_top
        found = []
        for (_, share), channels in zip(self.prunable, self.channels, strict=True):
            weight = torch.sigmoid((channels.detach() - 0.5) / SMOOTHING**2)  # of the upper of two rungs
            found.append(share * price * weight * (1 - weight) / SMOOTHING**2)
        return found

    def _prices(self, rungs: tuple[int, ...]) -> list[NDArray[np.float64]]:
        """For each variable the relative prices of its rungs, at the others' whole ones."""
        points = [
            self._point([*rungs[:index], rung, *rungs[index + 1 :]])
            for index, ladder in enumerate(self.ladders)
            for rung in range(len(ladder))
        ]
        prices = self.strategy.finite_costs(points) / self.price_of_top
        return np.split(prices, np.cumsum([len(ladder) for ladder in self.ladders])[:-1])

    def _raised(self, rungs: tuple[int, ...]) -> list[int | None]:
        """For each variable the option one rung up; None at the top."""
        return [
            ladder[rung + 1] if rung + 1 < len(ladder) else None
            for ladder, rung in zip(self.ladders, rungs, strict=True)
        ]

    def _restart_others(self, model: SharedWeights) -> None:
        """Let quantizers that are not in use find their scale anew: the weights have moved since."""
        point = self._point(self.rungs)
        for place in model.places:
            for option, quantizer in enumerate(place.options):
                if option != point[place.variable]:
                    quantizer.restart()


@contextmanager
def _watched(model: SharedWeights, raised: Sequence[int | None], slopes: Tensor) -> Iterator[None]:
    """While it is entered, a backward pass adds each variable's slope of the loss to ``slopes``."""
    handles = []
    for place in model.places:
        option = raised[place.variable]
        if option is not None:
            watch = _Watch(place, place.options[option], slopes)
            watched = getattr(place.owner, place.attribute) if watch.of_weights else place.owner
            handles.append(watched.register_forward_hook(watch))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Watch:
    """A forward hook: runs the module once more, one rung up, and waits for the gradient of its result."""

    def __init__(self, place: Place, raised: Quantizer, slopes: Tensor) -> None:
        self.place, self.raised, self.slopes = place, raised, slopes
        self.of_weights = place.attribute == "tensor_quant"

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Any) -> None:
        result = output[0] if self.of_weights else output
        if not result.requires_grad:
            return
        with torch.no_grad():
            difference = self._one_rung_up(module, inputs) - result.detach()
        result.register_hook(lambda grad: self._add(grad, difference))

    def _add(self, grad: Tensor, difference: Tensor) -> None:
        self.slopes[self.place.variable] += (grad * difference).sum(dtype=torch.float64)

    def _one_rung_up(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        if self.of_weights:
            return self.raised.quantize(*inputs)
        current = getattr(self.place.owner, self.place.attribute)
        setattr(self.place.owner, self.place.attribute, self.raised)
        try:
            with _statistics_kept(module):
                raised: Tensor = module.forward(*inputs)
        finally:
            setattr(self.place.owner, self.place.attribute, current)
        return raised


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """While it is entered, a batch norm in training leaves its running statistics as they are."""
    if not isinstance(module, QuantBatchNorm):
        yield
        return
    buffers = [module.running_mean, module.running_var, module.num_batches_tracked]
    before = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, value in zip(buffers, before, strict=True):
            buffer.copy_(value)


class Gradient(TrainingStrategy):
    """One training run in which the price weighs more and more; its epochs are the front.

    Args:
        problem: see :class:`TrainingProblem`.
        settings: see :class:`GradientSettings`.
    """

    name = "gradient"
    title = "formats trained by gradients, one run sweeps the front"
    source = "arXiv 2405.00645"

    def __init__(self, problem: TrainingProblem, settings: GradientSettings | None = None) -> None:
        super().__init__(problem)
        self.settings = settings or GradientSettings()

    def priced_alone(self, trained: TrainedPoint) -> TrainedPoint:
        """A point of which channels are left out, at the price of its own design."""
        assert self.problem.price_network is not None
        cost, fits = self.problem.price_network(trained.network(self.problem.variants))
        return replace(trained, cost=cost, fits=fits)

    def prunable(self, top: Point) -> list[tuple[ChannelGroup, float]]:
        """Groups of channels that may be left out, and what one channel saves of the topmost price."""
        price = self.problem.price_network
        if price is None or not self.settings.prune:
            return []
        network = self.problem.variants.module(top).eval()
        whole, _ = price(network)
        found = []
        for group in channel_groups(self.problem.variants) if math.isfinite(whole) else ():
            mask = torch.arange(group.channels) % 2 == 0
            with silenced(network, [group], [mask]):
                half, _ = price(network)
            share = (whole - half) / whole / int((~mask).sum())
            if math.isfinite(half) and share > 0:
                found.append((group, share))
        return found

    def run(self, progress: ProgressCallback | None = None) -> list[TrainedPoint]:
        """See :class:`TrainingStrategy`; the epochs that fit and that no other beats.

        Raises:
            CheckFailedError: also where no epoch's point keeps to the budget.
        """
        data, config = self.problem.data, self.problem.config
        samples = torch.from_numpy(data.train_x[:SAMPLES]).float()
        rungs = ladders(self, self.problem.variants, samples)
        size = min(config.batch_size, len(data.train_x))
        rate = config.quantised_learning_rate
        prunable = self.prunable(tuple(ladder[-1] for ladder in rungs))
        positions = Positions(self, data, rungs, self.settings, rate, len(data.train_x) // size, prunable)
        epochs = self.settings.cycles * self.settings.epochs
        self.train(self.name, epochs, positions, self.identity(self.settings, rungs, prunable), progress)
        if not positions.kept:
            raise CheckFailedError(
                f"gradient: in none of {epochs} epochs did the point keep to the budget of the board",
                hint="let beta rise further, or ask for a lower rate, a larger budget or cheaper formats",
            )
        return positions.kept


strategy = Gradient


def _falling(passed: float) -> float:
    """Half a cosine from 1 to 0."""
    return 0.5 * (1 + math.cos(math.pi * passed))
