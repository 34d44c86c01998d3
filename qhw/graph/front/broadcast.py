"""Two computed tensors that meet in one operation: the smaller one repeated."""

from __future__ import annotations

from collections.abc import Sequence

from qhw.graph.front.state import NodeView, State
from qhw.graph.front.values import Activation


def broadcast(state: State, node: NodeView, a: Activation, b: Activation) -> tuple[Activation, Activation]:
    """Two computed operands of one shape: axes of length 1 are repeated."""
    shapes = [state.builder.type(t.tensor).shape for t in (a, b)]
    rank = max(len(shape) for shape in shapes)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    if any(one != other and 1 not in (one, other) for one, other in zip(*padded, strict=True)):
        raise node.refuse(
            f"it combines computed tensors of shapes {shapes[0]} and {shapes[1]} (batch left out)",
            allowed="shapes that broadcast",
        )
    whole = tuple(max(sizes) for sizes in zip(*padded, strict=True))
    return _enlarged(state, node, 0, a, whole), _enlarged(state, node, 1, b, whole)


def _enlarged(
    state: State, node: NodeView, index: int, value: Activation, whole: Sequence[int]
) -> Activation:
    """The tensor with every axis of length 1 repeated to the length it is combined with."""
    builder, x = state.builder, value.tensor
    shape = builder.type(x).shape
    if shape == tuple(whole):
        return value
    name = f"{node.name}_operand_{index}"
    if value.scale is not None and not value.scale.is_uniform and len(shape) != len(whole):
        raise node.refuse("it repeats a tensor with scales per channel", allowed="one scale")
    if len(shape) != len(whole):
        x = builder.uniform(f"{name}_aligned", x, source=node.name)
        x = builder.reshape(f"{name}_ranked", x, (1,) * (len(whole) - len(shape)) + shape, source=node.name)
    before = builder.type(x).shape
    if before[0] != whole[0]:
        x = builder.uniform(f"{name}_aligned", x, source=node.name)
        x = builder.concat(f"{name}_channels", [x] * whole[0], 0, source=node.name)
    factors = tuple(n // m for n, m in zip(whole[1:], before[1:], strict=True))
    if set(factors) - {1}:
        x = builder.upsample(f"{name}_repeated", x, factors, source=node.name)
    return Activation(x, value.scale)
