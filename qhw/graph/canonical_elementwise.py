"""Rules of ``canonicalise`` for quantizers, element-wise operations, and moves that commute with them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from qhw.errors import UnsupportedError
from qhw.graph.canonical_sums import check_window, integer_binary
from qhw.graph.canonical_writer import INTEGER_SUFFIX, Floating, Scaled, Stored, Writer
from qhw.graph.onnx_tools import Constants, attributes, describe
from qhw.graph.quantizer_nodes import LARGEST_WIDTH, Quantizer, quantizer_of
from qhw.graph.tail_nodes import is_rising
from qhw.graph.tail_operations import Value
from qhw.onnx_ops.float_quant import check_held, format_of_metadata


def quantise(writer: Writer, node: NodeProto) -> None:
    """A quantizer's float32 operations up to the integer; the moves that wait follow on the integers."""
    known = {**writer.constants, **_stored_values(writer, node.input[1:])}
    quantizer = quantizer_of(node, known)
    name = node.output[0]
    constant = writer.constant_values(node.input[0])
    if constant is not None:
        writer.operands[name] = _stored(writer, node, quantizer, constant)
        return
    if quantizer.format is None and quantizer.high - quantizer.low >= 1 << (LARGEST_WIDTH + 1):
        raise UnsupportedError(
            f"{describe(node)} writes codes of more than {LARGEST_WIDTH} bits",
            allowed=f"activations of at most {LARGEST_WIDTH} bits",
        )
    value = writer.floating(node.input[0], node)
    target = f"{name}{INTEGER_SUFFIX}"
    tensor = _staged(writer, node, quantizer, value, f"{target}_unmoved" if value.moves else target)
    known_as = quantizer.low, quantizer.high, quantizer.format
    writer.annotate(tensor, *known_as)
    for i, move in enumerate(value.moves):
        last = i == len(value.moves) - 1
        tensor = writer.copy(move, [tensor, *move.input[1:]], target if last else f"{target}_{i}")
        _keep_constants(writer, move)
        writer.annotate(tensor, *known_as)
    scale = _broadcastable(quantizer.scale, writer.rank(name))
    writer.operands[name] = Scaled(tensor, scale, *known_as)


def _stored(writer: Writer, node: NodeProto, quantizer: Quantizer, constant: Value) -> Stored:
    """A quantised constant; its node may say of which narrower format its numbers are (k-hot weights)."""
    mantissas, format = quantizer.mantissas(constant), quantizer.format
    if not np.isfinite(mantissas).all():
        raise UnsupportedError(
            f"{describe(node)} quantises NaN, which {quantizer.format or 'no format'} does not hold",
            hint="train the model again, with a lower learning rate",
        )
    if format is None:
        format = format_of_metadata(describe(node), node)
        check_held(describe(node), mantissas.astype(np.int64), format)
    return Stored(node.output[0], mantissas, quantizer.scale, format)


def _stored_values(writer: Writer, names: Sequence[str]) -> Constants:
    """Parameters that are quantised constants themselves."""
    found = {name: writer.operands.get(name) for name in names if name}
    return {name: operand.values for name, operand in found.items() if isinstance(operand, Stored)}


def _broadcastable(scale: Value, rank: int) -> Value:
    """A scale with the rank of its tensor, or without axes if it has one element."""
    if scale.size == 1:
        return scale.reshape(())
    return scale.reshape((1,) * (rank - scale.ndim) + scale.shape)


def _keep_constants(writer: Writer, node: NodeProto) -> None:
    """Store a node's constant inputs under their own names."""
    for name in node.input[1:]:
        if name:
            writer.constant(name, writer.constants[name])


def _staged(writer: Writer, node: NodeProto, quantizer: Quantizer, value: Floating, target: str) -> str:
    """The quantizer's operations as nodes; the tensor of its integers."""
    tensor = value.tensor
    for i, stage in enumerate(quantizer.stages):
        last = i == len(quantizer.stages) - 1
        output = target if last else f"{node.output[0]}_{stage.op.lower()}"
        inputs, options = [tensor], dict(stage.attributes)
        if stage.constant is not None:
            _check_moves(writer, node, value, stage.op, stage.constant, options)
            inputs.append(writer.constant(f"{output}_operand", stage.constant))
        if stage.op == "Quant":
            inputs += [writer.constant("one", np.float32(1)), writer.constant("zero", np.float32(0))]
            inputs.append(writer.constant(f"bits_{options['bits']}", np.float32(options.pop("bits"))))
            options = {k: int(v) if isinstance(v, bool) else v for k, v in options.items()}
        elif stage.op == "BipolarQuant":
            inputs.append(writer.constant("one", np.float32(1)))
        elif stage.op == "MultiThreshold":
            options |= {"out_dtype": f"UINT{LARGEST_WIDTH}"}
        elif stage.op == "Clip":
            ends = ((end, np.float32(options.pop(end))) for end in ("min", "max"))
            inputs += [writer.constant(f"{output}_{end}", bound) for end, bound in ends]
        elif stage.op == "FormatQuant":
            inputs.append(writer.constant("one", np.float32(1)))
        elif stage.op == "FixedQuant":
            options |= {"integer": options["width"], "signed": int(options["signed"])}
        tensor = writer.emit(stage.op, inputs, output, like=node, **options)
    return tensor


def _check_moves(
    writer: Writer,
    node: NodeProto,
    value: Floating,
    op: str,
    constant: Value | None,
    options: dict[str, Any],
) -> None:
    """Refuse an operation that does not commute with the moves that wait in front of it."""
    for move in value.moves:
        keeps_channels = move.op_type in ("MaxPool", "GlobalMaxPool")
        if constant is not None and constant.size > 1 and not keeps_channels:
            raise UnsupportedError(
                f"{describe(node)} has numbers per channel, behind {describe(move)}, on numbers that are "
                "not quantised",
                hint=f"put a quantizer in front of {describe(move)}",
            )
        if move.op_type in _MAXIMA and not is_rising(op, constant, options):
            raise UnsupportedError(
                f"{describe(node)} does not only rise, and follows {describe(move)} on numbers that are "
                "not quantised",
                hint=f"put a quantizer in front of {describe(move)}",
            )


def elementwise(writer: Writer, node: NodeProto) -> None:
    """Copy the node, on float tensors."""
    if node.op_type in ("Add", "Mul") and integer_binary(writer, node):
        return
    if all(name not in writer.operands or _is_stored(writer, name) for name in node.input if name):
        raise UnsupportedError(
            f"{describe(node)} has constant operands only", hint="fold the constants first"
        )
    moving = [name for name in node.input if name in writer.operands and not _is_stored(writer, name)]
    values = {name: writer.floating(name, node) for name in moving}
    moves = next((value.moves for value in values.values() if value.moves), ())
    if moves and len(values) > 1:
        raise UnsupportedError(
            f"{describe(node)} joins tensors behind {describe(moves[0])} that are not quantised",
            hint=f"put a quantizer in front of {describe(moves[0])}",
        )
    inputs = []
    for name in node.input:
        if name in values or not name:
            inputs.append(values[name].tensor if name else "")
            continue
        constant = writer.constant_values(name)
        assert constant is not None
        inputs.append(writer.constant(name, constant))
        _check_moves(writer, node, next(iter(values.values())), node.op_type, constant, attributes(node))
    if len(node.input) == 1:
        _check_moves(writer, node, values[moving[0]], node.op_type, None, attributes(node))
    tensor = writer.copy(node, inputs, node.output[0])
    source = writer.operands[moving[0]]
    rectified = source if node.op_type == "Relu" and isinstance(source, Scaled) else None
    writer.operands[node.output[0]] = Floating(tensor, moves, rectified)


def two_operand_sum(writer: Writer, node: NodeProto) -> None:
    """A Sum of two is an Add."""
    if len(node.input) != 2:
        raise UnsupportedError(f"{describe(node)} has {len(node.input)} operands", allowed="two")
    add = NodeProto()
    add.CopyFrom(node)
    add.op_type = "Add"
    elementwise(writer, add)


def _is_stored(writer: Writer, name: str) -> bool:
    return isinstance(writer.operands.get(name), Stored)


def batch_norm(writer: Writer, node: NodeProto) -> None:
    """``x * a + b`` in float32, with ``a`` and ``b`` computed in float64."""
    parameters = [writer.constant_values(name) for name in node.input[1:5]]
    if any(value is None for value in parameters) or attributes(node).get("training_mode"):
        raise UnsupportedError(f"{describe(node)} computes its statistics", hint="export after model.eval()")
    gamma, beta, mean, variance = (np.asarray(value, dtype=np.float64) for value in parameters)
    with np.errstate(all="ignore"):
        gain = gamma / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    if not np.isfinite(gain).all():
        raise UnsupportedError(
            f"{describe(node)}: its variances are not positive", hint="train the model first"
        )
    value, name = writer.floating(node.input[0], node), node.output[0]
    shape = (1, -1, *[1] * (writer.rank(name) - 2))
    tensor = value.tensor
    for op, numbers, output in (("Mul", gain, f"{name}_gain"), ("Add", beta - mean * gain, name)):
        constant = numbers.astype(np.float32).reshape(shape)
        _check_moves(writer, node, value, op, constant, {})
        tensor = writer.emit(
            op, [tensor, writer.constant(f"{name}_{op.lower()}", constant)], output, like=node
        )
    writer.operands[name] = Floating(tensor, value.moves)


def move(writer: Writer, node: NodeProto) -> None:
    """Codes change place; where the numbers are not quantised yet, behind the next quantizer."""
    operand = writer.operands[node.input[0]]
    check_window(node)
    if isinstance(operand, Scaled) and (operand.uniform or node.op_type in ("MaxPool", "GlobalMaxPool")):
        tensor = writer.copy(node, [operand.tensor, *node.input[1:]], f"{node.output[0]}{INTEGER_SUFFIX}")
        _keep_constants(writer, node)
        writer.annotate(tensor, operand.low, operand.high, operand.format)
        writer.operands[node.output[0]] = replace(operand, tensor=tensor)
        return
    if isinstance(operand, Stored):
        raise UnsupportedError(f"{describe(node)} moves a constant", hint="fold the constants first")
    value = writer.floating(node.input[0], node)
    writer.operands[node.output[0]] = Floating(value.tensor, (*value.moves, node))


_MAXIMA = frozenset({"MaxPool", "GlobalMaxPool", "ReduceMax"})


def pad(writer: Writer, node: NodeProto) -> None:
    """Zeros around integers."""
    writer.scaled(node.input[0], node)
    value = writer.constants[node.input[2]] if len(node.input) > 2 and node.input[2] else np.float32(0)
    if attributes(node).get("mode", "constant") != "constant" or np.any(value):
        raise UnsupportedError(f"{describe(node)} pads with something else than 0", allowed="zeros")
    move(writer, node)
    result = writer.operands[node.output[0]]
    assert isinstance(result, Scaled)
    low, high = min(0, result.low), max(0, result.high)
    format = result.format if result.format is not None and result.format.holds([0]) else None
    writer.annotate(result.tensor, low, high)
    writer.operands[node.output[0]] = replace(result, low=low, high=high, format=format)


def split(writer: Writer, node: NodeProto) -> None:
    """One Slice for each part."""
    x = writer.scaled(node.input[0], node)
    axis = attributes(node).get("axis", 0) % writer.rank(node.input[0])
    if not x.uniform or axis == 0:
        raise UnsupportedError(
            f"{describe(node)} splits the batch, or a tensor with scales per channel",
            allowed="one scale, and another axis than the batch",
        )
    start = 0
    for output in node.output:
        stop = start + writer.original.get_tensor_shape(output)[axis]
        window = {"starts": start, "ends": stop, "axes": axis}
        names = [
            writer.constant(f"{output}_{key}", np.array([value], dtype=np.int64))
            for key, value in window.items()
        ]
        tensor = writer.emit("Slice", [x.tensor, *names], f"{output}{INTEGER_SUFFIX}", like=node)
        writer.annotate(tensor, x.low, x.high, x.format)
        writer.operands[output] = replace(x, tensor=tensor)
        start = stop


def cast(writer: Writer, node: NodeProto) -> None:
    """To float32, which everything is already."""
    if attributes(node)["to"] != TensorProto.FLOAT:
        raise UnsupportedError(f"{describe(node)} does not cast to float32", allowed="casts to float32")
    writer.operands[node.output[0]] = writer.operands[node.input[0]]
