"""ONNX files in: bounded, parsed without following other files, flat, and wired as a graph must be.

A model file from elsewhere is data: protobuf checks no types, text may be no text, functions may call
each other without end.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError, Message
from onnx import AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto
from qonnx.core.modelwrapper import ModelWrapper

from qhw.errors import InputError, UnsupportedError
from qhw.graph.ir import TENSOR_SIZE_LIMIT
from qhw.graph.onnx_tools import describe
from qhw.graph.reading.wire import check_parts
from qhw.outside import read_bytes, shown

MODEL_SIZE_LIMIT = 1 << 30
"""Bytes of a model file that are read at most."""

NODE_LIMIT = 1 << 18
"""Nodes that a model holds at most, its functions written out."""

NAME_LIMIT = 1 << 12
"""Characters of a name at most: names become names of files and of C++ variables."""

STANDARD_DOMAINS = ("", "ai.onnx")
OLDEST_OPSET = 9

Source: TypeAlias = str | Path | ModelProto | ModelWrapper


def parse(source: Source) -> ModelProto:
    """The model as a protobuf message of its own, functions written out, all text decoded.

    Raises:
        InputError: the file is missing, no plain file, too large, not ONNX, or its functions have no end.
    """
    return _written_out(_read(source))


def _read(source: Source) -> ModelProto:
    if isinstance(source, ModelWrapper):
        source = source.model
    if isinstance(source, ModelProto):
        copy = ModelProto()
        copy.CopyFrom(source)
        check_text(copy)
        return copy
    return read_model(Path(source))


def read_model(path: Path) -> ModelProto:
    """The message in a model file, its text decoded: no other file is followed, nothing else is checked.

    Raises:
        InputError: the file is missing, no plain file, too large, or not ONNX.
    """
    not_onnx = InputError(
        f"'{path}' is not an ONNX file", hint="give a QONNX model, as qhw or Brevitas exports it"
    )
    content = read_bytes(path, "model file", MODEL_SIZE_LIMIT)
    check_parts(content)
    try:
        proto: ModelProto = ModelProto.FromString(content)
    except DecodeError as error:
        raise not_onnx from error
    del content
    if not proto.ir_version or not proto.opset_import:
        raise not_onnx
    check_text(proto)
    return proto


def check_text(message: Message) -> None:
    """Refuse text that is no UTF-8, as ONNX asks for: protobuf gives it as bytes, which no string takes."""
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for part in value if _repeated(field) else (value,):
                check_text(part)
        elif field.type == field.TYPE_STRING:
            for text in value if _repeated(field) else (value,):
                if isinstance(text, bytes):
                    raise InputError(
                        f"The model's {field.containing_type.name} has the {field.name} {text[:80]!r}",
                        allowed="UTF-8 text",
                        hint="export the model again, with plain names",
                    )


def _repeated(field: object) -> bool:
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)  # type: ignore[attr-defined]


def check_opset(proto: ModelProto) -> None:
    """Refuse a version of ONNX's operators that is not read."""
    version = max((o.version for o in proto.opset_import if o.domain in STANDARD_DOMAINS), default=0)
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST_OPSET <= version <= newest:
        raise UnsupportedError(
            f"The model uses ONNX opset {version}",
            allowed=f"{OLDEST_OPSET} to {newest}",
            hint="export it again with opset_version=17",
        )


# --- functions of the model's own ---------------------------------------------------------------------


def _written_out(proto: ModelProto) -> ModelProto:
    """The model with every call of a function of its own replaced by the function's nodes."""
    if not proto.functions:
        return proto
    functions = {(f.domain, f.name): f for f in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    total = sum(_size(node, functions, sizes, ()) for node in proto.graph.node)
    if total > NODE_LIMIT:
        raise InputError(f"The model holds {total} nodes", allowed=f"at most {NODE_LIMIT}")
    try:
        inlined: ModelProto = onnx.inliner.inline_local_functions(proto)
    except Exception as error:  # the binding raises types of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"The functions of the model cannot be written out: {reason}") from error
    del inlined.functions[:]
    return inlined


def _size(
    node: NodeProto,
    functions: dict[tuple[str, str], FunctionProto],
    sizes: dict[tuple[str, str], int],
    callers: tuple[tuple[str, str], ...],
) -> int:
    """The nodes that a node stands for, once functions are written out."""
    key = (node.domain, node.op_type)
    function = functions.get(key)
    if function is None:
        return 1
    if key in callers or len(callers) > 64:
        raise InputError(f"The function '{node.op_type}' of the model calls itself, or others too deeply")
    if key not in sizes:
        sizes[key] = sum(_size(inner, functions, sizes, (*callers, key)) for inner in function.node)
    return sizes[key]


# --- the graph ----------------------------------------------------------------------------------------


def check_structure(proto: ModelProto) -> None:
    """Refuse what hides content from the checks, and graphs that are not well formed."""
    graph = proto.graph
    _check_names(graph)
    if not graph.node:
        raise InputError(f"The model '{graph.name}' holds no nodes")
    if len(graph.node) > NODE_LIMIT:
        raise InputError(f"The model holds {len(graph.node)} nodes", allowed=f"at most {NODE_LIMIT}")
    if graph.sparse_initializer:
        raise UnsupportedError("The model holds sparse constants", hint="store them densely")
    for tensor in _tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise UnsupportedError(
                f"The constant '{tensor.name}' is stored in another file",
                hint="save the model as one file (onnx.save without external data; "
                "torch.onnx.export(..., external_data=False))",
            )
        _check_size(tensor)
    for value in (*graph.input, *graph.output):
        if value.type.HasField("sequence_type") or value.type.HasField("map_type"):
            raise UnsupportedError(f"'{value.name}' is no tensor", allowed="tensors as inputs and outputs")
    _check_wiring(graph)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                yield attribute.t
            yield from attribute.tensors


def _check_size(tensor: TensorProto) -> None:
    """A shape of a sane size; whether the bytes fill it is found when they are read, without more memory."""
    dims = tuple(tensor.dims)
    elements = math.prod(dims)
    if min(dims, default=0) < 0 or elements > TENSOR_SIZE_LIMIT:
        raise InputError(
            f"The constant '{tensor.name}' has shape {shown(dims)}",
            allowed=f"at most {TENSOR_SIZE_LIMIT} elements",
        )


def _check_names(graph: GraphProto) -> None:
    names = [value.name for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer)]
    names += [name for node in graph.node for name in (node.name, *node.input, *node.output)]
    names += [text for node in graph.node for text in (node.op_type, node.domain)]
    names += [attribute.name for node in graph.node for attribute in node.attribute]
    names += [dim.dim_param for value in graph.input for dim in value.type.tensor_type.shape.dim]
    names.append(graph.name)
    longest = max(names, key=len)
    if len(longest) > NAME_LIMIT:
        raise InputError(
            f"The name '{longest[:40]}…' has {len(longest)} characters", allowed=f"at most {NAME_LIMIT}"
        )


def _check_wiring(graph: GraphProto) -> None:
    """Every tensor is written once, and whatever is read is written; no output is an input."""
    for name, count in Counter(value.name for value in graph.input).items():
        if count > 1:
            raise InputError(f"The input '{name}' is listed twice", hint="export the model again")
    inputs = {value.name for value in graph.input}
    for name, count in Counter(value.name for value in graph.output).items():
        if name in inputs or count > 1:
            what = "is an input of the model" if name in inputs else "is listed twice"
            raise InputError(
                f"The output '{name}' {what}", hint="leave it out of the exported model's outputs"
            )
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


def name_nodes(graph: GraphProto) -> None:
    """Give every node a name of its own; names that are unique already stay."""
    count = Counter(node.name for node in graph.node)
    taken = set(count)
    for index, node in enumerate(graph.node):
        if not node.name or count[node.name] > 1:
            stem = f"{node.name or node.op_type}_{index}"
            others = (f"{stem}_{i}" for i in itertools.count(2))
            node.name = next(name for name in itertools.chain([stem], others) if name not in taken)
            taken.add(node.name)
