"""Closed forms of each unit's cells: one file for each kind of unit, with a table ``MODELS``.

Units whose structure depends on the memory cells of a family have a function ``models(family)`` in its place.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from qhw.cost.unit_models import UnitModel
from qhw.errors import UnsupportedError, closest


@cache
def unit_models(family: str) -> Mapping[str, UnitModel]:
    """Every unit's closed forms in a family of devices, by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    tables = [module.models(family) if hasattr(module, "models") else module.MODELS for module in modules]
    return {unit: model for table in tables for unit, model in table.items()}


def unit_model(unit: str, family: str) -> UnitModel:
    """The closed forms of a unit; raises UnsupportedError where there are none, never zero cost."""
    models = unit_models(family)
    if unit not in models:
        raise UnsupportedError(f"The unit {unit!r} has no cost model", hint=closest(unit, models))
    return models[unit]
