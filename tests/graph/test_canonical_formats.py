"""Formats that list their codes, at any scale: canonical.onnx against the exact graph."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx_factory import Net
from test_canonical import check, images, ops, refusal, weights

from qhw.errors import QhwError
from qhw.formats import Binary, KHot, Minifloat, parse_format
from qhw.graph.encode import encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph, Threshold
from qhw.graph.lower import lower, lower_model
from qhw.graph.reading.load import load_qonnx
from qhw.graph.serialize import graph_hash, load_graph, save_graph
from qhw.graph.tails.tail import as_float32
from qhw.sim.canonical import canonical_integers
from qhw.sim.fast import FastExecutor

SCALES = 0.0091 * (1 + np.arange(4)).reshape(-1, 1, 1, 1)


def network(e: int, m: int, *, per_channel: bool = True, norm: bool = True, finer: float = 1.0) -> Net:
    """A float input, a convolution, batch norm with a negative and a zero gain, ReLU, another convolution."""
    net = Net((3, 6, 6))
    x = net.float_quant("x", e, m, 0.0713, name="first")
    weight = net.float_quant(weights(4, 3, 3, 3), e, m, SCALES / finer if per_channel else 0.0213)
    x = net.node("Conv", x, weight, weights(4), kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="conv")
    if norm:
        gamma = [1.1, -0.7, 0.0, 0.6]
        x = net.node(
            "BatchNormalization", x, gamma, weights(4), weights(4) / 3, [0.3, 1, 2, 0.7], name="norm"
        )
    x = net.float_quant(net.node("Relu", x), e, m, 0.0357, name="act")
    weight = net.float_quant(weights(2, 4, 1, 1), e, m, 0.0531)
    x = net.node("Conv", x, weight, kernel_shape=[1, 1], name="second")
    net.float_quant(x, e, m, 0.0117, name="last")
    return net


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(("e", "m"), [(4, 3), (3, 2), (2, 1), (2, 3), (3, 4), (4, 1), (2, 5)])
def test_minifloat_networks_at_any_scale(e: int, m: int, per_channel: bool) -> None:
    graph = check(network(e, m, per_channel=per_channel).model("last_out"), images(), apart=0.005)
    assert ops(graph) == ["Conv", "Threshold", "Conv", "Threshold"]
    format = Minifloat(e, m)
    assert {graph.tensors[name].format for name in ("x", "act", "last")} == {format}
    weighted = [graph.constants[n.inputs[1]] for n in graph.nodes if n.op == "Conv"]
    assert all(graph.tensors[n.inputs[1]].format == format for n in graph.nodes if n.op == "Conv")
    assert all(format.holds(weight) for weight in weighted)
    assert graph.input_encodings["x"].format == format
    for node in graph.nodes:
        if isinstance(node, Threshold):
            assert format.holds(graph.constants[node.inputs[2]])


def test_the_fast_executor_has_the_interpreters_codes() -> None:
    graph = lower(network(4, 3).model("last_out"))
    mantissas = encode_inputs(graph, images())
    by_rule = interpret(graph, mantissas, keep="all")
    fast = FastExecutor(graph)(mantissas, keep="all")
    assert all(np.array_equal(by_rule[name], fast[name]) for name in fast)


def nearest_float32(integer: int) -> np.float32:
    """The definition, by exact distances; a tie goes to the even significand."""
    near = np.float32(float(integer))
    beside = [near, np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))]
    distances = [abs(Fraction(float(value)) - integer) for value in beside]
    best = [value for value, apart in zip(beside, distances, strict=True) if apart == min(distances)]
    return min(best, key=lambda value: int(np.asarray(value).view(np.int32)) & 1)


@given(st.integers(-(1 << 100), 1 << 100), st.integers(0, 80), st.integers(-2, 2))
def test_integers_of_any_size_are_rounded_to_float32_once(integer: int, spare: int, beside: int) -> None:
    # A tie of float32 with something far behind it: through float64 it would be rounded twice.
    tie = (((1 << 23) | (abs(integer) & 0x7FFFFF)) * 2 + 1 << spare) + beside
    for value in (integer, tie, -tie):
        assert as_float32(np.array([value], dtype=object))[0] == nearest_float32(value)


def test_sums_beyond_63_bits() -> None:
    """E5M2: mantissas of 33 bits, sums of 70; the tail by hand, on Python's exact integers."""
    graph = lower(network(5, 2, norm=False, finer=1024.0).model("last_out"))
    assert graph.tensors["conv"].format.width > 64
    x = (np.random.default_rng(5).normal(size=(12, 3, 6, 6)) * 60).astype(np.float32)
    found = interpret(graph, encode_inputs(graph, x), keep="all")
    format = Minifloat(5, 2)
    unit = np.float32(0.0713) * np.float32(2.0) ** format.exponent
    bias = weights(4)
    for channel in range(4):
        weight_unit = np.float32(SCALES.reshape(-1)[channel] / 1024) * np.float32(2.0) ** format.exponent
        scale = np.float32(unit * weight_unit)
        sums = as_float32(found["conv"][:, channel])
        value = np.maximum(sums * scale + bias[channel], np.float32(0)) / np.float32(0.0357)
        assert np.array_equal(found["act"][:, channel], format.to_mantissa(value))
    assert len(np.unique(found["act"])) > 40


def listed_network(format: str, weight_format: str) -> ModelProto:
    net = Net((3, 6, 6))
    x = net.quant("x", 8, 0.0213, name="first")
    weight = net.format_quant(weights(4, 3, 3, 3), weight_format, SCALES)
    x = net.node("Conv", x, weight, weights(4), kernel_shape=[3, 3], name="conv")
    return net.model(net.format_quant(x, format, 0.0371, name="act"))


@pytest.mark.parametrize("weight_format", ["khot<8,2>", "e3m2"])
@pytest.mark.parametrize(
    "format",
    [
        *("e4m3fnuz", "e4m3fn", "e5m2ieee", "khot<8,2>", "khot<6,3,csd>", "pow2<4>", "upow2<4>", "e3m2<TRN>"),
        *("e3m2<nosubnormal>", "ternary", "binary", "e2m3@-3", "e3m2<UP>", "pow2<3,nozero>"),
    ],
)
def test_every_kind_of_format_at_any_scale(format: str, weight_format: str) -> None:
    graph = check(listed_network(format, weight_format), images(), distinct=2)
    assert ops(graph) == ["Conv", "Threshold"]
    assert graph.tensors["act"].format == parse_format(format)
    assert graph.tensors[graph.nodes[0].inputs[1]].format == parse_format(weight_format)


def khot_weight(net: Net, numbers: np.ndarray) -> str:
    """As exported: an ordinary Quant constant, its format in the node's metadata."""
    weight = net.quant(numbers * np.float32(0.0091), 8, 0.0091, name="weight_quant")
    net.nodes[-1].metadata_props.add(key="qhw.format", value="khot<8,2>")
    return weight


def khot_network(numbers: np.ndarray) -> ModelProto:
    net = Net((3, 6, 6))
    x = net.quant("x", 8, 0.0213, name="first")
    x = net.node("Conv", x, khot_weight(net, numbers), kernel_shape=[3, 3], name="conv")
    return net.model(net.quant(x, 6, 0.41, name="act"))


def test_a_k_hot_weight_stays_one() -> None:
    numbers = np.random.default_rng(0).choice(KHot(8, 2).numbers, (4, 3, 3, 3)).astype(np.float32)
    graph = check(khot_network(numbers), images())
    assert graph.tensors[graph.nodes[0].inputs[1]].format == KHot(8, 2)
    assert np.array_equal(graph.constants[graph.nodes[0].inputs[1]], numbers)
    numbers[1, 2, 0, 1] = 7
    assert "'weight_quant': its metadata says khot<8,2>, which does not hold 7" in refusal(
        khot_network(numbers)
    )


@pytest.mark.parametrize("scale", [0.5, 0.713])
def test_a_largest_value_below_the_formats_own(scale: float) -> None:
    net = Net((4,))
    y = net.float_quant("x", 4, 3, scale, largest=448.0, name="q")
    y = net.float_quant(net.node("Mul", y, 1.1), 4, 3, 0.53, largest=416.0, name="again")
    x = np.array([[1e9, -470.0, 463.9, 3.0], [200, -100, 1e-9, 0]], np.float32)
    graph = check(net.model(y), x)
    assert graph.input_encodings["x"].high * 2.0**-9 == 448
    assert interpret(graph, encode_inputs(graph, x))["again"].max() * 2.0**-9 == 416


def test_branches_of_one_free_scale_add_and_join_as_integers() -> None:
    net = Net((3, 6, 6))
    x = net.float_quant("x", 4, 3, 0.0713, name="first")
    weight = net.float_quant(weights(3, 3, 1, 1), 4, 3, 0.0213)
    y = net.float_quant(net.node("Conv", x, weight, kernel_shape=[1, 1]), 4, 3, 0.0713, name="branch")
    y = net.float_quant(net.node("Add", x, y, name="sum"), 3, 2, 0.0931, name="added")
    z = net.node("MaxPool", net.node("Concat", y, y, axis=1), kernel_shape=[2, 2])
    z = net.node("Conv", z, net.float_quant(weights(2, 6, 1, 1), 3, 2, 0.031), kernel_shape=[1, 1])
    graph = check(net.model(z), images())
    assert ops(graph) == ["Conv", "Threshold", "Add", "Threshold", "Concat", "MaxPool", "Conv"]
    assert graph.tensors[graph.nodes[5].output].format == Minifloat(3, 2)


def test_a_max_pool_moves_behind_the_minifloat() -> None:
    net = Net((3, 6, 6))
    x = net.float_quant("x", 4, 3, 0.0713)
    x = net.node(
        "Conv", x, net.float_quant(weights(4, 3, 3, 3), 4, 3, 0.0213), weights(4), kernel_shape=[3, 3]
    )
    x = net.node("MaxPool", net.node("Relu", x), kernel_shape=[2, 2], strides=[2, 2])
    graph = check(net.model(net.float_quant(x, 3, 2, 0.031, name="act")), images())
    assert ops(graph) == ["Conv", "Threshold", "MaxPool"]
    assert graph.tensors[graph.outputs[0]].format == Minifloat(3, 2)


def test_binary_weights_and_minifloat_activations() -> None:
    net = Net((3, 6, 6))
    x = net.float_quant("x", 4, 3, 0.0713)
    x = net.node("Conv", x, net.format_quant(weights(4, 3, 3, 3), "binary", SCALES), kernel_shape=[3, 3])
    graph = check(net.model(net.float_quant(x, 3, 2, 0.31, name="act")), images())
    assert graph.tensors[graph.nodes[0].inputs[1]].format == Binary()


def test_pixels_normalised_in_the_graph_before_a_minifloat() -> None:
    net = Net((3, 6, 6))
    net.annotations["x"] = "UINT8"
    y = net.node("Div", net.node("Sub", net.node("Mul", "x", 1 / 255), 0.449), 0.226)
    y = net.float_quant(y, 4, 3, 0.0203, name="first")
    y = net.node("Conv", y, net.float_quant(weights(4, 3, 3, 3), 4, 3, 0.0071), kernel_shape=[3, 3])
    pixels = np.random.default_rng(5).integers(0, 256, (8, 3, 6, 6)).astype(np.float32)
    graph = check(net.model(net.float_quant(y, 4, 3, 0.2, name="act")), pixels, apart=0.005)
    assert ops(graph) == ["Table", "Conv", "Threshold"]


def test_pixels_normalised_in_the_graph_where_only_that_is_no_shift() -> None:
    """Every scale a power of two, the normalisation not: the table of the input's 256 codes."""
    net = Net((3, 6, 6))
    net.annotations["x"] = "UINT8"
    y = net.node("Div", net.node("Sub", net.node("Mul", "x", 1 / 255), 0.449), 0.226)
    graph = lower(net.model(net.float_quant(y, 4, 3, 0.25, name="first")))
    assert ops(graph) == ["Table"]
    pixels = np.arange(256, dtype=np.float32).repeat(108)[: 3 * 6 * 6 * 256].reshape(-1, 3, 6, 6)
    value = ((pixels * np.float32(1 / 255) - np.float32(0.449)) / np.float32(0.226)) / np.float32(0.25)
    found = interpret(graph, encode_inputs(graph, pixels))[graph.outputs[0]]
    assert np.array_equal(found, Minifloat(4, 3).to_mantissa(value))


@pytest.mark.parametrize("overflow", ["SAT", "WRAP", "SAT_ZERO"])
def test_fixed_point_with_every_mode_at_any_scale(overflow: str) -> None:
    net = Net((3, 6, 6))
    x = net.quant("x", 8, 0.0213)
    more = {"width": 6, "integer": 6, "signed": 1, "rounding": "RND", "overflow": overflow}
    x = net.node("FixedQuant", net.node("Mul", x, 0.77), "", 0.037, domain="qhw.onnx_ops", name="act", **more)
    x = net.node("Conv", x, net.quant(weights(4, 3, 1, 1), 8, 0.0071))
    graph = check(net.model(net.quant(x, 6, 0.031)), images())
    assert ops(graph) == [{"SAT": "Threshold"}.get(overflow, "Table"), "Conv", "Threshold"]


def test_fixed_point_at_a_power_of_two_given_as_a_scale_lowers_by_shifts() -> None:
    nets = [Net((5,)), Net((5,))]
    more = {"width": 6, "signed": 1, "domain": "qhw.onnx_ops", "name": "act", "rounding": "RND"}
    outputs = [nets[0].node("FixedQuant", "x", integer=3, **more)]
    outputs += [nets[1].node("FixedQuant", "x", "", 2.0**-3, integer=6, **more)]
    first, second = (lower(net.model(y)) for net, y in zip(nets, outputs, strict=True))
    assert graph_hash(first) == graph_hash(second)


def test_the_graph_and_the_canonical_file_can_be_stored(tmp_path: Any) -> None:
    lowering = lower_model(load_qonnx(network(4, 3).model("last_out")))
    canonical, graph = lowering.canonical, lowering.graph
    assert canonical is not None
    canonical.save(str(tmp_path / "canonical.onnx"))
    canonical = ModelWrapper(str(tmp_path / "canonical.onnx"))
    assert graph_hash(graph) == graph_hash(lower(network(4, 3).model("last_out")))
    save_graph(graph, tmp_path)
    loaded: ExactGraph = load_graph(tmp_path)
    assert graph_hash(loaded) == graph_hash(graph)
    x = images()
    reference = canonical_integers(canonical, {"x": x})
    assert np.array_equal(interpret(loaded, encode_inputs(loaded, x))["last"], reference["last"])


def _beyond_float32() -> tuple[str, ModelProto]:
    net = Net((3, 6, 6))
    return "FormatQuant 'act': e7m2 at a scale that is no power of two", net.model(
        net.format_quant("x", "e7m2", 0.03, name="act")
    )


def _two_scales() -> tuple[str, ModelProto]:
    net = Net((3, 6, 6))
    x = net.float_quant("x", 4, 3, 0.0713)
    weight = net.float_quant(weights(3, 3, 1, 1), 4, 3, 0.0213)
    y = net.float_quant(net.node("Conv", x, weight, kernel_shape=[1, 1]), 4, 3, 0.0911)
    return "'after': it joins two tensors of different scales", net.model(
        net.float_quant(net.node("Add", x, y), 4, 3, 0.1, name="after")
    )


def _not_monotone() -> tuple[str, ModelProto]:
    net = Net((3, 6, 6))
    x = net.float_quant("x", 4, 3, 0.0713)
    x = net.node("Mul", x, net.node("Sigmoid", x))
    return "'act' (Mul → Sigmoid → Mul → Div → FormatQuant → Mul) does not only rise or only fall", net.model(
        net.float_quant(x, 4, 3, 0.0003, name="act")
    )


def _nan() -> tuple[str, ModelProto]:
    net = Net((3, 6, 6))
    x = net.node("Log", net.quant("x", 4, 0.3))
    return "'act' (Mul → Log → Div → FormatQuant → Mul): Log of -2.4 is no finite number", net.model(
        net.float_quant(x, 4, 3, 0.03, name="act")
    )


def _nan_weight() -> tuple[str, ModelProto]:
    net = Net((3, 6, 6))
    numbers = weights(4, 3, 3, 3)
    numbers[0, 0, 0, 0] = np.nan
    x = net.quant("x", 8, 0.0213)
    weight = net.float_quant(numbers, 4, 3, 0.03, name="weight")
    return "FloatQuant 'weight'", net.model(net.node("Conv", x, weight, kernel_shape=[3, 3]))


def _scale_of_infinity() -> tuple[str, ModelProto]:
    net = Net((3, 6, 6))
    return "FloatQuant 'act': its constant", net.model(net.float_quant("x", 4, 3, np.inf, name="act"))


@pytest.mark.parametrize(
    "case", [_beyond_float32, _two_scales, _not_monotone, _nan, _nan_weight, _scale_of_infinity]
)
def test_what_cannot_be_carried_is_refused_by_name(case: Any) -> None:
    expected, model = case()
    with pytest.raises(QhwError) as error:
        lower(model)
    assert expected in str(error.value)
