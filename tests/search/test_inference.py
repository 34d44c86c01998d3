"""Types and ranges of many cases at once are those that the operations' own rules give one by one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhw.formats import parse_format
from qhw.formats.integer import Integer
from qhw.formats.modes import Overflow, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.infer import Operand, Range, infer
from qhw.graph.ir import Exponent, TensorType
from qhw.search import inference
from qhw.search.inference import Tensors, results

CHANNELS = 4

Draw = np.random.Generator
Network = Callable[[GraphBuilder, Draw, Exponent], str]


def weights(builder: GraphBuilder, rng: Draw, shape: tuple[int, ...], axis: int | None = 0) -> str:
    """A random constant, its exponents one for all or one per index of an axis."""
    count = 1 if axis is None else shape[axis]
    values = tuple(map(int, rng.integers(-6, 1, count)))
    exponent = Exponent(values, axis) if axis is not None and len(set(values)) > 1 else Exponent((values[0],))
    return builder.constant("constant", rng.integers(-9, 10, shape), exponent=exponent)


def conv(builder: GraphBuilder, rng: Draw, exponent: Exponent) -> str:
    x = builder.input("x", (CHANNELS, 6, 6), Integer(9), exponent)
    groups = int(rng.choice([1, 2, CHANNELS]))
    weight = weights(builder, rng, (8, CHANNELS // groups, 3, 3))
    bias = weights(builder, rng, (8,)) if rng.integers(2) else None
    return builder.conv("node", x, weight, bias, pads=(int(rng.integers(2)),) * 4, groups=groups)


def matmul(builder: GraphBuilder, rng: Draw, exponent: Exponent) -> str:
    shape = (CHANNELS,) if rng.integers(2) else (CHANNELS, 5)
    x = builder.input("x", shape, Integer(9), exponent)
    bias = weights(builder, rng, (3,)) if rng.integers(2) else None
    return builder.matmul("node", x, weights(builder, rng, (shape[-1], 3), 1), bias)


def affine(builder: GraphBuilder, rng: Draw, exponent: Exponent) -> str:
    x = builder.input("x", (CHANNELS, 2, 2), Integer(9), exponent)
    offset = weights(builder, rng, (CHANNELS,)) if rng.integers(2) else None
    return builder.affine("node", x, weights(builder, rng, (CHANNELS,)), offset)


def add(builder: GraphBuilder, rng: Draw, exponent: Exponent) -> str:
    x = builder.input("x", (CHANNELS, 2, 2), Integer(9), exponent)
    y = builder.input("y", (CHANNELS, 2, 2), Integer(9), int(rng.integers(-4, 2)))
    return builder.add("node", x, y)


def requant(builder: GraphBuilder, rng: Draw, exponent: Exponent) -> str:
    x = builder.input("x", (CHANNELS, 2, 2), Integer(9), exponent)
    text = str(rng.choice(["fixed<3,1>", "e2m1", "khot<6,2>", "fixed<8,4>"]))
    format = parse_format(text)
    is_fixed = text.startswith("fixed")
    rounding = Rounding(str(rng.choice([r.value for r in Rounding]))) if is_fixed else Rounding.RND_CONV
    modes = [Overflow.SAT, Overflow.SAT_SYM, Overflow.WRAP, Overflow.SAT_ZERO]
    overflow = modes[int(rng.integers(len(modes)))] if is_fixed else Overflow.SAT
    stated = Integer(format.width) if is_fixed else format
    return builder.requant("node", x, stated, int(rng.integers(-3, 4)), rounding=rounding, overflow=overflow)


def reduce_sum(builder: GraphBuilder, rng: Draw, exponent: Exponent) -> str:
    x = builder.input("x", (CHANNELS, 2, 3), Integer(9), exponent)
    axes = ((1, 2), (0,), (2,))[int(rng.integers(3))]
    return builder.reduce_sum("node", x, axes, bool(rng.integers(2)))


def sum_pool(builder: GraphBuilder, rng: Draw, exponent: Exponent) -> str:
    x = builder.input("x", (CHANNELS, 4, 4), Integer(9), exponent)
    return builder.sum_pool("node", x, (2, 2), strides=(2, 2), pads=(int(rng.integers(2)),) * 4)


def max_pool(builder: GraphBuilder, rng: Draw, exponent: Exponent) -> str:
    x = builder.input("x", (CHANNELS, 4, 4), Integer(9), exponent)
    return builder.max_pool("node", x, (2, 2), strides=(2, 2))


def reshape(builder: GraphBuilder, rng: Draw, exponent: Exponent) -> str:
    x = builder.input("x", (CHANNELS, 2, 3), Integer(9), exponent)
    shape = ((24,), (CHANNELS, 6), (2, 12))[int(rng.integers(3))]
    return builder.reshape("node", x, shape)


NETWORKS: dict[str, Network] = {
    build.__name__: build
    for build in (conv, matmul, affine, add, requant, reduce_sum, sum_pool, max_pool, reshape)
}
PER_CHANNEL = ("affine", "add", "requant", "sum_pool", "max_pool")
"""Networks whose operand may have an exponent per channel."""


def test_every_operation_with_a_form_for_many_is_tried() -> None:
    rng, tried = np.random.default_rng(0), set()
    for build in NETWORKS.values():
        builder = GraphBuilder("one")
        build(builder, rng, Exponent((0,)))
        tried.add(builder.graph.nodes[0].op)
    assert tried == set(inference._BATCHED)


@pytest.mark.parametrize("name", NETWORKS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bits=st.sampled_from([3, 9, 30, 60]))
def test_many_cases_are_those_of_the_rule(name: str, seed: int, bits: int) -> None:
    """60 bits are beyond what the arrays hold: such cases go to the rule itself."""
    rng, builder = np.random.default_rng(seed), GraphBuilder("one")
    values = rng.integers(-3, 2, CHANNELS if name in PER_CHANNEL and rng.integers(2) else 1).tolist()
    exponent = Exponent(tuple(values), 0) if len(set(values)) > 1 else Exponent((values[0],))
    NETWORKS[name](builder, rng, exponent)
    graph, node = builder.graph, builder.graph.nodes[0]
    tensors = {tensor: Tensors() for tensor in graph.tensors}
    names = list(graph.activations(node))
    given_numbers, operands = [], []
    for _ in range(6):
        case = [operand(rng, graph.tensors[x], min(bits, 30 if name == "requant" else 60)) for x in names]
        operands.append(case)
        given_numbers.append(
            [tensors[x].add(one.type, one.range) for x, one in zip(names, case, strict=True)]
        )
    found = results(graph, node, tensors, given_numbers)
    out = tensors[node.output]
    for number, case in zip(found, operands, strict=True):
        computed = dict(zip(names, case, strict=True))
        inputs = [computed.get(x) or builder.operand(x) for x in node.inputs]
        declared = graph.tensors[node.output]
        if node.moves_codes:
            declared = TensorType(declared.shape, inputs[0].type.format, inputs[0].type.exponent)
        expected = infer(node, inputs, declared)
        kind = declared if inference.states_its_type(node) else expected.type()
        assert out.kinds[out.kind_of[number]] == kind
        channels = kind.shape[0] if kind.shape else 1
        for bound, wanted in ((out.low[number], expected.range.low), (out.high[number], expected.range.high)):
            assert bound.tolist() == np.broadcast_to(wanted, (channels,)).tolist()


def operand(rng: Draw, kind: TensorType, bits: int) -> Operand:
    """An operand of that exponent with a random range, per channel or one for all, of up to so many bits."""
    ends = np.sort(rng.integers(-(1 << bits), 1 << bits, (2, kind.shape[0])), axis=0)
    low, high = (ends if rng.integers(2) else ends[:, 0]).tolist()
    format = Integer.holding(int(np.min(low)), int(np.max(high)))
    return Operand(TensorType(kind.shape, format, kind.exponent), Range.of(low, high))


def test_equal_types_are_one() -> None:
    tensors, kind = Tensors(), TensorType((2,), Integer(4), Exponent((0,)))
    first = tensors.add(kind, Range.of(-3, 4))
    assert tensors.add(kind, Range.of([-3, -3], [4, 4])) == first
    assert tensors.add(kind, Range.of([-3, -2], [4, 4])) == first + 1
