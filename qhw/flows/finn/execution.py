"""FINN's Python execution of its models, on batches, and only of what a step has changed.

FINN's operators are executed by their own ``execute_node``. Three are helped, since FINN runs them image by
image and slowly: windows are gathered by NumPy, depthwise units are called once per image, and thresholds are
counted by a binary search. ``tests/flows/finn/test_execution.py`` compares each with FINN's and qonnx's own.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.flows.finn.tools import library

if TYPE_CHECKING:
    from onnx import NodeProto
    from qonnx.core.modelwrapper import ModelWrapper

Values = dict[str, NDArray[np.float32]]

_BATCH_NUMBERS = 1 << 27
"""Numbers that all tensors of a batch hold together at most: 512 MB."""

MOST_AT_ONCE = 64


def batch_size(model: ModelWrapper) -> int:
    """Images that are executed together."""
    numbers = sum(math.prod(model.get_tensor_shape(name) or [0]) for name in _tensors(model))
    return int(max(1, min(MOST_AT_ONCE, _BATCH_NUMBERS // max(1, numbers))))


def _tensors(model: ModelWrapper) -> list[str]:
    return [name for node in model.graph.node for name in node.output]


@dataclass
class Execution:
    """A batch of images, executed by one model after another; what a model leaves unchanged is kept.

    Args:
        inputs: integers (N, …) of the models' input.
    """

    inputs: NDArray[np.float32]
    _known: dict[bytes, list[NDArray[np.float32]]] = field(default_factory=dict)
    _latest: dict[str, tuple[bytes, NDArray[np.float32]]] = field(default_factory=dict)

    def run(self, model: ModelWrapper) -> Iterator[tuple[NodeProto, Values, bool]]:
        """Execute a model; each node with its results, and whether they were computed now."""
        count = len(self.inputs)
        prepared = for_batch(model, count)
        constants = {item.name: prepared.get_initializer(item.name) for item in prepared.graph.initializer}
        digests = {name: _digest(value) for name, value in constants.items()}
        context: dict[str, Any] = dict(constants)
        context[prepared.graph.input[0].name] = self.inputs
        digests[prepared.graph.input[0].name] = b"input"
        known: dict[bytes, list[NDArray[np.float32]]] = {}
        last = {name: index for index, node in enumerate(prepared.graph.node) for name in node.input}
        with _fast_thresholds():
            for index, node in enumerate(prepared.graph.node):
                key = _key(node, [digests[name] for name in node.input])
                results = self._known.get(key)
                computed = results is None
                if results is None:
                    results = _execute(node, prepared, context, count)
                known[key] = results
                for place, (name, value) in enumerate(zip(node.output, results, strict=True)):
                    context[name] = value
                    digests[name] = self._same_as_before(name, value, key + bytes([place]))
                yield node, dict(zip(node.output, results, strict=True)), computed
                for name in node.input:
                    if last[name] == index and name not in constants:
                        context.pop(name, None)
        self._known = known

    def outputs(self, model: ModelWrapper) -> Values:
        """Every tensor that a model computes."""
        found: Values = {}
        for _, results, _ in self.run(model):
            found |= results
        return found

    def _same_as_before(self, name: str, value: NDArray[np.float32], key: bytes) -> bytes:
        """The digest of a tensor: that of the last model's tensor of its name, where they are equal."""
        before = self._latest.get(name)
        if before is not None and (before[1] is value or np.array_equal(before[1], value)):
            return before[0]
        self._latest[name] = (key, value)
        return key


def _digest(value: NDArray[Any]) -> bytes:
    whole = np.ascontiguousarray(value)
    return hashlib.sha256(repr((whole.shape, whole.dtype.str)).encode() + whole.tobytes()).digest()


def _key(node: NodeProto, inputs: list[bytes]) -> bytes:
    """What decides a node's results: its operation, its attributes and its inputs."""
    attributes = sorted(part.SerializeToString(deterministic=True) for part in node.attribute)
    digest = hashlib.sha256(repr((abstract(node.op_type), attributes, len(node.output))).encode())
    for part in inputs:
        digest.update(part)
    return digest.digest()


def abstract(op_type: str) -> str:
    """A layer's type without its variant: RTL and HLS mean the same numbers."""
    return op_type.removesuffix("_rtl").removesuffix("_hls")


def for_batch(model: ModelWrapper, count: int) -> ModelWrapper:
    """A copy of a model for ``count`` images at once, of FINN's layers without a variant."""
    batched = copy.deepcopy(model)
    operator = library("qonnx.custom_op.registry").getCustomOp
    for node in batched.graph.node:
        if not node.domain.startswith("finn."):
            continue
        node.op_type, node.domain = abstract(node.op_type), "finn.custom_op.fpgadataflow"
        layer = operator(node)
        types = layer.get_nodeattr_types()
        for name in ("numInputVectors", "BatchSize", "batchSize"):
            if name in types:
                value = layer.get_nodeattr(name)
                layer.set_nodeattr(name, count if isinstance(value, int) else [count, *list(value)[1:]])
        for name in ("inp_shape", "out_shape", "lhs_shape", "rhs_shape", "in_shape", "transpose_in_shape"):
            if name in types:
                shape = list(layer.get_nodeattr(name))
                if len(shape) > 1 and shape[0] == 1:
                    layer.set_nodeattr(name, [count, *shape[1:]])
    for info in [*batched.graph.value_info, *batched.graph.input, *batched.graph.output]:
        shape = batched.get_tensor_shape(info.name)
        if shape and batched.get_initializer(info.name) is None:
            batched.set_tensor_shape(info.name, [count, *shape[1:]])
    return batched


def _execute(node: NodeProto, model: ModelWrapper, context: dict[str, Any], count: int) -> list[NDArray[Any]]:
    operator = library("qonnx.custom_op.registry").getCustomOp
    kind = node.op_type
    if not node.domain.startswith("finn."):
        attributes = operator(node) if node.domain else _attributes(node)
        found = _STANDARD[kind](attributes, *(context[name] for name in node.input))
        results = list(found) if isinstance(found, tuple) else [found]
    else:
        layer = operator(node)
        if kind == "ConvolutionInputGenerator":
            return [_windows_of(layer, context[node.input[0]])]
        for name in node.output:
            context[name] = np.empty(model.get_tensor_shape(name), dtype=np.float32)
        if kind == "VVAU" and count > 1:
            return [_image_by_image(layer, node, context, model)]
        layer.execute_node(context, model.graph)
        results = [context[name] for name in node.output]
    return [np.asarray(result, dtype=np.float32) for result in results]


def _image_by_image(
    layer: Any, node: NodeProto, context: dict[str, Any], model: ModelWrapper
) -> NDArray[np.float32]:
    batch, empty = context[node.input[0]], context[node.output[0]]
    results = []
    for index in range(len(batch)):
        own = dict(context)
        own[node.input[0]] = batch[index : index + 1]
        own[node.output[0]] = empty[:1]
        layer.execute_node(own, model.graph)
        results.append(own[node.output[0]])
    return np.concatenate(results).astype(np.float32)


def _windows_of(layer: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    names = ("ConvKernelDim", "Stride", "Dilation")
    kernel, stride, dilation = (list(layer.get_nodeattr(name)) for name in names)
    return windows(x, kernel, stride, dilation)


def windows(
    x: NDArray[Any], kernel: list[int], stride: list[int], dilation: list[int]
) -> NDArray[np.float32]:
    """The windows of images (N, H, W, C): (N, OH, OW, kh · kw · C), channels innermost."""
    extent = [(size - 1) * step + 1 for size, step in zip(kernel, dilation, strict=True)]
    view = np.lib.stride_tricks.sliding_window_view(x, extent, axis=(1, 2))
    view = view[:, :: stride[0], :: stride[1], :, :: dilation[0], :: dilation[1]]
    rows = view.transpose(0, 1, 2, 4, 5, 3)
    return np.ascontiguousarray(rows).reshape(*rows.shape[:3], -1).astype(np.float32, copy=False)


def counted(
    values: NDArray[Any],
    thresholds: NDArray[Any],
    out_scale: float | None = None,
    out_bias: float | None = None,
    channels_last: bool = False,
) -> NDArray[Any]:
    """qonnx's ``multithreshold`` by a binary search in each channel's ordered thresholds."""
    moved = values if channels_last else np.moveaxis(values, 1, -1)
    counts = np.empty(moved.shape, dtype=np.float32)
    if len(thresholds) == 1:
        counts[...] = np.searchsorted(thresholds[0], moved, side="right")
    else:
        for channel, row in enumerate(thresholds):
            counts[..., channel] = np.searchsorted(row, moved[..., channel], side="right")
    scaled = (1.0 if out_scale is None else out_scale) * counts + (0.0 if out_bias is None else out_bias)
    return scaled if channels_last else np.moveaxis(scaled, -1, 1)


@contextlib.contextmanager
def _fast_thresholds() -> Iterator[None]:
    """FINN's layers with the binary search in place of qonnx's comparison with every threshold at once."""
    names = ("thresholding", "matrixvectoractivation", "vectorvectoractivation")
    modules = [library(f"finn.custom_op.fpgadataflow.{name}") for name in names]
    before = [module.multithreshold for module in modules]
    for module in modules:
        module.multithreshold = counted
    try:
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.multithreshold = own


# --- the operators of the streamlined graph, before FINN has made layers of them


@dataclass(frozen=True)
class _Attributes:
    values: Mapping[str, Any]

    def get_nodeattr(self, name: str) -> Any:
        return self.values[name]


def _attributes(node: NodeProto) -> _Attributes:
    from onnx import helper

    return _Attributes({part.name: helper.get_attribute_value(part) for part in node.attribute})


def _im2col(node: Any, x: NDArray[Any]) -> NDArray[Any]:
    top, left, bottom, right = node.get_nodeattr("pad_amount")
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    names = ("kernel_size", "stride", "dilations")
    kernel, stride, dilation = (list(node.get_nodeattr(name)) for name in names)
    return windows(padded, kernel, stride, dilation)


def _thresholds(node: Any, x: NDArray[Any], thresholds: NDArray[Any]) -> NDArray[Any]:
    return counted(x, thresholds, node.get_nodeattr("out_scale"), node.get_nodeattr("out_bias"), True)


def _max_pool(node: Any, x: NDArray[Any]) -> NDArray[Any]:
    top, left, bottom, right = node.get_nodeattr("pads")
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    kernel = list(node.get_nodeattr("kernel_shape"))
    found = windows(padded, kernel, list(node.get_nodeattr("strides")), [1, 1])
    largest: NDArray[Any] = found.reshape(*found.shape[:3], math.prod(kernel), x.shape[-1]).max(axis=3)
    return largest


def _reshape(_: Any, x: NDArray[Any], shape: NDArray[Any]) -> NDArray[Any]:
    return x.reshape(len(x), *shape[1:])


def _reduce_sum(node: Any, x: NDArray[Any], axes: NDArray[Any]) -> NDArray[Any]:
    total: NDArray[Any] = x.sum(axis=tuple(int(axis) for axis in axes))
    return total


def _split(node: Any, x: NDArray[Any], sizes: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    return tuple(np.split(x, np.cumsum(sizes)[:-1], axis=node.get_nodeattr("axis")))


_STANDARD: Mapping[str, Callable[..., Any]] = {
    "Add": lambda node, a, b: a + b,
    "Concat": lambda node, *parts: np.concatenate(parts, axis=node.get_nodeattr("axis")),
    "Im2Col": _im2col,
    "MatMul": lambda node, a, b: np.matmul(a, b),
    "MaxPoolNHWC": _max_pool,
    "Mul": lambda node, a, b: a * b,
    "MultiThreshold": _thresholds,
    "ReduceSum": _reduce_sum,
    "Reshape": _reshape,
    "Split": _split,
    "Sub": lambda node, a, b: a - b,
}
