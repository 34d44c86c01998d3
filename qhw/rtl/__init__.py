"""The circuits whose costs are measured: what they compute, and their Verilog (``cost_models/rtl``)."""

from __future__ import annotations

from collections.abc import Mapping

from qhw.errors import InputError, closest
from qhw.rtl.bits import ADDER_TREE, XNOR_POPCOUNT
from qhw.rtl.constants import KHOT_CONSTANT_DOT
from qhw.rtl.control import LAYER_CONTROL, WINDOW_BUFFER
from qhw.rtl.finish import REQUANTIZE, THRESHOLD
from qhw.rtl.khots import KHOT_MAC, KHOT_MINIFLOAT_MAC
from qhw.rtl.macs import INTEGER_DOT, INTEGER_MAC, PACKED_MAC
from qhw.rtl.matrices import CONSTANT_MATRIX
from qhw.rtl.memories import FIFO, WEIGHT_MEMORY
from qhw.rtl.minifloats import FIXED_TO_MINIFLOAT, MINIFLOAT_DOT, MINIFLOAT_MAC, MIXED_MAC
from qhw.rtl.unit import Control, Parameter, Port, Ports, Streams, Unit, Values
from qhw.rtl.windows import LINE_BUFFER, MAX_POOL

__all__ = [
    "UNITS",
    "Control",
    "Parameter",
    "Port",
    "Ports",
    "Streams",
    "Unit",
    "Values",
    "check_parameters",
    "unit_named",
]

UNITS: Mapping[str, Unit] = {
    unit.name: unit
    for unit in (
        *(INTEGER_MAC, INTEGER_DOT, PACKED_MAC, THRESHOLD, REQUANTIZE),
        *(MINIFLOAT_MAC, MINIFLOAT_DOT, MIXED_MAC, FIXED_TO_MINIFLOAT),
        *(KHOT_MAC, KHOT_MINIFLOAT_MAC, KHOT_CONSTANT_DOT, CONSTANT_MATRIX),
        *(ADDER_TREE, XNOR_POPCOUNT),
        *(FIFO, WEIGHT_MEMORY, LINE_BUFFER, MAX_POOL),
        *(LAYER_CONTROL, WINDOW_BUFFER),
    )
}
"""Every unit by its name; each has been simulated without a difference (``benchmarks/rtl_proofs.py``)."""


def unit_named(name: str) -> Unit:
    """A unit; raises InputError for a name that is none."""
    if name not in UNITS:
        raise InputError(f"{name!r} is not a unit", hint=closest(name, UNITS))
    return UNITS[name]


def check_parameters(unit: str, values: Values) -> None:
    """Raise InputError unless the unit can be built with these parameters."""
    unit_named(unit).checked(values)
