"""How a canonical model behaves under qonnx, and how far the original model's own execution is from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto
from onnx.reference import ReferenceEvaluator
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_node, execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from qhw.errors import InputError
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph.canonical_writer import INTEGER_SUFFIX
from qhw.graph.normal_form import QUANTIZERS
from qhw.graph.onnx_tools import Constants, initializers
from qhw.graph.quantizer_nodes import quantizer_of
from qhw.graph.tail_nodes import collect_tail
from qhw.graph.tails import affine_form
from qhw.onnx_ops.specified import as_specified

Context = dict[str, NDArray[Any]]

FLOAT32_BITS = 24
"""Integers up to this width are exact in float32."""

CHUNK = 64
"""Samples that are executed at once: qonnx keeps every intermediate tensor."""


@dataclass(frozen=True)
class Difference:
    """Codes of one tensor in the original model's own execution against its canonical form.

    Args:
        tensor: the quantised tensor (or output) of the original model.
        codes, differing: how many were compared, and how many differ.
        largest: the largest difference, in codes.
    """

    tensor: str
    codes: int
    differing: int
    largest: int


def compare_with_original(
    model: ModelWrapper, canonical: ModelWrapper, inputs: Mapping[str, ArrayLike]
) -> tuple[Difference, ...]:
    """Count how far a model's float32 execution differs from its canonical form, quantizer by quantizer.

    Both are executed from the inputs on (see ``canonical_integers``), so a difference carries on to what
    follows. An output without a quantizer is compared on the grid of its accumulator; numbers of a format
    that lists its codes as their places among its numbers.

    Args:
        model: as ``load_qonnx`` gives it; ``canonical`` is what ``canonicalise`` made of it.
        inputs: float arrays (N, …) by input name.
    """
    scales = dict(_grids(model, canonical))
    counts = {name: np.zeros(3, dtype=np.int64) for name in scales}
    model = as_specified(model)
    for chunk in _chunks(inputs):
        original, reference = _execute(model, chunk), _execute_exactly(canonical, chunk)
        for name, grid in scales.items():
            apart = np.abs(grid.codes(original[name]) - grid.places(reference[grid.integers]))
            seen = np.array([apart.size, np.count_nonzero(apart), apart.max(initial=0)], dtype=np.int64)
            counts[name] = np.append(counts[name][:2] + seen[:2], max(counts[name][2], seen[2]))
    return tuple(Difference(name, *(int(n) for n in count)) for name, count in counts.items())


def canonical_integers(canonical: ModelWrapper, inputs: Mapping[str, ArrayLike]) -> dict[str, IntArray]:
    """What every integer node of a canonical model writes in qonnx, by the node's name.

    The exact graph's tensors have the same names, but for those that it has no use for. Sums that float32
    does not hold are taken in float64, by ONNX's reference implementation: exact where they stay below 2^53.
    """
    nodes = [n for n in canonical.graph.node if canonical.get_tensor_datatype(n.output[0]).is_integer()]
    found: dict[str, list[IntArray]] = {node.name: [] for node in nodes}
    for chunk in _chunks(inputs):
        context = _execute_exactly(canonical, chunk)
        for node in nodes:
            found[node.name].append(context[node.output[0]].astype(np.int64))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _chunks(inputs: Mapping[str, ArrayLike]) -> Iterator[Context]:
    arrays = {name: np.asarray(value, dtype=np.float32) for name, value in inputs.items()}
    sizes = {len(array) for array in arrays.values()}
    if len(sizes) != 1:
        raise InputError(
            f"The inputs hold {sorted(sizes)} samples", allowed="the same number for every input"
        )
    for start in range(0, sizes.pop(), CHUNK):
        yield {name: array[start : start + CHUNK] for name, array in arrays.items()}


def _execute(model: ModelWrapper, inputs: Context) -> Context:
    """Every tensor of a model, on a whole batch."""
    batch = len(next(iter(inputs.values())))
    context: Context = execute_onnx(_with_batch(model, batch), dict(inputs), return_full_exec_context=True)
    return context


def _execute_exactly(model: ModelWrapper, inputs: Context) -> Context:
    """Every tensor of a canonical model: by qonnx, but integers beyond 24 bits in float64.

    What reads those in float32 has them rounded once, as the exact sums that they are.
    """
    whole = _with_batch(model, len(next(iter(inputs.values()))))
    opsets = whole.get_opset_imports()
    context: Context = whole.make_empty_exec_context() | inputs
    for node in whole.graph.node:
        names = [name for name in node.input if name]
        kind = whole.get_tensor_datatype(node.output[0])
        is_wide = any(context[name].dtype == np.float64 for name in names)
        if not node.domain and kind.is_integer() and (is_wide or kind.bitwidth() > FLOAT32_BITS):
            wide = {name: _as_float64(context[name]) for name in names}
            found = ReferenceEvaluator(node, opsets=opsets).run(None, wide)
            context |= dict(zip(node.output, found, strict=True))
            continue
        narrow = context | {name: context[name].astype(np.float32) for name in names if is_wide}
        execute_node(node, narrow, whole.graph, opsets[node.domain])
        context |= {name: narrow[name] for name in node.output}
    return context


def _as_float64(value: NDArray[Any]) -> NDArray[Any]:
    return value.astype(np.float64) if value.dtype == np.float32 else value


def _with_batch(model: ModelWrapper, batch: int) -> ModelWrapper:
    """A copy whose inputs have that batch size, shapes inferred again."""
    proto = ModelProto()
    proto.CopyFrom(model.model)
    del proto.graph.value_info[:]
    for value in proto.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = batch
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return ModelWrapper(proto).transform(InferShapes(), cleanup=False)


@dataclass(frozen=True)
class Grid:
    """Where a tensor's values stand: ``value = scale * integer + offset``.

    Args:
        integers: the canonical model's tensor of them.
        format: what they are mantissas of, where that is a format that lists its codes.
    """

    scale: Any
    offset: Any
    integers: str
    format: TableFormat | None = None

    def codes(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The nearest codes of real values."""
        units = (values.astype(np.float64) - self.offset) / self.scale
        if self.format is None:
            return np.asarray(np.rint(units))
        numbers = self.format.numbers.astype(np.float64)
        return np.asarray(np.searchsorted((numbers[1:] + numbers[:-1]) / 2, units), dtype=np.float64)

    def places(self, integers: NDArray[Any]) -> NDArray[np.float64]:
        """The codes of integers."""
        if self.format is None:
            return np.asarray(integers, dtype=np.float64)
        numbers = self.format.numbers.astype(np.float64)
        return np.asarray(np.searchsorted(numbers, integers), dtype=np.float64)


def _grids(model: ModelWrapper, canonical: ModelWrapper) -> Iterator[tuple[str, Grid]]:
    """The grid of every quantised tensor, and of outputs without a quantizer."""
    constants = initializers(model.graph)
    written = {name for node in canonical.graph.node for name in node.output}
    known: Constants = dict(constants)
    for node in model.graph.node:
        name = node.output[0]
        if node.op_type not in QUANTIZERS:
            continue
        if f"{name}{INTEGER_SUFFIX}" in written:
            quantizer = quantizer_of(node, known)
            yield name, Grid(quantizer.scale, 0.0, f"{name}{INTEGER_SUFFIX}", quantizer.format)
        elif node.input[0] in constants:
            quantizer = quantizer_of(node, known)
            known[name] = quantizer.mantissas(np.asarray(constants[node.input[0]])) * quantizer.scale
    quantised = {node.output[0] for node in model.graph.node if node.op_type in QUANTIZERS}
    for output in canonical.graph.output:
        if output.name not in quantised:
            yield output.name, _output_grid(canonical, output.name)


def _output_grid(canonical: ModelWrapper, name: str) -> Grid:
    producers = {output: node for node in canonical.graph.node for output in node.output}
    integers = {tensor for tensor in producers if canonical.get_tensor_datatype(tensor).is_integer()}
    rank = len(canonical.get_tensor_shape(name))
    tail, _ = collect_tail(name, producers, initializers(canonical.graph), integers, rank)
    form = affine_form(tail)
    assert form is not None  # or the model would not have been lowered
    scale, offset = (part.reshape((-1, *[1] * (rank - 2))) if rank > 1 else part for part in form)
    return Grid(scale, offset, tail.roots[0])
