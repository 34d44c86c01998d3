"""Transposed convolutions, resizing, sub-pixels and broadcasts, against qonnx's execution of the file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from qonnx_factory import Net, execute
from test_canonical import check as check_canonical
from test_canonical import images, ops, weights
from test_lower_inputs import equal_to_qonnx, floats

from qhw.errors import UnsupportedError
from qhw.graph.encode import encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower

TRANSPOSED: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((3, 4, 3, 3), {}),
    "strided": ((3, 4, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    "uneven": ((3, 4, 2, 4), {"strides": [1, 3], "pads": [0, 1, 1, 2]}),
    "dilated": ((3, 4, 3, 2), {"strides": [2, 1], "dilations": [2, 3]}),
    "grouped": ((4, 3, 3, 3), {"strides": [2, 2], "group": 2}),
    "cropping": ((3, 4, 1, 1), {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
}


@pytest.mark.parametrize("kind", sorted(TRANSPOSED))
def test_transposed_convolution(kind: str) -> None:
    shape, options = TRANSPOSED[kind]
    net = Net((shape[0], 5, 4))
    x = net.quant(net.x, 6, 0.125)
    bias = net.quant(weights(shape[1] * options.get("group", 1)), 8, 2.0**-5)
    y = net.node("ConvTranspose", x, net.quant(weights(*shape), 4, 0.25), bias, **options)
    graph = equal_to_qonnx(net, net.quant(y, 8, 2.0**-4), floats(6, shape[0], 5, 4))
    assert "Conv" in ops(graph)


def test_transposed_convolution_of_one_axis_at_any_scale() -> None:
    net = Net((3, 9))
    x = net.quant(net.x, 6, 0.113)
    weight = net.quant(weights(3, 4, 4), 4, 0.17)
    y = net.node("ConvTranspose", x, weight, weights(4), strides=[2], pads=[1, 1])
    graph = check_canonical(net.model(net.quant(y, 6, 0.21)), floats(6, 3, 9))
    assert ops(graph) == ["Upsample", "Conv", "Threshold"]


@pytest.mark.parametrize(
    ("coordinates", "nearest"), [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")]
)
@pytest.mark.parametrize("factors", [(2.0, 2.0), (1.0, 3.0), (4.0, 1.0)])
def test_nearest_neighbours(factors: tuple[float, float], coordinates: str, nearest: str) -> None:
    net = Net((2, 3, 4))
    x = net.quant(net.x, 6, 0.125)
    scales = net.constant([1, 1, *factors])
    options = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest, "mode": "nearest"}
    y = net.node("Resize", x, "", scales, **options)
    y = net.node("Conv", y, net.quant(weights(3, 2, 2, 2), 4, 0.25))
    assert ops(equal_to_qonnx(net, net.quant(y, 8, 0.0625), floats(5, 2, 3, 4)))[0] == "Upsample"


@pytest.mark.parametrize("factors", [(2.0, 2.0), (1.0, 4.0), (4.0, 2.0), (8.0, 1.0)])
def test_linear_interpolation_by_powers_of_two(factors: tuple[float, float]) -> None:
    net = Net((2, 3, 5))
    x = net.quant(net.x, 5, 0.25)
    options = {"coordinate_transformation_mode": "half_pixel", "mode": "linear"}
    y = net.node("Resize", x, "", net.constant([1, 1, *factors]), **options)
    equal_to_qonnx(net, net.quant(y, 12, 2.0**-10), floats(5, 2, 3, 5))


def test_interpolation_by_other_factors_is_refused_by_name() -> None:
    net = Net((2, 3, 5))
    x = net.quant(net.x, 5, 0.25)
    y = net.node("Resize", x, "", net.constant([1, 1, 3, 3]), mode="linear", name="larger")
    with pytest.raises(UnsupportedError, match=r"'larger'.*interpolates by factors \(3, 3\)"):
        lower(net.model(net.quant(y, 8, 0.25)))


@pytest.mark.parametrize("op", ["DepthToSpace", "SpaceToDepth"])
@pytest.mark.parametrize("scale", [0.125, 0.1])
def test_sub_pixels_before_the_quantizer(op: str, scale: float) -> None:
    net = Net((3, 6, 6))
    x = net.quant(net.x, 6, scale)
    y = net.node("Conv", x, net.quant(weights(8, 3, 3, 3), 4, 0.25), weights(8))
    more = {"mode": "CRD"} if op == "DepthToSpace" else {}
    y = net.quant(net.node("Relu", net.node(op, y, blocksize=2, **more)), 5, 0.25, signed=0)
    graph = check_canonical(net.model(y), images())
    assert ops(graph)[:2] == ["Conv", "Threshold"]


@pytest.mark.parametrize("scale", [0.125, 0.1])
@pytest.mark.parametrize("op", ["Mul", "Add", "Sub"])
def test_squeeze_and_excite(op: str, scale: float) -> None:
    """A number per channel against every pixel."""
    net = Net((3, 4, 4))
    x = net.quant(net.x, 6, scale)
    gate = net.node("Conv", net.node("GlobalAveragePool", x), net.quant(weights(3, 3, 1, 1), 4, 0.25))
    gate = net.quant(net.node("Sigmoid", net.quant(gate, 6, scale)), 6, scale, signed=0)
    y = net.quant(net.node(op, x, gate), 8, scale / 4)
    graph = check_canonical(net.model(y), floats(8, 3, 4, 4))
    assert "Upsample" in ops(graph)


def test_a_map_against_every_channel() -> None:
    net = Net((3, 4, 4))
    x = net.quant(net.x, 6, 0.125)
    y = net.node("Mul", x, net.quant(net.node("ReduceMax", x, axes=[1], keepdims=1), 4, 0.25))
    graph = equal_to_qonnx(net, net.quant(y, 10, 2.0**-6), floats(6, 3, 4, 4))
    assert "Concat" in ops(graph)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect"])
def test_padding(mode: str) -> None:
    net = Net((2, 4, 5))
    x = net.quant(net.x, 6, 0.125)
    pads = net.constant([0, 0, 1, 2, 0, 0, 2, 1], dtype=np.int64)
    more = [net.constant(0.375)] if mode == "constant" else []
    equal_to_qonnx(net, net.node("Pad", x, pads, *more, mode=mode), floats(5, 2, 4, 5))


@pytest.mark.parametrize("indices", [[2, 0], [0, 0, 1], [3, 2, 1, 0], [1, 3]])
def test_elements_in_any_order(indices: list[int]) -> None:
    net = Net((2, 4, 5))
    x = net.quant(net.x, 6, 0.125)
    y = net.node("Gather", x, net.constant(indices, dtype=np.int64), axis=2)
    equal_to_qonnx(net, y, floats(5, 2, 4, 5))


def test_batch_norm_of_a_vector_between_unsqueeze_and_squeeze() -> None:
    net = Net((16,))
    y = net.node("MatMul", net.quant(net.x, 4, 0.125), net.quant(weights(16, 3), 4, 0.125))
    y = net.node("Unsqueeze", y, net.constant([2], dtype=np.int64))
    numbers = weights(3), weights(3) / 2, [0.7, 1.1, 1.9]
    y = net.node("BatchNormalization", y, [0.6, 1.2, -1.4], *numbers)
    y = net.quant(net.node("Squeeze", y, net.constant([2], dtype=np.int64)), 4, 0.3)
    graph = check_canonical(net.model(y), floats(30, 16))
    assert ops(graph).count("Threshold") == 1


PICKS = [(1.5, 1.5), (0.5, 0.5), (3.0, 2.0), (1.3, 1.0), (2.0, 0.75)]


@pytest.mark.parametrize("coordinates", ["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"])
@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
def test_nearest_pixels_by_any_factor(coordinates: str, nearest: str) -> None:
    options = {"coordinate_transformation_mode": coordinates, "nearest_mode": nearest, "mode": "nearest"}
    for factors in PICKS:
        net = Net((1, 10, 6))
        y = net.node("Resize", net.quant(net.x, 8, 0.0625), "", net.constant([1, 1, *factors]), **options)
        equal_to_qonnx(net, y, floats(2, 1, 10, 6))


@pytest.mark.parametrize("scale", [0.125, 0.113])
def test_computed_tensors_are_copied(scale: float) -> None:
    net = Net((3, 2, 4))
    x = net.quant(net.x, 6, scale)
    most = net.node("GlobalMaxPool", x)
    wide = net.node("Expand", most, net.constant([1, 3, 2, 4], dtype=np.int64))
    tiled = net.node("Tile", x, net.constant([1, 2, 1, 3], dtype=np.int64))
    model = net.model(net.quant(tiled, 5, scale), net.quant(wide, 5, scale))
    graph, given = lower(model), floats(4, 3, 2, 4)
    found = interpret(graph, encode_inputs(graph, given))
    for name, expected in zip(graph.outputs, execute(model, given), strict=True):
        np.testing.assert_array_equal(found[name], np.rint(expected / np.float32(scale)))


def test_copies_that_move_the_batch_axis_are_refused_by_name() -> None:
    net = Net((3, 2, 4))
    shape = net.constant([1, 1, 3, 2, 4], dtype=np.int64)
    y = net.node("Expand", net.quant(net.x, 6, 0.125), shape, name="larger")
    with pytest.raises(UnsupportedError, match="'larger' adds an axis in front of the batch"):
        lower(net.model(y))


@pytest.mark.parametrize("scale", [0.125, 0.113])
def test_the_least_and_rounding_up(scale: float) -> None:
    net = Net((3, 2, 4))
    least = net.node("ReduceMin", net.quant(net.x, 6, scale), axes=[2, 3], keepdims=0)
    y = net.quant(net.node("Ceil", least), 5, 1.0)
    graph = lower(net.model(y))
    x = floats(16, 3, 2, 4)
    codes = interpret(graph, encode_inputs(graph, x))[graph.outputs[0]]
    np.testing.assert_array_equal(codes, execute(net.model(y), x)[0])
    assert len(np.unique(codes)) >= 3
