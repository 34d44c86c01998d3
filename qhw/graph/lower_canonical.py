"""From ``canonical.onnx`` to the exact graph: integer operations as they stand, tails as thresholds."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from onnx import NodeProto
from qonnx.core.modelwrapper import ModelWrapper

from qhw.errors import InputError, UnsupportedError
from qhw.formats.integer import Integer, as_mantissas
from qhw.formats.modes import QONNX_ROUNDING, IntArray, Rounding
from qhw.formats.table import TableFormat
from qhw.graph.builder import GraphBuilder
from qhw.graph.canonical import canonicalise, is_canonical
from qhw.graph.canonical_writer import annotated_formats
from qhw.graph.ir import ExactGraph, InputEncoding, OutputScale
from qhw.graph.onnx_tools import attributes, describe, initializers
from qhw.graph.tail_nodes import ELEMENTWISE, collect_tail
from qhw.graph.tail_operations import Step, code_bounds, format_named
from qhw.graph.tails import (
    TABLE_ENTRIES,
    Lookup,
    Tail,
    Thresholds,
    affine_form,
    evaluate,
    joint_lookup,
    lower_tail,
)


def lower_canonical(model: ModelWrapper) -> ExactGraph:
    """The exact graph of a model with arbitrary scales; it is canonicalised first if it is not yet.

    Every tail becomes a Threshold where its codes are proven to rise or fall, else a Table. An output
    without a quantizer is its accumulator, with scale and offset in ``output_scales``.

    Raises:
        UnsupportedError: naming the node that has no exact integer form.
    """
    canonical = model if is_canonical(model) else canonicalise(model)
    lowering = _Lowering(canonical)
    for node in canonical.graph.node:
        lowering.visit(node)
    for output in canonical.graph.output:
        lowering.output(output.name)
    return lowering.builder.finish()


class _Lowering:
    """The exact graph in the making, and the exact tensor of each integer tensor of the model."""

    def __init__(self, model: ModelWrapper):
        self.model = model
        self.constants = initializers(model.graph)
        self.producers = {name: node for node in model.graph.node for name in node.output}
        self.builder = GraphBuilder(model.graph.name)
        self.tensors: dict[str, str] = {}
        self.integers = frozenset(self._integer_tensors())
        self.formats = annotated_formats(model)
        for name in (value.name for value in model.graph.input):
            if name in self.integers:
                self._integer_input(name)

    def _integer_tensors(self) -> list[str]:
        written = [*(value.name for value in self.model.graph.input), *self.producers]
        return [name for name in written if self.model.get_tensor_datatype(name).is_integer()]

    def _integer_input(self, name: str) -> None:
        kind = self.model.get_tensor_datatype(name)
        low, high = int(kind.min()), int(kind.max())
        encoding = InputEncoding(1.0, 0.0, low, high, Rounding.RND_CONV, exact=True)
        self.tensors[name] = self.builder.input(
            name, self.shape(name), Integer.holding(low, high), encoding=encoding
        )

    def shape(self, tensor: str) -> tuple[int, ...]:
        """The shape of a tensor of the model, without its batch axis."""
        return tuple(self.model.get_tensor_shape(tensor)[1:])

    def visit(self, node: NodeProto) -> None:
        """Lower what writes an integer tensor; float nodes belong to the tail that they end in."""
        output = node.output[0]
        if output not in self.integers or output in self.tensors:
            return
        handler = _HANDLERS.get(node.op_type)
        if handler is not None and all(
            name in self.integers for name in node.input if name in self.producers
        ):
            self.tensors[output] = handler(self, node)
        elif node.op_type in ELEMENTWISE or node.domain:
            self.tensors[output] = self._tail(node)
        else:
            raise UnsupportedError(f"{describe(node)} is no operation of a canonical model")

    def constant(self, name: str, shape: Sequence[int] | None = None) -> str:
        """An integer constant of the model, once."""
        value = self.constants[name]
        integers = value.astype(np.int64).reshape(value.shape if shape is None else shape)
        key = f"{name}:{integers.shape}"
        if key not in self.tensors:
            format = self.formats.get(name)
            self.tensors[key] = self.builder.constant(name.removesuffix("_int"), integers, format)
        return self.tensors[key]

    def tail_of(self, tensor: str) -> tuple[Tail, int]:
        rank = len(self.model.get_tensor_shape(tensor))
        tail, axis = collect_tail(tensor, self.producers, self.constants, self.integers, rank)
        for root in tail.roots:
            if self.shape(root) != self.shape(tensor):
                raise UnsupportedError(
                    f"'{tail.name}' broadcasts {self.shape(root)} to {self.shape(tensor)}",
                    allowed="element-wise operations on tensors of one shape",
                )
        format = self.formats.get(tensor)
        return (tail if format is None else replace(tail, numbers=format.numbers)), axis

    def _tail(self, node: NodeProto) -> str:
        tail, axis = self.tail_of(node.output[0])
        name = node.name
        if not tail.roots:
            raise InputError(f"'{tail.name}' depends on no input")
        if any(root not in self.tensors for root in tail.roots):
            return self._encoded_input(tail)
        if len(tail.roots) > 2:
            raise UnsupportedError(
                f"'{tail.name}' joins {len(tail.roots)} tensors of different scales",
                hint="quantise them with one shared quantizer",
            )
        x = self.tensors[tail.roots[0]] if len(tail.roots) == 1 else ""
        if not x:
            x, lookup = self._joined(name, tail)
            return self._looked_up(name, tail, axis, x, lambda low, high: lookup)
        if self._is_identity(tail, x):
            return x
        return self._looked_up(name, tail, axis, x, lambda low, high: lower_tail(tail, low, high))

    def _is_identity(self, tail: Tail, x: str) -> bool:
        """Whether a quantizer does nothing to integers that it has quantised before."""
        low, high = self.builder.ranges[x].bounds
        format = self.builder.type(x).format
        if isinstance(format, TableFormat) and (tail.numbers is None or self.formats[tail.output] == format):
            every = format.numbers[None, :]
        elif high - low < TABLE_ENTRIES and tail.numbers is None:
            every = np.arange(low, high + 1)[None, :]
        else:
            return False
        return bool((evaluate(tail, {tail.roots[0]: every}) == every).all())

    def _joined(self, name: str, tail: Tail) -> tuple[str, Lookup]:
        """Two integers as one code, ``a * stride + b``, and the table of what the tail makes of it."""
        a, b = (self.tensors[root] for root in tail.roots)
        bounds = [self.builder.ranges[t].bounds for t in (a, b)]
        stride = 1 << (bounds[1][1] - bounds[1][0]).bit_length()
        lows, highs = zip(*bounds, strict=True)
        lookup = joint_lookup(tail, lows, highs, stride)
        multiplier = self.builder.constant(f"{name}_stride", np.array(stride))
        shifted = self.builder.affine(f"{name}_high", a, multiplier, source=tail.name)
        return self.builder.add(f"{name}_code", shifted, b, source=tail.name), lookup

    def _looked_up(
        self,
        name: str,
        tail: Tail,
        axis: int,
        x: str,
        lowered: Callable[[IntArray, IntArray], Thresholds | Lookup],
    ) -> str:
        """Append the Threshold or Table, with the axis that its rows stand for moved to the front."""
        builder = self.builder
        rank = len(builder.type(x).shape)
        order = [axis, *(i for i in range(rank) if i != axis)]
        inner = f"{name}_channel_first" if axis else name
        if axis:
            x = builder.transpose(f"{inner}_input", x, order, source=tail.name)
        span = builder.ranges[x]
        low, high = (as_mantissas(v).reshape(-1) for v in (span.low, span.high))
        found = lowered(low, high)
        known = self.formats.get(tail.output)
        if isinstance(found, Thresholds):
            format = known or Integer.holding(int(found.levels.min()), int(found.levels.max()))
            thresholds = builder.constant(f"{name}_thresholds", found.thresholds)
            levels = builder.constant(f"{name}_levels", found.levels)
            y = builder.threshold(inner, x, thresholds, levels, format, source=tail.name)
        else:
            format = known or Integer.holding(int(found.table.min()), int(found.table.max()))
            table = builder.constant(f"{name}_table", found.table)
            y = builder.table(inner, x, table, found.first, format, source=tail.name)
        return builder.transpose(name, y, np.argsort(order).tolist(), source=tail.name) if axis else y

    def _encoded_input(self, tail: Tail) -> str:
        """A float input with its quantizer, as an input encoding."""
        root, encoding = tail.roots[0], _encoding(tail)
        known = self.builder.graph.input_encodings.get(root)
        if known == encoding:
            return root
        if known is not None:
            raise UnsupportedError(
                f"The input '{root}' is quantised twice, by '{tail.name}' and another quantizer",
                hint="quantise it once, and let both branches read that",
            )
        low, high = (bound - int(encoding.zero_point) for bound in (encoding.low, encoding.high))
        format = encoding.format or Integer.holding(low, high)
        return self.builder.input(root, self.shape(root), format, encoding=encoding)

    def output(self, name: str) -> None:
        """Declare an output: the integers behind it, and the scale and offset that the tail gives them."""
        tail, axis = self.tail_of(name)
        if any(root not in self.tensors for root in tail.roots) or not tail.roots:
            raise UnsupportedError(f"The output '{name}' does not depend on quantised numbers")
        form = affine_form(tail)
        if form is None or len(tail.roots) > 1 or axis:
            raise UnsupportedError(
                f"The output '{name}' is computed in float ({tail.spelled}), which has no exact integer form",
                allowed="a scale and an offset behind the last integer operation",
                hint="quantise the output, or leave the operation to whoever reads it",
            )
        tensor = self.tensors[tail.roots[0]]
        if tensor in self.builder.graph.outputs:
            tensor = self.builder.reshape(name, tensor, self.builder.type(tensor).shape)
        scale, offset = (tuple(float(v) for v in part) for part in form)
        self.builder.output(tensor, OutputScale(scale, offset))


def _encoding(tail: Tail) -> InputEncoding:
    """The encoding of a tail of Div, Add, Quant and Sub, or of Div, FormatQuant, Mul and Clip."""
    scale = zero = 0.0
    steps = {step.op: step for step in tail.steps}
    wanted = {"Div": 1.0, "Add": 0.0, "Quant": 0.0, "Sub": 0.0}
    listed = ("Div", "FormatQuant", "Mul", "Clip")
    given = [step.op for step in tail.steps]
    if given == [op for op in listed if op in steps] and "FormatQuant" in steps and len(tail.roots) == 1:
        return _format_encoding(tail, steps)
    in_order = given == [op for op in wanted if op in steps]
    if not in_order or "Quant" not in steps or len(tail.roots) > 1:
        raise UnsupportedError(
            f"The input '{tail.roots[0]}' is a float that no quantizer reads first ({tail.spelled})",
            allowed="a Quant that reads the input itself, or an input that is annotated as an integer",
            hint="put a quantizer in front of everything else, or declare the input's type with qonnx's "
            "set_tensor_datatype (UINT8 pixels, for instance)",
        )
    scale, zero, _ = (_number(tail, steps.get(op), wanted[op]) for op in ("Div", "Add", "Sub"))
    code = steps["Quant"].attributes
    low, high = code_bounds(code["bits"], code["signed"], code["narrow"])
    return InputEncoding(scale, zero, low, high, QONNX_ROUNDING[code["rounding_mode"]])


def _format_encoding(tail: Tail, steps: Mapping[str, Step]) -> InputEncoding:
    format = format_named(steps["FormatQuant"].attributes["format"])
    low, high = format.mantissa_low, format.mantissa_high
    if "Clip" in steps:
        low, high = (int(steps["Clip"].attributes[end]) for end in ("min", "max"))
    scale = _number(tail, steps.get("Div"), 1.0)
    return InputEncoding(scale, 0.0, low, high, format.rounding, format=format)


def _number(tail: Tail, step: Step | None, default: float) -> float:
    """The one constant of an input quantizer's step."""
    if step is None:
        return default
    value = tail.constants[step.inputs[1]]
    if value.size > 1:
        raise UnsupportedError(
            f"'{tail.name}' quantises the input per channel", allowed="one scale for an input"
        )
    return float(value.reshape(-1)[0])


def _conv(lowering: _Lowering, node: NodeProto) -> str:
    options = attributes(node)
    x = lowering.tensors[node.input[0]]
    weight = lowering.constants[node.input[1]]
    spatial = weight.ndim - 2
    strides = options.get("strides", [1] * spatial)
    pads = options.get("pads", [0] * (2 * spatial))
    dilations = options.get("dilations", [1] * spatial)
    groups, name, source = options.get("group", 1), node.name, node.doc_string
    if (
        (weight == 1).all()
        and weight.shape[:2] == (groups, 1)
        and set(dilations) == {1}
        and len(node.input) == 2
    ):
        return lowering.builder.sum_pool(name, x, weight.shape[2:], strides, pads, source=source)
    return lowering.builder.conv(
        name,
        x,
        lowering.constant(node.input[1]),
        lowering.constant(node.input[2], (-1,)) if len(node.input) > 2 else None,
        strides=strides,
        pads=pads,
        dilations=dilations,
        groups=groups,
        source=source,
    )


def _matmul(lowering: _Lowering, node: NodeProto) -> str:
    right, name, source = node.input[1], node.name, node.doc_string
    x = lowering.tensors[node.input[0]]
    if right not in lowering.constants:
        return lowering.builder.matmul(name, x, lowering.tensors[right], source=source)
    added = _integer_bias(lowering, node)
    bias = lowering.constant(added.input[1], (-1,)) if added is not None else None
    name = name if added is None else added.name
    tensor = lowering.builder.matmul(name, x, lowering.constant(right), bias, source=source)
    if added is not None:
        lowering.tensors[added.output[0]] = tensor
    return tensor


def _integer_bias(lowering: _Lowering, node: NodeProto) -> NodeProto | None:
    """The Add of an integer constant, one number per column, that alone reads a product."""
    readers = [reader for reader in lowering.model.graph.node if node.output[0] in reader.input]
    if len(readers) != 1 or readers[0].op_type != "Add" or readers[0].output[0] not in lowering.integers:
        return None
    constant = lowering.constants.get(readers[0].input[1])
    columns = lowering.constants[node.input[1]].shape[-1]
    fits = constant is not None and constant.size == columns and constant.shape[-1:] == (columns,)
    return readers[0] if fits else None


def _binary(lowering: _Lowering, node: NodeProto) -> str:
    rank = len(lowering.shape(node.output[0]))
    operands = [
        lowering.constant(name, _unbatched(lowering.constants[name].shape, rank))
        if name in lowering.constants
        else lowering.tensors[name]
        for name in node.input
    ]
    append = lowering.builder.add if node.op_type == "Add" else lowering.builder.mul
    return append(node.name, operands[0], operands[1], source=node.doc_string)


def _unbatched(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """A constant's shape without the batch axis, if it has one."""
    return shape[1:] if len(shape) > rank else shape


def _relu(lowering: _Lowering, node: NodeProto) -> str:
    x = lowering.tensors[node.input[0]]
    high = max(0, lowering.builder.ranges[x].bounds[1])
    return lowering.builder.requant(
        node.name, x, Integer.holding(0, high), rounding=Rounding.TRN, source=node.doc_string
    )


def _max_pool(lowering: _Lowering, node: NodeProto) -> str:
    options = attributes(node)
    x, name = lowering.tensors[node.input[0]], node.name
    if node.op_type == "GlobalMaxPool":
        return lowering.builder.max_pool(name, x, lowering.shape(node.input[0])[1:], source=node.doc_string)
    kernel = options["kernel_shape"]
    return lowering.builder.max_pool(
        name,
        x,
        kernel,
        options.get("strides", [1] * len(kernel)),
        options.get("pads"),
        options.get("dilations"),
        source=node.doc_string,
    )


def _axes(lowering: _Lowering, node: NodeProto) -> list[int]:
    """The reduced axes, batch axis not counted."""
    rank = len(lowering.model.get_tensor_shape(node.input[0]))
    given = attributes(node).get("axes")
    if given is None:
        given = lowering.constants[node.input[1]].reshape(-1).tolist()
    axes = sorted(int(axis) % rank for axis in given)
    if 0 in axes:
        raise UnsupportedError(f"{describe(node)} reduces the batch axis", allowed="the other axes")
    return [axis - 1 for axis in axes]


def _reduce(lowering: _Lowering, node: NodeProto) -> str:
    builder = lowering.builder
    append = builder.reduce_sum if node.op_type == "ReduceSum" else builder.reduce_max
    keepdims = bool(attributes(node).get("keepdims", 1))
    x, name = lowering.tensors[node.input[0]], node.name
    return append(name, x, _axes(lowering, node), keepdims, source=node.doc_string)


def _reshape(lowering: _Lowering, node: NodeProto) -> str:
    before, after = lowering.shape(node.input[0]), lowering.shape(node.output[0])
    if math.prod(before) != math.prod(after):
        raise UnsupportedError(
            f"{describe(node)} mixes samples of a batch", allowed="shapes that keep the batch"
        )
    return lowering.builder.reshape(node.name, lowering.tensors[node.input[0]], after, source=node.doc_string)


def _transpose(lowering: _Lowering, node: NodeProto) -> str:
    rank = len(lowering.model.get_tensor_shape(node.input[0]))
    perm = list(attributes(node).get("perm", range(rank)[::-1]))
    if perm[0] != 0:
        raise UnsupportedError(
            f"{describe(node)} moves the batch axis ({perm})", allowed="axis 0 in its place"
        )
    x = lowering.tensors[node.input[0]]
    return lowering.builder.transpose(node.name, x, [axis - 1 for axis in perm[1:]], source=node.doc_string)


def _slice(lowering: _Lowering, node: NodeProto) -> str:
    numbers = [lowering.constants[name].reshape(-1).tolist() for name in node.input[1:] if name]
    starts, stops = numbers[:2]
    shape = lowering.model.get_tensor_shape(node.input[0])
    axes = numbers[2] if len(numbers) > 2 else list(range(len(starts)))
    steps = numbers[3] if len(numbers) > 3 else [1] * len(starts)
    tensor, name = lowering.tensors[node.input[0]], node.name
    for start, stop, axis, step in zip(starts, stops, (a % len(shape) for a in axes), steps, strict=True):
        if axis == 0 or step < 1:
            raise UnsupportedError(
                f"{describe(node)}: axis {axis}, step {step}", allowed="axes ≥ 1, steps ≥ 1"
            )
        first, last, stride = slice(start, stop, step).indices(shape[axis])
        tensor = lowering.builder.slice(name, tensor, axis - 1, first, last, stride, source=node.doc_string)
    return tensor


def _concat(lowering: _Lowering, node: NodeProto) -> str:
    builder, name = lowering.builder, node.name
    parts = [lowering.tensors[tensor] for tensor in node.input]
    bounds = [builder.ranges[part].bounds for part in parts]
    formats = {builder.type(part).format for part in parts}
    whole = Integer.holding(min(low for low, _ in bounds), max(high for _, high in bounds))
    format = formats.pop() if len(formats) == 1 else whole
    widened = [
        part if builder.type(part).format == format else builder.requant(f"{name}_{i}", part, format)
        for i, part in enumerate(parts)
    ]
    axis = attributes(node)["axis"] % len(lowering.model.get_tensor_shape(node.output[0]))
    return builder.concat(name, widened, axis - 1, source=node.doc_string)


def _pad(lowering: _Lowering, node: NodeProto) -> str:
    pads = [int(pad) for pad in lowering.constants[node.input[1]].reshape(-1)]
    rank = len(pads) // 2
    if pads[0] or pads[rank] or len(node.input) > 3:
        raise UnsupportedError(
            f"{describe(node)} pads the batch axis or states axes", allowed="pads of every axis"
        )
    builder, x, name = lowering.builder, lowering.tensors[node.input[0]], node.name
    low, high = builder.ranges[x].including(0).bounds
    if not builder.type(x).format.holds([0]):
        x = builder.requant(f"{name}_widened", x, Integer.holding(low, high))
    return builder.pad(name, x, [*pads[1:rank], *pads[rank + 1 :]], source=node.doc_string)


_HANDLERS: dict[str, Callable[[_Lowering, NodeProto], str]] = {
    "Conv": _conv,
    "MatMul": _matmul,
    **dict.fromkeys(("Add", "Mul"), _binary),
    "Relu": _relu,
    **dict.fromkeys(("MaxPool", "GlobalMaxPool"), _max_pool),
    **dict.fromkeys(("ReduceSum", "ReduceMax"), _reduce),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
    "Transpose": _transpose,
    "Slice": _slice,
    "Concat": _concat,
    "Pad": _pad,
}
