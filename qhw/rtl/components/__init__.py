"""Components: what designs are composed of beside the measured units, one file each, beside its Verilog.

A file holds a component's parameters and ports, what it computes, when words pass (streams), what it takes of
a device, counted and not measured, and the designs that it is proven with. Every module of this package is a
component, its ``UNIT``: nothing else has to list it.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping

from qhw.rtl.base import CountedStream, CountedUnit

__all__ = ["COMPONENTS", "LANE_COMPONENTS", "STREAMS"]


def _found() -> Iterator[CountedUnit | CountedStream]:
    for module in pkgutil.iter_modules(__path__):
        yield importlib.import_module(f"{__name__}.{module.name}").UNIT


COMPONENTS: Mapping[str, CountedUnit | CountedStream] = {unit.name: unit for unit in _found()}
"""Every component by its name, simulated without a difference (``benchmarks/rtl_proofs.py``)."""

LANE_COMPONENTS: Mapping[str, CountedUnit] = {
    name: unit for name, unit in COMPONENTS.items() if isinstance(unit, CountedUnit)
}
"""Those within modules."""

STREAMS: Mapping[str, CountedStream] = {
    name: unit for name, unit in COMPONENTS.items() if isinstance(unit, CountedStream)
}
"""Those between streams."""
