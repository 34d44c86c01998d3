"""Data sets: samples, targets, their origin, and a split that stays unseen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from qhw.data.inputs import Array, Samples, arrangement, count_of, parts_of
from qhw.errors import InputError
from qhw.tasks import Judge, Metric, Task, task_named, task_of

Labels: TypeAlias = "NDArray[np.int64]"


@dataclass(frozen=True)
class Dataset:
    """Samples with their targets, in a training and a test split.

    Args:
        name: short name, as on the command line.
        source: the data's origin, for the manifest.
        train_x: training samples (N, ...), as the network takes them: uint8 are pixels of 0..255, all other
            numbers become float32. For a network with several inputs, a tuple of such arrays, one for each.
            ``test_x`` alike.
        train_y: training targets, of the task's type and shape; None for an autoencoder. ``test_y`` alike.
        classes: number of classes; 0: as many as the training targets hold.
        normalisation: exponent of the power of two that brings pixels to 0..1 (-8 for 0..255).
        task: the name of a task (:mod:`qhw.tasks`); "" for the one that the targets are of by their type.
        metric: the name of one of the task's metrics; "" for its first.
        own_metric: a function of the user's own in place of it.
        names: of several inputs, the network's arguments that they are for; (): in their order.

    Raises:
        InputError: an array has the wrong type or shape, holds NaN, or a target does not fit the task.
    """

    name: str
    source: str
    train_x: Samples
    train_y: Array | None
    test_x: Samples
    test_y: Array | None
    classes: int = 0
    normalisation: int = -8
    task: str = ""
    metric: str = ""
    own_metric: Metric | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = f"data set {self.name}"
        for split in ("train_x", "test_x"):
            object.__setattr__(self, split, _samples_as_trained_on(getattr(self, split)))
        self._check_number_of_inputs(where)
        if (self.train_y is None) != (self.test_y is None):
            raise InputError(f"{where}: one split has targets, the other has none")
        for train, test, which in zip(self.inputs("train"), self.inputs("test"), self._which(), strict=True):
            for split, samples in (("training", train), ("test", test)):
                _check_samples(f"{where}, {split} split{which}", samples)
            if train.shape[1:] != test.shape[1:] or train.dtype.kind != test.dtype.kind:
                raise InputError(
                    f"{where}{which}: training samples are {_described(train)}, "
                    f"test samples {_described(test)}",
                    allowed="one type and one shape for both splits",
                )
        self._check_counts(where)
        object.__setattr__(self, "task", (task_named(self.task) if self.task else task_of(self.train_y)).name)
        object.__setattr__(self, "classes", self.classes or self.kind.classes_of(self.train_targets))
        for split in ("train", "test"):
            self._check_targets(split, count_of(self.samples(split)))
        self.figure  # noqa: B018  (refuses a metric that the task has not)

    def _check_number_of_inputs(self, where: str) -> None:
        """Refuse splits of different numbers of inputs, and what has one input by its kind."""
        counts = [len(self.inputs(split)) for split in ("train", "test")]
        if counts[0] != counts[1] or counts[0] == 0 or (self.names and len(self.names) != counts[0]):
            names = f", which are named {', '.join(self.names)}" if self.names else ""
            raise InputError(
                f"{where}: training samples have {counts[0]} inputs, test samples {counts[1]}{names}",
                allowed="the same inputs in both splits",
            )
        if counts[0] > 1 and (self.train_y is None or self.task == "autoencoder"):
            raise InputError(
                f"{where} has {counts[0]} inputs and no targets",
                allowed="targets (train_y, test_y), or one input for an autoencoder",
            )

    def _check_counts(self, where: str) -> None:
        for split in ("train", "test"):
            counts = [len(part) for part in self.inputs(split)]
            if len(set(counts)) > 1:
                raise InputError(
                    f"{where}, {split} split: its inputs have {', '.join(map(str, counts))} samples",
                    allowed="the same number for every input",
                )

    def _which(self) -> list[str]:
        """For each input, what a message adds to say that it is meant: nothing where there is one."""
        count = len(self.inputs("train"))
        return [""] if count == 1 else [f", input {name}" for name in self.names or map(str, range(count))]

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
        return self.inputs(split)[0] if given is None else given

    def samples(self, split: str) -> Samples:
        """The samples of a split ("train" or "test")."""
        return self.train_x if split == "train" else self.test_x

    def inputs(self, split: str) -> tuple[Array, ...]:
        """The samples of a split, an array for each input."""
        return parts_of(self.samples(split))

    def for_inputs(self, wanted: Sequence[str], whose: str) -> Dataset:
        """The same data with the arrays in the order of a network's inputs, named like them.

        Args:
            wanted: the names of the network's inputs, in order; () where they are not known.
            whose: "the network", in a message's words.

        Raises:
            InputError: the network has another number of inputs, or one of another name.
        """
        count = len(self.inputs("train"))
        if not wanted or len(wanted) == count == 1 or self.names == tuple(wanted):
            return self
        if len(wanted) != count:
            inputs = f"{count} inputs" if count > 1 else "one input"
            inputs += f" ({', '.join(self.names)})" if self.names else ""
            raise InputError(
                f"{whose} takes {len(wanted)} input{'s' * (len(wanted) != 1)} ({', '.join(wanted)}), "
                f"data set {self.name} has {inputs}",
                hint="tables and folders of images hold one input; give ((a, b), y) in Python, or an .npz "
                "file with train_NAME and test_NAME for each"
                if count < len(wanted)
                else "give the arrays of that network's inputs alone",
            )
        places = (
            arrangement(self.names, wanted, f"data set {self.name}") if self.names else list(range(count))
        )
        train, test = (tuple(self.inputs(split)[place] for place in places) for split in ("train", "test"))
        return replace(self, train_x=train, test_x=test, names=tuple(wanted))

    def pixel_inputs(self, wanted: Sequence[str], whose: str) -> set[str]:
        """Those of a network's inputs (see :meth:`for_inputs`) that get whole pixels by their type."""
        arrays = self.for_inputs(wanted, whose).inputs("train")
        return {name for name, part in zip(wanted, arrays, strict=False) if part.dtype == np.uint8}

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
        """Whether its samples are whole numbers of 0..255 by their type, in every input."""
        return all(part.dtype == np.uint8 for part in self.inputs("train"))

    @property
    def holds_pixels(self) -> bool:
        """Whether an input gets whole numbers of 0..255 by their type."""
        return any(part.dtype == np.uint8 for part in self.inputs("train"))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of one image; raises InputError where samples are no images of pixels."""
        samples, *others = self.inputs("train")
        if not self.has_pixels or samples.ndim != 4 or others:
            raise InputError(
                f"data set {self.name} holds samples {' and '.join(map(_described, (samples, *others)))}",
                allowed="images, uint8 of shape (N, channels, height, width), for a built-in model",
                hint="give a model of your own: file.py:function",
            )
        channels, height, width = samples.shape[1:]
        return channels, height, width

    @cached_property
    def sha256(self) -> str:
        """A hash over both splits and their task, for the manifest and for checkpoints."""
        digest = hashlib.sha256()
        train, test = self.inputs("train"), self.inputs("test")
        for array in (*train, self.train_targets, *test, self.test_targets):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        if self.task != "classification":
            digest.update(self.task.encode())
        if self.names:
            digest.update(repr(self.names).encode())
        return digest.hexdigest()


def holdout(labels: Labels, every: int = 5) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices (train, test): every ``every``-th sample of a class, in stored order, is for testing.

    Depends on no random generator, so the split is the same everywhere and for good.
    """
    test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        test[np.flatnonzero(labels == label)[::every]] = True
    return np.flatnonzero(~test), np.flatnonzero(test)


def _samples_as_trained_on(samples: Samples) -> Samples:
    """Pixels as they are, other numbers in float32: what torch is trained on, and what the host encodes."""
    trained_on = tuple(_as_trained_on(part) for part in parts_of(samples))
    return trained_on[0] if len(trained_on) == 1 else trained_on


def _as_trained_on(samples: Array) -> Array:
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
