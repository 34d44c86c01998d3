"""Every opset that is read becomes one: what moved from attributes to inputs is moved, name by name.

onnx.version_converter refuses models with other domains; what changed between opsets 9 and today is short,
for the operators that are carried.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from qhw.errors import UnsupportedError
from qhw.graph.onnx_tools import attributes, describe, drop_attribute
from qhw.graph.reading.draft import STANDARD, Draft

OPSET = 21
"""The version of ONNX's operators that a loaded model has."""

IR_VERSION = 10
"""The format of the file that goes with that opset; ONNX Runtime refuses some that are newer."""

Raise = Callable[[Draft, NodeProto, dict[str, Any]], "list[NodeProto] | None"]


def raise_opset(draft: Draft) -> frozenset[str]:
    """Write every node as opset ``OPSET`` has it.

    Returns:
        The names of Softmax-like nodes that take all axes from theirs on as one, as before opset 13.
    """
    version = draft.opset
    old_softmax = frozenset(
        node.name
        for node in draft.graph.node
        if version < 13 and node.domain == STANDARD and node.op_type in ("Softmax", "LogSoftmax", "Hardmax")
    )
    for before, op, change in _CHANGES:
        if version < before:
            draft.rewrite(
                lambda node, op=op, change=change: (  # type: ignore[misc]
                    change(draft, node, attributes(node))
                    if node.op_type == op and node.domain == STANDARD
                    else None
                )
            )
    for opset in draft.proto.opset_import:
        if opset.domain == STANDARD:
            opset.version = OPSET
    draft.proto.ir_version = IR_VERSION
    return old_softmax


def _to_inputs(*names: str) -> Raise:
    """Attributes that became int64 inputs behind the first, in that order, as far as they are given."""

    def change(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto] | None:
        given = [name for name in names if name in options]
        for name in names[: names.index(given[-1]) + 1] if given else ():
            value = options.get(name)
            stored = "" if value is None else draft.constant(f"{node.name}_{name}", list(value))
            node.input.append(stored)
            drop_attribute(node, name)
        return [node]

    return change


def _clip(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    for name in ("min", "max"):
        bound = options.get(name)
        stored = "" if bound is None else draft.constant(f"{node.name}_{name}", np.float32(bound))
        node.input.append(stored)
        drop_attribute(node, name)
    return [node]


def _pad(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    node.input.append(draft.constant(f"{node.name}_pads", list(options["pads"])))
    node.input.append(draft.constant(f"{node.name}_value", np.float32(options.get("value", 0.0))))
    drop_attribute(node, "pads")
    drop_attribute(node, "value")
    return [node]


def _split(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    if "split" in options:
        node.input.append(draft.constant(f"{node.name}_split", list(options["split"])))
        drop_attribute(node, "split")
    return [node]


def _even_split(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    if len([name for name in node.input if name]) == 1:
        node.attribute.append(helper.make_attribute("num_outputs", len(node.output)))
    return [node]


def _dropout(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    drop_attribute(node, "ratio")
    drop_attribute(node, "seed")
    return [node]


def _top_k(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    node.input.append(draft.constant(f"{node.name}_k", [int(options["k"])]))
    drop_attribute(node, "k")
    return [node]


def _resize(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    """Upsample, and Resize of opset 10: pixel ``i`` of the result lies at ``i / scale`` of the input."""
    made = draft.node(
        node,
        "Resize",
        [node.input[0], "", node.input[1]],
        node.output[0],
        mode=options.get("mode", "nearest"),
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    return [made]


def _normalization(draft: Draft, node: NodeProto, options: dict[str, Any]) -> list[NodeProto]:
    """The second to fifth output of old opsets are the statistics of training."""
    read = draft.readers().keys() | set(draft.outputs)
    if any(name in read for name in node.output[1:]):
        raise UnsupportedError(f"{describe(node)} is in training mode", hint="export after model.eval()")
    del node.output[1:]
    return [node]


_CHANGES: tuple[tuple[int, str, Raise], ...] = (
    (11, "Resize", _resize),
    (10, "Upsample", _resize),
    (10, "Slice", _to_inputs("starts", "ends", "axes")),
    (10, "TopK", _top_k),
    (11, "Clip", _clip),
    (11, "Pad", _pad),
    (12, "Dropout", _dropout),
    (13, "Squeeze", _to_inputs("axes")),
    (13, "Unsqueeze", _to_inputs("axes")),
    (13, "Split", _split),
    (18, "Split", _even_split),
    (13, "ReduceSum", _to_inputs("axes")),
    *((18, op, _to_inputs("axes")) for op in ("ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd")),
    (14, "BatchNormalization", _normalization),
)
"""Before which opset an operator was written otherwise, in an order in which changes may be made."""
