"""The graph that is being written: its tensors and nodes, and how the exact graph's tensors travel in it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from qhw.errors import UnsupportedError
from qhw.flows.finn.carried import Axes, Carried, Shape, in_order, last, numbers, swap, travelling
from qhw.formats.base import Format, UniformFormat
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.builder import value_ranges
from qhw.graph.infer import Range
from qhw.graph.ir import ExactGraph

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

GENERAL = "qonnx.custom_op.general"
FPGA = "finn.custom_op.fpgadataflow"

EXACT_BITS = 24
"""FINN's Python execution holds integers in float32."""


def refused(node: ir.Node, reason: str, hint: str | None = None) -> UnsupportedError:
    """An error that names a node and the layer that it came from."""
    layer = f" (layer '{node.source}')" if node.source and node.source != node.name else ""
    return UnsupportedError(f"{node.op} '{node.name}'{layer}: {reason}", hint=hint)


def is_streamed(format: Format) -> bool:
    """Whether numbers of a format are integers for FINN: integers, fixed point, binary and ternary ones."""
    if isinstance(format, TableFormat):
        return format.mantissa_low >= -1 and format.mantissa_high <= 1
    return isinstance(format, UniformFormat)


def data_type(low: int, high: int) -> str:
    """The narrowest of FINN's integer types, at least of two bits where there is a sign."""
    if low >= 0:
        return "BINARY" if high <= 1 else f"UINT{int(high).bit_length()}"
    return f"INT{max(2, int(high).bit_length() + 1, (-int(low) - 1).bit_length() + 1)}"


def format_type(format: Format) -> str:
    """FINN's type for the numbers of a format."""
    if isinstance(format, UniformFormat) and format.width > 1:
        return f"{'INT' if format.signed else 'UINT'}{format.width}"
    return data_type(format.mantissa_low, format.mantissa_high)


@dataclass(frozen=True)
class Emitted:
    """What was written.

    Args:
        model: FINN's graph: one input, one output, every tensor with its integer type.
        graph: the exact graph that it was written from.
        carried: how the graph's tensors travel, by their names; those that are nowhere alone are left out.
        made_by: the graph's node that each tensor of the model was written for.
        host: the last nodes, which the host computes from ``output``.
        output: the graph's tensor that the model's output carries.
    """

    model: ModelWrapper
    graph: ExactGraph
    carried: dict[str, Carried]
    made_by: dict[str, str]
    host: tuple[ir.Node, ...]
    output: str

    @property
    def input(self) -> str:
        """The graph's input."""
        return self.graph.inputs[0]


@dataclass
class Draft:
    """A model as far as it is written.

    Args:
        graph: the streamlined graph.
        host: its last nodes, which are not written.
    """

    graph: ExactGraph
    host: tuple[ir.Node, ...]
    carried: dict[str, Carried] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
    _nodes: list[Any] = field(default_factory=list)
    _shapes: dict[str, Shape] = field(default_factory=dict)
    _types: dict[str, str] = field(default_factory=dict)
    _constants: dict[str, Any] = field(default_factory=dict)
    _kernels: dict[str, list[int]] = field(default_factory=dict)
    ranges: dict[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_ends()
        self.ranges = value_ranges(self.graph)
        name = self.graph.inputs[0]
        kind = self.graph.tensors[name]
        if len(kind.shape) > 3:
            raise UnsupportedError(
                f"Input '{name}' has shape {kind.shape}: FINN streams images of two axes at most"
            )
        if not is_streamed(kind.format):
            raise UnsupportedError(
                f"Input '{name}' has numbers of {kind.format}, FINN streams integers",
                hint="use --flow hls4ml, or an integer format for it",
            )
        axes = self._turned_at_first(name)
        carried = self.carry(name, name, axes=axes)
        self.tensor(name, travelling(kind.shape, carried.layout), format_type(kind.format))

    def _check_ends(self) -> None:
        for what, names in (("inputs", self.graph.inputs), ("outputs", self.graph.outputs)):
            if len(names) != 1:
                raise UnsupportedError(
                    f"The network has {len(names)} {what} ({', '.join(names)}): "
                    f"the finn flow writes a stream from one input to one output",
                    hint="use --flow hls4ml",
                )

    def _turned_at_first(self, name: str) -> Axes | None:
        """Axes of an input that is only read transposed (channels last, say), as that wants them."""
        readers = self.graph.consumers(name)
        if len(readers) != 1 or not isinstance(readers[0], ir.Transpose):
            return None
        perm = readers[0].perm
        return tuple(perm[axis] for axis in last(len(perm)))

    @property
    def last(self) -> str:
        """The tensor that the host reads."""
        return self.host[0].inputs[0] if self.host else self.graph.outputs[0]

    # --- tensors, constants and nodes of the model

    def tensor(self, name: str, shape: Shape, kind: str) -> str:
        """Declare a tensor of the model."""
        self._shapes[name], self._types[name] = shape, kind
        return name

    def shape(self, name: str) -> Shape:
        """The shape of a tensor of the model."""
        return self._shapes[name]

    def kind(self, name: str) -> str:
        """FINN's type of a tensor of the model."""
        return self._types[name]

    def constant(self, name: str, value: IntArray, node: ir.Node, kind: str | None = None) -> str:
        """A constant of integers, which float32 must hold."""
        low, high = int(value.min()), int(value.max())
        self.check_held(low, high, node)
        self._constants[name] = value.astype(np.float32)
        return self.tensor(name, value.shape, kind or data_type(low, high))

    def indices(self, name: str, value: list[int]) -> str:
        """A constant of shapes, axes or sizes."""
        self._constants[name] = np.array(value, dtype=np.int64)
        return self.tensor(name, (len(value),), "INT64")

    def depthwise(self, weights: str, kernel: list[int]) -> None:
        """Say that a dense matrix holds the weights of a depthwise convolution."""
        self._kernels[weights] = kernel

    def node(
        self, op: str, inputs: list[str], outputs: list[str], node: ir.Node, domain: str = "", **given: Any
    ) -> None:
        """Append a node, written for one of the exact graph."""
        from onnx import helper

        for output in outputs:
            self.made_by[output] = node.name
        self._nodes.append(
            helper.make_node(op, inputs, outputs, name=f"{op}_{outputs[0]}", domain=domain, **given)
        )

    def check_held(self, low: int, high: int, node: ir.Node) -> None:
        """Refuse integers that FINN's execution in float32 cannot show to be right."""
        if max(-low, high) > 1 << EXACT_BITS:
            raise refused(
                node,
                f"its numbers reach {max(-low, high):,}; FINN's own execution holds integers in float32, "
                f"exact up to 2^{EXACT_BITS}",
                hint="give its weights or its inputs fewer bits, or use --flow hls4ml",
            )

    # --- how the exact graph's tensors travel

    def carry(
        self,
        tensor: str,
        name: str,
        multiplier: Any = 1,
        offset: Any = 0,
        order: IntArray | None = None,
        axes: Axes | None = None,
    ) -> Carried:
        """Record that a tensor of the model carries one of the graph."""
        shape = self.graph.tensors[tensor].shape
        given = None if axes == last(len(shape)) else axes
        carried = Carried(tensor, name, shape, numbers(multiplier), numbers(offset), order, given)
        self.carried[tensor] = carried
        return carried

    def result(self, node: ir.Node, like: Carried | None = None) -> str:
        """Declare the tensor of a node's result in its own format; the name in the model.

        Args:
            like: an operand in whose order the result's axes travel; None: the channel last.
        """
        kind = self.graph.tensors[node.output]
        if len(kind.shape) > 3:
            raise refused(
                node, f"its result {kind.shape} has more than the three axes of an image", "use --flow hls4ml"
            )
        self.check_held(*self.ranges[node.output].bounds, node)
        axes = last(len(kind.shape)) if like is None else like.layout
        return self.tensor(node.output, travelling(kind.shape, axes), format_type(kind.format))

    def input_of(self, node: ir.Node, index: int = 0) -> Carried:
        """How an operand travels; refuses a constant."""
        name = node.inputs[index]
        if name not in self.carried:
            raise refused(node, f"its operand '{name}' is a constant, where FINN streams one")
        return self.carried[name]

    def per_element(self, carried: Carried, values: Any) -> IntArray:
        """Numbers per channel of FINN's (or one), in the order in which its channels travel."""
        array = numbers(values)
        return array if array.size == 1 or carried.order is None else array[carried.order]

    def by_axis(self, carried: Carried, axis: int, node: ir.Node) -> Carried:
        """A tensor, so that numbers along an axis of the graph's are numbers per channel of FINN's."""
        if not carried.shape or carried.layout[-1] == axis:
            return carried
        plain = carried if carried.is_plain else self._multiplied_out(carried, node)
        rest = [other for other in range(len(carried.shape)) if other != axis]
        return self.in_layout(plain, (*rest, axis), node)

    def plain(self, node: ir.Node, index: int = 0, any_layout: bool = False) -> Carried:
        """An operand whose integers are its mantissas, by a multiplication and an addition where needed.

        Args:
            any_layout: its axes may travel in any order; else the channel is put last, by a shuffle.
        """
        carried = self.input_of(node, index)
        if not carried.is_plain:
            carried = self._multiplied_out(carried, node)
        return carried if any_layout else self.in_layout(carried, last(len(carried.shape)), node)

    def in_layout(self, carried: Carried, axes: Axes, node: ir.Node) -> Carried:
        """A plain tensor whose axes travel in that order, by a shuffle where they do not yet."""
        if carried.layout == axes:
            return carried
        reader = f"{carried.tensor}_as_{'_'.join(map(str, axes))}"
        if reader not in self._shapes and not self.shuffled(reader, carried, carried.shape, axes, node):
            raise refused(
                node,
                f"it reads '{carried.tensor}' {carried.shape}, whose axes travel as {carried.layout}: "
                f"one of FINN's shuffles does not bring them in the order {axes}",
                "use --flow hls4ml",
            )
        return replace(carried, name=reader, axes=None if axes == last(len(axes)) else axes)

    def _multiplied_out(self, carried: Carried, node: ir.Node) -> Carried:
        kind = self.graph.tensors[carried.tensor]
        reader = f"{carried.tensor}_plain"
        if reader not in self._shapes:
            low, high = self.ranges[carried.tensor].bounds
            self.check_held(low, high, node)
            name = carried.name
            if (carried.multiplier != 1).any():
                factor = self.constant(f"{carried.tensor}_factor", carried.multiplier, node)
                scaled = f"{carried.tensor}_scaled" if (carried.offset != 0).any() else reader
                self.node("Mul", [name, factor], [self.tensor(scaled, self.shape(name), "INT32")], node)
                name = scaled
            if (carried.offset != 0).any():
                bias = self.constant(f"{carried.tensor}_bias", carried.offset, node)
                self.node("Add", [name, bias], [self.tensor(reader, self.shape(name), "INT32")], node)
            self._types[reader] = format_type(kind.format)
        one, zero = numbers(1), numbers(0)
        return replace(carried, name=reader, multiplier=one, offset=zero)

    def shuffled(self, name: str, carried: Carried, shape: Shape, axes: Axes, node: ir.Node) -> bool:
        """Declare a tensor of those elements, of a shape of the graph whose axes travel in that order.

        FINN's InnerShuffle swaps two axes; False where that is not enough.
        """
        sizes = swap(carried.indices, in_order(shape, axes))
        if sizes is None:
            return False
        outer, rows, columns = sizes
        kind = self.kind(carried.name)
        turned = self.tensor(f"{name}_turned", (1, outer, columns, rows), kind)
        self.node(
            "InnerShuffle",
            [carried.name],
            [turned],
            node,
            FPGA,
            backend="fpgadataflow",
            data_type=kind,
            in_shape=list(self.shape(carried.name)),
            transpose_in_shape=[1, outer, rows, columns],
            perm=[0, 1, 3, 2],
            I=rows,
            J=columns,
            SIMD=1,
        )
        sized = self.indices(f"{name}_shape", list(travelling(shape, axes)))
        self.node("Reshape", [turned, sized], [self.tensor(name, travelling(shape, axes), kind)], node)
        return True

    def padding(self, name: str, output: str, around: list[int], node: ir.Node) -> None:
        """Zeros at the edges of an image: above, left, below, right."""
        _, height, width, channels = self.shape(name)
        self.node(
            "FMPadding",
            [name],
            [output],
            node,
            FPGA,
            backend="fpgadataflow",
            ImgDim=[height, width],
            Padding=around,
            NumChannels=channels,
            SIMD=1,
            inputDataType=self.kind(name),
        )

    def finish(self) -> Emitted:
        """The model, once every node is written."""
        import qonnx.core.data_layout as layout
        from onnx import TensorProto, helper
        from qonnx.core.datatype import DataType
        from qonnx.core.modelwrapper import ModelWrapper

        first, last = self.graph.inputs[0], self.carried[self.last].name
        used = {name for node in self._nodes for name in (*node.input, *node.output)}
        if not self._nodes:
            raise UnsupportedError("The network has no operation for the board: nothing to write")

        def info(name: str) -> Any:
            return helper.make_tensor_value_info(name, TensorProto.FLOAT, list(self._shapes[name]))

        inner = [info(name) for name in self._shapes if name in used and name not in (first, last)]
        graph = helper.make_graph(self._nodes, self.graph.name, [info(first)], [info(last)], value_info=inner)
        opsets = [helper.make_opsetid(*pair) for pair in (("", 17), (GENERAL, 1), (FPGA, 1))]
        model = ModelWrapper(
            helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="qhw")
        )
        for name, value in self._constants.items():
            if name in used:
                model.set_initializer(name, value)
        for name in used:
            model.set_tensor_datatype(name, DataType[self._types[name]])
            if name not in self._constants:
                model.set_tensor_layout(name, layout.NHWC if len(self._shapes[name]) == 4 else layout.NC)
        for name, kernel in self._kernels.items():
            model.set_tensor_sparsity(name, {"dw": {"kernel_shape": kernel}})
        return Emitted(model, self.graph, self.carried, self.made_by, self.host, self.last)
