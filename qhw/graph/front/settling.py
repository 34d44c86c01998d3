"""Each tail on its own: the cheapest exact operations that give its quantizer's integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from qhw.formats.integer import Integer, as_mantissas
from qhw.formats.modes import QONNX_ROUNDING, Rounding
from qhw.formats.table import TableFormat
from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.floating import (
    axes_of,
    floating,
    moved_scale,
    only_rises,
    read_quantizer,
    run_steps,
    staged,
)
from qhw.graph.front.state import NodeView, State
from qhw.graph.front.values import (
    LARGEST_BITS,
    Activation,
    Fill,
    Floating,
    FreeConstant,
    Lowered,
    Movement,
    Scale,
)
from qhw.graph.ir import Exponent, InputEncoding, InputStep
from qhw.graph.tails.operations import OPERATIONS, Step, Value, code_bounds, format_named
from qhw.graph.tails.quantizer import LARGEST_WIDTH, Quantizer
from qhw.graph.tails.tail import TABLE_ENTRIES, Tail, Thresholds, evaluate, lower_tail
from qhw.onnx_ops.float_quant import check_held, format_of_metadata


def quantised_constant(state: State, node: NodeView, constant: Value) -> FreeConstant:
    """A constant at a free scale; its node may name the narrower format of its numbers (k-hot weights)."""
    quantizer = read_quantizer(state, node)
    mantissas, format = quantizer.mantissas(constant), quantizer.format
    if not np.isfinite(mantissas).all():
        raise node.refuse(
            f"it quantises NaN, which {quantizer.format or 'no format'} does not hold",
            hint="train the model again, with a lower learning rate",
        )
    if np.abs(mantissas).max(initial=0) >= 2.0**LARGEST_BITS:
        raise node.refuse(f"it quantises numbers to more than {LARGEST_BITS} bits", allowed="smaller numbers")
    if format is None:
        format = format_of_metadata(str(node), node.proto)
        check_held(str(node), mantissas.astype(np.int64), format)
    return FreeConstant.quantised(mantissas, quantizer.scale, format)


def quantised(state: State, node: NodeView) -> Lowered:
    """A quantizer and the tail that it ends, as an encoding of an input, thresholds or a table."""
    constant = state.known(node.proto.input[0])
    if constant is not None:
        return quantised_constant(state, node, constant)
    quantizer = read_quantizer(state, node)
    if quantizer.format is None and quantizer.high - quantizer.low >= 1 << (LARGEST_WIDTH + 1):
        raise node.refuse(
            f"it writes codes of more than {LARGEST_WIDTH} bits",
            allowed=f"activations of at most {LARGEST_WIDTH} bits",
        )
    value = staged(state, node, floating(state, node, node.proto.input[0]), quantizer, node.proto.output[0])
    rank = len(value.moved_shape) + 1
    scale = Scale.of(quantizer.scale, rank)
    if scale is None:
        raise node.refuse(
            f"its scale of shape {quantizer.scale.shape} does not fit its input {value.moved_shape}",
            allowed="a scale per tensor or per channel",
        )
    exponent, free = _unit(node, value, scale)
    return _activation(state, node, value, quantizer, exponent, free)


def whole_numbers(state: State, value: Floating) -> Floating | None:
    """A tail that rounds by itself (Sign; Round, Clip) as the integers of its last such step, and the rest.

    None where it does not round, or a float input is rounded without bounds.
    """
    place = _last_whole(value)
    if place is None:
        return None
    output = value.steps[place].output
    prefix = replace(value, steps=value.steps[: place + 1], output=output)
    rest = value.steps[place + 1 :]
    node = state.view(state.producers[output]) if output in state.producers else None
    ends = _ends(prefix) if value.raw is not None else (0, 0)
    if node is None or ends is None or (value.moves and rest and axes_of(value)):
        return None
    if rest and any(move.fill for move in value.moves):
        return None
    quantizer = Quantizer((), np.ones((), np.float32), *ends)
    found = _activation(state, node, prefix, quantizer, Exponent.scalar(0), None)
    assert isinstance(found, Activation)
    steps = [replace(s, inputs=tuple(found.tensor if i == output else i for i in s.inputs)) for s in rest]
    kept = {i: c for i, c in value.constants.items() if any(i in step.inputs for step in rest)}
    end = steps[-1].output if steps else found.tensor
    return Floating((found.tensor,), tuple(steps), kept, end, state.builder.type(found.tensor).shape)


_WHOLE = frozenset({"Sign", "Round", "Floor", "Ceil", "BipolarQuant"})
_KEEPS_WHOLE = frozenset({"Relu", "Neg", "Abs", "Identity"})


def _last_whole(value: Floating) -> int | None:
    """The last step whose result is a whole number, whatever the integers."""
    whole: dict[str, bool] = {}
    place = None
    for index, step in enumerate(value.steps):
        kept = whole.get(step.inputs[0], False)
        bounds = [float(step.attributes.get(end, np.inf)) for end in ("min", "max")]
        clipped = step.op == "Clip" and all(np.isinf(b) or b.is_integer() for b in bounds)
        whole[step.output] = step.op in _WHOLE or (kept and (step.op in _KEEPS_WHOLE or clipped))
        place = index if whole[step.output] else place
    return place


def _ends(prefix: Floating) -> tuple[int, int] | None:
    """The lowest and highest whole number that a float input can become, where steps only rise."""
    if not only_rises(prefix):
        return None
    numbers = np.array([-(2.0**120), 2.0**120], dtype=np.float32)
    low, high = np.broadcast_to(run_steps(prefix, numbers), (2,))
    if not (np.isfinite([low, high]).all() and max(abs(low), abs(high)) < 1 << LARGEST_WIDTH):
        return None
    return int(low), int(high)


def _activation(
    state: State,
    node: NodeView,
    value: Floating,
    quantizer: Quantizer,
    exponent: Exponent,
    free: Scale | None,
) -> Lowered:
    value = _filled(node, value)
    if value.raw is not None:
        return _encoded(state, node, value, quantizer, exponent, free)
    tensor = _settled(state, node, value, quantizer, exponent, free)
    return Activation(state.moved(tensor, value), free)


def _filled(node: NodeView, value: Floating) -> Floating:
    """The tail with every Pad's number as the integer that the tail and its quantizer make of it."""
    moves = []
    for move in value.moves:
        if move.fill is not None:
            move = padded_by(move, move.fill, _fill_mantissa(node, value, move, move.fill))
        moves.append(move)
    return replace(value, moves=tuple(moves))


def padded_by(move: Movement, fill: Fill, mantissa: int) -> Movement:
    """A Pad whose number is known as an integer."""
    return replace(move, tensor=partial(_padded, fill, mantissa), fill=None)


def _padded(fill: Fill, mantissa: int, x: str, name: str) -> str:
    return fill.tensor(x, name, mantissa)


def _fill_mantissa(node: NodeView, value: Floating, move: Movement, fill: Fill) -> int:
    start = next((i + 1 for i, step in enumerate(value.steps) if step.output == fill.at), 0)
    number = np.full((1,) * (len(value.shape) + 1), fill.number, dtype=np.float32)
    values: dict[str, Value] = {**value.constants, fill.at: number}
    with np.errstate(all="ignore"):
        for step in value.steps[start:]:
            operands = [values[i] for i in step.inputs]
            values[step.output] = np.asarray(OPERATIONS[step.op].function(step, operands), np.float32)
    found = np.unique(values[value.output])
    if found.size != 1 or not float(found[0]).is_integer():
        raise node.refuse(
            f"what it makes of the number that {move} adds differs by channel",
            hint=f"put a quantizer in front of {move}",
        )
    return int(found[0])


def _unit(node: NodeView, value: Floating, scale: Scale) -> tuple[Exponent, Scale | None]:
    """What an integer of the result stands for: an exponent, or a free scale that is no power of two."""
    powers = scale.powers
    if powers is None:
        return Exponent.scalar(0), scale
    if scale.axis is None:
        return Exponent.scalar(powers[0]), None
    if value.moves:
        return Exponent.scalar(0), scale
    return Exponent(powers, scale.axis), None


def _settled(
    state: State,
    node: NodeView,
    value: Floating,
    quantizer: Quantizer,
    exponent: Exponent,
    free: Scale | None,
) -> str:
    """The integers of a tail, before what moves them."""
    if len(value.roots) > 2:
        raise node.refuse(
            f"it joins {len(value.roots)} tensors of different scales ({value.spelled})",
            hint="quantise them with one shared quantizer",
        )
    axis = max(axes_of(value), default=0)
    x = value.roots[0]
    if len(value.roots) == 2:
        x, value = _joined_code(state, node, value)
    tail = tail_by_rows(node, value, quantizer)
    format = quantizer.format
    if len(value.roots) == 1 and _is_identity(state, tail, x, format, exponent):
        return x
    return _looked_up(state, node, tail, axis, x, format, exponent)


def tail_by_rows(node: NodeView, value: Floating, quantizer: Quantizer | None) -> Tail:
    """The tail by rows: its constants as numbers, or one per index of the axis."""
    rank = len(value.shape) + 1
    constants: dict[str, Value] = {}
    for name, constant in value.constants.items():
        if constant.ndim > rank:
            constants[name] = constant.reshape(-1, 1, constant.shape[-1])
        else:
            constants[name] = constant.reshape(()) if constant.size == 1 else constant.reshape(-1, 1)
    listed = quantizer.format if quantizer is not None else None
    numbers = None if listed is None else listed.numbers
    return Tail(node.name, value.roots, value.output, value.steps, constants, numbers)


def _is_identity(state: State, tail: Tail, x: str, format: TableFormat | None, exponent: Exponent) -> bool:
    """Whether a quantizer does nothing to integers that it has quantised before."""
    low, high = state.builder.ranges[x].bounds
    kind = state.builder.type(x)
    if kind.exponent != exponent:
        return False
    if isinstance(kind.format, TableFormat) and (tail.numbers is None or format == kind.format):
        every = kind.format.numbers[None, :]
    elif high - low < TABLE_ENTRIES and tail.numbers is None:
        every = np.arange(low, high + 1)[None, :]
    else:
        return False
    return bool((evaluate(tail, {tail.roots[0]: every}) == every).all())


def _joined_code(state: State, node: NodeView, value: Floating) -> tuple[str, Floating]:
    """Two integers as one code, ``a * stride + b``, and the tail with that code taken apart first."""
    a, b = value.roots
    (a_low, a_high), (b_low, b_high) = (state.builder.ranges[t].bounds for t in (a, b))
    bits = (b_high - b_low).bit_length()
    entries = ((a_high - a_low) << bits) + b_high - b_low + 1
    if entries > TABLE_ENTRIES:
        raise node.refuse(
            f"it joins two tensors of different scales ({value.spelled}), "
            f"which would take a table of {entries} entries",
            allowed=f"operands of one and the same scale, or a table of at most {TABLE_ENTRIES} entries",
            hint="quantise both operands with one shared quantizer",
        )
    # What mantissas stand for is in the tail: in the code, both have one exponent.
    exponent = state.builder.type(b).exponent
    target = exponent.values[0] if exponent.is_scalar else 0
    low_part = b if exponent.is_scalar else _at_exponent(state, node, b, 1, target, "_low")
    shifted = _at_exponent(state, node, a, 1 << bits, target, "_high")
    code = state.builder.add(f"{node.name}_code", shifted, low_part, source=node.name)
    numbers = {"low": b_low, "stride": 1 << bits, "unit": 2.0**-bits}
    named = {name: f"{code}_{name}" for name in numbers}
    taken_apart = (
        Step("Sub", (code, named["low"]), f"{code}_from_0"),
        Step("Mul", (f"{code}_from_0", named["unit"]), f"{code}_quotient"),
        Step("Floor", (f"{code}_quotient",), f"{code}_{a}"),
        Step("Mul", (f"{code}_{a}", named["stride"]), f"{code}_multiple"),
        Step("Sub", (code, f"{code}_multiple"), f"{code}_rest"),
        Step("Clip", (f"{code}_rest",), f"{code}_{b}", {"min": float(b_low), "max": float(b_high)}),
    )
    renamed = {a: f"{code}_{a}", b: f"{code}_{b}"}
    steps = [replace(s, inputs=tuple(renamed.get(i, i) for i in s.inputs)) for s in value.steps]
    constants = {named[n]: np.array(v, dtype=np.float32) for n, v in numbers.items()}
    return code, replace(
        value, roots=(code,), steps=(*taken_apart, *steps), constants={**constants, **value.constants}
    )


def _at_exponent(state: State, node: NodeView, tensor: str, factor: int, exponent: int, suffix: str) -> str:
    """The same mantissas times a factor, at another exponent."""
    given = state.builder.type(tensor).exponent
    if given.axis not in (None, 0):
        raise node.refuse(
            f"it joins tensors with scales per index of axis {given.axis + 1}",
            hint="quantise both with one shared quantizer",
        )
    exponents = exponent - np.array(given.values, dtype=np.int64)
    if given.is_scalar:
        exponents = exponents.reshape(())
    return state.affine(node, tensor, Dyadic(np.full(exponents.shape, factor), exponents), None, suffix)


def _looked_up(
    state: State,
    node: NodeView,
    tail: Tail,
    axis: int,
    x: str,
    known: TableFormat | None,
    exponent: Exponent,
) -> str:
    """Append the Threshold or Table, with the axis that its rows stand for moved to the front."""
    builder, name = state.builder, node.name
    rank = len(builder.type(x).shape)
    order = [axis, *(i for i in range(rank) if i != axis)]
    inner = f"{name}_channel_first" if axis else name
    encoding = builder.graph.input_encodings.get(x)
    is_raw = encoding is not None and encoding.exact
    if axis:
        x = builder.transpose(f"{inner}_input", x, order, source=node.name)
        exponent = exponent if exponent.axis is None else replace(exponent, axis=order.index(exponent.axis))
    span = builder.ranges[x]
    low, high = (as_mantissas(v).reshape(-1) for v in (span.low, span.high))
    found = lower_tail(tail, low, high, prefer_table=is_raw)
    if isinstance(found, Thresholds):
        format = known or Integer.holding(int(found.levels.min()), int(found.levels.max()))
        thresholds = builder.constant(f"{name}_thresholds", found.thresholds)
        levels = builder.constant(f"{name}_levels", found.levels)
        y = builder.threshold(inner, x, thresholds, levels, format, exponent, source=node.name)
    else:
        format = known or Integer.holding(int(found.table.min()), int(found.table.max()))
        table = builder.constant(f"{name}_table", found.table)
        y = builder.table(inner, x, table, found.first, format, exponent, source=node.name)
    state.tails[y] = tail
    return builder.transpose(name, y, np.argsort(order).tolist(), source=node.name) if axis else y


# --- inputs ---


def _encoded(
    state: State,
    node: NodeView,
    value: Floating,
    quantizer: Quantizer,
    exponent: Exponent,
    free: Scale | None,
) -> Lowered:
    """A float input with everything up to its quantizer, as what the host does to encode it."""
    assert value.raw is not None
    if not exponent.is_scalar or (free is not None and not free.is_uniform):
        raise node.refuse(
            f"it quantises the input '{value.raw.name}' per channel",
            allowed="one scale for an input",
            hint="quantise the input per tensor",
        )
    encoding = _encoding(node, value, quantizer)
    tensor = state.declare_float_input(node, value.raw, encoding, exponent.values[0])
    return Activation(state.moved(tensor, value), moved_scale(node, free, value.moves))


def _encoding(node: NodeView, value: Floating, quantizer: Quantizer) -> InputEncoding:
    """Div, Add, Quant and Sub, or Div, FormatQuant, Mul and Clip, as numbers; what precedes them as steps."""
    steps = list(value.steps)
    unit = _taken(value, steps[-1:], "Sub")
    steps = steps[:-1] if unit is not None else steps
    zero = 0.0 if unit is None else unit
    last = steps[-1] if steps else None
    if last is not None and last.op == "Quant":
        code = last.attributes
        low, high = code_bounds(code["bits"], code["signed"], code["narrow"])
        rounding = QONNX_ROUNDING[code["rounding_mode"]]
        steps = steps[:-1]
        if zero and _taken(value, steps[-1:], "Add") == zero:
            steps = steps[:-1]
        elif zero:
            return _by_steps(node, value, quantizer)
        scale = _taken(value, steps[-1:], "Div")
        steps = steps if scale is None else steps[:-1]
        host = _host_steps(node, value, steps)
        return InputEncoding(1.0 if scale is None else scale, zero, low, high, rounding, before=host)
    listed = [step for step in value.steps if step.op == "FormatQuant"]
    if listed and quantizer.format is not None:
        place = value.steps.index(listed[-1])
        format = format_named(listed[-1].attributes["format"])
        steps = list(value.steps[:place])
        scale = _taken(value, steps[-1:], "Div")
        steps = steps if scale is None else steps[:-1]
        host = _host_steps(node, value, steps)
        low, high = quantizer.low, quantizer.high
        return InputEncoding(
            1.0 if scale is None else scale, 0.0, low, high, format.rounding, format=format, before=host
        )
    return _by_steps(node, value, quantizer)


def _by_steps(node: NodeView, value: Floating, quantizer: Quantizer) -> InputEncoding:
    """A quantizer that is no Quant: the host carries out its own operations too."""
    return InputEncoding(
        1.0,
        0.0,
        quantizer.low,
        quantizer.high,
        Rounding.RND_CONV,
        before=_host_steps(node, value, list(value.steps)),
    )


def _taken(value: Floating, steps: list[Step], op: str) -> float | None:
    """The one constant of the last step, if it is such an operation on what is computed."""
    if not steps or steps[0].op != op or len(steps[0].inputs) != 2:
        return None
    constant = value.constants.get(steps[0].inputs[1])
    return None if constant is None or constant.size != 1 else float(constant.reshape(-1)[0])


def _host_steps(node: NodeView, value: Floating, steps: list[Step]) -> tuple[InputStep, ...]:
    """Steps on an input as the graph keeps them: a chain, each with its constants."""
    assert value.raw is not None
    host, current = [], value.raw.name
    for step in steps:
        operands: list[Any] = []
        for name in step.inputs:
            constant = value.constants.get(name)
            if constant is None and name != current:
                raise node.refuse(
                    f"'{current}' is read more than once before the input's quantizer ({value.spelled})",
                    hint="put a quantizer in front of everything else",
                )
            operands.append(None if constant is None else _nested(constant))
        host.append(InputStep(step.op, tuple(operands), tuple(sorted(_plain(step.attributes).items()))))
        current = step.output
    return tuple(host)


def _nested(constant: Value) -> Any:
    """A constant as nested tuples of numbers, without its batch axis."""
    array = constant if constant.ndim == 0 else constant[0]
    return _tuples(array.tolist())


def _tuples(value: Any) -> Any:
    return tuple(_tuples(v) for v in value) if isinstance(value, list) else value


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in attributes.items() if isinstance(v, str | int | float | bool)}
