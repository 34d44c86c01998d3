"""Ranges and widths against brute force: every value that can occur is inside, and the bounds are reached."""

import itertools
import math

import numpy as np
import pytest

from qhw.errors import InputError
from qhw.formats import parse_format
from qhw.formats.integer import Integer
from qhw.formats.modes import Overflow, Rounding
from qhw.graph.builder import GraphBuilder, value_ranges
from qhw.graph.interpreter import interpret
from qhw.graph.ir import Exponent, InputEncoding


def every_input(shape, format):
    codes = range(format.mantissa_low, format.mantissa_high + 1)
    return np.array(list(itertools.product(codes, repeat=int(np.prod(shape))))).reshape(-1, *shape)


def test_matmul_range_is_reached_exactly_and_bias_is_aligned():
    builder = GraphBuilder("g")
    x = builder.input("x", (3,), Integer(3), exponent=-1)
    w = builder.constant("w", [[3, -1], [-2, 0], [1, 2]], exponent=-2)
    bias = builder.constant("b", [1, -3], exponent=-5)
    y = builder.matmul("fc", x, w, bias)
    graph = builder.finish([y])
    assert builder.type(y).exponent == Exponent.scalar(-5)
    inputs = every_input((3,), Integer(3))
    codes = interpret(graph, {"x": inputs})[y]
    assert (codes == (inputs @ graph.constants["w"]) * 4 + [1, -3]).all()
    assert codes.min(axis=0).tolist() == builder.ranges[y].low.tolist()
    assert codes.max(axis=0).tolist() == builder.ranges[y].high.tolist()
    assert builder.type(y).format.mantissa_low <= codes.min()
    assert value_ranges(graph)[y].bounds == builder.ranges[y].bounds


def test_weights_with_an_exponent_per_channel_give_a_result_with_one_per_channel():
    builder = GraphBuilder("g")
    x = builder.input("x", (1, 4), Integer(4, False))
    w = builder.constant("w", [[[1, 2]], [[-3, 1]]], exponent=Exponent((-1, -3), 0))
    y = builder.conv("conv", x, w)
    assert builder.type(y).exponent == Exponent((-1, -3), 0)
    z = builder.uniform("same", y)
    graph = builder.finish([z])
    codes = interpret(graph, {"x": np.array([[[1, 2, 3, 4]]])}, keep="all")
    assert codes[y].tolist() == [[[5, 8, 11], [-1, -3, -5]]]
    assert codes[z].tolist() == [[[20, 32, 44], [-1, -3, -5]]]


def published_width(a, b, n):
    """Upper bounds of arXiv 2311.12359: integers by their bits, minifloats by exponent and mantissa bits."""
    if isinstance(a, Integer):
        return a.width + b.width + math.ceil(math.log2(n)) + 1
    fields = [(f.exponent_bits, f.mantissa_bits) for f in (a, b)]
    return sum(2**e + m for e, m in fields) + math.ceil(math.log2(n)) - 1


@pytest.mark.parametrize(
    ("text", "width"),
    [
        ("int4", 20),
        ("int8", 28),
        ("e2m1", 21),
        ("e2m3", 25),
        ("e3m2", 31),
        ("e3m4", 36),
        ("e4m3", 49),
        ("e5m2", 79),
    ],
)
def test_accumulators_of_proven_width_are_no_wider_than_published(text, width):
    format, n = parse_format(text), 4608
    builder = GraphBuilder("g")
    x = builder.input("x", (1, n), format)
    w = builder.input("w", (n, 1), format)
    y = builder.matmul("fc", x, w)
    graph = builder.finish([y])
    assert builder.type(y).format == Integer(width)
    assert width <= published_width(format, format, n)
    # The bound is reached, and one bit less would not hold it.
    largest = max(format.mantissa_high, -format.mantissa_low, key=abs)
    ends = np.full((1, n), -largest if -largest >= format.mantissa_low else format.mantissa_low)
    total = interpret(graph, {"x": ends[None], "w": ends.T[None]})[y].item()
    assert Integer(width).holds([total])
    assert not Integer(width - 1).holds([total])


def test_operands_of_any_formats_mix():
    """int8 x e3m2, e4m3 x khot: products of mantissas, as wide as the ranges say."""
    builder = GraphBuilder("g")
    formats = [parse_format(text) for text in ("uint8", "e3m2", "e4m3", "khot<8,2>", "pow2<4>", "binary")]
    for a, b in itertools.permutations(formats, 2):
        x = builder.input("x", (3,), a, exponent=-2)
        high = b.mantissa_high
        w = builder.constant("w", [[b.mantissa_low], [high], [high]], b, exponent=-5)
        y = builder.matmul("fc", x, w)
        assert builder.type(y).exponent == Exponent.scalar(-7)
        ends = itertools.product((a.mantissa_low, a.mantissa_high), repeat=3)
        totals = [p * b.mantissa_low + (q + r) * high for p, q, r in ends]
        assert builder.ranges[y].bounds == (min(totals), max(totals))


def test_accumulators_beyond_63_bits_stay_exact():
    builder = GraphBuilder("g")
    x = builder.input("x", (2,), Integer(40))
    w = builder.constant("w", [[2**39 - 1], [-(2**39)]])
    y = builder.matmul("fc", x, w)
    graph = builder.finish([y])
    low = -(2**39)
    result = interpret(graph, {"x": np.array([[low, low], [2**39 - 1, low]])})[y]
    assert builder.type(y).format.width == 80
    assert result.tolist() == [[low * (2**39 - 1) + low * low], [(2**39 - 1) ** 2 + low * low]]


@pytest.mark.parametrize("rounding", list(Rounding))
def test_requant_range_covers_every_code(rounding):
    builder = GraphBuilder("g")
    x = builder.input("x", (1,), Integer(6), exponent=-4)
    y = builder.requant("q", x, Integer(4), -2, rounding=rounding, overflow=Overflow.SAT, high=5)
    graph = builder.finish([y])
    codes = interpret(graph, {"x": every_input((1,), Integer(6))})[y]
    assert (codes.min(), codes.max()) == builder.ranges[y].bounds
    assert codes.max() == 5


def test_a_requant_beyond_its_format_is_refused():
    builder = GraphBuilder("g")
    x = builder.input("x", (1,), Integer(6))
    with pytest.raises(InputError, match="outside"):
        builder.requant("q", x, Integer(4), high=9)


def test_input_encoding_narrows_the_range():
    builder = GraphBuilder("g")
    encoding = InputEncoding(1.0, 0.0, 0, 16, Rounding.RND_CONV, exact=True)
    x = builder.input("x", (1,), Integer(5, False), -4, encoding)
    y = builder.affine("a", x, builder.constant("m", 3), builder.constant("o", 1, exponent=-5))
    graph = builder.finish([y])
    assert builder.ranges[y].bounds == (1, 97)
    assert value_ranges(graph)[y].bounds == (1, 97)


def test_padding_of_a_convolution_counts_as_zero():
    builder = GraphBuilder("g")
    encoding = InputEncoding(1.0, 0.0, 5, 7, Rounding.RND_CONV, exact=True)
    x = builder.input("x", (1, 2, 2), Integer(3, False), 0, encoding)
    y = builder.conv("c", x, builder.constant("w", np.ones((1, 1, 3, 3))), pads=(1, 1, 1, 1))
    graph = builder.finish([y])
    inputs = np.array(list(itertools.product((5, 6, 7), repeat=4))).reshape(-1, 1, 2, 2)
    codes = interpret(graph, {"x": inputs})[y]
    low, high = builder.ranges[y].bounds
    assert low <= codes.min()
    assert codes.max() <= high


def test_shapes_that_do_not_fit_name_the_node():
    builder = GraphBuilder("g")
    x = builder.input("x", (3,), Integer(4))
    with pytest.raises(InputError, match="'fc'"):
        builder.matmul("fc", x, builder.constant("w", np.ones((4, 2))))


@pytest.mark.parametrize(("size", "kernel", "pads", "dilation"), [(3, 2, (2, 0), 1), (1, 2, (1, 1), 2)])
def test_a_max_pool_over_padding_alone_is_refused(size, kernel, pads, dilation):
    builder = GraphBuilder("g")
    x = builder.input("x", (1, size), Integer(4))
    with pytest.raises(InputError, match="every window"):
        builder.max_pool("m", x, (kernel,), (1,), pads, (dilation,))


def test_a_declared_width_that_is_too_small_is_found():
    builder = GraphBuilder("g")
    x = builder.input("x", (3,), Integer(4))
    y = builder.matmul("fc", x, builder.constant("w", [[7], [7], [7]]))
    graph = builder.finish([y])
    kind = graph.tensors[y]
    graph.tensors[y] = type(kind)(kind.shape, Integer(4), kind.exponent)
    with pytest.raises(InputError, match="fc"):
        value_ranges(graph)


def test_a_square_is_not_negative() -> None:
    builder = GraphBuilder("square")
    x = builder.input("x", (3, 2), Integer(5), -2)
    other = builder.requant("other", x, Integer(5), -2)
    ranges = [builder.ranges[builder.mul(f"product{i}", x, y)].bounds for i, y in enumerate((x, other))]
    assert ranges == [(0, 256), (-240, 256)]


def test_squares_may_be_wider_than_a_machine_word() -> None:
    builder = GraphBuilder("square")
    x = builder.input("x", (3, 2), Integer(40), 0)
    assert builder.ranges[builder.mul("product", x, x)].bounds == (0, 1 << 78)
