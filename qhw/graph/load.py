"""QONNX files in: bounded, checked and cleaned, every shape inferred, before anything else reads them.

A model file from elsewhere is data. It is parsed without following external files, and nothing is
executed or imported on its behalf before every operator and domain in it is known: qonnx looks up a
node's domain as a Python module.
"""

from __future__ import annotations

import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.general import SortGraph
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.transformation.qcdq_to_qonnx import QCDQToQuant

from qhw.errors import InputError, QhwError, UnsupportedError
from qhw.graph.ir import TENSOR_SIZE_LIMIT
from qhw.graph.normal_form import (
    QUANTIZERS,
    drop_constant_nodes,
    drop_passive,
    fold_constants,
    fold_transposed_quantizers,
    free_batch,
    split_gemm,
)
from qhw.graph.onnx_tools import describe, forget_shapes, initializers, words

log = logging.getLogger(__name__)

MODEL_SIZE_LIMIT = 1 << 30
"""Bytes of a model file that are read at most."""

QONNX_DOMAIN = "qonnx.custom_op.general"
QHW_DOMAIN = "qhw.onnx_ops"
_STANDARD_DOMAINS = ("", "ai.onnx")
_QONNX_ALIASES = (QONNX_DOMAIN, "onnx.brevitas", "finn", "finn.custom_op.general", *_STANDARD_DOMAINS)
_QONNX_OPS = frozenset({"Quant", "IntQuant", "BipolarQuant", "Trunc", "MultiThreshold", "FloatQuant"})
_QHW_OPS = frozenset({"FixedQuant", "FormatQuant"})

EXACT_OPS = words(
    """
    Add AveragePool BatchNormalization Cast Clip Concat Constant Conv Div Dropout Flatten Gather Gemm
    GlobalAveragePool GlobalMaxPool Identity LeakyRelu MatMul MaxPool Mul Neg Pad PRelu ReduceMax
    ReduceMean ReduceSum Relu Reshape Slice Split Squeeze Sub Sum Transpose Unsqueeze
    """
)
"""Standard operators that exact integers can carry, where their numbers allow it."""

FUNCTION_OPS = words(
    """
    Abs Celu Elu Erf Exp Floor Gelu HardSigmoid HardSwish Log Max Min Mish Pow Reciprocal Round Selu
    Sigmoid Sign Softplus Softsign Sqrt Tanh ThresholdedRelu
    """
)
"""Element-wise functions: exact only as the table or the thresholds of the quantizer that follows."""

# Accepted in a file because cleaning removes them; what is left of them is refused.
_PASSING_OPS = frozenset({"Shape", "QuantizeLinear", "DequantizeLinear"})

Source: TypeAlias = str | Path | ModelProto | ModelWrapper


def supported_operators() -> str:
    """Every operator that a model may hold, for messages."""
    return f"{', '.join(sorted(_QONNX_OPS | _QHW_OPS))}; {', '.join(sorted(EXACT_OPS | FUNCTION_OPS))}"


def load_qonnx(source: Source) -> ModelWrapper:
    """Read a QONNX model, check it and clean it.

    Args:
        source: a path to an ``.onnx`` file, or a model in memory (which is not changed).

    Returns:
        A model with batch size 1 (Reshape nodes keep any batch), every shape inferred, constants folded
        (quantizers of constants stay), Constant nodes turned into initializers, Identity and Dropout
        removed, IntQuant named Quant, Gemm written as MatMul and Add, every node with a name of its own.

    Raises:
        InputError: the file is missing, too large, not ONNX or broken; a number is NaN or infinite;
            a shape other than the batch is dynamic; nothing is quantised.
        UnsupportedError: an operator is not supported (named, with the supported ones).
    """
    proto = _parse(source)
    with telling_damage():
        return _checked_and_cleaned(proto)


@contextlib.contextmanager
def telling_damage() -> Iterator[None]:
    """One message for whatever a damaged file makes of the values in it: protobuf checks no types.

    Raises:
        InputError: in place of any exception that is not a message for the user already.
    """
    try:
        yield
    except QhwError:
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"The model is damaged: {reason}", hint="export it again") from error


def _checked_and_cleaned(proto: ModelProto) -> ModelWrapper:
    _check_structure(proto)
    _name_nodes(proto.graph)
    _settle_domains(proto)
    _check_operators(proto.graph, EXACT_OPS | FUNCTION_OPS | _PASSING_OPS)
    _check_schemas(proto)
    drop_constant_nodes(proto.graph)
    _check_numbers(proto.graph)
    batch = _fix_batch(proto.graph)
    model = _infer_and_fold(ModelWrapper(proto), batch)
    if model.get_nodes_by_op_type("QuantizeLinear"):
        model = model.transform(QCDQToQuant())
        _name_nodes(model.graph)
    for rewrite in (drop_passive, split_gemm, fold_transposed_quantizers):
        rewrite(model.graph)
    forget_shapes(model.graph, [value.name for value in model.graph.output])
    model = _infer_shapes(model)
    _check_operators(model.graph, EXACT_OPS | FUNCTION_OPS)
    _check_quantised(model.graph)
    _check_shapes(model)
    log.debug("loaded %s: %s", model.graph.name, Counter(node.op_type for node in model.graph.node))
    return model


def _parse(source: Source) -> ModelProto:
    """The model as a protobuf message of its own."""
    if isinstance(source, ModelWrapper):
        source = source.model
    if isinstance(source, ModelProto):
        copy = ModelProto()
        copy.CopyFrom(source)
        return copy
    path = Path(source)
    not_onnx = InputError(
        f"'{path}' is not an ONNX file", hint="give a QONNX model, as qhw or Brevitas exports it"
    )
    try:
        size = path.stat().st_size
        if size > MODEL_SIZE_LIMIT:
            raise InputError(
                f"'{path}' has {size >> 20} MiB", allowed=f"at most {MODEL_SIZE_LIMIT >> 20} MiB"
            )
        proto: ModelProto = ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise InputError(f"The model file '{path}' cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise not_onnx from error
    if not proto.ir_version or not proto.opset_import:
        raise not_onnx
    return proto


def _check_structure(proto: ModelProto) -> None:
    """Refuse what hides content from the checks, and graphs that are not well formed."""
    graph = proto.graph
    if not graph.node:
        raise InputError(f"The model '{graph.name}' holds no nodes")
    if proto.functions:
        raise UnsupportedError(
            f"The model defines functions of its own ({proto.functions[0].name})",
            hint="inline them with onnx.inliner.inline_local_functions",
        )
    if graph.sparse_initializer:
        raise UnsupportedError("The model holds sparse constants", hint="store them densely")
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise UnsupportedError(
                f"The constant '{tensor.name}' is stored in another file",
                hint="save the model as one file (onnx.save without external data)",
            )
    version = max((o.version for o in proto.opset_import if o.domain in _STANDARD_DOMAINS), default=0)
    newest = onnx.defs.onnx_opset_version()
    if not 9 <= version <= newest:
        raise UnsupportedError(f"The model uses ONNX opset {version}", allowed=f"9 to {newest}")
    _check_wiring(graph)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


def _check_wiring(graph: GraphProto) -> None:
    """Every tensor is written once, and whatever is read is written."""
    written = {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    for node in graph.node:
        for name in filter(None, node.output):
            if name in written:
                raise InputError(f"The tensor '{name}' is written twice, the second time by {describe(node)}")
            written.add(name)
    wanted = [(name, describe(node)) for node in graph.node for name in node.input if name]
    wanted += [(output.name, "The graph's output") for output in graph.output]
    for name, reader in wanted:
        if name not in written:
            raise InputError(f"{reader} reads '{name}', which nothing writes")
    if not graph.output or not graph.input:
        raise InputError(f"The model '{graph.name}' has no {'input' if graph.output else 'output'}")


def _name_nodes(graph: GraphProto) -> None:
    """Give every node a name of its own; names that are unique already stay."""
    count = Counter(node.name for node in graph.node)
    taken = set(count)
    for index, node in enumerate(graph.node):
        if not node.name or count[node.name] > 1:
            stem = f"{node.name or node.op_type}_{index}"
            names = (stem, *(f"{stem}_{i}" for i in range(2, len(taken) + 3)))
            node.name = next(name for name in names if name not in taken)
            taken.add(node.name)


def _settle_domains(proto: ModelProto) -> None:
    """One domain name for QONNX's operators, whatever exported them; IntQuant is Quant."""
    for node in proto.graph.node:
        if node.op_type in _QONNX_OPS and node.domain in _QONNX_ALIASES:
            node.domain = QONNX_DOMAIN
            node.op_type = "Quant" if node.op_type == "IntQuant" else node.op_type
        elif node.domain in _STANDARD_DOMAINS:
            node.domain = ""
    versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    brevitas = versions.pop("onnx.brevitas", 1)
    del proto.opset_import[:]
    for domain in sorted({*versions, *(node.domain for node in proto.graph.node)}):
        default = brevitas if domain == QONNX_DOMAIN else 1
        proto.opset_import.append(helper.make_opsetid(domain, versions.get(domain, default)))


def _is_supported(node: NodeProto, standard: frozenset[str]) -> bool:
    by_domain = {QONNX_DOMAIN: _QONNX_OPS, QHW_DOMAIN: _QHW_OPS, "": standard}
    return node.op_type in by_domain.get(node.domain, ())


def _check_operators(graph: GraphProto, standard: frozenset[str]) -> None:
    wrong = [node for node in graph.node if not _is_supported(node, standard)]
    if not wrong:
        return
    first = wrong[0]
    domain = f" (domain '{first.domain}')" if first.domain else ""
    more = f"; {len(wrong) - 1} more of its nodes are not either" if len(wrong) > 1 else ""
    raise UnsupportedError(
        f"Node '{first.name}' is a {first.op_type}{domain}, which is not supported{more}",
        allowed=supported_operators(),
        hint="leave it out of the exported model, or replace it by supported operators",
    )


def _check_schemas(proto: ModelProto) -> None:
    """Attributes and inputs of the standard operators are as their ONNX schema says."""
    context = onnx.checker.C.CheckerContext()
    context.ir_version = proto.ir_version
    context.opset_imports = {opset.domain: opset.version for opset in proto.opset_import}
    for node in proto.graph.node:
        try:
            if node.domain == "":
                onnx.checker.check_node(node, context)
        except onnx.checker.ValidationError as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{describe(node)} is not valid ONNX: {reason}") from error


def _check_numbers(graph: GraphProto) -> None:
    """No NaN anywhere; infinity only where it means 'no bound' (a threshold, an edge of a Clip)."""
    readers: dict[str, list[tuple[NodeProto, int]]] = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, index))
    for name, value in initializers(graph).items():
        for node, index in readers.get(name, []):
            if value.dtype.kind not in "biuf":
                raise UnsupportedError(
                    f"{describe(node)}: its constant '{name}' has type {value.dtype}",
                    allowed="floats and integers of NumPy's own types",
                )
            _check_finite(name, value, node, index)


def _check_finite(name: str, value: NDArray[Any], node: NodeProto, index: int) -> None:
    is_bound = (node.op_type, index) in {("MultiThreshold", 1), ("Clip", 1), ("Clip", 2)}
    wrong = np.isnan(value) if is_bound else ~np.isfinite(value)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise InputError(
            f"{describe(node)}: its constant '{name}' holds {value[where]} at {where} "
            f"({int(wrong.sum())} of {value.size} numbers)",
            allowed="finite numbers",
            hint="train or export the model again",
        )


def _fix_batch(graph: GraphProto) -> int:
    """Set batch size 1 on every input; the file's own batch size (1 where it was symbolic)."""
    batches = {_fixed_batch(value) for value in graph.input}
    if len(batches) > 1:
        raise InputError(f"The inputs have different batch sizes: {', '.join(map(str, sorted(batches)))}")
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    return batches.pop()


def _fixed_batch(value: ValueInfoProto) -> int:
    dims = value.type.tensor_type.shape.dim
    if not dims:
        raise InputError(f"The input '{value.name}' has no batch axis", allowed="shapes (batch, …)")
    for axis, dim in list(enumerate(dims))[1:]:
        if dim.dim_value < 1:
            raise InputError(
                f"Axis {axis} of the input '{value.name}' is dynamic ({dim.dim_param or 'no size'})",
                allowed="a dynamic batch axis (axis 0) only",
                hint="export the model with fixed shapes",
            )
    batch = max(1, int(dims[0].dim_value))
    dims[0].dim_value = 1
    return batch


def _infer_shapes(model: ModelWrapper) -> ModelWrapper:
    try:
        return model.transform(InferShapes(), cleanup=False)
    except Exception as error:  # onnx raises types of its own, and qonnx bare ones
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"The model's shapes do not fit together: {reason}") from error


def _infer_and_fold(model: ModelWrapper, batch: int) -> ModelWrapper:
    """Infer shapes and compute constants until neither finds more."""
    try:
        model = model.transform(SortGraph())
    except Exception as error:
        raise InputError(f"The nodes of '{model.graph.name}' cannot be put in order (a loop?)") from error
    while True:
        free_batch(model.graph, batch)
        model = _infer_shapes(model)
        if not fold_constants(model):
            return model


def _check_shapes(model: ModelWrapper) -> None:
    """Every activation has a known shape of a sane size."""
    for node in model.graph.node:
        for name in filter(None, node.output):
            shape = model.get_tensor_shape(name)
            if shape is None or any(size < 1 for size in shape):
                raise InputError(
                    f"The shape of '{name}', which {describe(node)} writes, cannot be inferred",
                    hint="export the model with fixed shapes",
                )
            if int(np.prod(shape, dtype=object)) > TENSOR_SIZE_LIMIT:
                raise InputError(
                    f"'{name}', which {describe(node)} writes, has shape {tuple(shape)}",
                    allowed=f"at most {TENSOR_SIZE_LIMIT} elements",
                )


def _check_quantised(graph: GraphProto) -> None:
    if not any(node.op_type in QUANTIZERS for node in graph.node):
        raise InputError(
            f"The model '{graph.name}' holds no quantisation",
            allowed=f"models with quantizer nodes ({', '.join(sorted(QUANTIZERS))})",
            hint="quantise it with qhw.convert or Brevitas, then export it as QONNX",
        )
