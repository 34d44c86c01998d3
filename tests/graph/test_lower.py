"""The exact graph computes what qonnx executes: codes of every supported operator, zero tolerance."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto
from qonnx_factory import Net, execute

from qhw.errors import UnsupportedError
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import canonical_reason, lower

BATCH = 3
RNG = np.random.default_rng


def check(
    model: ModelProto, shape: Sequence[int], *, integers: tuple[int, int] | None = None, seed: int = 0
) -> ExactGraph:
    """Lower a model and compare every output with qonnx's execution, exactly, on random inputs."""
    rng = RNG(seed)
    if integers is None:
        x = rng.normal(scale=1.5, size=(BATCH, *shape)).astype(np.float32)
    else:
        x = rng.integers(integers[0], integers[1] + 1, size=(BATCH, *shape)).astype(np.float32)
    graph = lower(model)
    result = interpret(graph, encode_inputs(graph, x))
    for name, expected in zip(graph.outputs, execute(model, x), strict=True):
        values = decode_output(graph, name, result[name])
        assert values.shape == expected.shape
        np.testing.assert_array_equal(values, expected)
        assert len(np.unique(values)) > 1
    return graph


def ops(graph: ExactGraph) -> list[str]:
    return [node.op for node in graph.nodes]


def image(
    channels: int = 3, size: int = 6, *, bits: int = 6, scale: float = 2.0**-4, **options: object
) -> tuple[Net, str]:
    """A net whose input (channels, size, size) is quantised."""
    net = Net((channels, size, size), **options)
    return net, net.quant(net.x, bits, scale)


def weight(net: Net, *shape: int, bits: int = 4, exponent: int = -2, seed: int = 1) -> str:
    return net.quant(RNG(seed).normal(size=shape), bits, 2.0**exponent)


def finish(net: Net, y: str, bits: int = 8, scale: float = 2.0**-2, **options: object) -> ModelProto:
    return net.model(net.quant(y, bits, scale, **options))


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((4, 3, 3, 3), {}),
        ((4, 3, 3, 3), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ((4, 3, 3, 2), {"pads": [0, 1, 2, 0], "strides": [1, 2]}),
        ((4, 3, 2, 2), {"dilations": [2, 3]}),
        ((3, 1, 3, 3), {"group": 3, "pads": [1, 1, 1, 1]}),
        ((6, 1, 3, 3), {"group": 3}),
        ((4, 3, 1, 1), {}),
        ((4, 3, 3, 3), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((4, 3, 2, 2), {"auto_pad": "SAME_LOWER"}),
        ((4, 3, 2, 2), {"auto_pad": "VALID"}),
    ],
)
def test_convolution(shape: tuple[int, ...], options: dict[str, object]) -> None:
    net, x = image()
    bias = net.quant(RNG(2).normal(size=shape[0]), 6, 2.0**-3)
    check(finish(net, net.node("Conv", x, weight(net, *shape), bias, **options)), (3, 6, 6))


@pytest.mark.parametrize("options", [{}, {"strides": [2], "pads": [2, 1], "dilations": [2]}, {"group": 2}])
def test_convolution_over_one_axis(options: dict[str, object]) -> None:
    net = Net((4, 12))
    x = net.quant(net.x, 6, 2.0**-4)
    depth = 4 // int(options.get("group", 1))
    check(finish(net, net.node("Conv", x, weight(net, 6, depth, 3), **options)), (4, 12))


def test_scales_per_channel_become_exponents_per_axis() -> None:
    net, x = image()
    scale = 2.0 ** np.array([-1, -4, -2, -3]).reshape(4, 1, 1, 1)
    w = net.quant(RNG(1).normal(size=(4, 3, 3, 3)), 4, scale)
    y = net.node("Conv", x, w, net.quant(RNG(2).normal(size=4), 6, 2.0 ** np.array([-3, -1, -2, -5])))
    y = net.quant(y, 8, 2.0 ** np.array([-2, -3, -2, -1]).reshape(1, 4, 1, 1))
    y2 = net.node("Conv", y, weight(net, 2, 4, 1, 1))
    graph = check(net.model(y, y2), (3, 6, 6))
    assert graph.tensors[graph.outputs[0]].exponent.values == (-2, -3, -2, -1)
    assert graph.tensors[graph.outputs[0]].exponent.axis == 0


def test_linear_with_scales_per_channel() -> None:
    net = Net((7,))
    x = net.quant(net.x, 6, 2.0**-4)
    w = net.quant(RNG(1).normal(size=(5, 7)), 5, 2.0 ** np.array([-2, -1, -3, -2, -4]).reshape(5, 1))
    y = net.node("Gemm", x, w, net.quant(RNG(2).normal(size=5), 6, 2.0**-3), transB=1)
    graph = check(net.model(y), (7,))
    assert ops(graph) == ["MatMul"]
    assert len(graph.nodes[0].inputs) == 3


@pytest.mark.parametrize("options", [{}, {"alpha": 0.5, "beta": 2.0}, {"alpha": -3.0}])
def test_gemm(options: dict[str, float]) -> None:
    net = Net((7,))
    x = net.quant(net.x, 6, 2.0**-4)
    bias = net.quant(RNG(2).normal(size=5), 6, 2.0**-3)
    check(finish(net, net.node("Gemm", x, weight(net, 7, 5), bias, **options)), (7,))


def test_gemm_without_bias_and_shared_weights() -> None:
    net = Net((6,))
    x = net.quant(net.x, 6, 2.0**-4)
    w = weight(net, 6, 6)
    y = net.quant(net.node("Gemm", x, w, transB=1), 6, 0.25)
    graph = check(finish(net, net.node("Gemm", y, w)), (6,))
    assert ops(graph) == ["MatMul", "Requant", "MatMul", "Requant"]


def test_attention_multiplies_computed_operands() -> None:
    net = Net((5, 8))
    x = net.quant(net.x, 5, 2.0**-3)
    q, k = (net.quant(net.node("MatMul", x, weight(net, 8, 6, seed=s)), 5, 0.25) for s in (1, 2))
    scores = net.node("MatMul", q, net.node("Transpose", k, perm=[0, 2, 1]))
    y = net.node("MatMul", net.quant(scores, 5, 0.5), q)
    check(finish(net, y), (5, 8))


def test_constant_left_operand() -> None:
    net = Net((5, 4))
    x = net.quant(net.x, 5, 2.0**-3)
    check(finish(net, net.node("MatMul", weight(net, 3, 5), x)), (5, 4))
    net = Net((5, 4))
    x = net.quant(net.x, 5, 2.0**-3)
    check(finish(net, net.node("MatMul", x, weight(net, 1, 4, 3))), (5, 4))


@pytest.mark.parametrize("narrow", [0, 1])
@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL", "UP", "DOWN", "HALF_UP", "HALF_DOWN"])
@pytest.mark.parametrize("zero", [0.0, 2.0, 3.0])
def test_quantizers(rounding: str, signed: int, narrow: int, zero: float) -> None:
    net = Net((40,))
    x = net.quant(net.x, 8, 2.0**-5, rounding=rounding)
    options = {"signed": signed, "narrow": narrow, "rounding": rounding, "zero": zero}
    y = net.quant(x, 4, 2.0**-2, **options)
    z = net.quant(net.node("Relu", x), 4, 2.0**-2, **options)
    check(net.model(y, z), (40,))


@pytest.mark.parametrize("zero", [0.0, 5.0])
def test_constants_are_quantised_by_the_same_rules(zero: float) -> None:
    values = np.concatenate([RNG(3).normal(size=30), np.arange(-10, 10) / 8])
    for rounding in ("ROUND", "FLOOR", "UP", "HALF_UP", "HALF_DOWN"):
        net = Net((50,))
        x = net.quant(net.x, 4, 0.25)
        y = net.node("Add", x, net.quant(values, 4, 0.25, rounding=rounding, zero=zero, narrow=1))
        check(net.model(y), (50,))


def test_float_input_with_zero_point_is_encoded() -> None:
    net = Net((30,))
    graph = check(net.model(net.quant(net.x, 6, 2.0**-3, zero=11.0, signed=0)), (30,))
    assert ops(graph) == []
    encoding = graph.input_encodings["x"]
    assert (encoding.scale, encoding.zero_point, encoding.low, encoding.high) == (0.125, 11.0, 0, 63)


@pytest.mark.parametrize("op", ["Quant", "IntQuant"])
def test_scales_and_zero_points_per_channel(op: str) -> None:
    scale, zero = 2.0 ** -np.array([1, 2, 3, 2]), np.array([0, 3, 7, 12])
    net, x = image(channels=4)
    across = (1, 4, 1, 1)
    y = net.quant(x, 4, scale.reshape(across), zero=zero.reshape(across), signed=0, op=op)
    filters = (4, 1, 1, 1)
    values = RNG(1).normal(size=(4, 4, 3, 3))
    w = net.quant(values, 4, scale.reshape(filters), zero=zero.reshape(filters) - 4, op=op)
    check(net.model(y, net.quant(net.node("Conv", y, w), 9, 0.25)), (4, 6, 6))


def test_one_bit_and_bipolar_quantizers() -> None:
    net = Net((30,))
    x = net.quant(net.x, 6, 2.0**-3)
    y = net.quant(x, 1, 0.5)
    z = net.node("BipolarQuant", x, 0.25, domain="onnx.brevitas")
    w = net.node("BipolarQuant", RNG(1).normal(size=(30, 4)), 0.5, domain="qonnx.custom_op.general")
    graph = check(net.model(y, net.node("MatMul", z, w), net.quant(x, 1, 0.5, signed=0)), (30,))
    assert ops(graph).count("Threshold") == 2


def test_relu_is_taken_over_by_its_quantizer() -> None:
    net, x = image()
    y = net.node("Relu", net.node("Conv", x, weight(net, 4, 3, 3, 3)))
    graph = check(
        net.model(net.quant(y, 4, 0.25), net.quant(y, 4, 0.25, signed=0, rounding="FLOOR")), (3, 6, 6)
    )
    assert ops(graph) == ["Conv", "Requant", "Requant"]
    assert [str(graph.tensors[o].format) for o in graph.outputs] == ["uint3", "uint4"]


def test_a_relu_that_is_read_twice_is_carried_out_once() -> None:
    net, x = image()
    relu = net.node("Relu", net.node("Conv", x, weight(net, 3, 3, 1, 1)))
    graph = check(
        net.model(net.node("Add", relu, x), net.node("MaxPool", relu, kernel_shape=[2, 2])), (3, 6, 6)
    )
    assert ops(graph) == ["Conv", "Requant", "Add", "MaxPool"]


def test_free_standing_relu_and_clip() -> None:
    net, x = image()
    relu = net.node("Relu", x)
    clip = net.node("Clip", x, -0.375, 1.0)
    fine = net.node("Clip", x, 0.015625, 0.7578125)
    graph = check(net.model(relu, clip, fine, net.node("MaxPool", relu, kernel_shape=[2, 2])), (3, 6, 6))
    assert ops(graph).count("Requant") == 3  # the move to the last Clip's finer grid is in that Clip


@pytest.mark.parametrize("scale", [2.0**-3, 2.0, 4.0])
@pytest.mark.parametrize("rounding", ["ROUND", "FLOOR", "CEIL"])
def test_relu6_bounds_are_rounded_onto_the_quantizers_grid(scale: float, rounding: str) -> None:
    net = Net((60,))
    x = net.quant(net.x, 8, 2.0**-3)
    y = net.quant(net.node("Clip", net.node("Mul", x, 4.0), 0.0, 6.0), 8, scale, signed=0, rounding=rounding)
    graph = check(net.model(y), (60,))
    assert ops(graph) == ["Affine", "Requant"]


def test_clip_with_old_attributes_and_open_bounds() -> None:
    net = Net((40,), opset=9)
    x = net.quant(net.x, 6, 2.0**-3)
    y = net.node("Clip", x, max=0.5)
    check(net.model(net.quant(y, 5, 0.125), net.node("Clip", x, min=-0.25, max=0.5)), (40,))
    net = Net((40,))
    x = net.quant(net.x, 6, 2.0**-3)
    check(net.model(net.node("Clip", x, "", 0.5), net.node("Clip", x, -np.inf, 0.25)), (40,))


@pytest.mark.parametrize("alpha", [0.125, 0.5, 0.0, 0.375])
def test_leaky_relu(alpha: float) -> None:
    net, x = image()
    y = net.node("LeakyRelu", x, alpha=alpha)
    check(net.model(net.quant(y, 4, 0.25), y), (3, 6, 6))


def test_prelu_per_channel() -> None:
    net, x = image()
    slopes = np.array([0.5, 0.125, 0.25]).reshape(3, 1, 1)
    check(net.model(net.node("PRelu", x, slopes)), (3, 6, 6))


def test_leaky_relu_of_nothing_negative_is_nothing() -> None:
    net = Net((20,))
    x = net.quant(net.x, 4, 0.25, signed=0)
    assert ops(check(net.model(net.node("LeakyRelu", x, alpha=0.3)), (20,))) == []


def batch_norm(net: Net, x: str, channels: int, rank: int = 4) -> str:
    shape = (1, channels, *[1] * (rank - 2))
    scaled = net.node(
        "Mul", x, net.quant(RNG(5).normal(size=shape), 6, 2.0 ** -np.arange(2, 2 + channels).reshape(shape))
    )
    return net.node("Add", scaled, net.quant(RNG(6).normal(size=shape), 6, 2.0**-4))


def test_batch_norm_as_the_exporter_writes_it() -> None:
    net, x = image()
    y = batch_norm(net, net.node("Conv", x, weight(net, 4, 3, 3, 3)), 4)
    graph = check(finish(net, net.node("Relu", y), signed=0), (3, 6, 6))
    assert ops(graph) == ["Conv", "Affine", "Requant"]


def test_batch_normalization_node_with_binary_factors() -> None:
    net, x = image()
    gamma, variance = np.array([0.5, -1.25, 2.0]), np.array([0.25, 1.0, 4.0])
    y = net.node(
        "BatchNormalization",
        x,
        gamma,
        np.array([0.5, -0.25, 1.0]),
        np.array([1.0, 0.5, -0.75]),
        variance,
        epsilon=0.0,
    )
    graph = check(net.model(y), (3, 6, 6))
    assert ops(graph) == ["Affine"]


def test_batch_normalization_with_float_factors_is_a_scale_and_an_offset() -> None:
    net, x = image()
    ones = np.ones(3)
    model = net.model(net.node("BatchNormalization", x, ones, ones, ones, ones))
    assert "BatchNormalization 'batchnormalization" in str(canonical_reason(model))
    graph = lower(model)
    assert ops(graph) == []
    gain = np.float64(np.float32(1 / np.sqrt(1 + np.float64(np.float32(1e-5)))))
    assert set(graph.output_scales["x"].scale) == {gain}


def test_residual_add_and_concat() -> None:
    net, x = image()
    a = net.quant(net.node("Conv", x, weight(net, 3, 3, 3, 3), pads=[1, 1, 1, 1]), 6, 2.0**-2)
    b = net.quant(net.node("Relu", x), 4, 2.0**-3, signed=0)
    y = net.node("Add", a, b)
    joined = net.node("Concat", a, b, y, axis=1)
    wide = net.node("Concat", b, b, axis=-1)
    check(
        net.model(net.quant(y, 6, 0.25), joined, wide, net.node("Sum", a, b, x), net.node("Sub", a, b)),
        (3, 6, 6),
    )


def test_concat_of_one_format_needs_no_requant() -> None:
    net, x = image()
    assert ops(check(net.model(net.node("Concat", x, x, axis=1)), (3, 6, 6))) == ["Concat"]


def test_arithmetic_with_constants() -> None:
    net, x = image()
    full = net.quant(RNG(1).normal(size=(1, 3, 6, 6)), 4, 0.25)
    row = np.arange(6).reshape(1, 1, 1, 6) / 4
    outputs = [
        net.node("Add", x, full),
        net.node("Mul", x, full),
        net.node("Sub", full, x),
        net.node("Sub", x, row),
        net.node("Mul", row, x),
        net.node("Div", x, 4.0),
        net.node("Div", x, np.array([1.0, -2.0, 0.5]).reshape(3, 1, 1)),
        net.node("Neg", x),
        net.node("Mul", x, x),
        net.node("Add", net.node("Mul", x, 0.75), 1.5),
    ]
    check(net.model(*outputs), (3, 6, 6))


def test_constant_arithmetic_is_exact() -> None:
    net, x = image()
    factor = net.node("Mul", net.quant(RNG(1).normal(size=(3, 1, 1)), 4, 0.25), 0.5)
    offset = net.node("Sub", net.node("Neg", factor), net.node("Add", factor, factor))
    check(net.model(net.node("Add", net.node("Mul", x, factor), net.node("Div", offset, 2.0))), (3, 6, 6))


@pytest.mark.parametrize(
    ("op", "options"),
    [
        ("MaxPool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("MaxPool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("MaxPool", {"kernel_shape": [2, 3], "dilations": [2, 1]}),
        ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
        ("MaxPool", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}),
        ("AveragePool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("AveragePool", {"kernel_shape": [2, 4], "strides": [1, 1]}),
        (
            "AveragePool",
            {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1], "count_include_pad": 1},
        ),
        ("GlobalMaxPool", {}),
    ],
)
def test_pools(op: str, options: dict[str, object]) -> None:
    net, x = image(scale=2.0**-3)
    check(finish(net, net.node(op, x, **options), scale=2.0**-4), (3, 6, 6))


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_pools_over_one_axis(op: str) -> None:
    net = Net((3, 16))
    x = net.quant(net.x, 6, 2.0**-4)
    check(finish(net, net.node(op, x, kernel_shape=[4], strides=[2])), (3, 16))


def test_global_means_of_a_power_of_two() -> None:
    net, x = image(size=4)
    kept = net.node("ReduceMean", x, axes=[2, 3])
    flat = net.node("ReduceMean", x, axes=[-1, -2], keepdims=0)
    check(net.model(net.node("GlobalAveragePool", x), kept, flat), (3, 4, 4))


def test_reductions() -> None:
    net, x = image(size=4)
    axes = net.constant([2], dtype=np.int64)
    outputs = [
        net.node("ReduceSum", x, axes, keepdims=0),
        net.node("ReduceMax", x, axes=[1, 3]),
        net.node("ReduceMean", x, axes=[2]),
    ]
    check(net.model(*outputs), (3, 4, 4))


def test_average_pool_as_the_exporter_writes_it() -> None:
    net, x = image()
    ones = np.ones((3, 1, 3, 3))
    y = net.node("Conv", x, ones, group=3, strides=[2, 2])
    y = net.node("Mul", y, net.quant(1 / 9, 8, 2.0**-10))
    graph = check(finish(net, y), (3, 6, 6))
    assert ops(graph) == ["SumPool", "Affine", "Requant"]
    net, x = image()
    graph = check(finish(net, net.node("Conv", x, ones / 4, group=3)), (3, 6, 6))
    assert ops(graph) == ["SumPool", "Affine", "Requant"]


def test_movement() -> None:
    net, x = image(channels=4)
    ints = lambda *v: net.constant(list(v), dtype=np.int64)  # noqa: E731
    parts = net.node("Split", x, axis=1, outputs=2)
    outputs = [
        net.node("Reshape", x, ints(0, 4, -1)),
        net.node("Reshape", x, ints(0, 2, 2, 36)),
        net.node("Flatten", x),
        net.node("Transpose", x, perm=[0, 2, 3, 1]),
        net.node("Unsqueeze", x, ints(2)),
        net.node("Squeeze", net.node("Unsqueeze", x, ints(-1)), ints(4)),
        net.node("Slice", x, ints(1, 0), ints(5, 1000), ints(2, 3), ints(2, 1)),
        net.node("Slice", x, ints(-3), ints(-1), ints(1)),
        net.node("Pad", x, ints(0, 0, 1, 2, 0, 0, 0, 1), 0.5),
        net.node("Pad", x, ints(0, 1, 0, 0, 0, 0, 0, 0), -4.0),
        net.node("Gather", x, net.constant(2, dtype=np.int64), axis=2),
        net.node("Gather", x, ints(1, 3), axis=3),
        *parts,
    ]
    check(net.model(*outputs), (4, 6, 6))


def test_movement_of_the_oldest_opset() -> None:
    net = Net((4, 6), opset=9)
    x = net.quant(net.x, 6, 2.0**-3)
    outputs = [
        net.node("Squeeze", net.node("Unsqueeze", x, axes=[1]), axes=[1]),
        net.node("Slice", x, starts=[1], ends=[3], axes=[1]),
        net.node("Pad", x, pads=[0, 0, 1, 0, 0, 1], value=0.25),
        net.node("ReduceSum", x, axes=[1], keepdims=1),
        *net.node("Split", x, axis=2, split=[1, 5], outputs=2),
    ]
    check(net.model(*outputs), (4, 6))


def test_exponents_per_channel_survive_movement() -> None:
    net, x = image(channels=4)
    y = net.quant(x, 6, 2.0 ** -np.array([3, 2, 4, 3]).reshape(1, 4, 1, 1))
    ints = lambda *v: net.constant(list(v), dtype=np.int64)  # noqa: E731
    flat = net.node("Flatten", y)
    outputs = [
        flat,
        net.node("Transpose", y, perm=[0, 2, 1, 3]),
        net.node("Concat", y, x, axis=1),
        net.node("Slice", y, ints(1), ints(4), ints(1), ints(2)),
        net.node("MaxPool", y, kernel_shape=[2, 2]),
        net.node("AveragePool", y, kernel_shape=[2, 2]),
        net.node("Relu", y),
        net.node("Clip", y, -0.25, 0.5),
        net.quant(net.node("Clip", y, 0.0, 0.5), 4, 2.0 ** -np.array([3, 2, 4, 3]).reshape(1, 4, 1, 1)),
        net.node("Add", y, x),
        net.node("Mul", y, x),
        net.node("Mul", y, np.arange(6).reshape(1, 6) / 2),
        net.node("MatMul", flat, weight(net, 144, 3)),
        net.node("ReduceMax", y, axes=[1]),
        net.node("Pad", y, ints(0, 0, 1, 0, 0, 0, 0, 0)),
    ]
    check(net.model(*outputs), (4, 6, 6))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_multi_threshold(layout: str) -> None:
    net, x = image(channels=4, size=4)
    thresholds = np.sort(RNG(2).normal(size=(4, 7)), axis=1)
    thresholds[1, 3] = thresholds[1, 2]  # equal thresholds count twice
    thresholds[2, -1], thresholds[3, 0] = np.inf, -np.inf
    y = net.node(
        "MultiThreshold",
        x,
        thresholds,
        domain="qonnx.custom_op.general",
        out_dtype="INT4",
        out_scale=0.5,
        out_bias=-1.5,
        data_layout=layout,
    )
    graph = check(net.model(y), (4, 4, 4))
    assert ops(graph).count("Threshold") == 1


def test_multi_threshold_of_one_row_and_unsorted() -> None:
    net = Net((9,))
    x = net.quant(net.x, 6, 2.0**-3)
    y = net.node("MultiThreshold", x, [[0.5, -0.3, 1.0]], domain="qonnx.custom_op.general", out_dtype="UINT2")
    check(net.model(y), (9,))


@pytest.mark.parametrize("rounding", ["FLOOR", "ROUND"])
def test_trunc(rounding: str) -> None:
    net = Net((40,))
    x = net.quant(net.x, 8, 2.0**-5)
    y = net.node(
        "Trunc",
        x,
        2.0**-5,
        0.0,
        8.0,
        2.0**-2,
        4.0,
        domain="qonnx.custom_op.general",
        rounding_mode=rounding,
        signed=1,
        narrow=1,
    )
    check(net.model(y), (40,))
    net = Net((40,))
    x = net.quant(net.x, 8, 2.0**-5)
    y = net.node("Trunc", x, 2.0**-4, 0.0, 8.0, 5.0, domain="qonnx.custom_op.general", rounding_mode=rounding)
    check(net.model(y, opsets={"qonnx.custom_op.general": 1}), (40,))


@pytest.mark.parametrize("overflow", ["SAT", "SAT_ZERO", "SAT_SYM", "WRAP", "WRAP_SM"])
@pytest.mark.parametrize(
    "rounding", ["RND", "RND_ZERO", "RND_MIN_INF", "RND_INF", "RND_CONV", "TRN", "TRN_ZERO"]
)
def test_fixed_quant(rounding: str, overflow: str) -> None:
    net = Net((4, 30))
    x = net.quant(net.x, 10, 2.0**-7)
    modes = {"rounding": rounding, "overflow": overflow}
    fraction = net.constant(np.array([1, 2, 3, 4]).reshape(1, 4, 1), dtype=np.int64)
    constant = net.fixed_quant(RNG(4).normal(size=(4, 30)), 4, 1, **modes)
    outputs = [
        net.fixed_quant(x, 4, 1, **modes),
        net.fixed_quant(net.node("Relu", x), 4, 1, **modes),
        net.node("FixedQuant", x, fraction, domain="qhw.onnx_ops", width=4, integer=0, signed=1, **modes),
        net.node("Add", x, constant),
    ]
    check(net.model(*outputs), (4, 30))


def test_integer_input_takes_the_normalisation_into_its_exponent() -> None:
    net = Net((1, 8, 8))
    net.annotations["x"] = "UINT8"
    x = net.quant(net.node("Mul", net.x, 2.0**-8), 6, 2.0**-5)
    graph = check(net.model(net.node("Conv", x, weight(net, 2, 1, 3, 3))), (1, 8, 8), integers=(0, 255))
    assert ops(graph) == ["Requant", "Conv"]
    assert graph.input_encodings["x"].exact
    assert graph.tensors["x"].exponent.values == (-8,)
    assert str(graph.tensors["x"].format) == "uint8"


def test_integer_input_by_element_type() -> None:
    net = Net((12,), dtype=TensorProto.INT8)
    x = net.quant(net.node("Div", net.node("Cast", net.x, to=TensorProto.FLOAT), 16.0), 6, 2.0**-3)
    graph = lower(net.model(x))
    codes = np.arange(-128, 128, dtype=np.int8)[:252].reshape(21, 12)
    result = interpret(graph, encode_inputs(graph, codes))[graph.outputs[0]]
    np.testing.assert_array_equal(result, np.clip(np.rint(codes / 2), -32, 31))


def test_input_normalisation_in_float_becomes_a_table() -> None:
    net = Net((3, 4, 4))
    net.annotations["x"] = "UINT8"
    mean, std = (
        np.array(v, dtype=np.float32).reshape(3, 1, 1) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    )
    x = net.node("Div", net.node("Sub", net.node("Mul", net.x, np.float32(1 / 255)), mean), std)
    graph = check(net.model(net.quant(x, 8, 2.0**-5)), (3, 4, 4), integers=(0, 255))
    assert ops(graph) == ["Table"]


def test_exact_normalisation_needs_no_table() -> None:
    net = Net((3, 4, 4))
    net.annotations["x"] = "UINT8"
    x = net.node("Mul", net.node("Sub", net.x, 127.0), 2.0**-7)
    graph = check(net.model(net.quant(x, 8, 2.0**-7)), (3, 4, 4), integers=(0, 255))
    assert "Table" not in ops(graph)


def test_names_lead_back_to_the_file() -> None:
    net, x = image()
    y = net.node("Conv", x, weight(net, 4, 3, 3, 3), name="first/conv")
    graph = check(net.model(net.quant(y, 4, 0.5, name="first/quant")), (3, 6, 6))
    assert [(n.name, n.source) for n in graph.nodes] == [("first/conv",) * 2, ("first/quant",) * 2]


def test_several_inputs() -> None:
    net = Net((5,))
    net.inputs.append(Net((5,)).inputs[0])
    net.inputs[1].name = "second"
    y = net.node("Add", net.quant(net.x, 5, 0.25), net.quant("second", 5, 0.125))
    graph = lower(net.model(y))
    a, b = RNG(0).normal(size=(2, 4, 5)).astype(np.float32)
    result = interpret(graph, encode_inputs(graph, {"x": a, "second": b}))[graph.outputs[0]]
    expected = np.clip(np.rint(a / 0.25), -16, 15) * 2 + np.clip(np.rint(b / 0.125), -16, 15)
    np.testing.assert_array_equal(result, expected)


REFUSED: dict[str, tuple[Callable[[Net, str], str], str]] = {
    "edge divisor": (
        lambda n, x: n.node("AveragePool", x, kernel_shape=[2, 2], pads=[1, 1, 1, 1]),
        "divisor differs at the padded edges",
    ),
    "batch axis": (lambda n, x: n.node("Transpose", x, perm=[1, 0, 2, 3]), "moves the batch axis"),
    "batch reshaped": (lambda n, x: n.node("Reshape", x, n.constant([2, -1], dtype=np.int64)), "batch axis"),
    "batch reduced": (lambda n, x: n.node("ReduceMean", x), "batch axis"),
    "pad off the grid": (
        lambda n, x: n.node("Pad", x, n.constant([0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int64), 0.03),
        "not on the grid",
    ),
    "constants joined": (
        lambda n, x: n.node("Concat", x, np.ones((1, 3, 6, 6)), axis=1),
        "joins the constant",
    ),
    "computed scale": (lambda n, x: n.quant(x, 4, n.node("GlobalMaxPool", x)), "computed in the graph"),
    "bit width": (lambda n, x: n.quant(x, 3.5, 0.25), "bit width is 3.5"),
    "rounding mode": (lambda n, x: n.quant(x, 4, 0.25, rounding="STOCHASTIC"), "rounding mode 'STOCHASTIC'"),
    "computed weights": (lambda n, x: n.node("Conv", x, x), "weight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_name_the_node(case: str) -> None:
    build, message = REFUSED[case]
    net, x = image()
    y = build(net, x)
    model = net.model(y)
    with pytest.raises(UnsupportedError, match=message) as caught:
        lower(model)
    assert any(node.name in str(caught.value) for node in net.nodes)


def test_float_inputs_without_quantizer_are_refused() -> None:
    net = Net((4,))
    y = net.node("MatMul", net.x, weight(net, 4, 4))
    with pytest.raises(UnsupportedError, match="float input 'x' without a quantizer"):
        lower(net.model(y))
    net = Net((4,))
    with pytest.raises(UnsupportedError, match="in another way than a quantizer before it"):
        lower(net.model(net.quant(net.x, 4, 0.25), net.quant(net.x, 5, 0.25)))


def test_reason_for_canonical_scales() -> None:
    net, x = image()
    assert canonical_reason(net.model(x)) is None
    net, x = image(scale=0.1)
    assert "its scale 0.1 is not a power of two" in str(canonical_reason(net.model(x)))
    net, x = image()
    assert "is not quantised" in str(canonical_reason(net.model(net.node("Mul", x, np.float32(0.3)))))
    net, x = image()
    assert "no exact operation" in str(canonical_reason(net.model(net.quant(net.node("Sigmoid", x), 8, 0.5))))


@pytest.mark.parametrize("op", ["AveragePool", "GlobalAveragePool", "ReduceMean"])
def test_means_that_are_not_binary_go_through_canonical_scales(op: str) -> None:
    net, x = image()
    options = {"AveragePool": {"kernel_shape": [3, 3]}, "ReduceMean": {"axes": [2, 3]}}.get(op, {})
    model = net.model(net.quant(net.node(op, x, **options), 8, 2.0**-5))
    assert "is no binary fraction of their sum" in str(canonical_reason(model))
    graph = lower(model)
    values = RNG(0).normal(scale=1.5, size=(20, 3, 6, 6)).astype(np.float32)
    result = interpret(graph, encode_inputs(graph, values))[graph.outputs[0]]
    np.testing.assert_array_equal(decode_output(graph, graph.outputs[0], result), execute(model, values)[0])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_random_networks(data: st.DataObject) -> None:
    """Chains of random layers with random formats, residual branches and per-channel scales."""
    draw = data.draw
    seed = draw(st.integers(0, 2**31))
    rng = RNG(seed)
    channels, size = draw(st.integers(1, 4)), draw(st.integers(4, 7))
    net = Net((channels, size, size))
    x = net.quant(net.x, draw(st.integers(2, 6)), 2.0**-3, signed=draw(st.integers(0, 1)))
    first = (channels, size)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["conv", "depthwise", "pool", "residual", "norm", "leaky"]))
        if kind == "conv":
            filters, k = draw(st.integers(1, 4)), draw(st.integers(1, 3))
            scale = 2.0 ** -rng.integers(1, 5, size=(filters, 1, 1, 1))
            w = net.quant(rng.normal(size=(filters, channels, k, k)), draw(st.integers(2, 4)), scale)
            x, channels = net.node("Conv", x, w, pads=[k // 2, k // 2, (k - 1) // 2, (k - 1) // 2]), filters
        elif kind == "depthwise":
            w = net.quant(rng.normal(size=(channels, 1, 3, 3)), 3, 0.25)
            x = net.node("Conv", x, w, group=channels, pads=[1, 1, 1, 1])
        elif kind == "pool":
            x = net.node("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
        elif kind == "residual":
            x = net.node("Add", x, net.quant(x, draw(st.integers(2, 6)), 2.0 ** -draw(st.integers(0, 3))))
        elif kind == "norm":
            x = batch_norm(net, x, channels)
        else:
            x = net.node("LeakyRelu", x, alpha=2.0 ** -draw(st.integers(1, 4)))
        if draw(st.booleans()):
            x = net.node("Relu", x)
        scale = 2.0 ** -rng.integers(0, 4, size=(1, channels, 1, 1)) if draw(st.booleans()) else 2.0**-2
        rounding = draw(st.sampled_from(["ROUND", "FLOOR", "CEIL", "HALF_UP", "DOWN"]))
        x = net.quant(x, draw(st.integers(2, 6)), scale, signed=draw(st.integers(0, 1)), rounding=rounding)
    model = net.model(x)
    graph = lower(model)
    values = rng.normal(scale=2, size=(2, *[first[0], first[1], first[1]])).astype(np.float32)
    result = interpret(graph, encode_inputs(graph, values))[graph.outputs[0]]
    np.testing.assert_array_equal(decode_output(graph, graph.outputs[0], result), execute(model, values)[0])
