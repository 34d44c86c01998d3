"""The base of strategies that search while they train: every format of the space over the same float weights.

They propose no points; a run of them gives points that are trained already.
"""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from qhw import checkpoints
from qhw.accelerator import CPU, Batches, Step
from qhw.data.base import Dataset
from qhw.errors import CheckFailedError, InputError
from qhw.formats.modes import IntArray
from qhw.layers import QuantBatchNorm
from qhw.quantizers import Quantizer
from qhw.search.evaluators.base import Evaluation, Held, judged
from qhw.search.network import Variants
from qhw.search.pareto import front
from qhw.search.space import Point, Space
from qhw.search.strategies.base import Prices
from qhw.train import Phase, ProgressCallback, TrainConfig, predict, torch_threads

UNREACHED = 10.0
"""What a point costs that no folding makes fast enough, in multiples of the dearest one it is seen with."""


@dataclass(frozen=True)
class TrainingProblem:
    """What a strategy that trains works on.

    Args:
        variants: the trained float network in all formats of the space.
        price: costs (points,) and whether points fit, of points (points, variables); asked for in every step.
        data: its training split is trained on; it holds none of the samples held out.
        held: samples that points are compared by.
        config: batch size, peak learning rate (``quantised_learning_rate``), decay, seed, threads, device.
        folder: of the checkpoints after every epoch; None: there are none.
        price_network: the cost of a quantised network's own design, and whether it fits: that of one with
            channels that are left out is not its formats' alone. None: channels are not left out.
    """

    variants: Variants
    price: Callable[[IntArray | Sequence[Point]], Prices]
    data: Dataset
    held: Held
    config: TrainConfig
    folder: Path | None = None
    price_network: Callable[[fx.GraphModule], tuple[float, bool]] | None = None

    @property
    def space(self) -> Space:
        """The formats."""
        return self.variants.space


@dataclass(frozen=True)
class TrainedPoint:
    """A point with its trained weights.

    Args:
        cost: the objective, less is better; ``fits``: whether it keeps to the budget and the rate.
        evaluation: its metric on the samples held out.
        state: the state of its quantised network, for :meth:`network`.
        phase, epoch: where in the run it was taken, epochs from 1.
    """

    point: Point
    cost: float
    fits: bool
    evaluation: Evaluation
    state: Mapping[str, Tensor]
    phase: str
    epoch: int

    def network(self, variants: Variants) -> fx.GraphModule:
        """The trained quantised network in eval mode, to be exported."""
        module = variants.module(self.point)
        module.load_state_dict(dict(self.state))
        return module.eval()

    def to_mapping(self) -> dict[str, Any]:
        """Plain values and tensors, which :meth:`from_mapping` takes back."""
        fields = {name: getattr(self, name) for name in ("cost", "fits", "phase", "epoch")}
        return {
            **fields,
            "point": list(self.point),
            "evaluation": dict(vars(self.evaluation)),
            "state": dict(self.state),
        }

    @classmethod
    def from_mapping(cls, stored: Mapping[str, Any]) -> TrainedPoint:
        """The point that :meth:`to_mapping` wrote."""
        fields = {**stored, "point": tuple(stored["point"]), "evaluation": Evaluation(**stored["evaluation"])}
        return cls(**fields)


def front_of(points: Sequence[TrainedPoint]) -> list[TrainedPoint]:
    """The points that fit and that none beats, cheapest first."""
    fitting = [point for point in points if point.fits]
    kept = front([p.cost for p in fitting], [p.evaluation.quality for p in fitting])
    return [fitting[place] for place in kept]


@dataclass(frozen=True)
class Place:
    """A quantizer of the network that a variable chooses.

    Args:
        variable: the variable's place.
        owner: the module that holds it, as ``attribute``: a layer, or the proxy of a layer's weights.
        options: the quantizers, one for each option of the variable.
    """

    variable: int
    owner: nn.Module
    attribute: str
    options: tuple[Quantizer, ...]


class SharedWeights(nn.Module):
    """A network in all formats of a space over the same float weights: quantizers are exchanged.

    Each option has a quantizer of its own, with its own binary point or scale; biases, batch norm and what
    else no variable chooses are there once.

    Args:
        variants: left as they are.

    Attributes:
        network: the network at the chosen point.
        places: every quantizer that is chosen.
    """

    def __init__(self, variants: Variants) -> None:
        super().__init__()
        self.parked = tuple([0] * len(variants.space.variables))
        self.network = variants.module(self.parked)
        self.places = _places(variants, self.network)
        self.options = nn.ModuleList(nn.ModuleList(place.options) for place in self.places)
        self.point = self.parked

    def forward(self, *samples: Tensor) -> Tensor:
        result: Tensor = self.network(*samples)
        return result

    def choose(self, point: Sequence[int]) -> None:
        """Bring the network to a point."""
        self.point = tuple(int(place) for place in point)
        for place in self.places:
            setattr(place.owner, place.attribute, place.options[self.point[place.variable]])

    def park(self) -> None:
        """Bring the network to the point at which its state is stored and loaded."""
        self.choose(self.parked)

    def state_of_point(self) -> dict[str, Tensor]:
        """The state of the network at the chosen point, copied to the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}


def _places(variants: Variants, network: fx.GraphModule) -> list[Place]:
    """The quantizers that variables choose; those that layers share in a variant stay shared."""
    sources = [copy.deepcopy(module) for module in variants.modules]
    found: dict[tuple[str, str], Place] = {}
    for node in variants.nodes:
        for index in variants.variables(node) if node.op == "call_module" else ():
            variable = variants.space.variables[index]
            path, attribute = _where(str(node.target), variable.kind)
            options = [getattr(module.get_submodule(path), attribute) for module in sources]
            count = len(variable.options)
            found[path, attribute] = Place(
                index, network.get_submodule(path), attribute, tuple(options[:count])
            )
    return list(found.values())


def _where(layer: str, kind: str) -> tuple[str, str]:
    """The module and the attribute that hold a layer's quantizer of weights or of its result."""
    return (f"{layer}.weight_quant", "tensor_quant") if kind == "weights" else (layer, "result")


class Search(Protocol):
    """What a searching phase does beyond training; it learns by itself and keeps its own state.

    Attributes:
        done: steps so far.
    """

    done: int

    def step(self, model: SharedWeights, optimizer: torch.optim.Optimizer, *batch: Tensor) -> Tensor:
        """One step on samples and targets; returns the loss."""

    def epoch_done(self, model: SharedWeights, data: Dataset, epoch: int) -> None:
        """After an epoch (from 0)."""

    def state(self) -> dict[str, Any]:
        """Plain values and tensors, for the checkpoint."""

    def take(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""


@dataclass(frozen=True)
class SearchPhase(Phase):
    """A phase of training in which each step is that of a search; on a GPU its steps run unrecorded.

    Batch norms keep each batch's statistics: the running ones are of all points that were run lately.

    Args:
        search: what is done in a step and after an epoch.
    """

    freezes_norms: ClassVar[bool] = False

    search: Search

    def step_of(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, data: Dataset, device: torch.device
    ) -> Step:
        """One step of the search."""
        assert isinstance(model, SharedWeights)
        steps = len(data.train_x) // min(self.config.batch_size, len(data.train_x))

        def step(*batch: Tensor) -> Tensor:
            try:
                return self.search.step(model, optimizer, *batch)
            except InputError as error:  # a quantizer that was to find its scale was given NaN
                place = f"the {self.name} phase, epoch {self.search.done // steps + 1}"
                raise InputError(f"{error.message}, in {place}", hint=error.hint) from error

        return step

    def epoch_done(self, model: nn.Module, data: Dataset, epoch: int) -> None:
        """What the search does after an epoch; the network is parked, so that its state can be kept."""
        assert isinstance(model, SharedWeights)
        self.search.epoch_done(model, data, epoch)
        model.park()

    def more_state(self) -> dict[str, Any]:
        """The state of the search."""
        return self.search.state()

    def take_state(self, state: Mapping[str, Any]) -> None:
        """Go on from such a state."""
        self.search.take(state)


class TrainingStrategy(ABC):
    """Searches while it trains.

    A run is decided by its problem and settings: seeded, the same bit for bit on one machine; with a folder
    it goes on after the last whole epoch.

    Attributes:
        name: as in ``--strategy``.
        title: what it does, in a few words.
        source: the paper that it is from.
        trains: tells it from strategies that ask for evaluations.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str] = ""
    trains: ClassVar[bool] = True

    def __init__(self, problem: TrainingProblem) -> None:
        self.problem, self.space = problem, problem.space
        self.prices: dict[Point, tuple[float, bool]] = {}

    @abstractmethod
    def run(self, progress: ProgressCallback | None = None) -> list[TrainedPoint]:
        """Train and search.

        Args:
            progress: called after every step; an exception in it ends the run.

        Returns:
            The trained points, cheapest first; :func:`front_of` keeps those that none beats.

        Raises:
            InputError: the loss is no longer a finite number; the message names the epoch.
            CheckFailedError: no point has a finite cost.
        """

    def costs(self, points: Sequence[Point]) -> NDArray[np.float64]:
        """The costs of points; what was asked for before is remembered."""
        unknown = list(dict.fromkeys(point for point in points if point not in self.prices))
        if unknown:
            costs, fits = self.problem.price(unknown)
            self.prices |= {
                point: (float(cost), bool(fit)) for point, cost, fit in zip(unknown, costs, fits, strict=True)
            }
        return np.array([self.prices[point][0] for point in points])

    def finite_costs(self, points: Sequence[Point]) -> NDArray[np.float64]:
        """The costs of points; those that no folding makes fast enough cost more than all others."""
        costs = self.costs(points)
        usable = np.isfinite(costs)
        if not usable.any():
            raise CheckFailedError(
                f"{self.name}: none of {len(costs)} points reaches the rate on the board",
                hint="ask for fewer images per second, a larger board, or cheaper formats",
            )
        return np.where(usable, costs, UNREACHED * costs[usable].max())

    def identity(self, *settings: object) -> str:
        """A hash of all that decides a run beside the training's own settings, prices included."""
        problem = self.problem
        known = sorted({*self.space.uniform(), self.space.widest()})
        return checkpoints.fingerprint(
            checkpoints.weights_hash(problem.variants.model),
            problem.data.sha256,
            hashlib.sha256(np.ascontiguousarray(problem.held.samples).data).hexdigest(),
            torch.__version__,
            self.space.to_mapping(),
            self.costs(known).tolist(),
            *settings,
        )

    def train(
        self,
        name: str,
        epochs: int,
        search: Search,
        identity: str,
        progress: ProgressCallback | None,
    ) -> SharedWeights:
        """Train all formats over the same weights, one phase long; its checkpoint is named after it."""
        config, folder = self.problem.config, self.problem.folder
        if folder is not None:
            checkpoints.prepare_folder(folder)
        model = SharedWeights(self.problem.variants)
        rate = config.quantised_learning_rate
        phase = SearchPhase(name, epochs, rate, config, folder, identity, search)
        with torch_threads(config.threads):
            phase.run(model, self.problem.data, progress)
        return model

    def trained(self, model: SharedWeights, phase: str, epoch: int) -> TrainedPoint:
        """The chosen point as it is now, evaluated on the samples held out."""
        cost = float(self.costs([model.point])[0])
        evaluation = judged(self.problem.held, predict(model.network, self.problem.held.samples))
        fits = self.prices[model.point][1]
        return TrainedPoint(model.point, cost, fits, evaluation, model.state_of_point(), phase, epoch)


def batch_losses(model: nn.Module, data: Dataset, *batch: Tensor) -> Tensor:
    """The mean loss of a batch: the samples of each input, then the targets."""
    *samples, targets = batch
    return data.kind.loss(model(*samples), targets)


def reestimate_batch_norm(model: nn.Module, data: Dataset, batch_size: int) -> None:
    """Set the running statistics of batch norms to the mean over the training samples, weights unchanged.

    Those of shared weights are of all points that were run lately; a point needs its own (as in arXiv
    1812.08928, section 3).
    """
    norms = [m for m in model.modules() if isinstance(m, QuantBatchNorm)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = None
        norm.num_batches_tracked.zero_()
    model.train()
    with torch.no_grad():
        size = min(batch_size, len(data.train_x))
        rows = np.arange(len(data.train_x) // size * size).reshape(-1, size)
        for *samples, _ in Batches.of(data, CPU).epoch(rows):
            model(*samples)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
