"""One form for what ONNX can say in several ways: small rewrites of a checked model, each in place."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, helper
from onnx.reference import ReferenceEvaluator
from qonnx.core.modelwrapper import ModelWrapper

from qhw.errors import InputError, UnsupportedError
from qhw.graph.ir import TENSOR_SIZE_LIMIT
from qhw.graph.onnx_tools import (
    Constants,
    add_initializer,
    attributes,
    describe,
    drop_attribute,
    forget_shapes,
    fresh_name,
    initializers,
    put_initializer,
    remove_nodes,
    rename_tensor,
    replace_nodes,
    words,
)

QUANTIZERS = frozenset({"Quant", "BipolarQuant", "Trunc", "MultiThreshold", "FixedQuant"}) | {
    "FloatQuant",
    "FormatQuant",
}
"""What puts a tensor onto a finite grid, once a model is loaded."""

# None of these enlarges its inputs beyond their broadcast.
_FOLDABLE = words(
    """
    Add Cast Concat Div Flatten Gather Identity Mul Neg Pow Reciprocal Reshape Shape Slice Sqrt
    Squeeze Sub Transpose Unsqueeze
    """
)
_NUMERIC_CONSTANTS = frozenset({"value", "value_float", "value_floats", "value_int", "value_ints"})


def drop_constant_nodes(graph: GraphProto) -> None:
    """Constant nodes become initializers, and initializers are no graph inputs."""
    constants = [node for node in graph.node if node.op_type == "Constant"]
    for node in constants:
        ((kind, value),) = attributes(node).items()
        if kind not in _NUMERIC_CONSTANTS:
            raise UnsupportedError(f"{describe(node)} holds a {kind}", allowed="dense numbers")
        array = np.asarray(value, dtype=np.float32) if kind.startswith("value_float") else np.asarray(value)
        put_initializer(graph, node.output[0], array)
    remove_nodes(graph, constants)
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    del graph.input[:]
    graph.input.extend(inputs)


def free_batch(graph: GraphProto, batch: int) -> None:
    """A batch size stored in a Reshape becomes 0 (as it was), so that the model runs at any batch size."""
    values = initializers(graph)
    for node in graph.node:
        shape = values.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or node.input[0] in values:
            continue
        if attributes(node).get("allowzero") and not shape.all():
            continue
        if shape.size and shape.reshape(-1)[0] == batch:
            drop_attribute(node, "allowzero")  # torch sets it always; without a zero it says nothing
            freed = np.concatenate([np.zeros(1, dtype=np.int64), shape.reshape(-1)[1:]])
            node.input[1] = add_initializer(graph, f"{node.name}_shape", freed)


def fold_constants(model: ModelWrapper) -> bool:
    """Compute every node whose inputs are all constant, and Shape of known shapes; whether any was."""
    graph = model.graph
    known = initializers(graph)
    opsets = {opset.domain: opset.version for opset in model.model.opset_import}
    folded = []
    for node in graph.node:
        value = _folded_value(model, node, known, opsets)
        if value is not None:
            known[node.output[0]] = value
            folded.append(node)
    remove_nodes(graph, folded)
    forget_shapes(graph, [node.output[0] for node in folded])
    for node in folded:
        put_initializer(graph, node.output[0], known[node.output[0]])
    return bool(folded)


def _folded_value(
    model: ModelWrapper, node: NodeProto, known: Constants, opsets: dict[str, int]
) -> NDArray[Any] | None:
    if node.domain or node.op_type not in _FOLDABLE or len(node.output) != 1:
        return None
    if node.op_type == "Shape" and not node.attribute:
        shape = model.get_tensor_shape(node.input[0])
        return np.array(shape, dtype=np.int64) if shape and min(shape) > 0 else None
    feeds = {name: known[name] for name in node.input if name in known}
    if len(feeds) != len(set(filter(None, node.input))) or not _stays_bounded(feeds):
        return None
    try:
        (value,) = ReferenceEvaluator(node, opsets=opsets).run(None, feeds)
    except Exception as error:  # whatever NumPy says about operands that do not fit
        raise InputError(f"{describe(node)} cannot be computed from its constants: {error}") from error
    return np.asarray(value)


def _stays_bounded(feeds: Constants) -> bool:
    """Whether even the broadcast of all the operands is of a sane size."""
    shapes = [value.shape for value in feeds.values()]
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    largest = 1
    for sizes in zip(*padded, strict=True):
        largest *= max(sizes)
    return largest <= TENSOR_SIZE_LIMIT


def drop_passive(graph: GraphProto) -> None:
    """Remove Identity and Dropout, keeping the names of graph inputs and outputs."""
    constants = initializers(graph)
    outputs = {value.name for value in graph.output}
    fixed = outputs | {value.name for value in graph.input} | set(constants)
    gone = []
    for node in graph.node:
        if not _is_passive(node, constants):
            continue
        source, target = node.input[0], node.output[0]
        if target not in outputs:
            rename_tensor(graph, target, source)
        elif source not in fixed:
            rename_tensor(graph, source, target)
        else:
            continue
        gone.append(node)
    remove_nodes(graph, gone)


def _is_passive(node: NodeProto, constants: Constants) -> bool:
    if node.op_type != "Dropout":
        return node.op_type == "Identity"
    if len(node.input) > 2 and node.input[2] and bool(constants.get(node.input[2], np.array(True)).any()):
        raise UnsupportedError(f"{describe(node)} is in training mode", hint="export after model.eval()")
    return True


def split_gemm(graph: GraphProto) -> None:
    """Gemm as (Transpose,) MatMul, (Mul,) Add: also where its bias is missing."""
    constants = initializers(graph)
    replace_nodes(graph, lambda node: _gemm(graph, node, constants) if node.op_type == "Gemm" else [node])


def _gemm(graph: GraphProto, node: NodeProto, constants: Constants) -> list[NodeProto]:
    options = attributes(node)
    if options.get("transA"):
        raise UnsupportedError(
            f"{describe(node)} transposes its first operand, batch axis included (transA=1)",
            allowed="transA=0",
        )
    nodes: list[NodeProto] = []
    right = node.input[1]
    if options.get("transB"):
        right = _append(graph, nodes, "Transpose", [right], f"{node.name}_transposed", perm=[1, 0])
    alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
    has_bias = len(node.input) > 2 and node.input[2] != "" and beta != 0.0
    product = f"{node.name}_product" if has_bias or alpha != 1.0 else node.name
    result = _append(graph, nodes, "MatMul", [node.input[0], right], product)
    result = _scale(graph, nodes, result, alpha, f"{node.name}_alpha" if has_bias else node.name)
    if has_bias:
        bias = _scale(graph, nodes, node.input[2], beta, f"{node.name}_beta")
        _append(graph, nodes, "Add", [result, bias], node.name)
    nodes[-1].output[0] = node.output[0]
    return nodes


def _append(
    graph: GraphProto, nodes: list[NodeProto], op: str, inputs: list[str], name: str, **options: Any
) -> str:
    output = fresh_name(graph, name)
    nodes.append(helper.make_node(op, inputs, [output], name=name, **options))
    return output


def _scale(graph: GraphProto, nodes: list[NodeProto], tensor: str, factor: float, name: str) -> str:
    if factor == 1.0:
        return tensor
    stored = add_initializer(graph, f"{name}_factor", np.array(factor, dtype=np.float32))
    return _append(graph, nodes, "Mul", [tensor, stored], name)


def fold_transposed_quantizers(graph: GraphProto) -> None:
    """Transpose of a quantised constant: the constant and its parameters are stored transposed."""
    constants = initializers(graph)
    quantizers = {
        node.output[0]: node
        for node in graph.node
        if node.op_type in QUANTIZERS and all(name in constants for name in node.input if name)
    }

    def rewrite(node: NodeProto) -> list[NodeProto]:
        if node.op_type == "Transpose" and node.input[0] in quantizers:
            return [_transposed(graph, node, quantizers[node.input[0]], constants)]
        return [node]

    replace_nodes(graph, rewrite)
    read = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    remove_nodes(graph, [node for output, node in quantizers.items() if output not in read])


def _transposed(
    graph: GraphProto, transpose: NodeProto, quantizer: NodeProto, constants: Constants
) -> NodeProto:
    rank = constants[quantizer.input[0]].ndim
    perm = attributes(transpose).get("perm") or list(range(rank))[::-1]
    folded = NodeProto()
    folded.CopyFrom(quantizer)
    folded.name, folded.output[0] = transpose.name, transpose.output[0]
    for index, name in enumerate(quantizer.input):
        if name and constants[name].ndim == rank:
            folded.input[index] = add_initializer(
                graph, f"{name}_transposed", constants[name].transpose(perm)
            )
    return folded
