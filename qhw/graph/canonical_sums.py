"""Rules of ``canonicalise`` for what sums, multiplies or joins integers: scales are pulled behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from qhw.errors import UnsupportedError
from qhw.graph.canonical_writer import INTEGER_SUFFIX, Floating, Scaled, Stored, Writer
from qhw.graph.onnx_tools import attributes, describe
from qhw.graph.tail_operations import Value

_SAME_SCALE = 2.0**-20
"""A quantised bias belongs to an accumulator whose scale it states to 20 bits: both are float32 products."""


_LARGEST_RATIO = 1 << 16


def integer_binary(writer: Writer, node: NodeProto) -> bool:
    """Add or multiply integers, where the operands' scales allow it."""
    if len(node.input) != 2:
        return False
    left, right = (writer.operands.get(name) for name in node.input)
    if isinstance(left, Stored):
        left, right = right, left
    if not isinstance(left, Scaled):
        return False
    if isinstance(right, Scaled):
        return (_add_tensors if node.op_type != "Mul" else _multiply_tensors)(writer, node, left, right)
    if isinstance(right, Stored) and node.op_type != "Mul":
        return _add_stored(writer, node, left, right)
    return False


def _add_tensors(writer: Writer, node: NodeProto, left: Scaled, right: Scaled) -> bool:
    if not (left.uniform and right.uniform) and not np.array_equal(left.scale, right.scale):
        return False
    coarse, fine = (left, right) if left.scale.max() >= right.scale.max() else (right, left)
    ratio = float(coarse.scale.max()) / float(fine.scale.max())
    if not ratio.is_integer() or ratio > _LARGEST_RATIO:
        return False
    tensor, low, high = coarse.tensor, int(ratio) * coarse.low, int(ratio) * coarse.high
    if ratio > 1:
        factor = writer.constant(f"{node.output[0]}_ratio", np.float32(ratio))
        tensor = writer.emit("Mul", [tensor, factor], f"{node.output[0]}_aligned", like=node)
        writer.annotate(tensor, low, high)
    low, high = low + fine.low, high + fine.high
    _write(writer, node, "Add", [tensor, fine.tensor], Scaled("", fine.scale, low, high))
    return True


def _multiply_tensors(writer: Writer, node: NodeProto, left: Scaled, right: Scaled) -> bool:
    corners = [a * b for a in (left.low, left.high) for b in (right.low, right.high)]
    scale = np.asarray(left.scale * right.scale, dtype=np.float32)
    _write(writer, node, "Mul", [left.tensor, right.tensor], Scaled("", scale, min(corners), max(corners)))
    return True


def _add_stored(writer: Writer, node: NodeProto, left: Scaled, right: Stored) -> bool:
    """A bias on the accumulator's own grid is added to the integers."""
    if not _on_grid(right, left.scale):
        return False
    result = replace(left, low=left.low - right.bound, high=left.high + right.bound, format=None)
    _write(writer, node, "Add", [left.tensor, writer.integers(right)], result)
    return True


def _on_grid(bias: Stored, scale: Value) -> bool:
    """Whether a quantised bias has the accumulator's scale, to float32's precision."""
    stated, wanted = bias.scale.astype(np.float64), scale.astype(np.float64)
    if stated.size > 1 and wanted.size > 1:
        stated, wanted = stated.reshape(-1), wanted.reshape(-1)
        if stated.size != wanted.size:
            return False
    return bool((np.abs(stated - wanted) <= _SAME_SCALE * wanted).all())


def _write(
    writer: Writer, node: NodeProto, op: str, inputs: Sequence[str], result: Scaled, **options: Any
) -> None:
    """Append an integer operation that stands for ``node``."""
    tensor = writer.emit(op, inputs, f"{node.output[0]}{INTEGER_SUFFIX}", like=node, **options)
    writer.annotate(tensor, result.low, result.high, result.format)
    writer.operands[node.output[0]] = replace(result, tensor=tensor)


def _sum_bounds(x: Scaled, weight: Stored, axes: tuple[int, ...]) -> tuple[int, int]:
    """Bounds of an accumulator, from the weights' sizes alone."""
    most = int(np.abs(weight.mantissas).astype(np.float64).sum(axis=axes).max(initial=0))
    bound = most * max(abs(x.low), abs(x.high))
    return -bound, bound


def conv(writer: Writer, node: NodeProto) -> None:
    """Integer convolution; a bias on its grid stays inside, any other follows the scale."""
    x, weight = writer.scaled(node.input[0], node), writer.stored(node.input[1], node)
    options = attributes(node)
    if options.get("auto_pad", "NOTSET") not in ("NOTSET", ""):
        raise UnsupportedError(f"{describe(node)}: auto_pad {options['auto_pad']}", allowed="explicit pads")
    rank = writer.rank(node.output[0])
    weight_scale = _per_output(node, weight, axis=0).reshape((1, -1, *[1] * (rank - 2)))
    scale = np.asarray(_input_scale(node, x, weight) * weight_scale, dtype=np.float32)
    scale = scale.reshape(()) if scale.size == 1 else scale
    low, high = _sum_bounds(x, weight, tuple(range(1, weight.mantissas.ndim)))
    result = Scaled("", scale, low, high)
    inputs = [x.tensor, writer.integers(weight)]
    options = {k: v for k, v in options.items() if k != "auto_pad"}
    bias = node.input[2] if len(node.input) > 2 else ""
    operand = writer.operands.get(bias)
    if isinstance(operand, Stored) and _on_grid(operand, scale):
        result = replace(result, low=low - operand.bound, high=high + operand.bound)
        inputs.append(writer.integers(operand))
        bias = ""
    _write(writer, node, "Conv", inputs, result, **options)
    if bias:
        _add_bias(writer, node, bias, rank)


def _add_bias(writer: Writer, node: NodeProto, bias: str, rank: int) -> None:
    """A bias that is no integer: added behind the scale, in float32."""
    values = writer.constant_values(bias)
    if values is None:
        raise UnsupportedError(f"{describe(node)}: its bias is computed", allowed="constant biases")
    scaled = writer.floating(node.output[0], node)
    constant = writer.constant(f"{bias}_per_channel", values.reshape((1, -1, *[1] * (rank - 2))))
    tensor = writer.emit("Add", [scaled.tensor, constant], node.output[0], like=node)
    writer.operands[node.output[0]] = Floating(tensor)


def _per_output(node: NodeProto, weight: Stored, axis: int) -> Value:
    """A weight's scale as one number, or one per output channel."""
    scale = weight.scale
    if scale.size == 1:
        return scale.reshape(1)
    shape = (1,) * (weight.mantissas.ndim - scale.ndim) + scale.shape
    axis %= len(shape)
    if any(size > 1 for i, size in enumerate(shape) if i != axis):
        raise UnsupportedError(
            f"{describe(node)}: its weights have scales of shape {scale.shape}",
            allowed="one scale, or one per output channel",
        )
    return scale.reshape(-1)


def _input_scale(node: NodeProto, x: Scaled, weight: Stored) -> Value:
    """The input's scale, per output channel where a depthwise convolution allows it."""
    if x.uniform:
        return x.scale.reshape(())
    channels, filters = x.scale.shape[1] if x.scale.ndim > 1 else 0, weight.mantissas.shape[0]
    depthwise = node.op_type == "Conv" and attributes(node).get("group", 1) == channels == x.scale.size
    if not depthwise:
        raise UnsupportedError(
            f"{describe(node)} sums over channels that have {x.scale.size} different scales",
            allowed="one scale for the whole input (or a depthwise convolution)",
            hint="quantise its input per tensor",
        )
    return np.repeat(x.scale, filters // channels, axis=1)


def matmul(writer: Writer, node: NodeProto) -> None:
    """Integer matrix product, of weights or of two computed operands."""
    a, b = (writer.operands.get(name) for name in node.input)
    if a is None or isinstance(a, Stored):
        raise UnsupportedError(f"{describe(node)}: its first operand is a constant", allowed="activations")
    x = writer.scaled(node.input[0], node)
    if isinstance(b, Scaled | Floating):
        _computed_matmul(writer, node, x, writer.scaled(node.input[1], node))
        return
    weight = writer.stored(node.input[1], node)
    rank = writer.rank(node.output[0])
    scale = np.asarray(_input_scale(node, x, weight) * _per_output(node, weight, axis=-1), dtype=np.float32)
    scale = scale.reshape(()) if scale.size == 1 else scale.reshape((1,) * (rank - 1) + (-1,))
    low, high = _sum_bounds(x, weight, (-2,))
    _write(writer, node, "MatMul", [x.tensor, writer.integers(weight)], Scaled("", scale, low, high))


def _computed_matmul(writer: Writer, node: NodeProto, a: Scaled, b: Scaled) -> None:
    if not (a.uniform and b.uniform):
        raise UnsupportedError(
            f"{describe(node)} multiplies tensors with scales per channel", allowed="one scale each"
        )
    inner = writer.original.get_tensor_shape(node.input[0])[-1]
    bound = inner * max(abs(a.low), abs(a.high)) * max(abs(b.low), abs(b.high))
    scale = np.asarray(a.scale * b.scale, dtype=np.float32)
    _write(writer, node, "MatMul", [a.tensor, b.tensor], Scaled("", scale, -bound, bound))


def check_window(node: NodeProto) -> None:
    """Refuse windows that do not state their padding, and nodes with a second result."""
    options = attributes(node)
    if options.get("ceil_mode") or options.get("auto_pad", "NOTSET") not in ("NOTSET", ""):
        raise UnsupportedError(
            f"{describe(node)} has ceil_mode or auto_pad", allowed="explicit pads, floor mode"
        )
    if len(node.output) > 1:
        raise UnsupportedError(f"{describe(node)} writes {len(node.output)} tensors", allowed="one")


def concat(writer: Writer, node: NodeProto) -> None:
    """Integers joined; different scales become a scale per channel."""
    parts = [writer.scaled(name, node) for name in node.input]
    rank = writer.rank(node.output[0])
    axis = attributes(node)["axis"] % rank
    low, high = min(p.low for p in parts), max(p.high for p in parts)
    scale = parts[0].scale
    if not all(p.uniform and p.scale.reshape(-1)[0] == scale.reshape(-1)[0] for p in parts):
        if axis != 1:
            raise UnsupportedError(
                f"{describe(node)} joins tensors of different scales along axis {axis}",
                allowed="one scale, or different ones along the channel axis",
                hint="quantise the joined tensors with one shared quantizer",
            )
        sizes = [writer.original.get_tensor_shape(name)[1] for name in node.input]
        rows = [np.broadcast_to(p.scale.reshape(-1), (n,)) for p, n in zip(parts, sizes, strict=True)]
        scale = np.concatenate(rows).reshape((1, -1, *[1] * (rank - 2)))
    formats = {p.format for p in parts}
    joined = Scaled("", scale, low, high, formats.pop() if len(formats) == 1 else None)
    _write(writer, node, "Concat", [p.tensor for p in parts], joined, axis=axis)


def average_pool(writer: Writer, node: NodeProto) -> None:
    """The window's sum of integers, as a depthwise convolution of ones; 1/n goes into the scale."""
    x = writer.scaled(node.input[0], node)
    shape = writer.original.get_tensor_shape(node.input[0])
    options = attributes(node)
    whole = node.op_type == "GlobalAveragePool"
    kernel = list(shape[2:]) if whole else list(options["kernel_shape"])
    pads = [0] * (2 * len(kernel)) if whole else list(options.get("pads", [0] * (2 * len(kernel))))
    check_window(node)
    if any(pads) and not options.get("count_include_pad", 0):
        raise UnsupportedError(
            f"{describe(node)} divides by fewer elements at its padded edges",
            allowed="no padding, or count_include_pad=1",
        )
    channels, count = shape[1], math.prod(kernel)
    ones = Stored(
        f"{node.output[0]}_ones", np.ones((channels, 1, *kernel), np.float32), np.ones((), np.float32)
    )
    result = Scaled("", _divided(x.scale, count), min(0, x.low * count), max(0, x.high * count))
    strides = [1] * len(kernel) if whole else list(options.get("strides", [1] * len(kernel)))
    _write(
        writer,
        node,
        "Conv",
        [x.tensor, writer.integers(ones)],
        result,
        kernel_shape=kernel,
        strides=strides,
        pads=pads,
        group=channels,
    )


def _divided(scale: Value, count: int) -> Value:
    return np.asarray(scale / np.float32(count), dtype=np.float32)


def reduce_sum(writer: Writer, node: NodeProto) -> None:
    """ReduceSum and ReduceMean, over axes that share one scale."""
    x = writer.scaled(node.input[0], node)
    shape = writer.original.get_tensor_shape(node.input[0])
    options = attributes(node)
    axes = options.get("axes") or writer.constants[node.input[1]].reshape(-1).tolist()
    axes = sorted(int(axis) % len(shape) for axis in axes)
    if 0 in axes:
        raise UnsupportedError(f"{describe(node)} reduces the batch axis", allowed="the other axes")
    if not x.uniform:
        raise UnsupportedError(
            f"{describe(node)} sums numbers of different scales", hint="quantise per tensor"
        )
    count = math.prod(shape[axis] for axis in axes)
    scale = _divided(x.scale, count) if node.op_type == "ReduceMean" else x.scale
    result = Scaled("", scale, min(0, x.low * count), max(0, x.high * count))
    axes_tensor = writer.constant(f"{node.output[0]}_axes", np.array(axes, dtype=np.int64))
    _write(writer, node, "ReduceSum", [x.tensor, axes_tensor], result, keepdims=options.get("keepdims", 1))
