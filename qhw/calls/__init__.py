"""Every call in a traced model becomes a call of a layer that conversion knows: one table entry per kind.

A model says the same in three ways, as a module, as a function and as a method of a tensor. Here each
becomes one layer (or a few): torch's own where :data:`LAYERS` has it, otherwise one of :mod:`qhw.layers`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx

from qhw.calls import arithmetic, modules, shapes
from qhw.calls.call import Call, Handler, free_path, label, numbered, place, set_layer
from qhw.calls.kinds import LAYERS, OWN_LAYERS, SUPPORTED, unsupported
from qhw.calls.modules import MODULES, settle_module
from qhw.calls.shapes import PARTS

__all__ = [
    "LAYERS",
    "MODULES",
    "OWN_LAYERS",
    "SUPPORTED",
    "free_path",
    "label",
    "numbered",
    "place",
    "set_layer",
    "to_layers",
    "unsupported",
]

HANDLERS: Mapping[Any, Handler] = {**modules.CALLS, **arithmetic.CALLS, **shapes.CALLS}
"""What stands for a function or a method."""


def to_layers(module: fx.GraphModule, batch: int) -> None:
    """Put layers in place of every call of a graph whose nodes have their shapes; inputs say if pixels."""
    originals = dict(module.named_modules())
    for node in list(module.graph.nodes):
        if "constant" not in node.meta:
            _to_layer(Call(module, node, batch, originals))


def _to_layer(call: Call) -> None:
    """Put layers in place of a call.

    Raises:
        UnsupportedError: none stands for it; the message names the module whose forward() made the call.
    """
    node = call.node
    if node.op == "call_module":
        node.args, node.kwargs = (*node.args, *node.kwargs.values()), {}
        settle_module(call)
        return
    if node.op not in ("call_function", "call_method") or (node.target in PARTS and "parts" in node.meta):
        return
    if node.meta["shape"] is None:
        raise unsupported(node, label(node.target))
    handler = HANDLERS.get(node.target)
    if handler is None:
        raise unsupported(node, label(node.target))
    handler(call)
