"""What moves codes about and changes none: written once, for constants, inputs, integers and tails alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import helper

from qhw.errors import UnsupportedError
from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.floating import floating, from_integers, moved_scale
from qhw.graph.front.integers import integers
from qhw.graph.front.state import InexactError, NodeView, State, rule
from qhw.graph.front.values import (
    Activation,
    Fill,
    Floating,
    FreeConstant,
    Lowered,
    Movement,
    RawInput,
    Scale,
    reshaped_axis,
)


def apply(state: State, node: NodeView, movement: Movement) -> Lowered:
    """Move whatever the node reads: at once, or behind the next quantizer where none has come yet."""
    value = state.values[node.proto.input[0]]
    match value:
        case Dyadic():
            if movement.array is None:
                raise node.refuse(f"its input '{node.proto.input[0]}' is a constant")
            return value.moved(movement.array)
        case RawInput(integers=None) | Floating():
            return replace(value, moves=(*value.moves, movement))
        case _:
            name = node.proto.input[0]
            try:
                tensor, scale = state.scaled_tensor(node, value)
            except InexactError:
                return replace(floating(state, node, name), moves=(movement,))
            if scale is not None and scale.axis is not None and movement.axis(scale.axis) is None:
                return replace(from_integers(state, node, value, name), moves=(movement,))
            scale = moved_scale(node, scale, [movement])
            return Activation(movement.tensor(tensor, movement.name), scale)


def shape_of(state: State, node: NodeView, index: int = 0) -> tuple[int, ...]:
    """The shape of an input, batch axis included."""
    return tuple(state.model.get_tensor_shape(node.proto.input[index]) or ())


def _is_constant(state: State, node: NodeView) -> bool:
    return isinstance(state.values[node.proto.input[0]], Dyadic)


@rule("Identity")
def identity(state: State, node: NodeView) -> Lowered:
    """Nothing."""
    return state.values[node.proto.input[0]]


@rule("Cast")
def cast(state: State, node: NodeView) -> Lowered:
    """To a float type: nothing. To an integer type: nothing, if the numbers are integers that it holds."""
    value = state.values[node.proto.input[0]]
    target = np.dtype(helper.tensor_dtype_to_np_dtype(int(node.options["to"])))
    if target.kind == "f":
        return value
    limits = np.iinfo(target) if target.kind in "iu" else None
    if isinstance(value, RawInput) and value.integers is not None:
        (low, high), exponent = value.integers, value.exponent
    elif isinstance(value, Activation):
        x = state.tensor(node)
        (low, high), exponent = state.builder.ranges[x].bounds, min(state.builder.type(x).exponent.values)
    else:
        limits = None
    if limits is None:
        raise node.refuse(f"it casts to {target}", allowed="casts to float32")
    if exponent < 0 or low < limits.min or high > limits.max:
        raise node.refuse(f"it casts numbers that {target} does not hold")
    return value


def reshape_to(state: State, node: NodeView, name: str, x: str, shape: Sequence[int]) -> str:
    """The tensor in another shape; exponents per channel are aligned where channels do not stay."""
    kind = state.builder.type(x)
    if kind.shape == tuple(shape):
        return x
    keeps = kind.exponent.axis == 0 and tuple(shape[:1]) == kind.shape[:1]
    if not keeps:
        x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    return state.builder.reshape(name, x, shape, source=node.name)


def _reshaped(state: State, node: NodeView) -> Lowered:
    before, out = shape_of(state, node), node.output_shapes[0]
    value = state.values[node.proto.input[0]]
    if isinstance(value, Dyadic) and math.prod(out) != math.prod(value.shape):
        raise node.refuse(f"it gives shape {out} for a constant of shape {value.shape}")
    if not _is_constant(state, node) and (not out or out[0] != 1):
        raise node.refuse(f"it gives shape {out} for one sample: the batch axis does not stay in front")
    return apply(
        state,
        node,
        Movement(
            node.name,
            node.op,
            out[1:],
            lambda array: array.reshape(out),
            lambda x, name: reshape_to(state, node, name, x, out[1:]),
            lambda axis: reshaped_axis(before[1:], out[1:], axis),
        ),
    )


@rule("Reshape")
def reshape(state: State, node: NodeView) -> Lowered:
    """Another shape, batch axis kept."""
    return _reshaped(state, node)


@rule("Flatten")
def flatten(state: State, node: NodeView) -> Lowered:
    """All axes but the batch in one: what axis 0 of a single sample gives too."""
    return _reshaped(state, node)


@rule("Squeeze", "Unsqueeze")
def squeeze(state: State, node: NodeView) -> Lowered:
    """Axes of length 1 taken away or added, the batch axis never."""
    if not _is_constant(state, node) and 0 in state.numbers(node, 1):
        raise node.refuse("it moves the batch axis", allowed="axes 1 and up")
    return _reshaped(state, node)


@rule("Transpose")
def transpose(state: State, node: NodeView) -> Lowered:
    """Axes in another order, the batch axis in front."""
    out = node.output_shapes[0]
    perm = [int(p) for p in node.options["perm"]]
    if perm[0] != 0 and not _is_constant(state, node):
        raise node.refuse(f"perm {perm} moves the batch axis", allowed="0 in front")
    inner = [p - 1 for p in perm[1:]]

    def tensor(x: str, name: str) -> str:
        return x if inner == sorted(inner) else state.builder.transpose(name, x, inner, source=node.name)

    movement = Movement(node.name, node.op, out[1:], lambda a: a.transpose(perm), tensor, inner.index)
    return apply(state, node, movement)


@rule("Concat")
def concat(state: State, node: NodeView) -> Lowered:
    """Tensors joined; where formats or exponents differ, all are widened exactly to common ones."""
    rank = len(node.output_shapes[0]) - 1
    axis = int(node.options["axis"])
    constants = [state.values[name] for name in node.proto.input]
    if all(isinstance(value, Dyadic) for value in constants):
        return _joined_constants(constants, axis)  # type: ignore[arg-type]
    if axis == 0:
        raise node.refuse("it joins along the batch axis", allowed="axes 1 and up")
    try:
        found = [_part(state, node, index, rank) for index in range(len(node.proto.input))]
    except UnsupportedError:
        together = _joined_views(state, node, axis - 1)
        if together is None:
            raise
        return together
    free = _joined_scale(state, node, found, axis - 1)
    tensors = [tensor for tensor, _ in found]
    if free is not None:
        tensors = [_as_integers(state, node, i, tensor) for i, tensor in enumerate(tensors)]
    tensors = _common(state, node, tensors)
    return Activation(state.builder.concat(node.name, tensors, axis - 1, source=node.name), free)


def _joined_constants(parts: Sequence[Dyadic], axis: int) -> Dyadic:
    """Constants side by side; at free scales integers, each with the scale of its part."""
    if not any(isinstance(part, FreeConstant) for part in parts):
        mantissa = np.concatenate([part.mantissa for part in parts], axis)
        exponent = np.concatenate([np.broadcast_to(part.exponent, part.shape) for part in parts], axis)
        formats = {part.format for part in parts}
        format = formats.pop() if len(formats) == 1 else None
        return Dyadic(mantissa, exponent, all(part.on_grid for part in parts), format).packed()
    if not all(part.on_grid or isinstance(part, FreeConstant) for part in parts):
        return Dyadic.of(np.concatenate([part.float32() for part in parts], axis))
    integers, scales = zip(*(_of_integers(part) for part in parts), strict=True)
    listed = {part.listed if isinstance(part, FreeConstant) else part.format for part in parts}
    whole = FreeConstant.quantised(
        np.concatenate(integers, axis),
        np.concatenate(scales, axis),
        listed.pop() if len(listed) == 1 else None,
    )
    return whole.moved(lambda array: array)


def _of_integers(part: Dyadic) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """A quantised constant as integers, and what 1 stands for at every one of them."""
    if isinstance(part, FreeConstant):
        return part.integers.astype(np.float64), np.broadcast_to(part.scale, part.shape)
    unit = np.ldexp(np.float32(1), np.broadcast_to(part.exponent, part.shape).astype(np.int32))
    return part.mantissa.astype(np.float64), np.asarray(unit, dtype=np.float32)


def _joined_views(state: State, node: NodeView, axis: int) -> Floating | None:
    """One tensor that is not quantised, joined with itself or with what moves it; None for several ones."""
    values = [state.values[name] for name in node.proto.input]
    if not all(isinstance(value, Floating | RawInput) for value in values):
        return None
    views = [floating(state, node, name) for name in node.proto.input]
    first = views[0]
    if any((v.roots, v.steps, v.output) != (first.roots, first.steps, first.output) for v in views):
        return None
    if any(move.fill for view in views for move in view.moves):
        return None

    def tensor(x: str, name: str) -> str:
        parts = [
            state.builder.uniform(f"{name}_aligned_{i}", state.moved(x, view), source=node.name)
            for i, view in enumerate(views)
        ]
        return state.builder.concat(name, parts, axis, source=node.name)

    is_maximum = any(move.is_maximum for view in views for move in view.moves)
    out = node.output_shapes[0][1:]
    move = Movement(node.name, node.op, out, None, tensor, lambda _: None, is_maximum)
    return replace(first, moves=(move,))


def _part(state: State, node: NodeView, index: int, rank: int) -> tuple[str, Scale | None]:
    """A tensor that is joined, or a constant of a sane number of bits as one."""
    value = state.values[node.proto.input[index]]
    if isinstance(value, Dyadic):
        raise node.refuse(
            f"it joins the constant '{node.proto.input[index]}' with computed tensors",
            allowed="computed tensors, or constants alone",
        )
    return integers(state, node, index)


def _joined_scale(
    state: State, node: NodeView, parts: Sequence[tuple[str, Scale | None]], axis: int
) -> Scale | None:
    """The free scale of tensors that are joined: one, or one per channel; None where none has any."""
    if all(scale is None for _, scale in parts):
        return None
    parts = [(state.builder.uniform(f"{node.name}_aligned_{i}", t), s) for i, (t, s) in enumerate(parts)]
    units = [_unit_per_channel(state, node, tensor, scale, axis) for tensor, scale in parts]
    flat = np.concatenate(units)
    if (flat == flat[0]).all():
        return Scale((float(flat[0]),))
    if axis != 0:
        raise node.refuse(
            f"it joins tensors of different scales along axis {axis + 1}",
            allowed="one scale, or different ones along the channel axis",
            hint="quantise the joined tensors with one shared quantizer",
        )
    return Scale(tuple(float(unit) for unit in flat), 0)


def _unit_per_channel(
    state: State, node: NodeView, tensor: str, scale: Scale | None, axis: int
) -> NDArray[np.float32]:
    """What a mantissa of 1 stands for, for every index of an axis."""
    kind = state.builder.type(tensor)
    axes = {kind.exponent.axis, None if scale is None else scale.axis} - {None}
    if axes - {axis}:
        raise node.refuse(
            "it joins tensors with scales per index of another axis", hint="quantise per tensor"
        )
    exponents = np.array(kind.exponent.values, dtype=np.int32)
    factors = np.ones(1, np.float32) if scale is None else np.array(scale.values, dtype=np.float32)
    return np.broadcast_to(np.ldexp(factors, exponents).astype(np.float32), (kind.shape[axis],))


def _as_integers(state: State, node: NodeView, index: int, tensor: str) -> str:
    """The same mantissas at exponent 0: what they stand for is kept beside the graph."""
    tensor = state.builder.uniform(f"{node.name}_aligned_{index}", tensor)
    (exponent,) = state.builder.type(tensor).exponent.values
    return state.scaled(node, tensor, -exponent, f"_integers_{index}")


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
def pad(state: State, node: NodeView) -> Lowered:
    """A constant on the tensor's grid around it; or its edges, repeated or mirrored."""
    rank = len(shape_of(state, node))
    pads = state.numbers(node, 1)
    if pads[0] or pads[rank]:
        raise node.refuse(f"pads {pads}", allowed="0 for the batch axis")
    try:
        x, scale = integers(state, node)
    except UnsupportedError:
        value = state.operand(node)
        if isinstance(value, RawInput | Floating):
            return _padded_later(state, node, value, pads)
        raise
    mode = node.options["mode"]
    inner = tuple(max(p, 0) for p in (*pads[1:rank], *pads[rank + 1 :]))
    if not any(inner):
        return Activation(_cropped(state, node, x, pads, rank), scale)
    if scale is not None and scale.axis is not None and (inner[scale.axis] or inner[scale.axis + rank - 1]):
        raise node.refuse("it pads the axis that its scales differ along", hint="quantise per tensor")
    if mode != "constant":
        return Activation(_with_edges(state, node, x, pads, rank), scale)
    x = _cropped(state, node, x, pads, rank)
    x = state.builder.uniform(f"{node.name}_aligned", x, source=node.name)
    mantissa = _pad_mantissa(state, node, x, scale)
    return Activation(_surrounded(state, node, node.name, x, inner, mantissa), scale)


def _padded_later(state: State, node: NodeView, value: RawInput | Floating, pads: Sequence[int]) -> Floating:
    """Numbers that are not quantised: padded behind the next quantizer, by what it makes of the value."""
    whole = floating(state, node, node.proto.input[0])
    rank, out = len(pads) // 2, node.output_shapes[0][1:]
    inner = tuple(max(p, 0) for p in (*pads[1:rank], *pads[rank + 1 :]))
    kept = [axis for axis in range(rank - 1) if not (pads[axis + 1] or pads[axis + rank + 1])]

    def cropped(x: str, name: str) -> str:
        return _with_edges(state, node, x, pads, rank)

    def surrounded(x: str, name: str, mantissa: int) -> str:
        x = state.builder.uniform(f"{name}_aligned", _cropped(state, node, x, pads, rank), source=node.name)
        return _surrounded(state, node, name, x, inner, mantissa)

    fill = None
    if any(inner) and node.options["mode"] == "constant":
        fill = Fill(float(_pad_value(state, node).fractions()[0]), whole.output, surrounded)
    move = Movement(
        node.name, node.op, out, None, cropped, lambda axis: axis if axis in kept else None, fill=fill
    )
    return replace(whole, moves=(*whole.moves, move))


def _surrounded(
    state: State, node: NodeView, name: str, x: str, inner: tuple[int, ...], mantissa: int
) -> str:
    """The tensor with integers around it, wide enough for them."""
    kind = state.builder.type(x)
    if not kind.format.holds([mantissa]):
        low, high = state.builder.ranges[x].bounds
        format = Integer.holding(min(low, mantissa), max(high, mantissa))
        x = state.builder.requant(f"{name}_wide", x, format, kind.exponent, source=node.name)
    return state.builder.pad(name, x, inner, mantissa, source=node.name)


def _with_edges(state: State, node: NodeView, x: str, pads: Sequence[int], rank: int) -> str:
    """Without what negative pads take away, and with its own elements where others are positive."""
    mode = node.options["mode"]
    x = _cropped(state, node, x, pads, rank)
    inner = tuple(max(p, 0) for p in (*pads[1:rank], *pads[rank + 1 :]))
    if not any(inner):
        return x
    if mode not in ("edge", "reflect", "wrap"):
        raise node.refuse(f"mode '{mode}'", allowed="constant, edge, reflect, wrap")
    return _repeated(state, node, x, inner, mode)


def _cropped(state: State, node: NodeView, x: str, pads: Sequence[int], rank: int) -> str:
    """Negative pads take elements away."""
    for axis in range(1, rank):
        size = state.builder.type(x).shape[axis - 1]
        begin, end = max(0, -pads[axis]), max(0, -pads[axis + rank])
        if begin + end >= size:
            raise node.refuse(f"pads {tuple(pads)} leave nothing of axis {axis} with {size} elements")
        if begin or end:
            name = f"{node.name}_cropped_{axis}"
            x = state.builder.slice(name, x, axis - 1, begin, size - end, source=node.name)
    return x


def _repeated(state: State, node: NodeView, x: str, pads: Sequence[int], mode: str) -> str:
    """The tensor's own elements around it, axis by axis, by NumPy's modes of the same names."""
    rank = len(pads) // 2
    for axis in range(rank):
        begin, end = pads[axis], pads[axis + rank]
        if begin or end:
            size = state.builder.type(x).shape[axis]
            try:
                places = np.pad(np.arange(size), (begin, end), mode=mode).tolist()  # type: ignore[call-overload]
            except ValueError as error:
                raise node.refuse(f"mode '{mode}' by {begin}, {end} of {size} elements: {error}") from error
            x = picked(state, node, f"{node.name}_{axis}", x, axis, places)
    return x


def picked(state: State, node: NodeView, name: str, x: str, axis: int, places: Sequence[int]) -> str:
    """Elements along an axis, in any order and any number: slices, joined."""
    runs: list[list[int]] = []
    for place in places:
        if runs and _continues(runs[-1], place):
            runs[-1].append(place)
        else:
            runs.append([place])
    size = state.builder.type(x).shape[axis]
    parts = []
    for index, run in enumerate(runs):
        step = run[1] - run[0] if len(run) > 1 else 1
        if run == list(range(size)):
            parts.append(x)
            continue
        part = f"{name}_{index}" if len(runs) > 1 else name
        parts.append(state.builder.slice(part, x, axis, run[0], run[-1] + 1, step, source=node.name))
    return parts[0] if len(parts) == 1 else state.builder.concat(name, parts, axis, source=node.name)


def _continues(run: Sequence[int], place: int) -> bool:
    """Whether a place goes on with evenly spaced rising ones."""
    return place > run[-1] and (len(run) == 1 or place - run[-1] == run[1] - run[0])


def _pad_value(state: State, node: NodeView) -> Dyadic:
    value = state.values.get(node.proto.input[2])
    if not isinstance(value, Dyadic) or len(value.fractions()) != 1:
        raise node.refuse("its value is not a constant number")
    return value


def _pad_mantissa(state: State, node: NodeView, x: str, scale: Scale | None) -> int:
    value = _pad_value(state, node)
    (exponent,) = state.builder.type(x).exponent.values
    if scale is not None:
        return _free_mantissa(node, float(value.fractions()[0]), exponent, scale)
    number = value.fractions()[0] / 2**exponent if exponent >= 0 else value.fractions()[0] * 2**-exponent
    if number.denominator != 1:
        raise node.refuse(
            f"its value {float(value.fractions()[0]):g} is not on the grid of its input (2^{exponent})"
        )
    return int(number)


def _free_mantissa(node: NodeView, value: float, exponent: int, scale: Scale) -> int:
    """The integer that a number is at a free scale, in float32."""
    units = np.ldexp(np.array(scale.values, dtype=np.float32), exponent)
    numbers = np.rint(np.float32(value) / units)
    if (numbers * units != np.float32(value)).any() or (numbers != numbers[0]).any():
        raise node.refuse(f"its value {value:g} is not on the grid of its input ({units[0]:g})")
    return int(numbers[0])


@rule("Slice")
def slice_(state: State, node: NodeView) -> Lowered:
    """A range along each of the named axes."""
    starts, ends, axes, steps = (state.numbers(node, index) for index in range(1, 5))
    shape = shape_of(state, node)
    cuts = {
        axis: list(range(*slice(start, end, step).indices(shape[axis])))
        for axis, start, end, step in zip(axes, starts, ends, steps, strict=True)
    }
    return _picked(state, node, node.name, cuts, node.output_shapes[0])


def _picked(
    state: State, node: NodeView, name: str, cuts: dict[int, list[int]], out: Sequence[int]
) -> Lowered:
    """The elements at places along axes (batch axis counted), in the shape ``out``."""
    shape = shape_of(state, node)
    needed = {axis: places for axis, places in cuts.items() if places != list(range(shape[axis]))}
    if 0 in needed and not _is_constant(state, node):
        raise node.refuse("it picks from the batch axis", allowed="axes 1 and up")
    if any(not places for places in needed.values()):
        raise node.refuse("it picks nothing", allowed="at least one element of every axis")

    def array(whole: NDArray[Any]) -> NDArray[Any]:
        for axis, places in needed.items():
            whole = whole.take(places, axis=axis)
        return whole.reshape(tuple(out))

    def tensor(x: str, name: str) -> str:
        last = len(needed) - 1
        reshaped = tuple(len(needed.get(a, range(n))) for a, n in enumerate(shape))[1:] != tuple(out)[1:]
        for count, (axis, places) in enumerate(needed.items()):
            own = (
                name
                if count == last and not reshaped
                else f"{name}_slice"
                if reshaped
                else f"{name}_{count + 1}"
            )
            x = picked(state, node, own, x, axis - 1, places)
        return reshape_to(state, node, name, x, out[1:]) if reshaped else x

    def axis_after(axis: int) -> int | None:
        if axis + 1 in needed:
            return None
        kept = [len(needed.get(a, range(n))) for a, n in enumerate(shape)][1:]
        return reshaped_axis(kept, list(out)[1:], axis)

    return apply(state, node, Movement(name, node.op, tuple(out)[1:], array, tensor, axis_after))


@rule("Split")
def split(state: State, node: NodeView) -> Sequence[Lowered]:
    """Consecutive parts along an axis."""
    axis = int(node.options["axis"])
    if axis == 0:
        raise node.refuse("it splits the batch axis", allowed="axes 1 and up")
    parts, start = [], 0
    for index, out in enumerate(node.output_shapes):
        stop = start + out[axis]
        name, places = f"{node.name}_{index}", list(range(start, stop))
        parts.append(_picked(state, node, name, {axis: places}, out))
        start = stop
    return parts


@rule("Gather")
def gather(state: State, node: NodeView) -> Lowered:
    """Elements along an axis, in any order."""
    axis = int(node.options["axis"])
    stored = state.stored(node.proto.input[1])
    if stored is None:
        raise node.refuse("its indices are computed", allowed="constant indices")
    places = [int(i) for i in stored.reshape(-1)]
    return _picked(state, node, node.name, {axis: places}, node.output_shapes[0])
