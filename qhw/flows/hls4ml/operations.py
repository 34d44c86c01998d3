"""How every operation of the exact graph becomes layers, on mantissas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.errors import UnsupportedError
from qhw.flows.hls4ml import coded, moves, products
from qhw.flows.hls4ml.carry import (
    Carried,
    FixedType,
    Stored,
    channels_last,
    listed,
    natural_order,
    scaled,
    to_float,
)
from qhw.flows.hls4ml.finish import requantised
from qhw.flows.hls4ml.folding import dense_factors, depthwise_factors, divisors, window_factors
from qhw.flows.hls4ml.operands import operand_policy
from qhw.flows.hls4ml.plan import Kernel, Planner, maps
from qhw.formats.modes import IntArray
from qhw.graph import ir

MAX_REWRITTEN_WEIGHTS = 1 << 16
"""How large a kernel may become when dilation or groups are written out as zeros."""

MAX_TABLE = 1 << 20
"""Entries of a table, over all channels."""


@dataclass(frozen=True)
class Weights:
    """A layer's weights and bias as values, with their types."""

    weight: NDArray[np.float64]
    weight_type: FixedType
    bias: NDArray[np.float64] | None = None
    bias_type: FixedType | None = None

    def types(self) -> dict[str, FixedType]:
        return {"weight": self.weight_type, **({"bias": self.bias_type} if self.bias_type else {})}

    def data(self, key: str = "weight") -> dict[str, NDArray[np.float64]]:
        """The attributes that hls4ml reads them from."""
        return {f"{key}_data": self.weight, **({} if self.bias is None else {"bias_data": self.bias})}


def _weights(planner: Planner, node: ir.Node, weight: IntArray, x: Carried, axis: int) -> Weights:
    """Weights, moved so that their products land on the result's mantissas, and the bias likewise.

    ``axis`` of the weight is the output channel: its exponents, and the result's, may vary along it.
    """
    exact, result = planner.exact(node), planner.exponents(node.output)
    shift = planner.exponents(node.inputs[0]) + planner.exponents(node.inputs[1]) - result
    along = [1] * weight.ndim
    along[axis] = shift.size
    moved = scaled(weight, shift.reshape(along))
    exponent = exact.exponent - x.type.exponent
    kind = FixedType.holding(moved, exponent)
    if np.unique(shift).size == 1:
        declared = planner.graph.tensors[node.inputs[1]].format
        kind = FixedType(declared.width, declared.signed, exponent + int(shift[0]))
    where = planner.where(node)
    if len(node.inputs) < 3:
        return Weights(to_float(moved, exponent, where), kind)
    bias = scaled(planner.constant(node, 2).reshape(-1), planner.exponents(node.inputs[2]) - result)
    bias = np.broadcast_to(bias, (weight.shape[axis],))
    bias_type = FixedType.holding(bias, exact.exponent)
    return Weights(to_float(moved, exponent, where), kind, to_float(bias, exact.exponent, where), bias_type)


def is_depthwise(graph: ir.ExactGraph, node: ir.Conv) -> bool:
    """Whether hls4ml's depthwise layer does it: one filter per channel."""
    filters, channels = graph.tensors[node.inputs[1]].shape[0], graph.tensors[node.inputs[0]].shape[0]
    return bool(node.groups == channels == filters > 1)


def conv_factors(graph: ir.ExactGraph, node: ir.Conv, io_type: str) -> tuple[int, ...]:
    """The legal reuse factors of a convolution, as it is carried out: dilation and groups written out."""
    filters, channels = graph.tensors[node.inputs[1]].shape[0], graph.tensors[node.inputs[0]].shape[0]
    kernel = graph.tensors[node.inputs[1]].shape[2:]
    spread = [d * (k - 1) + 1 for k, d in zip(kernel, node.dilations, strict=True)]
    n_in = int(np.prod(spread)) * channels
    if not is_depthwise(graph, node):
        return window_factors(n_in, filters, io_type)
    return depthwise_factors(n_in, filters) if io_type == "io_stream" else (1,)


def is_own(graph: ir.ExactGraph, node: ir.Conv) -> bool:
    """Whether the project's own layer does it: operands that list their codes, or too many zeros to write."""
    if coded.is_coded(graph, node):
        return True
    filters, depth, *kernel = graph.tensors[node.inputs[1]].shape
    spread = [d * (k - 1) + 1 for k, d in zip(kernel, node.dilations, strict=True)]
    groups = 1 if is_depthwise(graph, node) else node.groups
    rewritten = groups > 1 or max(node.dilations) > 1
    return rewritten and filters * depth * groups * math.prod(spread) > MAX_REWRITTEN_WEIGHTS


@maps(ir.Conv)
def convolution(planner: Planner, node: ir.Conv) -> None:
    if is_own(planner.graph, node):
        coded.convolution(planner, node)
        return
    x = planner.channel_last(node, 0)
    weight = _without_dilation(node, planner.constant(node, 1))
    filters, channels = weight.shape[0], x.dims[-1]
    depthwise = is_depthwise(planner.graph, node)
    if not depthwise:
        weight = _without_groups(node, weight, channels)
    weights = _weights(planner, node, weight, x, axis=0)
    kernel = np.moveaxis(weights.weight, (0, 1), (-1, -2))  # kernel axes, input channel, filter
    weights = replace(weights, weight=np.moveaxis(kernel, -1, -2) if depthwise else kernel)
    shape, n_in = planner.graph.tensors[node.output].shape, int(np.prod(weight.shape[2:])) * channels
    x, pads = _padded(planner, node, x)
    x, strides = _thinned(planner, node, x, weight.shape[2:], depthwise)
    attributes = {
        "data_format": "channels_last",
        "n_chan": channels,
        "n_filt": filters,
        **_window(x.dims[:-1], shape[1:], weight.shape[2:], strides, pads, "filt"),
        **weights.data("depthwise" if depthwise else "weight"),
    }
    planner.plan.unrolled_statements[node.name] = int(np.prod(shape[1:])) * n_in
    kind = f"{'Depthwise' if depthwise else ''}Conv{len(shape) - 1}D"
    legal = conv_factors(planner.graph, node, planner.plan.io_type)
    options = planner.reuse(node, n_in, filters, legal)
    if depthwise and options["reuse_factor"] == 1:
        options["strategy"] = "latency"
    _multiply(planner, node, kind, x, attributes, weights, channels_last(shape), options)


def _multiply(
    planner: Planner,
    node: ir.Node,
    kind: str,
    x: Carried,
    attributes: dict[str, Any],
    weights: Weights,
    layout: tuple[NDArray[np.int64], tuple[int, ...]],
    options: dict[str, Any],
) -> None:
    """Append the layer of a Conv or MatMul, with the exact accumulator, and say how its result travels."""
    exact = planner.exact(node)
    tensor, result = planner.result(node, exact)
    types = {"accum": exact, **weights.types()}
    name = planner.emit(node, kind, [x.layer], result, attributes, types=types, **options)
    order, dims = layout
    planner.finish(tensor, Carried(name, dims, order, result))


def _without_dilation(node: ir.Conv, weight: IntArray) -> IntArray:
    """The kernel with zeros between its taps: hls4ml computes dilated convolutions wrongly."""
    spread = (d * (k - 1) + 1 for k, d in zip(weight.shape[2:], node.dilations, strict=True))
    wide = np.zeros((*weight.shape[:2], *spread), dtype=weight.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in node.dilations))] = weight
    return wide


def _without_groups(node: ir.Conv, weight: IntArray, channels: int) -> IntArray:
    """A kernel over all input channels, zero outside each filter's group."""
    filters, depth = weight.shape[:2]
    wide = np.zeros((filters, channels, *weight.shape[2:]), dtype=weight.dtype)
    per_group = filters // node.groups
    for group in range(node.groups):
        rows = slice(group * per_group, (group + 1) * per_group)
        wide[rows, group * depth : (group + 1) * depth] = weight[rows]
    return wide


def _window(
    inside: Sequence[int],
    outside: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    prefix: str,
) -> dict[str, int]:
    """A window's geometry in hls4ml's words, for one or two spatial axes."""
    axes, rank = ("height", "width")[-len(kernel) :], len(kernel)
    edges = (("top", "bottom"), ("left", "right"))[-rank:]
    words = {}
    for i, axis in enumerate(axes):
        words[f"in_{axis}"], words[f"out_{axis}"] = inside[i], outside[i]
        words[f"{prefix}_{axis}"], words[f"stride_{axis}"] = kernel[i], strides[i]
        words[f"pad_{edges[i][0]}"], words[f"pad_{edges[i][1]}"] = pads[i], pads[i + rank]
    return words


def _padded(planner: Planner, node: ir.Conv, x: Carried) -> tuple[Carried, Sequence[int]]:
    """In a stream, a layer of its own: hls4ml's pass may put it before another reader of a copied stream."""
    if planner.plan.io_type == "io_parallel" or not any(node.pads):
        return x, node.pads
    rank = len(node.pads) // 2
    inside = x.dims[:-1]
    outside = tuple(n + node.pads[i] + node.pads[i + rank] for i, n in enumerate(inside))
    words = _window(inside, outside, (1,) * rank, (1,) * rank, node.pads, "filt")
    attributes = {"data_format": "channels_last", "n_chan": x.dims[-1], **words}
    name = planner.emit(node, f"ZeroPadding{rank}D", [x.layer], x.type, attributes, suffix="_padded")
    dims = (*outside, x.dims[-1])
    return Carried(name, dims, natural_order(dims), x.type), (0,) * len(node.pads)


def _thinned(
    planner: Planner, node: ir.Conv, x: Carried, kernel: Sequence[int], depthwise: bool
) -> tuple[Carried, Sequence[int]]:
    """The rows that a kernel of height 1 reads, and the strides that are left.

    In a stream, hls4ml takes such a kernel for a one-dimensional one and writes a result for every row; only
    its pointwise layer looks at the vertical stride.
    """
    pointwise = set(kernel) == {1} and not depthwise
    if planner.plan.io_type == "io_parallel" or len(kernel) == 1 or kernel[0] > 1 or pointwise:
        return x, node.strides
    height, width, channels = x.dims
    down, across = node.strides
    if down == 1:
        return x, node.strides
    kept = (range(channels), range(0, height, down), range(width))
    return moves.sliced(planner, node, x, kept, suffix="_rows"), (1, across)


def product_factors(graph: ir.ExactGraph, node: ir.MatMul, io_type: str) -> tuple[int, ...]:
    """The legal reuse factors of a matrix product; of several rows, those of the convolution they become."""
    n_in, n_out = graph.tensors[node.inputs[1]].shape[-2:]
    if len(graph.tensors[node.output].shape) == 1:
        return dense_factors(n_in, n_out)
    return window_factors(n_in, n_out, io_type)


def legal_factors(graph: ir.ExactGraph, node: ir.Node, io_type: str) -> tuple[int, ...]:
    """The legal reuse factors of a node, rising; none where it is not folded."""
    if isinstance(node, ir.Conv):
        if is_own(graph, node):
            return divisors(math.prod(graph.tensors[node.inputs[1]].shape))
        return conv_factors(graph, node, io_type)
    if not isinstance(node, ir.MatMul):
        return ()
    if products.is_general(graph, node):
        return products.general_factors(graph, node)
    if coded.is_coded(graph, node):
        return divisors(math.prod(graph.tensors[node.inputs[1]].shape))
    return product_factors(graph, node, io_type)


@maps(ir.MatMul)
def matrix_product(planner: Planner, node: ir.MatMul) -> None:
    if products.is_general(planner.graph, node):
        products.matrix_product(planner, node)
        return
    weight = planner.constant(node, 1)
    if coded.is_coded(planner.graph, node):
        coded.matrix_product(planner, node)
        return
    x = planner.operand(node, 0)
    shape = planner.graph.tensors[node.output].shape
    n_in, n_out = weight.shape
    legal = product_factors(planner.graph, node, planner.plan.io_type)
    options = planner.reuse(node, n_in, n_out, legal)
    if len(shape) == 1:
        weights = _weights(planner, node, weight[x.order], x, axis=1)
        attributes = {"n_in": n_in, "n_out": n_out, **weights.data()}
        x = _flattened(planner, node, x)
        _multiply(planner, node, "Dense", x, attributes, weights, channels_last(shape), options)
        return
    rows = int(np.prod(shape[:-1]))
    x = planner.arranged(node, x, natural_order((rows, n_in)), (rows, n_in))
    weights = _weights(planner, node, weight, x, axis=1)
    one, none = (1,), (0, 0)
    attributes = {
        "data_format": "channels_last",
        "n_chan": n_in,
        "n_filt": n_out,
        **_window((rows,), (rows,), one, one, none, "filt"),
        **replace(weights, weight=weights.weight[np.newaxis]).data(),
    }
    layout = natural_order((rows, n_out)), (rows, n_out)
    planner.plan.unrolled_statements[node.name] = rows * n_in
    _multiply(planner, node, "Conv1D", x, attributes, weights, layout, options)


def _flattened(planner: Planner, node: ir.Node, x: Carried) -> Carried:
    """The tensor with one axis, in the order in which it travels."""
    if len(x.dims) == 1:
        return x
    attributes = {"target_shape": [x.size]}
    name = planner.emit(node, "Reshape", [x.layer], x.type, attributes, suffix="_flat")
    return replace(x, layer=name, dims=(x.size,))


@maps(ir.Add)
def addition(planner: Planner, node: ir.Add) -> None:
    exact = planner.exact(node)
    if any(tensor in planner.graph.constants for tensor in node.inputs):
        x, values, index = _with_constant(planner, node)
        factors = scaled(np.ones(x.size, dtype=object), _left_shifts(planner, node, node.inputs[index]))
        moved = scaled(values, _left_shifts(planner, node, node.inputs[1 - index]))
        offset = Stored.holding(moved[x.order], exact.exponent)
        _affine_layer(planner, node, x, factors[x.order], offset, exact)
        return
    shifts = [np.unique(_left_shifts(planner, node, tensor)) for tensor in node.inputs]
    if coded.is_coded(planner.graph, node) and all(moves.size == 1 for moves in shifts):
        left, right = (planner.travelling(node, i) for i in (0, 1))
        coded.merge(planner, node, left, right, (int(shifts[0][0]), int(shifts[1][0])))
        return
    a, b = (
        _aligned(planner, node, planner.operand(node, i), node.inputs[i], exact, f"_aligned{i}")
        for i in (0, 1)
    )
    _merge(planner, node, "add", a, b, exact)


@maps(ir.Mul)
def product(planner: Planner, node: ir.Mul) -> None:
    exact = planner.exact(node)
    if any(tensor in planner.graph.constants for tensor in node.inputs):
        if coded.is_coded(planner.graph, node):
            constant = int(node.inputs[1] in planner.graph.constants)
            factors = np.broadcast_to(
                planner.constant(node, constant), planner.graph.tensors[node.output].shape
            )
            computed, where = node.inputs[1 - constant], node.inputs[constant]
            coded.affine(planner, node, computed, factors.reshape(-1), where)
            return
        x, values, _ = _with_constant(planner, node)
        _affine_layer(planner, node, x, values[x.order], None, exact)
        return
    if coded.is_coded(planner.graph, node):
        coded.merge(planner, node, planner.travelling(node, 0), planner.travelling(node, 1), (0, 0))
        return
    a, b = planner.operand(node, 0), planner.operand(node, 1)
    _merge(planner, node, "multiply", a, b, replace(exact, exponent=a.type.exponent + b.type.exponent))


def _left_shifts(planner: Planner, node: ir.Node, tensor: str) -> IntArray:
    """How far every element of an operand moves left to the result's exponent, row-major."""
    shape = planner.graph.tensors[node.output].shape
    return planner.element_exponents(tensor, shape) - planner.element_exponents(node.output, shape)


def _with_constant(planner: Planner, node: ir.Node) -> tuple[Carried, IntArray, int]:
    """The computed operand, the constant for every element (row-major), and the computed one's index."""
    index = int(node.inputs[0] in planner.graph.constants)
    shape = planner.graph.tensors[node.output].shape
    values = np.broadcast_to(planner.constant(node, 1 - index), shape).reshape(-1)
    return planner.operand(node, index), values, index


def _aligned(
    planner: Planner, node: ir.Node, x: Carried, tensor: str, exact: FixedType, suffix: str
) -> Carried:
    """An operand whose nominal exponent says what it stands for in the sum; a layer scales it where not."""
    shifts = _left_shifts(planner, node, tensor)
    if np.unique(shifts).size == 1 and x.type.exponent == exact.exponent + int(shifts[0]):
        return x
    factors = scaled(np.ones(shifts.size, dtype=object), shifts)[x.order]
    multiplier = Stored.holding(factors, exact.exponent - x.type.exponent)
    return planner.elementwise(node, x, "scale", exact, {"multiplier": multiplier}, suffix=suffix)


def _merge(planner: Planner, node: ir.Node, operation: str, a: Carried, b: Carried, exact: FixedType) -> None:
    b = planner.arranged(node, b, a.order, a.dims)
    tensor, result = planner.result(node, exact)
    name = planner.emit(node, "Merge", [a.layer, b.layer], result, {"op": operation})
    planner.finish(tensor, replace(a, layer=name, type=result))


@maps(ir.Affine)
def affine(planner: Planner, node: ir.Affine) -> None:
    if coded.is_coded(planner.graph, node):
        shape = planner.graph.tensors[node.output].shape
        multiplier = coded.channelwise(planner.constant(node, 1).reshape(-1), shape)
        coded.affine(planner, node, node.inputs[0], multiplier, node.inputs[1])
        return
    x, exact = planner.operand(node, 0), planner.exact(node)
    result = planner.exponents(node.output)
    shift = planner.exponents(node.inputs[0]) + planner.exponents(node.inputs[1]) - result
    multiplier = _per_element(planner, node, x, scaled(planner.constant(node, 1).reshape(-1), shift))
    offset = None
    if len(node.inputs) > 2:
        values = scaled(planner.constant(node, 2).reshape(-1), planner.exponents(node.inputs[2]) - result)
        offset = Stored.holding(_per_element(planner, node, x, values), exact.exponent)
    _affine_layer(planner, node, x, multiplier, offset, exact)


def _channels(planner: Planner, node: ir.Node, x: Carried) -> NDArray[np.int64]:
    """The channel (axis 0) of every element as it travels."""
    shape = planner.graph.tensors[node.inputs[0]].shape
    return x.order // (x.size // shape[0]) if shape else np.zeros_like(x.order)


def _per_element(planner: Planner, node: ir.Node, x: Carried, values: IntArray) -> IntArray:
    """One value per tensor or per channel, for every element as it travels."""
    return values[_channels(planner, node, x) % values.size]


def _affine_layer(
    planner: Planner,
    node: ir.Node,
    x: Carried,
    multiplier: IntArray,
    offset: Stored | None,
    exact: FixedType,
) -> None:
    tensor, result = planner.result(node, exact)
    factor = Stored.holding(multiplier, exact.exponent - x.type.exponent)
    if offset is None:
        carried = planner.elementwise(node, x, "scale", result, {"multiplier": factor})
    else:
        carried = planner.elementwise(node, x, "affine", result, {"multiplier": factor, "offset": offset})
    planner.finish(tensor, carried)


@maps(ir.Requant)
def requant(planner: Planner, node: ir.Requant) -> None:
    x, shape = planner.operand(node, 0), planner.graph.tensors[node.output].shape
    before, after = (
        planner.element_exponents(tensor, shape)[x.order] for tensor in (node.inputs[0], node.output)
    )
    finish = requantised(planner, node, x.type, before, after)
    carried = planner.elementwise(
        node,
        x,
        finish.operation,
        finish.type,
        finish.arrays,
        constants=finish.constants,
        types=finish.types,
        header="qhw/convert.h" if finish.format else "qhw/elementwise.h",
        format=finish.format,
    )
    planner.finish(node.output, carried)


def _rows(planner: Planner, node: ir.Node, x: Carried, *tables: IntArray) -> tuple[list[int], list[IntArray]]:
    """Which row of per-channel tables (rows, n) each element uses, over one period; and those rows."""
    if all(len(table) == 1 for table in tables):
        return [0], list(tables)
    channels = _channels(planner, node, x)
    period = next(
        p for p in (x.dims[-1], x.size) if np.array_equal(channels, np.tile(channels[:p], x.size // p))
    )
    rows = [int(c) for c in channels[:period]]
    return rows, [table[np.array(rows) % len(table)] for table in tables]


@maps(ir.Threshold)
def threshold(planner: Planner, node: ir.Threshold) -> None:
    x, target = planner.operand(node, 0), planner.exact(node)
    thresholds, levels = planner.constant(node, 1), _as_travelling(planner, node, planner.constant(node, 2))
    if thresholds.shape[1] == 0:
        thresholds = np.full((1, 1), planner.graph.tensors[node.inputs[0]].format.mantissa_high + 1)
        levels = np.repeat(levels, 2, axis=1)
    count = thresholds.shape[1]
    first, step = int(levels[0, 0]), int(levels[0, 1]) - int(levels[0, 0])
    counted = bool((levels == first + step * np.arange(count + 1)).all())
    rows, (thresholds, *own) = _rows(planner, node, x, thresholds, *([] if counted else [levels]))
    arrays = {"threshold": Stored.holding(thresholds.reshape(-1), x.type.exponent)}
    constants: dict[str, int | str] = {"n_threshold": count, "base": first, "step": step}
    if not counted:
        constants = {"n_threshold": count, "shared_level": int(len(levels) == 1)}
        kept = levels if len(levels) == 1 else own[0]
        arrays["level"] = Stored(kept.reshape(-1), 0, replace(target, exponent=0))
    operation = "count" if counted else "threshold"
    planner.finish(node.output, _looked_up(planner, node, x, operation, target, len(rows), constants, arrays))


@maps(ir.Table)
def table(planner: Planner, node: ir.Table) -> None:
    x, target = planner.operand(node, 0), planner.exact(node)
    entries = _as_travelling(planner, node, planner.constant(node, 1))
    rows, (kept,) = _rows(planner, node, x, entries)
    if kept.size > MAX_TABLE:
        raise UnsupportedError(
            f"{planner.where(node)}: its table has {kept.size:,} entries",
            allowed=f"up to {MAX_TABLE:,}",
            hint="quantise in front of it to fewer bits",
        )
    constants: dict[str, int | str] = {"n_entry": entries.shape[1], "first": node.first}
    arrays = {"table": Stored(kept.reshape(-1), 0, replace(target, exponent=0))}
    planner.finish(node.output, _looked_up(planner, node, x, "table", target, len(rows), constants, arrays))


def _as_travelling(planner: Planner, node: ir.Node, mantissas: IntArray) -> IntArray:
    """Mantissas of a node's result, or their codes where those travel."""
    format = listed(planner.graph.tensors[node.output])
    return mantissas if format is None else format.code_of(mantissas)


def _looked_up(
    planner: Planner,
    node: ir.Node,
    x: Carried,
    operation: str,
    target: FixedType,
    period: int,
    constants: dict[str, int | str],
    arrays: dict[str, Stored],
) -> Carried:
    kernel = Kernel(
        f"qhw::each<qhw::{operation}_op, {{input_t}}, {{output_t}}, {{config}}>",
        "qhw/elementwise.h",
        {"n_in": x.size, "n_param": period, **constants},
        arrays=arrays,
    )
    format = listed(planner.graph.tensors[node.output])
    return planner.kernel(node, x, kernel, replace(x, type=target, format=format))


@maps(ir.MaxPool)
def max_pool(planner: Planner, node: ir.MaxPool) -> None:
    x = planner.channel_last(node, 0)
    plain = (
        x.format is None and not any(node.pads) and node.strides == node.kernel and set(node.dilations) == {1}
    )
    if not plain:
        _own_pool(planner, node, x, "max", node.dilations, x.type, x.type)
        return
    shape = planner.graph.tensors[node.output].shape
    words = _window(x.dims[:-1], shape[1:], node.kernel, node.strides, node.pads, "pool")
    if len(node.kernel) == 1:
        words["n_in"], words["n_out"] = words.pop("in_width"), words.pop("out_width")
    attributes = {"data_format": "channels_last", "n_filt": x.dims[-1], "count_pad": False, **words}
    kind = f"MaxPooling{len(node.kernel)}D"
    name = planner.emit(node, kind, [x.layer], x.type, attributes, types={"accum": x.type})
    order, dims = channels_last(shape)
    planner.finish(node.output, Carried(name, dims, order, x.type))


@maps(ir.SumPool)
def sum_pool(planner: Planner, node: ir.SumPool) -> None:
    x = planner.channel_last(node, 0)
    _own_pool(planner, node, x, "sum", (1,) * len(node.kernel), planner.exact(node))


def _own_pool(
    planner: Planner,
    node: ir.MaxPool | ir.SumPool,
    x: Carried,
    operation: str,
    dilations: Sequence[int],
    exact: FixedType,
    result: FixedType | None = None,
) -> None:
    rank, shape = len(node.kernel), planner.graph.tensors[node.output].shape
    tensor, type_ = (node.output, result) if result else planner.result(node, exact)
    constants: dict[str, int | str] = {"n_chan": x.dims[-1]}
    for words in (
        _window(x.dims[:-1], shape[1:], node.kernel, node.strides, node.pads, "kernel"),
        dict(zip(("dilation_height", "dilation_width")[-rank:], dilations, strict=True)),
    ):
        constants.update(words)
    for flat in ("in", "out", "kernel", "stride", "dilation"):
        constants.setdefault(f"{flat}_height", 1)
    constants.setdefault("pad_top", 0)
    op, header = _pooling(operation, x)
    function = f"qhw::pool<{op}, {{input_t}}, {{output_t}}, {{config}}>"
    kernel = Kernel(function, header, constants, {"accum_t": exact})
    order, dims = channels_last(shape)
    format = x.format if operation == "max" else None
    planner.finish(tensor, planner.kernel(node, x, kernel, Carried("", dims, order, type_, format)))


def _pooling(operation: str, x: Carried) -> tuple[str, str]:
    """The header library's operation for a sum or maximum of a tensor's elements, and its header."""
    if x.format is None:
        return f"qhw::{operation}_op", "qhw/pool.h"
    return f"qhw::{operation}_code_op<{operand_policy(x.format)}>", "qhw/pool_codes.h"


@maps(ir.ReduceSum, ir.ReduceMax)
def reduction(planner: Planner, node: ir.ReduceSum | ir.ReduceMax) -> None:
    """The kept axes travel channel last; those in front of the channel that are reduced lie beside it.

    So a pool over the whole image, or over the channels, takes the tensor as it travels anyway.
    """
    x, shape = planner.travelling(node, 0), planner.graph.tensors[node.inputs[0]].shape
    spatial = [axis for axis in range(1, len(shape)) if axis not in node.axes]
    channel = [] if 0 in node.axes else [0]
    outer, n, inner = (int(np.prod([shape[a] for a in axes])) for axes in (spatial, node.axes, channel))
    positions = natural_order(shape).reshape(shape)
    order = np.transpose(positions, (*spatial, *sorted(node.axes), *channel)).reshape(-1)
    if not np.array_equal(x.order, order):
        x = planner.arranged(node, x, order, (outer * n, inner))
    total = isinstance(node, ir.ReduceSum)
    exact = planner.exact(node) if total else x.type
    tensor, result = planner.result(node, exact) if total else (node.output, exact)
    op, header = _pooling("sum" if total else "max", x)
    kernel = Kernel(
        f"qhw::reduce<{op}, {{input_t}}, {{output_t}}, {{config}}>",
        header,
        {"outer": outer, "n": n, "inner": inner},
        {"accum_t": exact},
    )
    left = positions.max(axis=node.axes).reshape([shape[a] for a in (*channel, *spatial)])
    flat = np.argsort(np.argsort(np.moveaxis(left, 0, -1).reshape(-1) if channel else left.reshape(-1)))
    dims = tuple(shape[a] for a in (*spatial, *channel)) or (1,)
    if node.keepdims:
        dims = channels_last(planner.graph.tensors[node.output].shape)[1]
    format = None if total else x.format
    planner.finish(tensor, planner.kernel(node, x, kernel, Carried("", dims, flat, result, format)))
