"""How a canonical model behaves under qonnx, and how far the original model's own execution is from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from qhw.errors import InputError
from qhw.formats.modes import IntArray
from qhw.graph.canonical_writer import INTEGER_SUFFIX
from qhw.graph.normal_form import QUANTIZERS
from qhw.graph.onnx_tools import Constants, initializers
from qhw.graph.quantizer_nodes import quantizer_of
from qhw.graph.tail_nodes import collect_tail
from qhw.graph.tails import affine_form

Context = dict[str, NDArray[Any]]

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

    Both are executed by qonnx from the inputs on, so a difference carries on to what follows. An output
    without a quantizer is compared on the grid of its accumulator.

    Args:
        model: as ``load_qonnx`` gives it; ``canonical`` is what ``canonicalise`` made of it.
        inputs: float arrays (N, …) by input name.
    """
    scales = dict(_grids(model, canonical))
    counts = {name: np.zeros(3, dtype=np.int64) for name in scales}
    for chunk in _chunks(inputs):
        original, reference = _execute(model, chunk), _execute(canonical, chunk)
        for name, (scale, offset, integers) in scales.items():
            codes = np.rint((original[name].astype(np.float64) - offset) / scale)
            apart = np.abs(codes - reference[integers])
            seen = np.array([apart.size, np.count_nonzero(apart), apart.max(initial=0)], dtype=np.int64)
            counts[name] = np.append(counts[name][:2] + seen[:2], max(counts[name][2], seen[2]))
    return tuple(Difference(name, *(int(n) for n in count)) for name, count in counts.items())


def canonical_integers(canonical: ModelWrapper, inputs: Mapping[str, ArrayLike]) -> dict[str, IntArray]:
    """What every integer node of a canonical model writes in qonnx, by the node's name.

    The exact graph's tensors have the same names, but for those that it has no use for. Sums are exact
    where they stay below 2^24, the integers that float32 holds.
    """
    nodes = [n for n in canonical.graph.node if canonical.get_tensor_datatype(n.output[0]).is_integer()]
    found: dict[str, list[IntArray]] = {node.name: [] for node in nodes}
    for chunk in _chunks(inputs):
        context = _execute(canonical, chunk)
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


def _grids(model: ModelWrapper, canonical: ModelWrapper) -> Iterator[tuple[str, tuple[Any, Any, str]]]:
    """``(scale, offset, integer tensor)`` of every quantised tensor, and of outputs without a quantizer."""
    constants = initializers(model.graph)
    written = {name for node in canonical.graph.node for name in node.output}
    known: Constants = dict(constants)
    for node in model.graph.node:
        name = node.output[0]
        if node.op_type not in QUANTIZERS:
            continue
        if f"{name}{INTEGER_SUFFIX}" in written:
            yield name, (quantizer_of(node, known).scale, 0.0, f"{name}{INTEGER_SUFFIX}")
        elif node.input[0] in constants:
            quantizer = quantizer_of(node, known)
            known[name] = quantizer.mantissas(np.asarray(constants[node.input[0]])) * quantizer.scale
    quantised = {node.output[0] for node in model.graph.node if node.op_type in QUANTIZERS}
    for output in canonical.graph.output:
        if output.name not in quantised:
            yield output.name, _output_grid(canonical, output.name)


def _output_grid(canonical: ModelWrapper, name: str) -> tuple[Any, Any, str]:
    producers = {output: node for node in canonical.graph.node for output in node.output}
    integers = {tensor for tensor in producers if canonical.get_tensor_datatype(tensor).is_integer()}
    rank = len(canonical.get_tensor_shape(name))
    tail, _ = collect_tail(name, producers, initializers(canonical.graph), integers, rank)
    form = affine_form(tail)
    assert form is not None  # or the model would not have been lowered
    scale, offset = (part.reshape((-1, *[1] * (rank - 2))) if rank > 1 else part for part in form)
    return scale, offset, tail.roots[0]
