"""Every pass keeps every code, and makes the graph smaller or what a flow asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qhw.formats import Binary, Format, TableFormat, Ternary, parse_format
from qhw.formats.integer import Integer
from qhw.formats.modes import Overflow, Rounding
from qhw.graph.builder import GraphBuilder, value_ranges
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph, Exponent
from qhw.graph.passes import (
    SIMPLIFYING,
    bias,
    dead,
    joins_to_threshold,
    merge_affine,
    merge_requant,
    round_first,
    simplify,
    to_threshold,
)


def ops(graph: ExactGraph) -> list[str]:
    return [node.op for node in graph.nodes]


def same(before: ExactGraph, after: ExactGraph, *, seed: int = 0) -> None:
    """Both graphs are well typed and give the same output values."""
    value_ranges(after)
    rng = np.random.default_rng(seed)
    inputs = {}
    for name in before.inputs:
        kind = before.tensors[name]
        low, high = kind.format.mantissa_low, kind.format.mantissa_high
        inputs[name] = rng.integers(low, high + 1, size=(200, *kind.shape))
        if isinstance(kind.format, TableFormat):
            inputs[name] = rng.choice(kind.format.numbers, (200, *kind.shape))
    left, right = interpret(before, inputs), interpret(after, inputs)
    assert before.outputs == after.outputs
    for name in before.outputs:
        assert before.tensors[name].exponent == after.tensors[name].exponent
        np.testing.assert_array_equal(left[name], right[name])


def test_batch_norm_becomes_one_affine() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (3, 4), Integer(6))
    product = b.affine("mul", x, b.constant("m", [3, -2, 1], exponent=-1))
    one = b.constant("one", np.array(1))
    y = b.affine("add", product, one, b.constant("o", [5, 7, -9], exponent=-3))
    graph = b.finish([y])
    after, changed = merge_affine.apply(graph)
    assert changed
    assert ops(after) == ["Affine"]
    assert after.nodes[0].name == "add"
    assert "one" not in after.constants
    same(graph, after)
    assert merge_affine.apply(after) == (after, False)


def test_affines_with_other_readers_or_factors_stay() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (3,), Integer(6))
    product = b.affine("mul", x, b.constant("m", [3, -2, 1]))
    two = b.affine("two", product, b.constant("two_m", np.array(2)), b.constant("o", [1, 2, 3]))
    scaled = b.affine("scaled", two, b.constant("half", np.array(1), exponent=-1), b.constant("p", [1, 2, 3]))
    graph = b.finish([scaled])
    assert not merge_affine.apply(graph)[1]
    b.output(product)
    assert not merge_affine.apply(b.graph)[1]


def test_bias_goes_into_convolution_and_matrix_product() -> None:
    b = GraphBuilder("net")
    rng = np.random.default_rng(0)
    one = b.constant("one", np.array(1))
    x = b.input("x", (2, 5, 5), Integer(5))
    conv = b.conv("conv", x, b.constant("w", rng.integers(-3, 4, (4, 2, 3, 3)), exponent=-2))
    shifted = b.affine("conv_bias", conv, one, b.constant("o", [1, 2, 3, -4], exponent=-4))
    flat = b.reshape("flat", shifted, (36,))
    fc = b.matmul("fc", flat, b.constant("v", rng.integers(-3, 4, (36, 3))))
    y = b.affine("fc_bias", fc, one, b.constant("p", np.array(7)))
    graph = b.finish([y])
    after, changed = bias.apply(graph)
    assert changed
    assert [(n.op, n.name, len(n.inputs)) for n in after.nodes] == [
        ("Conv", "conv_bias", 3),
        ("Reshape", "flat", 1),
        ("MatMul", "fc_bias", 3),
    ]
    same(graph, after)


def test_bias_of_rows_is_no_bias_of_columns() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (3, 4), Integer(5))
    y = b.matmul("mm", x, b.constant("w", np.ones((4, 3), dtype=np.int64)))
    y = b.affine("rows", y, b.constant("one", np.array(1)), b.constant("o", [1, 2, 3]))
    assert not bias.apply(b.finish([y]))[1]


def test_dead_nodes_go() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (3,), Integer(5))
    y = b.add("y", x, x)
    b.add("unused", y, x)
    graph = b.finish([y])
    after, changed = dead.apply(graph)
    assert changed
    assert ops(after) == ["Add"]
    assert "unused" not in after.tensors
    same(graph, after)


def test_requants_that_change_nothing_go() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (3,), Integer(8))
    y = b.requant("first", x, Integer(5), exponent=2)
    again = b.requant("again", y, Integer(5), exponent=2, rounding=Rounding.TRN)
    wide = b.requant("wide", again, Integer(9), exponent=-2)
    y = b.requant("last", wide, Integer(4), exponent=3, rounding=Rounding.RND)
    graph = b.finish([y])
    after = simplify(graph)
    assert [n.name for n in after.nodes] == ["first", "last"]
    same(graph, after)


@pytest.mark.parametrize(
    ("format", "exponent", "options"),
    [
        (Integer(8), 1, {}),
        (Integer(7), 0, {}),
        (Integer(9), 0, {"low": -3}),
        (Integer(8), -1, {}),
        (Integer(8), 0, {"overflow": Overflow.SAT_SYM}),
    ],
)
def test_requants_that_change_numbers_stay(
    format: Integer, exponent: int, options: dict[str, object]
) -> None:
    b = GraphBuilder("net")
    x = b.add("x2", b.input("x", (3,), Integer(7)), b.input("z", (3,), Integer(7)))
    y = b.requant("narrow", x, format, exponent, **options)
    y = b.requant("last", y, Integer(4), exponent=3)
    assert not merge_requant.apply(b.finish([y]))[1]


def test_a_requant_on_the_input_stays_an_output_of_its_own() -> None:
    b = GraphBuilder("net")
    y = b.requant("same", b.input("x", (3,), Integer(8)), Integer(8))
    assert not merge_requant.apply(b.finish([y]))[1]


@pytest.mark.parametrize("text", ["e3m2", "khot<6,1>", "pow2<3>"])
def test_a_requant_onto_a_listed_format_rounds_and_stays(text: str) -> None:
    """Integers within the format's range are not all numbers of the format."""
    format = parse_format(text)
    b = GraphBuilder("net")
    x = b.input("x", (3,), Integer(min(5, format.mantissa_high.bit_length() + 1)))
    y = b.requant("second", b.requant("first", x, format), Integer(3), exponent=1, rounding=Rounding.RND)
    assert not merge_requant.apply(b.finish([y]))[1]


def test_a_requant_onto_a_listed_format_that_holds_the_numbers_goes() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (40,), parse_format("e3m2"), exponent=3)
    # Of e3m2, e3m3 holds twice every number; of the integers, e2m3 holds those up to 16.
    y = b.requant("wider", x, parse_format("e3m3"), exponent=2)
    y = b.requant("q", y, Integer(4), exponent=4, rounding=Rounding.RND)
    z = b.requant("small", b.input("z", (40,), Integer(5)), parse_format("e2m3"))
    z = b.requant("r", z, Integer(3), exponent=1, rounding=Rounding.RND)
    graph = b.finish([y, z])
    after, changed = merge_requant.apply(graph)
    assert changed
    assert [node.name for node in after.nodes] == ["q", "r"]
    same(graph, after)


@pytest.mark.parametrize("apply", [*SIMPLIFYING, to_threshold.apply])
def test_a_pass_that_finds_nothing_gives_the_graph_back(apply: object) -> None:
    b = GraphBuilder("net")
    graph = b.finish([b.add("y", b.input("x", (3,), Integer(8)), b.input("z", (3,), Integer(8)))])
    after, changed = apply(graph)  # type: ignore[operator]
    assert after is graph
    assert not changed


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_affine_and_requant_become_thresholds_exactly(data: st.DataObject) -> None:
    """Every input code of every channel, for random gains, offsets, bounds, exponents and modes."""
    draw = data.draw
    channels = draw(st.integers(1, 3))
    width, signed = draw(st.integers(1, 9)), draw(st.booleans())
    b = GraphBuilder("net")
    x = b.input("x", (channels, 2), Integer(width, signed), exponent=draw(st.integers(-3, 2)))
    y = x
    if draw(st.booleans()):
        numbers = st.lists(st.integers(-40, 40), min_size=channels, max_size=channels)
        m = b.constant("m", draw(numbers), exponent=draw(st.integers(-6, 0)))
        o = b.constant("o", draw(numbers), exponent=draw(st.integers(-6, 1)))
        y = b.affine("affine", x, m, o if draw(st.booleans()) else None)
    bits, is_signed = draw(st.integers(1, 6)), draw(st.booleans())
    format = Integer(bits, is_signed)
    bounds = draw(st.tuples(*[st.integers(format.mantissa_low, format.mantissa_high)] * 2))
    low, high = (min(bounds), max(bounds)) if draw(st.booleans()) else (None, None)
    per_channel = Exponent(tuple(draw(st.integers(-3, 4)) for _ in range(channels)), 0)
    exponent = (
        per_channel if channels > 1 and draw(st.booleans()) else Exponent.scalar(draw(st.integers(-3, 4)))
    )
    rounding = draw(st.sampled_from(list(Rounding)))
    y = b.requant("q", y, format, exponent, rounding=rounding, low=low, high=high)
    graph = b.finish([y])
    after, changed = to_threshold.apply(graph)
    if changed:
        assert ops(after) == ["Threshold"]
    value_ranges(after)
    codes = np.arange(b.type(x).format.mantissa_low, b.type(x).format.mantissa_high + 1)
    codes = np.broadcast_to(codes[:, None, None], (codes.size, channels, 2))
    np.testing.assert_array_equal(interpret(graph, {"x": codes})[y], interpret(after, {"x": codes})[y])


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_affine_and_requant_to_a_listed_format_become_thresholds_exactly(data: st.DataObject) -> None:
    """Every input code of every channel, for random gains, offsets, bounds, exponents and modes."""
    draw = data.draw
    channels = draw(st.integers(1, 3))
    source: Format = draw(st.sampled_from([Integer(9), Integer(7, False), parse_format("e3m3")]))
    b = GraphBuilder("net")
    x = y = b.input("x", (channels, 2), source, exponent=draw(st.integers(-3, 2)))
    if draw(st.booleans()):
        numbers = st.lists(st.integers(-40, 40), min_size=channels, max_size=channels)
        m = b.constant("m", draw(numbers), exponent=draw(st.integers(-6, 0)))
        o = b.constant("o", draw(numbers), exponent=draw(st.integers(-6, 1)))
        y = b.affine("affine", x, m, o if draw(st.booleans()) else None)
    texts = ["e4m3", "e3m2fn", "e2m1", "e5m2ieee", "e2m1<nosubnormal>", "khot<7,2>", "pow2<4>", "ternary"]
    format = parse_format(draw(st.sampled_from([*texts, "binary"])))
    assert isinstance(format, TableFormat)
    ends = sorted(draw(st.tuples(*[st.sampled_from(format.numbers.tolist())] * 2)))
    low, high = ends if draw(st.booleans()) else (None, None)
    exponents = [draw(st.integers(-12, 4)) for _ in range(channels)]
    per_channel = channels > 1 and draw(st.booleans())
    exponent = Exponent(tuple(exponents), 0) if per_channel else Exponent.scalar(exponents[0])
    modes = [format.rounding] if isinstance(format, Binary | Ternary) else list(Rounding)
    rounding = draw(st.sampled_from(modes))
    y = b.requant("q", y, format, exponent, rounding=rounding, low=low, high=high)
    graph = b.finish([y])
    after, changed = to_threshold.apply(graph)
    assert changed
    assert ops(after) == ["Threshold"]
    assert after.tensors[y] == graph.tensors[y]
    value_ranges(after)
    codes = np.arange(source.mantissa_low, source.mantissa_high + 1)
    codes = source.numbers if isinstance(source, TableFormat) else codes
    codes = np.broadcast_to(codes[:, None, None], (codes.size, channels, 2))
    np.testing.assert_array_equal(interpret(graph, {"x": codes})[y], interpret(after, {"x": codes})[y])


def test_thresholds_whose_levels_need_more_than_63_bits() -> None:
    b = GraphBuilder("net")
    format = parse_format("e7m0")
    y = b.requant("q", b.input("x", (2,), Integer(130)), format, exponent=1, rounding=Rounding.TRN)
    graph = b.finish([y])
    after, changed = to_threshold.apply(graph)
    assert changed
    codes = np.array([sign * (1 << bits) + d for sign in (-1, 1) for bits in range(129) for d in (-1, 0, 1)])
    codes = codes.reshape(-1, 2)
    np.testing.assert_array_equal(interpret(graph, {"x": codes})[y], interpret(after, {"x": codes})[y])


def test_wrapping_requants_are_no_thresholds() -> None:
    b = GraphBuilder("net")
    y = b.requant("q", b.input("x", (3,), Integer(8)), Integer(3), exponent=1, overflow=Overflow.WRAP)
    assert not to_threshold.apply(b.finish([y]))[1]


def test_thresholds_of_wide_accumulators() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (2, 3), Integer(70))
    y = b.affine("a", x, b.constant("m", [3, -5]), b.constant("o", [1 << 66, 7]))
    y = b.requant("q", y, Integer(4), exponent=67)
    graph = b.finish([y])
    after, changed = to_threshold.apply(graph)
    assert changed
    rng = np.random.default_rng(0)
    codes = np.array([int(v) for v in rng.integers(-(1 << 62), 1 << 62, 600)], dtype=object) * 128
    codes = codes.reshape(100, 2, 3)
    np.testing.assert_array_equal(interpret(graph, {"x": codes})[y], interpret(after, {"x": codes})[y])


@given(st.data())
@settings(deadline=None)
def test_branches_that_are_added_and_rounded_become_thresholds_exactly(data: st.DataObject) -> None:
    """A slope times the number plus a gain times its positive part: where both rise, or both fall."""
    draw, channels = data.draw, 2
    b = GraphBuilder("net")
    x = y = b.input("x", (channels, 3), Integer(6), exponent=draw(st.integers(-3, 0)))
    numbers = st.lists(st.integers(-9, 9), min_size=channels, max_size=channels)
    if draw(st.booleans()):
        y = b.affine("norm", x, b.constant("m", draw(numbers)), b.constant("o", draw(numbers)))
    positive = b.requant("positive", y, Integer(12, False), b.type(y).exponent.values[0])
    slopes, gains = draw(numbers), draw(numbers)
    parts = [
        b.affine(name, part, b.constant(f"{name}_gain", gain, exponent=-2))
        for name, part, gain in (("slope", y, slopes), ("rest", positive, gains))
    ]
    y = b.requant("q", b.add("sum", *parts), Integer(4), exponent=draw(st.integers(-2, 4)))
    graph = b.finish([y])
    after, changed = joins_to_threshold.apply(graph)
    # Where one rises and the other falls, a norm that gives one number alone may still be a threshold.
    assert changed or any(slope * gain < 0 for slope, gain in zip(slopes, gains, strict=True))
    if changed:
        assert ops(after) == ["Threshold"]
        assert after.tensors[y] == graph.tensors[y]
    value_ranges(after)
    codes = np.broadcast_to(np.arange(-32, 32)[:, None, None], (64, channels, 3))
    np.testing.assert_array_equal(interpret(graph, {"x": codes})[y], interpret(after, {"x": codes})[y])


def test_branches_that_something_else_reads_stay() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (2,), Integer(6))
    positive = b.requant("positive", x, Integer(6, False), 0)
    y = b.requant("q", b.add("sum", x, positive), Integer(3), 1)
    assert ops(joins_to_threshold.apply(b.finish([y]))[0]) == ["Threshold"]
    z = b.add("other", positive, positive)
    assert not joins_to_threshold.apply(b.finish([y, z]))[1]


def test_two_tensors_that_are_added_are_no_branches() -> None:
    b = GraphBuilder("net")
    x, z = b.input("x", (2,), Integer(6)), b.input("z", (2,), Integer(6))
    y = b.requant("q", b.add("sum", x, z), Integer(3), 1)
    assert not joins_to_threshold.apply(b.finish([y]))[1]


def test_rounding_comes_before_moves() -> None:
    b = GraphBuilder("net")
    x = b.input("x", (4, 6), Integer(8))
    y = b.transpose("turned", b.reshape("apart", x, (2, 2, 6)), (1, 2, 0))
    y = b.requant("q", y, Integer(4), 2)
    graph = b.finish([y])
    after, changed = round_first.apply(graph)
    assert changed
    assert ops(after) == ["Requant", "Reshape", "Transpose"]
    assert after.tensors[y] == graph.tensors[y]
    value_ranges(after)
    codes = np.random.default_rng(0).integers(-128, 128, (50, 4, 6))
    np.testing.assert_array_equal(interpret(graph, {"x": codes})[y], interpret(after, {"x": codes})[y])


def test_rounding_of_each_channel_stays_behind_moves() -> None:
    b = GraphBuilder("net")
    x = b.reshape("apart", b.input("x", (4, 6), Integer(8)), (2, 12))
    y = b.requant("q", x, Integer(4), Exponent((1, 2), 0))
    assert not round_first.apply(b.finish([y]))[1]


def test_what_is_moved_for_others_too_is_rounded_behind() -> None:
    b = GraphBuilder("net")
    x = b.reshape("apart", b.input("x", (4, 6), Integer(8)), (2, 12))
    y = b.requant("q", x, Integer(4), 2)
    assert not round_first.apply(b.finish([y, x]))[1]
