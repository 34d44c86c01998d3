"""What an operation on integers reads: tensors of the graph, with a scale that is pulled behind it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qhw.errors import UnsupportedError
from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.floating import axes_of, floating, moved_scale, rerooted
from qhw.graph.front.settling import padded_by, whole_numbers
from qhw.graph.front.state import InexactError, NodeView, State
from qhw.graph.front.values import Floating, Scale
from qhw.graph.tails.operations import Value
from qhw.graph.tails.tail import TABLE_ENTRIES

SAME_NUMBER = 2.0**-20
"""Two numbers are taken for one that agree to 20 bits: both are results of a few float32 operations."""

PIXEL_BITS = 20
"""Bits of a multiplier by which every number agrees with a whole one to 20 bits."""

LARGEST_FACTOR = 1 << 24
"""Whole numbers up to here are all float32 numbers, as ``canonical.onnx`` stores multipliers."""


def integers(state: State, node: NodeView, index: int = 0) -> tuple[str, Scale | None]:
    """An operand as integers of the graph, and their free scale if they have one.

    Raises:
        UnsupportedError: the tensor is in the middle of a tail that does more than scale.
    """
    name = node.proto.input[index]
    value = state.operand(node, index)
    if not isinstance(value, Floating):
        try:
            return state.scaled_tensor(node, value)
        except InexactError:
            value = floating(state, node, name)
    whole = whole_numbers(state, value)
    found = _pulled(state, node, value if whole is None else whole)
    if found is None:
        raise not_quantised(node, name, value)
    tensor, scale = found
    powers = scale.powers
    if powers is None or not scale.is_uniform:
        state.reasons.append(f"{node}: it reads '{name}' at a scale that is no power of two")
        return tensor, scale
    return state.scaled(node, tensor, powers[0], "_input_scale"), None


def not_quantised(node: NodeView, name: str, value: Floating) -> UnsupportedError:
    """The refusal of an operation on integers that reads numbers in the middle of a tail."""
    if value.raw is not None and not value.steps:
        return node.refuse(
            f"it reads the float input '{value.raw.name}' without a quantizer",
            allowed="a quantizer as the first node, or an input annotated as an integer",
            hint="quantise the model's input (QuantIdentity in Brevitas), or say of what type it is "
            "(--input uint8; set_tensor_datatype in qonnx)",
        )
    spelled = f" (after {value.spelled})" if value.steps else ""
    return node.refuse(
        f"it reads '{name}', which is not quantised{spelled}",
        allowed="integers of a known scale",
        hint=f"put a quantizer in front of {node}",
    )


def summands(
    state: State, node: NodeView, index: int = 0, *, by_channel: bool = False
) -> tuple[str, Scale | None]:
    """An operand whose channels are summed, as integers of one scale (``by_channel``: or of one each).

    Pixels that a model normalises by a mean and a deviation per channel come to one grid (:func:`_pixels`).

    Raises:
        UnsupportedError: as :func:`integers`.
    """
    try:
        x, scale = integers(state, node, index)
    except UnsupportedError:
        pixels = _pixels(state, node, index)
        if pixels is None:
            raise
        return pixels
    if scale is None or scale.is_uniform or by_channel:
        return x, scale
    return _pixels(state, node, index) or (x, scale)


def _pulled(state: State, node: NodeView, value: Floating) -> tuple[str, Scale] | None:
    """A tail of one root that only scales (and adds a multiple of its scale), as integers and their scale."""
    if any(move.fill for move in value.moves):
        return None
    line = _line(value)
    if line is None:
        return None
    scale, offset = line
    x, k = value.roots[0], 1
    if np.any(offset):
        found = _whole(np.ones(1), np.asarray(offset / scale), 2)
        placed = None if found is None else _on_grid(state, node, x, *found)
        if found is None or placed is None:
            return None
        x, k = placed, found[0]
    rank = state.rank(x)
    free = Scale.of(scale / np.float32(k) / _unit(state, x), rank + 1)
    if free is None:
        return None
    moved = moved_scale(node, free, value.moves)
    assert moved is not None
    return state.moved(x, value), moved


def _line(value: Floating) -> tuple[Value, NDArray[np.float64]] | None:
    """The positive scale and the offset of a tail that does no more; None for any other."""
    if value.raw is not None or len(value.roots) != 1:
        return None
    scale, offset = np.ones((), np.float32), np.zeros((), np.float64)
    current = value.roots[0]
    for step in value.steps:
        constant = value.constants.get(step.inputs[-1])
        if step.op not in ("Mul", "Div", "Add", "Sub") or step.inputs[0] != current or constant is None:
            return None
        if step.op in ("Mul", "Div"):
            factor = constant if step.op == "Mul" else 1 / constant.astype(np.float64)
            scale = np.asarray(scale * constant if step.op == "Mul" else scale / constant, dtype=np.float32)
            offset = offset * factor
        else:
            offset = offset + (constant if step.op == "Add" else -constant.astype(np.float64))
        current = step.output
    return (scale, np.asarray(offset)) if (scale > 0).all() else None


def _pixels(state: State, node: NodeView, index: int) -> tuple[str, Scale] | None:
    """An integer input with a scale and an offset per channel as integers of one scale; None for others.

    ``(x / 255 - mean) / deviation`` is ``unit * (multiplier * x + whole number)`` with whole multipliers of
    up to about 20 bits, in which float32's numbers are found again to 20 bits.
    """
    try:
        value = floating(state, node, node.proto.input[index])
    except UnsupportedError:
        return None
    if len(value.roots) == 1 and max(axes_of(value), default=0) > 0:
        value = rerooted(state, node, value) or value
    line = _line(value)
    if line is None or not _is_input(state, value.roots[0]):
        return None
    scale, offset = line
    lowest = scale.min()
    found = _whole(scale.astype(np.float64) / lowest, offset / lowest, 1 << PIXEL_BITS)
    x = None if found is None else _on_grid(state, node, value.roots[0], *found)
    if found is None or x is None:
        return None
    (unit,) = np.unique(np.float32(lowest / found[0]) / _unit(state, x))
    fills = [move.fill for move in value.moves if move.fill is not None]
    if any(fill.number or fill.at != value.output for fill in fills):
        return None
    state.reasons.append(f"{node}: it reads pixels at a scale that is no power of two")
    moves = tuple(move if move.fill is None else padded_by(move, move.fill, 0) for move in value.moves)
    return state.moved(x, replace(value, moves=moves)), Scale((float(unit),))


def _is_input(state: State, tensor: str) -> bool:
    """Whether a tensor is integers that the user gives, moved about at most."""
    graph = state.builder.graph
    while tensor not in graph.inputs:
        node = graph.producer(tensor)
        if node is None or node.op not in ("Reshape", "Transpose", "Slice", "Pad", "Upsample"):
            return False
        tensor = node.inputs[0]
    encoding, (low, high) = graph.input_encodings.get(tensor), state.builder.ranges[tensor].bounds
    return encoding is not None and encoding.exact and high - low < TABLE_ENTRIES


def _unit(state: State, x: str) -> Value:
    """The powers of two that mantissas of 1 stand for, broadcasting over the tensor."""
    exponents = state.builder.type(x).exponent.broadcast(state.rank(x)).astype(np.int32)
    return np.asarray(np.ldexp(np.float32(1), exponents))


def _whole(
    multiplier: NDArray[np.float64], offset: NDArray[np.float64], largest: int
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]] | None:
    """The least k up to ``largest`` that makes ``k * (multiplier, offset)`` whole numbers, and these."""
    pairs = np.stack([a.reshape(-1) for a in np.broadcast_arrays(multiplier, offset)])
    k = np.arange(1, largest + 1, dtype=np.float64)
    for a, b in np.unique(pairs, axis=1).T:
        allowed = SAME_NUMBER * k * max(a, abs(b))
        k = k[
            (np.abs(k * a - np.rint(k * a)) <= SAME_NUMBER * k * a)
            & (np.abs(k * b - np.rint(k * b)) <= allowed)
        ]
    if not k.size:
        return None
    return int(k[0]), np.rint(k[0] * multiplier).astype(np.int64), np.rint(k[0] * offset).astype(np.int64)


def _on_grid(
    state: State, node: NodeView, x: str, k: int, multiplier: NDArray[np.int64], offset: NDArray[np.int64]
) -> str | None:
    """``multiplier * x + offset`` in units of x; None where Affine cannot say it."""
    kind = state.builder.type(x)
    rank = len(kind.shape)
    numbers = [array[0] if array.ndim == rank + 1 else array for array in (multiplier, offset)]
    if not kind.exponent.is_scalar or any(size > 1 for array in numbers for size in array.shape[1:]):
        return None
    if multiplier.max() > LARGEST_FACTOR:
        return None
    exponents = (0, kind.exponent.values[0])
    factor, addend = (
        Dyadic(array, np.full((1,) * array.ndim, exponent))
        for array, exponent in zip(numbers, exponents, strict=True)
    )
    return state.affine(node, x, factor, addend, "_centred")
