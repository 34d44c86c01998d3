"""qhw: from a PyTorch model to bit-exact hardware.

``qhw.build``, ``qhw.search``, ``qhw.simulate``, ``qhw.cost``, ``qhw.diff`` and ``qhw.run`` do what the
commands do; ``qhw.convert`` and ``qhw.ptq`` make a quantised model of a module, and ``qhw.export_qonnx`` a
file of that.
Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qhw.api import (
        BoardResult,
        BuildResult,
        CostResult,
        DiffResult,
        SearchResult,
        SimulationResult,
        build,
        convert,
        cost,
        diff,
        ptq,
        run,
        search,
        simulate,
    )
    from qhw.export import export_qonnx
    from qhw.quant_config import QuantConfig

__all__ = [
    "BoardResult",
    "BuildResult",
    "CostResult",
    "DiffResult",
    "QuantConfig",
    "SearchResult",
    "SimulationResult",
    "build",
    "convert",
    "cost",
    "diff",
    "export_qonnx",
    "ptq",
    "run",
    "search",
    "simulate",
]

_PLACES = dict.fromkeys(__all__, "qhw.api") | {
    "QuantConfig": "qhw.quant_config",
    "export_qonnx": "qhw.export",
}


class _Verb(ModuleType):
    """A submodule named like a verb of the API (``qhw.convert``, ``qhw.cost``): calling it does it."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        verb = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module("qhw.api"), verb)(*arguments, **options)


class _Package(ModuleType):
    """This package: finds its API when asked for it, and lets a verb and a submodule share a name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in __all__ and type(value) is ModuleType:
            value.__class__ = _Verb
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module 'qhw' has no attribute {name!r}")
        return getattr(importlib.import_module(_PLACES[name]), name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
