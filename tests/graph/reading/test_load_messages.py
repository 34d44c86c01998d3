"""What is said of files that are not carried: node, layer of the user's model, cause, remedy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, StringStringEntryProto, TensorAnnotation, TensorProto, helper
from qonnx_factory import Net, execute

from qhw.errors import InputError, QhwError, UnsupportedError
from qhw.graph.lower import lower
from qhw.graph.onnx_tools import describe, layer_of
from qhw.graph.reading.load import load_qonnx


def refusal(model: Any) -> str:
    with pytest.raises(UnsupportedError) as caught:
        load_qonnx(model)
    return str(caught.value)


def unsupported(op: str, *, domain: str = "", **options: Any) -> ModelProto:
    net = Net((4, 6), opset=17)
    x = net.quant(net.x, 6, 0.125)
    y = net.node(op, x, domain=domain, name="/encoder/rnn/" + op, **options)
    return net.model(y, opsets={domain: 1} if domain else {})


CAUSES = {
    "LSTM": ("a recurrent layer, which carries state from step to step", "convolutions over time"),
    "GRU": ("a recurrent layer", "convolutions over time"),
    "LayerNormalization": ("it divides by a norm of the data", "batch normalisation"),
    "InstanceNormalization": ("it divides by a norm of the data", "batch normalisation"),
    "RandomNormalLike": ("it draws random numbers", "model.eval()"),
    "NonZero": ("the shape of its result depends on the data", "on the host"),
    "Einsum": ("its equation can say any sum", "MatMul"),
    "ReduceProd": ("it is carried on constants only", "fixed shapes"),
    "QLinearConv": ("an operator on integer codes", "QuantFormat.QDQ"),
}


@pytest.mark.parametrize("op", CAUSES)
def test_operators_are_refused_with_layer_cause_and_remedy(op: str) -> None:
    message = refusal(unsupported(op))
    assert message.startswith(
        f"Node '/encoder/rnn/{op}' is a {op}, of layer 'encoder.rnn', which is not supported"
    )
    for part in CAUSES[op]:
        assert part in message


def test_a_choice_by_computed_numbers_has_a_remedy() -> None:
    net = Net((4, 6), opset=17)
    x = net.quant(net.x, 6, 0.125)
    is_more = net.node("Greater", x, 0.0, name="choose")
    message = refusal(net.model(net.node("Where", is_more, x, net.node("Mul", x, 0.25))))
    assert "'choose' is a Greater" in message
    assert "it compares or chooses" in message
    assert "Relu, PRelu, Clip, Max or Min" in message


@pytest.mark.parametrize(
    ("domain", "cause", "remedy"),
    [
        ("com.microsoft", "ONNX Runtime's own operator", "ORT_DISABLE_ALL"),
        ("finn.custom_op.fpgadataflow.hls", "FINN's hardware layer", "before FINN's conversion"),
        ("ai.customer", "a domain that is not known", "FunctionProto"),
    ],
)
def test_domains_are_refused_with_cause_and_remedy(domain: str, cause: str, remedy: str) -> None:
    message = refusal(unsupported("FusedMatMul", domain=domain))
    assert f"(domain '{domain}')" in message
    assert cause in message
    assert remedy in message


def test_control_flow_is_named() -> None:
    net = Net((4, 6), opset=17)
    x = net.quant(net.x, 6, 0.125)
    branch = helper.make_graph(
        [helper.make_node("Identity", [x], ["inner"])],
        "branch",
        [],
        [helper.make_empty_tensor_value_info("inner")],
    )
    y = net.node(
        "If",
        net.node("Cast", net.node("ReduceMax", x, keepdims=0), to=TensorProto.BOOL),
        then_branch=branch,
        else_branch=branch,
    )
    message = refusal(net.model(y))
    assert "is a If, which is not supported: control flow that the data decides" in message


def test_layers_as_both_of_torchs_exporters_note_them() -> None:
    node = helper.make_node("Conv", ["x"], ["y"], name="/layer1/layer1.0/Conv")
    assert layer_of(node) == "layer1.0"
    assert describe(node) == "Conv '/layer1/layer1.0/Conv' (layer 'layer1.0')"
    node = helper.make_node("Conv", ["x"], ["y"], name="/backbone/conv/Conv")
    assert layer_of(node) == "backbone.conv"
    node = helper.make_node("Conv", ["x"], ["y"], name="node_conv2d")
    assert layer_of(node) == ""
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layer1', 'layer1.0', 'conv2d']")
    assert layer_of(node) == "layer1.0"
    assert layer_of(helper.make_node("Conv", ["x"], ["y"], name="/Conv")) == ""


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [False, True])
def test_the_layer_of_a_torch_model_is_named(tmp_path: Path, dynamo: bool) -> None:
    torch = pytest.importorskip("torch")

    class Net2(torch.nn.Module):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.LayerNorm(4))

        def forward(self, x: Any) -> Any:
            return self.head(torch.fake_quantize_per_tensor_affine(x, 0.25, 0, -128, 127))

    path = tmp_path / "model.onnx"
    torch.onnx.export(Net2().eval(), (torch.rand(1, 6),), str(path), dynamo=dynamo, opset_version=18)
    assert "LayerNormalization, of layer 'head.1', which" in refusal(path)


def test_text_that_is_no_utf8_is_refused() -> None:
    """protobuf gives names with stray bytes as bytes: nothing that joins or writes strings takes those."""
    net = Net((3, 4))
    x = net.quant(net.x, 6, 0.125, name="first")
    y = net.node("ReduceSum", x, net.constant([1], dtype=np.int64), keepdims=0, name="reducesum")
    content = net.model(net.quant(y, 6, 0.5)).SerializeToString()
    model = ModelProto.FromString(content.replace(b"reducesum", b"re\x90ucesum"))
    assert isinstance(model.graph.node[1].name, bytes)
    with pytest.raises(InputError, match="The model's NodeProto has the output b're") as error:
        load_qonnx(model)
    assert "UTF-8" in str(error.value)


def test_constants_whose_bytes_do_not_fit() -> None:
    net = Net((3, 4))
    model = net.model(net.node("Add", net.quant(net.x, 6, 0.125), net.constant(np.ones(4), "offset")))
    for name, change in (("FLOAT", {"dims": [5]}), ("no known type", {"data_type": 99})):
        damaged = ModelProto.FromString(model.SerializeToString())
        (tensor,) = (t for t in damaged.graph.initializer if t.name == "offset")
        tensor.MergeFrom(TensorProto(**change))
        with pytest.raises(InputError, match=f"The constant 'offset' is damaged: {name}"):
            load_qonnx(damaged)


def test_sizes_are_checked_before_they_are_counted_through() -> None:
    net = Net((3, 4, 4))
    scales = np.array([1, 1, 2**20, 2**20], dtype=np.float32)
    y = net.node("Resize", net.quant(net.x, 6, 0.125), "", scales, mode="nearest", name="huge")
    with pytest.raises(InputError, match="which Resize 'huge' writes, has shape"):
        load_qonnx(net.model(y))


def test_names_that_are_too_long() -> None:
    net = Net((3, 4))
    model = net.model(net.node("Relu", net.quant(net.x, 6, 0.125)))
    model.graph.node[1].name = "n" * 100_000
    with pytest.raises(InputError, match=r"The name 'n+…' has 100000 characters"):
        load_qonnx(model)


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(InputError, match="it is no regular file"):
            load_qonnx(path)


def test_shapes_that_do_not_fit_name_the_node() -> None:
    net = Net((4, 6))
    x = net.quant(net.x, 6, 0.125)
    model = net.model(net.node("Add", x, np.ones((1, 4, 5)), name="/block/add/Add"))
    with pytest.raises(InputError, match="Add '/block/add/Add': Incompatible dimensions"):
        load_qonnx(model)


def test_a_convolution_over_another_rank_ends_in_a_message() -> None:
    """onnx's shape inference ends the process on this one, unless the kernel is stated."""
    for op, w in (("Conv", np.ones((3, 2, 2, 2))), ("ConvTranspose", np.ones((2, 3, 2, 2)))):
        net = Net((2, 4))
        y = net.node(op, net.quant(net.x, 4, 0.1), net.quant(w, 4, 0.1), name="/block/conv/Conv")
        with pytest.raises(InputError, match=f"{op} '/block/conv/Conv'"):
            load_qonnx(net.model(y))
    net = Net((2, 4, 4))
    x = net.quant(net.x, 4, 0.1)
    with pytest.raises(UnsupportedError, match="its weight 'relu1_out' is computed"):
        load_qonnx(net.model(net.node("Conv", x, net.node("Relu", x))))


def test_weights_may_be_scaled_and_turned_on_their_way() -> None:
    """A kernel that no attribute states, behind a quantizer, a factor, a Transpose and an Unsqueeze."""
    net = Net((2, 5, 5))
    w = net.node("Mul", net.quant(np.ones((3, 2, 3)), 4, 0.25), np.full((1, 1, 3), 0.5))
    w = net.node("Unsqueeze", w, net.constant([2], dtype=np.int64))
    w = net.node("Transpose", w, perm=[0, 1, 3, 2])
    model = net.model(net.node("Conv", net.quant(net.x, 4, 0.25), w))
    loaded = load_qonnx(model)
    assert loaded.get_tensor_shape(model.graph.output[0].name) == [1, 3, 3, 5]
    x = np.random.default_rng(0).normal(size=(3, 2, 5, 5)).astype(np.float32)
    np.testing.assert_array_equal(execute(loaded, x)[0], execute(model, x)[0])


def test_three_spatial_axes_are_read() -> None:
    """What cannot slide over three axes says so itself; the file is a valid one."""
    net = Net((2, 4, 4, 4))
    w = np.ones((3, 2, 2, 2, 2))
    model = net.model(net.node("Conv", net.quant(net.x, 4, 0.1), net.quant(w, 4, 0.1), name="volume"))
    shape = load_qonnx(model).get_tensor_shape(model.graph.output[0].name)
    assert shape == [1, 3, 3, 3, 3]


def test_ends_of_a_file_that_are_no_tensors() -> None:
    net = Net((4,))
    model = net.model(net.node("Relu", net.quant(net.x, 6, 0.125)))
    model.graph.output[0].CopyFrom(
        helper.make_tensor_sequence_value_info("relu1_out", TensorProto.FLOAT, None)
    )
    with pytest.raises(QhwError, match="'relu1_out' is no tensor"):
        load_qonnx(model)
    assert onnx.defs.onnx_opset_version() >= 23


@pytest.mark.parametrize(
    "name", ["INT0", "UINT-3", "INT65", "INT1000000", "[[[", "", "FIXED<8", "FIXED<0,0>"]
)
def test_annotations_are_types_of_qonnx(name: str) -> None:
    net = Net((4,))
    model = net.model(net.quant(net.node("Mul", net.x, 0.5), 4, 0.5))
    entry = StringStringEntryProto(key="finn_datatype", value=name)
    model.graph.quantization_annotation.append(
        TensorAnnotation(tensor_name="x", quant_parameter_tensor_names=[entry])
    )
    with pytest.raises(InputError, match="'x' is annotated as") as caught:
        load_qonnx(model)
    assert repr(name) in str(caught.value)
    assert "integers of 1 to 64 bits" in str(caught.value)


def test_a_damaged_tensor_in_an_attribute_is_named() -> None:
    net = Net((4,))
    model = net.model(net.quant(net.x, 4, 0.5, name="first"))
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
    tensor.dims[:] = [7]
    model.graph.node[0].attribute.append(helper.make_attribute("note", tensor))
    with pytest.raises(InputError, match=r"Quant 'first': the tensor in its attribute 'note' is damaged"):
        lower(model)


def test_an_input_that_is_listed_twice_is_named() -> None:
    net = Net((4,))
    model = net.model(net.quant(net.x, 4, 0.5))
    model.graph.input.append(model.graph.input[0])
    with pytest.raises(InputError, match="The input 'x' is listed twice"):
        load_qonnx(model)


def test_negative_padding_is_refused() -> None:
    net = Net((2, 6, 6))
    weight = net.quant(np.ones((3, 2, 3, 3)), 4, 0.5)
    y = net.node("Conv", net.quant(net.x, 4, 0.5), weight, pads=[-1, 0, 0, 0], name="cropping")
    with pytest.raises(QhwError, match=r"Conv 'cropping'.*the padding \(-1, 0, 0, 0\): crop with a Slice"):
        lower(net.model(net.quant(y, 6, 1.0)))
