"""Export: the file says what torch computes, to the last bit, and is the same file every time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8WeightPerTensorFloat
from hypothesis import given, settings
from hypothesis import strategies as st
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.change_batchsize import ChangeBatchSize
from qonnx.transformation.infer_shapes import InferShapes
from torch import nn
from torch_nets import NETS, Net, build, inputs

from qhw.convert import QuantConfig, convert
from qhw.data import load_dataset
from qhw.errors import InputError, UnsupportedError
from qhw.export import export_qonnx, in_qonnx, layer_values
from qhw.formats import Fixed, Overflow, Rounding
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower
from qhw.layers import QuantAdd, QuantBatchNorm2d
from qhw.models import build_model, model_names
from qhw.quantizers import activation_quantizer, bias_quantizer, weight_quantizer
from qhw.train import TrainConfig, predict, train

SMALL = {"weights": "fixed<5>", "biases": "fixed<8>", "scales": "fixed<5>", "activations": "fixed<6>"}
"""Formats whose sums float32, which qonnx computes in, holds exactly."""

CONFIGS = {
    "plain": QuantConfig(**SMALL, inputs="fixed<7>", outputs="fixed<8>"),
    "per channel": QuantConfig(**SMALL, inputs="fixed<7>", outputs="fixed<8>", per_channel=True),
    "qonnx modes": QuantConfig(
        weights="fixed<5,TRN,SAT_SYM>",
        biases="fixed<8,RND_INF>",
        scales="fixed<5,TRN_ZERO>",
        activations="fixed<6,RND_ZERO,SAT_SYM>",
        inputs="fixed<7,2,CEIL>",
        outputs="fixed<8,UP>",
    ),
    "own modes": QuantConfig(
        weights="fixed<5,RND,SAT>",
        biases="fixed<8,RND_MIN_INF,SAT_SYM>",
        scales="fixed<5,RND_CONV,SAT_ZERO>",
        activations="fixed<6,TRN,WRAP>",
        inputs="fixed<7,3,RND,SAT>",
        outputs="fixed<8,RND_CONV,SAT_ZERO>",
        per_channel=True,
    ),
}


def started(name: str, config: QuantConfig) -> tuple[torch.fx.GraphModule, torch.Tensor]:
    """A converted network whose quantizers have seen data, and other data."""
    model, shape = build(name)
    quantised = convert(model, config, shape).train()
    with torch.no_grad():
        quantised(inputs(shape, 32))
    return quantised.eval(), inputs(shape, 8, seed=2)


def execute(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    model = ModelWrapper(str(path)).transform(ChangeBatchSize(len(x))).transform(InferShapes())
    name = model.graph.input[0].name
    return execute_onnx(model, {name: x.astype(np.float32)}, return_full_exec_context=True)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("name", NETS)
def test_qonnx_computes_what_torch_does(tmp_path, name, config):
    model, x = started(name, CONFIGS[config])
    path = export_qonnx(model, tmp_path / "model.onnx")
    executed = execute(path, x.numpy())
    reference = layer_values(model, x.numpy())
    compared = {layer for layer in reference if layer in executed}
    for layer in compared:
        assert np.array_equal(executed[layer], reference[layer]), layer
    output = ModelWrapper(str(path)).graph.output[0].name
    assert output in compared
    assert np.array_equal(executed[output], predict(model, x.numpy(), dtype=torch.float64))
    assert len(np.unique(executed[output])) > 5
    # All but what a batch norm fuses before its result and a dropout that is left out.
    assert len(compared) >= len(reference) - 1


@pytest.mark.parametrize("config", [*CONFIGS.values(), QuantConfig()], ids=[*CONFIGS, "default"])
@pytest.mark.parametrize("name", NETS)
def test_the_exact_graph_computes_what_torch_does(tmp_path, name, config):
    model, x = started(name, config)
    graph = lower(export_qonnx(model, tmp_path / "model.onnx"))
    codes = interpret(graph, encode_inputs(graph, x.numpy()))[graph.outputs[0]]
    values = decode_output(graph, graph.outputs[0], codes)
    assert np.array_equal(values, predict(model, x.numpy(), dtype=torch.float64))
    assert len(np.unique(codes)) > 5


@st.composite
def windows(draw) -> tuple[nn.Module, tuple[int, ...]]:
    """A convolution or pool of any geometry, and the shape of its input."""
    axes, groups = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    sizes = st.integers(1, 3)
    kernel, stride, dilation = (tuple(draw(sizes) for _ in range(axes)) for _ in range(3))
    padding = tuple(draw(st.integers(0, size // 2)) for size in kernel)
    shape = (2 * groups, *(draw(st.integers(7, 9)) for _ in range(axes)))
    kind = draw(st.sampled_from(("Conv", "MaxPool", "AvgPool")))
    layer = getattr(nn, f"{kind}{axes}d")
    if kind == "Conv":
        bias = draw(st.booleans())
        out = groups * draw(sizes)
        return layer(shape[0], out, kernel, stride, padding, dilation, groups, bias), shape
    return layer(kernel, stride, padding, *([dilation] if kind == "MaxPool" else [])), shape


@settings(max_examples=40, deadline=None)
@given(windows(), st.integers(0, 10**6))
def test_any_window(tmp_path_factory, window, seed):
    layer, shape = window
    model = convert(nn.Sequential(layer), QuantConfig(per_channel=bool(seed % 2)), shape).eval()
    model(inputs(shape, 16))
    x = inputs(shape, 4, seed=seed).numpy()
    graph = lower(export_qonnx(model, tmp_path_factory.mktemp("window") / "model.onnx"))
    codes = interpret(graph, encode_inputs(graph, x))[graph.outputs[0]]
    assert np.array_equal(
        decode_output(graph, graph.outputs[0], codes), predict(model, x, dtype=torch.float64)
    )


@pytest.mark.slow
def test_trained_digits_on_the_whole_test_split(tmp_path):
    data = load_dataset("digits")
    config = TrainConfig(float_epochs=6, quantised_epochs=3, learning_rate=4e-3)
    model = train(build_model("digits-cnn", data), data, config, QuantConfig()).quantised_model
    executed = execute(export_qonnx(model, tmp_path / "model.onnx"), data.test_x)
    for layer, values in layer_values(model, data.test_x).items():
        assert np.array_equal(executed[layer], values), layer
        assert len(np.unique(values)) > 10
    assert np.mean(executed["classify_result"].argmax(1) == data.test_y) > 0.95


@pytest.mark.parametrize("name", model_names())
def test_built_in_models(tmp_path, name):
    data = load_dataset("digits")
    model = convert(build_model(name, data), QuantConfig(), data.image_shape).train()
    with torch.no_grad():
        model(torch.from_numpy(data.train_x[:64]).float())
    path = export_qonnx(model, tmp_path / "model.onnx")
    executed = execute(path, data.test_x[:32])
    reference = layer_values(model, data.test_x[:32])
    assert all(np.array_equal(executed[layer], values) for layer, values in reference.items())
    assert ModelWrapper(str(path)).get_tensor_datatype("x").name == "UINT8"


def test_the_file_is_standard(tmp_path):
    model, _ = started("residual", CONFIGS["plain"])
    written = onnx.load(export_qonnx(model, tmp_path / "model.onnx"))
    onnx.checker.check_model(written)
    assert {(item.domain, item.version) for item in written.opset_import} == {
        ("", 13),
        ("qonnx.custom_op.general", 1),
    }
    names = [node.name for node in written.graph.node]
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and name for name in names)
    assert {"stem", "body1", "norm", "add", "relu", "body2"} <= set(names)
    quantised = {node.output[0] for node in written.graph.node if node.op_type == "Quant"}
    constants = {tensor.name for tensor in written.graph.initializer}
    for node in written.graph.node:
        if node.op_type in ("Conv", "Mul", "Add"):
            assert not set(node.input) & constants, f"{node.name} reads a constant that no Quant has made"
        if node.op_type == "Conv":
            assert set(node.input) <= quantised


def test_scales_are_powers_of_two(tmp_path):
    model, _ = started("branches", CONFIGS["per channel"])
    written = ModelWrapper(str(export_qonnx(model, tmp_path / "model.onnx")))
    steps = [written.get_initializer(node.input[1]) for node in written.get_nodes_by_op_type("Quant")]
    assert steps
    assert all(np.all(np.frexp(step)[0] == 0.5) for step in steps)


BUILD = """
import sys
sys.path[:0] = {paths!r}
from test_export import CONFIGS, started
from qhw.export import export_qonnx
export_qonnx(started("branches", CONFIGS["own modes"])[0], sys.argv[1])
"""


@pytest.mark.slow
def test_same_weights_same_bytes_in_another_process(tmp_path):
    model, _ = started("branches", CONFIGS["own modes"])
    first = export_qonnx(model, tmp_path / "first.onnx")
    program = BUILD.format(paths=[str(Path(__file__).parent), str(Path(__file__).parents[1])])
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "second.onnx")], check=True)
    assert first.read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_state_dict_gives_the_same_file(tmp_path):
    model, _ = started("residual", CONFIGS["per channel"])
    first = export_qonnx(model, tmp_path / "first.onnx")
    again = convert(*build("residual", seed=5)[:1], CONFIGS["per channel"], (2, 8, 8))
    again.load_state_dict(model.state_dict())
    assert first.read_bytes() == export_qonnx(again, tmp_path / "second.onnx").read_bytes()


@pytest.mark.parametrize("rounding", Rounding)
@pytest.mark.parametrize("overflow", Overflow)
@pytest.mark.parametrize("signed", [True, False])
def test_what_qonnx_can_say(rounding, overflow, signed):
    if overflow is Overflow.WRAP_SM and not signed:
        return
    spec = Fixed(8, None, signed, rounding, overflow)
    saturates = overflow in (Overflow.SAT, Overflow.SAT_SYM)
    assert in_qonnx(spec) == (saturates and rounding not in (Rounding.RND, Rounding.RND_MIN_INF))
    assert not in_qonnx(Fixed(1))  # QONNX makes -1 and +1 of one signed bit, not -1 and 0


def test_no_data_seen_yet(tmp_path):
    model = convert(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), QuantConfig(), (1, 8, 8))
    with pytest.raises(InputError, match="seen no data"):
        export_qonnx(model, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_plain_models_are_refused(tmp_path):
    with pytest.raises(InputError, match="Sequential is not quantised"):
        export_qonnx(nn.Sequential(nn.Linear(3, 2)), tmp_path / "model.onnx", (3,))


def test_bad_weights(tmp_path):
    model, _ = started("mlp", CONFIGS["plain"])
    model.hidden.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"hidden\.weight are NaN"):
        export_qonnx(model, tmp_path / "model.onnx")


def test_constants_beyond_float32(tmp_path):
    net = Net(lambda m, x: m.a(x), a=nn.Linear(4, 2).double())
    nn.init.constant_(net.a.weight, 1 / 3)
    model = convert(net, QuantConfig(weights="fixed<30>"), (4,)).eval()
    model(inputs((4,), 8).double())
    with pytest.raises(UnsupportedError, match=r"a\.weight needs more bits than float32"):
        export_qonnx(model, tmp_path / "model.onnx")


def test_unwritable_place(tmp_path):
    model, _ = started("mlp", CONFIGS["plain"])
    with pytest.raises(InputError, match="cannot be written"):
        export_qonnx(model, tmp_path / "missing" / "model.onnx")


def own_layers(weights: object) -> nn.Module:
    """A user's own module of Brevitas's layers and qhw's."""
    return Net(
        lambda m, x: m.head(
            m.pool(m.add(m.relu(m.conv(m.entry(x))), m.norm(m.conv2(m.entry(x))))).flatten(1)
        ),
        entry=qnn.QuantIdentity(act_quant=activation_quantizer(Fixed(6))),
        conv=qnn.QuantConv2d(1, 4, 3, weight_quant=weights, bias_quant=bias_quantizer(Fixed(8))),
        relu=qnn.QuantReLU(act_quant=activation_quantizer(Fixed(6, signed=False))),
        conv2=qnn.QuantConv2d(1, 4, 3, bias=False, weight_quant=weight_quantizer(Fixed(5), True)),
        norm=QuantBatchNorm2d(4, scale=Fixed(5), bias=Fixed(6), result=Fixed(6)),
        add=QuantAdd(Fixed(6)),
        pool=nn.MaxPool2d(2),
        head=qnn.QuantLinear(
            36,
            3,
            bias=False,
            weight_quant=weight_quantizer(Fixed(4)),
            input_quant=activation_quantizer(Fixed(5)),
            output_quant=activation_quantizer(Fixed(7)),
        ),
    )


def test_a_users_own_module_of_quantised_layers(tmp_path):
    model = own_layers(weight_quantizer(Fixed(5)))
    model(inputs((1, 8, 8), 32))
    x = inputs((1, 8, 8), 8, seed=2)
    path = export_qonnx(model, tmp_path / "model.onnx", (1, 8, 8))
    executed = execute(path, x.numpy())
    assert np.array_equal(executed["head"], predict(model, x.numpy(), dtype=torch.float64))
    assert len(np.unique(executed["head"])) > 5
    graph = lower(path)
    codes = interpret(graph, encode_inputs(graph, x.numpy()))[graph.outputs[0]]
    assert np.array_equal(decode_output(graph, graph.outputs[0], codes), executed["head"])


def test_a_module_that_mixes_quantizers(tmp_path):
    model = own_layers(Int8WeightPerTensorFloat)
    model(inputs((1, 8, 8), 32))
    with pytest.raises(UnsupportedError, match=r"conv\.weight has no quantizer of qhw"):
        export_qonnx(model, tmp_path / "model.onnx", (1, 8, 8))


def test_a_users_own_brevitas_model(tmp_path):
    model = nn.Sequential(qnn.QuantIdentity(), qnn.QuantLinear(4, 3, bias=True, weight_bit_width=4)).eval()
    path = export_qonnx(model, tmp_path / "model.onnx", (4,))
    assert "Quant" in {node.op_type for node in onnx.load(path).graph.node}
