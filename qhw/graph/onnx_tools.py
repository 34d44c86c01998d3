"""Small helpers for reading and editing ONNX graphs."""

from __future__ import annotations

import re
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


def put_initializer(graph: GraphProto, name: str, value: NDArray[Any]) -> None:
    """Store a constant under a name that nothing writes any more."""
    contiguous = np.ascontiguousarray(value).reshape(value.shape)  # ascontiguousarray makes 0-d arrays 1-d
    graph.initializer.append(numpy_helper.from_array(contiguous, name))
