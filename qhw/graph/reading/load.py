"""QONNX files in: bounded, checked and in one normal form, before anything else reads them.

A model file from elsewhere is data. It is parsed without following external files, and nothing is
executed or imported on its behalf before every operator and domain in it is known: qonnx looks up a
node's domain as a Python module. :mod:`qhw.graph.reading.normal_form` says what a loaded model looks like.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper

from qhw.errors import InputError, QhwError, UnsupportedError
from qhw.graph.ir import TENSOR_SIZE_LIMIT
from qhw.graph.onnx_tools import describe
from qhw.graph.reading import channels_last
from qhw.graph.reading.draft import STANDARD, Draft
from qhw.graph.reading.explicit_forms import drop_empty_windows, write_out
from qhw.graph.reading.heads import keep_postprocessing, postprocessing_of, take_off_heads
from qhw.graph.reading.model_file import (
    STANDARD_DOMAINS,
    Source,
    check_opset,
    check_structure,
    name_nodes,
    parse,
)
from qhw.graph.reading.normal_form import (
    drop_constant_nodes,
    drop_passive,
    fold_constants,
    fold_transposed_quantizers,
    free_batch,
    split_gemm,
)
from qhw.graph.reading.operators import (
    EXACT_OPS,
    FUNCTION_OPS,
    HEAD_OPS,
    QDQ_OPS,
    QONNX_DOMAIN,
    QONNX_OPS,
    SHAPE_OPS,
    check_operators,
    check_quantised,
)
from qhw.graph.reading.opsets import raise_opset
from qhw.graph.reading.qcdq import fuse_qdq
from qhw.graph.reading.schemas import check_schemas, check_versions

log = logging.getLogger(__name__)

__all__ = ["EXACT_OPS", "FUNCTION_OPS", "Source", "load_qonnx", "postprocessing_of", "telling_damage"]

_QONNX_ALIASES = (QONNX_DOMAIN, "onnx.brevitas", "finn", "finn.custom_op.general", *STANDARD_DOMAINS)

LARGEST_INTEGER = 64
"""Bits of an annotated integer."""

_MICROSOFT = "com.microsoft"
"""ONNX Runtime's domain for QuantizeLinear and DequantizeLinear of 16 and 4 bits, before opset 21."""


def load_qonnx(source: Source) -> ModelWrapper:
    """Read a QONNX model, check it and bring it into the normal form.

    Args:
        source: a path to an ``.onnx`` file, or a model in memory (which is not changed).

    Returns:
        A model as :mod:`qhw.graph.reading.normal_form` says. What the host does behind the file's last layer
        is off it; :func:`qhw.graph.reading.heads.postprocessing_of` tells what that was.

    Raises:
        InputError: the file is missing, too large, not ONNX or broken; a number is NaN or infinite;
            a shape other than the batch is dynamic; nothing is quantised.
        UnsupportedError: an operator is not supported (named, with the supported ones).
    """
    proto = parse(source)
    with telling_damage():
        return _in_normal_form(proto)


def _state_shapes_of_constants(draft: Draft) -> None:
    """A shape and type in the model for every constant that a node reads, as qonnx expects it."""
    graph = draft.graph
    stated = {value.name for value in (*graph.input, *graph.output, *graph.value_info)}
    stored = {tensor.name: tensor for tensor in graph.initializer}
    for name in dict.fromkeys(name for node in graph.node for name in node.input):
        if name in stored and name not in stated:
            tensor = stored[name]
            graph.value_info.append(helper.make_tensor_value_info(name, tensor.data_type, tuple(tensor.dims)))


@contextlib.contextmanager
def telling_damage() -> Iterator[None]:
    """One message for whatever a damaged file makes of the values in it: protobuf checks no types.

    Raises:
        InputError: replaces any exception that is not a message for the user already.
    """
    try:
        yield
    except (QhwError, MemoryError, NameError, ImportError):  # no file makes a name unknown
        raise
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"The model is damaged: {reason}", hint="export it again") from error


def _in_normal_form(proto: ModelProto) -> ModelWrapper:
    if proto.graph.node:
        check_quantised(proto.graph)
    check_opset(proto)
    check_versions(proto)
    check_structure(proto)
    name_nodes(proto.graph)
    _settle_domains(proto)
    standard = EXACT_OPS | FUNCTION_OPS
    draft = Draft(proto)
    _sort(draft)
    draft.drop_unread()
    check_operators(draft.graph, standard | QDQ_OPS | HEAD_OPS | SHAPE_OPS)
    check_schemas(proto)
    drop_constant_nodes(draft)
    _check_inputs(draft.graph)
    _check_annotations(draft.graph)
    _check_numbers(draft)
    batch = _fix_batch(draft.graph)
    flattening = raise_opset(draft)
    channels_last.turn_windows(draft)
    _infer_and_fold(draft, batch)
    if fuse_qdq(draft):
        _infer_and_fold(draft, batch)
    channels_last.turn_channels(draft)
    split_gemm(draft)
    draft.infer()
    write_out(draft)
    drop_passive(draft)
    fold_constants(draft)
    draft.infer()
    _check_parameters(draft)
    found = take_off_heads(draft, flattening)
    fold_transposed_quantizers(draft)
    channels_last.cancel_transposes(draft)
    channels_last.absorb_into_products(draft)
    drop_passive(draft)
    draft.drop_unread()
    draft.infer()
    _check_shapes(draft)
    check_operators(draft.graph, standard)
    check_quantised(draft.graph)
    draft.import_domains()
    _state_shapes_of_constants(draft)
    # qonnx would do the same in a time that grows with the square of the nodes.
    model = ModelWrapper(draft.proto, fix_missing_initializer_valueinfo=False)
    keep_postprocessing(model, found)
    log.debug("loaded %s: %s", model.graph.name, Counter(node.op_type for node in model.graph.node))
    return model


def _settle_domains(proto: ModelProto) -> None:
    """One domain name for QONNX's operators, whatever exported them; IntQuant is Quant."""
    for node in proto.graph.node:
        if node.op_type in QONNX_OPS and node.domain in _QONNX_ALIASES:
            node.domain = QONNX_DOMAIN
            node.op_type = "Quant" if node.op_type == "IntQuant" else node.op_type
        elif node.domain in STANDARD_DOMAINS or (node.domain == _MICROSOFT and node.op_type in QDQ_OPS):
            node.domain = STANDARD
    versions = {("" if o.domain == "ai.onnx" else o.domain): o.version for o in proto.opset_import}
    brevitas = versions.pop("onnx.brevitas", 1)
    del proto.opset_import[:]
    for domain in sorted({*versions, *(node.domain for node in proto.graph.node)}):
        default = brevitas if domain == QONNX_DOMAIN else 1
        proto.opset_import.append(helper.make_opsetid(domain, versions.get(domain, default)))


_INPUT_TYPES = {
    TensorProto.FLOAT: "float32",
    TensorProto.DOUBLE: "float64",
    TensorProto.FLOAT16: "float16",
    TensorProto.BOOL: "bool",
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "uint8",
    TensorProto.INT16: "int16",
    TensorProto.UINT16: "uint16",
    TensorProto.INT32: "int32",
    TensorProto.UINT32: "uint32",
}


def _check_inputs(graph: GraphProto) -> None:
    """Inputs are floats, or integers of a width that hardware has."""
    for value in graph.input:
        kind = value.type.tensor_type.elem_type
        if kind not in _INPUT_TYPES:
            known = TensorProto.DataType.Name(kind) if kind in TensorProto.DataType.values() else str(kind)
            raise UnsupportedError(
                f"The input '{value.name}' has type {known}",
                allowed=", ".join(_INPUT_TYPES.values()),
                hint="export the model with a float32 input and a quantizer, or with uint8 pixels",
            )


def _check_annotations(graph: GraphProto) -> None:
    """Every annotation of a tensor's integers is a type that QONNX knows, and the tensor's only one."""
    counts = Counter(note.tensor_name for note in graph.quantization_annotation)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise InputError(f"The tensor '{twice[0]}' is annotated {counts[twice[0]]} times", allowed="once")
    for note in graph.quantization_annotation:
        for entry in note.quant_parameter_tensor_names:
            if entry.key == "finn_datatype" and not _is_datatype(entry.value):
                raise InputError(
                    f"The tensor '{note.tensor_name}' is annotated as {entry.value!r}",
                    allowed="QONNX's types, as in UINT8, INT4, BIPOLAR, FIXED<8,3>, FLOAT32; "
                    f"integers of 1 to {LARGEST_INTEGER} bits",
                )


def _is_datatype(name: str) -> bool:
    try:
        kind = DataType[name]
        return not name.startswith(("INT", "UINT")) or 1 <= kind.bitwidth() <= LARGEST_INTEGER
    except Exception:  # qonnx takes the text apart, and raises whatever that does
        return False


def _check_numbers(draft: Draft) -> None:
    """No NaN anywhere; infinity only where it means 'no bound' (a threshold, an edge of a Clip)."""
    for node in draft.graph.node:
        for index, name in enumerate(node.input):
            value = draft.constants.get(name)
            if value is None:
                continue
            if value.dtype.kind not in "biuf":
                raise UnsupportedError(
                    f"{describe(node)}: its constant '{name}' has type {value.dtype}",
                    allowed="floats and integers of NumPy's own types",
                )
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
    if not batches:
        raise InputError(f"The model '{graph.name}' has no input")
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


def _sort(draft: Draft) -> None:
    """Put every node behind what it reads, otherwise in the file's order."""
    if not draft.sort():
        raise InputError(f"The nodes of '{draft.graph.name}' cannot be put in order (a loop?)")


def _drop_constant_outputs(draft: Draft) -> None:
    """A model that returns its scale and bit width too (Brevitas's QuantTensor) has these as outputs.

    What is computed stays; a model that computes nothing keeps all, and is refused later.
    """
    computed = [value for value in draft.graph.output if value.name not in draft.constants]
    if computed and len(computed) < len(draft.graph.output):
        gone = [name for name in draft.outputs if name in draft.constants]
        log.info("outputs that are constants are left out: %s", ", ".join(gone))
        kept = [type(value).FromString(value.SerializeToString()) for value in computed]
        del draft.graph.output[:]
        draft.graph.output.extend(kept)


def _infer_and_fold(draft: Draft, batch: int) -> None:
    """Infer shapes and compute constants until neither finds more."""
    while True:
        free_batch(draft, batch)
        fold_constants(draft)
        _drop_constant_outputs(draft)
        drop_empty_windows(draft)
        draft.infer()
        _check_sizes(draft)
        if not fold_constants(draft):
            return


def _check_shapes(draft: Draft) -> None:
    """Every activation has a known shape of a sane size."""
    for node in draft.graph.node:
        for name in filter(None, node.output):
            draft.shape(name)
    _check_sizes(draft)


def _check_sizes(draft: Draft) -> None:
    """No shape that is known is too large: what follows counts through some."""
    for node in draft.graph.node:
        for name in filter(None, node.output):
            shape = draft.shapes.get(name, ())
            if math.prod(shape) > TENSOR_SIZE_LIMIT:
                raise InputError(
                    f"'{name}', which {describe(node)} writes, has shape {shape}",
                    allowed=f"at most {TENSOR_SIZE_LIMIT} elements",
                )


_BROADCASTING = frozenset({"Quant", "BipolarQuant", "Trunc", "FloatQuant", "FormatQuant", "FixedQuant"})
"""Quantizers whose parameters are of any shape that broadcasts to what they quantise."""


_LAST_TYPE_OF_NUMPY = TensorProto.COMPLEX128
"""ONNX's types after this one (bfloat16, 8, 4 and 2 bits) have no scalar of NumPy's own."""


def _check_parameters(draft: Draft) -> None:
    """Parameters broadcast to what they quantise, and no constant is of a type that NumPy lacks."""
    for node in draft.graph.node:
        if node.op_type in _BROADCASTING:
            _check_broadcast(draft, node)
        for name in node.input:
            if (
                name in draft.constants
                and draft.types[name] > _LAST_TYPE_OF_NUMPY
                and node.op_type not in QDQ_OPS
            ):
                raise UnsupportedError(
                    f"{describe(node)}: its constant '{name}' is of type "
                    f"{TensorProto.DataType.Name(draft.types[name])}",
                    allowed="such types behind a DequantizeLinear",
                    hint="store the constant as float32",
                )


def _check_broadcast(draft: Draft, node: NodeProto) -> None:
    shape = draft.shape(node.input[0])
    for name in filter(None, node.input[1:]):
        given = draft.shape(name)
        padded = (1,) * (len(shape) - len(given)) + given
        if len(padded) != len(shape) or any(a not in (1, b) for a, b in zip(padded, shape, strict=True)):
            raise InputError(
                f"{describe(node)} has parameters of shape {given} ('{name}') for a tensor of shape {shape}",
                allowed="one number, or numbers that broadcast to the tensor",
                hint="quantise per tensor, or along the tensor's channels (qonnx's channels-last conversion "
                "leaves scales per channel as they were: give the file from before it)",
            )
