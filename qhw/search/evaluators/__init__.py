"""What a point is worth, by cheap figures or dear ones: one file each, found by name."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qhw.errors import InputError, closest
from qhw.search.evaluators.base import Evaluation, Evaluator, Held

if TYPE_CHECKING:
    from qhw.data import Dataset
    from qhw.search.network import Variants
    from qhw.train import TrainConfig

__all__ = ["Evaluation", "Evaluator", "evaluator_class", "list_evaluators", "make_evaluator"]


def list_evaluators() -> list[str]:
    """The names of the evaluators, cheapest first."""
    return [found.name for found in sorted(_classes(), key=lambda found: found.rank)]


def evaluator_class(name: str) -> type[Evaluator]:
    """An evaluator by its name; raises InputError for an unknown one."""
    for found in _classes():
        if found.name == name:
            return found
    known = list_evaluators()
    raise InputError(f"There is no evaluator {name!r}", allowed=", ".join(known), hint=closest(name, known))


def make_evaluator(
    name: str,
    variants: Variants,
    held: Held,
    training: tuple[Dataset, TrainConfig] | None = None,
    methods: Sequence[str] = (),
) -> Evaluator:
    """An evaluator by its name.

    Args:
        training: the data and the recipe of those that train.
        methods: what quantises points, for those that judge by it.

    Raises:
        InputError: there is none of that name.
    """
    found: Any = evaluator_class(name)
    more: tuple[Any, ...] = (training or ()) if found.trains else (methods,) if found.takes_methods else ()
    made: Evaluator = found(variants, held, *more)
    return made


def _classes() -> list[type[Evaluator]]:
    names = (module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return [importlib.import_module(f"{__name__}.{name}").evaluator for name in names]
