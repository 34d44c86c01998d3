"""Builds an exact graph node by node; every output type is inferred, so no width is chosen by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from qhw.errors import InputError
from qhw.formats.base import Format
from qhw.formats.integer import Integer, as_mantissas
from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.infer import Operand, Range, Result, constant_range, infer
from qhw.graph.ir import ExactGraph, Exponent, InputEncoding, Node, OutputScale, TensorType


class GraphBuilder:
    """Adds operations to an ``ExactGraph``; each method returns the name of the tensor that it wrote.

    ``name`` is the node's name (made unique); ``source`` names the QONNX node or layer it came from.

    Example:
        >>> builder = GraphBuilder("two_layers")
        >>> x = builder.input("x", (4,), Integer(8, False), exponent=-8)
        >>> w = builder.constant("w", np.ones((4, 2), dtype=np.int64), Integer(4), exponent=-3)
        >>> y = builder.requant("act", builder.matmul("fc", x, w), Integer(8), exponent=-4)
        >>> graph = builder.finish([y])
    """

    def __init__(self, name: str):
        self.graph = ExactGraph(name, (), ())
        self.ranges: dict[str, Range] = {}

    def type(self, tensor: str) -> TensorType:
        """The type of a tensor written so far."""
        return self.graph.tensors[tensor]

    def unique(self, name: str) -> str:
        """``name``, or ``name_2`` … if a tensor or node already has it."""
        taken = self.graph.tensors
        if name not in taken:
            return name
        return next(f"{name}_{i}" for i in range(2, len(taken) + 3) if f"{name}_{i}" not in taken)

    def operand(self, tensor: str) -> Operand:
        """A tensor as the inference rules see it."""
        return Operand(self.graph.tensors[tensor], self.ranges[tensor], self.graph.constants.get(tensor))

    def input(
        self,
        name: str,
        shape: Sequence[int],
        format: Format,
        exponent: int | Exponent = 0,
        encoding: InputEncoding | None = None,
    ) -> str:
        """A graph input; ``encoding`` narrows its range to what the encoding can produce."""
        name = self.unique(name)
        self.graph.tensors[name] = TensorType(tuple(shape), format, _exponent(exponent))
        self.ranges[name] = Range.of(format.mantissa_low, format.mantissa_high)
        if encoding is not None:
            zero = int(encoding.zero_point)
            self.graph.input_encodings[name] = encoding
            self.ranges[name] = Range.of(encoding.low - zero, encoding.high - zero)
        self.graph.inputs += (name,)
        return name

    def constant(
        self, name: str, mantissas: Any, format: Format | None = None, exponent: int | Exponent = 0
    ) -> str:
        """A constant; without ``format``, the narrowest integer that holds it. Equal ones are shared."""
        value = as_mantissas(mantissas)
        low, high = constant_range(value).bounds
        format = format or Integer.holding(low, high)
        _check_constant(name, value, format)
        kind = TensorType(value.shape, format, _exponent(exponent))
        name = self.unique(name)
        self.graph.constants[name] = value
        self.graph.tensors[name] = kind
        self.ranges[name] = constant_range(value)
        return name

    def add_node(self, node: Node, declared: TensorType | None = None) -> str:
        """Append a node; ``declared`` is its output type where the operation leaves it open."""
        result = infer(node, [self.operand(i) for i in node.inputs], declared or self.type(node.inputs[0]))
        kind = result.type() if declared is None else declared
        self.graph.nodes.append(node)
        self.graph.tensors[node.output] = kind
        self.ranges[node.output] = result.range
        return node.output

    def matmul(self, name: str, a: str, b: str, bias: str | None = None, *, source: str = "") -> str:
        name = self.unique(name)
        return self.add_node(ir.MatMul(name, (a, b, *([bias] if bias else [])), name, source=source))

    def conv(
        self,
        name: str,
        x: str,
        weight: str,
        bias: str | None = None,
        *,
        strides: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        groups: int = 1,
        source: str = "",
    ) -> str:
        name = self.unique(name)
        rank = len(self.type(x).shape) - 1
        node = ir.Conv(
            name,
            (x, weight, *([bias] if bias else [])),
            name,
            strides=tuple(strides or (1,) * rank),
            pads=tuple(pads or (0,) * (2 * rank)),
            dilations=tuple(dilations or (1,) * rank),
            groups=groups,
            source=source,
        )
        return self.add_node(node)

    def add(self, name: str, a: str, b: str, *, source: str = "") -> str:
        name = self.unique(name)
        return self.add_node(ir.Add(name, (a, b), name, source=source))

    def mul(self, name: str, a: str, b: str, *, source: str = "") -> str:
        name = self.unique(name)
        return self.add_node(ir.Mul(name, (a, b), name, source=source))

    def affine(
        self, name: str, x: str, multiplier: str, offset: str | None = None, *, source: str = ""
    ) -> str:
        name = self.unique(name)
        return self.add_node(
            ir.Affine(name, (x, multiplier, *([offset] if offset else [])), name, source=source)
        )

    def requant(
        self,
        name: str,
        x: str,
        format: Format,
        exponent: int | Exponent = 0,
        *,
        rounding: Rounding = Rounding.RND_CONV,
        overflow: Overflow = Overflow.SAT,
        low: int | None = None,
        high: int | None = None,
        source: str = "",
    ) -> str:
        name = self.unique(name)
        node = ir.Requant(
            name, (x,), name, rounding=rounding, overflow=overflow, low=low, high=high, source=source
        )
        return self.add_node(node, TensorType(self.type(x).shape, format, _exponent(exponent)))

    def threshold(
        self,
        name: str,
        x: str,
        thresholds: str,
        levels: str,
        format: Format,
        exponent: int | Exponent = 0,
        *,
        source: str = "",
    ) -> str:
        name = self.unique(name)
        node = ir.Threshold(name, (x, thresholds, levels), name, source=source)
        return self._looked_up(node, format, exponent)

    def table(
        self,
        name: str,
        x: str,
        table: str,
        first: int,
        format: Format,
        exponent: int | Exponent = 0,
        *,
        source: str = "",
    ) -> str:
        name = self.unique(name)
        return self._looked_up(ir.Table(name, (x, table), name, first=first, source=source), format, exponent)

    def _looked_up(self, node: Node, format: Format, exponent: int | Exponent) -> str:
        """Append a Threshold or Table, whose levels must be in the declared format."""
        declared = TensorType(self.type(node.inputs[0]).shape, format, _exponent(exponent))
        _check_written(node, self.graph.constants[node.inputs[-1]], format)
        return self.add_node(node, declared)

    def reduce_sum(self, name: str, x: str, axes: Sequence[int], keepdims: bool, *, source: str = "") -> str:
        name = self.unique(name)
        return self.add_node(
            ir.ReduceSum(name, (x,), name, axes=tuple(axes), keepdims=keepdims, source=source)
        )

    def reduce_max(self, name: str, x: str, axes: Sequence[int], keepdims: bool, *, source: str = "") -> str:
        name = self.unique(name)
        node = ir.ReduceMax(name, (x,), name, axes=tuple(axes), keepdims=keepdims, source=source)
        return self._keeping_format(node)

    def sum_pool(
        self,
        name: str,
        x: str,
        kernel: Sequence[int],
        strides: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        *,
        source: str = "",
    ) -> str:
        name = self.unique(name)
        node = ir.SumPool(
            name,
            (x,),
            name,
            kernel=tuple(kernel),
            strides=tuple(strides or kernel),
            pads=tuple(pads or (0,) * (2 * len(kernel))),
            source=source,
        )
        return self.add_node(node)

    def max_pool(
        self,
        name: str,
        x: str,
        kernel: Sequence[int],
        strides: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        dilations: Sequence[int] | None = None,
        *,
        source: str = "",
    ) -> str:
        name = self.unique(name)
        node = ir.MaxPool(
            name,
            (x,),
            name,
            kernel=tuple(kernel),
            strides=tuple(strides or kernel),
            pads=tuple(pads or (0,) * (2 * len(kernel))),
            dilations=tuple(dilations or (1,) * len(kernel)),
            source=source,
        )
        return self._keeping_format(node)

    def reshape(self, name: str, x: str, shape: Sequence[int], *, source: str = "") -> str:
        name = self.unique(name)
        return self._keeping_format(ir.Reshape(name, (x,), name, source=source), tuple(shape))

    def transpose(self, name: str, x: str, perm: Sequence[int], *, source: str = "") -> str:
        name = self.unique(name)
        return self._keeping_format(ir.Transpose(name, (x,), name, perm=tuple(perm), source=source))

    def concat(self, name: str, tensors: Sequence[str], axis: int, *, source: str = "") -> str:
        name = self.unique(name)
        return self._keeping_format(ir.Concat(name, tuple(tensors), name, axis=axis, source=source))

    def slice(
        self, name: str, x: str, axis: int, start: int, stop: int, step: int = 1, *, source: str = ""
    ) -> str:
        name = self.unique(name)
        return self._keeping_format(
            ir.Slice(name, (x,), name, axis=axis, start=start, stop=stop, step=step, source=source)
        )

    def pad(self, name: str, x: str, pads: Sequence[int], value: int = 0, *, source: str = "") -> str:
        name = self.unique(name)
        return self._keeping_format(ir.Pad(name, (x,), name, pads=tuple(pads), value=value, source=source))

    def upsample(
        self, name: str, x: str, factors: Sequence[int], zeros: bool = False, *, source: str = ""
    ) -> str:
        name = self.unique(name)
        node = ir.Upsample(name, (x,), name, factors=tuple(factors), zeros=zeros, source=source)
        return self._keeping_format(node)

    def uniform(self, name: str, x: str, *, source: str = "") -> str:
        """The tensor with one exponent instead of one per channel, by exact left shifts."""
        kind = self.type(x)
        if kind.exponent.is_scalar:
            return x
        finest = min(kind.exponent.values)
        return self.exact_at(name, x, finest, source=source)

    def exact_at(self, name: str, x: str, exponent: int, *, source: str = "") -> str:
        """The tensor at a finer (or its own) scalar exponent, widened so that nothing is rounded."""
        kind = self.type(x)
        if kind.exponent == Exponent.scalar(exponent):
            return x
        coarsest = max(kind.exponent.values)
        if min(kind.exponent.values) < exponent:
            raise InputError(f"'{x}' has finer numbers than 2^{exponent}: it cannot be moved there exactly")
        low, high = self.ranges[x].bounds
        shift = coarsest - exponent
        format = Integer.holding(min(0, low << shift), max(0, high << shift))
        return self.requant(name, x, format, exponent, rounding=Rounding.TRN, source=source)

    def output(self, tensor: str, scale: OutputScale | None = None) -> None:
        """Declare a graph output; ``scale`` where its values are not ``mantissa * 2**exponent`` alone."""
        self.graph.outputs += (tensor,)
        if scale is not None:
            self.graph.output_scales[tensor] = scale

    def finish(self, outputs: Sequence[str] = ()) -> ExactGraph:
        """The graph, with ``outputs`` declared."""
        for tensor in outputs:
            self.output(tensor)
        return self.graph

    def _keeping_format(self, node: Node, shape: tuple[int, ...] | None = None) -> str:
        """Append an operation that moves codes: the output keeps the input's format."""
        first = self.type(node.inputs[0])
        declared = TensorType(first.shape if shape is None else shape, first.format, first.exponent)
        result: Result = infer(node, [self.operand(i) for i in node.inputs], declared)
        low, high = result.range.bounds
        if low < first.format.mantissa_low or high > first.format.mantissa_high:
            raise InputError(f"{node.op} '{node.name}' writes [{low}, {high}], beyond {first.format}")
        _check_inserted(node, first.format)
        return self.add_node(node, TensorType(result.shape, first.format, result.exponent))


def _check_constant(name: str, value: IntArray, format: Format) -> None:
    if not format.holds(value):
        raise InputError(f"constant '{name}' holds {_outside(value, format)}, which {format} does not")


def _check_written(node: Node, values: IntArray, format: Format) -> None:
    if not format.holds(values):
        raise InputError(f"{node.op} '{node.name}' writes {_outside(values, format)}, beyond {format}")


def _check_inserted(node: Node, format: Format) -> None:
    for value in node.inserted:
        if not format.holds([value]):
            raise InputError(f"{node.op} '{node.name}' puts {value} around or between numbers of {format}")


def _outside(values: IntArray, format: Format) -> int:
    """The first mantissa that is not in a format."""
    return next(int(value) for value in np.asarray(values).flat if not format.holds([value]))


def _exponent(exponent: int | Exponent) -> Exponent:
    return exponent if isinstance(exponent, Exponent) else Exponent.scalar(exponent)


def value_ranges(graph: ExactGraph) -> dict[str, Range]:
    """The range of every tensor, from the input encodings and the constants.

    Raises InputError where a node's stored output type is not what its operation gives, or a tensor of a
    format that lists its codes may hold other numbers.
    """
    ranges = {name: _checked_constant(graph, name) for name in graph.constants}
    for name in graph.inputs:
        ranges[name] = _input_range(name, graph.tensors[name].format, graph.input_encodings.get(name))
    for node in graph.nodes:
        operands = [Operand(graph.tensors[i], ranges[i], graph.constants.get(i)) for i in node.inputs]
        declared = graph.tensors[node.output]
        result = infer(node, operands, declared)
        _check_result(node, result, declared)
        if isinstance(node, ir.Threshold | ir.Table):
            _check_written(node, graph.constants[node.inputs[-1]], declared.format)
        elif isinstance(declared.format, TableFormat) and not isinstance(node, ir.Requant):
            _check_moved(node, [operand.type.format for operand in operands], declared.format)
        ranges[node.output] = result.range
    return ranges


def _checked_constant(graph: ExactGraph, name: str) -> Range:
    if name not in graph.tensors:
        raise InputError(f"constant '{name}' is declared nowhere", hint="lower the model again")
    value, kind = graph.constants[name], graph.tensors[name]
    if value.shape != kind.shape:
        raise InputError(f"constant '{name}' has shape {value.shape}, but is declared {kind.shape}")
    _check_constant(name, value, kind.format)
    return constant_range(value)


def _input_range(name: str, format: Format, encoding: InputEncoding | None) -> Range:
    """The range of the numbers that an input's encoding can write, checked against its type."""
    if encoding is None:
        return Range.of(format.mantissa_low, format.mantissa_high)
    if not (math.isfinite(encoding.scale) and encoding.scale > 0 and math.isfinite(encoding.zero_point)):
        raise InputError(
            f"input '{name}' is encoded with scale {encoding.scale} and zero point {encoding.zero_point}",
            allowed="finite numbers, the scale above 0",
        )
    zero = int(encoding.zero_point)
    low, high = encoding.low - zero, encoding.high - zero
    fits = low <= high and format.holds([low, high])
    if encoding.format is not None or isinstance(format, TableFormat):
        fits = fits and encoding.format == format and not zero
    if not fits:
        told = "" if encoding.format is None else f" of {encoding.format}"
        raise InputError(f"input '{name}' is encoded in [{low}, {high}]{told}, but is declared {format}")
    return Range.of(low, high)


def _check_result(node: Node, result: Result, declared: TensorType) -> None:
    if (result.shape, result.exponent) != (declared.shape, declared.exponent):
        raise InputError(
            f"{node.op} '{node.name}' writes {result.shape} at {result.exponent}, "
            f"but its output is declared {declared.shape} at {declared.exponent}"
        )
    low, high = result.partial
    if low < declared.format.mantissa_low or high > declared.format.mantissa_high:
        raise InputError(
            f"{node.op} '{node.name}' needs [{low}, {high}], but its output is declared {declared.format}"
        )


def _check_moved(node: Node, formats: Sequence[Format], declared: Format) -> None:
    """Check that a node that does not round keeps its operands' format: it writes only their numbers."""
    if not node.moves_codes or any(format != declared for format in formats):
        given = ", ".join(str(format) for format in formats)
        raise InputError(
            f"{node.op} '{node.name}' reads {given}, but its output is declared {declared}",
            hint="only Requant, Threshold and Table write other numbers of such a format",
        )
    _check_inserted(node, declared)
