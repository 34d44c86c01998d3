"""Inputs as files have them: floats moved and scaled before a quantizer, integers that never meet one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper
from qonnx_factory import QONNX, Net, execute
from test_canonical import check as check_canonical
from test_canonical import ops, weights

from qhw.errors import InputError, UnsupportedError
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower, lower_model
from qhw.graph.reading.load import load_qonnx
from qhw.graph.serialize import graph_hash, load_graph, save_graph
from qhw.sim.postprocess import postprocess

RNG = np.random.default_rng


def equal_to_qonnx(net: Net, y: str, x: np.ndarray, *, distinct: int = 3) -> ExactGraph:
    """Values of the exact graph against qonnx's execution of the file, exactly."""
    graph = lower(net.model(y))
    (name,) = graph.outputs
    values = decode_output(graph, name, interpret(graph, encode_inputs(graph, x))[name])
    np.testing.assert_array_equal(values, execute(net.model(y), x)[0])
    assert len(np.unique(values)) >= distinct
    return graph


def floats(*shape: int) -> np.ndarray:
    return (RNG(3).normal(size=shape) * 2).astype(np.float32)


def sign(net: Net, x: str) -> str:
    return net.node("Sign", x)


def bipolar(net: Net, x: str) -> str:
    return net.node("BipolarQuant", x, 0.5, domain=QONNX)


def thresholds(net: Net, x: str) -> str:
    steps = np.sort(RNG(1).normal(size=(1, 7)), axis=1)
    return net.node("MultiThreshold", x, steps, domain=QONNX, out_dtype="INT4", out_scale=0.5, out_bias=-1.5)


def shifted(net: Net, x: str) -> str:
    """As Brevitas's CNV has it: (2x - 1) onto 8 bits."""
    return net.quant(net.node("Sub", net.node("Mul", x, 2.0), [1.0]), 8, 2.0**-7)


def normalised(net: Net, x: str) -> str:
    return net.quant(net.node("Div", net.node("Sub", x, 0.449), 0.226), 8, 2.0**-5)


def rectified(net: Net, x: str) -> str:
    return net.quant(net.node("Relu", x), 5, 0.25, signed=0)


def clipped(net: Net, x: str) -> str:
    return net.quant(net.node("Clip", x, -0.7, 1.3), 8, 2.0**-5)


def wrapped(net: Net, x: str) -> str:
    return net.fixed_quant(x, 5, 2, overflow="WRAP", rounding="RND")


def rounded_by_hand(net: Net, x: str) -> str:
    """A quantizer that a user wrote: round and clamp."""
    y = net.node("Clip", net.node("Round", net.node("Mul", x, 8.0)), -15.0, 15.0)
    return net.node("Mul", y, 0.125)


@pytest.mark.parametrize(
    "before",
    [sign, bipolar, thresholds, shifted, normalised, rectified, clipped, wrapped, rounded_by_hand],
)
def test_what_a_file_does_to_a_float_input_is_its_encoding(before: Callable[[Net, str], str]) -> None:
    net = Net((8,))
    y = net.node("MatMul", before(net, net.x), net.quant(weights(8, 5), 4, 0.25))
    graph = equal_to_qonnx(net, y, floats(40, 8))
    assert ops(graph)[-1] == "MatMul"
    assert not {"Threshold", "Table"} & set(ops(graph))


@pytest.mark.parametrize("before", [sign, thresholds, normalised, wrapped])
def test_such_an_encoding_can_be_stored(before: Callable[[Net, str], str], tmp_path: Any) -> None:
    net = Net((8,))
    graph = lower(net.model(net.node("MatMul", before(net, net.x), net.quant(weights(8, 5), 4, 0.25))))
    assert graph.input_encodings["x"].before
    save_graph(graph, tmp_path)
    again = load_graph(tmp_path)
    assert graph_hash(again) == graph_hash(graph)
    x = floats(20, 8)
    assert (encode_inputs(again, x)["x"] == encode_inputs(graph, x)["x"]).all()


def test_a_stored_step_that_is_none_is_refused(tmp_path: Any) -> None:
    net = Net((8,))
    save_graph(lower(net.model(normalised(net, net.x))), tmp_path)
    path = tmp_path / "graph.json"
    path.write_text(path.read_text().replace('"Sub"', '"system"'))
    with pytest.raises(InputError, match="a host step is 'system'"):
        load_graph(tmp_path)


def flattened(net: Net, x: str) -> str:
    return net.node("Flatten", x)


def reshaped(net: Net, x: str) -> str:
    return net.node("Reshape", x, net.constant([0, 24], dtype=np.int64))


def turned(net: Net, x: str) -> str:
    return net.node("Flatten", net.node("Transpose", x, perm=[0, 3, 1, 2]))


def squeezed(net: Net, x: str) -> str:
    y = net.node("Unsqueeze", x, net.constant([1], dtype=np.int64))
    return net.node("Flatten", net.node("Squeeze", y, net.constant([1], dtype=np.int64)))


@pytest.mark.parametrize("moves", [flattened, reshaped, turned, squeezed])
@pytest.mark.parametrize("quantizer", [shifted, bipolar, normalised])
def test_codes_are_moved_behind_the_quantizer_of_an_input(
    moves: Callable[[Net, str], str], quantizer: Callable[[Net, str], str]
) -> None:
    net = Net((2, 3, 4))
    y = net.node("MatMul", quantizer(net, moves(net, net.x)), net.quant(weights(24, 5), 4, 0.25))
    graph = equal_to_qonnx(net, y, floats(12, 2, 3, 4))
    assert graph.tensors["x"].shape == (2, 3, 4)
    assert set(ops(graph)) <= {"Reshape", "Transpose", "MatMul"}


@pytest.mark.parametrize("moves", [flattened, reshaped, turned, squeezed])
@pytest.mark.parametrize("scale", [2.0**-4, 0.037])
def test_codes_are_moved_that_stood_behind_operations_on_an_input(
    moves: Callable[[Net, str], str], scale: float
) -> None:
    """Between the operations and the quantizer, not in front of both."""
    net = Net((2, 3, 4))
    y = net.quant(moves(net, net.node("Mul", net.node("Relu", net.x), 0.375)), 8, scale)
    graph = lower(net.model(y))
    x = floats(12, 2, 3, 4)
    codes = interpret(graph, encode_inputs(graph, x))[graph.outputs[0]]
    np.testing.assert_array_equal(codes, np.rint(execute(net.model(y), x)[0] / np.float32(scale)))


def test_two_inputs_moved_differently_share_no_encoding() -> None:
    net = Net((2, 3, 4))
    net.inputs.append(net.inputs[0].__class__.FromString(net.inputs[0].SerializeToString()))
    net.inputs[1].name = "z"
    y = net.node("Add", net.quant(flattened(net, "x"), 6, 0.125), net.quant(turned(net, "z"), 5, 0.25))
    graph = lower(net.model(net.quant(y, 8, 0.25)))
    assert [graph.tensors[name].exponent.values for name in ("x", "z")] == [(-3,), (-2,)]


@pytest.mark.parametrize("weight_scale", [0.25, 0.3])
@pytest.mark.parametrize(
    ("op", "number"), [(None, 1), ("Mul", 2.0**-8), ("Div", 256.0), ("Div", 255.0), ("Mul", 1 / 255)]
)
def test_pixels_reach_a_first_layer_without_a_quantizer(
    op: str | None, number: float, weight_scale: float
) -> None:
    net = Net((3, 6, 6))
    net.annotations["x"] = "UINT8"
    x = net.x if op is None else net.node(op, net.x, number)
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 4, weight_scale), pads=[1, 1, 1, 1], name="conv")
    output = net.quant(y, 6, 30.0 * (1 if op is None else 1 / 256))
    pixels = RNG(2).integers(0, 256, (10, 3, 6, 6)).astype(np.float32)
    graph = lower(net.model(output))
    if lower_model(load_qonnx(net.model(output))).reason is None:
        equal_to_qonnx(net, output, pixels)
    else:
        check_canonical(net.model(output), pixels, apart=0.01)
    assert graph.input_encodings["x"].exact
    assert ops(graph)[0] == "Conv"


def test_centred_pixels_are_whole_numbers_of_half_their_scale() -> None:
    """(x / 255 - 0.5) / 0.5 is (2x - 255) / 255: zero padding stays what the file says."""
    net = Net((3, 6, 6))
    net.annotations["x"] = "UINT8"
    x = net.node("Div", net.node("Sub", net.node("Div", net.x, 255.0), 0.5), 0.5)
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 4, 0.25), pads=[1, 1, 1, 1])
    pixels = RNG(2).integers(0, 256, (10, 3, 6, 6)).astype(np.float32)
    graph = check_canonical(net.model(net.quant(y, 6, 0.171)), pixels, apart=0.01)
    assert ops(graph) == ["Affine", "Conv", "Threshold"]
    assert graph.constants[graph.nodes[0].inputs[1]] == 2
    assert graph.constants[graph.nodes[0].inputs[2]] == -255


def test_an_integer_input_is_cast_to_integers_that_hold_it() -> None:
    net = Net((3, 6, 6))
    net.annotations["x"] = "UINT8"
    whole = net.node("Cast", net.node("Cast", net.x, to=TensorProto.INT32), to=TensorProto.FLOAT)
    x = net.node("Mul", whole, 2.0**-8)
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 4, 0.25), pads=[1, 1, 1, 1])
    output = net.quant(y, 6, 0.125)
    pixels = RNG(2).integers(0, 256, (10, 3, 6, 6)).astype(np.float32)
    graph = equal_to_qonnx(net, output, pixels)
    assert ops(graph) == ["Conv", "Requant"]
    narrow = Net((3, 6, 6))
    narrow.annotations["x"] = "UINT8"
    low = narrow.node("Cast", narrow.node("Cast", narrow.x, to=TensorProto.INT8), to=TensorProto.FLOAT)
    y = narrow.node("Conv", low, narrow.quant(weights(4, 3, 3, 3), 4, 0.25))
    with pytest.raises(UnsupportedError, match="it casts numbers that int8 does not hold"):
        lower(narrow.model(narrow.quant(y, 6, 0.125)))


MEANS, DEVIATIONS = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def by_channel(numbers: Any) -> np.ndarray:
    return np.reshape(np.asarray(numbers, dtype=np.float32), (1, 3, 1, 1))


def normalised_as_torchvision(net: Net, x: str) -> str:
    x = net.node("Div", x, 255.0)
    return net.node("Div", net.node("Sub", x, by_channel(MEANS)), by_channel(DEVIATIONS))


def normalised_by_factors(net: Net, x: str) -> str:
    x = net.node("Sub", x, by_channel(255 * np.array(MEANS)))
    return net.node("Mul", x, by_channel(1 / (255 * np.array(DEVIATIONS))))


def normalised_by_a_sum(net: Net, x: str) -> str:
    x = net.node("Mul", x, by_channel(1 / (255 * np.array(DEVIATIONS))))
    return net.node("Add", x, by_channel(-np.array(MEANS) / np.array(DEVIATIONS)))


def divided_by_channel(net: Net, x: str) -> str:
    return net.node("Div", x, by_channel([58.0, 57.0, 57.4]))


def normalised_then_padded(net: Net, x: str) -> str:
    pads = net.constant([0, 0, 1, 2, 0, 0, 2, 1], dtype=np.int64)
    return net.node("Pad", normalised_as_torchvision(net, x), pads)


def normalised_then_pooled(net: Net, x: str) -> str:
    return net.node("MaxPool", normalised_as_torchvision(net, x), kernel_shape=[2, 2])


@pytest.mark.parametrize("weight_scale", [0.25, 0.3])
@pytest.mark.parametrize(
    "normalised",
    [
        normalised_as_torchvision,
        normalised_by_factors,
        normalised_by_a_sum,
        divided_by_channel,
        normalised_then_padded,
        normalised_then_pooled,
    ],
)
def test_pixels_are_normalised_by_channel(normalised: Callable[[Net, str], str], weight_scale: float) -> None:
    """One grid for all channels, on which the file's float32 numbers are found again to 20 bits."""
    net = Net((3, 6, 6))
    net.annotations["x"] = "UINT8"
    x = normalised(net, net.x)
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 4, weight_scale), pads=[1, 1, 1, 1], name="conv")
    model = net.model(net.quant(y, 6, 0.171))
    pixels = RNG(2).integers(0, 256, (40, 3, 6, 6)).astype(np.float32)
    graph = check_canonical(model, pixels, apart=0.001)
    assert ops(graph)[0] == "Affine"
    assert ops(graph)[-2:] == ["Conv", "Threshold"]
    multipliers, offsets = (graph.constants[name] for name in graph.nodes[0].inputs[1:])
    assert np.abs(multipliers).max() < 1 << 20
    if normalised is not divided_by_channel:
        stated = (np.arange(256)[:, None] / 255 - MEANS) / DEVIATIONS
        ours = np.arange(256)[:, None] * multipliers + offsets
        unit = (stated[-1] - stated[0])[0] / (ours[-1] - ours[0])[0]
        np.testing.assert_allclose(ours * unit, stated, rtol=0, atol=1e-5)


def test_pixels_of_two_layers_and_of_a_matrix_product() -> None:
    net = Net((3, 4, 4))
    net.annotations["x"] = "UINT8"
    x = normalised_as_torchvision(net, net.x)
    one = net.node("Conv", x, net.quant(weights(4, 3, 4, 4), 4, 0.3))
    other = net.node("MatMul", net.node("Flatten", x), net.quant(weights(48, 4), 4, 0.3))
    y = net.node("Add", net.quant(net.node("Flatten", one), 6, 0.171), net.quant(other, 6, 0.171))
    pixels = RNG(2).integers(0, 256, (40, 3, 4, 4)).astype(np.float32)
    graph = check_canonical(net.model(net.quant(y, 6, 0.171)), pixels, apart=0.001)
    assert {"Conv", "MatMul"} <= set(ops(graph))


def test_what_is_no_image_keeps_to_one_scale() -> None:
    """Numbers that a quantizer gave: a scale per channel of them would take multipliers of 20 bits."""
    net = Net((3, 6, 6))
    x = net.node("Div", net.quant(net.x, 8, 0.037), by_channel([58.0, 57.0, 57.4]), name="scaled")
    y = net.node("Conv", x, net.quant(weights(4, 3, 3, 3), 4, 0.25), name="first")
    with pytest.raises(UnsupportedError, match=r"'first'.*3 different scales") as error:
        lower(net.model(net.quant(y, 6, 0.171)))
    assert "quantise its input per tensor" in str(error.value)


def test_an_input_that_nothing_quantises_is_told_how_to_be_one() -> None:
    net = Net((3, 6, 6))
    y = net.node("Conv", net.x, net.quant(weights(4, 3, 3, 3), 4, 0.25), name="first")
    with pytest.raises(UnsupportedError, match=r"'first'.*float input 'x' without a quantizer") as error:
        lower(net.model(net.quant(y, 6, 0.171)))
    assert "--input uint8" in str(error.value)


def test_a_float_input_read_twice_before_its_quantizer_is_refused() -> None:
    net = Net((8,))
    y = net.quant(net.node("Mul", net.x, net.node("Sigmoid", net.x)), 6, 0.125)
    with pytest.raises(UnsupportedError, match="read more than once before the input's quantizer"):
        lower(net.model(y))


def test_outputs_keep_the_names_of_the_file(tmp_path: Any) -> None:
    net = Net((8,))
    x = net.quant(net.x, 4, 0.25)
    outputs = net.node("MatMul", x, net.quant(weights(8, 5), 4, 0.25)), net.quant(net.node("Relu", x), 3, 0.5)
    graph = lower(net.model(*outputs))
    assert graph.output_names == outputs
    save_graph(graph, tmp_path)
    assert load_graph(tmp_path).output_names == outputs
    mantissas = interpret(graph, encode_inputs(graph, floats(4, 8)))
    decoded = {name: decode_output(graph, name, mantissas[name]) for name in graph.outputs}
    assert tuple(postprocess(graph, decoded)) == outputs


def test_outputs_that_are_constants_are_left_out() -> None:
    """Brevitas returns a scale and a bit width beside the values where it is told to."""
    net = Net((8,))
    y = net.node("MatMul", net.quant(net.x, 8, 0.125), net.quant(weights(8, 5), 4, 0.25))
    scale, bits = net.constant(0.125), net.node("Identity", net.constant(8.0))
    assert list(lower(net.model(y, scale, bits)).outputs) == list(lower(net.model(y)).outputs)


def padded(net: Net, x: str) -> str:
    return net.node("Pad", x, net.constant([0, 0, 1, 0, 0, 0, 0, 2], dtype=np.int64), np.float32(0.6))


def mirrored(net: Net, x: str) -> str:
    return net.node("Pad", x, net.constant([0, 0, 1, 1, 0, 0, 1, -1], dtype=np.int64), mode="reflect")


def doubled(net: Net, x: str) -> str:
    swapped = net.node("Slice", x, *(net.constant([n], dtype=np.int64) for n in (-1, -9, 1, -1)))
    return net.node("Concat", x, swapped, axis=2)


@pytest.mark.parametrize("enlarged", [padded, mirrored, doubled])
@pytest.mark.parametrize("scale", [2.0**-4, 0.037])
@pytest.mark.parametrize("first", [False, True])
def test_what_enlarges_numbers_waits_for_their_quantizer(
    enlarged: Callable[[Net, str], str], scale: float, first: bool
) -> None:
    """Of an input, and of a sum in the middle of a tail; a Pad's number goes through what follows it."""
    net = Net((2, 3, 4))
    x = net.node("LeakyRelu", enlarged(net, net.x)) if first else enlarged(net, net.node("Relu", net.x))
    y = net.quant(net.node("Sub", x, 0.25), 7, scale)
    z = net.node("Conv", y, net.quant(weights(3, 2, 1, 1), 4, scale), weights(3))
    z = net.node("LeakyRelu", enlarged(net, z)) if first else enlarged(net, net.node("Relu", z))
    model = net.model(y, net.quant(z, 6, scale))
    graph, given = lower(model), floats(12, 2, 3, 4)
    codes = interpret(graph, encode_inputs(graph, given))
    for name, expected in zip(graph.outputs, execute(model, given), strict=True):
        np.testing.assert_array_equal(codes[name], np.rint(expected / np.float32(scale)))


def test_an_output_may_have_a_scale_per_index_of_any_axis(tmp_path: Any) -> None:
    net = Net((4, 6))
    scales, bias = (0.0031 * (1 + np.arange(5))).astype(np.float32), weights(5)
    y = net.node("MatMul", net.quant(net.x, 8, 0.125), net.quant(weights(6, 5), 8, scales))
    y = net.node("Add", y, bias)
    save_graph(lower(net.model(y, net.node("Transpose", y, perm=[0, 2, 1]))), tmp_path)
    graph = load_graph(tmp_path)
    x = floats(5, 4, 6)
    codes = np.clip(np.rint(x / np.float32(0.125)), -128, 127).astype(np.int64)
    rows = np.clip(np.rint(weights(6, 5) / scales), -128, 127).astype(np.int64)
    expected = (codes @ rows) / 8 * scales.astype(np.float64) + bias.astype(np.float64)
    mantissas = interpret(graph, encode_inputs(graph, x))
    first, second = (decode_output(graph, name, mantissas[name]) for name in graph.outputs)
    np.testing.assert_array_equal(first, expected)
    np.testing.assert_array_equal(second, expected.transpose(0, 2, 1))
    assert [graph.output_scales[name].axis for name in graph.outputs] == [1, 0]


@pytest.mark.parametrize("scale", [0.25, 0.3])
def test_inputs_are_in_the_order_of_the_file_not_in_that_of_their_readers(scale: float) -> None:
    net = Net((5,))
    net.inputs += [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 5]) for name in ("b", "a")]
    summands = [net.node("MatMul", net.quant(x, 6, 0.5), net.quant(weights(5, 3), 4, scale)) for x in "axb"]
    total = net.quant(net.node("Sum", *[net.quant(x, 8, 2.0) for x in summands]), 8, 4.0)
    lowering = lower_model(load_qonnx(net.model(total)))
    assert lowering.graph.inputs == ("x", "b", "a")
    if lowering.canonical is not None:
        assert [value.name for value in lowering.canonical.graph.input] == ["x", "b", "a"]
