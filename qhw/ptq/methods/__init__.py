"""Methods of post-training quantisation, one file each, found by name."""

from __future__ import annotations

import importlib
from collections.abc import Iterable

from qhw.ptq.methods.base import Method, Subject

__all__ = ["Method", "Subject", "methods_named"]


def methods_named(names: Iterable[str]) -> list[Method]:
    """The methods of names that :class:`qhw.ptq.settings.PtqSettings` has checked, as they are applied."""
    modules = [importlib.import_module(f"{__name__}.{name.replace('-', '_')}") for name in names]
    found: list[Method] = [module.METHOD for module in modules]
    return sorted(found, key=lambda method: method.order)
