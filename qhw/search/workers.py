"""Who evaluates points: this process, processes of its own, or the workers of a Dask scheduler.

A worker makes its evaluator once, from a :class:`Setup` that travels once, and keeps it.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, TypeAlias

from qhw.errors import InputError, ToolMissingError
from qhw.search.evaluators.base import Evaluation, Evaluator, Held
from qhw.search.space import Point, Space

if TYPE_CHECKING:
    from torch import Tensor, nn

    from qhw.data import Dataset
    from qhw.train import TrainConfig

Result: TypeAlias = Evaluation | Exception

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


@dataclass(frozen=True)
class Setup:
    """What a worker makes its evaluator of.

    Args:
        model: the float network, trained.
        calibration: samples that quantizers are started on, (N, ...).
        held: the samples that points are judged on.
        evaluator: its name.
        training: the data and the recipe of an evaluator that trains.
        methods: what quantises points, for an evaluator that judges by it.
    """

    model: nn.Module
    space: Space
    calibration: Tensor
    held: Held
    evaluator: str
    training: tuple[Dataset, TrainConfig] | None = None
    methods: Sequence[str] = ()

    def make(self) -> Evaluator:
        """The evaluator: seconds of work."""
        from qhw.search.evaluators import make_evaluator
        from qhw.search.network import Variants

        variants = Variants(self.model, self.space, self.calibration)
        return make_evaluator(self.evaluator, variants, self.held, self.training, self.methods)


class Pool(ABC):
    """Evaluates points; a context manager.

    What is raised in an evaluation is its result, and no end of the search.
    """

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    @abstractmethod
    def size(self) -> int:
        """How many points to keep in flight, so that no worker waits."""

    @abstractmethod
    def submit(self, point: Point) -> None:
        """Have a point evaluated; one that is in flight is not submitted again."""

    @abstractmethod
    def results(self) -> Iterator[tuple[Point, Result]]:
        """Every point that was submitted, once, as they are evaluated; more may be submitted meanwhile.

        Raises:
            CheckFailedError: the workers are lost.
            InputError: a worker joined that has another qhw.
        """

    @abstractmethod
    def close(self) -> None:
        """End what the pool began; points in flight are given up."""


class InProcess(Pool):
    """One evaluation after another, in this process."""

    def __init__(self, evaluator: Evaluator) -> None:
        keep_freed_memory()
        self._evaluator = evaluator
        self._waiting: deque[Point] = deque()

    @property
    def size(self) -> int:
        return 1

    def submit(self, point: Point) -> None:
        self._waiting.append(point)

    def results(self) -> Iterator[tuple[Point, Result]]:
        while self._waiting:
            point = self._waiting.popleft()
            yield point, evaluated(self._evaluator, point)

    def close(self) -> None:
        self._waiting.clear()


def keep_freed_memory() -> None:
    """Have the C library keep what is freed, for the next layer's results, which are as large.

    It gives large blocks back to the system at once, and each page that is taken again costs a fault: a third
    of an evaluation's time, and half where Dask's nannies have set a low ``MALLOC_TRIM_THRESHOLD_``.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # of glibc; its parameters are those of malloc.h
        for parameter in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            library.mallopt(parameter, 1 << 30)


def evaluated(evaluator: Evaluator, point: Point) -> Result:
    """A point's evaluation, or what was raised in it."""
    try:
        return evaluator.evaluate(point)
    except Exception as error:
        return error


def pool(
    setup: Setup, workers: int = 1, scheduler: str | None = None, evaluator: Evaluator | None = None
) -> Pool:
    """Workers for a search.

    Args:
        workers: processes of this machine, one thread each; 1: this process itself.
        scheduler: the address of a Dask scheduler, in place of them.
        evaluator: one that is made already, for this process.

    Raises:
        InputError: there is no such number of workers; the scheduler does not answer, or has another qhw.
        ToolMissingError: Dask is not installed.
    """
    if workers < 1:
        raise InputError(f"--workers is {workers}", allowed="1 or more")
    if scheduler is not None and workers != 1:
        raise InputError("--workers and --scheduler are both given", hint="a scheduler has its own workers")
    if scheduler is None and workers == 1:
        return InProcess(evaluator or setup.make())
    try:
        from qhw.search import cluster
    except ImportError as error:
        raise ToolMissingError(
            f"Several workers need {error.name}, which is not installed", hint="pip install 'qhw[search]'"
        ) from None
    return cluster.joined(setup, scheduler) if scheduler else cluster.local(setup, workers)
