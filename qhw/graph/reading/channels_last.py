"""Channels-last QONNX as channels-first operators with Transposes around them, which then cancel out.

Every Transpose is pushed towards the outputs, through what works element by element, until it meets its
inverse, a Reshape that does not mind, or a node that needs the order as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, helper

from qhw.errors import InputError, UnsupportedError
from qhw.graph.onnx_tools import attributes, describe, drop_attribute, words
from qhw.graph.reading.draft import STANDARD, Draft
from qhw.graph.reading.operators import CHANNELS_LAST_DOMAIN, QHW_DOMAIN, QONNX_DOMAIN

_UNARY = words(
    """
    Abs Cast Celu Clip Elu Erf Exp Floor Gelu HardSigmoid HardSwish Identity LeakyRelu Log Mish Neg
    Reciprocal Relu Round Selu Sigmoid Sign Softplus Softsign Sqrt Tanh ThresholdedRelu
    """
)
_BROADCASTING = words("Add Div Max Min Mul PRelu Pow Sub Sum")
_BROADCASTING_QUANTIZERS = words("BipolarQuant FixedQuant FloatQuant FormatQuant Quant Trunc")
_REDUCTIONS = words("ReduceMax ReduceMean ReduceSum")


def to_last(rank: int) -> list[int]:
    """The order of axes that puts the channel last."""
    return [0, *range(2, rank), 1]


def to_first(rank: int) -> list[int]:
    """The order of axes that puts the last one where the channel is."""
    return [0, rank - 1, *range(1, rank - 1)]


def inverse(perm: Sequence[int]) -> list[int]:
    """The order that undoes another."""
    return [int(i) for i in np.argsort(perm)]


# --- channels-last operators --------------------------------------------------------------------------


def turn_windows(draft: Draft) -> bool:
    """Channels-last Conv and MaxPool become standard ones between Transposes; whether there were any."""
    return draft.rewrite(lambda node: _window(draft, node) if node.domain == CHANNELS_LAST_DOMAIN else None)


def _window(draft: Draft, node: NodeProto) -> list[NodeProto] | None:
    if node.op_type == "BatchNormalization":
        return None
    kernel = attributes(node).get("kernel_shape")
    if not kernel:
        raise InputError(f"{describe(node)} has no kernel_shape", hint="export it again")
    rank = len(kernel) + 2
    inner = _as_standard(draft, node)
    before: list[NodeProto] = []
    if node.op_type == "Conv":
        weight = draft.node(node, "Transpose", [node.input[1]], suffix="_weight", perm=to_first(rank))
        before, inner.input[1] = [weight], weight.output[0]
    return [*before, *_between(draft, inner, rank)]


def turn_channels(draft: Draft) -> bool:
    """The same for what has parameters per channel; shapes must be known."""
    return draft.rewrite(lambda node: _per_channel(draft, node))


_LAYOUTS_OF_QONNX = {2: "NC", 3: "NWC", 4: "NCHW"}
"""The layout of a MultiThreshold that states none, by the rank with the batch axis."""


def _per_channel(draft: Draft, node: NodeProto) -> list[NodeProto] | None:
    rank = len(draft.shape(node.input[0])) if node.domain else 0
    if node.domain == CHANNELS_LAST_DOMAIN:
        inner = _as_standard(draft, node)
        return _between(draft, inner, rank) if rank > 2 else [inner]
    if node.op_type != "MultiThreshold" or node.domain != QONNX_DOMAIN:
        return None
    layout = attributes(node).get("data_layout", "")
    if layout not in ("NHWC", "NWC", "NCHW", "NCW", "NC", ""):
        raise UnsupportedError(
            f"{describe(node)} has the layout {layout}", allowed="NCHW, NHWC, NCW, NWC, NC"
        )
    rank = len(draft.shape(node.input[0]))
    layout = layout or _LAYOUTS_OF_QONNX.get(rank, "")
    first = {2: "NC", 3: "NCW", 4: "NCHW"}.get(rank, "")
    if layout == first:
        return None
    drop_attribute(node, "data_layout")
    node.attribute.append(helper.make_attribute("data_layout", first))
    return _between(draft, node, rank) if layout in ("NHWC", "NWC") and rank > 2 else [node]


def _as_standard(draft: Draft, node: NodeProto) -> NodeProto:
    inner = draft.node(node, node.op_type, node.input, node.output[0])
    inner.attribute.extend(node.attribute)
    return inner


def _between(draft: Draft, node: NodeProto, rank: int) -> list[NodeProto]:
    """A node between a Transpose of its first input and one of its result."""
    first = draft.node(node, "Transpose", [node.input[0]], suffix="_first", perm=to_first(rank))
    output = node.output[0]
    node.input[0], node.output[0] = first.output[0], draft.fresh(f"{node.name}_out")
    last = draft.node(node, "Transpose", node.output, output, suffix="_last", perm=to_last(rank))
    return [first, node, last]


# --- Transposes that need not be ----------------------------------------------------------------------


def cancel_transposes(draft: Draft) -> None:
    """Push Transposes towards the outputs as long as that ends in fewer numbers moved; shapes must be known.

    A model in which no Transpose can be taken away stays as it is.
    """
    if sum(_is_transpose(node) for node in draft.graph.node) < 2:
        return
    before, cost = draft.graph.SerializeToString(), _moved_numbers(draft)
    for _ in range(4 * len(draft.graph.node)):
        if not _one_step(draft):
            break
    if _moved_numbers(draft) >= cost:
        draft.restore(before)


def _is_transpose(node: NodeProto) -> bool:
    return node.op_type == "Transpose" and node.domain == STANDARD


def _moved_numbers(draft: Draft) -> int:
    return sum(
        math.prod(draft.shape(node.output[0]))
        for node in draft.graph.node
        if _is_transpose(node) and node.input[0] not in draft.constants
    )


def _one_step(draft: Draft) -> bool:
    """Every Transpose over what reads it, once; whether anything changed."""
    changed = _drop_pairs(draft)
    turned = {node.output[0]: node for node in draft.graph.node if _is_transpose(node)}
    written = {**turned}

    def change(node: NodeProto) -> list[NodeProto] | None:
        made = _over(draft, node, written)
        for new in made or ():
            if _is_transpose(new):
                written[new.output[0]] = new
        return made

    changed |= draft.rewrite(change)
    draft.drop_unread()
    return changed


def _perm(node: NodeProto) -> list[int]:
    return [int(p) for p in attributes(node)["perm"]]


def _drop_pairs(draft: Draft) -> bool:
    """A Transpose of a Transpose is one, or none."""
    turned = {node.output[0]: node for node in draft.graph.node if _is_transpose(node)}
    renamed: dict[str, str] = {}
    outputs = set(draft.outputs)

    def change(node: NodeProto) -> list[NodeProto] | None:
        if not _is_transpose(node):
            return None
        inner = turned.get(node.input[0])
        perm, source = _perm(node), node.input[0]
        if inner is not None:
            perm, source = [_perm(inner)[p] for p in perm], inner.input[0]
        if perm == list(range(len(perm))):
            if node.output[0] not in outputs:
                renamed[node.output[0]] = source
                return []
            return [draft.node(node, "Identity", [source], node.output[0])]
        if inner is None:
            return None
        return [draft.node(node, "Transpose", [source], node.output[0], perm=perm)]

    changed = draft.rewrite(change)
    draft.bypass(renamed)
    return changed


def _over(draft: Draft, node: NodeProto, turned: dict[str, NodeProto]) -> list[NodeProto] | None:
    """The node in front of the Transpose that it reads, with the Transpose behind it; None where it stays."""
    found = [turned[name] for name in node.input if name in turned]
    if not found or len(node.output) != 1:
        return None
    perm = _perm(found[0])
    if any(_perm(other) != perm for other in found):
        return None
    if node.domain == STANDARD and node.op_type in _UNARY:
        return _swapped(draft, node, [turned[node.input[0]].input[0], *node.input[1:]], perm)
    quantizer = node.domain in (QONNX_DOMAIN, QHW_DOMAIN) and node.op_type in _BROADCASTING_QUANTIZERS
    if quantizer or (node.domain == STANDARD and node.op_type in _BROADCASTING):
        inputs = _turned_back(draft, node, turned, perm)
        return None if inputs is None else _swapped(draft, node, inputs, perm)
    if node.domain == STANDARD and node.op_type == "Concat":
        if len(found) != len(node.input):
            return None
        axis = perm[int(attributes(node)["axis"])]
        inputs = [turned[name].input[0] for name in node.input]
        return _swapped(draft, node, inputs, perm, axis=axis)
    if node.domain == STANDARD and node.op_type == "Pad" and node.input[0] in turned:
        return _padded(draft, node, turned, perm)
    if node.domain == STANDARD and node.op_type == "Resize" and node.input[0] in turned:
        scales = draft.constants[node.input[2]][inverse(perm)]
        stored = draft.constant(f"{node.name}_scales_turned", np.asarray(scales))
        return _swapped(draft, node, [turned[node.input[0]].input[0], "", stored], perm)
    if node.domain == STANDARD and node.op_type in _REDUCTIONS and node.input[0] in turned:
        return _reduced(draft, node, turned, perm)
    if node.domain == STANDARD and node.op_type in ("Reshape", "Flatten"):
        return _flattened(draft, node, turned[node.input[0]], perm)
    return None


def _swapped(
    draft: Draft, node: NodeProto, inputs: Sequence[str], perm: Sequence[int], **options: Any
) -> list[NodeProto]:
    """The node on what the Transposes read, then one Transpose."""
    output = node.output[0]
    made = NodeProto()
    made.CopyFrom(node)
    del made.input[:]
    made.input.extend(inputs)
    for name, value in options.items():
        drop_attribute(made, name)
        made.attribute.append(helper.make_attribute(name, value))
    made.output[0] = draft.fresh(f"{node.name}_inner")
    back = inverse(perm)
    shape = draft.shape(output)
    draft.shapes[made.output[0]] = tuple(shape[b] for b in back)
    return [made, draft.node(node, "Transpose", made.output, output, suffix="_turned", perm=list(perm))]


def _turned_back(
    draft: Draft, node: NodeProto, turned: dict[str, NodeProto], perm: Sequence[int]
) -> list[str] | None:
    """The inputs as they were before the Transpose; constants are stored turned back."""
    inputs = []
    back = inverse(perm)
    for name in node.input:
        if name in turned:
            inputs.append(turned[name].input[0])
        elif not name or name not in draft.constants:
            if name:
                return None
            inputs.append(name)
        else:
            value = draft.constants[name]
            inputs.append(name if value.size == 1 else _stored(draft, name, value, back))
    return inputs


def _stored(draft: Draft, name: str, value: NDArray[Any], back: Sequence[int]) -> str:
    """A constant that broadcasts in turned order, for the order before."""
    full = value.reshape((1,) * (len(back) - value.ndim) + value.shape)
    return draft.constant(f"{name}_turned", np.ascontiguousarray(full.transpose(back)))


def _padded(
    draft: Draft, node: NodeProto, turned: dict[str, NodeProto], perm: Sequence[int]
) -> list[NodeProto]:
    pads = draft.constants[node.input[1]].reshape(2, -1)
    stored = draft.constant(f"{node.name}_pads_turned", pads[:, inverse(perm)].reshape(-1))
    inputs = [turned[node.input[0]].input[0], stored, *node.input[2:]]
    return _swapped(draft, node, inputs, perm)


def _reduced(
    draft: Draft, node: NodeProto, turned: dict[str, NodeProto], perm: Sequence[int]
) -> list[NodeProto] | None:
    if not attributes(node)["keepdims"]:
        return None
    axes = sorted(perm[int(a)] for a in draft.constants[node.input[1]].reshape(-1))
    stored = draft.constant(f"{node.name}_axes_turned", axes)
    return _swapped(draft, node, [turned[node.input[0]].input[0], stored], perm)


def _flattened(
    draft: Draft, node: NodeProto, transpose: NodeProto, perm: Sequence[int]
) -> list[NodeProto] | None:
    """A Reshape does not mind an order that only axes of length 1 tell apart."""
    shape = draft.shape(transpose.input[0])
    moving = [p for p in perm if shape[p] > 1]
    if moving != sorted(moving) or perm[0] != 0:
        return None
    out = draft.shape(node.output[0])
    stored = draft.constant(f"{node.name}_shape", [0, *out[1:]] if out[0] == 1 else list(out))
    return [draft.node(node, "Reshape", [transpose.input[0], stored], node.output[0])]


def absorb_into_products(draft: Draft) -> None:
    """Where a Transpose stands before a Reshape to vectors and a product with constants, turn their rows.

    Between the Reshape and the MatMul may stand what works element by element, alike for all elements.
    """
    producers, readers = draft.producers(), draft.readers()
    for node in list(draft.graph.node):
        if node.op_type != "MatMul" or node.domain != STANDARD:
            continue
        flat = _flat_source(draft, node.input[0], producers, readers)
        transpose = producers.get(flat.input[0]) if flat is not None else None
        if flat is None or transpose is None or not _is_transpose(transpose) or _perm(transpose)[0] != 0:
            continue
        shape, perm = draft.shape(transpose.input[0]), _perm(transpose)
        rows = np.arange(math.prod(shape)).reshape(shape[1:]).transpose([p - 1 for p in perm[1:]]).reshape(-1)
        if _rows_stored(draft, node, producers, readers, np.argsort(rows)):
            flat.input[0] = transpose.input[0]
            _as_reshape(draft, flat)
    draft.drop_unread()


def _flat_source(
    draft: Draft, name: str, producers: dict[str, NodeProto], readers: dict[str, list[NodeProto]]
) -> NodeProto | None:
    """The Reshape or Flatten to vectors behind a tensor, with nothing that tells elements apart between."""
    while True:
        node = producers.get(name)
        if node is None or len(readers.get(name, ())) != 1 or name in draft.outputs:
            return None
        if node.op_type in ("Reshape", "Flatten") and node.domain == STANDARD:
            return node if len(draft.shape(name)) == 2 and draft.shape(name)[0] == 1 else None
        alike = node.op_type in (_UNARY | _BROADCASTING | _BROADCASTING_QUANTIZERS) and len(node.output) == 1
        others = [n for n in node.input[1:] if n]
        if not alike or any(n not in draft.constants or draft.constants[n].size != 1 for n in others):
            return None
        name = node.input[0]


def _rows_stored(
    draft: Draft,
    node: NodeProto,
    producers: dict[str, NodeProto],
    readers: dict[str, list[NodeProto]],
    order: NDArray[np.int64],
) -> bool:
    """Store the rows of a constant operand in another order, quantizer included; whether it is one."""
    name = node.input[1]
    quantizer = producers.get(name)
    if name in draft.constants:
        node.input[1] = draft.constant(f"{name}_rows", draft.constants[name][..., order, :])
        return True
    if quantizer is None or not all(n in draft.constants for n in quantizer.input if n):
        return False
    if quantizer.op_type not in _BROADCASTING_QUANTIZERS or len(readers[name]) != 1:
        return False
    if draft.constants[quantizer.input[0]].ndim != 2:
        return False
    for index, parameter in enumerate(quantizer.input):
        value = draft.constants[parameter] if parameter else np.zeros(())
        if value.ndim == 2 and value.shape[0] == order.size:
            quantizer.input[index] = draft.constant(f"{parameter}_rows", value[order])
    return True


def _as_reshape(draft: Draft, flat: NodeProto) -> None:
    """A Flatten or Reshape of one sample as a Reshape to what it gave before."""
    out = draft.shape(flat.output[0])
    made = draft.node(
        flat, "Reshape", [flat.input[0], draft.constant(f"{flat.name}_shape", [0, *out[1:]])], flat.output[0]
    )
    flat.CopyFrom(made)
