"""The units: circuits whose costs are measured, one file each, beside their Verilog in ``cost_models/rtl``.

A file holds a unit's parameters and ports, what it computes in integers, the closed forms of its resources,
the space that its measured designs are drawn from, and its energy. Every module of this package but ``base``
is a unit, its ``UNIT``: nothing else has to list it. What designs are composed of beside them is in
``components/``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache

from qhw.errors import InputError, UnsupportedError, closest
from qhw.rtl.base import ClosedForms, MeasuredUnit, Values

__all__ = ["UNITS", "check_parameters", "closed_forms", "unit_named"]


def _found() -> Iterator[MeasuredUnit]:
    for module in pkgutil.iter_modules(__path__):
        if not module.ispkg and module.name != "base":
            yield importlib.import_module(f"{__name__}.{module.name}").UNIT


UNITS: Mapping[str, MeasuredUnit] = {
    unit.name: unit for unit in sorted(_found(), key=lambda unit: unit.space.place)
}
"""Every unit by its name, in the order of the measured sets; each has been simulated without a difference
(``benchmarks/rtl_proofs.py``)."""


def unit_named(name: str) -> MeasuredUnit:
    """A unit; raises InputError for a name that is none."""
    if name not in UNITS:
        raise InputError(f"{name!r} is not a unit", hint=closest(name, UNITS))
    return UNITS[name]


def check_parameters(unit: str, values: Values) -> None:
    """Raise InputError unless the unit can be built with these parameters."""
    unit_named(unit).checked(values)


@cache
def closed_forms(unit: str, family: str) -> ClosedForms:
    """A unit's closed forms in a family of devices.

    Raises UnsupportedError for what is no unit, never zero cost.
    """
    if unit not in UNITS:
        raise UnsupportedError(f"The unit {unit!r} has no cost model", hint=closest(unit, UNITS))
    return UNITS[unit].closed_forms(family)
