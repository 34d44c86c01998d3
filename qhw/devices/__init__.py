"""Device families, one file each: what their devices have, and the cells that cost models count in."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

from qhw.devices.base import Fabric, Family, Kind, Resource
from qhw.errors import InputError, closest

__all__ = ["Fabric", "Family", "Kind", "Resource", "fabric_of", "fabrics", "families", "family_named"]


@cache
def families(kind: Kind | None = None) -> tuple[Family, ...]:
    """Every family, or those of one kind; by name."""
    modules = [module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"]
    found = [importlib.import_module(f"{__name__}.{name}").FAMILY for name in modules]
    return tuple(sorted((f for f in found if kind is None or f.kind == kind), key=lambda family: family.name))


def family_named(name: str) -> Family:
    """A family by its name; raises InputError for one that there is not."""
    known = {family.name: family for family in families()}
    if name not in known:
        raise InputError(f"{name!r} is not a device family", hint=closest(name, known))
    return known[name]


@cache
def fabrics() -> Mapping[str, Fabric]:
    """The cells of every FPGA family that was measured, by its name; the one with the largest set first."""
    known = {family.name: family.fabric for family in families("fpga")}
    found = {name: fabric for name, fabric in known.items() if fabric is not None and not fabric.priced_as}
    return dict(sorted(found.items(), key=lambda item: (-item[1].measured_share, item[0])))


@cache
def fabric_of(family: str) -> Fabric:
    """The cells of an FPGA family; raises InputError for any other name."""
    fabric = family_named(family).fabric
    if fabric is None:
        raise InputError(f"{family} is not a family of FPGAs", allowed=", ".join(fabrics()))
    return fabric
