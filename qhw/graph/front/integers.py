"""What an operation on integers reads: tensors of the graph, with a scale that is pulled behind it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qhw.errors import UnsupportedError
from qhw.graph.front.dyadic import Dyadic
from qhw.graph.front.floating import floating, moved_scale
from qhw.graph.front.settling import whole_numbers
from qhw.graph.front.state import InexactError, NodeView, State
from qhw.graph.front.values import Floating, Scale
from qhw.graph.tails.operations import Value

SAME_NUMBER = 2.0**-20
"""Two numbers are taken for one that agree to 20 bits: both are results of a few float32 operations."""


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


def _pulled(state: State, node: NodeView, value: Floating) -> tuple[str, Scale] | None:
    """A tail of one root that only scales (and adds a multiple of its scale), as integers and their scale."""
    if value.raw is not None or len(value.roots) != 1 or any(move.fill for move in value.moves):
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
    if not (scale > 0).all():
        return None
    x, numerator = value.roots[0], 1
    if np.any(offset):
        centred = _centred(state, node, x, scale, np.asarray(offset))
        if centred is None:
            return None
        x, numerator = centred
    kind = state.builder.type(x)
    rank = len(kind.shape)
    unit = np.ldexp(np.float32(1), kind.exponent.broadcast(rank).astype(np.int32))
    free = Scale.of(scale / np.float32(numerator) / unit, rank + 1)
    if free is None:
        return None
    moved = moved_scale(node, free, value.moves)
    assert moved is not None
    return state.moved(x, value), moved


def _centred(
    state: State, node: NodeView, x: str, scale: Value, offset: NDArray[np.float64]
) -> tuple[str, int] | None:
    """``scale / k * (k * x + whole number)``, for a centred input such as (x / 255 - 0.5) / 0.5; and k."""
    kind = state.builder.type(x)
    rank = len(kind.shape)
    for k in (1, 2):
        places = np.asarray(offset / scale * k)
        whole = np.rint(places)
        if (np.abs(places - whole) <= SAME_NUMBER * np.maximum(1, np.abs(places))).all():
            break
    else:
        return None
    whole = whole[0] if whole.ndim == rank + 1 else whole
    if not kind.exponent.is_scalar or any(size > 1 for size in whole.shape[1:]):
        return None
    exponent = np.full((1,) * whole.ndim, kind.exponent.values[0])
    offsets = Dyadic(whole.astype(np.int64), exponent)
    return state.affine(node, x, Dyadic(np.array(k), np.array(0)), offsets, "_centred"), k
