"""What a point is worth, by cheap figures or dear ones: one file each, found by name."""

from __future__ import annotations

import importlib
import pkgutil

from qhw.errors import InputError, closest
from qhw.search.evaluators.base import Evaluation, Evaluator

__all__ = ["Evaluation", "Evaluator", "evaluator_class", "list_evaluators"]


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


def _classes() -> list[type[Evaluator]]:
    names = (module.name for module in pkgutil.iter_modules(__path__) if module.name != "base")
    return [importlib.import_module(f"{__name__}.{name}").evaluator for name in names]
