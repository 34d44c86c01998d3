"""Heads of a model for the host: Softmax, ArgMax and their like, behind the last quantised layer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper
from qonnx.core.modelwrapper import ModelWrapper

from qhw.errors import UnsupportedError
from qhw.graph.ir import HostStep, Postprocessing
from qhw.graph.onnx_tools import attributes, describe, words
from qhw.graph.reading.draft import Draft
from qhw.graph.reading.operators import HEAD_OPS
from qhw.outside.text import parse_json

METADATA_KEY = "qhw.postprocessing"
"""The metadata key under which a loaded model and its copies keep what was taken off its end."""

_FOLLOWING = words("Cast Flatten Identity Reshape Squeeze Unsqueeze Transpose")
"""Operators allowed around a head: they move numbers, or change their type."""

_BEHIND_SOFTMAX = words("Clip Quant")
"""Operators that may follow a head of the host: exporters of the QDQ format quantise every result."""

_IN_HARDWARE = words("Sigmoid Tanh")
"""Heads that a quantizer behind them makes a table of."""


def take_off_heads(draft: Draft, flattening: frozenset[str]) -> Postprocessing | None:
    """Take the heads off the end of a model; what they read becomes its output. None where there are none.

    Args:
        flattening: names of Softmax-like nodes that take all axes from theirs on as one (before opset 13).

    Raises:
        UnsupportedError: a head works across the samples of a batch.
    """
    heads = _head_nodes(draft)
    if not heads:
        return None
    nodes = [node for node in draft.graph.node if node.name in heads]
    steps = tuple(_step(draft, node, flattening) for node in nodes)
    origin: dict[str, str] = {}
    for step in steps:
        origin |= dict.fromkeys(step.outputs, origin.get(step.inputs[0], step.inputs[0]))
    reads = list(dict.fromkeys(origin.get(name, name) for name in draft.outputs))
    found = Postprocessing(tuple(reads), steps, tuple(draft.outputs))
    draft.remove(nodes)
    kept = {value.name: value for value in draft.graph.output}
    known = {value.name: value for value in draft.graph.value_info}
    values = [kept.get(name) or known.get(name) or _value(draft, name) for name in reads]
    copies = [type(value).FromString(value.SerializeToString()) for value in values]
    del draft.graph.output[:]
    draft.graph.output.extend(copies)
    draft.drop_unread()
    return found


def code_bounds(bits: int, signed: bool, narrow: bool) -> tuple[int, int]:
    """The smallest and largest code of a QONNX Quant."""
    if signed:
        return -(1 << (bits - 1)) + int(narrow), (1 << (bits - 1)) - 1
    return 0, (1 << bits) - 1 - int(narrow)


def _value(draft: Draft, name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(draft.shape(name)))


def _head_nodes(draft: Draft) -> set[str]:
    """Names of the nodes from the first head on: whatever reads their results is one of them, too."""
    readers, producers = draft.readers(), draft.producers()
    quantised: dict[str, bool] = {}
    for node in reversed(draft.graph.node):
        behind = [reader.name for name in node.output for reader in readers.get(name, ())]
        if _may_end(draft, node) and all(name in quantised for name in behind):
            quantised[node.name] = node.op_type in _BEHIND_SOFTMAX or any(quantised[name] for name in behind)
    heads: set[str] = set()
    for node in draft.graph.node:
        if node.name not in quantised:
            continue
        before = producers.get(node.input[0])
        is_first = node.op_type in HEAD_OPS and not (node.op_type in _IN_HARDWARE and quantised[node.name])
        if is_first or (before is not None and before.name in heads):
            heads.add(node.name)
    return heads


def _may_end(draft: Draft, node: NodeProto) -> bool:
    """Whether a node is a head, or may follow one: it computes with one tensor and constant numbers."""
    known = HEAD_OPS | _FOLLOWING | _BEHIND_SOFTMAX
    if node.op_type not in known or (node.domain and node.op_type != "Quant"):
        return False
    constants = [draft.constants[name] for name in node.input if name in draft.constants]
    computed = [name for name in node.input if name and name not in draft.constants]
    if node.op_type in _BEHIND_SOFTMAX and any(value.size != 1 for value in constants):
        return False
    return computed == [node.input[0]]


def _step(draft: Draft, node: NodeProto, flattening: frozenset[str]) -> HostStep:
    shape = draft.shape(node.input[0])
    rank = len(shape)
    outputs = tuple(name for name in node.output)
    for name in outputs:
        if name and draft.shape(name)[:1] != (1,):
            raise UnsupportedError(
                f"{describe(node)} does not keep the batch axis in front", allowed="axes 1 and up"
            )
    options = dict(_options(draft, node, rank, node.name in flattening))
    across = options.get("axes", ())
    if 0 in across:
        raise UnsupportedError(
            f"{describe(node)} works across the samples of a batch", allowed="axes 1 and up"
        )
    shapes = tuple(tuple(draft.shape(name)[1:]) if name else () for name in outputs)
    return HostStep(node.op_type, node.name, (node.input[0],), outputs, shapes, options)


def _options(draft: Draft, node: NodeProto, rank: int, flattens: bool) -> Iterator[tuple[str, Any]]:
    """The attributes that decide a step's result, axes counted from 0, the batch axis included."""
    options = attributes(node)
    match node.op_type:
        case "Softmax" | "LogSoftmax" | "Hardmax":
            axis = int(options.get("axis", 1 if flattens else -1)) % rank
            yield "axes", tuple(range(axis, rank)) if flattens else (axis,)
        case "ArgMax" | "ArgMin":
            yield "axes", (int(options.get("axis", 0)) % rank,)
            yield "keepdims", int(options.get("keepdims", 1))
            yield "select_last_index", int(options.get("select_last_index", 0))
        case "TopK":
            if node.input[1] not in draft.constants:
                raise UnsupportedError(f"{describe(node)}: its k is computed", allowed="a constant")
            yield "axes", (int(options.get("axis", -1)) % rank,)
            yield "k", int(draft.constants[node.input[1]].reshape(-1)[0])
            yield "largest", int(options.get("largest", 1))
            yield "sorted", int(options.get("sorted", 1))
        case "Transpose":
            yield "perm", tuple(int(p) for p in options["perm"])
        case "Clip":
            limit = float(np.finfo(np.float32).max)
            bounds = [*node.input[1:], "", ""]
            for end, name, default in zip(("min", "max"), bounds, (-limit, limit), strict=False):
                bound = float(draft.constants[name].reshape(-1)[0]) if name else default
                yield end, min(max(bound, -limit), limit)  # JSON has no infinity
        case "Quant":
            scale, zero, bits = (float(draft.constants[n].reshape(-1)[0]) for n in node.input[1:])
            low, high = code_bounds(int(bits), bool(options["signed"]), bool(options["narrow"]))
            yield from {"scale": scale, "zero_point": zero, "low": low, "high": high}.items()
            yield "rounding_mode", str(options["rounding_mode"])
        case "Cast":
            yield "to", str(helper.tensor_dtype_to_np_dtype(int(options["to"])))


def keep_postprocessing(model: ModelWrapper, found: Postprocessing | None) -> None:
    """Note in a model what was taken off its end."""
    kept = [entry for entry in model.model.metadata_props if entry.key != METADATA_KEY]
    del model.model.metadata_props[:]
    model.model.metadata_props.extend(kept)
    if found is not None:
        model.model.metadata_props.add(key=METADATA_KEY, value=json.dumps(asdict(found), sort_keys=True))


def postprocessing_of(model: ModelWrapper) -> Postprocessing | None:
    """The operations taken off a loaded model's end, for the host to do; None where there are none.

    ``reads[i]`` of it is the name in the file of the exact graph's output ``i``.
    """
    for entry in model.model.metadata_props:
        if entry.key == METADATA_KEY:
            return Postprocessing.from_mapping(parse_json(entry.value, f"The metadata {METADATA_KEY}"))
    return None
