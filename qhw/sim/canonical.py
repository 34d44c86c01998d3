"""How a canonical model behaves under qonnx, and how far the original model's own execution is from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from onnx import ModelProto, NodeProto
from onnx.reference import ReferenceEvaluator
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_node, execute_onnx
from qonnx.transformation.infer_shapes import InferShapes

from qhw.errors import InputError, UnsupportedError
from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.formats.rounding import requantize_values
from qhw.formats.table import TableFormat
from qhw.graph.encode import encode_inputs
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import Lowering
from qhw.graph.onnx_tools import attributes
from qhw.graph.tails.operations import format_named
from qhw.onnx_ops.specified import as_specified
from qhw.sim.fast import FastExecutor

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
        codes, differing: numbers of codes compared, and of codes that differ.
        largest: the largest difference, in codes.
    """

    tensor: str
    codes: int
    differing: int
    largest: int


def compare_with_original(lowering: Lowering, inputs: Mapping[str, ArrayLike]) -> tuple[Difference, ...]:
    """Count how far a model's float32 execution differs from its exact graph, quantizer by quantizer.

    Both are executed from the inputs on, so a difference carries on to what follows. An output without a
    quantizer is compared on the scale of its accumulator; numbers of a format that lists its codes as their
    places among its numbers.

    Args:
        inputs: float arrays (N, …) by input name.
    """
    graph = lowering.graph
    scales = dict(tensor_scales(lowering))
    counts = {name: np.zeros(3, dtype=np.int64) for name in scales}
    model, executor = as_specified(lowering.model), FastExecutor(graph)
    for chunk in _chunks(inputs):
        original = _execute(model, chunk)
        reference = executor(encode_inputs(graph, chunk), keep="all")
        for name, scale in scales.items():
            apart = np.abs(scale.codes(original[name]) - scale.places(reference[scale.tensor]))
            seen = np.array([apart.size, np.count_nonzero(apart), apart.max(initial=0)], dtype=np.int64)
            counts[name] = np.append(counts[name][:2] + seen[:2], max(counts[name][2], seen[2]))
    return tuple(Difference(name, *(int(n) for n in count)) for name, count in counts.items())


def canonical_integers(canonical: ModelWrapper, inputs: Mapping[str, ArrayLike]) -> dict[str, IntArray]:
    """The results of every integer node of a canonical model in qonnx, by the node's name.

    The exact graph's tensors have the same names, but for those that it has no use for. Sums that float32
    does not hold are taken in float64, by ONNX's reference implementation: exact where they stay below 2^53.
    """
    nodes = [n for n in canonical.graph.node if _is_integer(canonical, n.output[0])]
    found: dict[str, list[IntArray]] = {node.name: [] for node in nodes}
    for chunk in _chunks(inputs):
        context = _execute_exactly(canonical, chunk)
        for node in nodes:
            found[node.name].append(context[node.output[0]].astype(np.int64))
    return {name: np.concatenate(parts) for name, parts in found.items()}


def functions_in_float64(canonical: ModelWrapper) -> list[str]:
    """Operators of a canonical model that are not qonnx's to execute, but ONNX's reference in float64."""
    return sorted({node.op_type for node in canonical.graph.node if _is_approximated(canonical, node)})


def _is_approximated(model: ModelWrapper, node: NodeProto) -> bool:
    is_integer = model.get_tensor_datatype(node.output[0]).is_integer()
    return not node.domain and node.op_type in _APPROXIMATED and not is_integer


def _is_integer(model: ModelWrapper, tensor: str) -> bool:
    """Whether a tensor holds integers of the exact graph, not such times a power of two."""
    kind = model.get_tensor_datatype(tensor)
    return bool(kind.is_integer()) and not str(kind.name).startswith("SCALEDINT")


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
    return executed_by_qonnx(_with_batch(model, batch), inputs)


def executed_by_qonnx(model: ModelWrapper, inputs: Context) -> Context:
    """Every tensor of a model, as qonnx and ONNX Runtime compute it.

    Raises:
        UnsupportedError: they cannot execute the model, with what they say.
    """
    try:
        context: Context = execute_onnx(model, dict(inputs), return_full_exec_context=True)
    except Exception as error:  # whatever qonnx and ONNX Runtime raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnsupportedError(
            f"qonnx cannot execute the model, with which its exact graph is compared: {reason}",
            hint="'qhw simulate' and 'qhw cost' need no execution by qonnx",
        ) from error
    return context


def _execute_exactly(model: ModelWrapper, inputs: Context) -> Context:
    """Every tensor of a canonical model: by qonnx, but integers beyond 24 bits in float64.

    What reads those in float32 has them rounded once, as the exact sums that they are. Exponentials and their
    like are taken in float64 too, by ONNX's reference implementation, and rounded once: ONNX Runtime's
    float32 kernels approximate (a Sigmoid of -18 is 0), and not alike on every machine.
    """
    whole = _with_batch(model, len(next(iter(inputs.values()))))
    opsets = whole.get_opset_imports()
    context: Context = whole.make_empty_exec_context() | inputs
    found: Any
    for node in whole.graph.node:
        names = [name for name in node.input if name]
        kind = whole.get_tensor_datatype(node.output[0])
        is_wide = any(context[name].dtype == np.float64 for name in names)
        if kind.is_integer() and (is_wide or kind.bitwidth() > FLOAT32_BITS) and node.op_type in _EXACT:
            found = _EXACT[node.op_type](node, context, opsets)
        elif not node.domain and kind.is_integer() and (is_wide or kind.bitwidth() > FLOAT32_BITS):
            wide = {name: _as_float64(context[name]) for name in names}
            (found,) = ReferenceEvaluator(node, opsets=opsets).run(None, wide)
        elif _is_approximated(whole, node):
            rounded = {name: context[name].astype(np.float32).astype(np.float64) for name in names}
            (found,) = ReferenceEvaluator(node, opsets=opsets).run(None, rounded)
            found = found.astype(np.float32)
        else:
            narrow = context | {name: context[name].astype(np.float32) for name in names if is_wide}
            execute_node(node, narrow, whole.graph, opsets[node.domain])
            found = narrow[node.output[0]]
        is_narrow = kind.is_integer() and kind.bitwidth() <= FLOAT32_BITS
        context[node.output[0]] = found.astype(np.float32) if is_narrow else found
    return context


def _fixed(node: NodeProto, context: Context, opsets: Mapping[str, int]) -> NDArray[np.float64]:
    """A FixedQuant of integers, in float64."""
    options = attributes(node)
    modes = Rounding(options["rounding"]), Overflow(options["overflow"])
    values = context[node.input[0]].astype(np.float64)
    found = requantize_values(values, 0, int(options["width"]), bool(options["signed"]), *modes)
    return np.asarray(found, dtype=np.float64)


def _listed(node: NodeProto, context: Context, opsets: Mapping[str, int]) -> NDArray[np.float64]:
    """A FormatQuant at scale 1, in float64."""
    format = format_named(attributes(node)["format"])
    return np.asarray(format.quantize(context[node.input[0]].astype(np.float64)), dtype=np.float64)


_EXACT = {"FixedQuant": _fixed, "FormatQuant": _listed}

_APPROXIMATED = frozenset({"Erf", "Exp", "Log", "Sigmoid", "Softplus", "Tanh"})
"""Functions of which float32 kernels give approximations."""


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


_BEYOND = 2.0**62
"""Stands for a code that no int64 holds."""


@dataclass(frozen=True)
class TensorScale:
    """The scale of a tensor's integers: ``value = scale * integer + offset``.

    Args:
        scale, offset: float64, broadcasting over the tensor with its batch axis.
        tensor: the exact graph's tensor of the integers.
        format: the integers' format, where it is one that lists its codes.
    """

    scale: NDArray[np.float64]
    offset: NDArray[np.float64]
    tensor: str
    format: TableFormat | None = None

    def codes(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The nearest codes of real values."""
        with np.errstate(divide="ignore", invalid="ignore"):  # a scale too small for float32 divides by zero
            units = (values.astype(np.float64) - self.offset) / self.scale
        units = np.nan_to_num(units, nan=0.0, posinf=_BEYOND, neginf=-_BEYOND)
        if self.format is None:
            return np.asarray(np.rint(units))
        numbers = self.format.numbers.astype(np.float64)
        return np.asarray(np.searchsorted((numbers[1:] + numbers[:-1]) / 2, units), dtype=np.float64)

    def integers(self, values: NDArray[Any]) -> IntArray:
        """The integers that are closest to real values."""
        codes = self.codes(values).astype(np.int64)
        return codes if self.format is None else np.asarray(self.format.numbers[codes])

    def places(self, integers: NDArray[Any]) -> NDArray[np.float64]:
        """The codes of integers."""
        if self.format is None:
            return np.asarray(integers, dtype=np.float64)
        numbers = self.format.numbers.astype(np.float64)
        return np.asarray(np.searchsorted(numbers, integers), dtype=np.float64)


def tensor_scales(lowering: Lowering) -> Iterator[tuple[str, TensorScale]]:
    """The scale of every quantised tensor of the file, and of its outputs."""
    graph = lowering.graph
    for name, (tensor, free) in lowering.units.items():
        kind = graph.tensors[tensor]
        unit = _unit(graph, tensor) * (1.0 if free is None else _batched(free.array(len(kind.shape))))
        format = kind.format if isinstance(kind.format, TableFormat) else None
        yield name, TensorScale(np.asarray(unit, dtype=np.float64), np.zeros(()), tensor, format)
    for tensor, output in zip(graph.outputs, lowering.model.graph.output, strict=True):
        scale = graph.output_scales.get(tensor)
        if output.name not in lowering.units:
            rank = len(graph.tensors[tensor].shape)
            unit = _unit(graph, tensor)
            if scale is None:
                yield output.name, TensorScale(unit, np.zeros(()), tensor)
            else:
                factor, offset = (_batched(part) for part in scale.arrays(rank))
                yield output.name, TensorScale(unit * factor, offset, tensor)


def _unit(graph: ExactGraph, tensor: str) -> NDArray[np.float64]:
    kind = graph.tensors[tensor]
    return _batched(np.ldexp(1.0, kind.exponent.broadcast(len(kind.shape)).astype(np.int32)))


def _batched(array: Any) -> NDArray[Any]:
    whole = np.asarray(array)
    return whole if whole.ndim == 0 else np.expand_dims(whole, 0)
