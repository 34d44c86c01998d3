"""Lets Brevitas's own QONNX exporter write models whose layers hold our quantizers.

Brevitas looks handlers up by a proxy's exact class. QONNX's Quant only saturates and knows a few rounding
modes: other modes are refused here, where they would be lost (``qhw.export`` carries them in a node of its
own).
"""

from __future__ import annotations

from typing import Any

from brevitas.export.onnx.qonnx.handler import (
    BrevitasActQuantProxyHandler,
    BrevitasBiasQuantProxyHandler,
    BrevitasWeightQuantProxyHandler,
)
from brevitas.export.onnx.qonnx.manager import QONNXManager

from qhw.errors import UnsupportedError
from qhw.formats.fixed import Fixed
from qhw.formats.modes import Overflow, Rounding
from qhw.formats.table import TableFormat
from qhw.quantizers.injectors import ActivationProxy, BiasProxy, WeightProxy

ROUNDINGS = (Rounding.RND_CONV, Rounding.TRN, Rounding.TRN_ZERO, Rounding.CEIL)
"""The rounding modes that Brevitas has a name for."""

OVERFLOWS = (Overflow.SAT, Overflow.SAT_SYM)
"""The overflow modes that QONNX's Quant has."""


def require_quant_node(spec: Fixed | TableFormat) -> None:
    """Raise UnsupportedError unless Brevitas can write the format and its modes into a Quant node."""
    if isinstance(spec, TableFormat):
        raise UnsupportedError(
            f"Brevitas's exporter cannot write {spec} of qhw's quantizers",
            allowed="fixed point",
            hint="qhw.export writes it",
        )
    if spec.rounding in ROUNDINGS and spec.overflow in OVERFLOWS:
        return
    modes = ", ".join(mode.value for mode in (*ROUNDINGS, *OVERFLOWS))
    raise UnsupportedError(
        f"Brevitas's exporter cannot write {spec}: QONNX's Quant has no such mode",
        allowed=modes,
        hint="convert the model with qhw.convert, whose export carries every mode",
    )


class _Checked:
    """Refuses modes that the exported node would not have."""

    def prepare_for_export(self, module: Any) -> None:
        require_quant_node(module.quantizer.spec)
        super().prepare_for_export(module)  # type: ignore[misc]


class WeightHandler(_Checked, BrevitasWeightQuantProxyHandler):  # type: ignore[misc]
    """Weights."""

    handled_layer = WeightProxy


class BiasHandler(_Checked, BrevitasBiasQuantProxyHandler):  # type: ignore[misc]
    """Biases."""

    handled_layer = BiasProxy


class ActivationHandler(_Checked, BrevitasActQuantProxyHandler):  # type: ignore[misc]
    """Activations."""

    handled_layer = ActivationProxy


def register() -> None:
    """Make the handlers known to Brevitas's QONNX exporter, once."""
    for handler in (WeightHandler, BiasHandler, ActivationHandler):
        if handler not in QONNXManager.handlers:
            QONNXManager.handlers.append(handler)
