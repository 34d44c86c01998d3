"""``canonical.onnx``: the exact graph as an ONNX file, its thresholds and tables as the tails behind them.

Float32 sums of scaled values depend on the order of summation, so a model with scales that are no powers of
two has no exact meaning of its own. Here every Conv, MatMul, pool and residual Add reads and writes integers
(float tensors annotated with an integer type, named ``<tensor>_int``), and what stands between two of them is
element-wise, in float32 operations whose stored order is their meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper
from qonnx.core.datatype import DataType
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.transformation.infer_shapes import InferShapes

from qhw.errors import UnsupportedError
from qhw.formats import TableFormat
from qhw.formats.modes import QONNX_ROUNDING, IntArray, Overflow
from qhw.formats.requantise import bounds
from qhw.graph import ir
from qhw.graph.builder import value_ranges
from qhw.graph.infer import Range
from qhw.graph.ir import ExactGraph, InputEncoding, Node
from qhw.graph.onnx_tools import put_initializer
from qhw.graph.ops.shared.exponents import aligned
from qhw.graph.tails.operations import Step, code_bounds
from qhw.graph.tails.quantizer import QUANTIZER_STEPS
from qhw.graph.tails.tail import LARGEST_INTEGER, Tail
from qhw.onnx_ops import DOMAIN, OPSET

FORM_KEY, FORM = "qhw.form", "canonical"
"""Metadata entry that marks a canonical model."""

INTEGER_SUFFIX = "_int"
QONNX_DOMAIN = "qonnx.custom_op.general"
FORMAT_DOMAINS = {"FixedQuant": DOMAIN, "FormatQuant": DOMAIN} | dict.fromkeys(
    ("Quant", "BipolarQuant", "MultiThreshold"), QONNX_DOMAIN
)
STANDARD_OPSET, IR_VERSION = 21, 10

_COUNTED_WIDTH = 24


def is_canonical(model: ModelWrapper) -> bool:
    """Whether a model was written by :func:`write_canonical`."""
    return bool(model.get_metadata_prop(FORM_KEY) == FORM)


def write_canonical(graph: ExactGraph, tails: Mapping[str, Tail], original: ModelWrapper) -> ModelWrapper:
    """An exact graph as a QONNX model; its inputs and outputs are called as in the original file.

    Args:
        tails: the float32 operations that its Threshold and Table nodes stand for, by the tensor they write.
    """
    writer = _Writer(graph, tails, original)
    for name in graph.inputs:
        writer.input(name)
    for node in graph.nodes:
        writer.node(node)
    for tensor, value in zip(graph.outputs, original.graph.output, strict=True):
        writer.output(tensor, value.name)
    return writer.finish()


class _Writer:
    """The file in the making; ``tensors`` are the names in it of the graph's tensors."""

    def __init__(self, graph: ExactGraph, tails: Mapping[str, Tail], original: ModelWrapper):
        self.graph, self.tails = graph, tails
        self.ranges: dict[str, Range] = value_ranges(graph)
        onnx_graph = helper.make_graph([], graph.name, original.graph.input, original.graph.output)
        opsets = [("", STANDARD_OPSET), (DOMAIN, OPSET), (QONNX_DOMAIN, 1)]
        proto = helper.make_model(onnx_graph, opset_imports=[helper.make_opsetid(*o) for o in opsets])
        proto.ir_version = IR_VERSION
        for value in proto.graph.input:
            # Integers too (as annotated): float operators read them, and the file's Cast is dropped.
            value.type.tensor_type.elem_type = TensorProto.FLOAT
        self.model = ModelWrapper(proto)
        ends = (*original.graph.input, *original.graph.output)
        self.taken = {value.name for value in ends}
        self.names: set[str] = set()
        self.tensors: dict[str, str] = {}
        self.constants: dict[tuple[Any, ...], str] = {}
        self.steps: dict[tuple[Any, ...], str] = {}

    # --- writing ---

    def fresh(self, name: str, taken: set[str]) -> str:
        if name in taken:
            name = next(f"{name}_{i}" for i in range(2, len(taken) + 3) if f"{name}_{i}" not in taken)
        taken.add(name)
        return name

    def constant(self, stem: str, value: Any) -> str:
        """Store numbers, equal ones once: floats as float32, integers as int64."""
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array.astype(np.int64)
        key = (array.dtype.kind, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = self.fresh(stem, self.taken)
            put_initializer(self.model.graph, self.constants[key], array)
        return self.constants[key]

    def emit(self, op: str, inputs: Sequence[str], output: str, name: str, **options: Any) -> str:
        """Append a node; the tensor that it writes, ``output`` or close to it."""
        output, name = self.fresh(output, self.taken), self.fresh(name, self.names)
        domain = FORMAT_DOMAINS.get(op, "")
        self.model.graph.node.append(
            helper.make_node(op, list(inputs), [output], name=name, domain=domain, **options)
        )
        return output

    def emit_last(self, node: Node, chain: list[tuple[str, list[Any], dict[str, Any]]], x: str) -> None:
        """A chain of operations on ``x``; the last one writes the node's integers, under its name."""
        chain = chain or [("Identity", [], {})]
        for index, (op, operands, options) in enumerate(chain):
            last = index == len(chain) - 1
            output = f"{node.output}{INTEGER_SUFFIX}" if last else f"{node.output}_{index}"
            name = node.name if last else f"{node.name}_{op.lower()}_{index}"
            names = [
                operand if isinstance(operand, str) else self.constant(f"{output}_{op.lower()}", operand)
                for operand in operands
            ]
            x = self.emit(op, [x, *names] if op != "Concat" else names, output, name, **options)
            if not last:
                self.annotate_scaled(x)
        self.written(node.output, x)

    def written(self, tensor: str, name: str) -> None:
        self.tensors[tensor] = name
        self.model.set_tensor_datatype(name, datatype_of(*self.ranges[tensor].bounds))

    def annotate_scaled(self, name: str) -> None:
        """Integers times a power of two on the way: kept in float64 where they are wide."""
        self.model.set_tensor_datatype(name, DataType["SCALEDINT<64>"])

    def rank(self, tensor: str) -> int:
        return len(self.graph.tensors[tensor].shape)

    def read(self, tensor: str) -> str:
        """The name of a tensor that holds integers, constants stored when they are first read."""
        if tensor not in self.tensors:
            value = self.graph.constants[tensor]
            name = self.constant(f"{tensor}{INTEGER_SUFFIX}", value.astype(np.float64))
            self.tensors[tensor] = name
            self.model.set_tensor_datatype(name, datatype_of(int(value.min()), int(value.max())))
        return self.tensors[tensor]

    # --- inputs and outputs ---

    def input(self, name: str) -> None:
        encoding = self.graph.input_encodings.get(name)
        if encoding is None or encoding.exact:
            low, high = self.ranges[name].bounds
            zero = 0 if encoding is None else int(encoding.zero_point)
            self.model.set_tensor_datatype(name, datatype_of(low + zero, high + zero))
            self.tensors[name] = name
            if zero:
                self.written(name, self._chain(name, name, [("Sub", [float(zero)], {})]))
            return
        before = [
            (s.op, [np.array(o, dtype=np.float32) for o in s.operands if o is not None], dict(s.attributes))
            for s in encoding.before
        ]
        turned = [
            i for i, s in enumerate(encoding.before) if s.op in ("Sub", "Div") and s.operands[0] is not None
        ]
        x = name
        for index, (op, operands, options) in enumerate(before):
            if op == "MultiThreshold":
                operands = [rows.reshape(-1, rows.shape[-1]) for rows in operands]
                options = {"out_dtype": f"UINT{_COUNTED_WIDTH}", "data_layout": _layout(self.rank(name) + 1)}
            x = self._step(x, f"{name}_{index}", op, operands, options, is_turned=index in turned)
        self.written(name, self._chain(name, x, _encoding_chain(encoding)))

    def _chain(self, name: str, x: str, chain: list[tuple[str, list[Any], dict[str, Any]]]) -> str:
        for index, (op, operands, options) in enumerate(chain):
            last = index == len(chain) - 1
            output = f"{name}{INTEGER_SUFFIX}" if last else f"{name}_{op.lower()}_{index}"
            x = self._step(x, output, op, operands, options)
        return x

    def _step(
        self,
        x: str,
        output: str,
        op: str,
        operands: Sequence[Any],
        options: Mapping[str, Any],
        *,
        is_turned: bool = False,
    ) -> str:
        """One float32 operation as an ONNX node."""
        options = dict(options)
        inputs = [
            o if isinstance(o, str) else self.constant(f"{output}_operand", np.asarray(o)) for o in operands
        ]
        if op == "Quant":
            bits = float(options.pop("bits"))
            inputs += [self.constant(n, v) for n, v in (("one", 1.0), ("zero", 0.0), ("bits", bits))]
            options = {k: int(v) if isinstance(v, bool) else v for k, v in options.items()}
        elif op in ("BipolarQuant", "FormatQuant"):
            inputs.append(self.constant("one", 1.0))
        elif op == "Clip":
            inputs += [self.constant(f"{output}_bound", float(options.pop(end))) for end in ("min", "max")]
        elif op == "FixedQuant":
            options |= {"integer": options["width"], "signed": int(options["signed"])}
        names = [*inputs, x] if is_turned else [x, *inputs]
        return self.emit(op, names, output, f"{output}_{op.lower()}", **options)

    def output(self, tensor: str, name: str) -> None:
        """The file's own numbers of an output: integers times what one of them stands for."""
        kind, scale = self.graph.tensors[tensor], self.graph.output_scales.get(tensor)
        rank = len(kind.shape)
        unit = np.ldexp(1.0, kind.exponent.broadcast(rank).astype(np.int32))
        offset = np.zeros(())
        if scale is not None:
            factor, offset = scale.arrays(rank)
            unit = unit * factor
        x = self.tensors[tensor]
        chain = [("Mul", unit)] if (np.asarray(unit) != 1).any() else []
        chain += [("Add", offset)] if offset.any() else []
        for index, (op, number) in enumerate(chain or [("Identity", None)]):
            array = np.asarray(number, dtype=np.float32)
            operand = [] if number is None else [self.constant(f"{name}_{op.lower()}", _batched(array))]
            last = index == max(len(chain), 1) - 1
            node = helper.make_node(
                op,
                [x, *operand],
                [name if last else self.fresh(f"{name}_scaled", self.taken)],
                name=self.fresh(f"{name}_output_{index}", self.names),
            )
            self.model.graph.node.append(node)
            x = node.output[0]

    def finish(self) -> ModelWrapper:
        self.model.set_metadata_prop(FORM_KEY, FORM)
        return self.model.transform(InferShapes(), cleanup=False)

    # --- nodes ---

    def node(self, node: Node) -> None:
        """Append what an operation of the exact graph is in ONNX."""
        if node.output in self.tails:
            self._tail(node, self.tails[node.output])
        else:
            _WRITERS[type(node)](self, node)

    def _tail(self, node: Node, tail: Tail) -> None:
        """A tail's operations on the node's integers, in their order."""
        (root,) = tail.roots
        x, rank = self.read(node.inputs[0]), self.rank(node.inputs[0])
        names = {root: x}
        for step in tail.steps:
            last = step.output == tail.output
            wanted = f"{node.output}{INTEGER_SUFFIX}" if last else step.output
            operands = [names.get(i) or _by_channel(step, tail.constants[i], rank) for i in step.inputs]
            key = (x, step.op, str(sorted(step.attributes.items())), _identity(operands))
            if not last and key in self.steps:
                names[step.output] = self.steps[key]
                continue
            names[step.output] = self.steps[key] = self._tail_step(node, step, operands, wanted, last)
        self.written(node.output, names[tail.output])

    def _tail_step(self, node: Node, step: Step, operands: Sequence[Any], output: str, last: bool) -> str:
        options = dict(step.attributes)
        if step.op in QUANTIZER_STEPS or step.op == "Clip":
            if step.op == "MultiThreshold":
                options = {"data_layout": _layout(self.rank(node.inputs[0]) + 1)}
                options["out_dtype"] = f"UINT{_COUNTED_WIDTH}"
                inputs = [operands[0], self.constant(f"{output}_thresholds", operands[1])]
                return self._named(node, step.op, inputs, output, options, last)
            x = self._step(operands[0], output, step.op, operands[1:], options)
            if last:
                self.model.graph.node[-1].name = self.fresh(node.name, self.names)
            return x
        inputs = [o if isinstance(o, str) else self.constant(f"{output}_operand", o) for o in operands]
        return self._named(node, step.op, inputs, output, options, last)

    def _named(
        self, node: Node, op: str, inputs: Sequence[str], output: str, options: Mapping[str, Any], last: bool
    ) -> str:
        return self.emit(op, inputs, output, node.name if last else f"{output}_{op.lower()}", **options)

    def exponents(self, tensor: str) -> NDArray[np.int64]:
        kind = self.graph.tensors[tensor]
        return kind.exponent.broadcast(len(kind.shape))


def _encoding_chain(encoding: InputEncoding) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """An input's quantizer in float32 operations."""
    scale, zero = np.float32(encoding.scale), np.float32(encoding.zero_point)
    chain: list[tuple[str, list[Any], dict[str, Any]]] = []
    if scale != 1:
        chain.append(("Div", [scale], {}))
    if encoding.format is not None:
        format = encoding.format
        chain.append(("FormatQuant", [], {"format": str(format)}))
        if format.exponent:
            chain.append(("Mul", [np.float32(2.0**-format.exponent)], {}))
        if (encoding.low, encoding.high) != bounds(format, Overflow.SAT):
            chain.append(("Clip", [], {"min": float(encoding.low), "max": float(encoding.high)}))
        return chain
    if zero:
        chain.append(("Add", [zero], {}))
    chain += _rounded_within(encoding)
    return [*chain, ("Sub", [zero], {})] if zero else chain


def _rounded_within(encoding: InputEncoding) -> list[tuple[str, list[Any], dict[str, Any]]]:
    """Rounding, then the bounds of the code."""
    low, high = encoding.low, encoding.high
    clip: tuple[str, list[Any], dict[str, Any]] = ("Clip", [], {"min": float(low), "max": float(high)})
    is_signed = low < 0
    bits = max(2, max(high.bit_length(), (-low - 1).bit_length() if is_signed else 0) + is_signed)
    name = next((name for name, mode in QONNX_ROUNDING.items() if mode is encoding.rounding), None)
    if name is not None:
        code = {"bits": bits, "signed": is_signed, "narrow": False, "rounding_mode": name}
        is_whole = (low, high) == code_bounds(bits, is_signed, narrow=False)
        return [("Quant", [], code), *([] if is_whole else [clip])]
    fixed = {
        "width": bits,
        "signed": int(is_signed),
        "rounding": encoding.rounding.value,
        "overflow": "SAT",
    }
    return [("FixedQuant", [], fixed), clip]


def _layout(rank: int) -> str:
    """A data layout whose channels are axis 1, for a rank that counts the batch axis."""
    return {2: "NC", 3: "NCW", 4: "NCHW"}.get(rank, "NC" + "DHW"[: max(0, rank - 2)])


def _identity(operands: Sequence[Any]) -> tuple[Any, ...]:
    return tuple(o if isinstance(o, str) else (o.shape, o.tobytes()) for o in operands)


def _by_channel(step: Step, constant: NDArray[np.float32], rank: int) -> NDArray[np.float32]:
    """A tail's constant over a tensor of ``rank`` axes and its batch axis; thresholds as qonnx takes them."""
    if step.op == "MultiThreshold":
        return constant.reshape(constant.shape[0], -1)
    return constant if constant.ndim == 0 else constant.reshape((1, -1, *[1] * (rank - 1)))


def _batched(array: NDArray[Any]) -> NDArray[Any]:
    return array if array.ndim == 0 else array[np.newaxis]


def datatype_of(low: int, high: int) -> DataType:
    """QONNX's type for integers of a range."""
    if low >= 0:
        return DataType[f"UINT{max(1, high.bit_length())}"]
    return DataType[f"INT{max(high.bit_length(), (-low - 1).bit_length()) + 1}"]


# --- one writer per operation ---

_Chain = list[tuple[str, list[Any], dict[str, Any]]]


def _shifted(shift: NDArray[np.int64]) -> _Chain:
    """Times powers of two, over an activation without its batch axis."""
    if not np.any(shift):
        return []
    return [("Mul", [_batched(np.ldexp(1.0, shift.astype(np.int32)))], {})]


def _plus(integers: IntArray) -> _Chain:
    """Integers that float32 may need two terms for."""
    whole = np.array(integers, dtype=object)
    if max((abs(int(v)) for v in whole.flat), default=0) > LARGEST_INTEGER:
        raise UnsupportedError(
            f"the model adds integers of more than {LARGEST_INTEGER.bit_length() - 1} bits",
            hint="look for a bias far beyond what it is added to",
        )
    near = np.array([float(np.float32(int(v))) for v in whole.flat]).reshape(whole.shape)
    rest = np.array([int(v) - int(n) for v, n in zip(whole.flat, near.flat, strict=True)], dtype=np.float64)
    chain: _Chain = [("Add", [near], {})]
    return [*chain, ("Add", [rest.reshape(whole.shape)], {})] if rest.any() else chain


def _channels(values: Any, rank: int, axis: int) -> Any:
    """Numbers per index of an axis (batch axis not counted) as they broadcast over a batch."""
    array = np.asarray(values)
    if array.size == 1:
        return array.reshape(())
    shape = [1] * (rank + 1)
    shape[axis + 1] = array.size
    return array.reshape(shape)


def _sums(writer: _Writer, node: Node, op: str, axis: int, options: Mapping[str, Any]) -> None:
    """Products summed, brought to the bias's exponent where that is finer, and the bias."""
    graph = writer.graph
    x, weight, *bias = node.inputs
    rank = writer.rank(node.output)
    product = np.array(graph.tensors[x].exponent.values) + np.array(graph.tensors[weight].exponent.values)
    names = [writer.read(x), writer.read(weight)]
    if op == "MatMul":
        names = [_with_batch(writer, name, t) for name, t in zip(names, (x, weight), strict=True)]
    chain: _Chain = []
    if bias:
        exponents = np.array(graph.tensors[bias[0]].exponent.values)
        _, (own, other) = aligned(product, exponents)
        if np.any(own):
            chain.append(("Mul", [_channels(np.ldexp(1.0, own.astype(np.int32)), rank, axis)], {}))
        value = graph.constants[bias[0]].astype(object).reshape(-1)
        offset = value * np.array([1 << int(s) for s in np.broadcast_to(other, value.shape)], dtype=object)
        chain += _plus(_channels(offset, rank, axis))
    if not chain:
        output = f"{node.output}{INTEGER_SUFFIX}"
        writer.written(node.output, writer.emit(op, names, output, node.name, **options))
        return
    inner = writer.emit(op, names, f"{node.output}_sum", f"{node.name}_sum", **options)
    writer.annotate_scaled(inner)
    writer.emit_last(node, chain, inner)


def _with_batch(writer: _Writer, name: str, tensor: str) -> str:
    """A stacked constant with the batch axis that it broadcasts over."""
    value = writer.graph.constants.get(tensor)
    if value is None or value.ndim < 3:
        return name
    named = writer.constant(f"{name}_batched", value.astype(np.float64)[np.newaxis])
    writer.model.set_tensor_datatype(named, datatype_of(int(value.min()), int(value.max())))
    return named


def _conv(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.Conv)
    kernel = writer.graph.tensors[node.inputs[1]].shape[2:]
    _sums(
        writer,
        node,
        "Conv",
        0,
        {
            "kernel_shape": kernel,
            "strides": node.strides,
            "pads": node.pads,
            "dilations": node.dilations,
            "group": node.groups,
        },
    )


def _matmul(writer: _Writer, node: Node) -> None:
    _sums(writer, node, "MatMul", writer.rank(node.output) - 1, {})


def _add(writer: _Writer, node: Node) -> None:
    rank = writer.rank(node.output)
    exponents = [_ranked(writer.exponents(t), rank) for t in node.inputs]
    _, shifts = aligned(*exponents)
    names = []
    for index, (tensor, shift) in enumerate(zip(node.inputs, shifts, strict=True)):
        value = writer.graph.constants.get(tensor)
        if value is not None:
            array = _ranked(value.astype(object), rank)
            whole = array * np.array(
                [1 << int(s) for s in np.broadcast_to(shift, array.shape).flat], dtype=object
            ).reshape(array.shape)
            names.append(whole)
            continue
        name = writer.read(tensor)
        if np.any(shift):
            factor = writer.constant(f"{node.output}_shift", _batched(np.ldexp(1.0, shift.astype(np.int32))))
            name = writer.emit(
                "Mul", [name, factor], f"{node.output}_aligned_{index}", f"{node.name}_mul_{index}"
            )
            writer.annotate_scaled(name)
        names.append(name)
    computed = [name for name in names if isinstance(name, str)]
    if len(computed) == 2:
        writer.emit_last(node, [("Add", [computed[1]], {})], computed[0])
        return
    (constant,) = (name for name in names if not isinstance(name, str))
    writer.emit_last(node, _plus(_batched(constant)), computed[0])


def _ranked(array: NDArray[Any], rank: int) -> NDArray[Any]:
    return array if array.ndim in (0, rank) else array.reshape((1,) * (rank - array.ndim) + array.shape)


def _mul(writer: _Writer, node: Node) -> None:
    a, b = (writer.read(tensor) for tensor in node.inputs)
    writer.emit_last(node, [("Mul", [b], {})], a)


def _affine(writer: _Writer, node: Node) -> None:
    graph, rank = writer.graph, writer.rank(node.output)
    x, multiplier, *offset = node.inputs
    exponents = [np.array(graph.tensors[t].exponent.values) for t in (x, multiplier, *offset)]
    factor = graph.constants[multiplier].astype(object).reshape(-1)
    shifts = [np.zeros(1, np.int64)]
    if offset:
        _, shifts = aligned(exponents[0] + exponents[1], exponents[2])
    own = np.array([1 << int(s) for s in np.atleast_1d(shifts[0])], dtype=object)
    scaled = factor * own
    chain: _Chain = []
    if (scaled != 1).any():
        chain.append(("Mul", [_channels(scaled.astype(np.float64), rank, 0)], {}))
    if offset:
        value = graph.constants[offset[0]].astype(object).reshape(-1)
        moved = value * np.array([1 << int(s) for s in np.atleast_1d(shifts[1])], dtype=object)
        chain += _plus(_channels(moved, rank, 0))
    writer.emit_last(node, chain, writer.read(x))


def _requant(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.Requant)
    (x,) = node.inputs
    after = writer.graph.tensors[node.output]
    shift = writer.exponents(x) - writer.exponents(node.output)
    format = after.format
    natural = bounds(format, node.overflow)
    limited = bounds(format, node.overflow, node.low, node.high)
    clip: _Chain = []
    if node.overflow.saturates and limited != natural:
        clip = [("Clip", [float(v) for v in limited], {})]
    if isinstance(format, TableFormat):
        chain = _shifted(np.asarray(shift) + format.exponent)
        chain.append(("FormatQuant", [1.0], {"format": str(format)}))
        if format.exponent:
            chain.append(("Mul", [2.0**-format.exponent], {}))
        writer.emit_last(node, [*chain, *clip], writer.read(x))
        return
    low, high = writer.ranges[x].bounds
    most = int(np.max(shift))
    if (
        (np.asarray(shift) >= 0).all()
        and limited[0] <= min(low, low << most)
        and max(high, high << most) <= limited[1]
    ):
        writer.emit_last(node, _shifted(np.asarray(shift)), writer.read(x))
        return
    options = {
        "width": format.width,
        "integer": format.width,
        "signed": int(format.mantissa_low < 0),
        "rounding": node.rounding.value,
        "overflow": node.overflow.value,
    }
    chain = [*_shifted(np.asarray(shift)), ("FixedQuant", [], options), *clip]
    writer.emit_last(node, chain, writer.read(x))


def _threshold(writer: _Writer, node: Node) -> None:
    """Thresholds that the file states itself: counted, and the levels looked up."""
    graph = writer.graph
    x, thresholds, levels = node.inputs
    rows, values = graph.constants[thresholds], graph.constants[levels]
    rank = writer.rank(x)
    output = node.output
    names = [writer.read(x), writer.constant(f"{output}_thresholds", rows.astype(np.float64))]
    options = {"out_dtype": f"UINT{_COUNTED_WIDTH}", "data_layout": _layout(rank + 1)}
    counted = writer.emit("MultiThreshold", names, f"{output}_count", f"{node.name}_count", **options)
    _looked_up(writer, node, counted, values)


def _table(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.Table)
    x = writer.read(node.inputs[0])
    if node.first:
        first = writer.constant(f"{node.output}_first", float(node.first))
        x = writer.emit("Sub", [x, first], f"{node.output}_place", f"{node.name}_place")
    _looked_up(writer, node, x, writer.graph.constants[node.inputs[1]])


def _looked_up(writer: _Writer, node: Node, places: str, values: IntArray) -> None:
    """Numbers by place, rows by channel."""
    output, rank = node.output, writer.rank(node.output)
    if len(values) > 1:
        starts = np.arange(len(values), dtype=np.float64) * values.shape[1]
        start = writer.constant(f"{output}_rows", _channels(starts, rank, 0))
        places = writer.emit("Add", [places, start], f"{output}_row", f"{node.name}_row")
    index = writer.emit("Cast", [places], f"{output}_index", f"{node.name}_cast", to=7)
    flat = writer.constant(f"{output}_levels", values.reshape(-1).astype(np.float64))
    name = writer.emit("Gather", [flat, index], f"{output}{INTEGER_SUFFIX}", node.name, axis=0)
    writer.written(output, name)


def _reduce(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.ReduceSum | ir.ReduceMax)
    axes = np.array([axis + 1 for axis in node.axes], dtype=np.int64)
    chain: _Chain = [(node.op, [axes], {"keepdims": int(node.keepdims)})]
    writer.emit_last(node, chain, writer.read(node.inputs[0]))


def _sum_pool(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.SumPool)
    channels = writer.graph.tensors[node.inputs[0]].shape[0]
    ones = writer.constant(f"{node.output}_ones", np.ones((channels, 1, *node.kernel)))
    writer.model.set_tensor_datatype(ones, DataType["UINT1"])
    options = {"kernel_shape": node.kernel, "strides": node.strides, "pads": node.pads, "group": channels}
    writer.emit_last(node, [("Conv", [ones], options)], writer.read(node.inputs[0]))


def _max_pool(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.MaxPool)
    options = {
        "kernel_shape": node.kernel,
        "strides": node.strides,
        "pads": node.pads,
        "dilations": node.dilations,
    }
    writer.emit_last(node, [("MaxPool", [], options)], writer.read(node.inputs[0]))


def _reshape(writer: _Writer, node: Node) -> None:
    shape = np.array([0, *writer.graph.tensors[node.output].shape], dtype=np.int64)
    writer.emit_last(node, [("Reshape", [shape], {})], writer.read(node.inputs[0]))


def _transpose(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.Transpose)
    perm = [0, *(axis + 1 for axis in node.perm)]
    writer.emit_last(node, [("Transpose", [], {"perm": perm})], writer.read(node.inputs[0]))


def _concat(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.Concat)
    names = [writer.read(tensor) for tensor in node.inputs]
    writer.emit_last(node, [("Concat", names, {"axis": node.axis + 1})], "")


def _slice(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.Slice)
    numbers = [np.array([n], np.int64) for n in (node.start, node.stop, node.axis + 1, node.step)]
    writer.emit_last(node, [("Slice", numbers, {})], writer.read(node.inputs[0]))


def _pad(writer: _Writer, node: Node) -> None:
    assert isinstance(node, ir.Pad)
    rank = len(node.pads) // 2
    pads = np.array([0, *node.pads[:rank], 0, *node.pads[rank:]], dtype=np.int64)
    writer.emit_last(node, [("Pad", [pads, float(node.value)], {})], writer.read(node.inputs[0]))


def _upsample(writer: _Writer, node: Node) -> None:
    """Each element followed by copies (Resize), or by zeros along axes of their own."""
    assert isinstance(node, ir.Upsample)
    shape = writer.graph.tensors[node.inputs[0]].shape
    if not node.zeros:
        scales = np.array([1, 1, *node.factors], dtype=np.float32)
        options = {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        }
        chain: _Chain = [("Resize", ["", scales], options)]
    else:
        apart = np.array([0, shape[0], *(n for size in shape[1:] for n in (size, 1))], dtype=np.int64)
        begins = [0] * apart.size
        ends = [0, 0, *(n for factor in node.factors for n in (0, factor - 1))]
        whole = np.array([0, *writer.graph.tensors[node.output].shape], dtype=np.int64)
        chain = [
            ("Reshape", [apart], {}),
            ("Pad", [np.array([*begins, *ends], dtype=np.int64), 0.0], {}),
            ("Reshape", [whole], {}),
        ]
    writer.emit_last(node, chain, writer.read(node.inputs[0]))


_WRITERS: dict[type[Node], Callable[[_Writer, Node], None]] = {
    ir.Conv: _conv,
    ir.MatMul: _matmul,
    ir.Add: _add,
    ir.Mul: _mul,
    ir.Affine: _affine,
    ir.Requant: _requant,
    ir.Threshold: _threshold,
    ir.Table: _table,
    ir.ReduceSum: _reduce,
    ir.ReduceMax: _reduce,
    ir.SumPool: _sum_pool,
    ir.MaxPool: _max_pool,
    ir.Reshape: _reshape,
    ir.Transpose: _transpose,
    ir.Concat: _concat,
    ir.Slice: _slice,
    ir.Pad: _pad,
    ir.Upsample: _upsample,
}
