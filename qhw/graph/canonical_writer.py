"""The canonical model in the making: what stands for each tensor of the original, and how nodes are added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_shapes import InferShapes

from qhw.errors import UnsupportedError
from qhw.formats import TableFormat
from qhw.graph.onnx_tools import Constants, describe, initializers, put_initializer
from qhw.graph.tail_operations import Value
from qhw.onnx_ops import DOMAIN, OPSET
from qhw.onnx_ops.float_quant import FORMAT_KEY, format_of_attribute

FORM_KEY, FORM = "qhw.form", "canonical"
"""Metadata entry that marks a canonical model."""


INTEGER_SUFFIX = "_int"


QONNX_DOMAIN = "qonnx.custom_op.general"


@dataclass(frozen=True)
class Scaled:
    """An integer tensor of the canonical model; the original's value is ``tensor * scale``.

    ``scale`` is float32, of one element or broadcasting over the tensor with its batch axis. ``format`` is
    what the integers are mantissas of, where that is a format that lists its codes.
    """

    tensor: str
    scale: Value
    low: int
    high: int
    format: TableFormat | None = None

    @property
    def uniform(self) -> bool:
        return self.scale.size == 1


@dataclass(frozen=True)
class Stored:
    """A quantised constant: integers (as float32), a scale that broadcasts over them, maybe their format."""

    name: str
    mantissas: Value
    scale: Value
    format: TableFormat | None = None

    @property
    def values(self) -> Value:
        return np.asarray(self.mantissas * self.scale, dtype=np.float32)

    @property
    def bound(self) -> int:
        return int(np.abs(self.mantissas).max(initial=0))


@dataclass(frozen=True)
class Floating:
    """A float32 tensor inside a tail.

    Args:
        moves: nodes of the original (MaxPool, Reshape…) that are carried out behind the next quantizer,
            on its integers: element-wise operations commute with them.
        rectified: the integers that this is the positive part of, if it is exactly that.
    """

    tensor: str
    moves: tuple[NodeProto, ...] = ()
    rectified: Scaled | None = None


Operand = Scaled | Stored | Floating


class Writer:
    """The canonical model in the making, and what stands for each tensor of the original."""

    def __init__(self, model: ModelWrapper):
        self.original = model
        self.constants: Constants = initializers(model.graph)
        self.operands: dict[str, Operand] = {}
        graph = helper.make_graph([], model.graph.name, model.graph.input, model.graph.output)
        self.model = ModelWrapper(helper.make_model(graph, opset_imports=_opsets(model)))
        self.model.model.ir_version = model.model.ir_version
        ends = (*model.graph.input, *model.graph.output)
        self.taken = {*self.constants, *(value.name for value in ends)}
        self.names: set[str] = set()
        self.written: Constants = {}
        self.dequantised: dict[str, str] = {}
        for name in (value.name for value in model.graph.input):
            self.operands[name] = self._graph_input(name)

    def _graph_input(self, name: str) -> Operand:
        kind = self.original.get_tensor_datatype(name)
        if not kind.is_integer():
            return Floating(name)
        self.model.set_tensor_datatype(name, kind)
        return Scaled(name, np.ones((), np.float32), int(kind.min()), int(kind.max()))

    def rank(self, tensor: str) -> int:
        """The rank of an original tensor, batch axis included."""
        return len(self.original.get_tensor_shape(tensor))

    def fresh(self, name: str) -> str:
        """A tensor name that is not taken yet."""
        if name in self.taken:
            name = next(
                f"{name}_{i}" for i in range(2, len(self.taken) + 3) if f"{name}_{i}" not in self.taken
            )
        self.taken.add(name)
        return name

    def constant(self, name: str, value: Any) -> str:
        """Store a constant, under its own name if it is the original's; the same numbers once."""
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        if name in self.written and np.array_equal(self.written[name], array):
            return name
        if name in self.written or name not in self.constants:
            name = self.fresh(name)
        self.written[name] = array
        put_initializer(self.model.graph, name, array)
        return name

    def integers(self, stored: Stored) -> str:
        """The integers of a quantised constant, stored and annotated."""
        name = self.constant(f"{stored.name}{INTEGER_SUFFIX}", stored.mantissas)
        return self.annotate(name, int(stored.mantissas.min()), int(stored.mantissas.max()), stored.format)

    def emit(self, op: str, inputs: Sequence[str], output: str, *, like: NodeProto, **options: Any) -> str:
        """Append a node that stands for ``like``; the tensor that it writes, ``output`` or close to it.

        The node that writes the integers of ``like``'s result has its name.
        """
        main = output.startswith(f"{like.output[0]}{INTEGER_SUFFIX}")
        output = self.fresh(output)
        domain = DOMAIN if op in _QHW_OPS else QONNX_DOMAIN if op in _QONNX_OPS else ""
        node = helper.make_node(op, list(inputs), [output], domain=domain, **options)
        self._append(node, like.name if main else f"{like.name}_{op.lower()}", like)
        return output

    def copy(self, node: NodeProto, inputs: Sequence[str], output: str) -> str:
        """Append a node of the original with other inputs and output."""
        moved = NodeProto()
        moved.CopyFrom(node)
        del moved.input[:], moved.output[:]
        output = self.fresh(output)
        moved.input.extend(inputs)
        moved.output.append(output)
        self._append(moved, node.name, node)
        return output

    def _append(self, node: NodeProto, name: str, like: NodeProto) -> None:
        """Append a node under a name of its own; what it stands for goes into its ``doc_string``."""
        if name in self.names:
            name = next(
                f"{name}_{i}" for i in range(2, len(self.names) + 3) if f"{name}_{i}" not in self.names
            )
        self.names.add(name)
        node.name, node.doc_string = name, like.name
        self.model.graph.node.append(node)

    def annotate(self, tensor: str, low: int, high: int, format: TableFormat | None = None) -> str:
        """Declare a tensor to hold integers, the mantissas of ``format`` if one is given."""
        self.model.set_tensor_datatype(tensor, datatype_of(low, high))
        if format is not None:
            note = next(n for n in self.model.graph.quantization_annotation if n.tensor_name == tensor)
            note.quant_parameter_tensor_names.add(key=FORMAT_KEY, value=str(format))
        return tensor

    def floating(self, name: str, like: NodeProto) -> Floating:
        """An operand as a float tensor: integers are scaled first, once."""
        operand = self.operands[name]
        if isinstance(operand, Floating):
            return operand
        assert isinstance(operand, Scaled)
        if operand.scale.size == 1 and operand.scale.reshape(-1)[0] == 1:
            return Floating(operand.tensor)
        if operand.tensor not in self.dequantised:
            target = operand.tensor.removesuffix(INTEGER_SUFFIX)
            scale = self.constant(f"{target}_scale", operand.scale)
            self.dequantised[operand.tensor] = self.emit("Mul", [operand.tensor, scale], target, like=like)
        return Floating(self.dequantised[operand.tensor])

    def scaled(self, name: str, reader: NodeProto) -> Scaled:
        """An operand as integers, for an operation that must read integers."""
        operand = self.operands.get(name)
        if isinstance(operand, Scaled):
            return operand
        if isinstance(operand, Floating) and operand.rectified is not None:
            return self._rectified(name, operand.rectified)
        raise UnsupportedError(
            f"{describe(reader)} reads '{name}', which is not quantised",
            allowed="integers of a known scale",
            hint=f"put a quantizer in front of {describe(reader)}",
        )

    def _rectified(self, name: str, source: Scaled) -> Scaled:
        producer = self.original.find_producer(name)
        tensor = self.emit("Relu", [source.tensor], f"{name}{INTEGER_SUFFIX}", like=producer)
        result = Scaled(tensor, source.scale, max(0, source.low), max(0, source.high))
        self.annotate(tensor, result.low, result.high)
        self.operands[name] = result
        return result

    def constant_values(self, name: str) -> Value | None:
        """The float32 numbers of a constant, quantised or not; None for what is computed."""
        operand = self.operands.get(name)
        if isinstance(operand, Stored):
            return operand.values
        return None if operand is not None else np.asarray(self.constants[name], dtype=np.float32)

    def stored(self, name: str, reader: NodeProto) -> Stored:
        """A constant operand as integers and scale."""
        operand = self.operands.get(name)
        if isinstance(operand, Stored):
            return operand
        value = self.constants.get(name)
        if operand is None and value is not None and (value == np.rint(value)).all():
            return Stored(name, value.astype(np.float32), np.ones((), np.float32))
        raise UnsupportedError(
            f"{describe(reader)}: '{name}' is not a quantised constant",
            hint="quantise the layer's weights (weight_quant=…)",
        )

    def finish(self) -> ModelWrapper:
        """The model: outputs written in float, nodes that nothing reads dropped, shapes inferred."""
        for output in self.original.graph.output:
            self._graph_output(output.name)
        _drop_dead(self.model)
        self.model.set_metadata_prop(FORM_KEY, FORM)
        return self.model.transform(InferShapes(), cleanup=False)

    def _graph_output(self, name: str) -> None:
        value = self.floating(name, self.original.find_producer(name))
        if value.moves:
            raise UnsupportedError(
                f"{describe(value.moves[0])} moves numbers that are not quantised, to the output '{name}'",
                hint="quantise the output",
            )
        identity = helper.make_node("Identity", [value.tensor], [name], name=f"{name}_output")
        self.model.graph.node.append(identity)


_QONNX_OPS = frozenset({"Quant", "BipolarQuant", "MultiThreshold"})
_QHW_OPS = frozenset({"FixedQuant", "FormatQuant"})


def annotated_formats(model: ModelWrapper) -> dict[str, TableFormat]:
    """The formats of a canonical model's integer tensors that are mantissas of one that lists its codes."""
    return {
        note.tensor_name: format_of_attribute(f"tensor '{note.tensor_name}'", {"format": entry.value})
        for note in model.graph.quantization_annotation
        for entry in note.quant_parameter_tensor_names
        if entry.key == FORMAT_KEY
    }


def _opsets(model: ModelWrapper) -> list[Any]:
    versions = {opset.domain: opset.version for opset in model.model.opset_import}
    versions.setdefault(QONNX_DOMAIN, 1)
    versions.setdefault(DOMAIN, OPSET)
    return [helper.make_opsetid(domain, version) for domain, version in sorted(versions.items())]


def datatype_of(low: int, high: int) -> DataType:
    if low >= 0:
        return DataType[f"UINT{max(1, high.bit_length())}"]
    return DataType[f"INT{max(high.bit_length(), (-low - 1).bit_length()) + 1}"]


def _drop_dead(model: ModelWrapper) -> None:
    """Remove nodes and constants that no output depends on."""
    wanted = {value.name for value in model.graph.output}
    kept = []
    for node in reversed(model.graph.node):
        if wanted.intersection(node.output):
            wanted.update(node.input)
            kept.append(node)
    constants = [tensor for tensor in model.graph.initializer if tensor.name in wanted]
    notes = [note for note in model.graph.quantization_annotation if note.tensor_name in wanted]
    for field, rest in (("node", kept[::-1]), ("initializer", constants), ("quantization_annotation", notes)):
        model.graph.ClearField(field)
        getattr(model.graph, field).extend(rest)
