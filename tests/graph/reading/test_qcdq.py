"""QuantizeLinear and DequantizeLinear as exporters write them; onnxruntime on the file is the oracle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper
from qonnx_factory import Net, execute
from test_heads import in_onnxruntime

from qhw.errors import QhwError, UnsupportedError
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower
from qhw.graph.onnx_tools import attributes, initializers
from qhw.graph.reading.load import load_qonnx


def ops(model: ModelProto) -> list[str]:
    return [node.op_type for node in load_qonnx(model).graph.node]


def quantised(net: Net, x: Any, scale: Any, zero: Any, dtype: Any, **options: Any) -> str:
    parameters = net.constant(scale), net.constant(zero, dtype=dtype)
    codes = net.node("QuantizeLinear", x, *parameters, **options)
    return net.node("DequantizeLinear", codes, *parameters, **options)


def grid(scale: float) -> np.ndarray:
    """Every half step, ties included, and numbers beside them, beyond both ends of 8 bits."""
    steps = np.arange(-700, 701, dtype=np.float32) / 2
    around = np.concatenate([np.nextafter(steps, np.float32(s)) for s in (-np.inf, np.inf)])
    values = np.concatenate([steps, around, np.random.default_rng(0).normal(size=297) * 100])
    return (values * scale).astype(np.float32).reshape(-1, 1)


TYPES = [
    (np.int8, 0, ["Quant"]),
    (np.uint8, 0, ["Quant"]),
    (np.int8, -128, ["Quant"]),
    (np.uint8, 128, ["Quant"]),
    (np.uint8, 127, ["Clip", "Quant"]),
    (np.uint8, 37, ["Clip", "Quant"]),
    (np.int8, -3, ["Clip", "Quant"]),
    (np.int8, 127, ["Clip", "Quant"]),
    (np.uint16, 32768, ["Quant"]),
    (np.int16, 5, ["Clip", "Quant"]),
    (ml_dtypes.int4, 0, ["Quant"]),
    (ml_dtypes.uint4, 7, ["Clip", "Quant"]),
]


@pytest.mark.parametrize("scale", [0.25, 0.0173])
@pytest.mark.parametrize(("dtype", "zero", "form"), TYPES)
def test_every_type_and_zero_point(dtype: Any, zero: int, form: list[str], scale: float) -> None:
    """Bit for bit, ties of odd zero points too: ONNX rounds before it adds the zero point."""
    net = Net((1,), opset=21)
    model = net.model(quantised(net, net.x, scale, np.asarray(zero).astype(dtype), dtype))
    assert ops(model) == form
    x = grid(scale)
    (expected,) = in_onnxruntime(model, x)
    np.testing.assert_array_equal(execute(load_qonnx(model), x)[0], expected)


def test_qonnx_would_round_ties_of_odd_zero_points_otherwise() -> None:
    """The difference that the form above is there for."""
    net = Net((1,))
    with_zero = net.model(net.quant(net.x, 8, 0.25, zero=37, signed=0))
    net = Net((1,))
    as_onnx = net.model(quantised(net, net.x, 0.25, 37, np.uint8))
    x = grid(0.25)
    assert (execute(with_zero, x)[0] != in_onnxruntime(as_onnx, x)[0]).sum() > 50


@pytest.mark.parametrize(
    ("low", "high", "dtype", "bits", "narrow"),
    [(-8, 7, np.int8, 4, 0), (-7, 7, np.int8, 4, 1), (0, 15, np.uint8, 4, 0), (0, 127, np.uint8, 7, 0)],
)
def test_a_clip_between_makes_it_narrower(low: int, high: int, dtype: Any, bits: int, narrow: int) -> None:
    """As Brevitas (QCDQ) and torch (reduced ranges) export it."""
    net = Net((1,))
    scale, zero = net.constant(0.5), net.constant(0, dtype=dtype)
    codes = net.node("QuantizeLinear", net.x, scale, zero)
    clipped = net.node("Clip", codes, net.constant(low, dtype=dtype), net.constant(high, dtype=dtype))
    model = net.model(net.node("DequantizeLinear", clipped, scale, zero))
    loaded = load_qonnx(model)
    (node,) = loaded.graph.node
    stored = initializers(loaded.graph)
    assert (node.op_type, attributes(node)["narrow"]) == ("Quant", narrow)
    assert float(stored[node.input[3]]) == bits
    np.testing.assert_array_equal(execute(loaded, grid(0.5))[0], in_onnxruntime(model, grid(0.5))[0])


def test_scales_per_channel_and_without_zero_points() -> None:
    net = Net((3, 5), opset=13)
    scale = net.constant([0.5, 0.25, 0.0171])
    codes = net.node("QuantizeLinear", net.x, scale, axis=1)
    model = net.model(net.node("DequantizeLinear", codes, scale, axis=-2))
    x = np.random.default_rng(0).normal(size=(9, 3, 5)).astype(np.float32) * 30
    loaded = load_qonnx(model)
    assert [node.op_type for node in loaded.graph.node] == ["Quant"]
    np.testing.assert_array_equal(execute(loaded, x)[0], in_onnxruntime(model, x)[0])


def test_zero_points_per_channel() -> None:
    net = Net((2, 5), opset=13)
    zero = net.constant([3, 200], dtype=np.uint8)
    parameters = net.constant([0.5, 0.25]), zero
    codes = net.node("QuantizeLinear", net.x, *parameters, axis=1)
    model = net.model(net.node("DequantizeLinear", codes, *parameters, axis=1))
    x = np.random.default_rng(0).normal(size=(9, 2, 5)).astype(np.float32) * 60
    assert ops(model) == ["Max", "Min", "Quant"]
    np.testing.assert_array_equal(execute(load_qonnx(model), x)[0], in_onnxruntime(model, x)[0])


def network(dtype: Any, zero: int, weight_dtype: Any, weight_zero: Any, *, per_channel: bool) -> ModelProto:
    """Two layers as ONNX Runtime writes them: integer constants, biases of 32 bits; scales are 2^-n."""
    rng = np.random.default_rng(4)
    net = Net((2, 6, 6), opset=21)

    def weight(shape: tuple[int, ...], axis: int) -> str:
        small = np.dtype(weight_dtype) == ml_dtypes.int4
        limits = (-7, 8) if small else (0, 256) if weight_zero else (-90, 90)
        integers = rng.integers(*limits, size=shape).astype(np.int64)
        count = shape[axis] if per_channel else 1
        exponents = rng.integers(5, 8, size=count) if per_channel else np.array(6)
        scales = 2.0 ** -(exponents - 4 * small)
        zeros = np.full(count, weight_zero) if per_channel else weight_zero
        options = {"axis": axis} if per_channel else {}
        stored = net.constant(integers.astype(weight_dtype), dtype=weight_dtype)
        return net.node(
            "DequantizeLinear",
            stored,
            net.constant(scales),
            net.constant(zeros, dtype=weight_dtype),
            **options,
        )

    def bias(count: int) -> str:
        integers = net.constant(rng.integers(-3000, 3000, size=count), dtype=np.int32)
        return net.node("DequantizeLinear", integers, net.constant(2.0**-9), net.constant(0, dtype=np.int32))

    x = quantised(net, net.x, 2.0**-5, 0, dtype)
    y = net.node("Conv", x, weight((4, 2, 3, 3), 0), bias(4), pads=[1, 1, 1, 1])
    y = quantised(net, net.node("Relu", y), 2.0**-2, zero, dtype)
    y = quantised(net, net.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), 2.0**-2, zero, dtype)
    y = net.node("Gemm", net.node("Flatten", y), weight((5, 36), 0), bias(5), transB=1)
    return net.model(quantised(net, y, 2.0**-1, zero, dtype))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize(
    ("dtype", "zero", "weight_dtype", "weight_zero"),
    [
        (np.int8, 0, np.int8, 0),
        (np.uint8, 0, np.uint8, 128),
        (np.uint8, 37, np.int8, 0),
        (np.int8, 0, ml_dtypes.int4, 0),
        (np.int8, -3, np.int8, 0),
        (np.int16, 0, np.int8, 0),
    ],
)
def test_networks_give_the_codes_of_onnxruntime(
    dtype: Any, zero: int, weight_dtype: Any, weight_zero: int, per_channel: bool
) -> None:
    model = network(dtype, zero, weight_dtype, weight_zero, per_channel=per_channel)
    x = np.random.default_rng(1).normal(size=(25, 2, 6, 6)).astype(np.float32) * 2
    (expected,) = in_onnxruntime(model, x)
    np.testing.assert_array_equal(execute(load_qonnx(model), x)[0], expected)
    graph = lower(model)
    codes = interpret(graph, encode_inputs(graph, x))
    name = graph.outputs[0]
    np.testing.assert_array_equal(decode_output(graph, name, codes[name]), expected)
    assert len(np.unique(expected)) > 8


def test_codes_may_be_moved_between_the_two() -> None:
    """MaxPool, Transpose and Reshape of int8 tensors, as optimisers write them."""
    net = Net((2, 4, 4))
    parameters = net.constant(0.25), net.constant(0, dtype=np.int8)
    codes = net.node("QuantizeLinear", net.x, *parameters)
    moved = net.node("MaxPool", codes, kernel_shape=[2, 2], strides=[2, 2])
    moved = net.node("Transpose", net.node("Concat", moved, moved, axis=1), perm=[0, 2, 3, 1])
    model = net.model(net.node("DequantizeLinear", net.node("Flatten", moved), *parameters))
    x = np.random.default_rng(0).normal(size=(5, 2, 4, 4)).astype(np.float32) * 20
    assert ops(model) == ["Quant", "MaxPool", "Concat", "Transpose", "Flatten"]
    np.testing.assert_array_equal(execute(load_qonnx(model), x)[0], in_onnxruntime(model, x)[0])


def test_float8() -> None:
    """Codes of e4m3fn; the oracle is ml_dtypes."""
    net = Net((1,), opset=19)
    zero = helper.make_tensor("z", TensorProto.FLOAT8E4M3FN, [], [0.0])
    scale = net.constant(0.5)
    codes = net.node("QuantizeLinear", net.x, scale, "z")
    model = net.model(net.node("DequantizeLinear", codes, scale, "z"))
    model.graph.initializer.append(zero)
    loaded = load_qonnx(model)
    assert [node.op_type for node in loaded.graph.node] == ["FormatQuant"]
    x = np.random.default_rng(0).normal(size=(500, 1)).astype(np.float32) * 40
    expected = (x / np.float32(0.5)).astype(ml_dtypes.float8_e4m3fn).astype(np.float32) / 2
    graph = lower(model)
    codes = interpret(graph, encode_inputs(graph, x))
    np.testing.assert_array_equal(decode_output(graph, graph.outputs[0], codes[graph.outputs[0]]), expected)


REFUSED: dict[str, tuple[Any, str]] = {}


def refused(message: str) -> Any:
    def register(build: Any) -> Any:
        REFUSED[build.__name__] = (build, message)
        return build

    return register


@refused("has another scale or zero point")
def other_scale(net: Net) -> str:
    codes = net.node("QuantizeLinear", net.x, 0.25, net.constant(0, dtype=np.int8))
    return net.node("DequantizeLinear", codes, 0.5, net.constant(0, dtype=np.int8))


@refused("its scale '.*' is computed")
def dynamic(net: Net) -> str:
    scale = net.node("ReduceMax", net.x, keepdims=0)
    codes = net.node("QuantizeLinear", net.x, scale, net.constant(0, dtype=np.int8))
    return net.node("DequantizeLinear", codes, scale, net.constant(0, dtype=np.int8))


@refused("holds the codes of a QuantizeLinear")
def codes_out(net: Net) -> str:
    return net.node("QuantizeLinear", net.x, 0.25, net.constant(0, dtype=np.int8))


@refused("a scale per block of 2")
def blocked(net: Net) -> str:
    net.opset = 21
    codes = net.constant(np.ones((4, 4)), dtype=np.int8)
    w = net.node("DequantizeLinear", codes, np.ones((2, 4)), axis=0, block_size=2)
    return net.node("MatMul", quantised(net, net.x, 0.25, 0, np.int8), w)


@refused("is a QLinearMatMul, which is not supported.*(?s:.*)QuantFormat.QDQ")
def integer_operator(net: Net) -> str:
    zero = net.constant(0, dtype=np.int8)
    codes = net.node("QuantizeLinear", net.x, 0.25, zero)
    w = net.constant(np.ones((4, 4)), dtype=np.int8)
    y = net.node("QLinearMatMul", codes, 0.25, zero, w, 0.5, zero, 1.0, zero, name="fc")
    return net.node("DequantizeLinear", y, 1.0, zero)


@refused("computes with the codes of a QuantizeLinear")
def arithmetic_on_codes(net: Net) -> str:
    zero = net.constant(0, dtype=np.int8)
    codes = net.node("QuantizeLinear", net.x, 0.25, zero)
    return net.node("DequantizeLinear", net.node("Max", codes, codes), 0.25, zero)


@refused("2 scales along axis 1 of a tensor of shape")
def wrong_axis(net: Net) -> str:
    return quantised(net, net.x, [0.5, 0.25], [0, 0], np.int8, axis=1)


@pytest.mark.parametrize("case", REFUSED)
def test_refused_by_name(case: str) -> None:
    build, message = REFUSED[case]
    net = Net((4,))
    with pytest.raises(QhwError, match=message):
        load_qonnx(net.model(build(net)))


@pytest.mark.slow
def test_brevitas_qcdq(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    qnn = pytest.importorskip("brevitas.nn")
    from brevitas.export import export_onnx_qcdq
    from brevitas.quant import Int8WeightPerTensorFixedPoint

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        qnn.QuantIdentity(bit_width=8),
        qnn.QuantConv2d(2, 4, 3, weight_bit_width=4, weight_quant=Int8WeightPerTensorFixedPoint),
        qnn.QuantReLU(bit_width=3),
        torch.nn.MaxPool2d(2),
        torch.nn.Flatten(),
        qnn.QuantLinear(16, 5, bias=True, weight_bit_width=8),
    )
    model(torch.randn(32, 2, 6, 6))
    model.eval()
    path = tmp_path / "model.onnx"
    export_onnx_qcdq(model, torch.randn(1, 2, 6, 6), export_path=str(path), input_names=["x"])
    proto, x = onnx.load(path), np.random.default_rng(2).normal(size=(10, 2, 6, 6)).astype(np.float32)
    loaded = load_qonnx(proto)
    assert not {"QuantizeLinear", "DequantizeLinear", "Clip"} & {node.op_type for node in loaded.graph.node}
    (expected,) = in_onnxruntime(proto, x)
    np.testing.assert_allclose(execute(loaded, x)[0], expected, rtol=0, atol=1e-6)
    stored = initializers(loaded.graph)
    bits = sorted(float(stored[n.input[3]]) for n in loaded.graph.node if n.op_type == "Quant")
    assert bits[0] == 3
    lower(proto)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
def test_quantize_static(tmp_path: Path, per_channel: bool, symmetric: bool) -> None:
    """onnxruntime.quantization on a float model, Softmax included: every code is the file's."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    rng = np.random.default_rng(0)
    net = Net((1, 8, 8), opset=17)
    y = net.node("Relu", net.node("Conv", net.x, rng.normal(size=(4, 1, 3, 3)), rng.normal(size=4)))
    y = net.node("Flatten", net.node("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    y = net.node(
        "Softmax", net.node("Gemm", y, rng.normal(size=(5, 36)), rng.normal(size=5), transB=1), axis=1
    )
    onnx.save(net.model(y), tmp_path / "float.onnx")

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.samples = iter([{"x": rng.random((1, 1, 8, 8), dtype=np.float32)} for _ in range(8)])

        def get_next(self) -> Any:
            return next(self.samples, None)

    quantize_static(
        tmp_path / "float.onnx",
        tmp_path / "model.onnx",
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        per_channel=per_channel,
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": symmetric},
    )
    proto = onnx.load(tmp_path / "model.onnx")
    loaded = load_qonnx(proto)
    (logits,) = (value.name for value in loaded.graph.output)
    proto.graph.output.append(helper.make_empty_tensor_value_info(logits))
    x = rng.random((30, 1, 8, 8), dtype=np.float32)
    expected = in_onnxruntime(proto, x)[1]
    np.testing.assert_array_equal(execute(loaded, x)[0], expected)


def test_a_float_model_is_told_to_be_one_first_of_all() -> None:
    """Whatever else it holds: operators that are not known, an old opset."""
    net = Net((4, 6), opset=7)
    y = net.node("LSTM", net.x, np.ones((1, 8, 6)), np.ones((1, 8, 2)), outputs=2, hidden_size=2)[1]
    with pytest.raises(QhwError, match="it is a float model") as caught:
        load_qonnx(net.model(net.node("Foo", y, domain="mine")))
    assert "quantize_static" in str(caught.value)
    assert not isinstance(caught.value, UnsupportedError)
