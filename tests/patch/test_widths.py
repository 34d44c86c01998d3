"""Feature maps of fewer bits are an exact graph: what Requants, pools, sums and thresholds make of it."""

from __future__ import annotations

import numpy as np
import pytest
from finn_nets import Network, random_network
from test_plan import images, network

from qhw.errors import UnsupportedError
from qhw.formats import Integer
from qhw.formats.modes import Overflow, Rounding
from qhw.graph import ir
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.patch import Width, feature_maps, make_plan, narrowed, with_patches
from qhw.patch.widths import best_width, code_map
from qhw.sim.fast import FastExecutor


def test_a_narrow_feature_map_is_the_wide_one_rounded() -> None:
    graph = network(1)
    inputs = images(graph, 5)
    wide = interpret(graph, inputs, keep="all")
    exponent = graph.tensors["stem"].exponent.values[0]
    found = narrowed(graph, {"stem": Width(4, exponent + 4)})
    kind, node = found.tensors["stem"], found.producer("stem")
    assert (kind.format, kind.exponent.values) == (Integer(4, False), (exponent + 4,))
    sums = interpret(found, inputs, keep=["stem", "stem_n"])
    assert np.array_equal(sums["stem_n"], wide["stem_n"])
    assert isinstance(node, ir.Requant)
    unit = found.tensors["stem_n"].exponent.values[0] - exponent - 4
    expected = np.clip(_rounded(wide["stem_n"], -unit, node.rounding), 0, 15)
    assert np.array_equal(sums["stem"], expected)


def _rounded(values: np.ndarray, bits: int, rounding: Rounding) -> np.ndarray:
    """Rounding by rational arithmetic, without the format's code."""
    quotient = values // (1 << bits)
    rest = values - quotient * (1 << bits)
    double = 2 * rest - (1 << bits)
    up = {
        Rounding.RND_CONV: (double > 0) | ((double == 0) & (quotient % 2 == 1)),
        Rounding.RND: double >= 0,
        Rounding.TRN: np.zeros(values.shape, dtype=bool),
        Rounding.RND_INF: (double > 0) | ((double == 0) & (values > 0)),
    }[rounding]
    return np.asarray(quotient + np.where(up, 1, 0))


@pytest.mark.parametrize("seed", range(6))
def test_patches_of_mixed_widths_give_the_same_codes_in_every_executor(seed: int) -> None:
    graph = network(seed)
    patched = with_patches(graph, make_plan(graph, "join", (2, 2)))
    random = np.random.default_rng(seed)
    widths: dict[str, Width] = {}
    for name in feature_maps(graph):
        copies = (
            [f"{name}.patch{patch}" for patch in range(4)] if f"{name}.patch0" in patched.tensors else [name]
        )
        drawn = [_drawn(random, graph, name) for _ in copies]
        # The parts of the cut are put together, so they have one width.
        widths |= dict(zip(copies, drawn[:1] * 4 if name == "join" else drawn, strict=False))
    found, inputs = narrowed(patched, widths), images(graph, 4)
    assert len({found.tensors[name].format for name in widths}) > 3
    assert all(found.tensors[name].format.width == width.bits for name, width in widths.items())
    assert np.array_equal(interpret(found, inputs)["fc"], FastExecutor(found)(inputs)["fc"])


def _drawn(random: np.random.Generator, graph: ir.ExactGraph, name: str) -> Width:
    kind = graph.tensors[name]
    bits = int(random.integers(1 + (kind.format.width > 1), kind.format.width + 1))
    return Width(bits, kind.exponent.values[0] + int(random.integers(kind.format.width - bits + 1)))


@pytest.mark.parametrize("seed", range(12))
def test_random_networks_stay_exact(seed: int) -> None:
    graph, random = random_network(seed), np.random.default_rng(seed)
    widths = {name: _drawn(random, graph, name) for name in feature_maps(graph)}
    found = narrowed(graph, widths)
    inputs = images(graph, 3)
    slow, fast = interpret(found, inputs, keep="all"), FastExecutor(found)(inputs, keep="all")
    for name, values in slow.items():
        assert np.array_equal(values, fast[name]), name


def test_without_a_change_it_is_the_same_graph() -> None:
    graph = network(2)
    own = {
        name: Width(graph.tensors[name].format.width, graph.tensors[name].exponent.values[0])
        for name in feature_maps(graph)
    }
    assert narrowed(graph, own) == graph


def test_what_can_be_narrow_and_what_cannot() -> None:
    n = Network(0, (3, 8, 8))
    b = n.builder
    stem = n.act("stem", n.conv("stem_c", n.last, 4, (3, 3)), 8, exponent=-3)
    left = n.act("left", n.conv("left_c", stem, 4, (1, 1)), 8, exponent=-3)
    pooled = b.max_pool("pool", b.concat("cat", [stem, left], 0), (2, 2), (2, 2))
    wrapping = b.requant("wrap", n.conv("wrap_c", pooled, 4, (1, 1)), Integer(8), -3, overflow=Overflow.WRAP)
    padded = b.pad("pad", n.act("ones", n.conv("ones_c", wrapping, 4, (1, 1)), 8), (0, 1, 1, 0, 1, 1), 1)
    kept = n.act("kept", n.conv("kept_c", padded, 4, (1, 1)), 8)
    wide = b.requant("wide", n.conv("wide_c", kept, 4, (1, 1)), Integer(16), -9)
    graph = n.finish(n.act("out", n.conv("out_c", wide, 4, (1, 1)), 8))
    assert feature_maps(graph) == ["kept"]
    exponent = graph.tensors["kept"].exponent.values[0]
    with pytest.raises(UnsupportedError, match="pool cannot have fewer bits"):
        narrowed(graph, {"pool": Width(4, 0)})
    with pytest.raises(UnsupportedError, match="cannot have 4 at"):
        narrowed(graph, {"kept": Width(4, exponent - 1)})
    with pytest.raises(UnsupportedError, match="as many bits or fewer"):
        narrowed(graph, {"kept": Width(9, exponent)})


def test_a_bound_stays_at_its_value() -> None:
    """The 6 of a ReLU6: 96 at 2^-4 is 6 at 2^0, whatever lies above."""
    builder = GraphBuilder("relu6")
    x = builder.input("x", (1,), Integer(12), -4)
    y = builder.requant("y", x, Integer(8, False), -4, high=96)
    graph = builder.finish([builder.matmul("z", y, builder.constant("w", [[1]]))])
    values = {"x": np.array([[-5], [40], [96], [111], [2000]])}
    found = narrowed(graph, {"y": Width(4, 0)})
    assert interpret(found, values, keep=["y"])["y"].ravel().tolist() == [0, 2, 6, 6, 6]
    coarse = narrowed(graph, {"y": Width(2, 0)})
    assert interpret(coarse, values, keep=["y"])["y"].ravel().tolist() == [0, 2, 3, 3, 3]


def test_thresholds_and_tables_read_what_they_were_made_for() -> None:
    builder = GraphBuilder("looked_up")
    x = builder.input("x", (2,), Integer(8, False), -4)
    y = builder.requant("y", x, Integer(6, False), -3)
    thresholds = builder.constant("t", np.array([[5, 21, 40]]))
    z = builder.threshold("z", y, thresholds, builder.constant("l", [[0, 1, 2, 3]]), Integer(2, False))
    table = builder.table("u", y, builder.constant("v", 63 - np.arange(64)[None]), 0, Integer(6, False))
    graph = builder.finish([z, table])
    inputs = {"x": np.arange(256).reshape(-1, 2)}
    found = narrowed(graph, {"y": Width(4, -1)})
    values = interpret(found, inputs, keep="all")
    wide = values["y"] << 2
    assert np.array_equal(values["z"], (wide >= 5) * 1 + (wide >= 21) + (wide >= 40))
    assert np.array_equal(values["u"], 63 - wide)
    assert np.array_equal(FastExecutor(found)(inputs)["u"], values["u"])


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 4])
def test_the_exponent_has_the_least_squared_error_of_all(signed: bool, bits: int) -> None:
    random = np.random.default_rng(bits)
    builder = GraphBuilder("one")
    x = builder.input("x", (1,), Integer(16), -4)
    builder.requant("y", x, Integer(8, signed), -2)
    node, kind = builder.graph.producer("y"), builder.type("y")
    assert isinstance(node, ir.Requant)
    values = np.clip(
        np.round(random.laplace(0, 9, 4000)), kind.format.mantissa_low, kind.format.mantissa_high
    )
    counts = np.bincount(values.astype(int) - kind.format.mantissa_low, minlength=256)
    found = best_width(node, kind, counts, bits)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    errors = {
        shift: np.sum((np.clip(np.round(values / 2**shift), low, high) * 2**shift - values) ** 2)
        for shift in range(9 - bits)
    }
    assert found == Width(bits, -2 + min(errors, key=lambda shift: errors[shift]))
    assert 0 < found.exponent + 2 < 8 - bits  # neither end: it weighs rounding against saturation


def test_a_code_map_is_what_the_requant_does() -> None:
    builder = GraphBuilder("one")
    x = builder.input("x", (1,), Integer(8), -4)
    y = builder.requant("y", x, Integer(8), -4)
    graph = builder.finish([builder.matmul("z", y, builder.constant("w", [[1]]))])
    node, width = graph.producer("y"), Width(4, -2)
    assert isinstance(node, ir.Requant)
    codes = np.arange(-128, 128)
    found = interpret(narrowed(graph, {"y": width}), {"x": codes[:, None]}, keep=["y"])["y"].ravel()
    assert np.array_equal(code_map(node, graph.tensors["y"], width), found)
