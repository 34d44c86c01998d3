"""The operations of the exact graph, one file each: what it holds, what it infers, and what it means.

A module of this package that defines a :class:`~qhw.graph.ops.base.Node` is an operation: nothing else has to
list it.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
