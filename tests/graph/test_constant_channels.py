"""Channels that hold one number are left out: every code of what is left is the one that it was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhw.formats.integer import Integer
from qhw.graph.builder import GraphBuilder, value_ranges
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph, Exponent
from qhw.graph.passes import constant_channels
from qhw.sim.compare import compare


def agree(before: ExactGraph, after: ExactGraph, seed: int = 0) -> None:
    """Every tensor of the smaller graph has the codes of the kept channels; outputs have all."""
    value_ranges(after)
    kind = before.tensors["x"]
    rng = np.random.default_rng(seed)
    x = {"x": rng.integers(kind.format.mantissa_low, kind.format.mantissa_high + 1, size=(6, *kind.shape))}
    left, right = interpret(before, x, keep="all"), interpret(after, x, keep="all")
    for name in before.outputs:
        np.testing.assert_array_equal(left[name], right[name])
    comparison = compare(before, left, right).require_equal()
    assert comparison.codes == sum(codes.size for codes in right.values())


def layer(  # type: ignore[no-untyped-def]
    b: GraphBuilder, rng, x: str, filters: int, zero: float, *, padded: bool, bias: bool, listed: bool = True
) -> str:
    """A convolution, of whose filters some are zero, batch norm, and a ReLU that rounds."""
    weight = rng.integers(-8, 8, (filters, b.type(x).shape[0], 3, 3))
    weight[rng.random(filters) < zero] = 0
    exponent = Exponent(tuple(rng.integers(-6, -3, filters).tolist()), 0) if listed else Exponent.scalar(-4)
    w = b.constant("w", weight, Integer(5), exponent)
    added = (
        b.constant("bias", rng.integers(-60, 60, filters), exponent=int(rng.integers(-9, -5)))
        if bias
        else None
    )
    y = b.conv("conv", x, w, added, pads=(1, 1, 1, 1) if padded else None)
    y = b.affine(
        "norm",
        y,
        b.constant("m", rng.integers(1, 9, filters)),
        b.constant("o", rng.integers(-99, 99, filters), exponent=-5),
    )
    return b.requant("relu", y, Integer(4, False), exponent=int(rng.integers(-3, 1)))


def network(seed: int) -> ExactGraph:
    """Convolutions whose branches meet in a sum or a concatenation, pooling, and products."""
    rng = np.random.default_rng(seed)
    b = GraphBuilder("net")
    x = b.input("x", (2, 8, 8), Integer(4, False), exponent=-4)
    zero = float(rng.choice([0.2, 0.6, 1.0], p=[0.4, 0.5, 0.1]))
    x = layer(b, rng, x, 6, zero, padded=True, bias=bool(rng.integers(2)))
    match rng.integers(5):
        case 0:
            y = layer(b, rng, x, 6, zero, padded=True, bias=True)
            x = b.requant(
                "sum", b.add("add", x, b.requant("at", y, Integer(4, False), exponent=-2)), Integer(5, False)
            )
        case 1:
            same = {"padded": True, "bias": False, "listed": False}
            parts = [layer(b, rng, x, 4, zero, **same) for _ in range(2)]
            parts = [b.requant("at", part, Integer(4, False), exponent=-2) for part in parts]
            x = b.concat("concat", parts, 0)
            x = b.slice("slice", x, 0, 1, 7) if rng.integers(2) else x
        case 2:
            w = b.constant("depthwise", rng.integers(-8, 8, (6, 1, 3, 3)) * (rng.random((6, 1, 1, 1)) > zero))
            x = b.requant("at", b.conv("depthwise", x, w, groups=6), Integer(4), exponent=2)
        case 3:
            levels = np.sort(rng.integers(0, 16, (6, 4)), axis=1)
            limits = b.constant(
                "limits", np.sort(rng.permuted(np.tile(np.arange(16), (6, 1)), axis=1)[:, :3], axis=1)
            )
            x = b.threshold("steps", x, limits, b.constant("levels", levels), Integer(4, False), exponent=-1)
    x = layer(b, rng, x, 5, zero, padded=bool(rng.integers(2)), bias=bool(rng.integers(2)), listed=False)
    x = b.max_pool("pool", x, (2, 2)) if rng.integers(2) else b.sum_pool("pool", x, (2, 2))
    x = b.reshape("flat", x, (b.type(x).size,))
    weight = rng.integers(-8, 8, (b.type(x).shape[0], 7)) * (rng.random(7) > zero / 2)
    x = b.matmul(
        "hidden", x, b.constant("hidden_w", weight), b.constant("hidden_b", rng.integers(-99, 99, 7))
    )
    x = b.requant("hidden_relu", x, Integer(6, False), exponent=3)
    return b.finish([b.matmul("head", x, b.constant("head_w", rng.integers(-8, 8, (7, 3))))])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_every_code_that_is_left_is_the_same(seed: int) -> None:
    graph = network(seed)
    after, changed = constant_channels.apply(graph)
    assert changed == (constant_channels.removed(graph, after) > 0)
    agree(graph, after, seed)
    again, _ = constant_channels.apply(after)
    agree(after, again, seed)


def two_layers(bias: int, pads: tuple[int, ...] | None, weight: int = 3, gain: int = 0) -> ExactGraph:
    """Two 3x3 convolutions; channel 1 of the first has that gain and bias, and meets that weight."""
    b = GraphBuilder("net")
    x = b.input("x", (1, 6, 6), Integer(4, False))
    w = np.array([1, gain, 2]).reshape(3, 1, 1, 1) * np.ones((1, 1, 3, 3), dtype=np.int64)
    y = b.conv("first", x, b.constant("w", w), b.constant("b", np.array([0, bias, 0])))
    y = b.requant("relu", y, Integer(5, False))
    second = np.full((2, 3, 3, 3), 1)
    second[:, 1] = weight
    return b.finish([b.conv("second", y, b.constant("v", second, exponent=-2), pads=pads)])


def test_a_channel_of_zeros_goes_also_in_front_of_padding() -> None:
    graph = two_layers(0, (1, 1, 1, 1))
    after, changed = constant_channels.apply(graph)
    assert changed
    assert after.tensors["first"].shape == (2, 4, 4)
    assert after.constants[after.nodes[-1].inputs[1]].shape == (2, 2, 3, 3)
    assert len(after.nodes[-1].inputs) == 2
    agree(graph, after)


def test_a_constant_goes_into_the_next_bias() -> None:
    """Nine places of a weight of 3, at the exponent of the products: 9 * 3 * 5."""
    graph = two_layers(5, None)
    after, _ = constant_channels.apply(graph)
    bias = after.nodes[-1].inputs[2]
    assert after.constants[bias].tolist() == [135, 135]
    assert after.tensors[bias].exponent == Exponent.scalar(-2)
    agree(graph, after)


def test_padding_keeps_a_constant_channel() -> None:
    """At the border the next convolution sees padding in its place, so it is no constant there."""
    graph = two_layers(5, (1, 1, 1, 1))
    assert constant_channels.apply(graph) == (graph, False)


def test_a_channel_that_nothing_weighs_goes() -> None:
    graph = two_layers(5, (1, 1, 1, 1), weight=0)
    after, changed = constant_channels.apply(graph)
    assert changed
    agree(graph, after)


def test_a_sum_keeps_what_one_of_its_branches_needs() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (2, 4, 4), Integer(4, False))
    zero = b.conv("zero", x, b.constant("z", np.zeros((2, 2, 1, 1), dtype=np.int64)))
    both = b.add("sum", x, zero)
    graph = b.finish([b.conv("last", both, b.constant("w", np.ones((1, 2, 1, 1), dtype=np.int64)))])
    assert constant_channels.apply(graph) == (graph, False)


def test_an_output_keeps_all_channels() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (3,), Integer(4))
    graph = b.finish([b.matmul("out", x, b.constant("w", np.array([[1, 0], [2, 0], [3, 0]])))])
    assert constant_channels.apply(graph) == (graph, False)


def test_a_layer_of_zeros_keeps_one_channel() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (3,), Integer(4))
    hidden = b.matmul(
        "hidden", x, b.constant("w", np.zeros((3, 4), dtype=np.int64)), b.constant("b", np.arange(4))
    )
    graph = b.finish([b.matmul("out", hidden, b.constant("v", np.ones((4, 2), dtype=np.int64)))])
    after, _ = constant_channels.apply(graph)
    assert after.tensors["hidden"].shape == (1,)
    agree(graph, after)


def test_a_graph_without_such_channels_is_left_alone() -> None:
    graph = two_layers(0, None, gain=1)
    assert constant_channels.apply(graph) == (graph, False)


def test_a_relu_that_never_opens_goes() -> None:
    """No input is negative, so a negative gain gives nothing behind the ReLU."""
    graph = two_layers(0, (1, 1, 1, 1), gain=-1)
    after, changed = constant_channels.apply(graph)
    assert changed
    assert after.tensors["relu"].shape[0] == 2
    agree(graph, after)


@pytest.mark.parametrize("seed", range(3))
def test_most_random_networks_lose_channels(seed: int) -> None:
    """So that the comparison above compares something."""
    lost = [constant_channels.apply(network(10 * seed + k))[1] for k in range(10)]
    assert sum(lost) > 5
