"""The exact graph: a short list of typed integer operations.

Every tensor has a shape, a format and an exponent; a value is ``mantissa * 2**exponent`` and every
operation is defined on mantissas alone: ``qhw.graph.ops`` has a file for each. The graph knows no board and
no folding. Activation shapes leave out the batch axis: a ``(3, 32, 32)`` tensor is channel first, and axis 0
of an activation is its channel. Constants have their whole shape.

The operations' classes are here under their short names (``ir.Conv``).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.formats.modes import IntArray, Rounding
from qhw.formats.table import TableFormat
from qhw.graph.ops.add import Add as Add
from qhw.graph.ops.affine import Affine as Affine
from qhw.graph.ops.base import OPERATIONS as OPERATIONS
from qhw.graph.ops.base import Node as Node
from qhw.graph.ops.concat import Concat as Concat
from qhw.graph.ops.conv import Conv as Conv
from qhw.graph.ops.matmul import MatMul as MatMul
from qhw.graph.ops.max_pool import MaxPool as MaxPool
from qhw.graph.ops.mul import Mul as Mul
from qhw.graph.ops.pad import Pad as Pad
from qhw.graph.ops.reduce_max import ReduceMax as ReduceMax
from qhw.graph.ops.reduce_sum import ReduceSum as ReduceSum
from qhw.graph.ops.requant import Requant as Requant
from qhw.graph.ops.reshape import Reshape as Reshape
from qhw.graph.ops.slice import Slice as Slice
from qhw.graph.ops.sum_pool import SumPool as SumPool
from qhw.graph.ops.table import Table as Table
from qhw.graph.ops.threshold import Threshold as Threshold
from qhw.graph.ops.transpose import Transpose as Transpose
from qhw.graph.ops.upsample import Upsample as Upsample
from qhw.graph.tensors import Exponent as Exponent
from qhw.graph.tensors import TensorType as TensorType

TENSOR_SIZE_LIMIT = 1 << 28
"""Elements of one tensor that a file may hold at most."""


@dataclass(frozen=True)
class InputStep:
    """One float32 operation on an input, before its quantizer, named as in ONNX (or QONNX).

    Args:
        operands: one per operand, in order: None where it is computed, else numbers that broadcast over the
            input without its batch axis, nested tuples (thresholds: along one more axis).
    """

    op: str
    operands: tuple[Any, ...]
    attributes: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class InputEncoding:
    """How the user's array becomes the mantissas of a graph input.

    ``mantissa = clip(round(x / scale + zero_point), low, high) - zero_point``, in float32, operation by
    operation, as QONNX's Quant does; an input that is annotated as an integer has ``exact``: its values
    must already be integers in ``[low, high]``. With ``format`` (no zero point then),
    ``mantissa = clip(mantissa of the nearest number of format to x / scale, low, high)``, the division in
    float32, ``low`` and ``high`` being mantissas of the format. ``before`` is what the model does to a float
    input in front of that, in float32, operation by operation.
    """

    scale: float
    zero_point: float
    low: int
    high: int
    rounding: Rounding
    exact: bool = False
    format: TableFormat | None = None
    before: tuple[InputStep, ...] = ()

    @property
    def unit(self) -> float:
        """The value of a mantissa of 1, as the user sees it."""
        return self.scale if self.format is None else math.ldexp(self.scale, self.format.exponent)


@dataclass(frozen=True)
class OutputScale:
    """``value = scale * mantissa + offset``, scalars or per index of ``axis`` (no batch axis), float64."""

    scale: tuple[float, ...]
    offset: tuple[float, ...] = (0.0,)
    axis: int = 0

    def arrays(self, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Scale and offset as they broadcast over a tensor of ``rank`` axes."""
        found = []
        for numbers in (self.scale, self.offset):
            shape = [1] * rank
            if len(numbers) > 1:
                shape[self.axis] = len(numbers)
            found.append(np.array(numbers, dtype=np.float64).reshape(shape))
        return found[0], found[1]


@dataclass(frozen=True)
class HostStep:
    """One operation on real values, done on the host behind the graph's outputs.

    Args:
        op: the ONNX operator: Softmax, ArgMax, TopK, Sigmoid, Cast, Reshape …
        source: the ONNX node.
        inputs, outputs: tensors of the file; an output that the file leaves out has an empty name.
        shapes: the outputs' shapes, batch axis left out.
        attributes: the ONNX attributes; axes count from 0, the batch axis included.
    """

    op: str
    source: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    attributes: Mapping[str, int | float | str | tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Postprocessing:
    """The host's operations behind the graph's outputs: Softmax, ArgMax and their like, in order.

    Args:
        reads: the file's name for each of the graph's outputs, in their order.
        steps: the operations on those.
        outputs: the file's own outputs, in order: some of ``reads``, and results of the steps.
    """

    reads: tuple[str, ...]
    steps: tuple[HostStep, ...]
    outputs: tuple[str, ...]

    @classmethod
    def from_mapping(cls, stored: Mapping[str, Any]) -> Postprocessing:
        """Read JSON values as ``dataclasses.asdict`` and :mod:`json` write them."""
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
    """Typed integer operations in topological order, with named constants.

    ``output_names`` are what the file that it was lowered from calls its outputs, in the same order.
    """

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tensors: dict[str, TensorType] = field(default_factory=dict)
    constants: dict[str, IntArray] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    input_encodings: dict[str, InputEncoding] = field(default_factory=dict)
    output_scales: dict[str, OutputScale] = field(default_factory=dict)
    postprocessing: Postprocessing | None = None
    output_names: tuple[str, ...] = ()

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
