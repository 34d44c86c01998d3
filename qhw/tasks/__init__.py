"""Tasks, one file each: what a network is for, hence its targets, its loss and its metrics."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from qhw.errors import InputError, closest
from qhw.tasks.base import Array, Judge, Metric, Targets, Task

__all__ = ["Array", "Judge", "Metric", "Targets", "Task", "task_named", "task_of", "tasks"]


@cache
def tasks() -> Mapping[str, Task]:
    """Every task by name."""
    modules = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
    found = [importlib.import_module(f"{__name__}.{name}").TASK for name in modules]
    return {task.name: task for task in sorted(found, key=lambda task: task.name)}


def task_named(name: str) -> Task:
    """A task by its name; raises InputError for one that there is not."""
    if name not in tasks():
        raise InputError(f"{name!r} is not a task", allowed=", ".join(tasks()), hint=closest(name, tasks()))
    return tasks()[name]


def task_of(targets: Targets) -> Task:
    """The task that targets are of by their type and shape alone.

    No targets: an autoencoder, which returns its input. Floats: regression. Integers: (N,) are classes,
    (N, K) of 0 and 1 several labels, (N, H, W) classes of pixels.

    Raises:
        InputError: they are of no task.
    """
    fitting = [task for task in tasks().values() if task.is_of(targets)]
    if len(fitting) != 1:
        assert targets is not None
        raise InputError(
            f"targets of type {targets.dtype} and shape {targets.shape} fit no task",
            allowed="; ".join(f"{task.name}: {task.takes}" for task in tasks().values()),
        )
    return fitting[0]
