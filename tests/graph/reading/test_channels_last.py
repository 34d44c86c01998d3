"""Channels-last QONNX, as qonnx's own pass makes it, becomes the channels-first network it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import ModelProto
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.channels_last import ConvertToChannelsLastAndClean
from qonnx.util.cleanup import cleanup_model
from qonnx_factory import QONNX, Net, execute

from qhw.errors import InputError, UnsupportedError
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower
from qhw.graph.onnx_tools import attributes
from qhw.graph.reading.draft import Draft
from qhw.graph.reading.load import load_qonnx

RNG = np.random.default_rng(7)


def weights(*shape: int) -> np.ndarray:
    return RNG.integers(-7, 8, size=shape) / 8


def conv(net: Net, x: str, w: np.ndarray, *bias: np.ndarray, pads: tuple[int, ...] = ()) -> str:
    """Every attribute stated, as qonnx's channels-last operators want them."""
    rank = w.ndim - 2
    quantised = net.quant(w, 4, 0.125)
    return net.node(
        "Conv",
        x,
        quantised,
        *bias,
        kernel_shape=w.shape[2:],
        strides=[1] * rank,
        dilations=[1] * rank,
        group=1,
        pads=pads or [0] * (2 * rank),
    )


def pool(net: Net, x: str, rank: int) -> str:
    return net.node("MaxPool", x, kernel_shape=[2] * rank, strides=[2] * rank, pads=[0] * (2 * rank))


def plain(scale: tuple[float, ...] = ()) -> ModelProto:
    """Conv, batch norm, ReLU, quantizer, pool, Conv, Flatten, fully connected."""
    net = Net((3, 10, 8))
    x = net.quant(net.x, 8, 1 / 64)
    y = conv(net, x, weights(4, 3, 3, 3), weights(4), pads=(1, 1, 0, 0))
    factors = [np.array([1.0, 2, 0.5, 1]), weights(4), weights(4), np.array([4.0, 1, 1, 0.25])]
    y = net.node("BatchNormalization", y, *factors, epsilon=0.0, momentum=0.9)
    y = net.quant(net.node("Relu", y), 5, np.reshape(scale, (1, -1, 1, 1)) if scale else 0.5, signed=0)
    y = pool(net, y, 2)
    y = conv(net, y, weights(6, 4, 3, 2))
    y = net.node("Flatten", net.quant(y, 6, 0.5))
    return net.model(net.node("MatMul", y, net.quant(weights(24, 5), 4, np.full((1, 5), 0.125))))


def residual() -> ModelProto:
    """Two branches that meet in an Add, and in a Concat; a factor per channel."""
    net = Net((2, 6, 6))
    x = net.quant(net.x, 8, 1 / 64)
    a = net.quant(conv(net, x, weights(4, 2, 3, 3), pads=(1, 1, 1, 1)), 6, 0.125)
    b = conv(net, a, weights(4, 4, 3, 3), pads=(1, 1, 1, 1))
    b = net.quant(net.node("Mul", b, np.array([1.0, 2, 0.5, 4]).reshape(4, 1, 1)), 6, 0.125)
    joined = net.node("Concat", net.node("Add", a, b), a, axis=1)
    y = conv(net, net.quant(joined, 6, 0.25), weights(3, 8, 1, 1))
    return net.model(net.quant(y, 6, 0.5))


def one_dimensional() -> ModelProto:
    net = Net((3, 12))
    y = conv(net, net.quant(net.x, 6, 0.125), weights(4, 3, 3))
    y = pool(net, net.quant(y, 5, 0.5), 1)
    y = conv(net, y, weights(4, 4, 3))
    return net.model(net.quant(y, 6, 1.0))


NETWORKS = {"plain": plain, "residual": residual, "one dimension": one_dimensional}


def channels_last(model: ModelProto, *, at_the_input: bool) -> ModelProto:
    cleaned = cleanup_model(ModelWrapper(model))
    turned = cleaned.transform(ConvertToChannelsLastAndClean(make_input_channels_last=at_the_input))
    assert any(node.domain.endswith("channels_last") for node in turned.graph.node)
    return turned.model


@pytest.mark.parametrize("at_the_input", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_the_one_it_came_from(name: str, at_the_input: bool) -> None:
    """The oracle is qonnx's execution of the network before its pass; scales are 2^-n, so nothing rounds."""
    original = NETWORKS[name]()
    model = channels_last(original, at_the_input=at_the_input)
    before, after = sizes(original.graph.input[0]), sizes(model.graph.input[0])
    assert after == ([before[0], *before[2:], before[1]] if at_the_input else before)
    loaded = load_qonnx(model)
    assert {node.domain for node in loaded.graph.node} == {"", QONNX}
    assert sizes(loaded.graph.output[0]) == sizes(model.graph.output[0])
    x = RNG.normal(size=(4, *before[1:])).astype(np.float32)
    given = np.moveaxis(x, 1, -1) if at_the_input else x
    (expected,), (found,) = execute(original, x), execute(loaded, given)
    turned = found.shape != expected.shape
    expected = np.moveaxis(expected, 1, -1) if turned else expected
    np.testing.assert_array_equal(found, expected)
    graph = lower(model)
    codes = interpret(graph, encode_inputs(graph, given))
    np.testing.assert_array_equal(decode_output(graph, graph.outputs[0], codes[graph.outputs[0]]), expected)
    # at the file's own ends only: an input or output that is channels-last itself
    assert sum(node.op_type == "Transpose" for node in loaded.graph.node) == at_the_input + turned
    assert sum(node.op == "Transpose" for node in graph.nodes) == at_the_input + turned


def sizes(value: Any) -> list[int]:
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_scales_that_qonnx_leaves_unturned_are_named() -> None:
    """A file that qonnx's pass makes and its executor does not run."""
    model = channels_last(plain((0.5, 0.25, 1, 0.5)), at_the_input=False)
    with pytest.raises(ValueError, match="broadcast"):
        execute_onnx(
            ModelWrapper(model), {model.graph.input[0].name: np.zeros((1, 3, 10, 8), dtype=np.float32)}
        )
    with pytest.raises(InputError, match=r"Quant '.*' has parameters of shape \(1, 4, 1, 1\)") as caught:
        load_qonnx(model)
    assert "channels-last" in str(caught.value)


def test_thresholds_of_both_layouts() -> None:
    thresholds = np.sort(RNG.normal(size=(3, 7)), axis=1).astype(np.float32)

    def network(layout: str) -> ModelProto:
        net = Net((3, 4, 4) if layout == "NCHW" else (4, 4, 3))
        y = net.node(
            "MultiThreshold",
            net.quant(net.x, 8, 0.125),
            thresholds,
            domain=QONNX,
            out_dtype="UINT3",
            data_layout=layout,
        )
        return net.model(y)

    x = RNG.normal(size=(5, 3, 4, 4)).astype(np.float32)
    first, last = network("NCHW"), network("NHWC")
    (expected,) = execute(first, x)
    (found,) = execute(load_qonnx(last), x.transpose(0, 2, 3, 1))
    np.testing.assert_array_equal(found.transpose(0, 3, 1, 2), expected)
    node = next(n for n in load_qonnx(last).graph.node if n.op_type == "MultiThreshold")
    assert attributes(node)["data_layout"] == "NCHW"
    with pytest.raises(UnsupportedError, match="has the layout CHWN"):
        load_qonnx(network("CHWN"))


def test_transposes_of_channels_first_files_that_help_nobody_stay() -> None:
    """An attention's product: its Transposes are what it computes."""
    net = Net((4, 6))
    x = net.quant(net.x, 6, 0.125)
    a = net.node("Transpose", x, perm=[0, 2, 1])
    y = net.node("Transpose", net.quant(net.node("MatMul", x, a), 6, 2.0), perm=[0, 2, 1])
    model = net.model(net.node("MatMul", y, x))
    assert [n.op_type for n in load_qonnx(model).graph.node] == [n.op_type for n in model.graph.node]


def test_transposes_through_what_has_axes_of_its_own() -> None:
    """Pad, a reduction that keeps its axes, Resize and Concat between a Transpose and its inverse."""
    net = Net((4, 4, 3))
    first, last = [0, 3, 1, 2], [0, 2, 3, 1]
    y = net.node("Transpose", net.quant(net.x, 6, 0.125), perm=first)
    y = net.node("Pad", y, net.constant([0, 1, 0, 2, 0, 0, 1, 0], dtype=np.int64), 0.0)
    y = net.node("Concat", y, net.node("Neg", y), axis=1)
    y = net.quant(y, 5, np.array([0.25, 0.5, 1, 0.125, 0.25, 1, 2, 0.5]).reshape(1, 8, 1, 1))
    y = net.node("Mul", y, np.arange(1, 9).reshape(8, 1, 1) / 4)
    scales = np.array([1, 1, 2, 1], dtype=np.float32)
    options: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    y = net.node("Resize", y, "", scales, mode="nearest", **options)
    y = net.node("ReduceSum", y, net.constant([2], dtype=np.int64), keepdims=1)
    model = net.model(net.node("Transpose", net.quant(y, 8, 0.125), perm=last))
    loaded = load_qonnx(model)
    assert "Transpose" not in {n.op_type for n in loaded.graph.node}
    x = RNG.normal(size=(3, 4, 4, 3)).astype(np.float32)
    np.testing.assert_array_equal(execute(loaded, x)[0], execute(model, x)[0])


def test_a_turned_image_before_a_fully_connected_layer_turns_the_weights() -> None:
    net = Net((2, 3, 4))
    y = net.node("Flatten", net.node("Transpose", net.quant(net.x, 6, 0.125), perm=[0, 2, 3, 1]))
    y = net.quant(net.node("Relu", y), 5, 0.25)
    w = net.quant(weights(24, 5), 4, RNG.choice([0.125, 0.25], size=(24, 1)))
    model = net.model(net.node("MatMul", y, w))
    loaded = load_qonnx(model)
    assert "Transpose" not in {n.op_type for n in loaded.graph.node}
    x = RNG.normal(size=(3, 2, 3, 4)).astype(np.float32)
    np.testing.assert_array_equal(execute(loaded, x)[0], execute(model, x)[0])


def test_sorting_keeps_the_files_order_where_it_can() -> None:
    net = Net((4,))
    x = net.quant(net.x, 6, 0.125)
    a, b = net.node("Relu", x), net.node("Neg", x)
    model = net.model(net.node("Add", a, b))
    names = [node.name for node in model.graph.node]
    draft = Draft(model)
    assert draft.sort()
    assert [node.name for node in draft.graph.node] == names
    nodes = list(reversed(list(model.graph.node)))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    draft = Draft(model)
    assert draft.sort()
    order = [node.name for node in draft.graph.node]
    assert order[0] == names[0]
    assert order[-1] == names[-1]


@pytest.mark.slow
def test_a_brevitas_network_by_qonnx(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    qnn = pytest.importorskip("brevitas.nn")
    from brevitas.export import export_qonnx

    torch.manual_seed(0)
    model = torch.nn.Sequential(
        qnn.QuantIdentity(bit_width=8),
        qnn.QuantConv2d(3, 8, 3, weight_bit_width=4),
        torch.nn.BatchNorm2d(8),
        qnn.QuantReLU(bit_width=4),
        torch.nn.MaxPool2d(2),
        qnn.QuantConv2d(8, 6, 2, weight_bit_width=4),
        qnn.QuantReLU(bit_width=4),
        torch.nn.Flatten(),
        qnn.QuantLinear(24, 5, bias=True, weight_bit_width=4),
    )
    model(torch.rand(16, 3, 8, 8))
    model.eval()
    export_qonnx(model, torch.rand(1, 3, 8, 8), str(tmp_path / "model.onnx"), opset_version=13)
    first = ModelWrapper(str(tmp_path / "model.onnx")).model
    x = np.random.default_rng(0).random((4, 3, 8, 8), dtype=np.float32)
    loaded = load_qonnx(channels_last(first, at_the_input=False))
    assert "Transpose" not in {n.op_type for n in loaded.graph.node}
    np.testing.assert_allclose(execute(loaded, x)[0], execute(load_qonnx(first), x)[0], rtol=0, atol=1e-6)
