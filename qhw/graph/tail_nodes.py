"""Between ONNX nodes and the steps of a tail."""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from onnx import NodeProto

from qhw.errors import UnsupportedError
from qhw.graph.onnx_tools import Constants, attributes, describe
from qhw.graph.tail_operations import CONSTANT, OPERATIONS, RISING, Step, Value, moves_with
from qhw.graph.tails import Tail

QUANTIZER_STEPS = frozenset({"Quant", "BipolarQuant", "MultiThreshold", "FixedQuant", "FormatQuant"})

ELEMENTWISE = frozenset(OPERATIONS) - QUANTIZER_STEPS
"""ONNX operators that a tail may hold."""


def is_rising(op: str, constant: Value | None, options: Mapping[str, Any]) -> bool:
    """Whether an operation with that constant second operand never falls as its first operand rises."""
    found = moves_with(Step(op, (), "", options), constant)
    return bool(((found == RISING) | (found == CONSTANT)).all())


def step_of(node: NodeProto, constants: Constants) -> Step:
    """An element-wise node as a step: constants that are no operands become attributes.

    Raises:
        UnsupportedError: a quantizer that is not at scale 1 and zero point 0, a computed bound.
    """
    options = attributes(node)
    inputs = tuple(node.input)
    if node.op_type == "Quant":
        scale, zero, bits = (constants[name] for name in node.input[1:])
        _require_unit(node, scale, zero)
        options |= {"bits": int(bits.reshape(-1)[0]), "signed": bool(options["signed"])}
        options |= {"narrow": bool(options["narrow"])}
        inputs = inputs[:1]
    elif node.op_type in ("BipolarQuant", "FormatQuant"):
        _require_unit(node, constants[node.input[1]], np.zeros(1))
        inputs = inputs[:1]
    elif node.op_type == "Clip":
        options, inputs = _clip_bounds(node, constants, options), inputs[:1]
    return Step(node.op_type, inputs, node.output[0], options)


def _require_unit(node: NodeProto, scale: Any, zero: Any) -> None:
    if (scale != 1).any() or zero.any():
        raise UnsupportedError(
            f"{describe(node)} has a scale or zero point of its own",
            hint="canonicalise the model first (qhw.graph.canonical.canonicalise)",
        )


def _clip_bounds(node: NodeProto, constants: Constants, options: dict[str, Any]) -> dict[str, Any]:
    names = [*node.input[1:], "", ""]
    bounds = {"min": -np.inf, "max": np.inf}
    for key, name in zip(bounds, names, strict=False):
        if name and name not in constants:
            raise UnsupportedError(f"{describe(node)}: its bound '{name}' is computed", allowed="constants")
        bounds[key] = float(constants[name]) if name else options.get(key, bounds[key])
    return bounds


def collect_tail(
    end: str, producers: Mapping[str, NodeProto], constants: Constants, integers: Set[str], rank: int
) -> tuple[Tail, int]:
    """The tail that writes tensor ``end``, back to tensors in ``integers`` (or what nothing writes).

    Args:
        rank: of the activation, batch axis included.

    Returns:
        the tail, and the axis along which its constants differ (batch axis not counted; 0 if they do not).
    """
    nodes = _nodes_behind(end, producers, constants, integers)
    steps = tuple(step_of(node, constants) for node in nodes)
    written = {step.output for step in steps}
    read = [name for step in steps for name in step.inputs]
    roots = tuple(dict.fromkeys(name for name in read if name not in written and name not in constants))
    arrays: dict[str, Value] = {}
    axes: set[int] = set()
    for step in steps:
        for name in step.inputs:
            if name in constants:
                full = _full_rank(step, constants[name], rank)
                axes |= {i for i, size in enumerate(full.shape[:rank]) if size > 1}
                arrays[name] = _rows(full, rank)
    last = producers[end]
    if len(axes) > 1 or 0 in axes:
        raise UnsupportedError(
            f"{describe(last)}: the numbers in front of it differ along axes {sorted(axes)}",
            allowed="one number, or one per channel",
        )
    return Tail(last.doc_string or last.name, roots, end, steps, arrays), max(axes, default=1) - 1


def _nodes_behind(
    end: str, producers: Mapping[str, NodeProto], constants: Constants, integers: Set[str]
) -> list[NodeProto]:
    """The element-wise nodes between integers and ``end``, operands first."""
    found: dict[str, NodeProto] = {}
    waiting = [end]
    while waiting:
        name = waiting[-1]
        node = producers[name]
        missing = [
            operand
            for operand in node.input
            if operand in producers and operand not in found and operand not in integers
        ]
        waiting.extend(missing)
        if not missing:
            found[waiting.pop()] = node
    return list(found.values())


def _full_rank(step: Step, constant: Value, rank: int) -> Value:
    """A constant with an axis for the batch and every axis of the activation; thresholds keep their last."""
    constant = np.asarray(constant, dtype=np.float32)
    if step.op != "MultiThreshold":
        return constant.reshape((1,) * (rank - constant.ndim) + constant.shape)
    layout = step.attributes.get("data_layout") or {2: "NC", 3: "NWC", 4: "NCHW"}.get(rank, "")  # as qonnx
    axis = layout.index("C") if "C" in layout else 1
    shape = [1] * rank
    shape[axis] = constant.shape[0]
    return constant.reshape((*shape, constant.shape[1]))


def _rows(full: Value, rank: int) -> Value:
    """``()``, ``(channels, 1)``, or for thresholds ``(channels or 1, 1, T)``."""
    if full.ndim > rank:
        return full.reshape(-1, 1, full.shape[-1])
    return full.reshape(()) if full.size == 1 else full.reshape(-1, 1)
