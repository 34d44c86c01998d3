"""Ways to propose points, one file each, found by name."""

from __future__ import annotations

import importlib
import pkgutil

from qhw.errors import InputError, closest
from qhw.search.strategies.base import Problem, Strategy, Trial

__all__ = ["DEFAULT", "Problem", "Strategy", "Trial", "list_strategies", "strategy_class"]

DEFAULT = "surrogate"
"""The strategy that is used unless another is named: benchmarks/search_strategies.py compares them."""


def list_strategies() -> list[str]:
    """The names of the strategies."""
    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if name not in ("base", "training") and not name.startswith("_"))


def strategy_class(name: str) -> type[Strategy]:
    """A strategy by its name; raises InputError for an unknown one."""
    if name not in list_strategies():
        known = list_strategies()
        raise InputError(
            f"There is no strategy {name!r}", allowed=", ".join(known), hint=closest(name, known)
        )
    found: type[Strategy] = importlib.import_module(f"{__name__}.{name}").strategy
    return found
