"""How a user's own data are read: what the files themselves do not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qhw.data.base import Dataset, holdout
from qhw.errors import InputError

TEST_EVERY = 5
"""Where the data come in one piece, every fifth sample (of each class) is for testing."""

LAYOUTS = ("", "nchw", "nhwc")


@dataclass(frozen=True)
class Reading:
    """What a user says of data beside naming them.

    Args:
        task: the name of a task; "": by the targets' type and shape.
        metric: the name of one of its metrics; "": its first.
        target: the columns of a table that hold targets; (): the last one.
        layout: "nhwc" for images whose channels come last: they are turned to NCHW, as torch takes them.
    """

    task: str = ""
    metric: str = ""
    target: tuple[str, ...] = ()
    layout: Literal["", "nchw", "nhwc"] = ""

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise InputError(f"the layout is {self.layout!r}", allowed="nchw or nhwc")
        if not isinstance(self.metric, str):
            raise InputError(
                f"the metric is of type {type(self.metric).__name__}",
                allowed="one of the task's metrics, or 'file.py:function' of your own",
                hint="in Python, give a qhw.data.Dataset with own_metric=qhw.tasks.Metric(name, function)",
            )

    def dataset(
        self,
        name: str,
        source: str,
        train: tuple[NDArray[Any], NDArray[Any] | None],
        test: tuple[NDArray[Any], NDArray[Any] | None],
    ) -> Dataset:
        """A data set of (samples, targets) of both splits."""
        return Dataset(
            name=name,
            source=source,
            train_x=self._turned(name, train[0]),
            train_y=train[1],
            test_x=self._turned(name, test[0]),
            test_y=test[1],
            task=self.task,
            metric=self.metric,
        )

    def split(self, name: str, source: str, x: NDArray[Any], y: NDArray[Any] | None) -> Dataset:
        """A data set of samples in one piece: every fifth (of each class, if any) is for testing.

        Raises:
            InputError: the counts differ, a number is not finite, or as for :class:`qhw.data.base.Dataset`.
        """
        if y is not None and len(y) != len(x):
            raise InputError(f"data set {name}: {len(x)} samples have {len(y)} targets")
        for what, array in (("sample", x), ("target", y)):
            _require_finite(f"data set {name}: {what}", array)
        by_class = y is not None and y.ndim == 1 and y.dtype.kind in "biu"
        groups = y if by_class and y is not None else np.zeros(len(x), dtype=np.int64)
        train, test = holdout(groups.astype(np.int64), TEST_EVERY)
        parts = [(x[index], None if y is None else y[index]) for index in (train, test)]
        return self.dataset(name, source, parts[0], parts[1])

    def _turned(self, name: str, x: NDArray[Any]) -> NDArray[Any]:
        if self.layout != "nhwc":
            return x
        if x.ndim not in (3, 4):
            raise InputError(
                f"data set {name}: samples of shape {x.shape} have no channels to bring to the front",
                allowed="(N, L, C) or (N, H, W, C) with the layout nhwc",
            )
        return np.ascontiguousarray(np.moveaxis(x, -1, 1))


def _require_finite(what: str, array: NDArray[Any] | None) -> None:
    """Refuse NaN and infinity by their place in what was given, before it is split."""
    if array is None or array.dtype.kind != "f" or np.isfinite(array).all():
        return
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    raise InputError(
        f"{what} {place[0]} holds {array[place]}{f' at {place[1:]}' if place[1:] else ''}",
        allowed="finite numbers",
        hint="fill or drop such samples first",
    )
