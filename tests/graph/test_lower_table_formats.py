"""Networks in minifloats and k-hot, lowered from QONNX: the values of qonnx's own execution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qonnx_factory import Net, execute

from qhw.errors import QhwError, UnsupportedError
from qhw.formats import KHot, Minifloat, parse_format
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.graph.passes import to_threshold
from qhw.graph.serialize import graph_hash, load_graph, save_graph
from qhw.onnx_ops.float_quant import differences_of_qonnx

RANDOM = np.random.default_rng(7)


def values(graph: ExactGraph, x: Any) -> np.ndarray:
    result = interpret(graph, encode_inputs(graph, x))
    return decode_output(graph, graph.outputs[0], result[graph.outputs[0]])


def images(count: int = 32) -> np.ndarray:
    """Numbers of every magnitude, with the largest ones beyond any format here."""
    random = np.random.default_rng(1)
    x = random.normal(0, 2, (count, 3, 6, 6)) * 2.0 ** random.integers(-6, 5, (count, 1, 1, 1))
    return x.astype(np.float32)


def network(exponent_bits: int, mantissa_bits: int, relu: bool = True, per_channel: bool = True) -> Net:
    """Two convolutions with minifloat weights (scales per channel) and activations."""
    net = Net((3, 6, 6))
    x = net.float_quant(net.x, exponent_bits, mantissa_bits, 0.25, name="first")
    scale = 2.0 ** RANDOM.integers(-4, 1, (4, 1, 1, 1)) if per_channel else 0.25
    weight = net.float_quant(RANDOM.normal(0, 1, (4, 3, 3, 3)), exponent_bits, mantissa_bits, scale)
    x = net.node("Conv", x, weight, kernel_shape=[3, 3], pads=[1, 1, 1, 1], name="conv")
    x = net.node("Relu", x) if relu else x
    x = net.float_quant(x, exponent_bits, mantissa_bits, 2.0, name="inner")
    weight = net.float_quant(RANDOM.normal(0, 1, (2, 4, 1, 1)), exponent_bits, mantissa_bits, 0.5)
    x = net.node("Conv", x, weight, kernel_shape=[1, 1], name="second")
    net.node("Identity", x)
    return net


@pytest.mark.parametrize(("e", "m"), [(4, 3), (3, 2), (2, 1), (2, 3), (3, 4), (5, 2)])
@pytest.mark.parametrize("relu", [False, True])
def test_minifloat_networks_give_the_values_of_qonnx(e: int, m: int, relu: bool) -> None:
    net = network(e, m, relu)
    x = net.float_quant("second_out", 4, 3, 4.0, name="last")
    model = net.model(x)
    graph = lower(model)
    assert isinstance(graph.tensors["inner"].format, Minifloat)
    assert {str(t.format) for n, t in graph.tensors.items() if n in graph.constants} == {f"e{e}m{m}"}
    expected = execute(model, images())[0]
    # Sums of these few products are exact in float32 unless the exponents spread over 20 binary places.
    if e < 5:
        np.testing.assert_array_equal(values(graph, images()), expected)
    else:
        assert (values(graph, images()) == expected).mean() > 0.99
    assert differences_of_qonnx(model) == {}


def test_a_relu_moves_into_the_bounds_of_the_minifloat() -> None:
    graph = lower(network(3, 2).model("second_out"))
    (node,) = (n for n in graph.nodes if n.name == "inner")
    assert (node.low, node.high) == (0, None)


def test_thresholds_say_the_same_as_the_requant() -> None:
    graph = lower(network(3, 2).model("second_out"))
    changed, did = to_threshold.apply(graph)
    assert did
    assert [n.op for n in changed.nodes].count("Threshold") == 1
    np.testing.assert_array_equal(values(graph, images()), values(changed, images()))


def test_a_saved_graph_is_the_same_graph(tmp_path: Any) -> None:
    graph = lower(network(4, 3).model("second_out"))
    save_graph(graph, tmp_path)
    loaded = load_graph(tmp_path)
    assert graph_hash(loaded) == graph_hash(graph)
    assert loaded.input_encodings == graph.input_encodings
    np.testing.assert_array_equal(values(graph, images()), values(loaded, images()))


@pytest.mark.parametrize(
    "format", ["e4m3fnuz", "khot<8,2>", "khot<6,3,csd>", "pow2<4>", "e3m2<TRN>", "ternary"]
)
def test_formats_of_qhw_travel_in_a_node_of_its_own(format: str) -> None:
    net = Net((3, 6, 6))
    x = net.quant(net.x, 8, 2.0**-4)
    weight = net.format_quant(RANDOM.normal(0, 30, (4, 3, 3, 3)), format, 2.0**-5)
    x = net.node("Conv", x, weight, kernel_shape=[3, 3], name="conv")
    x = net.format_quant(x, format, 2.0**-3)
    model = net.model(x)
    graph = lower(model)
    assert graph.tensors[graph.outputs[0]].format == parse_format(format)
    np.testing.assert_array_equal(values(graph, images()), execute(model, images())[0])


def khot_network(metadata: str, weights: np.ndarray) -> Any:
    net = Net((3, 6, 6))
    x = net.quant(net.x, 8, 2.0**-4)
    weight = net.quant(weights * 2.0**-5, 8, 2.0**-5, name="weight_quant")
    x = net.node("Conv", x, weight, kernel_shape=[3, 3], name="conv")
    model = net.model(x)
    (node,) = (n for n in model.graph.node if n.name == "weight_quant")
    entry = node.metadata_props.add()
    entry.key, entry.value = "qhw.format", metadata
    return model


def test_a_k_hot_weight_is_a_quant_node_with_metadata() -> None:
    format = parse_format("khot<8,2>")
    assert isinstance(format, KHot)
    model = khot_network("khot<8,2>", RANDOM.choice(format.numbers, (4, 3, 3, 3)))
    graph = lower(model)
    assert {t.format for n, t in graph.tensors.items() if n in graph.constants} == {format}
    np.testing.assert_array_equal(values(graph, images()), execute(model, images())[0])


def test_a_weight_that_is_not_k_hot_is_refused_by_name() -> None:
    weights = np.zeros((4, 3, 3, 3))
    weights[1, 2, 0, 1] = 7
    with pytest.raises(UnsupportedError, match=r"'weight_quant'.*khot<8,2>, which does not hold 7"):
        lower(khot_network("khot<8,2>", weights))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"exponent_bits": 4.5}, r"'q'.*exponent width is \[4.5\]"),
        ({"mantissa_bits": 14}, r"'q'.*0 to 11 mantissa bits"),
        ({"largest": 449.0}, r"'q'.*max_val 449 is not a number of e4m3"),
        ({"largest": float("nan")}, r"'q'|NaN|nan"),
        ({"saturation": 0, "has_nan": 1}, r"'q'.*overflows to infinity or NaN"),
        ({"rounding": "STOCHASTIC"}, r"'q'.*rounding mode 'STOCHASTIC'"),
        ({"scale": 0.0}, r"'q'|scale"),
        ({"scale": float("nan")}, r"NaN|nan"),
    ],
)
def test_what_no_exact_graph_can_carry_is_named(change: dict[str, Any], said: str) -> None:
    net = Net((3,))
    options: dict[str, Any] = {"exponent_bits": 4, "mantissa_bits": 3} | change
    e, m = options.pop("exponent_bits"), options.pop("mantissa_bits")
    x = net.float_quant(net.x, e, m, options.pop("scale", 1.0), name="q", **options)
    with pytest.raises(QhwError, match=said):
        lower(net.model(x))


def test_both_names_of_the_attribute_for_infinity_are_read() -> None:
    for name in ("has_inf", "has_infinity"):
        net = Net((3,))
        flags = {"has_nan": 1, name: 1}
        x = net.float_quant(net.x, 5, 2, largest=57344.0, name="q", **flags)
        model = net.model(x)
        if name == "has_infinity":
            (node,) = model.graph.node
            kept = [a for a in node.attribute if a.name != "has_inf"]
            del node.attribute[:]
            node.attribute.extend(kept)
        graph = lower(model)
        assert str(graph.tensors[graph.outputs[0]].format) == "e5m2ieee"
        assert values(graph, np.array([[1e9, -1e9, 1.1]], np.float32)).tolist() == [[57344, -57344, 1.0]]
        assert bool(differences_of_qonnx(model)) == (name == "has_infinity")


def test_where_qonnx_departs_from_the_specification() -> None:
    """Pinned: qonnx computes subnormals although the file says that there are none."""
    net = Net((2,))
    x = net.float_quant(net.x, 3, 2, has_subnormal=0, name="q")
    model, numbers = net.model(x), np.array([[2.0**-4, 1.3]], np.float32)
    assert values(lower(model), numbers).tolist() == [[0.0, 1.25]]
    assert execute(model, numbers)[0].tolist() == [[2.0**-4, 1.25]]
    assert differences_of_qonnx(model) == {"q": "has_subnormal=0, which qonnx ignores"}


def test_a_largest_value_below_the_formats_own() -> None:
    net = Net((4,))
    x = net.float_quant(net.x, 4, 3, largest=448.0, name="q")
    model, numbers = net.model(x), np.array([[1e9, -470.0, 463.9, 3.0]], np.float32)
    assert values(lower(model), numbers).tolist() == execute(model, numbers)[0].tolist()
    assert values(lower(model), numbers).tolist() == [[448, -448, 448, 3]]
