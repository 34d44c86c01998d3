"""The exact graph: a short list of typed integer operations.

Every tensor has a shape, a format and an exponent; a value is ``mantissa * 2**exponent`` and every
operation is defined on mantissas alone (``qhw.sim.interpreter`` says what each one means). The graph
knows no board and no folding. Activation shapes leave out the batch axis: a ``(3, 32, 32)`` tensor is
channel first, and axis 0 of an activation is its channel. Constants have their whole shape.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from qhw.formats.base import Format
from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.formats.table import TableFormat

TENSOR_SIZE_LIMIT = 1 << 28
"""Elements of one tensor that a file may hold at most."""


@dataclass(frozen=True)
class Exponent:
    """The power of two of a mantissa of 1: one for a whole tensor, or one per index of ``axis``."""

    values: tuple[int, ...]
    axis: int | None = None

    @classmethod
    def scalar(cls, value: int) -> Exponent:
        return cls((int(value),))

    @property
    def is_scalar(self) -> bool:
        return self.axis is None

    def broadcast(self, rank: int) -> IntArray:
        """The exponents as an int64 array that broadcasts over a tensor of that rank (no batch axis)."""
        if self.axis is None:
            return np.array(self.values[0], dtype=np.int64)
        shape = [1] * rank
        shape[self.axis] = len(self.values)
        return np.array(self.values, dtype=np.int64).reshape(shape)


@dataclass(frozen=True)
class TensorType:
    """Shape (no batch axis), format of the mantissas, and exponent of a tensor."""

    shape: tuple[int, ...]
    format: Format
    exponent: Exponent

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Node:
    """One operation: ``output = op(inputs)``; ``name`` is unique in its graph.

    ``source`` names the node or layer of the QONNX file that it came from, for messages.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    source: str = field(default="", kw_only=True)

    op: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        cls.op = cls.__name__
        OPERATIONS[cls.op] = cls


OPERATIONS: dict[str, type[Node]] = {}
"""Every operation of the exact graph, by name."""


@dataclass(frozen=True)
class MatMul(Node):
    """Integer matrix product over the last axis of the first and the first-but-last of the second operand.

    Inputs: ``a`` (…, K), ``b`` (…, K, M), optionally ``bias`` (M,). Either operand may be a constant.
    Result exponent: a + b, or the bias's where that is finer.
    """


@dataclass(frozen=True)
class Conv(Node):
    """Integer convolution (cross-correlation, as in ONNX), one or two spatial axes.

    Inputs: ``x`` (C, *spatial), constant ``weight`` (M, C/groups, *kernel), optionally constant
    ``bias`` (M,). ``pads`` has the begins of every spatial axis, then the ends (the ONNX order);
    padding is mantissa 0.
    """

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    groups: int


@dataclass(frozen=True)
class Add(Node):
    """Sum of two tensors of one shape (or a constant that broadcasts), exponents aligned to the finer."""


@dataclass(frozen=True)
class Mul(Node):
    """Element-wise product of two tensors of one shape (or a constant that broadcasts)."""


@dataclass(frozen=True)
class Affine(Node):
    """``x * multiplier + offset`` with constants per channel (C,) or per tensor ().

    Inputs: ``x`` (C, …), ``multiplier``, optionally ``offset``. Axis 0 is the channel.
    """


@dataclass(frozen=True)
class Requant(Node):
    """To the output's format and exponent: shift, round, then saturate or wrap.

    ``low`` and ``high`` are mantissa bounds of the output that replace the format's own when it saturates
    (a narrow range, the 6 of a ReLU6). Never writes -0, infinity or NaN.
    """

    rounding: Rounding
    overflow: Overflow
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class Threshold(Node):
    """``levels[number of thresholds that x reaches]``, per channel or per tensor.

    Inputs: ``x`` (C, …); constant ``thresholds`` (C or 1, T), in mantissas of ``x``, strictly ordered
    along T, the last one or more possibly beyond the range of ``x`` (never reached); constant ``levels``
    (C or 1, T + 1), output mantissas (rising, or falling for a negative gain).
    """


@dataclass(frozen=True)
class Table(Node):
    """``table[channel, x - first]``: any element-wise function of a code of up to 16 bits.

    Inputs: ``x`` (C, …); constant ``table`` (C or 1, entries), output mantissas.
    ``first`` is the mantissa of ``x`` that entry 0 stands for.
    """

    first: int


@dataclass(frozen=True)
class ReduceSum(Node):
    """Sum over ``axes`` (no batch axis); ``keepdims`` keeps them with length 1."""

    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True)
class ReduceMax(Node):
    """Maximum over ``axes`` (no batch axis); ``keepdims`` keeps them with length 1."""

    axes: tuple[int, ...]
    keepdims: bool


@dataclass(frozen=True)
class SumPool(Node):
    """Sum over a sliding window of every channel; padding counts as 0."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]


@dataclass(frozen=True)
class MaxPool(Node):
    """Maximum over a sliding window of every channel; padding is ignored."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


@dataclass(frozen=True)
class Reshape(Node):
    """The same codes in another shape (the output's), row-major."""


@dataclass(frozen=True)
class Transpose(Node):
    """Axes in the order ``perm`` (no batch axis)."""

    perm: tuple[int, ...]


@dataclass(frozen=True)
class Concat(Node):
    """Tensors of one format and exponent joined along ``axis``."""

    axis: int


@dataclass(frozen=True)
class Slice(Node):
    """``x[start:stop:step]`` along ``axis``; bounds are not negative."""

    axis: int
    start: int
    stop: int
    step: int


@dataclass(frozen=True)
class Pad(Node):
    """Mantissa ``value`` around the tensor: begins of every axis, then ends (no batch axis)."""

    pads: tuple[int, ...]
    value: int


@dataclass(frozen=True)
class InputEncoding:
    """How the user's array becomes the mantissas of a graph input.

    ``mantissa = clip(round(x / scale + zero_point), low, high) - zero_point``, in float32, operation by
    operation, as QONNX's Quant does; an input that is annotated as an integer has ``exact``: its values
    must already be integers in ``[low, high]``. With ``format`` (no zero point then),
    ``mantissa = clip(mantissa of the nearest number of format to x / scale, low, high)``, the division in
    float32, ``low`` and ``high`` being mantissas of the format.
    """

    scale: float
    zero_point: float
    low: int
    high: int
    rounding: Rounding
    exact: bool = False
    format: TableFormat | None = None

    @property
    def unit(self) -> float:
        """What a mantissa of 1 stands for, to the user."""
        return self.scale if self.format is None else math.ldexp(self.scale, self.format.exponent)


@dataclass(frozen=True)
class OutputScale:
    """``value = scale * mantissa + offset``, scalars or per channel (axis 0), float64."""

    scale: tuple[float, ...]
    offset: tuple[float, ...] = (0.0,)


@dataclass(frozen=True)
class HostStep:
    """One operation on real values, done on the host behind the graph's outputs.

    Args:
        op: the ONNX operator: Softmax, ArgMax, TopK, Sigmoid, Cast, Reshape …
        source: the ONNX node.
        inputs, outputs: tensors of the file; an output that the file leaves out has an empty name.
        shapes: of the outputs, batch axis left out.
        attributes: what decides the result; axes count from 0, the batch axis included.
    """

    op: str
    source: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    attributes: Mapping[str, int | float | str | tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Postprocessing:
    """What a file does behind the last operation of the graph: Softmax, ArgMax and their like, in order.

    Args:
        reads: the file's name for each of the graph's outputs, in their order.
        steps: what is computed from those.
        outputs: the file's own outputs, in order: some of ``reads``, and results of the steps.
    """

    reads: tuple[str, ...]
    steps: tuple[HostStep, ...]
    outputs: tuple[str, ...]

    @classmethod
    def from_mapping(cls, stored: Mapping[str, Any]) -> Postprocessing:
        """From JSON values, as ``dataclasses.asdict`` and :mod:`json` write them."""
        steps = tuple(
            HostStep(**{name: _tuples(value) for name, value in s.items()}) for s in stored["steps"]
        )
        return cls(tuple(stored["reads"]), steps, tuple(stored["outputs"]))


def _tuples(value: Any) -> Any:
    """JSON's lists as tuples, all the way down."""
    if isinstance(value, Mapping):
        return {name: _tuples(part) for name, part in value.items()}
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


@dataclass
class ExactGraph:
    """Typed integer operations in topological order, with named constants."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, IntArray] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    input_encodings: dict[str, InputEncoding] = field(default_factory=dict)
    output_scales: dict[str, OutputScale] = field(default_factory=dict)
    postprocessing: Postprocessing | None = None

    def producer(self, tensor: str) -> Node | None:
        """The node that writes a tensor; None for inputs and constants."""
        return next((node for node in self.nodes if node.output == tensor), None)

    def consumers(self, tensor: str) -> list[Node]:
        """The nodes that read a tensor, in order."""
        return [node for node in self.nodes if tensor in node.inputs]

    def activations(self, node: Node) -> Iterator[str]:
        """A node's inputs that are not constants."""
        return (name for name in node.inputs if name not in self.constants)

    def replace_nodes(self, nodes: list[Node]) -> ExactGraph:
        """A copy with other nodes; tensors and constants that nothing reads any more are dropped."""
        used = {name for node in nodes for name in (*node.inputs, node.output)} | {
            *self.inputs,
            *self.outputs,
        }
        return dataclasses.replace(
            self,
            nodes=nodes,
            tensors={name: kind for name, kind in self.tensors.items() if name in used},
            constants={name: value for name, value in self.constants.items() if name in used},
        )
