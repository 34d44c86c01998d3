"""Training: a float warm start, then quantisation-aware training; seeded, repeatable, resumable."""

from __future__ import annotations

import copy
import functools
import logging
import math
import numbers
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qhw import checkpoints as store
from qhw.accelerator import (
    CPU,
    LOSS_INTERVAL,
    Batches,
    RecordedStep,
    Step,
    memory_of,
    move,
    random_state_of,
    samples_at,
    training_on,
)
from qhw.data.base import Dataset
from qhw.data.inputs import Samples, count_of, parts_of, rows_of
from qhw.errors import InputError
from qhw.formats import Fixed, Format
from qhw.layers.preprocessed import BITS as PREPROCESS_BITS
from qhw.layers.preprocessed import Preprocessed
from qhw.torch_device import DEVICES, chosen_device, is_device

if TYPE_CHECKING:
    from qhw.convert import QuantConfig

logger = logging.getLogger(__name__)

WARM_UP = 0.05
"""Share of a phase's steps over which the learning rate rises."""

BINARY_POINT_RATE = 10.0
"""The learning rate of a binary point, relative to the weights': it counts in bits."""


PRECISIONS = ("float32", "bf16")

INPUT_BITS = 8
"""Bits of the trained quantizer at the door of float samples, unless the formats say otherwise."""

CALIBRATION_IMAGES = 256
"""Images that binary points are found on where they are not trained."""


@dataclass(frozen=True)
class TrainConfig:
    """How long and how fast to train.

    Args:
        float_epochs: epochs before quantisation; 0 for a model that is trained already.
        quantised_epochs: epochs with quantisers in place; 0 only lets them find their binary points.
        batch_size: images per step; an incomplete last batch of an epoch is left out.
        learning_rate: peak of the float phase (AdamW, linear warm-up, cosine to 0).
        quantised_learning_rate: peak of the quantised phase.
        weight_decay: decay of the weights; biases, batch norm and binary points take none.
        freeze_norms: the share of the quantised phase after which batch norms use their running statistics,
            as in evaluation (arXiv 1806.08342); 1 for never. Their constants are rounded: those of a batch's
            own statistics round to other codes than those that are built, and in narrow formats the weights
            would never be trained with the latter.
        seed: the random seed of the images' order and of dropout.
        threads: torch's threads; 0 for as many as it is set to. A network of a few thousand numbers
            per layer is quickest with one, most of all on a busy machine.
        device: cpu, cuda, cuda:N, or auto (a GPU where there is one). Other devices sum in another order:
            weights repeat bit for bit on one kind of device, not across kinds. The trained networks are on
            the CPU.
        precision: float32, or bf16 for convolutions and matrix products, which then read 8 significant bits
            of every number; quantizers stay in float32.

    Raises:
        InputError: a number is negative, or not finite, or zero where that makes no sense.
    """

    float_epochs: int = 10
    quantised_epochs: int = 5
    batch_size: int = 64
    learning_rate: float = 3e-3
    quantised_learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    freeze_norms: float = 0.5
    seed: int = 0
    threads: int = 0
    device: str = "cpu"
    precision: str = "float32"

    def __post_init__(self) -> None:
        least_values = {"float_epochs": 0, "quantised_epochs": 0, "batch_size": 2, "seed": 0, "threads": 0}
        for name, least in least_values.items():
            value = getattr(self, name)
            _require(
                name,
                value,
                _is_number(value, numbers.Integral) and value >= least,
                f"an integer from {least}",
            )
        for name in ("learning_rate", "quantised_learning_rate"):
            value = getattr(self, name)
            _require(name, value, _is_number(value) and 0 < value < math.inf, "a positive number")
        decay = self.weight_decay
        _require("weight_decay", decay, _is_number(decay) and 0 <= decay < math.inf, "a number from 0")
        share = self.freeze_norms
        _require("freeze_norms", share, _is_number(share) and 0 <= share <= 1, "a number from 0 to 1")
        _require("device", self.device, is_device(self.device), DEVICES)
        _require("precision", self.precision, self.precision in PRECISIONS, ", ".join(PRECISIONS))


def _is_number(value: object, kind: type = numbers.Real) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _require(name: str, value: object, ok: bool, allowed: str) -> None:
    if not ok:
        raise InputError(f"training setting {name} is {value!r}", allowed=allowed)


@dataclass(frozen=True)
class Progress:
    """Progress of training, reported after every step; on a GPU, after every sixteenth.

    Args:
        phase: "float" or "quantised".
        epoch, epochs: the current epoch, from 1, and how many there are in the phase.
        step, steps: the current step, from 1, and how many there are in the epoch.
        loss: the loss of this step's batch.
    """

    phase: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float


ProgressCallback = Callable[[Progress], None]


@dataclass(frozen=True)
class TrainResult:
    """The trained models, in eval mode, and their accuracy on the test split: the data set's metric."""

    float_model: nn.Module
    quantised_model: nn.Module
    float_accuracy: float
    quantised_accuracy: float
    samples: int
    seconds: float


def train(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    quant: QuantConfig,
    *,
    checkpoints: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> TrainResult:
    """Train in float, convert, train quantised, by the loss of the data set's task.

    The given model is left as it was.

    Args:
        model: a plain module from samples (N, ...), floats (pixels: 0..255), to the task's outputs (N, ...);
            of data with several inputs, from as many arguments. Parameters that need no gradient stay as they
            are.
        checkpoints: folder of the state after every epoch. A run that was interrupted goes on from there
            and ends with the same weights, bit for bit; checkpoints of other settings are not used.
        progress: called after every step (see :class:`Progress`). An exception in it ends the training.

    Raises:
        InputError: the model, the data, the folder or the device is not usable, or its memory is used up; the
            loss is no longer a finite number.
        UnsupportedError: the model holds a layer that cannot be converted.
    """
    started = time.monotonic()
    chosen_device(config.device)  # one that is not there is refused before anything else is done
    folder = _prepared(checkpoints)
    data = data_for(model, data)
    with torch_threads(config.threads):
        float_model, quantised = _both_phases(model, data, config, quant, folder, progress)
        return TrainResult(
            float_model=float_model,
            quantised_model=quantised,
            float_accuracy=evaluate(float_model, data),
            quantised_accuracy=evaluate(quantised, data),
            samples=count_of(data.test_x),
            seconds=time.monotonic() - started,
        )


def train_float(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    quant: QuantConfig,
    *,
    checkpoints: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> tuple[nn.Module, float]:
    """The float phase of :func:`train` alone: the network, and its accuracy on the test split.

    Args:
        quant: the formats to come, into which it has to be convertible; the rest as for :func:`train`.
    """
    chosen_device(config.device)
    folder = _prepared(checkpoints)
    with torch_threads(config.threads):
        float_model, _, _ = _float_phase(model, data, config, quant, folder, progress)
        return float_model, evaluate(float_model, data)


def _both_phases(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    quant: QuantConfig,
    folder: Path | None,
    progress: ProgressCallback | None,
) -> tuple[nn.Module, nn.Module]:
    from qhw.convert import convert

    model, quant, float_phase = _float_phase(model, data, config, quant, folder, progress)
    quantised = convert(model, quant, _example(data))
    identity = store.fingerprint(float_phase.fingerprint, quant, config.freeze_norms)
    rate = config.quantised_learning_rate
    Phase("quantised", config.quantised_epochs, rate, config, folder, identity).run(quantised, data, progress)
    return model, quantised


def _float_phase(
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    quant: QuantConfig,
    folder: Path | None,
    progress: ProgressCallback | None,
) -> tuple[nn.Module, QuantConfig, Phase]:
    """The float network, its formats for these data, and the phase that trained it."""
    from qhw.convert import convert
    from qhw.tracing import check_finite, trainable

    example = _example(data)
    check_finite(model)
    quant = quant_of(quant, data, model)
    model = trainable(model, example)
    convert(model, quant, example)  # what cannot be converted is refused before hours of float training
    _check_outputs(model, example, data)
    identity = training_identity(model, data)
    float_phase = Phase("float", config.float_epochs, config.learning_rate, config, folder, identity)
    float_phase.run(model, data, progress)
    return model, quant, float_phase


def _example(data: Dataset) -> tuple[Tensor, ...]:
    return as_inputs(rows_of(data.train_x, slice(2)))


def training_identity(model: nn.Module, data: Dataset) -> str:
    """A hash of what a training starts from."""
    return store.fingerprint(store.weights_hash(model), data.sha256, torch.__version__)


def quant_of(quant: QuantConfig, data: Dataset, model: nn.Module) -> QuantConfig:
    """The formats for a data set and a network.

    Samples are quantised at the door unless they are pixels: otherwise whole numbers among the first
    ones would be taken for pixels. The constants of a preprocessing get bits enough to cost no accuracy.
    """
    if len(data.inputs("train")) == 1:
        return quant_of_samples(quant, data.has_pixels, model)
    quant = _behind_preprocessing(quant, model)
    if data.has_pixels or isinstance(quant.inputs, Format | str):
        return quant
    from qhw.tracing import arguments_of

    parts = data_for(model, data).inputs("train")
    stated = quant.inputs or {}
    door = {
        name: Fixed(INPUT_BITS)
        for name, part in zip(arguments_of(model, len(parts)), parts, strict=False)
        if part.dtype != np.uint8
    }
    return replace(quant, inputs={**door, **stated})


def quant_of_samples(quant: QuantConfig, pixels: bool, model: nn.Module) -> QuantConfig:
    """The same for a network of one input, whose samples are pixels by their type or not."""
    quant = _behind_preprocessing(quant, model)
    if pixels or quant.inputs is not None:
        return quant
    return replace(quant, inputs=Fixed(INPUT_BITS))


def _behind_preprocessing(quant: QuantConfig, model: nn.Module) -> QuantConfig:
    if not isinstance(model, Preprocessed):
        return quant
    wide = {"scales": Fixed(PREPROCESS_BITS), "biases": Fixed(PREPROCESS_BITS)}
    in_front = {f"{layer}.*": wide for layer in model.preprocess_layers.values()}
    return replace(quant, overrides={**in_front, **quant.overrides})


def data_for(model: nn.Module, data: Dataset) -> Dataset:
    """The data with the arrays in the order of a network's arguments, named like them.

    Raises:
        InputError: the network takes another number of inputs, or one of another name.
    """
    from qhw.tracing import arguments_of

    names = arguments_of(model, len(data.inputs("train")))
    return data.for_inputs(names, f"the forward() of {type(model).__name__}")


def as_inputs(samples: Samples) -> tuple[Tensor, ...]:
    """Samples as a network takes them, of each input."""
    return tuple(torch.from_numpy(np.ascontiguousarray(part)).float() for part in parts_of(samples))


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """While it is entered, torch computes with so many threads; 0: as many as it is set to."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True)
class Phase:
    """One stretch of training: so many epochs at such a rate, with a checkpoint after each.

    Args:
        name: "float" or "quantised"; also the checkpoint's file name.
        identity: hash of what the phase starts from.

    Attributes:
        freezes_norms: batch norms in fixed point use their running statistics late in the phase.
    """

    freezes_norms: ClassVar[bool] = True

    name: str
    epochs: int
    learning_rate: float
    config: TrainConfig
    folder: Path | None
    identity: str

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the weights at the end of the phase."""
        config = self.config
        # A GPU's sums and bf16 give other weights; on the CPU in float32 the hash says nothing of them.
        kind = [chosen_device(config.device).type, config.precision]
        return store.fingerprint(
            *(kind if kind != ["cpu", "float32"] else ()),
            self.identity,
            self.name,
            self.epochs,
            self.learning_rate,
            config.batch_size,
            config.weight_decay,
            config.seed,
        )

    def run(self, model: nn.Module, data: Dataset, progress: ProgressCallback | None) -> None:
        """Train the model in place, from the checkpoint if there is one; leaves it in eval mode.

        Where no parameter is trained, it only sees images.
        """
        epochs = self.epochs if any(p.requires_grad for p in model.parameters()) else 0
        if epochs == 0:
            _calibrate(model, data)
            return
        device = chosen_device(self.config.device)
        with training_on(device), memory_of(device, self.config.batch_size, self._kept):
            self._train(model, data, epochs, device, progress)
        model.eval()

    def _train(
        self,
        model: nn.Module,
        data: Dataset,
        epochs: int,
        device: torch.device,
        progress: ProgressCallback | None,
    ) -> None:
        move(model, device)
        optimizer = _optimizer(model, self.learning_rate, self.config.weight_decay)
        batches = Batches.of(data, device)
        step = self.step_of(model, optimizer, data, device)
        for epoch in range(self._resume(model, optimizer), epochs):
            with random_state_of(device):
                torch.manual_seed(_epoch_seed(self.config.seed, self.name, epoch))
                self._run_epoch(model, optimizer, batches, step, epoch, progress)
                self.epoch_done(model, data, epoch)
            self._save(model, optimizer, epoch + 1)
        freeze_norms(model, False)
        move(model, CPU)

    def step_of(
        self, model: nn.Module, optimizer: torch.optim.Optimizer, data: Dataset, device: torch.device
    ) -> Step:
        """One step of the phase, in place; on a GPU it is recorded once."""
        step: Step = functools.partial(_train_step, model, optimizer, data, self.config.precision)
        return RecordedStep(step) if device.type == "cuda" else step

    def epoch_done(self, model: nn.Module, data: Dataset, epoch: int) -> None:
        """What a phase of another kind does after an epoch (from 0), before the checkpoint."""

    def more_state(self) -> dict[str, Any]:
        """What a phase of another kind keeps in a checkpoint beside the model and the optimizer."""
        return {}

    def take_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what :meth:`more_state` gave."""

    def _run_epoch(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Batches,
        take: Step,
        epoch: int,
        progress: ProgressCallback | None,
    ) -> None:
        model.train()
        count = count_of(batches.data.train_x)
        size = min(self.config.batch_size, count)
        steps = count // size
        order = torch.randperm(count).numpy()[: steps * size].reshape(steps, size)
        interval = 1 if batches.device.type == "cpu" else LOSS_INTERVAL
        first, total = epoch * steps, self.epochs * steps
        frozen_from = round(self.config.freeze_norms * total) if self.freezes_norms else total
        for step, tensors in enumerate(batches.epoch(np.sort(order, axis=1)), 1):
            done = first + step - 1
            if done == max(first, frozen_from) and freeze_norms(model, True):
                take = self.step_of(model, optimizer, batches.data, batches.device)  # recorded anew
            set_rate(optimizer, _rate(self.learning_rate, done, total))
            loss = take(*tensors)
            if step % interval and step < steps:
                continue
            told = Progress(self.name, epoch + 1, self.epochs, step, steps, float(loss))
            _check_loss(told, model, tensors[:-1])
            if progress is not None:
                progress(told)

    @property
    def _path(self) -> Path | None:
        return None if self.folder is None else self.folder / f"{self.name}.pt"

    def _resume(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
        found = None if self._path is None else store.load(self._path, self.fingerprint)
        if found is None:
            return 0
        model.load_state_dict(found.model)
        # The settings are this optimizer's own: those of a GPU's mean nothing elsewhere.
        own = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": found.optimizer["state"], "param_groups": own})
        self.take_state(found.optimizer.get("more", {}))
        logger.info("%s phase goes on after epoch %d of %d", self.name, found.epochs_done, self.epochs)
        return found.epochs_done

    def _kept(self) -> str:
        """What an interrupted phase leaves, in words."""
        found = None if self._path is None else store.load(self._path, self.fingerprint)
        if found is None:
            return f"no epoch of the {self.name} phase was finished"
        return (
            f"the checkpoint after epoch {found.epochs_done} of the {self.name} phase is kept in "
            f"{self._path} for a run with the same settings"
        )

    def _save(self, model: nn.Module, optimizer: torch.optim.Optimizer, epochs_done: int) -> None:
        if self._path is not None:
            state = {**optimizer.state_dict(), "more": self.more_state()}
            states = (_on_cpu(model.state_dict()), _on_cpu(state))
            store.save(self._path, store.Checkpoint(self.fingerprint, epochs_done, *states))


def evaluate(model: nn.Module, data: Dataset) -> float:
    """The data set's metric of a model on the test split, computed in the model's own type."""
    return data.judge.score(predict(model, data_for(model, data).test_x))


def predict(
    model: nn.Module,
    samples: Samples,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 256,
) -> NDArray[np.floating]:
    """A model's outputs (N, ...) in eval mode, computed in ``dtype``; several inputs are a tuple of arrays.

    In float64 a model converted by :func:`qhw.convert` is the reference that every later stage is checked
    against; its own weights stay as they are.
    """
    model = copy.deepcopy(model).to(dtype).eval()
    outputs = []
    with torch.inference_mode():
        for start in range(0, count_of(samples), batch_size):
            rows = parts_of(rows_of(samples, slice(start, start + batch_size)))
            batch = [torch.from_numpy(np.ascontiguousarray(part)).to(dtype) for part in rows]
            outputs.append(model(*batch).numpy())
    return np.concatenate(outputs)


def _calibrate(model: nn.Module, data: Dataset) -> None:
    """Let quantizers that will not be trained find their binary points, on images from the whole split."""
    count = count_of(data.train_x)
    chosen = np.linspace(0, count - 1, min(CALIBRATION_IMAGES, count)).astype(np.int64)
    with torch.no_grad():
        model.eval()(*(part.to(_dtype(model)) for part in samples_at(data, chosen)))


def _prepared(folder: str | Path | None) -> Path | None:
    if folder is None:
        return None
    store.prepare_folder(Path(folder))
    return Path(folder)


def _on_cpu(state: Any) -> Any:
    """A state dictionary whose tensors lie on the CPU."""
    if isinstance(state, Tensor):
        return state.cpu()
    if isinstance(state, Mapping):
        return {key: _on_cpu(value) for key, value in state.items()}
    return [_on_cpu(value) for value in state] if isinstance(state, list) else state


def _train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    data: Dataset,
    precision: str,
    *tensors: Tensor,
) -> Tensor:
    """One step, in place; reads no number back, so that a GPU can have it recorded."""
    *samples, targets = tensors
    optimizer.zero_grad(set_to_none=True)
    inputs = [part.to(_dtype(model)) for part in samples]
    loss = data.kind.loss(_outputs(model, inputs, precision), targets)
    torch.autograd.backward(loss)
    optimizer.step()
    return loss.detach()


def _outputs(model: nn.Module, inputs: Sequence[Tensor], precision: str) -> Tensor:
    is_narrow = precision == "bf16"
    with torch.autocast(inputs[0].device.type, torch.bfloat16) if is_narrow else nullcontext():
        outputs: Tensor = model(*inputs)
    return outputs.float() if is_narrow else outputs


def _check_loss(told: Progress, model: nn.Module, samples: Sequence[Tensor]) -> None:
    """Raise InputError where the loss is no number."""
    if math.isfinite(told.loss):
        return
    from qhw.quantizers import first_not_finite

    layer = first_not_finite(model, *samples)
    place = f"the {told.phase} phase, epoch {told.epoch}, step {told.step}"
    first = f"; layer {layer} is the first to be given NaN or infinity" if layer else ""
    raise InputError(
        f"the loss became {told.loss} in {place}{first}",
        hint="lower the learning rate, bring samples and targets to values around 1, or look for NaN and "
        "infinities in the model's weights",
    )


def _dtype(model: nn.Module) -> torch.dtype:
    """The floating-point type that a model computes in."""
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _check_outputs(model: nn.Module, example: Sequence[Tensor], data: Dataset) -> None:
    """Refuse a model that does not give what the task of the data asks for."""
    with torch.no_grad():
        shape = tuple(model.eval()(*(part.to(_dtype(model)) for part in example)).shape[1:])
    wanted = data.outputs
    if data.kind.takes_outputs(shape, wanted):
        return
    raise InputError(
        f"the model gives {shape} for one sample, and data set {data.name} is for {data.task}, "
        f"with targets for {wanted}",
        allowed=f"{wanted}: {data.kind.gives}",
        hint=data.kind.remedy(shape, wanted),
    )


def _optimizer(model: nn.Module, rate: float, weight_decay: float) -> torch.optim.AdamW:
    from qhw.quantizers import binary_points

    points = {id(parameter) for parameter in binary_points(model)}
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "others": [], "points": []}
    for parameter in model.parameters():
        plain = "weights" if parameter.ndim > 1 else "others"
        groups["points" if id(parameter) in points else plain].append(parameter)
    settings = {
        "weights": {"weight_decay": weight_decay, "factor": 1.0},
        "others": {"weight_decay": 0.0, "factor": 1.0},
        "points": {"weight_decay": 0.0, "factor": BINARY_POINT_RATE},
    }
    chosen = [{"params": groups[name], **settings[name]} for name in groups if groups[name]]
    device = next(model.parameters()).device
    if device.type == "cpu":
        return torch.optim.AdamW(chosen, lr=rate)
    # A recorded step reads the rate from memory.
    for group in chosen:
        group["lr"] = torch.tensor(rate, device=device)
    return torch.optim.AdamW(chosen, lr=rate, fused=True, capturable=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the weights; other groups keep their ratio to it."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(rate * group["factor"])
        else:
            group["lr"] = rate * group["factor"]


def freeze_norms(model: nn.Module, frozen: bool) -> bool:
    """Let batch norms in fixed point use their running statistics in training too, or those of each batch.

    Returns:
        Whether any of them did otherwise before.
    """
    from qhw.layers import QuantBatchNorm

    changed = [m for m in model.modules() if isinstance(m, QuantBatchNorm) and m.frozen is not frozen]
    for norm in changed:
        norm.frozen = frozen
    return bool(changed)


def _rate(peak: float, step: int, steps: int) -> float:
    """Linear warm-up, then a cosine to 0 (arXiv 1608.03983, without restarts)."""
    warm_up = max(1, round(WARM_UP * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _epoch_seed(seed: int, phase: str, epoch: int) -> int:
    return int(store.fingerprint(seed, phase, epoch)[:12], 16)
