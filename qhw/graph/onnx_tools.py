"""Small helpers for reading and editing ONNX graphs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

from qhw.errors import InputError

Constants = dict[str, NDArray[Any]]


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set of names."""
    return frozenset(text.split())


def describe(node: NodeProto) -> str:
    """A node's operator and name, and the layer of the user's model that it came from, for messages."""
    layer = layer_of(node)
    whose = f" (layer '{layer}')" if layer else ""
    return f"{node.op_type} '{node.name or ', '.join(node.output)}'{whose}"


def layer_of(node: NodeProto) -> str:
    """The layer of the user's model as torch's exporters note it, ``layer1.conv``; empty where unknown.

    One names nodes ``/layer1/conv/Conv`` (children of a Sequential ``/layer1/layer1.0/Conv``); the other
    keeps module paths in the node's metadata (``pkg.torch.onnx.name_scopes``: a list whose last entry is
    the operation itself).
    """
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            scopes = re.findall(r"'([^']*)'", entry.value)
            return str(scopes[-2]) if len(scopes) > 1 else ""
    layer = ""
    for part in node.name.split("/")[1:-1] if node.name.startswith("/") else ():
        layer = part if not layer or part.startswith(f"{layer}.") else f"{layer}.{part}"
    return layer


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values: text decoded, tensors as arrays."""
    return {attribute.name: _attribute_value(node, attribute) for attribute in node.attribute}


def _attribute_value(node: NodeProto, attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if not isinstance(value, TensorProto):
        return value
    try:
        return numpy_helper.to_array(value)
    except Exception as error:  # whatever NumPy and protobuf say about bytes that do not fit
        raise InputError(
            f"{describe(node)}: the tensor in its attribute '{attribute.name}' is damaged ({error})",
            hint="export the model again",
        ) from error


def drop_attribute(node: NodeProto, name: str) -> None:
    """Remove an attribute, if the node has it."""
    kept = [attribute for attribute in node.attribute if attribute.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)


def initializers(graph: GraphProto) -> Constants:
    """Every constant of the graph, by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}


def add_initializer(graph: GraphProto, stem: str, value: NDArray[Any]) -> str:
    """Store a constant under a name that nothing else has; that name."""
    name = fresh_name(graph, stem)
    put_initializer(graph, name, value)
    return name


def put_initializer(graph: GraphProto, name: str, value: NDArray[Any]) -> None:
    """Store a constant under a name that nothing writes any more."""
    contiguous = np.ascontiguousarray(value).reshape(value.shape)  # ascontiguousarray makes 0-d arrays 1-d
    graph.initializer.append(numpy_helper.from_array(contiguous, name))


def fresh_name(graph: GraphProto, stem: str) -> str:
    """A tensor name that the graph does not use yet: ``stem``, or ``stem_2`` …"""
    taken = {value.name for value in (*graph.input, *graph.output)} | {t.name for t in graph.initializer}
    taken |= {name for node in graph.node for name in (*node.input, *node.output)}
    if stem not in taken:
        return stem
    return next(f"{stem}_{i}" for i in range(2, len(taken) + 3) if f"{stem}_{i}" not in taken)


def remove_nodes(graph: GraphProto, gone: Iterable[NodeProto]) -> None:
    """Take nodes out of the graph, by name."""
    names = {node.name for node in gone}
    replace_nodes(graph, lambda node: [] if node.name in names else [node])


def replace_nodes(graph: GraphProto, rewrite: Callable[[NodeProto], list[NodeProto]]) -> None:
    """Put what ``rewrite`` makes of every node in that node's place."""
    nodes = [new for node in list(graph.node) for new in rewrite(node)]
    del graph.node[:]
    graph.node.extend(nodes)


def rename_tensor(graph: GraphProto, old: str, new: str) -> None:
    """Let every node that reads or writes ``old`` use ``new``."""
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new


def forget_shapes(graph: GraphProto, tensors: Iterable[str]) -> None:
    """Drop the stored shapes of tensors, so that they are inferred again."""
    names = set(tensors)
    kept = [info for info in graph.value_info if info.name not in names]
    del graph.value_info[:]
    graph.value_info.extend(kept)
