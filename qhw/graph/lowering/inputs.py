"""Element-wise float32 operations between an integer input and its first quantizer, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qhw.formats.base import Format
from qhw.formats.integer import Integer
from qhw.graph.lowering.dyadic import Dyadic
from qhw.graph.lowering.state import Chain, NodeView, RawInput, State, is_per_channel, without_batch
from qhw.graph.onnx_tools import initializers
from qhw.graph.quantizer_nodes import quantizer_of
from qhw.graph.tail_operations import Step
from qhw.graph.tails import TABLE_ENTRIES, Tail, evaluate


def chained(
    node: NodeView,
    value: RawInput | Chain,
    operands: Sequence[Dyadic | None],
    options: dict[str, Any] | None = None,
) -> Chain:
    """One more operation on an input; ``operands`` in the operation's order, None for the input itself."""
    root = value if isinstance(value, RawInput) else value.root
    if root.integers is None:
        raise node.refuse(
            f"it changes the float input '{root.name}' before a quantizer does",
            allowed="a product with a power of two there, or an input annotated as an integer",
            hint="annotate the input (set_tensor_datatype in qonnx), or quantise it first",
        )
    if root.integers[1] - root.integers[0] >= TABLE_ENTRIES:
        raise node.refuse(f"it changes the input '{root.name}', which has more than 16 bits")
    steps = value.steps if isinstance(value, Chain) else ()
    stripped = tuple(None if d is None else without_batch(node, d, len(root.shape)) for d in operands)
    for operand in stripped:
        if operand is not None and not is_per_channel(operand, root.shape):
            raise node.refuse(
                f"a constant of shape {operand.shape} on the input '{root.name}'", allowed="per channel"
            )
    return Chain(root, (*steps, (node.op, options or {}, stripped)))


def table_of_chain(
    state: State, node: NodeView, chain: Chain, exponent: int, format: Format | None = None
) -> str:
    """The chain and the quantizer ``node``, carried out in float32 on every code of the input."""
    root = chain.root
    assert root.integers is not None  # chained() let no other pass
    low, high = root.integers
    tail = _tail(state, node, chain)
    table = evaluate(tail, {"x": np.arange(low, high + 1)[np.newaxis]})
    x = state.settle(node, RawInput(root.name, root.shape, root.integers, root.exponent))
    stored = state.builder.constant(f"{node.name}_table", table)
    format = format or Integer.holding(int(table.min()), int(table.max()))
    return state.builder.table(node.name, x, stored, low, format, exponent, source=node.name)


def _tail(state: State, node: NodeView, chain: Chain) -> Tail:
    """The operations in the order of the file: the input's own scale, the chain, the quantizer's stages."""
    operations: list[tuple[str, dict[str, Any], list[Any]]] = []
    if chain.root.exponent:
        operations.append(("Mul", {}, [None, np.float32(2.0**chain.root.exponent)]))
    for op, options, constants in chain.steps:
        operations.append((op, options, [None if c is None else c.float32() for c in constants]))
    for stage in quantizer_of(node.proto, initializers(state.model.graph)).stages:
        more = [] if stage.constant is None else [stage.constant]
        operations.append((stage.op, dict(stage.attributes), [None, *more]))
    return _named(node.name, operations)


def _named(name: str, operations: list[tuple[str, dict[str, Any], list[Any]]]) -> Tail:
    """A tail of one input ``x`` from operations whose computed operand is None."""
    steps: list[Step] = []
    constants: dict[str, Any] = {}
    current = "x"
    for index, (op, options, operands) in enumerate(operations):
        names = [current if c is None else f"c{index}_{position}" for position, c in enumerate(operands)]
        constants |= {n: _column(c) for n, c in zip(names, operands, strict=True) if c is not None}
        current = f"y{index}"
        steps.append(Step(op, tuple(names), current, options))
    return Tail(name, ("x",), current, tuple(steps), constants)


def _column(value: Any) -> Any:
    """A float32 scalar, or (channels, 1)."""
    value = np.asarray(value, dtype=np.float32)
    return value.reshape(()) if value.size == 1 else value.reshape(-1, 1)
