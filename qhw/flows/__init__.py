"""Flows: each is one package, with its notion of folding, its architecture, and what writes its projects."""

from __future__ import annotations

import pkgutil


def list_flows() -> list[str]:
    """The names of the flows there are: the packages in this one."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)
