"""A model while it is rewritten: its nodes, constants, element types and shapes, and names of its own."""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from qhw.errors import InputError, UnsupportedError
from qhw.graph.onnx_tools import Constants, describe

STANDARD = ""
"""The domain of ONNX's own operators."""

_LARGE = 1 << 10
"""Elements from which a constant enters shape inference as a shape alone: no shape is stored in it."""

_QUANTISING = frozenset({"Cast", "Clip", "DequantizeLinear", "Identity", "QuantizeLinear"})
_ELEMENTWISE = frozenset(
    {"Abs", "Add", "Div", "Max", "Min", "Mul", "Neg", "Pow", "Relu", "Sign", "Sub", "Tanh"}
)
"""Operators allowed between a stored weight and its convolution, besides Transpose and Reshape."""

Rewrite = Callable[[NodeProto], "list[NodeProto] | None"]


class Draft:
    """A model in the making.

    ``constants`` holds every initializer as a NumPy array: integers of 4 bits and less as int8, floats of
    8 bits and less as float32; ``stored`` counts the numbers that the file has, ``computed`` those that were
    computed from them. ``types`` says the element type that the file stored. ``shapes`` and
    ``types`` are as of the last :meth:`infer`.
    """

    def __init__(self, proto: ModelProto):
        self.proto = proto
        self.graph: GraphProto = proto.graph
        self.types: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.constants: Constants = {}
        for tensor in self.graph.initializer:
            self._note(tensor)
        self.stored = self.computed = 0
        self._taken = self._names()

    def _note(self, tensor: TensorProto) -> None:
        try:
            self.constants[tensor.name] = plain_array(tensor)
        except Exception as error:  # whatever NumPy and protobuf say about bytes that do not fit
            known = TensorProto.DataType.values()
            kind = (
                TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in known else "no known type"
            )
            raise InputError(
                f"The constant '{tensor.name}' is damaged: {kind}, shape {tuple(tensor.dims)} ({error})",
                hint="export the model again",
            ) from error
        self.types[tensor.name] = tensor.data_type

    def _names(self) -> set[str]:
        graph = self.graph
        values = {value.name for value in (*graph.input, *graph.output)} | set(self.constants)
        return values | {name for node in graph.node for name in (*node.input, *node.output, node.name)}

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        return next(int(o.version) for o in self.proto.opset_import if o.domain == STANDARD)

    @property
    def inputs(self) -> list[str]:
        return [value.name for value in self.graph.input]

    @property
    def outputs(self) -> list[str]:
        return [value.name for value in self.graph.output]

    def producers(self) -> dict[str, NodeProto]:
        """The node that writes each tensor."""
        return {name: node for node in self.graph.node for name in node.output if name}

    def readers(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each tensor, in order."""
        found: dict[str, list[NodeProto]] = {}
        for node in self.graph.node:
            for name in dict.fromkeys(filter(None, node.input)):
                found.setdefault(name, []).append(node)
        return found

    def fresh(self, stem: str) -> str:
        """A name that no tensor and no node has yet: ``stem``, or ``stem_2`` …"""
        name, count = stem, 1
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name

    def constant(self, stem: str, value: NDArray[Any] | np.generic | Sequence[int]) -> str:
        """Store a constant under a name of its own; whole numbers in a list become int64."""
        array = np.asarray(value, dtype=None if isinstance(value, np.ndarray | np.generic) else np.int64)
        name = self.fresh(stem)
        self.put(name, array)
        return name

    def put(self, name: str, value: NDArray[Any]) -> None:
        """Store a constant under a name that nothing writes any more."""
        contiguous = np.ascontiguousarray(value).reshape(
            value.shape
        )  # ascontiguousarray makes 0-d arrays 1-d
        tensor = numpy_helper.from_array(contiguous, name)
        self.graph.initializer.append(tensor)
        self._taken.add(name)
        self._note(tensor)
        self.shapes[name] = tuple(value.shape)

    def put_tensor(self, name: str, tensor: TensorProto) -> None:
        """Store a tensor of any element type under a name that nothing writes any more."""
        stored = self.graph.initializer.add()
        stored.CopyFrom(tensor)
        stored.name = name
        self._taken.add(name)
        self._note(stored)

    def node(
        self,
        like: NodeProto,
        op: str,
        inputs: Sequence[str],
        output: str = "",
        *,
        suffix: str = "",
        **options: Any,
    ) -> NodeProto:
        """A standard node that stands for ``like`` or a part of it.

        Args:
            output: the tensor that it writes; a new one, called after ``like`` and ``suffix``, if empty.
            suffix: appended to ``like``'s name; without one, the node has that name.
        """
        name = self.fresh(f"{like.name}{suffix}") if suffix else like.name
        made = helper.make_node(op, inputs, [output or self.fresh(f"{name}_out")], name=name, **options)
        made.doc_string = like.doc_string
        made.metadata_props.extend(like.metadata_props)
        return made

    def rewrite(self, change: Rewrite) -> bool:
        """Put what ``change`` makes of each node in its place (None leaves it); whether anything changed."""
        nodes: list[NodeProto] = []
        changed = False
        for node in list(self.graph.node):
            made = change(node)
            changed |= made is not None
            nodes += [node] if made is None else made
        if changed:
            del self.graph.node[:]
            self.graph.node.extend(nodes)
        return changed

    def remove(self, gone: Iterable[NodeProto]) -> None:
        """Take nodes out, by name."""
        names = {node.name for node in gone}
        self.rewrite(lambda node: [] if node.name in names else None)

    def bypass(self, renamed: Mapping[str, str]) -> None:
        """Let every reader of a tensor read another one instead."""

        def final(name: str) -> str:
            while name in renamed:
                name = renamed[name]
            return name

        for node in self.graph.node:
            for index, name in enumerate(node.input):
                if name in renamed:
                    node.input[index] = final(name)

    def rename(self, old: str, new: str) -> None:
        """Let every node that writes or reads ``old`` use ``new``."""
        for node in self.graph.node:
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name == old:
                        names[index] = new

    def sort(self) -> bool:
        """Put every node behind what it reads, otherwise as they stand; False if there is a loop."""
        given = list(self.graph.node)
        writers = {name: i for i, node in enumerate(given) for name in node.output if name}
        needs = [{writers[name] for name in node.input if name in writers} for node in given]
        readers: list[list[int]] = [[] for _ in given]
        for index, sources in enumerate(needs):
            for source in sources:
                readers[source].append(index)
        missing = [len(sources) for sources in needs]
        ready = [index for index, count in enumerate(missing) if not count]
        nodes = []
        while ready:
            index = heapq.heappop(ready)
            nodes.append(given[index])
            for reader in readers[index]:
                missing[reader] -= 1
                if not missing[reader]:
                    heapq.heappush(ready, reader)
        if len(nodes) < len(given):
            return False
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        return True

    def import_domains(self) -> None:
        """Import every domain that a node has, once."""
        versions = {opset.domain: opset.version for opset in self.proto.opset_import}
        used = sorted({STANDARD, *(node.domain for node in self.graph.node)})
        del self.proto.opset_import[:]
        self.proto.opset_import.extend(helper.make_opsetid(d, versions.get(d, 1)) for d in used)

    def drop_unread(self) -> None:
        """Take out nodes and constants that no output depends on."""
        wanted = set(self.outputs)
        kept = []
        for node in reversed(self.graph.node):
            if wanted.intersection(node.output):
                wanted.update(node.input)
                kept.append(node)
        del self.graph.node[:]
        self.graph.node.extend(reversed(kept))
        stored = [tensor for tensor in self.graph.initializer if tensor.name in wanted]
        del self.graph.initializer[:]
        self.graph.initializer.extend(stored)
        self.constants = {name: value for name, value in self.constants.items() if name in wanted}

    def restore(self, before: bytes) -> None:
        """The graph as it was when it was serialised."""
        self.graph.CopyFrom(GraphProto.FromString(before))
        for tensor in self.graph.initializer:
            if tensor.name not in self.constants:
                self._note(tensor)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor, batch axis included.

        Raises:
            InputError: shape inference fails.
        """
        found = self.constants[name].shape if name in self.constants else self.shapes.get(name)
        if found is None:
            producer = self.producers().get(name)
            writer = f", which {describe(producer)} writes," if producer is not None else ""
            raise InputError(
                f"The shape of '{name}'{writer} cannot be inferred",
                hint="export the model with fixed shapes",
            )
        return found

    def infer(self, *, strict: bool = True) -> None:
        """Infer the shape and element type of every tensor; unless ``strict``, as far as they fit together.

        Raises:
            InputError: shapes or types do not fit together, by the node where they do not.
        """
        skeleton = self._skeleton()
        try:
            inferred = onnx.shape_inference.infer_shapes(skeleton, strict_mode=strict)
        except Exception as error:  # the binding raises types of its own
            raise InputError(
                f"The model's shapes do not fit together: {_reason(error)}",
                hint="onnx.shape_inference.infer_shapes(…, strict_mode=True) finds the same",
            ) from error
        self.shapes = {name: value.shape for name, value in self.constants.items()}
        for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
            kind = value.type.tensor_type
            self.types[value.name] = kind.elem_type
            if kind.HasField("shape"):
                sizes = tuple(int(dim.dim_value) for dim in kind.shape.dim)
                if min(sizes, default=1) > 0:
                    self.shapes[value.name] = sizes
        self._store()

    def _skeleton(self) -> ModelProto:
        """The model for ONNX's shape inference: large constants as their shapes, other domains as Casts."""
        skeleton = ModelProto(ir_version=self.proto.ir_version)
        skeleton.opset_import.extend([helper.make_opsetid(STANDARD, self.opset)])
        graph = skeleton.graph
        graph.name = "shapes"
        raw = {name for node in self.graph.node if node.op_type == "DequantizeLinear" for name in node.input}
        for value in self.graph.input:
            graph.input.append(value)
            if value.name not in raw and _is_integer(value):
                # Integer inputs go straight into float operators, as QONNX's annotations have them.
                graph.input[-1].type.tensor_type.elem_type = TensorProto.FLOAT
        for tensor in self.graph.initializer:
            if self.constants[tensor.name].size < _LARGE:
                graph.initializer.append(tensor)
            else:
                graph.input.append(
                    helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
                )
        producers = self.producers()
        for node in self.graph.node:
            if node.domain == STANDARD:
                graph.node.append(node)
                if node.op_type in ("Conv", "ConvTranspose"):
                    self._state_kernel(graph.node[-1], producers)
            else:
                cast = helper.make_node(
                    "Cast", node.input[:1], node.output[:1], node.name, to=TensorProto.FLOAT
                )
                graph.node.append(cast)
        for output in self.outputs:
            graph.output.append(helper.make_empty_tensor_value_info(output))
        return skeleton

    def _state_kernel(self, node: NodeProto, producers: Mapping[str, NodeProto]) -> None:
        """State the kernel of a convolution: where it is not, onnx reads beyond arrays of another rank."""
        shape = self._stored_shape(node.input[1], producers)
        if shape is None:
            raise UnsupportedError(
                f"{describe(node)}: its weight '{node.input[1]}' is computed", allowed="constant weights"
            )
        if not any(attribute.name == "kernel_shape" for attribute in node.attribute):
            kernel = helper.make_attribute("kernel_shape", list(shape[2:]), attr_type=AttributeProto.INTS)
            node.attribute.append(kernel)

    def _stored_shape(self, name: str, producers: Mapping[str, NodeProto]) -> tuple[int, ...] | None:
        """The shape of a constant behind whatever quantises, scales or turns it; None if it is computed."""
        if name in self.constants:
            return self.constants[name].shape
        node = producers.get(name)
        if node is None or not node.input:
            return None
        shape = self._stored_shape(node.input[0], producers)
        if shape is None or node.domain != STANDARD or node.op_type in _QUANTISING:
            return shape
        array = np.broadcast_to(np.float32(0), shape)
        if node.op_type == "Transpose":
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            return array.transpose(perm).shape
        if node.op_type == "Concat":
            parts = [self._stored_shape(name, producers) for name in node.input]
            axis = next((int(a.i) for a in node.attribute if a.name == "axis"), 0)
            arrays = [np.broadcast_to(np.float32(0), part) for part in parts if part is not None]
            try:
                return None if None in parts else np.concatenate(arrays, axis).shape
            except ValueError as error:
                raise InputError(
                    f"{describe(node)}: shapes {', '.join(map(str, parts))} do not fit along axis {axis}",
                    hint="export the model again",
                ) from error
        if node.op_type in ("Reshape", "Squeeze", "Unsqueeze"):
            numbers = self.constants.get(node.input[1]) if len(node.input) > 1 else None
            if numbers is None:
                return None
            sizes = tuple(int(n) for n in numbers.reshape(-1))
            if node.op_type == "Reshape":  # 0 is the size that was there
                sizes = tuple(n or shape[i] for i, n in enumerate(sizes) if n or i < len(shape))
            moved = {"Reshape": np.reshape, "Squeeze": np.squeeze, "Unsqueeze": np.expand_dims}
            try:
                return np.shape(moved[node.op_type](array, sizes))  # type: ignore[operator]
            except ValueError as error:
                raise InputError(
                    f"{describe(node)}: shape {shape} and the sizes {sizes} do not fit",
                    allowed="sizes with as many elements, axes that the tensor has",
                    hint="export the model again",
                ) from error
        others = [self._stored_shape(other, producers) for other in node.input[1:]]
        if node.op_type not in _ELEMENTWISE or None in others:
            return None
        return np.broadcast_shapes(shape, *(other for other in others if other is not None))

    def _store(self) -> None:
        """Write what was inferred into the model."""
        del self.graph.value_info[:]
        outputs = {value.name: value for value in self.graph.output}
        for name in dict.fromkeys(name for node in self.graph.node for name in node.output if name):
            made = helper.make_tensor_value_info(
                name, self.types.get(name) or TensorProto.FLOAT, self.shapes.get(name)
            )
            if name in outputs:
                outputs[name].CopyFrom(made)
            else:
                self.graph.value_info.append(made)
        inputs = {value.name: value for value in self.graph.input}
        for name in outputs.keys() & inputs.keys():
            outputs[name].CopyFrom(inputs[name])


def plain_array(tensor: TensorProto) -> NDArray[Any]:
    """A tensor as an array of NumPy's own types: narrow integers as int8, narrow floats as float32."""
    value = numpy_helper.to_array(tensor)
    if value.dtype.kind in "biufUSO" and value.dtype.type.__module__ == "numpy":
        return value
    name = value.dtype.name
    return value.astype(np.int8 if "int" in name else np.float32)


def _is_integer(value: ValueInfoProto) -> bool:
    elem = value.type.tensor_type.elem_type
    return elem != TensorProto.UNDEFINED and np.dtype(helper.tensor_dtype_to_np_dtype(elem)).kind in "iub"


def _reason(error: Exception) -> str:
    """Shape inference's message, with the node named as in qhw's own messages."""
    text = (str(error).strip() or type(error).__name__).splitlines()[0]
    found = re.search(r"\(op_type:(\w+)(?:, node name: (.*?))?\): (?:\[\w+\] )?(.*)", text)
    return f"{found[1]} '{found[2] or ''}': {found[3]}" if found else text
