"""One form for what ONNX can say in several ways: what every reader of a loaded model may rely on.

A loaded model is valid ONNX of one opset, whatever its file had, so that onnxruntime and qonnx run it. Its
domains are ONNX's own, ``qonnx.custom_op.general`` and ``qhw.onnx_ops``. Every input has batch size 1, every
shape is inferred, nodes stand in topological order under names of their own, and none of them is without
effect; outputs have the names that the file gives them. "Constant" is an initializer below; parameters that
are named are always there.

Quantizers
    Quant: x, scale, zero, bits; signed, narrow, rounding_mode (IntQuant is Quant). BipolarQuant, Trunc,
    MultiThreshold (data_layout NC, NCW or NCHW: channels on axis 1), FloatQuant; FixedQuant, FormatQuant.
    QuantizeLinear and DequantizeLinear are gone: a Quant with zero point 0 where the codes less the zero
    point are a plain range, else Clip to the ends of that range, then a wider Quant with zero point 0
    (Max and Min in place of Clip where the zero points differ by channel); float8 codes are FormatQuant.
    Quantised constants are floats with a Quant.
Conv: x, weight(, bias); kernel_shape, strides, pads, dilations, group.
ConvTranspose: the same, and output_padding.
MaxPool: one output; kernel_shape, strides, pads, dilations, ceil_mode=0 (it became padding at the ends).
AveragePool: the same, and count_include_pad (1 without padding), ceil_mode (1 only where it adds windows).
GlobalAveragePool, GlobalMaxPool, MatMul: as ONNX has them. Gemm is MatMul(, Mul)(, Add).
Add, Mul: two inputs, a constant one second. Sub, Div, Pow: two inputs. Sum, Mean are Adds in order(, Div).
Max, Min: two inputs, a constant one second; with a constant number they are Clip.
Clip: x, min, max: scalar float32 constants, or an empty name; no attributes.
Relu and the other functions: as ONNX has them, alpha, beta, gamma and approximate stated.
PRelu: x, slope. BatchNormalization: x, scale, bias, mean, variance; one output; epsilon.
Reshape: x, constant shape [0, …] where the batch axis stays (all sizes stated, no -1, no allowzero), else all
    sizes. Flatten: axis ≥ 0. Squeeze, Unsqueeze: x, constant axes ≥ 0, sorted.
Transpose: perm. Concat: two inputs or more; axis ≥ 0. DepthToSpace, SpaceToDepth are Reshape, Transpose,
    Reshape.
Slice: x, starts, ends, axes, steps, constants; axes ≥ 0; 0 ≤ start ≤ end ≤ size where the step is positive.
Split: x, constant sizes; axis ≥ 0. Gather: x, indices (≥ 0 where constant); axis ≥ 0.
Pad: x, constant pads of every axis, constant value (scalar float32); mode.
ReduceSum, ReduceMean, ReduceMax: x, constant axes (≥ 0, sorted, at least one); keepdims.
Resize: x, "", constant scales of every axis (float32); mode, coordinate_transformation_mode, nearest_mode,
    antialias, cubic_coeff_a, exclude_outside, extrapolation_value. One that repeats each number is nearest,
    asymmetric, floor; any other nearest one is a Gather per axis. Upsample is Resize; sizes are scales.
Expand and Tile of computed tensors are Concats; ReduceMin and Ceil are ReduceMax and Floor between two Neg.
Cast: to another type than float32, or from another float type.
Identity: only where an output of the model is an input or another output. Dropout is gone.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto
from onnx.reference import ReferenceEvaluator

from qhw.errors import InputError, UnsupportedError
from qhw.graph.ir import TENSOR_SIZE_LIMIT
from qhw.graph.onnx_tools import attributes, describe, drop_attribute, words
from qhw.graph.reading.draft import STANDARD, Draft
from qhw.graph.reading.operators import QUANTIZERS, SHAPE_OPS
from qhw.graph.reading.opsets import OPSET

__all__ = [
    "QUANTIZERS",
    "drop_passive",
    "fold_constants",
    "fold_transposed_quantizers",
    "free_batch",
    "split_gemm",
]

_FOLDABLE = SHAPE_OPS | words(
    """
    Abs Add Cast Clip Concat Div Flatten Floor Gather Identity Max Min Mul Neg Pow Reciprocal Reshape
    ReduceMax ReduceSum Slice Split Sqrt Squeeze Sub Transpose Unsqueeze
    """
)
_NUMERIC_CONSTANTS = frozenset({"value", "value_float", "value_floats", "value_int", "value_ints"})

FOLDED_LIMIT = 1 << 26
"""Elements of a constant that is computed here at most, where it may be larger than what it is made from."""

COMPUTED_PER_STORED = 64
"""Numbers that all computed constants may hold for each one that the file stores, beyond the limit of one."""

MOST_AXES = 64
_NO_BOUND = 1 << 62


def drop_constant_nodes(draft: Draft) -> None:
    """Constant nodes become initializers, and initializers are no graph inputs."""
    constants = [node for node in draft.graph.node if node.op_type == "Constant" and not node.domain]
    for node in constants:
        found = [(k, v) for k, v in attributes(node).items() if k in _NUMERIC_CONSTANTS]
        if len(found) != 1:
            kinds = ", ".join(attribute.name for attribute in node.attribute) or "nothing"
            raise UnsupportedError(f"{describe(node)} holds {kinds}", allowed="dense numbers")
        ((kind, value),) = found
        if kind == "value":
            tensor = next(a.t for a in node.attribute if a.name == "value")
            draft.put_tensor(node.output[0], tensor)
        else:
            dtype = np.float32 if kind.startswith("value_float") else np.int64
            draft.put(node.output[0], np.asarray(value, dtype=dtype))
    draft.remove(constants)
    draft.stored = sum(value.size for value in draft.constants.values())
    inputs = [value for value in draft.graph.input if value.name not in draft.constants]
    del draft.graph.input[:]
    draft.graph.input.extend(inputs)


def free_batch(draft: Draft, batch: int) -> None:
    """A batch size stored in a Reshape becomes 0 (as it was), so that the model runs at any batch size."""
    for node in draft.graph.node:
        shape = draft.constants.get(node.input[1]) if node.op_type == "Reshape" else None
        if shape is None or node.input[0] in draft.constants:
            continue
        if attributes(node).get("allowzero") and not shape.all():
            continue
        drop_attribute(node, "allowzero")  # torch sets it always; without a zero it says nothing
        if shape.size and shape.reshape(-1)[0] == batch and batch != 1:
            freed = [0, *(int(size) for size in shape.reshape(-1)[1:])]
            node.input[1] = draft.constant(f"{node.name}_shape", freed)


def fold_constants(draft: Draft) -> bool:
    """Compute every node whose inputs are all constant, and Shape of known shapes; whether any was."""
    folded = []
    for node in draft.graph.node:
        values = _folded_values(draft, node)
        if values is not None:
            for name, value in zip(node.output, values, strict=True):
                draft.put(name, np.asarray(value))
            folded.append(node)
    draft.remove(folded)
    return bool(folded)


def _folded_values(draft: Draft, node: NodeProto) -> list[NDArray[Any]] | None:
    if node.domain != STANDARD or node.op_type not in _FOLDABLE:
        return None
    if node.op_type in ("Shape", "Size"):
        return _sizes(draft, node)
    feeds = {name: draft.constants[name] for name in node.input if name in draft.constants}
    if len(feeds) != len(set(filter(None, node.input))) or not _stays_bounded(draft, node, feeds):
        return None
    _check_axis(node)
    try:
        values = ReferenceEvaluator(node, opsets={STANDARD: OPSET}).run(None, feeds)
    except Exception as error:  # whatever NumPy says about operands that do not fit
        raise InputError(f"{describe(node)} cannot be computed from its constants: {error}") from error
    return [np.asarray(value) for value in values]


def _check_axis(node: NodeProto) -> None:
    """Refuse an axis that no tensor has: ONNX's reference would make a shape of so many axes."""
    axis = attributes(node).get("axis", 0)
    if isinstance(axis, int) and abs(axis) > MOST_AXES:
        raise InputError(f"{describe(node)} has the axis {axis}", allowed=f"-{MOST_AXES} to {MOST_AXES - 1}")


def _sizes(draft: Draft, node: NodeProto) -> list[NDArray[Any]] | None:
    if node.input[0] not in draft.constants and node.input[0] not in draft.shapes:
        return None
    shape = draft.shape(node.input[0])
    if node.op_type == "Size":
        return [np.array(math.prod(shape), dtype=np.int64)]
    options = attributes(node)
    return [np.array(shape[options.get("start", 0) : options.get("end", len(shape))], dtype=np.int64)]


def _stays_bounded(draft: Draft, node: NodeProto, feeds: dict[str, NDArray[Any]]) -> bool:
    """Whether the result, and even the broadcast of all the operands, is of a sane size.

    Raises:
        InputError: what is computed adds up to far more than the file holds.
    """
    values = [feeds[name] for name in node.input if name in feeds]
    size = _result_size(node, values)
    if size > (FOLDED_LIMIT if node.op_type in _ENLARGING else TENSOR_SIZE_LIMIT):
        return False
    draft.computed += size
    if draft.computed > FOLDED_LIMIT + COMPUTED_PER_STORED * draft.stored:
        raise InputError(
            f"{describe(node)}: the constants that the model computes hold {draft.computed:,} numbers, and "
            f"those that it stores {draft.stored:,}",
            hint="store what is computed from constants, and export the model again",
        )
    return True


_ENLARGING = frozenset({"ConstantOfShape", "Expand", "Tile", "Range", "Gather"})


def _result_size(node: NodeProto, values: list[NDArray[Any]]) -> int:
    """Elements of a node's result at most, before anything of it is computed."""
    match node.op_type:
        case "ConstantOfShape" | "Expand" | "Tile":
            if values[-1].size > MOST_AXES:
                return _NO_BOUND
            sizes = [max(1, int(size)) for size in values[-1].reshape(-1)]
            return math.prod(sizes) * (values[0].size if len(values) > 1 else 1)
        case "Range":
            start, limit, delta = (float(value.reshape(-1)[0]) for value in values)
            steps = (limit - start) / delta if delta else math.inf
            return max(0, math.ceil(steps)) if math.isfinite(steps) else _NO_BOUND
        case "Gather":
            axis = attributes(node).get("axis", 0)
            along = values[0].shape[axis] if -values[0].ndim <= axis < values[0].ndim else 1
            return values[-1].size * (values[0].size // max(along, 1))
        case "Concat":
            return sum(value.size for value in values)
    shapes = [value.shape for value in values]
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return math.prod(max(sizes) for sizes in zip(*padded, strict=True))


def drop_passive(draft: Draft) -> None:
    """Remove Identity and Dropout, keeping the names of the model's inputs and outputs."""
    outputs = set(draft.outputs)
    fixed = outputs | set(draft.inputs) | set(draft.constants)
    producers = draft.producers()
    renamed: dict[str, str] = {}
    gone = []
    for node in draft.graph.node:
        if not _is_passive(draft, node):
            continue
        source, target = node.input[0], node.output[0]
        source = _final(renamed, source)
        if target not in outputs:
            renamed[target] = source
        elif source not in fixed and source in producers:
            draft.bypass(renamed)
            draft.rename(source, target)
            renamed = {k: target if v == source else v for k, v in renamed.items()}
            renamed[source] = target
        else:
            if node.op_type == "Dropout":
                node.CopyFrom(draft.node(node, "Identity", [source], target))
            continue
        gone.append(node)
    draft.remove(gone)
    draft.bypass(renamed)


def _final(renamed: dict[str, str], name: str) -> str:
    while name in renamed:
        name = renamed[name]
    return name


def _is_passive(draft: Draft, node: NodeProto) -> bool:
    if node.domain != STANDARD or node.op_type != "Dropout":
        return bool(node.op_type == "Identity" and node.domain == STANDARD)
    if len(node.input) > 2 and node.input[2]:
        training = draft.constants.get(node.input[2], np.array(True))
        if bool(training.any()):
            raise UnsupportedError(f"{describe(node)} is in training mode", hint="export after model.eval()")
    if (
        len(node.output) > 1
        and node.output[1]
        and node.output[1] in draft.readers().keys() | set(draft.outputs)
    ):
        raise UnsupportedError(f"{describe(node)}: its mask is used", hint="export after model.eval()")
    return True


def split_gemm(draft: Draft) -> None:
    """Gemm as (Transpose,) MatMul, (Mul,) Add: also where its bias is missing."""
    draft.rewrite(lambda node: _gemm(draft, node) if node.op_type == "Gemm" and not node.domain else None)


def _gemm(draft: Draft, node: NodeProto) -> list[NodeProto]:
    options = attributes(node)
    if options.get("transA"):
        raise UnsupportedError(
            f"{describe(node)} transposes its first operand, batch axis included (transA=1)",
            allowed="transA=0",
        )
    nodes: list[NodeProto] = []

    def append(op: str, inputs: list[str], suffix: str, **more: Any) -> str:
        nodes.append(draft.node(node, op, inputs, suffix=suffix, **more))
        return str(nodes[-1].output[0])

    def scaled(tensor: str, factor: float, suffix: str) -> str:
        if factor == 1.0:
            return tensor
        stored = draft.constant(f"{node.name}{suffix}_factor", np.array(factor, dtype=np.float32))
        return append("Mul", [tensor, stored], suffix)

    right = node.input[1]
    if options.get("transB"):
        right = append("Transpose", [right], "_transposed", perm=[1, 0])
    alpha, beta = options.get("alpha", 1.0), options.get("beta", 1.0)
    has_bias = len(node.input) > 2 and node.input[2] != "" and beta != 0.0
    result = append("MatMul", [node.input[0], right], "_product" if has_bias or alpha != 1.0 else "")
    result = scaled(result, alpha, "_alpha" if has_bias else "")
    if has_bias:
        append("Add", [result, scaled(node.input[2], beta, "_beta")], "")
    nodes[-1].output[0] = node.output[0]
    return nodes


def fold_transposed_quantizers(draft: Draft) -> None:
    """Transpose of a quantised constant: the constant and its parameters are stored transposed."""
    quantizers = {
        node.output[0]: node
        for node in draft.graph.node
        if node.op_type in QUANTIZERS and all(name in draft.constants for name in node.input if name)
    }

    def rewrite(node: NodeProto) -> list[NodeProto] | None:
        if node.op_type == "Transpose" and node.input[0] in quantizers:
            return [_transposed(draft, node, quantizers[node.input[0]])]
        return None

    if draft.rewrite(rewrite):
        draft.drop_unread()


def _transposed(draft: Draft, transpose: NodeProto, quantizer: NodeProto) -> NodeProto:
    rank = draft.constants[quantizer.input[0]].ndim
    perm = attributes(transpose).get("perm") or list(range(rank))[::-1]
    folded = NodeProto()
    folded.CopyFrom(quantizer)
    folded.name, folded.output[0] = transpose.name, transpose.output[0]
    for index, name in enumerate(quantizer.input):
        if name and draft.constants[name].ndim == rank:
            turned = draft.constants[name].transpose(perm)
            folded.input[index] = draft.constant(f"{name}_transposed", turned)
    return folded
