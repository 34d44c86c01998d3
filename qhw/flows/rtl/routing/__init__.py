"""From a mapped netlist to a bitstream: the open tools of each family, one file each, all from pip."""

from __future__ import annotations

import importlib
import pkgutil

from qhw.flows.rtl.routing.base import Router, Step

__all__ = ["Router", "Step", "router_of", "routers"]


def routers() -> tuple[str, ...]:
    """The families whose designs are placed and routed."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"))


def router_of(family: str) -> Router | None:
    """The tools of a family; None where there are none."""
    if family not in routers():
        return None
    found: Router = importlib.import_module(f"{__name__}.{family}").ROUTER
    return found
