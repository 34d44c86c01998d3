"""What moves codes about and changes none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.lowering.dyadic import Dyadic
from qhw.graph.lowering.state import Activation, NodeView, RawInput, State, Value, rule


def _moved(
    state: State,
    node: NodeView,
    constant: Callable[[NDArray[Any]], NDArray[Any]],
    tensor: Callable[[str], str],
) -> Value:
    """Apply a movement to a constant, or to a tensor of the graph."""
    value = state.values[node.proto.input[0]]
    if isinstance(value, Dyadic):
        return value.moved(constant)
    return Activation(tensor(state.settle(node, value)))


@rule("Identity", "Dropout")
def identity(state: State, node: NodeView) -> Value:
    """Nothing."""
    return state.values[node.proto.input[0]]


@rule("Cast")
def cast(state: State, node: NodeView) -> Value:
    """To a float type: nothing. To an integer type: nothing, if the numbers are integers that it holds."""
    value = state.values[node.proto.input[0]]
    target = np.dtype(helper.tensor_dtype_to_np_dtype(int(node.options["to"])))
    if target.kind == "f":
        return value
    if isinstance(value, Dyadic | RawInput) or target.kind not in "iu":
        raise node.refuse(f"it casts to {target}", allowed="casts to float32")
    x = state.tensor(node)
    low, high = state.builder.ranges[x].bounds
    limits = np.iinfo(target)
    if min(state.builder.type(x).exponent.values) < 0 or low < limits.min or high > limits.max:
        raise node.refuse(f"it casts numbers that {target} does not hold")
    return Activation(x)


def reshape_to(state: State, node: NodeView, name: str, x: str, shape: Sequence[int]) -> str:
    """The tensor in another shape; exponents per channel are aligned where channels do not stay."""
    kind = state.builder.type(x)
    if kind.shape == tuple(shape):
        return x
    keeps = kind.exponent.axis == 0 and tuple(shape[:1]) == kind.shape[:1]
    if not keeps:
        x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    return state.builder.reshape(name, x, shape, source=node.name)


def _reshaped(state: State, node: NodeView) -> Value:
    out = node.output_shapes[0]

    def tensor(x: str) -> str:
        if not out or out[0] != 1:
            raise node.refuse(f"it gives shape {out} for one sample: the batch axis does not stay in front")
        return reshape_to(state, node, node.name, x, out[1:])

    return _moved(state, node, lambda array: array.reshape(out), tensor)


@rule("Reshape")
def reshape(state: State, node: NodeView) -> Value:
    """Another shape, batch axis kept."""
    return _reshaped(state, node)


@rule("Flatten")
def flatten(state: State, node: NodeView) -> Value:
    """All axes but the batch in one."""
    is_constant = isinstance(state.values[node.proto.input[0]], Dyadic)
    if int(node.options.get("axis", 1)) % len(_input_shape(state, node)) == 0 and not is_constant:
        raise node.refuse("axis 0 joins the batch axis with others", allowed="axis 1")
    return _reshaped(state, node)


def _input_shape(state: State, node: NodeView) -> tuple[int, ...]:
    return tuple(state.model.get_tensor_shape(node.proto.input[0]) or ())


def _axes(state: State, node: NodeView, rank: int) -> list[int] | None:
    """The axes that the node names (attribute or input), not negative."""
    axes = node.options.get("axes")
    if axes is None and len(node.proto.input) > 1 and node.proto.input[1]:
        stored = state.stored(node.proto.input[1])
        if stored is None:
            raise node.refuse("its axes are computed", allowed="constant axes")
        axes = stored.reshape(-1).tolist()
    return None if axes is None else [int(a) % rank for a in axes]


@rule("Squeeze", "Unsqueeze")
def squeeze(state: State, node: NodeView) -> Value:
    """Axes of length 1 taken away or added, the batch axis never."""
    rank = len(_input_shape(state, node)) if node.op == "Squeeze" else len(node.output_shapes[0])
    axes = _axes(state, node, rank)
    if not isinstance(state.values[node.proto.input[0]], Dyadic) and (axes is None or 0 in axes):
        raise node.refuse("it moves the batch axis", allowed="axes that are named, 1 and up")
    return _reshaped(state, node)


@rule("Transpose")
def transpose(state: State, node: NodeView) -> Value:
    """Axes in another order, the batch axis in front."""
    rank = len(node.output_shapes[0])
    perm = [int(p) for p in node.options.get("perm", range(rank)[::-1])]

    def tensor(x: str) -> str:
        if perm[0] != 0:
            raise node.refuse(f"perm {perm} moves the batch axis", allowed="0 in front")
        inner = [p - 1 for p in perm[1:]]
        return x if inner == sorted(inner) else state.builder.transpose(node.name, x, inner, source=node.name)

    return _moved(state, node, lambda array: array.transpose(perm), tensor)


@rule("Concat")
def concat(state: State, node: NodeView) -> Value:
    """Tensors joined; where formats or exponents differ, all are widened exactly to common ones."""
    values = [state.values[name] for name in node.proto.input]
    if any(isinstance(value, Dyadic) for value in values):
        raise node.refuse("it joins constants", allowed="computed tensors")
    tensors = [state.tensor(node, i) for i in range(len(values))]
    rank = state.rank(tensors[0])
    axis = int(node.options["axis"]) % (rank + 1)
    if axis == 0:
        raise node.refuse("it joins along the batch axis", allowed="axes 1 and up")
    if len(tensors) == 1:
        return Activation(tensors[0])
    return Activation(
        state.builder.concat(node.name, _common(state, node, tensors), axis - 1, source=node.name)
    )


def _common(state: State, node: NodeView, tensors: list[str]) -> list[str]:
    kinds = [state.builder.type(t) for t in tensors]
    if len({(k.format, k.exponent) for k in kinds}) == 1 and kinds[0].exponent.is_scalar:
        return tensors
    finest = min(e for kind in kinds for e in kind.exponent.values)
    lows, highs = [], []
    for tensor, kind in zip(tensors, kinds, strict=True):
        low, high = state.builder.ranges[tensor].bounds
        shift = max(kind.exponent.values) - finest
        lows.append(min(low << shift, low))
        highs.append(max(high << shift, high))
    format = Integer.holding(min(0, *lows), max(0, *highs))
    return [
        state.builder.requant(
            f"{node.name}_operand_{i}", t, format, finest, rounding=Rounding.TRN, source=node.name
        )
        for i, t in enumerate(tensors)
    ]


@rule("Pad")
def pad(state: State, node: NodeView) -> Value:
    """A constant around the tensor, where that constant is on the tensor's grid."""
    if node.options.get("mode", "constant") != "constant":
        raise node.refuse(f"mode '{node.options['mode']}'", allowed="constant")
    x = state.tensor(node)
    rank = state.rank(x) + 1
    pads = _pads(state, node, rank)
    if pads[0] or pads[rank] or min(pads) < 0:
        raise node.refuse(f"pads {pads}", allowed="0 for the batch axis, 0 or more for the others")
    inner = (*pads[1:rank], *pads[rank + 1 :])
    if not any(inner):
        return Activation(x)
    x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    mantissa = _pad_mantissa(state, node, x)
    kind = state.builder.type(x)
    if not kind.format.holds([mantissa]):
        low, high = state.builder.ranges[x].bounds
        format = Integer.holding(min(low, mantissa), max(high, mantissa))
        x = state.builder.requant(f"{node.name}_wide", x, format, kind.exponent, source=node.name)
    return Activation(state.builder.pad(node.name, x, inner, mantissa, source=node.name))


def _pads(state: State, node: NodeView, rank: int) -> tuple[int, ...]:
    """Begins of every axis with the batch, then ends."""
    pads = node.options.get("pads")
    if pads is None:
        stored = state.stored(node.proto.input[1])
        if stored is None:
            raise node.refuse("its pads are computed", allowed="constant pads")
        pads = stored.reshape(-1).tolist()
    axes = list(range(rank))
    if len(node.proto.input) > 3 and node.proto.input[3]:
        axes = [int(a) % rank for a in np.asarray(state.stored(node.proto.input[3])).reshape(-1)]
    begins, ends = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        begins[axis], ends[axis] = int(pads[position]), int(pads[position + len(axes)])
    return (*begins, *ends)


def _pad_mantissa(state: State, node: NodeView, x: str) -> int:
    value = Dyadic.of(np.float32(node.options.get("value", 0.0)))
    if len(node.proto.input) > 2 and node.proto.input[2]:
        given = state.values.get(node.proto.input[2])
        if not isinstance(given, Dyadic) or len(given.fractions()) != 1:
            raise node.refuse("its value is not a constant number")
        value = given
    (exponent,) = state.builder.type(x).exponent.values
    number = value.fractions()[0] / 2**exponent if exponent >= 0 else value.fractions()[0] * 2**-exponent
    if number.denominator != 1:
        raise node.refuse(
            f"its value {float(value.fractions()[0]):g} is not on the grid of its input (2^{exponent})"
        )
    return int(number)


@rule("Slice")
def slice_(state: State, node: NodeView) -> Value:
    """A range along each of the named axes."""
    starts, ends = _numbers(state, node, 1, "starts"), _numbers(state, node, 2, "ends")
    assert starts is not None
    assert ends is not None
    axes = _numbers(state, node, 3, "axes") or list(range(len(starts)))
    steps = _numbers(state, node, 4, "steps") or [1] * len(starts)
    shape = _input_shape(state, node)
    cuts = [
        (axis % len(shape), *slice(start, end, step).indices(shape[axis % len(shape)]))
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    ]

    def constant(array: NDArray[Any]) -> NDArray[Any]:
        for axis, start, end, step in cuts:
            array = array.take(range(start, end, step), axis=axis)
        return array

    return _moved(state, node, constant, lambda x: _cut(state, node, x, cuts, shape))


def _cut(
    state: State, node: NodeView, x: str, cuts: list[tuple[int, int, int, int]], shape: Sequence[int]
) -> str:
    needed = [c for c in cuts if c[1:] != (0, shape[c[0]], 1)]
    for count, (axis, start, end, step) in enumerate(needed, 1):
        if axis == 0 or step < 1:
            raise node.refuse(f"axis {axis} with step {step}", allowed="axes 1 and up, steps 1 and up")
        name = node.name if count == len(needed) else f"{node.name}_{count}"
        x = state.builder.slice(name, x, axis - 1, start, end, step, source=node.name)
    return x


def _numbers(state: State, node: NodeView, index: int, option: str) -> list[int] | None:
    if option in node.options:
        return [int(n) for n in node.options[option]]
    if len(node.proto.input) <= index or not node.proto.input[index]:
        return None
    stored = state.stored(node.proto.input[index])
    if stored is None:
        raise node.refuse(f"its {option} are computed", allowed="constants")
    return [int(n) for n in stored.reshape(-1)]


@rule("Split")
def split(state: State, node: NodeView) -> Sequence[Value]:
    """Consecutive parts along an axis."""
    shape = _input_shape(state, node)
    axis = int(node.options.get("axis", 0)) % len(shape)
    if axis == 0:
        raise node.refuse("it splits the batch axis", allowed="axes 1 and up")
    x = state.tensor(node)
    parts, start = [], 0
    for index, out in enumerate(node.output_shapes):
        stop = start + out[axis]
        name = f"{node.name}_{index}"
        parts.append(Activation(state.builder.slice(name, x, axis - 1, start, stop, source=node.name)))
        start = stop
    return parts


@rule("Gather")
def gather(state: State, node: NodeView) -> Value:
    """One index, or evenly spaced rising ones, along an axis."""
    shape = _input_shape(state, node)
    axis = int(node.options.get("axis", 0)) % len(shape)
    stored = state.stored(node.proto.input[1])
    if stored is None or axis == 0:
        raise node.refuse(
            "its indices are computed, or pick from the batch axis", allowed="constants, axes 1 and up"
        )
    indices = [int(i) % shape[axis] for i in stored.reshape(-1)]
    step = indices[1] - indices[0] if len(indices) > 1 else 1
    if stored.ndim > 1 or step < 1 or indices != list(range(indices[0], indices[-1] + 1, step)):
        raise node.refuse(f"indices {indices[:8]} are not evenly spaced and rising")
    x = state.tensor(node)
    name = f"{node.name}_slice" if stored.ndim == 0 else node.name
    cut = (axis, indices[0], indices[-1] + 1, step)
    y = _cut(state, NodeView(node.proto, node.options, node.output_shapes), x, [cut], shape)
    return Activation(reshape_to(state, node, name, y, node.output_shapes[0][1:]))
