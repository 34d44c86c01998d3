"""Data sets: samples, targets, their origin, and a split that stays unseen."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from qhw.errors import InputError
from qhw.tasks import Judge, Metric, Task, task_named, task_of

Array: TypeAlias = "NDArray[Any]"
Labels: TypeAlias = "NDArray[np.int64]"


@dataclass(frozen=True)
class Dataset:
    """Samples with their targets, in a training and a test split.

    Args:
        name: short name, as on the command line.
        source: the data's origin, for the manifest.
        train_x: training samples (N, ...), as the network takes them: uint8 are pixels of 0..255, all other
            numbers become float32. ``test_x`` alike.
        train_y: training targets, of the task's type and shape; None for an autoencoder. ``test_y`` alike.
        classes: number of classes; 0: as many as the training targets hold.
        normalisation: exponent of the power of two that brings pixels to 0..1 (-8 for 0..255).
        task: the name of a task (:mod:`qhw.tasks`); "" for the one that the targets are of by their type.
        metric: the name of one of the task's metrics; "" for its first.
        own_metric: a function of the user's own in place of it.

    Raises:
        InputError: an array has the wrong type or shape, holds NaN, or a target does not fit the task.
    """

    name: str
    source: str
    train_x: Array
    train_y: Array | None
    test_x: Array
    test_y: Array | None
    classes: int = 0
    normalisation: int = -8
    task: str = ""
    metric: str = ""
    own_metric: Metric | None = None

    def __post_init__(self) -> None:
        where = f"data set {self.name}"
        for split in ("train_x", "test_x"):
            object.__setattr__(self, split, _samples_as_trained_on(getattr(self, split)))
        if (self.train_y is None) != (self.test_y is None):
            raise InputError(f"{where}: one split has targets, the other has none")
        for split, samples in (("training", self.train_x), ("test", self.test_x)):
            _check_samples(f"{where}, {split} split", samples)
        if (
            self.train_x.shape[1:] != self.test_x.shape[1:]
            or self.train_x.dtype.kind != self.test_x.dtype.kind
        ):
            raise InputError(
                f"{where}: training samples are {_described(self.train_x)}, "
                f"test samples {_described(self.test_x)}",
                allowed="one type and one shape for both splits",
            )
        object.__setattr__(self, "task", (task_named(self.task) if self.task else task_of(self.train_y)).name)
        object.__setattr__(self, "classes", self.classes or self.kind.classes_of(self.train_targets))
        for split, count in (("train", len(self.train_x)), ("test", len(self.test_x))):
            self._check_targets(split, count)
        self.figure  # noqa: B018  (refuses a metric that the task has not)

    def _check_targets(self, split: str, count: int) -> None:
        targets = self.targets(split)
        where = f"data set {self.name}, {'training' if split == 'train' else split} split"
        if targets.ndim == 0 or len(targets) != count:
            raise InputError(f"{where}: targets have shape {targets.shape} for {count} samples")
        try:
            self.kind.check_targets(targets, self.classes)
        except InputError as error:
            message = f"{where}: the targets do not fit {self.task}: {error.message}"
            raise InputError(message, allowed=error.allowed, hint=error.hint) from None

    @property
    def kind(self) -> Task:
        """The task itself."""
        return task_named(self.task)

    @property
    def figure(self) -> Metric:
        """The metric itself."""
        return self.own_metric or self.kind.metric(self.metric)

    def targets(self, split: str) -> Array:
        """The targets of a split ("train" or "test"); an autoencoder's samples themselves."""
        given = self.train_y if split == "train" else self.test_y
        samples: Array = self.train_x if split == "train" else self.test_x
        return samples if given is None else given

    @property
    def train_targets(self) -> Array:
        """The targets of the training split."""
        return self.targets("train")

    @property
    def test_targets(self) -> Array:
        """The targets of the test split."""
        return self.targets("test")

    @property
    def judge(self) -> Judge:
        """The metric on the test split."""
        return Judge(self.kind, self.figure, self.test_targets)

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape that a network must give for one sample."""
        return self.kind.outputs_of(self.train_targets, self.classes)

    @property
    def has_pixels(self) -> bool:
        """Whether its samples are whole numbers of 0..255 by their type."""
        return bool(self.train_x.dtype == np.uint8)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image; raises InputError where samples are no images of pixels."""
        if not self.has_pixels or self.train_x.ndim != 4:
            raise InputError(
                f"data set {self.name} holds samples {_described(self.train_x)}",
                allowed="images, uint8 of shape (N, channels, height, width), for a built-in model",
                hint="give a model of your own: file.py:function",
            )
        channels, height, width = self.train_x.shape[1:]
        return channels, height, width

    @cached_property
    def sha256(self) -> str:
        """A hash over both splits and their task, for the manifest and for checkpoints."""
        digest = hashlib.sha256()
        for array in (self.train_x, self.train_targets, self.test_x, self.test_targets):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        if self.task != "classification":
            digest.update(self.task.encode())
        return digest.hexdigest()


def holdout(labels: Labels, every: int = 5) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (train, test): every ``every``-th sample of a class, in stored order, is for testing.

    Depends on no random generator, so the split is the same everywhere and for good.
    """
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[::every]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def _samples_as_trained_on(samples: Array) -> Array:
    """Pixels as they are, other numbers in float32: what torch is trained on, and what the host encodes."""
    is_number = samples.dtype.kind in "biuf" and samples.dtype != np.uint8
    return samples.astype(np.float32, copy=False) if is_number else samples


def _described(samples: Array) -> str:
    return f"{samples.dtype} of shape (N, {', '.join(map(str, samples.shape[1:]))})"


def _check_samples(where: str, samples: Array) -> None:
    if samples.dtype.kind not in "biuf" or samples.ndim < 2 or samples.size == 0:
        raise InputError(
            f"{where}: samples are {samples.dtype} of shape {samples.shape}",
            allowed="floats or integers of shape (N, ...), one sample or more: (N, features), "
            "(N, channels, length), (N, channels, height, width)",
        )
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        place = tuple(int(i) for i in np.argwhere(~np.isfinite(samples))[0])
        raise InputError(
            f"{where}: sample {place[0]} holds {samples[place]} at {place[1:]}",
            allowed="finite numbers",
            hint="fill or drop such samples first",
        )
