"""Executions of one model by several backends, brought to the exact graph's codes and compared.

A comparison becomes a row of the manifest's ``verification``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import CheckFailedError
from qhw.sim.compare import Comparison, compare
from qhw.sim.rows import Row, not_compared, row_of

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

    from qhw.formats.modes import IntArray
    from qhw.graph.ir import ExactGraph

FLOAT32_BITS, FLOAT64_BITS = 24, 53
"""Integers up to this width are exact in float32 (qonnx) and float64 (torch, for the comparison)."""


class VerificationError(CheckFailedError):
    """Two executions differ; ``row`` is the manifest's entry."""

    def __init__(self, row: Row, hint: str):
        super().__init__(
            f"{row['backend']} differs from {row['reference']} in {row['mismatches']:,} of "
            f"{row['codes_compared']:,} codes, first in {row['first_difference']}",
            hint=hint,
        )
        self.row = row


def checked(row: Row, hint: str) -> Row:
    """The row itself, unless codes differ.

    Raises:
        VerificationError: they do.
    """
    if row["mismatches"]:
        raise VerificationError(row, hint)
    return row


def widest_tensor(graph: ExactGraph) -> tuple[int, str]:
    """The bits, and the name, of the widest tensor."""
    return max((kind.format.width, name) for name, kind in graph.tensors.items())


def held_by(graph: ExactGraph, bits: int) -> set[str]:
    """The tensors that are exact in a float of ``bits`` bits: they, and all that they are computed from."""
    held = {name for name in (*graph.inputs, *graph.constants) if graph.tensors[name].format.width <= bits}
    for node in graph.nodes:
        if graph.tensors[node.output].format.width <= bits and held.issuperset(node.inputs):
            held.add(node.output)
    return held


def torch_row(graph: ExactGraph, expected: Mapping[str, IntArray], values: Mapping[str, NDArray[Any]]) -> Row:
    """The exact graph against torch's tensors (N, ...) in float64, where that type holds every sum."""
    bits, name = widest_tensor(graph)
    if bits > FLOAT64_BITS:
        return not_compared("exact graph", "torch", f"range: {name} has {bits} bits, float64 {FLOAT64_BITS}")
    found = mantissas_of(graph, values)
    comparison = compare(graph, found, expected, names=("torch", "exact graph"))
    return row_of(comparison, len(next(iter(values.values()))))


def qonnx_row(
    graph: ExactGraph, expected: Mapping[str, IntArray], inputs: Mapping[str, NDArray[Any]], model: Path
) -> Row:
    """qonnx's own execution of the model file, in float32, against the exact graph, tensor by tensor."""
    from qhw.graph.reading.load import load_qonnx

    found = execute_qonnx(graph, model, inputs)
    departs = departures_of_qonnx(load_qonnx(model))
    names = ("exact graph", "qonnx, FloatQuant as specified" if departs else "qonnx")
    return _within_float32(graph, compare(graph, expected, found, names=names), inputs)


def departures_of_qonnx(model: ModelWrapper) -> dict[str, str]:
    """FloatQuant nodes that qonnx's own executor computes otherwise than their specification, and why."""
    from qhw.onnx_ops.float_quant import differences_of_qonnx

    return differences_of_qonnx(model.model)


def canonical_row(
    graph: ExactGraph,
    expected: Mapping[str, IntArray],
    inputs: Mapping[str, NDArray[Any]],
    canonical: ModelWrapper,
) -> Row:
    """qonnx's execution of ``canonical.onnx``, wide sums in float64, against the exact graph, by tensor.

    Functions that qonnx does not execute there (Sigmoid...) are named in the row, as ``in_float64``.
    """
    from qhw.sim.canonical import canonical_integers, functions_in_float64

    found = canonical_integers(canonical, inputs)
    names = ("exact graph", "canonical.onnx")
    row = _within_float32(graph, compare(graph, expected, found, names=names), inputs, FLOAT64_BITS)
    functions = functions_in_float64(canonical)
    return row | {"in_float64": functions} if functions else row


def _within_float32(
    graph: ExactGraph,
    comparison: Comparison,
    inputs: Mapping[str, NDArray[Any]],
    held_bits: int = FLOAT32_BITS,
) -> Row:
    """The row; where codes differ, of the tensors that the float holds: beyond, a difference says nothing."""
    samples, held = len(next(iter(inputs.values()))), held_by(graph, held_bits)
    layers = tuple(layer for layer in comparison.layers if layer.tensor in held)
    if not comparison.mismatches or len(layers) == len(comparison.layers):
        return row_of(comparison, samples)
    bits, name = widest_tensor(graph)
    reason = f"range: {name} has {bits} bits, qonnx's float {held_bits}"
    if not layers:
        return not_compared(comparison.right, comparison.left, reason)
    return row_of(replace(comparison, layers=layers), samples) | {"not_compared": reason}


def mantissas_of(graph: ExactGraph, values: Mapping[str, NDArray[Any]]) -> dict[str, IntArray]:
    """Real values (N, ...) as mantissas of the graph's tensors of the same names.

    Inputs are left out: a graph takes them as the user has them, their scaling folded into what they mean.

    Raises:
        CheckFailedError: a value lies between two codes of its tensor.
    """
    found = {}
    for name, value in values.items():
        kind = graph.tensors.get(name)
        if kind is not None and name not in (*graph.constants, *graph.inputs):
            shaped = np.asarray(value, dtype=np.float64).reshape(len(value), *kind.shape)
            exponent = kind.exponent.broadcast(len(kind.shape)).astype(np.int32)
            found[name] = _integers(name, np.ldexp(shaped, -exponent))
    return found


def _integers(name: str, mantissas: NDArray[np.float64]) -> IntArray:
    off = np.asarray(mantissas != np.rint(mantissas))
    if off.any():
        where = tuple(int(i) for i in np.argwhere(off)[0])
        raise CheckFailedError(
            f"{name} holds a value between two codes: element {where} is {mantissas[where]} steps",
            hint="this is a bug of qhw: please report it with the model",
        )
    if np.abs(mantissas).max(initial=0.0) < 2.0**62:
        return mantissas.astype(np.int64)
    return np.array([int(mantissa) for mantissa in mantissas.flat], dtype=object).reshape(mantissas.shape)


def execute_qonnx(graph: ExactGraph, model: Path, inputs: Mapping[str, NDArray[Any]]) -> dict[str, IntArray]:
    """Run a QONNX file with qonnx itself, in float32; its tensors as mantissas of the graph's.

    FloatQuant nodes that qonnx computes otherwise than specified are executed by qhw's own operator. Where
    scales are no powers of two, a quantised tensor's mantissa is the nearest one to its value over its scale:
    the file's own execution differs from that by float32's rounding.
    """
    from qhw.graph.lower import lower_model
    from qhw.graph.reading.load import load_qonnx
    from qhw.onnx_ops.specified import as_specified
    from qhw.sim.canonical import tensor_scales

    lowering = lower_model(load_qonnx(model))
    wrapper = lowering.model
    values = _execute(as_specified(wrapper), inputs)
    scaled = {
        scale.tensor: scale.integers(values[name])
        for name, scale in tensor_scales(lowering)
        if name in values and scale.tensor in graph.tensors and scale.tensor not in graph.inputs
    }
    if lowering.reason is not None:
        return scaled
    # An output may have a scale of its own (a mean is a sum), and then no node of its tensor's name.
    named = {
        tensor: values[name]
        for tensor, name in _tensors(graph, wrapper).items()
        if name in values and tensor not in graph.output_scales
    }
    outputs = {tensor: integers for tensor, integers in scaled.items() if tensor in graph.outputs}
    return outputs | mantissas_of(graph, named)


def _tensors(graph: ExactGraph, wrapper: ModelWrapper) -> dict[str, str]:
    """The file's tensor behind a tensor of the exact graph, which is called after the node, or alike."""
    by_node = {node.name: node.output for node in graph.nodes}
    found = {}
    for node in wrapper.graph.node:
        name = node.output[0]
        tensor = by_node.get(node.name, name if name in graph.tensors else None)
        if tensor is not None and tensor not in graph.constants:
            found[tensor] = name
    return found


def _execute(wrapper: ModelWrapper, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Every tensor (N, ...) that depends on the input, sample by sample: files may fix the batch at 1."""
    from qhw.sim.canonical import executed_by_qonnx

    names = [name for node in wrapper.graph.node for name in node.output]
    samples = []
    for index in range(len(next(iter(inputs.values())))):
        feed = {name: np.asarray(x[index : index + 1], dtype=np.float32) for name, x in inputs.items()}
        context = executed_by_qonnx(wrapper, feed)
        samples.append({name: context[name] for name in names})
    return {
        name: np.concatenate([sample[name] for sample in samples])
        for name in names
        if np.ndim(samples[0][name]) and len(samples[0][name]) == 1
    }
