"""Damage to ONNX models: of protobuf fields, of what they mean to ONNX and QONNX, and of raw bytes.

Every mutation changes a model in place and says what it did; None where the model has nothing for it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import (
    AttributeProto,
    FunctionProto,
    ModelProto,
    NodeProto,
    StringStringEntryProto,
    TensorAnnotation,
    TensorProto,
    helper,
    numpy_helper,
)

Chance = random.Random
Mutation = Callable[[ModelProto, Chance], str | None]

INTEGERS = (
    0, 1, -1, 2, 3, 5, 7, 16, 63, 64, 127, 255, 256, 1000, 65536, 10**6, 10**9, 2**31 - 1, 2**31, -(2**31),
    2**32, 2**53, 10**12, 2**62, 2**63 - 1, -(2**63),
)  # fmt: skip
FLOATS = (
    0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 3.0, 0.1, 1e-3, 255.0, 1e-38, 1e-40, 1.4e-45, 3.4e38, -3.4e38, 1e30,
    2.0**-126, 2.0**100, math.inf, -math.inf, math.nan,
)  # fmt: skip
TEXTS = (
    "", " ", "x", "0", "conv", "größe 重み", "a\nb", "a\0b", "\x1b[31m", "../../x", "'; rm -rf x;'",
    '"quoted"', "%s%n", "{}", "*", "ai.onnx", "qonnx.custom_op.general", "qhw.onnx_ops", "os", "n" * 5000,
    "n" * 100_000, "\u202e", "\N{ZERO WIDTH SPACE}", "[" * 3000,
)  # fmt: skip
BAD_BYTES = (b"\xff\xfe", b"\x80", b"a\xc3", b"\0", b"\xed\xa0\x80")
"""Not UTF-8, which protobuf's own setters refuse: they are patched into the serialised model."""

OPERATORS = (
    "Conv", "MatMul", "Gemm", "Add", "Mul", "Sub", "Div", "Relu", "Sigmoid", "Tanh", "Exp", "Log", "Sqrt",
    "Pow", "Erf", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean",
    "ReduceSum", "ReduceMax", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Concat", "Split",
    "Slice", "Gather", "Pad", "Resize", "Upsample", "ConvTranspose", "DepthToSpace", "SpaceToDepth",
    "Softmax", "ArgMax", "TopK", "BatchNormalization", "InstanceNormalization", "LayerNormalization",
    "Cast", "Shape", "Expand", "Tile", "Range", "ConstantOfShape", "Constant", "Identity", "Dropout",
    "Where", "Equal", "If", "Loop", "Scan", "Einsum", "QuantizeLinear", "DequantizeLinear", "Quant",
    "BipolarQuant", "Trunc", "FloatQuant", "IntQuant", "MultiThreshold", "FixedQuant", "FormatQuant",
    "XnorPopcountMatMul", "Im2Col", "LSTM", "NonZero", "OneHot", "StringNormalizer", "Nothing",
)  # fmt: skip
DOMAINS = (
    "", "ai.onnx", "ai.onnx.ml", "qonnx.custom_op.general", "qonnx.custom_op.channels_last", "qhw.onnx_ops",
    "onnx.brevitas", "finn.custom_op.general", "com.microsoft", "os", "nobody", "a.b.c",
)  # fmt: skip
ATTRIBUTES = (
    "kernel_shape", "strides", "pads", "dilations", "group", "axis", "axes", "perm", "to", "alpha", "beta",
    "mode", "signed", "narrow", "rounding_mode", "auto_pad", "ceil_mode", "count_include_pad", "keepdims",
    "transB", "output_padding", "value", "value_float", "allowzero", "blocksize", "format", "width",
    "integer", "overflow", "out_dtype", "out_scale", "out_bias", "data_layout", "epsilon", "num_outputs",
    "split", "storage_order",
)  # fmt: skip
SIZES = (0, 1, 2, 3, 7, -1, -2, 64, 10**5, 2**31, 2**40, 2**62)
KINDS = tuple(TensorProto.DataType.values())


def mutated(model: ModelProto, chance: Chance) -> tuple[bytes, str]:
    """A model with one to three pieces of damage, serialised, and what they are."""
    told = []
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        for _ in range(20):
            done = chance.choices(MUTATIONS, WEIGHTS)[0](model, chance)
            if done:
                told.append(done)
                break
    content = model.SerializeToString()
    if chance.random() < 0.1:
        content, done = damaged_bytes(content, chance)
        told.append(done)
    elif chance.random() < 0.06:
        content, done = with_bad_text(model, content, chance)
        told.append(done)
    return content, "; ".join(told)


# --- raw bytes ---


def damaged_bytes(content: bytes, chance: Chance) -> tuple[bytes, str]:
    """Flipped bits, changed bytes, a cut, a part twice, a part of zeros."""
    data = bytearray(content)
    if not data:
        return b"\0", "one byte of nothing"
    at = chance.randrange(len(data))
    kind = chance.choice(["flip", "flip", "byte", "cut", "twice", "drop", "zeros", "insert"])
    length = chance.choice([1, 2, 8, 64])
    if kind == "flip":
        for _ in range(chance.choice([1, 1, 2, 8])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    elif kind == "byte":
        data[at] = chance.choice([0, 1, 0x7F, 0x80, 0xFF])
    elif kind == "cut":
        del data[at:]
    elif kind == "twice":
        data[at:at] = data[at : at + length]
    elif kind == "drop":
        del data[at : at + length]
    elif kind == "zeros":
        data[at : at + length] = bytes(len(data[at : at + length]))
    else:
        data[at:at] = chance.randbytes(length)
    return bytes(data), f"bytes: {kind} at {at}"


def with_bad_text(model: ModelProto, content: bytes, chance: Chance) -> tuple[bytes, str]:
    """A name in the serialised model replaced by bytes of the same number that are not UTF-8."""
    names = [name for node in model.graph.node for name in (node.name, *node.output, *node.input)]
    names = [name.encode() for name in names if len(name.encode()) > 2]
    if not names:
        return content, "no name"
    name = chance.choice(names)
    bad = (chance.choice(BAD_BYTES) * len(name))[: len(name)]
    count = chance.choice([1, -1])
    return content.replace(name, bad, count), f"bytes: {name[:40]!r} is {bad[:8]!r}"


# --- any field of any message ---


def any_field(model: ModelProto, chance: Chance) -> str | None:
    """One field of one message, whatever it is for."""
    message, field = chance.choice(list(_fields(model)))
    where = f"{message.DESCRIPTOR.name}.{field.name}"
    if _repeated(field):
        return f"{where}: {_changed_list(getattr(message, field.name), field, chance)}"
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        message.ClearField(field.name)
        return f"{where}: left out"
    value = _value(field, chance)
    setattr(message, field.name, value)
    return f"{where}: {str(value)[:40]!r}"


def _fields(message: Message) -> list[tuple[Message, FieldDescriptor]]:
    """Every field that is set, of a message and those within it; tensors' own numbers once each."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for part in value if _repeated(field) else (value,):
                found += _fields(part)
    return found


def _repeated(field: FieldDescriptor) -> bool:
    if hasattr(field, "is_repeated"):
        return bool(field.is_repeated)
    return bool(field.label == FieldDescriptor.LABEL_REPEATED)  # before protobuf 6


def _value(field: FieldDescriptor, chance: Chance) -> Any:
    """Another value of a field's type."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return chance.choice(TEXTS)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return chance.choice([b"", b"\xff" * 7, chance.randbytes(64), b"NOTSET", b"\0" * 100])
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return chance.choice(FLOATS)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return chance.choice([v.number for v in field.enum_type.values])
    wide = field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)
    low = 0 if field.type in (FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_UINT32) else -(2**31)
    return chance.choice([n for n in INTEGERS if (wide and n >= min(low, 0)) or low <= n < 2**31])


def _changed_list(values: Any, field: FieldDescriptor, chance: Chance) -> str:
    at = chance.randrange(len(values)) if len(values) else 0
    is_message = field.type == FieldDescriptor.TYPE_MESSAGE
    kind = chance.choice(["drop", "twice", "clear", "shuffle", "change"])
    kept = list(values)
    if kind == "drop" and kept:
        del values[at]
    elif kind == "twice" and kept:
        values.extend([kept[at]])
    elif kind == "clear":
        del values[:]
    elif kind == "shuffle":
        chance.shuffle(kept)
        del values[:]
        values.extend(kept)
    elif not is_message:
        values[at:at] = [_value(field, chance)]
    return f"{kind} {at}"


# --- what fields mean ---


def _node(model: ModelProto, chance: Chance) -> NodeProto | None:
    return chance.choice(model.graph.node) if model.graph.node else None


def _tensors(model: ModelProto) -> list[TensorProto]:
    held = [a.t for n in model.graph.node for a in n.attribute if a.type == AttributeProto.TENSOR]
    return [*model.graph.initializer, *held]


def _constant(model: ModelProto, chance: Chance, largest: int = 1 << 40) -> TensorProto | None:
    """A constant of at most so many numbers."""
    small = [t for t in _tensors(model) if math.prod(t.dims) <= largest]
    return chance.choice(small) if small else None


def _array(tensor: TensorProto) -> np.ndarray[Any, Any] | None:
    """A constant's numbers; None where an earlier mutation has damaged it."""
    try:
        array = numpy_helper.to_array(tensor)
        return array.copy() if array.dtype.kind in "biuf" else None
    except Exception:  # whatever NumPy and protobuf say
        return None


def _stored(tensor: TensorProto, array: np.ndarray[Any, Any]) -> None:
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def attribute_value(model: ModelProto, chance: Chance) -> str | None:
    """One attribute's value: the extremes of its type, lists of other lengths."""
    node = _node(model, chance)
    if node is None or not node.attribute:
        return None
    a = chance.choice(node.attribute)
    if a.type == AttributeProto.INT:
        a.i = chance.choice(INTEGERS)
    elif a.type == AttributeProto.FLOAT:
        a.f = chance.choice(FLOATS)
    elif a.type == AttributeProto.STRING:
        a.s = chance.choice([b"\xff\xfe", b"", *(text.encode() for text in TEXTS)])
    elif a.type == AttributeProto.INTS:
        a.ints[:] = _changed_integers(list(a.ints), chance)
    else:
        return None
    return f"{node.op_type}.{a.name} is {str(helper.get_attribute_value(a))[:60]}"


def _changed_integers(values: list[int], chance: Chance) -> list[int]:
    kind = chance.choice(["one", "one", "one", "longer", "shorter", "all", "negated", "reversed"])
    if kind == "one" and values:
        values[chance.randrange(len(values))] = chance.choice(INTEGERS)
    elif kind == "longer":
        values = [*values, chance.choice(INTEGERS)]
    elif kind == "shorter":
        values = values[:-1]
    elif kind == "all":
        values = [chance.choice(SIZES)] * len(values)
    elif kind == "negated":
        values = [-v - 1 for v in values]
    else:
        values = values[::-1]
    return values


def attribute_type(model: ModelProto, chance: Chance) -> str | None:
    """An attribute of another type, with or without a value of it."""
    node = _node(model, chance)
    if node is None or not node.attribute:
        return None
    at = chance.randrange(len(node.attribute))
    name = node.attribute[at].name
    if chance.random() < 0.4:
        node.attribute[at].type = chance.choice(AttributeProto.AttributeType.values())
        return f"{node.op_type}.{name} says type {node.attribute[at].type}"
    node.attribute[at].CopyFrom(_attribute(name, chance))
    return f"{node.op_type}.{name} is a {node.attribute[at].type}"


def _attribute(name: str, chance: Chance) -> AttributeProto:
    graph = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "inner", [], [])
    tensor = numpy_helper.from_array(np.arange(chance.choice([0, 1, 6]), dtype=np.float32), "t")
    values = [
        chance.choice(INTEGERS), chance.choice(FLOATS), chance.choice(TEXTS),
        [chance.choice(INTEGERS) for _ in range(chance.choice([1, 2, 4]))],
        [chance.choice(FLOATS), 1.0], ["a", "b"], tensor, graph,
    ]  # fmt: skip
    return helper.make_attribute(name, chance.choice(values))


def attribute_set(model: ModelProto, chance: Chance) -> str | None:
    """An attribute left out, given twice, or one that the operator does not have (or has by default)."""
    node = _node(model, chance)
    if node is None:
        return None
    kind = chance.choice(["drop", "twice", "new", "new", "rename"])
    if kind == "new":
        node.attribute.append(_attribute(chance.choice(ATTRIBUTES), chance))
        return f"{node.op_type} gets {node.attribute[-1].name}, a {node.attribute[-1].type}"
    if not node.attribute:
        return None
    at = chance.randrange(len(node.attribute))
    name = node.attribute[at].name
    if kind == "drop":
        del node.attribute[at]
    elif kind == "twice":
        node.attribute.extend([node.attribute[at]])
    else:
        node.attribute[at].name = chance.choice(ATTRIBUTES)
    return f"{node.op_type}.{name}: {kind}"


def numbers(model: ModelProto, chance: Chance) -> str | None:
    """Some numbers of a constant: NaN, infinite, tiny, huge, not whole, zero, negative."""
    tensor = _constant(model, chance)
    array = None if tensor is None else _array(tensor)
    if tensor is None or array is None or not array.size:
        return None
    value = chance.choice(INTEGERS if array.dtype.kind in "iu" else FLOATS)
    where = chance.choice(["one", "all", "scaled"])
    with np.errstate(all="ignore"):
        if where == "one":
            array.flat[chance.randrange(array.size)] = np.asarray(value).astype(array.dtype)
        elif where == "all":
            array[...] = np.asarray(value).astype(array.dtype)
        else:
            array = (array * np.asarray(value)).astype(array.dtype)
    _stored(tensor, array)
    return f"constant {tensor.name[:40]}: {where} {value}"


def parameters(model: ModelProto, chance: Chance) -> str | None:
    """A scale, zero point or width of a quantizer: another number, another shape, per channel, empty."""
    quantizers = [
        n for n in model.graph.node if "Quant" in n.op_type or "Quantize" in n.op_type or n.op_type == "Trunc"
    ]
    if not quantizers:
        return None
    node = chance.choice(quantizers)
    by_name = {t.name: t for t in model.graph.initializer}
    found = [(i, by_name[name]) for i, name in enumerate(node.input) if i and name in by_name]
    if not found:
        return None
    index, tensor = chance.choice(found)
    array = _array(tensor)
    if array is None:
        return None
    first = array.flat[0] if array.size else 1
    values: list[Any] = [
        np.asarray(chance.choice(FLOATS if array.dtype.kind == "f" else INTEGERS[:14])),
        np.full(chance.choice([1, 2, 3, 8]), first),
        np.full((1,) * chance.choice([1, 2, 4, 9]), first),
        np.full((1, chance.choice([2, 3, 4]), 1, 1), first),
        np.zeros(0), np.asarray(chance.uniform(-2, 40)), np.asarray(float(chance.randrange(0, 40))),
    ]  # fmt: skip
    with np.errstate(all="ignore"):
        new = chance.choice(values).astype(array.dtype)
    name = f"{tensor.name}_changed{len(model.graph.initializer)}"
    model.graph.initializer.append(numpy_helper.from_array(new, name))
    node.input[index] = name
    return f"{node.op_type} input {index}: {new.shape} {new.flat[0] if new.size else ''}"


def tensor_header(model: ModelProto, chance: Chance) -> str | None:
    """A constant's shape, type or data, so that they may not fit each other."""
    tensor = _constant(model, chance)
    if tensor is None:
        return None
    kind = chance.choice(["dims", "dims", "type", "raw", "field", "reshape", "external"])
    if kind == "dims":
        tensor.dims[:] = _changed_integers(list(tensor.dims), chance)
    elif kind == "type":
        tensor.data_type = chance.choice(KINDS)
    elif kind == "raw":
        raw = tensor.raw_data
        tensor.raw_data = chance.choice([raw[:-1], raw + b"\0", b"", raw * 2, raw[: len(raw) // 2]])
    elif kind == "field":
        tensor.float_data.extend([1.0] * chance.choice([1, 3, 100]))
        if chance.random() < 0.5:
            tensor.ClearField("raw_data")
    elif kind == "reshape":
        array = _array(tensor)
        if array is None:
            return None
        shapes = [array.reshape(-1), array.reshape(1, *array.shape), array.T, array.reshape(*array.shape, 1)]
        _stored(tensor, np.ascontiguousarray(chance.choice(shapes)))
    else:
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.append(StringStringEntryProto(key="location", value="/etc/hostname"))
    return f"constant {tensor.name[:40]}: {kind} {list(tensor.dims)[:6]} of type {tensor.data_type}"


def renamed(model: ModelProto, chance: Chance) -> str | None:
    """A tensor or a node of another name, everywhere or in one place."""
    names = sorted({name for n in model.graph.node for name in (*n.input, *n.output)} - {""})
    if not names:
        return None
    old, new = chance.choice(names), chance.choice([*TEXTS, *names])
    if chance.random() < 0.3:
        node = _node(model, chance)
        assert node is not None
        node.name = new
        return f"node of name {new[:30]!r}"
    everywhere = chance.random() < 0.6
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = new if value.name == old else value.name
    for node in graph.node:
        for side in (node.input, node.output):
            for index, name in enumerate(side):
                if name == old and (everywhere or chance.random() < 0.4):
                    side[index] = new
    for note in graph.quantization_annotation:
        note.tensor_name = new if note.tensor_name == old else note.tensor_name
    return f"{old[:30]!r} is called {new[:30]!r}"


def operator(model: ModelProto, chance: Chance) -> str | None:
    """A node of another operator or domain; another opset."""
    node = _node(model, chance)
    if node is None:
        return None
    kind = chance.choice(["op", "op", "domain", "both", "opset", "opsets"])
    if kind in ("op", "both"):
        node.op_type = chance.choice(OPERATORS)
    if kind in ("domain", "both"):
        node.domain = chance.choice(DOMAINS)
    if kind == "opset" and model.opset_import:
        chance.choice(model.opset_import).version = chance.choice([*range(0, 27), -1, 2**31, 2**63 - 1])
    if kind == "opsets":
        model.opset_import.append(helper.make_opsetid(chance.choice(DOMAINS), chance.randrange(0, 30)))
    return f"{kind}: {node.domain} {node.op_type}"


def wiring(model: ModelProto, chance: Chance) -> str | None:
    """Edges: swapped, replaced, left out, added, to itself, backwards."""
    node = _node(model, chance)
    if node is None or not node.input:
        return None
    at = chance.randrange(len(node.input))
    names = [name for n in model.graph.node for name in (*n.input, *n.output)]
    kind = chance.choice(["other", "other", "swap", "drop", "empty", "add", "self", "output", "outputs"])
    if kind == "other":
        node.input[at] = chance.choice(names)
    elif kind == "swap":
        node.input[:] = list(node.input)[::-1]
    elif kind == "drop":
        del node.input[at]
    elif kind == "empty":
        node.input[at] = ""
    elif kind == "add":
        node.input.append(chance.choice(names))
    elif kind == "self" and node.output:
        node.input[at] = node.output[0]
    elif kind == "output" and node.output:
        node.output[0] = chance.choice(["", *names])
    elif kind == "outputs":
        node.output.append(chance.choice(["", "more", *names]))
    return f"{node.op_type} input {at}: {kind}"


def nodes(model: ModelProto, chance: Chance) -> str | None:
    """A node left out, given twice, or moved."""
    found = model.graph.node
    if not found:
        return None
    at, kind = chance.randrange(len(found)), chance.choice(["drop", "twice", "fresh", "reverse", "bypass"])
    node = NodeProto()
    node.CopyFrom(found[at])
    if kind == "drop":
        del found[at]
    elif kind == "twice":
        found.append(node)
    elif kind == "fresh":
        node.output[:] = [f"{name}_again" for name in node.output]
        found.append(node)
        if node.output:
            model.graph.output.append(helper.make_tensor_value_info(node.output[0], TensorProto.FLOAT, None))
    elif kind == "reverse":
        kept = list(found)[::-1]
        del found[:]
        found.extend(kept)
    elif node.input and node.output:
        for other in found:
            other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
    return f"{node.op_type}: {kind}"


def values(model: ModelProto, chance: Chance) -> str | None:
    """An input's, output's or inner tensor's stated shape and type."""
    graph = model.graph
    value = chance.choice([*graph.input, *graph.input, *graph.output, *graph.value_info] or [None])
    if value is None:
        return None
    kind = value.type.tensor_type
    what = chance.choice(["size", "size", "symbol", "type", "rank", "none", "sequence", "new"])
    if what == "size" and kind.shape.dim:
        chance.choice(kind.shape.dim).dim_value = chance.choice(SIZES)
    elif what == "symbol" and kind.shape.dim:
        chance.choice(kind.shape.dim).dim_param = chance.choice(["N", "", "x" * 5000])
    elif what == "type":
        kind.elem_type = chance.choice(KINDS)
    elif what == "rank":
        kind.shape.dim.add().dim_value = chance.choice(SIZES)
    elif what == "none":
        kind.ClearField("shape")
    elif what == "sequence":
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1
    else:
        names = [name for n in graph.node for name in n.output] or ["y"]
        shape = [chance.choice(SIZES) for _ in range(chance.randrange(5))]
        info = helper.make_tensor_value_info(chance.choice(names), chance.choice([1, 1, 7, 2]), shape)
        chance.choice([graph.value_info, graph.output, graph.input]).append(info)
    return f"{value.name[:30]}: {what}"


def annotation(model: ModelProto, chance: Chance) -> str | None:
    """What QONNX says of a tensor's integers, or the metadata of the model and of a node."""
    texts = [
        "UINT8", "INT4", "INT0", "INT65", "INT1000000", "UINT-3", "FLOAT32", "FIXED<8,3>", "FIXED<8",
        "FIXED<0,0>", "SCALEDINT<8>", "TERNARY", "BIPOLAR", "FLOAT<4,3>", "FLOAT<400,3>", *TEXTS,
    ]  # fmt: skip
    names = [value.name for value in model.graph.input] + [n.output[0] for n in model.graph.node if n.output]
    note = StringStringEntryProto(key="finn_datatype", value=chance.choice(texts))
    kind = chance.choice(["annotation", "model", "node"])
    if kind == "annotation" and names:
        given = TensorAnnotation(tensor_name=chance.choice(names), quant_parameter_tensor_names=[note])
        model.graph.quantization_annotation.append(given)
    elif kind == "model":
        keys = ("qhw.postprocessing", "qhw.heads", "qhw.formats", "x")
        entry = StringStringEntryProto(
            key=chance.choice(keys), value=chance.choice(["[]", "[1]", "{}", *TEXTS])
        )
        model.metadata_props.append(entry)
    else:
        node = _node(model, chance)
        if node is None:
            return None
        node.metadata_props.append(StringStringEntryProto(key="qhw.format", value=chance.choice(texts)))
    return f"{kind} {note.value[:30]!r}"


def huge(model: ModelProto, chance: Chance) -> str | None:
    """A constant made by a node out of few bytes, of any size."""
    constants = model.graph.initializer
    if not constants:
        return None
    old = chance.choice(constants)
    shape = [chance.choice([1, 2, 1000, 10**5, 10**6, 2**31, 2**40]) for _ in range(chance.choice([1, 2, 4]))]
    sizes = numpy_helper.from_array(np.array(shape, np.int64), f"sizes{len(constants)}")
    one = numpy_helper.from_array(np.ones((1,) * len(shape), np.float32), f"one{len(constants)}")
    op = chance.choice(["ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad"])
    if op == "ConstantOfShape":
        node = helper.make_node(op, [sizes.name], [old.name])
    elif op == "Range":
        ends = [numpy_helper.from_array(np.float32(v), f"end{v}_{len(constants)}") for v in (0, shape[0], 1)]
        constants.extend(ends)
        node = helper.make_node(op, [end.name for end in ends], [old.name])
    elif op == "Resize":
        node = helper.make_node(op, [one.name, "", "", sizes.name], [old.name], mode="nearest")
    elif op == "Pad":
        sizes = numpy_helper.from_array(np.array([*[0] * len(shape), *shape], np.int64), sizes.name)
        node = helper.make_node(op, [one.name, sizes.name], [old.name])
    else:
        node = helper.make_node(op, [one.name, sizes.name], [old.name])
    kept = [t for t in constants if t.name != old.name]
    del constants[:]
    constants.extend([*kept, sizes, one])
    model.graph.node.insert(0, node)
    return f"{op} of {shape}"


def functions(model: ModelProto, chance: Chance) -> str | None:
    """A function of the model's own in place of a node: right, calling itself, or of other operands."""
    node = _node(model, chance)
    if node is None or not node.output:
        return None
    kind = chance.choice(["right", "self", "operands", "empty", "deep"])
    inputs = [f"i{index}" for index in range(len(node.input))]
    outputs = [f"o{index}" for index in range(len(node.output))]
    inner = NodeProto()
    inner.CopyFrom(node)
    inner.input[:], inner.output[:] = inputs, outputs
    if kind == "self":
        inner.op_type, inner.domain = "Own", "own"
    if kind == "operands":
        inputs = inputs[:-1]
    body = [] if kind == "empty" else [inner]
    opsets = [helper.make_opsetid("", chance.choice([9, 13, 17, 99]))]
    model.functions.append(FunctionProto(name="Own", domain="own", input=inputs, output=outputs, node=body))
    model.functions[-1].opset_import.extend(opsets)
    for index in range(80 if kind == "deep" else 0):
        calls = [helper.make_node("Own" if not index else f"F{index - 1}", inputs, outputs, domain="own")] * 2
        more = FunctionProto(name=f"F{index}", domain="own", input=inputs, output=outputs, node=calls)
        model.functions.append(more)
    node.op_type, node.domain = "F79" if kind == "deep" else "Own", "own"
    del node.attribute[:]
    model.opset_import.append(helper.make_opsetid("own", 1))
    return f"function: {kind}"


MUTATIONS: Sequence[Mutation] = (
    any_field, attribute_value, attribute_type, attribute_set, numbers, parameters, tensor_header, renamed,
    operator, wiring, nodes, values, annotation, huge, functions,
)  # fmt: skip
WEIGHTS = (3, 4, 2, 2, 3, 4, 2.5, 1.5, 2.5, 2.5, 1.5, 2.5, 1, 0.6, 0.4)
