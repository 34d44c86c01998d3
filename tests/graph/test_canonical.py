"""Arbitrary scales, operator by operator: the exact graph against canonical.onnx in qonnx, every code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx_factory import QONNX, Net

from qhw.errors import UnsupportedError
from qhw.graph.canonical import is_canonical, write_canonical
from qhw.graph.encode import encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower, lower_model
from qhw.graph.reading.load import load_qonnx
from qhw.graph.serialize import graph_hash
from qhw.sim.canonical import canonical_integers, compare_with_original, functions_in_float64

rng = np.random.default_rng(7)


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32) * 0.3


def check(model: ModelProto, x: np.ndarray, *, apart: float = 0.002, distinct: int = 4) -> ExactGraph:
    """Every integer tensor equal; the original's own execution differs in at most that share of codes."""
    lowering = lower_model(load_qonnx(model))
    canonical, graph = lowering.canonical, lowering.graph
    assert canonical is not None
    reference = canonical_integers(canonical, {"x": x})
    ours = interpret(graph, encode_inputs(graph, x), keep="all")
    shared = [name for name in reference if name in ours]
    assert {name for name in graph.outputs if graph.producer(name)} <= set(shared)
    for name in shared:
        assert (ours[name] == reference[name]).all(), name
    assert len(np.unique(ours[graph.outputs[0]])) >= distinct
    differences = compare_with_original(lowering, {"x": x})
    assert differences
    for found in differences:
        assert found.differing <= apart * found.codes, found
    return graph


def ops(graph: ExactGraph) -> list[str]:
    return [node.op for node in graph.nodes]


def image_net(*, zero: float = 0.0, signed: int = 1, channels: int = 3, size: int = 6) -> tuple[Net, str]:
    net = Net((channels, size, size))
    return net, net.quant("x", 8, 0.0213, zero=zero, signed=signed, name="first")


def images(channels: int = 3, size: int = 6, count: int = 12) -> np.ndarray:
    return (rng.normal(size=(count, channels, size, size)) * 1.5).astype(np.float32)


CONVOLUTIONS: dict[str, dict[str, Any]] = {
    "plain": {"shape": (4, 3, 3, 3), "options": {}},
    "padded": {"shape": (4, 3, 3, 3), "options": {"pads": [1, 0, 2, 1]}},
    "strided": {"shape": (5, 3, 3, 3), "options": {"strides": [2, 1], "pads": [1, 1, 1, 1]}},
    "dilated": {"shape": (4, 3, 2, 2), "options": {"dilations": [2, 3]}},
    "depthwise": {"shape": (6, 1, 3, 3), "options": {"group": 3}},
}


@pytest.mark.parametrize("zero", [0.0, 117.0])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", sorted(CONVOLUTIONS))
def test_convolution_batch_norm_relu_quantizer(kind, per_channel, zero):
    shape, options = CONVOLUTIONS[kind]["shape"], CONVOLUTIONS[kind]["options"]
    net, x = image_net(zero=zero, signed=int(zero == 0))
    scale = 0.0071 * (1 + np.arange(shape[0])).reshape(-1, 1, 1, 1) if per_channel else 0.0071
    weight = net.quant(weights(*shape), 8, scale, narrow=1)
    y = net.node("Conv", x, weight, weights(shape[0]), name="conv", **options)
    gamma = np.linspace(-0.7, 1.3, shape[0])
    gamma[1] = 0
    variance = np.linspace(0.2, 2, shape[0])
    y = net.node(
        "BatchNormalization", y, gamma, weights(shape[0]), weights(shape[0]) / 3, variance, name="norm"
    )
    y = net.quant(net.node("Relu", y), 6, 0.0173, signed=0, name="act")
    graph = check(net.model(y), images())
    assert ops(graph) == ["Conv", "Threshold"]
    assert [node.name for node in graph.nodes] == ["conv", "act"]


def test_one_spatial_axis():
    net = Net((2, 12))
    x = net.quant("x", 7, 0.031)
    y = net.node("Conv", x, net.quant(weights(3, 2, 3), 5, 0.043), pads=[1, 1])
    y = net.node("MaxPool", net.quant(net.node("Relu", y), 5, 0.057, signed=0), kernel_shape=[2], strides=[2])
    y = net.quant(net.node("AveragePool", y, kernel_shape=[3], strides=[1]), 6, 0.0191)
    assert ops(check(net.model(y), rng.normal(size=(9, 2, 12)).astype(np.float32))) == [
        "Conv",
        "Threshold",
        "MaxPool",
        "SumPool",
        "Threshold",
    ]


def test_quantised_bias_on_the_accumulator_grid_is_an_integer():
    net, x = image_net()
    scale = np.float32(0.0213) * np.float32(0.0071)
    bias = net.quant(weights(4), 16, scale)
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), bias, name="conv")
    graph = check(net.model(net.quant(y, 8, 0.019)), images())
    assert len(graph.nodes[0].inputs) == 3


def test_output_without_quantizer_is_the_accumulator_with_scale_and_offset():
    net = Net((20,))
    x = net.quant("x", 8, 0.0213)
    bias = weights(5)
    weight = net.quant(weights(20, 5), 4, 0.0613 * (1 + np.arange(5)))
    y = net.node("Add", net.node("MatMul", x, weight, name="fc"), bias)
    samples = rng.normal(size=(30, 20)).astype(np.float32)
    graph = check(net.model(y), samples)
    scale = graph.output_scales[graph.outputs[0]]
    assert np.allclose(scale.scale, 0.0213 * 0.0613 * (1 + np.arange(5)), rtol=1e-6)
    assert np.allclose(scale.offset, bias, rtol=1e-6)


def test_gemm_with_and_without_bias():
    for bias in ([], [weights(5)]):
        net = Net((7,))
        weight = net.quant(weights(5, 7), 8, 0.0031 * (1 + np.arange(5)).reshape(-1, 1))
        y = net.node("Gemm", net.quant("x", 8, 0.0213), weight, *bias, transB=1)
        check(net.model(net.quant(y, 8, 0.01)), rng.normal(size=(30, 7)).astype(np.float32))


def test_integer_bias_of_a_matrix_product_goes_into_it():
    net = Net((7,))
    scale = np.float32(0.0213) * np.float32(0.0031)
    y = net.node("MatMul", net.quant("x", 8, 0.0213), net.quant(weights(7, 5), 8, 0.0031))
    y = net.node("Add", y, net.quant(weights(5), 16, scale))
    graph = check(net.model(net.quant(y, 8, 0.01)), rng.normal(size=(30, 7)).astype(np.float32))
    assert ops(graph) == ["MatMul", "Threshold"]


def test_scales_per_channel_of_the_last_axis():
    net = Net((4, 6))
    weight = net.quant(weights(6, 5), 8, 0.0031 * (1 + np.arange(5)))
    y = net.node("Add", net.node("MatMul", net.quant("x", 8, 0.0213), weight), weights(5))
    graph = check(net.model(net.quant(y, 6, 0.03)), rng.normal(size=(9, 4, 6)).astype(np.float32))
    assert ops(graph) == ["MatMul", "Transpose", "Threshold", "Transpose"]


def test_both_operands_of_a_matrix_product_computed():
    net = Net((4, 6))
    a = net.quant("x", 5, 0.113)
    b = net.node("Transpose", a, perm=[0, 2, 1])
    y = net.quant(net.node("MatMul", a, b), 6, 0.27)
    check(net.model(y), rng.normal(size=(9, 4, 6)).astype(np.float32))


@pytest.mark.parametrize("op", ["Add", "Sum"])
@pytest.mark.parametrize("shared", [True, False])
def test_residual_add(shared, op):
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(3, 3, 3, 3), 8, 0.0071), pads=[1, 1, 1, 1])
    scale = 0.0411
    left, right = net.quant(y, 7, scale), net.quant(x, 7, scale if shared else 4 * scale)
    y = net.quant(net.node("Relu", net.node(op, left, right, name="sum")), 7, 0.0377, signed=0)
    graph = check(net.model(y), images())
    assert "Table" not in ops(graph)


def test_add_of_different_scales_is_a_table_while_codes_are_short():
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(3, 3, 3, 3), 8, 0.0071), pads=[1, 1, 1, 1])
    y = net.node("Add", net.quant(y, 4, 0.211), net.quant(x, 5, 0.143))
    assert ops(check(net.model(net.quant(y, 5, 0.177)), images())).count("Table") == 1


def test_add_of_different_scales_is_refused_where_the_table_would_be_too_large():
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(3, 3, 3, 3), 8, 0.0071), pads=[1, 1, 1, 1])
    y = net.quant(net.node("Add", y, x, name="sum"), 8, 0.177, name="after")
    message = refusal(net.model(y))
    assert "'after': it joins two tensors of different scales (Mul → Mul → Add → Div → Quant)" in message
    assert "one shared quantizer" in message


def test_element_wise_product_of_two_tensors():
    net, x = image_net()
    gate = net.quant(net.node("Sigmoid", x), 6, 0.0157, signed=0)
    check(net.model(net.quant(net.node("Mul", gate, net.quant(x, 5, 0.11)), 6, 0.05)), images())


def test_silu_of_one_integer_is_a_table():
    net, x = image_net()
    y = net.quant(net.node("Mul", x, net.node("Sigmoid", x)), 6, 0.05)
    assert ops(lower(net.model(y))) == ["Table"]


def test_max_pool_before_the_quantizer_moves_behind_it():
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), weights(4))
    y = net.node("MaxPool", y, kernel_shape=[2, 2], strides=[1, 1], name="pool")
    y = net.node("Relu", net.node("Add", y, weights(4, 1, 1)))
    y = net.node("Flatten", y, axis=1)
    graph = check(net.model(net.quant(y, 6, 0.041, signed=0)), images())
    assert ops(graph) == ["Conv", "Threshold", "MaxPool", "Reshape"]


def test_max_pool_in_front_of_a_falling_operation_is_taken_of_the_sums() -> None:
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), weights(4))
    y = net.node("Neg", net.node("MaxPool", y, kernel_shape=[2, 2], name="pool"), name="minus")
    assert ops(check(net.model(net.quant(y, 6, 0.041)), images())) == ["Conv", "MaxPool", "Threshold"]


def test_max_pool_between_falling_operations_is_refused() -> None:
    net, x = image_net()
    y = net.node("Neg", net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), weights(4)))
    y = net.node("Neg", net.node("MaxPool", y, kernel_shape=[2, 2], name="pool"), name="minus")
    assert "'minus'" in (message := refusal(net.model(net.quant(y, 6, 0.041))))
    assert "follows MaxPool 'pool'" in message


def test_a_sigmoid_is_the_same_wherever_it_is_computed() -> None:
    """Far below 0 it is 1e-8; rounded up, that is a code of its own. ONNX Runtime gives 0."""
    net = Net((8,))
    x = net.quant("x", 8, 0.25)
    y = net.quant(net.node("Sigmoid", x), 4, 0.0667, signed=0, rounding="CEIL")
    check(net.model(y), np.linspace(-32, 32, 400, dtype=np.float32).reshape(50, 8), apart=0.5)


def test_global_average_pool_and_reduce_mean():
    for pool in (
        lambda net, x: net.node("GlobalAveragePool", x),
        lambda net, x: net.node("ReduceMean", x, axes=[2, 3], keepdims=1),
        lambda net, x: net.node(
            "AveragePool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1
        ),
    ):
        net, x = image_net(zero=100.0, signed=0)
        check(net.model(net.quant(pool(net, x), 8, 0.0031)), images())


def test_an_unquantised_average_feeds_a_matrix_product_as_a_sum():
    net, x = image_net()
    y = net.node("Flatten", net.node("GlobalAveragePool", x), axis=1)
    y = net.node("MatMul", y, net.quant(weights(3, 4), 8, 0.0031))
    assert ops(check(net.model(y), images())) == ["SumPool", "Reshape", "MatMul"]


def test_relu_without_quantizer_stays_an_integer():
    net, x = image_net()
    y = net.node("Conv", net.node("Relu", x), net.quant(weights(4, 3, 1, 1), 8, 0.0071))
    assert ops(check(net.model(net.quant(y, 6, 0.031)), images())) == ["Requant", "Conv", "Threshold"]


def test_movements():
    net, x = image_net()
    a = net.node("Slice", x, constant_int(net, 1), constant_int(net, 3), constant_int(net, 1))
    b = net.node("Transpose", x, perm=[0, 1, 3, 2])
    y = net.node("Concat", a, b, axis=1)
    pads = net.constant([0, 0, 1, 0, 0, 0, 2, 1], dtype=np.int64)
    y = net.node("Pad", y, pads)
    left, right = net.node("Split", y, net.constant([2, 3], dtype=np.int64), axis=1, outputs=2)
    y = net.node("ReduceSum", right, constant_int(net, 1), keepdims=1)
    y = net.node("MaxPool", y, kernel_shape=[2, 2])
    outputs = net.quant(y, 7, 0.041), net.quant(left, 3, 0.37)
    check(net.model(*outputs), images())


def constant_int(net: Net, value: int) -> str:
    return net.constant([value], dtype=np.int64)


def test_concat_of_different_scales_keeps_a_scale_per_channel():
    net, x = image_net()
    a, b = net.quant(x, 5, 0.113), net.quant(net.node("Relu", x), 6, 0.037, signed=0)
    y = net.quant(net.node("Concat", a, b, axis=1), 6, 0.053)
    graph = check(net.model(y), images())
    assert ops(graph)[-2:] == ["Concat", "Threshold"]


def test_depthwise_convolution_of_a_scale_per_channel():
    net, x = image_net()
    a = net.quant(x, 6, np.reshape([0.051, 0.083, 0.031], (1, 3, 1, 1)))
    y = net.node("Conv", a, net.quant(weights(6, 1, 3, 3), 6, 0.0171), group=3)
    check(net.model(net.quant(y, 6, 0.031)), images())


def trunc(net: Net, x: str, *parameters: Any, **options: Any) -> str:
    return net.node("Trunc", x, *parameters, domain=QONNX, **options)


@pytest.mark.parametrize("rounding", ["FLOOR", "ROUND", "CEIL"])
@pytest.mark.parametrize("version", [1, 2])
def test_trunc(version, rounding):
    net, x = image_net()
    y = net.node("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    scale = np.float32(0.0213) / 4
    if version == 1:
        y = trunc(net, y, scale, 0.0, 10.0, 8.0, rounding_mode=rounding)
    else:
        y = trunc(net, y, scale, 0.0, 10.0, 4 * scale, 8.0, rounding_mode=rounding, signed=1, narrow=0)
    check(net.model(y, opsets={QONNX: version}), images())


@pytest.mark.parametrize(("scale", "bias"), [(0.21, 0.0), (0.5, -2.5), (2.0, -1.0)])
def test_multi_threshold(scale, bias):
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), weights(4))
    count = 1 if scale == 2.0 else 7
    steps = np.sort(np.random.default_rng(3).normal(size=(4, count)), axis=1)
    y = net.node(
        "MultiThreshold", y, steps, domain=QONNX, out_dtype="INT8", out_scale=scale, out_bias=bias, name="act"
    )
    assert ops(check(net.model(y), images(), distinct=2)) == ["Conv", "Threshold"]


def test_binary_weights_and_activations():
    net, x = image_net()
    y = net.node("Conv", x, net.node("BipolarQuant", weights(4, 3, 3, 3), 0.1, domain=QONNX))
    y = net.node("BatchNormalization", y, [1.0, -1, 0.5, 2], weights(4), weights(4), [1.0, 2, 3, 4])
    y = net.node("BipolarQuant", y, 0.7, domain=QONNX)
    y = net.node("Conv", y, net.node("BipolarQuant", weights(2, 4, 1, 1), 0.3, domain=QONNX))
    graph = check(net.model(y), images())
    assert str(graph.tensors[graph.nodes[1].output].format) == "int2"


@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL", "UP", "DOWN", "HALF_UP", "HALF_DOWN"])
@pytest.mark.parametrize("op", ["Quant", "IntQuant"])
def test_roundings(rounding, op):
    net, x = image_net()
    y = net.quant(net.node("Add", x, [[[0.1]], [[0.2]], [[-0.3]]]), 5, 0.0213 * 6, rounding=rounding, op=op)
    check(net.model(y), images())


def test_fixed_point_quantizers_with_wrap_in_a_model_of_arbitrary_scales():
    net, x = image_net()
    y = net.fixed_quant(net.node("Mul", x, 0.77), 6, 2, overflow="WRAP", rounding="RND")
    y = net.node("Conv", y, net.quant(weights(4, 3, 1, 1), 8, 0.0071))
    graph = check(net.model(net.quant(y, 6, 0.031)), images())
    assert ops(graph) == ["Table", "Conv", "Threshold"]


def test_integer_pixels_with_normalisation_in_the_graph():
    net = Net((3, 6, 6))
    net.annotations["x"] = "UINT8"
    y = net.node("Div", net.node("Sub", net.node("Mul", "x", 1 / 255), 0.449), 0.226)
    y = net.quant(y, 8, 0.0203)
    y = net.node("Conv", y, net.quant(weights(4, 3, 3, 3), 8, 0.0071))
    pixels = rng.integers(0, 256, (8, 3, 6, 6)).astype(np.float32)
    graph = check(net.model(net.quant(y, 6, 0.2)), pixels)
    assert ops(graph) == ["Table", "Conv", "Threshold"]
    assert graph.input_encodings["x"].exact


@pytest.mark.parametrize("element", [TensorProto.UINT8, TensorProto.INT8])
def test_integer_inputs_behind_a_cast_are_executed_as_the_floats_they_become(element: int):
    """The normal form drops the Cast; what executes the model must not hand integers to a Div."""
    net = Net((3, 6, 6), dtype=element)
    y = net.node("Div", net.node("Cast", "x", to=TensorProto.FLOAT), 255.0)
    y = net.node("Conv", net.quant(y, 8, 0.0203), net.quant(weights(4, 3, 3, 3), 8, 0.0071))
    low = 0 if element == TensorProto.UINT8 else -128
    pixels = rng.integers(low, low + 256, (8, 3, 6, 6)).astype(np.float32)
    graph = check(net.model(net.quant(y, 6, 0.05)), pixels)
    assert ops(graph) == ["Table", "Conv", "Threshold"]


@pytest.mark.parametrize(
    "activation",
    [
        lambda net, x: net.node("LeakyRelu", x, alpha=0.07),
        lambda net, x: net.node("Clip", x, 0.0, 6.0),
        lambda net, x: net.node("HardSigmoid", x, alpha=0.21, beta=0.4),
        lambda net, x: net.node("PRelu", x, np.reshape([0.1, 0.2, 0.3, 0.4], (4, 1, 1))),
        lambda net, x: net.node("Neg", x),
        lambda net, x: net.node("Div", net.node("Sub", 0.3, x), -0.2),
    ],
)
def test_activations_become_thresholds(activation: Callable[[Net, str], str]):
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), weights(4))
    graph = check(net.model(net.quant(activation(net, y), 7, 0.0171)), images())
    assert ops(graph) == ["Conv", "Threshold"]


def test_a_quantizer_that_changes_nothing_leaves_no_node():
    net, x = image_net()
    y = net.quant(x, 8, 0.0213)
    assert ops(check(net.model(net.node("MaxPool", y, kernel_shape=[2, 2])), images())) == ["MaxPool"]


def test_an_unquantised_tensor_may_have_two_quantizers():
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), weights(4))
    outputs = net.quant(y, 7, 0.0171), net.quant(net.node("Relu", y), 3, 0.31, signed=0)
    assert ops(check(net.model(*outputs), images())) == ["Conv", "Threshold", "Threshold"]


def test_equals_the_lowering_by_shifts_where_scales_are_powers_of_two():
    net = Net((3, 6, 6))
    x = net.quant("x", 8, 2.0**-5)
    bias = net.quant(weights(4), 16, 2.0**-12)
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 2.0**-7), bias, pads=[1, 1, 1, 1])
    gain, offset = (net.quant(weights(4, 1, 1) * 3, 8, 2.0**-6) for _ in range(2))
    y = net.node("Add", net.node("Mul", y, gain), offset)
    y = net.quant(net.node("Relu", y), 6, 2.0**-4, signed=0, rounding="HALF_UP")
    y = net.node("MaxPool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2])
    y = net.quant(net.node("AveragePool", y, kernel_shape=[2, 2]), 7, 2.0**-5, rounding="FLOOR")
    model = load_qonnx(net.model(y))
    shifts = lower_model(model)
    assert shifts.canonical is None
    assert {"Requant", "Threshold"} & set(ops(shifts.graph)) == {"Requant"}
    x = images(count=40)
    ours = interpret(shifts.graph, encode_inputs(shifts.graph, x), keep="all")
    file = write_canonical(shifts.graph, {}, model)
    reference = canonical_integers(file, {"x": x})
    for name in reference.keys() & ours.keys():
        assert (reference[name] == ours[name]).all(), name
    assert {node.name for node in shifts.graph.nodes} <= set(reference)
    assert len(np.unique(ours[shifts.graph.outputs[0]])) > 20


def test_the_canonical_file_is_repeatable_and_leaves_the_original_alone(tmp_path):
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), weights(4))
    model = load_qonnx(net.model(net.quant(y, 7, 0.0171)))
    before = model.model.SerializeToString(deterministic=True)
    first = lower_model(model)
    one, two = first.canonical, lower_model(model).canonical
    assert one is not None
    assert two is not None
    assert model.model.SerializeToString(deterministic=True) == before
    assert one.model.SerializeToString(deterministic=True) == two.model.SerializeToString(deterministic=True)
    assert is_canonical(one)
    assert not is_canonical(model)
    one.save(str(tmp_path / "canonical.onnx"))
    again = lower(tmp_path / "canonical.onnx")
    assert graph_hash(again) == graph_hash(lower(ModelWrapper(str(tmp_path / "canonical.onnx"))))
    x = images()
    codes = [interpret(g, encode_inputs(g, x))[g.outputs[0]] for g in (again, first.graph)]
    assert (codes[0] == codes[1]).all()


def refusal(model: ModelProto) -> str:
    with pytest.raises(UnsupportedError) as error:
        lower(model)
    return str(error.value)


def convolved(net: Net, x: str, weight: Any) -> str:
    return net.quant(net.node("Conv", x, weight, name="conv"), 8, 0.03, name="act")


def _unquantised_weights() -> tuple[str, ModelProto]:
    net, x = image_net()
    return "Conv 'conv': 'c", net.model(convolved(net, x, weights(4, 3, 3, 3)))


def _unquantised_input() -> tuple[str, ModelProto]:
    net = Net((3, 6, 6))
    return "Conv 'conv': it reads the float input 'x' without a quantizer", net.model(
        convolved(net, "x", net.quant(weights(4, 3, 3, 3), 8, 0.0071))
    )


def _scale_per_input_channel() -> tuple[str, ModelProto]:
    net, x = image_net()
    x = net.quant(x, 6, np.reshape([0.051, 0.083, 0.031], (1, 3, 1, 1)))
    return "Conv 'conv': it sums over channels that have 3 different scales", net.model(
        convolved(net, x, net.quant(weights(4, 3, 3, 3), 8, 0.0071))
    )


def _weight_scale_per_input_channel() -> tuple[str, ModelProto]:
    net, x = image_net()
    weight = net.quant(weights(4, 3, 3, 3), 8, np.reshape([0.051, 0.083, 0.031], (1, 3, 1, 1)))
    return "Conv 'conv': its weights have scales of shape", net.model(convolved(net, x, weight))


def _fractional_zero_point() -> tuple[str, ModelProto]:
    net, x = image_net()
    return "Quant 'act': its zero point is 0.5", net.model(net.quant(x, 8, 0.03, zero=0.5, name="act"))


def _negative_scale() -> tuple[str, ModelProto]:
    net, x = image_net()
    return "Quant 'act': its scale is not positive", net.model(net.quant(x, 8, -0.03, name="act"))


def _computed_scale() -> tuple[str, ModelProto]:
    net, x = image_net()
    scale = net.node("ReduceMax", net.node("Abs", x), axes=[1, 2, 3], keepdims=1)
    return "its parameter 'reducemax2_out' is computed", net.model(net.quant(x, 8, scale, name="act"))


def _two_input_quantizers() -> tuple[str, ModelProto]:
    net = Net((3, 6, 6))
    return "it quantises the input 'x' in another way than a quantizer before it", net.model(
        net.quant("x", 8, 0.02), net.quant("x", 7, 0.03)
    )


def _unquantised_pool() -> tuple[str, ModelProto]:
    net, x = image_net()
    y = net.node("Relu", net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), weights(4)))
    y = net.node("AveragePool", y, kernel_shape=[2, 2], name="pool")
    return (
        "AveragePool 'pool': it reads 'relu3_out', which is not quantised (after Mul → Add → Relu)",
        net.model(net.quant(y, 8, 0.03)),
    )


def _output_activation() -> tuple[str, ModelProto]:
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 8, 0.0071), weights(4))
    return "is computed in float (Mul → Add → Softplus)", net.model(net.node("Softplus", y))


def _too_many_codes() -> tuple[str, ModelProto]:
    net, x = image_net()
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 16, 1.1e-5))
    return "'act' (Mul → Div → Quant) tells", net.model(net.quant(y, 20, 1.3e-6, name="act"))


def _absurd_width() -> tuple[str, ModelProto]:
    net, x = image_net()
    return "Quant 'act': its bit width is 1e+09", net.model(net.quant(x, 1e9, 0.03, name="act"))


def _variance() -> tuple[str, ModelProto]:
    net, x = image_net()
    y = net.node("BatchNormalization", x, [1.0] * 3, [0.0] * 3, [0.0] * 3, [1.0, -1, 1], name="norm")
    return "BatchNormalization 'norm': its variances are not positive", net.model(net.quant(y, 8, 0.03))


@pytest.mark.parametrize(
    "case",
    [
        _unquantised_weights,
        _unquantised_input,
        _scale_per_input_channel,
        _weight_scale_per_input_channel,
        _fractional_zero_point,
        _negative_scale,
        _computed_scale,
        _two_input_quantizers,
        _unquantised_pool,
        _output_activation,
        _too_many_codes,
        _absurd_width,
        _variance,
    ],
)
def test_refused_by_name(case: Callable[[], tuple[str, ModelProto]]):
    expected, model = case()
    assert expected in refusal(model)


@pytest.mark.parametrize("divided", [False, True])
def test_a_layer_norm_of_quantised_pieces(divided: bool) -> None:
    """Mean, variance and the quotient, each behind a quantizer: squares are not negative, and 1 divides 8."""
    net = Net((8,))
    x = net.quant("x", 6, 0.11)
    centred = net.quant(net.node("Sub", x, net.node("ReduceMean", x, axes=[1], keepdims=1)), 6, 0.0931)
    variance = net.node("ReduceMean", net.node("Mul", centred, centred), axes=[1], keepdims=1)
    deviation = net.node("Sqrt", net.node("Add", variance, np.float32(0.05)))
    if divided:
        positive = net.node("Max", net.quant(deviation, 6, 0.07, signed=0), np.float32(0.07))
        y = net.node("Div", centred, positive)
    else:
        y = net.node("Mul", centred, net.quant(net.node("Reciprocal", deviation), 6, 0.07, signed=0))
    samples = (np.random.default_rng(3).normal(size=(200, 8)) * 1.3).astype(np.float32)
    graph = check(net.model(net.quant(y, 5, 0.13)), samples)
    assert "Mul" in ops(graph)


def test_where_numbers_of_a_tail_end_is_said() -> None:
    net = Net((8,))
    y = net.quant(net.node("Sqrt", net.quant("x", 5, 0.1)), 5, 0.1, name="last")
    with pytest.raises(UnsupportedError, match=r"'last' .*: Sqrt of -1\.6 is no finite number") as error:
        lower(net.model(y))
    assert "Relu" in str(error.value)
    unsigned = Net((8,))
    root = unsigned.node("Sqrt", unsigned.quant("x", 5, 0.1, signed=0))
    check(
        unsigned.model(unsigned.quant(root, 5, 0.1)),
        np.abs(np.random.default_rng(5).normal(size=(96, 8))).astype(np.float32),
    )


@pytest.mark.parametrize(
    "scales", [(0.25, 0.25), (0.25, 0.125), (0.0071, 0.0071), (0.0071, 0.25), (0.0071, 0.0113)]
)
@pytest.mark.parametrize("op", ["Conv", "MatMul"])
def test_a_weight_may_be_joined_from_quantised_parts(op: str, scales: tuple[float, float]) -> None:
    """Of one scale, of two, each of any sort: one weight with a scale per output channel."""
    net = Net((3, 6, 6) if op == "Conv" else (8,))
    x, axis = net.quant("x", 6, 0.11), 0 if op == "Conv" else 1
    shapes = ((2, 3, 3, 3), (3, 3, 3, 3)) if op == "Conv" else ((8, 2), (8, 3))
    parts = [net.quant(weights(*shape) * 3, 5, scale) for shape, scale in zip(shapes, scales, strict=True)]
    y = net.node(op, x, net.node("Concat", *parts, axis=axis))
    shape = (12, 3, 6, 6) if op == "Conv" else (100, 8)
    samples = (np.random.default_rng(5).normal(size=shape) * 1.5).astype(np.float32)
    graph = check(net.model(net.quant(y, 6, 0.171)), samples, apart=0.01)
    assert ops(graph) == [op, "Threshold"]


def test_constants_that_are_not_quantised_are_no_weight_when_joined() -> None:
    net = Net((8,))
    whole = net.node("Concat", net.quant(weights(8, 2), 4, 0.0071), weights(8, 3), axis=1)
    y = net.node("MatMul", net.quant("x", 6, 0.11), whole, name="last")
    with pytest.raises(UnsupportedError, match=r"'last'.* is not a quantised constant"):
        lower(net.model(net.quant(y, 6, 0.171)))


def test_functions_that_are_not_left_to_float32_kernels_are_named() -> None:
    net, x = image_net()
    y = net.quant(net.node("Tanh", net.quant(net.node("Sigmoid", x), 6, 0.0157, signed=0)), 6, 0.03)
    canonical = lower_model(load_qonnx(net.model(y))).canonical
    assert canonical is not None
    assert functions_in_float64(canonical) == ["Sigmoid", "Tanh"]
    plain, x = image_net()
    other = lower_model(load_qonnx(plain.model(plain.quant(plain.node("Relu", x), 6, 0.0157)))).canonical
    assert other is not None
    assert functions_in_float64(other) == []
