"""Where networks are trained: the CPU, or a CUDA device with its data, settings and recorded steps."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from qhw.errors import InputError

if TYPE_CHECKING:
    from qhw.data.base import Dataset

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")

WARM_UP_STEPS = 3
"""Steps that run as they are before one is recorded: libraries, quantizers and the optimizer set up then."""

LOSS_INTERVAL = 16
"""Steps after which a loss is read on a GPU, which waits for it."""

MEMORY_SHARE = 0.5
"""Share of a GPU's free memory that the training data may take."""

Step = Callable[..., Tensor]
"""One training step on the samples of each input and the targets, in this order; the loss, which may be
overwritten by the next step."""

Recorder = Callable[..., tuple[Callable[[], object], Tensor]]
"""Records a step on tensors that stay, which follow it: what repeats it, and where it leaves its loss."""


@contextmanager
def training_on(device: torch.device) -> Iterator[None]:
    """While it is entered, a GPU gives the same numbers every time, in full float32."""
    if device.type == "cpu":
        yield
        return
    # Read by cuBLAS when it is first used: without it, its sums may differ from run to run.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    cudnn: Any = torch.backends.cudnn
    with ExitStack() as stack:
        stack.enter_context(torch.cuda.device(device))
        stack.enter_context(_set(cudnn, deterministic=True, benchmark=False))
        stack.enter_context(_set(cudnn.conv, fp32_precision="ieee"))
        stack.enter_context(_set(torch.backends.cuda.matmul, fp32_precision="ieee"))
        stack.enter_context(_set(torch.utils.deterministic, fill_uninitialized_memory=False))
        stack.callback(
            torch.use_deterministic_algorithms,
            torch.are_deterministic_algorithms_enabled(),
            warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
        )
        torch.use_deterministic_algorithms(True, warn_only=True)
        yield


@contextmanager
def _set(holder: object, **values: object) -> Iterator[None]:
    before = {name: getattr(holder, name) for name in values}
    for name, value in values.items():
        setattr(holder, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(holder, name, value)


@contextmanager
def random_state_of(device: torch.device) -> Iterator[None]:
    """While it is entered, random numbers may be seeded; afterwards they go on as before."""
    with torch.random.fork_rng(devices=[] if device.type == "cpu" else [device.index]):
        yield


def move(model: nn.Module, device: torch.device) -> None:
    """Move a model in place; a tensor that several modules share stays one, where ``.to`` makes several."""
    places: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        kinds = (module.named_parameters, module.named_buffers)
        for name, tensor in (
            pair for named in kinds for pair in named(recurse=False, remove_duplicate=False)
        ):
            places.setdefault(id(tensor), []).append((module, name))
    model.to(device)
    for (first, name), *others in places.values():
        for module, other in others:
            setattr(module, other, getattr(first, name))


@dataclass(frozen=True)
class Batches:
    """The batches of a training split on a device.

    Args:
        held: all samples, of each input, and targets there, where they fit; None: every batch is copied.
    """

    data: Dataset
    device: torch.device
    held: tuple[Tensor, ...] | None

    @classmethod
    def of(cls, data: Dataset, device: torch.device) -> Batches:
        """With the split moved to a GPU at once, if it takes no more than half its free memory."""
        if device.type == "cpu":
            return cls(data, device, None)
        targets = data.kind.trained_on(data.train_targets)
        size = sum(part.nbytes for part in data.inputs("train")) + targets.nbytes
        if size > MEMORY_SHARE * torch.cuda.mem_get_info(device)[0]:
            logger.info("the training data (%.1f GB) stay in the computer's memory", size / 1e9)
            return cls(data, device, None)
        return cls.holding(data, device)

    @classmethod
    def holding(cls, data: Dataset, device: torch.device) -> Batches:
        """With the split on the device."""
        arrays = (*data.inputs("train"), data.kind.trained_on(data.train_targets))
        held = tuple(torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays)
        return cls(data, device, held)

    def epoch(self, chosen: NDArray[np.int64]) -> Iterator[tuple[Tensor, ...]]:
        """The samples of each input as floats, and their targets, for every row (steps, batch) of indices."""
        if self.held is None:
            for batch in chosen:
                tensors = (*samples_at(self.data, batch), self._targets(batch))
                yield tuple(tensor.to(self.device) for tensor in tensors)
            return
        *samples, targets = self.held
        for batch in torch.from_numpy(chosen).to(self.device):
            yield (*(part[batch].float() for part in samples), targets[batch])

    def _targets(self, batch: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(self.data.kind.trained_on(self.data.train_targets[batch]))


def samples_at(data: Dataset, indices: NDArray[np.int64]) -> tuple[Tensor, ...]:
    """Training samples as floats, of each input."""
    return tuple(torch.from_numpy(part[indices]).float() for part in data.inputs("train"))


def record_graph(step: Step, *tensors: Tensor) -> tuple[Callable[[], object], Tensor]:
    """A step recorded as a CUDA graph: what would cost hundreds of launches is one."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(*tensors)
    return graph.replay, loss


class RecordedStep:
    """A training step that is recorded once it has warmed up, and repeated from then on.

    A step that cannot be recorded (it waits for the GPU, say) runs as it is, which is logged. Batches have
    one shape.

    Args:
        step: the step; it reads no number back, and all that it changes stays in its place.
        record: how it is recorded.
    """

    def __init__(self, step: Step, record: Recorder = record_graph) -> None:
        self._step, self._record = step, record
        self._to_warm_up = WARM_UP_STEPS
        self._held: tuple[Tensor, ...] | None = None
        self._replay: Callable[[], object] | None = None
        self._loss: Tensor | None = None

    @property
    def is_recorded(self) -> bool:
        """Whether steps are repeated from a record."""
        return self._replay is not None

    def __call__(self, *tensors: Tensor) -> Tensor:
        if self._to_warm_up > 0:
            self._to_warm_up -= 1
            return _beside(self._step, *tensors)
        if self._held is None:
            self._held = tuple(tensor.clone() for tensor in tensors)
            self._try_to_record(*self._held)
        if self._replay is None or self._loss is None:
            return self._step(*tensors)
        for held, given in zip(self._held, tensors, strict=True):
            held.copy_(given)
        self._replay()
        return self._loss

    def _try_to_record(self, *tensors: Tensor) -> None:
        try:
            self._replay, self._loss = self._record(self._step, *tensors)
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            logger.warning("the training step runs unrecorded, several times slower: %s", reason)


def _beside(step: Step, *tensors: Tensor) -> Tensor:
    """A step on a stream of its own, as CUDA graphs want it before one is recorded."""
    if tensors[0].device.type == "cpu":
        return step(*tensors)
    usual, side = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(usual)
    with torch.cuda.stream(side):
        loss = step(*tensors)
    usual.wait_stream(side)
    return loss


@contextmanager
def memory_of(device: torch.device, batch_size: int, kept: Callable[[], str]) -> Iterator[None]:
    """Tell in one message that a GPU's memory is used up.

    Args:
        kept: what is left of the training so far, in words.

    Raises:
        InputError: it was.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"{device} has not enough memory to train in batches of {batch_size}",
            hint=f"set the training setting batch_size to {max(2, batch_size // 2)}; {kept()}",
        ) from error
