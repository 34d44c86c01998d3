"""Tails in the making: float32 operations between integers and the next quantizer, in the file's order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qhw.graph.front.broadcast import broadcast
from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.state import NodeView, State
from qhw.graph.front.values import Activation, Clamped, Floating, Movement, RawInput, Scale
from qhw.graph.tails.operations import CONSTANT, OPERATIONS, RISING, Directed, Step, Value
from qhw.graph.tails.quantizer import QUANTIZER_STEPS, Quantizer, quantizer_of
from qhw.graph.tails.tail import TABLE_ENTRIES

ELEMENTWISE = frozenset(OPERATIONS) - QUANTIZER_STEPS
"""ONNX operators that are one step of a tail."""

DIFFER_LESS = (
    "use one number for all, in the quantizer, in the weights' scales or in what is added between them"
)

FLOATABLE = ELEMENTWISE | {"BatchNormalization"}
"""ONNX operators that a tail may hold."""


def floating(state: State, node: NodeView, name: str) -> Floating:
    """A tensor as ``node`` reads it in float32: what the file does to integers until there."""
    value = state.values[name]
    if isinstance(value, Floating):
        return value
    if name not in state.floats:
        if name in state.derived:
            state.floats[name] = step(state, state.view(state.producers[name]))
        else:
            assert isinstance(value, Activation | Clamped | RawInput)
            state.floats[name] = from_integers(state, node, value, name)
    return state.floats[name]


def from_integers(
    state: State, node: NodeView, value: Activation | Clamped | RawInput, name: str
) -> Floating:
    """Integers times what one of them stands for, in float32."""
    if isinstance(value, RawInput) and value.integers is None:
        whole = Floating((value.name,), (), {}, value.name, value.shape, value.moves, raw=value)
        if not value.exponent:
            return whole
        return extended(state, node, whole, "Mul", f"{name}_scaled", [None, np.float32(2.0**value.exponent)])
    tensor, scale = state.scaled_tensor(node, value)
    kind = state.builder.type(tensor)
    whole = Floating((tensor,), (), {}, tensor, kind.shape)
    unit = unit_of(state, tensor, scale)
    if (unit == 1).all():
        return whole
    return extended(state, node, whole, "Mul", name if tensor != name else f"{name}_scaled", [None, unit])


def unit_of(state: State, tensor: str, scale: Scale | None) -> Value:
    """What a mantissa of 1 stands for, float32, broadcasting over the tensor with a batch axis."""
    kind = state.builder.type(tensor)
    rank = len(kind.shape)
    factor = np.ones((), np.float32) if scale is None else scale.array(rank)
    unit = np.ldexp(factor, kind.exponent.broadcast(rank).astype(np.int32)).astype(np.float32)
    return unit.reshape((1, *unit.shape)) if unit.ndim else unit


def step(state: State, node: NodeView) -> Floating:
    """An element-wise node as one more operation, or a few, of the tail that its operand is in."""
    if node.op == "BatchNormalization":
        return _batch_norm(state, node)
    names = [name for name in node.proto.input if name]
    operands: list[Floating | Value] = []
    for index, name in enumerate(names):
        if node.op == "Clip" and index:
            break
        known = state.known(name)
        operands.append(floating(state, node, name) if known is None else known)
    options = dict(node.options)
    if node.op == "Clip":
        options |= _clip_bounds(state, node)
    return joined(state, node, node.op, node.proto.output[0], operands, options)


def _clip_bounds(state: State, node: NodeView) -> dict[str, float]:
    bounds = {"min": -np.inf, "max": np.inf}
    for key, name in zip(bounds, node.proto.input[1:], strict=False):
        stored = state.stored(name)
        bounds[key] = bounds[key] if stored is None else float(stored)
    return bounds


def _batch_norm(state: State, node: NodeView) -> Floating:
    """``x * a + b`` in float32, with ``a`` and ``b`` computed in float64."""
    parameters = [state.known(name) for name in node.proto.input[1:5]]
    if any(value is None for value in parameters):
        raise node.refuse("its parameters are computed", allowed="constants")
    gamma, beta, mean, variance = (np.asarray(value, dtype=np.float64) for value in parameters)
    with np.errstate(all="ignore"):
        gain = gamma / np.sqrt(variance + node.options["epsilon"])
    if not np.isfinite(gain).all():
        raise node.refuse("its variances are not positive", hint="train the model first")
    value, name = floating(state, node, node.proto.input[0]), node.proto.output[0]
    shape = (1, -1, *[1] * (len(value.moved_shape) - 1))
    for op, numbers, output in (("Mul", gain, f"{name}_gain"), ("Add", beta - mean * gain, name)):
        value = extended(state, node, value, op, output, [None, numbers.astype(np.float32).reshape(shape)])
    return value


def joined(
    state: State,
    node: NodeView,
    op: str,
    output: str,
    operands: Sequence[Floating | Value],
    options: Mapping[str, Any],
) -> Floating:
    """One operation on tensors in tails and constants."""
    moving = [value for value in operands if isinstance(value, Floating)]
    if not moving:
        raise node.refuse("it has constant operands only", hint="fold the constants first")
    whole = moving[0]
    for other in moving[1:]:
        whole = _merged(state, node, whole, other)
    places = [None if isinstance(value, Floating) else value for value in operands]
    outputs = [value.output if isinstance(value, Floating) else "" for value in operands]
    return extended(state, node, whole, op, output, places, options, outputs)


def _merged(state: State, node: NodeView, a: Floating, b: Floating) -> Floating:
    """Two tails as one, for an operation that reads both."""
    if a is b:
        return a
    moved = next((value.moves[0] for value in (a, b) if value.moves), None)
    if moved is not None and a.moves != b.moves:
        raise node.refuse(
            f"it joins tensors behind {moved} that are not quantised",
            hint=f"put a quantizer in front of {moved}",
        )
    if a.shape != b.shape:
        a, b = _of_one_shape(state, node, a, b)
    names = [value.raw.name for value in (a, b) if value.raw is not None]
    if len(names) == 1 or len(set(names)) > 1:
        name = names[0]
        raise node.refuse(f"it joins the float input '{name}' with another tensor before a quantizer")
    if len(axes_of(a) | axes_of(b)) > 1:
        raise node.refuse("it joins tensors with numbers per index of different axes", hint="quantise both")
    steps = tuple({step.output: step for step in (*a.steps, *b.steps)}.values())
    return Floating(
        tuple(dict.fromkeys((*a.roots, *b.roots))),
        steps,
        {**a.constants, **b.constants},
        a.output,
        a.shape,
        a.moves,
        a.raw,
    )


def _of_one_shape(state: State, node: NodeView, a: Floating, b: Floating) -> tuple[Floating, Floating]:
    """Two tails with the integers that they begin with repeated, where each is a function of one integer."""
    if not all(_is_of_one_number(value) for value in (a, b)):
        raise node.refuse(
            f"it combines computed tensors of shapes {a.shape} and {b.shape} (batch left out) that are not "
            "quantised",
            allowed="equal shapes, a constant that broadcasts, or quantised tensors that broadcast",
            hint="quantise both, with one scale each",
        )
    roots = broadcast(state, node, Activation(a.roots[0]), Activation(b.roots[0]))
    one, other = (_on_root(state, v, r.tensor) for v, r in zip((a, b), roots, strict=True))
    return one, other


def _is_of_one_number(value: Floating) -> bool:
    """Whether a tail is the same function of one integer everywhere."""
    alike = all(constant.size == 1 for constant in value.constants.values())
    return alike and value.raw is None and len(value.roots) == 1 and not value.moves


def _on_root(state: State, value: Floating, root: str) -> Floating:
    """A tail of one number for all channels on another tensor."""
    (old,) = value.roots
    steps = tuple(replace(s, inputs=tuple(root if i == old else i for i in s.inputs)) for s in value.steps)
    constants = {name: constant.reshape(()) for name, constant in value.constants.items()}
    output = root if value.output == old else value.output
    return Floating((root,), steps, constants, output, state.builder.type(root).shape)


def extended(
    state: State,
    node: NodeView,
    value: Floating,
    op: str,
    output: str,
    operands: Sequence[Value | np.float32 | None],
    options: Mapping[str, Any] | None = None,
    outputs: Sequence[str] | None = None,
) -> Floating:
    """One operation more; ``operands`` in its order, None for what is computed (``outputs``: its name)."""
    options = dict(options or {})
    arrays = [None if c is None else np.asarray(c, dtype=np.float32) for c in operands]
    placed = value
    for array in arrays:
        if array is not None and _placed(node, op, placed, array, options) is None:
            moved = rerooted(state, node, placed)
            if moved is None:
                raise _unplaced(node, placed)
            placed = moved
    constants, names = dict(placed.constants), []
    for index, array in enumerate(arrays):
        if array is None:
            names.append((outputs[index] if outputs else "") or placed.output)
            continue
        name = f"{output}_operand_{index}" if output not in constants else f"{output}_operand_{index}_"
        found = _placed(node, op, placed, array, options)
        if found is None:
            raise _unplaced(node, placed)
        constants[name] = found
        names.append(name)
    result = replace(
        placed,
        steps=(*placed.steps, Step(op, tuple(names), output, options)),
        constants=constants,
        output=output,
    )
    if len(axes := axes_of(result)) > 1:
        raise node.refuse(
            f"the numbers in front of it differ along axes {sorted(axis + 1 for axis in axes)}",
            allowed="one number, or one per index of one axis",
            hint=DIFFER_LESS,
        )
    move = next((move for move in result.moves if move.is_maximum), None)
    if move is None or _rises(result, result.steps[-1]):
        return result
    moved = rerooted(state, node, value)
    if moved is None:
        raise node.refuse(
            f"it does not only rise, and follows {move} on numbers that are not quantised",
            hint=f"put a quantizer in front of {move}",
        )
    outputs = [moved.output if name == value.output else name for name in outputs] if outputs else None
    return extended(state, node, moved, op, output, operands, options, outputs)


def _placed(
    node: NodeView, op: str, value: Floating, array: Value, options: Mapping[str, Any]
) -> Value | None:
    """A constant over the axes of the roots; None where what moves the numbers does not keep its axis."""
    rank = len(value.moved_shape) + 1
    tail: tuple[int, ...] = ()
    if op == "MultiThreshold":
        layout = options.get("data_layout") or {2: "NC", 3: "NWC", 4: "NCHW"}.get(rank, "")  # as qonnx
        shape = [1] * rank
        shape[layout.index("C") if "C" in layout else 1] = array.shape[0]
        array, tail = array.reshape((*shape, array.shape[1])), array.shape[1:]
    elif array.ndim < rank:
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
    axes = [axis for axis, size in enumerate(array.shape[:rank]) if size > 1]
    if array.ndim > rank + len(tail) or (axes and array.shape[0] > 1):
        raise node.refuse(f"a constant of shape {array.shape} would broadcast along the batch axis")
    if not axes:
        return array.reshape((1,) * (len(value.shape) + 1) + tail) if tail else array.reshape(())
    if len(axes) > 1:
        raise node.refuse(
            f"the numbers in front of it differ along axes {axes}",
            allowed="one number, or one per index of one axis",
            hint=DIFFER_LESS,
        )
    if array.shape[axes[0]] != value.moved_shape[axes[0] - 1]:
        raise node.refuse(f"a constant of shape {array.shape} enlarges a tensor of shape {value.moved_shape}")
    axis = _axis_before(value, axes[0] - 1)
    if axis is None:
        return None
    shape = [1] * (len(value.shape) + 1)
    shape[axis + 1] = array.shape[axes[0]]
    return array.reshape((*shape, *tail))


def _axis_before(value: Floating, axis: int) -> int | None:
    """The axis of the roots that is ``axis`` behind the movements."""
    shapes = [value.shape, *(move.shape for move in value.moves)]
    for before, move in zip(shapes[-2::-1], reversed(value.moves), strict=False):
        found = next((a for a in range(len(before)) if move.axis(a) == axis), None)
        if found is None:
            return None
        axis = found
    return axis


def rerooted(state: State, node: NodeView, value: Floating) -> Floating | None:
    """The same tail on roots that the movements have been applied to, where its numbers allow it."""
    if value.raw is not None or any(move.fill for move in value.moves):
        return None
    if any(move.is_maximum for move in value.moves) and not (
        only_rises(value) or _found_to_rise(state, value)
    ):
        return None
    constants: dict[str, Value] = {}
    for name, constant in value.constants.items():
        found = _behind(value, constant)
        if found is None:
            return None
        constants[name] = found
    roots = {root: state.moved(root, value) for root in value.roots}
    steps = tuple(
        replace(step, inputs=tuple(roots.get(name, name) for name in step.inputs)) for step in value.steps
    )
    output = roots.get(value.output, value.output)
    return Floating(tuple(roots.values()), steps, constants, output, value.moved_shape)


def _behind(value: Floating, constant: Value) -> Value | None:
    """A constant over the axes that the movements give; None where they do not keep its axis."""
    rank = len(value.shape) + 1
    tail = constant.shape[rank:]
    varying = [axis - 1 for axis, size in enumerate(constant.shape[:rank]) if size > 1]
    if not varying:
        return constant.reshape((1,) * (len(value.moved_shape) + 1) + tail) if tail else constant.reshape(())
    axis: int | None = varying[0]
    for move in value.moves:
        axis = None if axis is None else move.axis(axis)
    if axis is None:
        return None
    shape = [1] * (len(value.moved_shape) + 1)
    shape[axis + 1] = constant.shape[varying[0] + 1]
    return constant.reshape((*shape, *tail))


def _unplaced(node: NodeView, value: Floating) -> Exception:
    move = value.moves[0] if value.moves else None
    return node.refuse(
        f"it has numbers per channel, behind {move}, on numbers that are not quantised",
        hint=f"put a quantizer in front of {move}",
    )


def axes_of(value: Floating) -> set[int]:
    """The axes of the roots (no batch) along which a tail's constants differ."""
    rank = len(value.shape) + 1
    shapes = [constant.shape[:rank] for constant in value.constants.values() if constant.ndim >= rank]
    return {axis - 1 for shape in shapes for axis, size in enumerate(shape) if size > 1}


def only_rises(value: Floating) -> bool:
    """Whether a tail of one root never falls as its integer rises, operation by operation."""
    return len(value.roots) == 1 and all(_rises(value, step) for step in value.steps)


def _found_to_rise(state: State, value: Floating) -> bool:
    """Whether a tail of one root never falls, by trying all its integers: of Tanh no rule says so."""
    if len(value.roots) != 1 or axes_of(value):
        return False
    low, high = state.builder.ranges[value.roots[0]].bounds
    if high - low >= TABLE_ENTRIES:
        return False
    numbers = run_steps(value, np.arange(low, high + 1).astype(np.float32)).reshape(-1)
    return bool(np.isfinite(numbers).all() and (np.diff(numbers) >= 0).all())


def run_steps(value: Floating, numbers: Value) -> Value:
    """What a tail of one root and no numbers per channel makes of float32 numbers, operation by operation."""
    values = {**value.constants, value.roots[0]: numbers}
    with np.errstate(all="ignore"):
        for step in value.steps:
            operands = [values[i] for i in step.inputs]
            values[step.output] = np.asarray(OPERATIONS[step.op].function(step, operands), np.float32)
    return values[value.output]


def _rises(value: Floating, step: Step) -> bool:
    """Whether a step of a tail never falls as what it reads rises."""
    moving, still = np.full(1, RISING, np.int8), np.zeros(1, np.int8)
    operands = [
        Directed(value.constants.get(name), still if name in value.constants else moving)
        for name in step.inputs
    ]
    found = OPERATIONS[step.op].direction(step, operands)
    return bool(((found == RISING) | (found == CONSTANT)).all())


def staged(state: State, node: NodeView, value: Floating, quantizer: Quantizer, output: str) -> Floating:
    """The tail with a quantizer's operations behind it, up to the integer."""
    for index, stage in enumerate(quantizer.stages):
        last = index == len(quantizer.stages) - 1
        name = output if last else f"{output}_{index}_{stage.op.lower()}"
        operands: list[Value | np.float32 | None] = [None]
        if stage.constant is not None:
            operands.append(stage.constant)
        value = extended(state, node, value, stage.op, name, operands, dict(stage.attributes))
    return value


def read_quantizer(state: State, node: NodeView) -> Quantizer:
    """What a quantizer node computes."""
    known: dict[str, NDArray[Any]] = {}
    for name in node.proto.input[1:]:
        stored = state.stored(name)
        if stored is not None:
            known[name] = stored
        elif isinstance(state.values.get(name), Dyadic):
            known[name] = state.values[name].float32()  # type: ignore[union-attr]
    return quantizer_of(node.proto, known)


def moved_scale(node: NodeView, scale: Scale | None, moves: Sequence[Movement]) -> Scale | None:
    """A free scale behind movements."""
    for move in moves:
        if scale is not None and scale.axis is not None:
            axis = move.axis(scale.axis)
            if axis is None:
                raise node.refuse(
                    f"{move} moves numbers with a scale per channel",
                    allowed="one scale for the whole tensor",
                    hint=f"quantise per tensor in front of {move}",
                )
            scale = replace(scale, axis=axis)
    return scale
