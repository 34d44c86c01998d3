"""How a user's own data are read: what the files themselves do not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from qhw.data.base import Dataset, holdout
from qhw.data.inputs import Samples, count_of, parts_of, rows_of
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
            Of several inputs, those with 3 or 4 axes are.
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
        train: tuple[Samples, NDArray[Any] | None],
        test: tuple[Samples, NDArray[Any] | None],
        names: tuple[str, ...] = (),
    ) -> Dataset:
        """A data set of (samples, targets) of both splits; ``names`` as of :class:`qhw.data.Dataset`."""
        return Dataset(
            name=name,
            source=source,
            train_x=self._turned(name, train[0]),
            train_y=train[1],
            test_x=self._turned(name, test[0]),
            test_y=test[1],
            task=self.task,
            metric=self.metric,
            names=names,
        )

    def split(
        self, name: str, source: str, x: Samples, y: NDArray[Any] | None, names: tuple[str, ...] = ()
    ) -> Dataset:
        """A data set of samples in one piece: every fifth (of each class, if any) is for testing.

        Raises:
            InputError: the counts differ, a number is not finite, or as for :class:`qhw.data.base.Dataset`.
        """
        counts = [len(part) for part in parts_of(x)]
        if len(set(counts)) > 1:
            raise InputError(
                f"data set {name}: its inputs have {', '.join(map(str, counts))} samples",
                allowed="the same number for every input",
            )
        if y is not None and len(y) != count_of(x):
            raise InputError(f"data set {name}: {count_of(x)} samples have {len(y)} targets")
        for index, part in enumerate(parts_of(x)):
            which = f", input {names[index] if names else index}" if isinstance(x, tuple) else ""
            _require_finite(f"data set {name}{which}: sample", part)
        _require_finite(f"data set {name}: target", y)
        by_class = y is not None and y.ndim == 1 and y.dtype.kind in "biu"
        groups = y if by_class and y is not None else np.zeros(count_of(x), dtype=np.int64)
        train, test = holdout(groups.astype(np.int64), TEST_EVERY)
        parts = [(rows_of(x, index), None if y is None else y[index]) for index in (train, test)]
        return self.dataset(name, source, parts[0], parts[1], names)

    def _turned(self, name: str, x: Samples) -> Samples:
        """Channels in front, where the layout says that they come last."""
        if self.layout != "nhwc":
            return x
        if not any(part.ndim in (3, 4) for part in parts_of(x)):
            raise InputError(
                f"data set {name}: samples of shape {' and '.join(str(part.shape) for part in parts_of(x))} "
                "have no channels to bring to the front",
                allowed="(N, L, C) or (N, H, W, C) with the layout nhwc",
            )
        turned = tuple(
            np.ascontiguousarray(np.moveaxis(part, -1, 1)) if part.ndim in (3, 4) else part
            for part in parts_of(x)
        )
        return turned if isinstance(x, tuple) else turned[0]


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
