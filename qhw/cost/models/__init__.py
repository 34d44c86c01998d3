"""What each unit is made of: closed forms, one file for each kind of unit, with a table ``MODELS``."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from qhw.cost.unit_models import UnitModel
from qhw.errors import UnsupportedError, closest


@cache
def unit_models() -> Mapping[str, UnitModel]:
    """Every unit's closed forms, by its name."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    modules = [importlib.import_module(f"{__name__}.{name}") for name in names]
    return {unit: model for module in modules for unit, model in module.MODELS.items()}


def unit_model(unit: str) -> UnitModel:
    """The closed forms of a unit; raises UnsupportedError where there are none: it is not silently free."""
    models = unit_models()
    if unit not in models:
        raise UnsupportedError(f"The unit {unit!r} has no cost model", hint=closest(unit, models))
    return models[unit]
