"""QONNX files in: what is cleaned, and one clear message for whatever is wrong."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper
from qonnx_factory import QONNX, Net, execute

from qhw.errors import InputError, QhwError, UnsupportedError
from qhw.graph.lower import lower
from qhw.graph.onnx_tools import attributes, initializers
from qhw.graph.reading import load, model_file
from qhw.graph.reading.load import load_qonnx


def small(**options: object) -> tuple[Net, str]:
    net = Net((4, 6), **options)
    return net, net.quant(net.x, 6, 0.25)


def test_constant_nodes_are_folded_and_every_shape_is_known(tmp_path: Path) -> None:
    net, x = small(batch="N")
    scale = net.node("Constant", value_float=0.5)
    y = net.node(
        "Quant",
        x,
        scale,
        net.node("Constant", value=helper.make_tensor("z", TensorProto.FLOAT, [], [0])),
        net.node("Constant", value=helper.make_tensor("b", TensorProto.FLOAT, [], [4])),
        domain="onnx.brevitas",
        signed=1,
        narrow=0,
        rounding_mode="ROUND",
    )
    shape = net.node("Shape", y)
    first = net.node("Gather", shape, net.constant(0, dtype=np.int64))
    target = net.node(
        "Concat",
        net.node("Unsqueeze", first, net.constant([0], dtype=np.int64)),
        net.constant([-1], dtype=np.int64),
        axis=0,
    )
    y = net.node("Reshape", net.node("Identity", net.node("Dropout", y)), target)
    path = tmp_path / "model.onnx"
    onnx.save(net.model(y), path)
    model = load_qonnx(path)
    assert [node.op_type for node in model.graph.node] == ["Quant", "Quant", "Reshape"]
    assert {node.domain for node in model.graph.node} == {QONNX, ""}
    assert model.get_tensor_shape(model.graph.output[0].name) == [1, 24]
    x = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    assert execute(model, x)[0].shape == (3, 24)  # the folded batch size of 1 is open again


def test_a_fixed_batch_becomes_one() -> None:
    net = Net((4, 6), batch=32)
    y = net.node("Reshape", net.quant(net.x, 6, 0.25), net.constant([32, 24], dtype=np.int64))
    model = load_qonnx(net.model(y))
    assert model.get_tensor_shape("x") == [1, 4, 6]
    assert model.get_tensor_shape(y) == [1, 24]
    assert lower(net.model(y)).tensors["x"].shape == (4, 6)


def test_the_given_model_is_not_changed() -> None:
    net, x = small(batch="N")
    model = net.model(net.node("Identity", x))
    before = model.SerializeToString()
    load_qonnx(model)
    assert model.SerializeToString() == before


def test_nodes_get_names_of_their_own() -> None:
    net, x = small()
    a, b = net.node("Relu", x), net.node("Relu", x)
    model = net.model(net.node("Add", a, b))
    for node in model.graph.node:
        node.name = "" if node.op_type == "Add" else "twin"
    names = [node.name for node in load_qonnx(model).graph.node]
    assert len(set(names)) == 4
    assert all(names)


def test_outputs_and_inputs_keep_their_names_without_identity() -> None:
    net, x = small()
    model = load_qonnx(net.model(net.node("Identity", x), net.node("Identity", net.x)))
    assert [value.name for value in model.graph.output] == ["identity1_out", "identity2_out"]
    assert [node.op_type for node in model.graph.node] == ["Quant", "Identity"]


def test_transposed_quantised_weights_are_stored_transposed() -> None:
    net, x = small()
    w = np.arange(18).reshape(3, 6) / 4
    quantised = net.quant(w, 6, 2.0 ** -np.arange(3).reshape(3, 1))
    model = net.model(net.node("MatMul", x, net.node("Transpose", quantised, perm=[1, 0])))
    loaded = load_qonnx(model)
    assert [node.op_type for node in loaded.graph.node] == ["Quant", "Quant", "MatMul"]
    values = np.random.default_rng(0).normal(size=(2, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(execute(loaded, values)[0], execute(model, values)[0])


def test_quantize_dequantize_pairs_become_quant() -> None:
    net = Net((6,))
    zero = net.constant(0, dtype=np.int8)
    quantised = net.node("QuantizeLinear", net.x, 0.25, zero)
    y = net.node("DequantizeLinear", quantised, 0.25, zero)
    model = load_qonnx(net.model(net.node("Relu", y)))
    assert [node.op_type for node in model.graph.node] == ["Quant", "Relu"]


def test_attributes_are_python_values() -> None:
    node = helper.make_node(
        "Foo", [], [], text="a", numbers=[1, 2], tensor=helper.make_tensor("t", 1, [2], [1, 2])
    )
    values = attributes(node)
    assert (values["text"], list(values["numbers"]), values["tensor"].tolist()) == ("a", [1, 2], [1.0, 2.0])


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an ONNX file"),
        (b"PK\x03\x04 not onnx", "not an ONNX file"),
        (b"\x08\x07", "not an ONNX file"),
    ],
)
def test_files_that_are_not_onnx(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_qonnx(path)
    assert str(path) in str(caught.value)


def test_missing_and_oversized_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_qonnx(tmp_path / "nothing.onnx")
    with pytest.raises(InputError, match="cannot be read"):
        load_qonnx(tmp_path)
    monkeypatch.setattr(model_file, "MODEL_SIZE_LIMIT", 10)
    (tmp_path / "big.onnx").write_bytes(bytes(11))
    with pytest.raises(InputError, match="is too large"):
        load_qonnx(tmp_path / "big.onnx")


def test_no_quantisation() -> None:
    net = Net((4,))
    with pytest.raises(InputError, match="holds no quantisation") as caught:
        load_qonnx(net.model(net.node("Relu", net.x)))
    assert "qhw.convert" in str(caught.value)


def test_unsupported_operators_are_named_with_what_is_supported() -> None:
    net, x = small()
    model = net.model(
        net.node("Softplus", net.node("LRN", net.node("LpNormalization", x), size=3), name="last")
    )
    with pytest.raises(
        UnsupportedError, match="is a LpNormalization, which is not supported; 1 more"
    ) as caught:
        load_qonnx(model)
    assert "MaxPool" in str(caught.value)
    assert "MultiThreshold" in str(caught.value)


def test_domains_are_never_imported() -> None:
    net, x = small()
    model = net.model(net.node("Foo", x, domain="antigravity", name="evil"))
    with pytest.raises(UnsupportedError, match=r"Node 'evil' is a Foo \(domain 'antigravity'\)"):
        load_qonnx(model)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite(value: float) -> None:
    net, x = small()
    w = np.ones((6, 3), dtype=np.float32)
    w[2, 1] = value
    y = net.node("MatMul", x, net.quant(net.constant(w, "fc.weight"), 4, 0.25, name="fc_quant"))
    with pytest.raises(InputError, match=r"Quant 'fc_quant': its constant 'fc.weight' holds .* at \(2, 1\)"):
        load_qonnx(net.model(y))


def test_dynamic_shapes() -> None:
    net = Net(("height", 6), batch="N")
    with pytest.raises(InputError, match=r"Axis 1 of the input 'x' is dynamic \(height\)"):
        load_qonnx(net.model(net.quant(net.x, 6, 0.25)))


def broken(change: Callable[[ModelProto], None]) -> ModelProto:
    net, x = small()
    y = net.node("Relu", x, name="act")
    model = net.model(net.node("Transpose", y, perm=[0, 2, 1], name="turn"))
    change(model)
    return model


def _drop_nodes(model: ModelProto) -> None:
    del model.graph.node[:]


def _external(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")


def _loop(model: ModelProto) -> None:
    model.graph.node[1].input[0] = model.graph.node[2].output[0]


BROKEN: dict[str, tuple[Callable[[ModelProto], object], str]] = {
    "no nodes": (_drop_nodes, "holds no nodes"),
    "external": (_external, "stored in another file"),
    "sparse": (lambda m: m.graph.sparse_initializer.add(), "sparse constants"),
    "old opset": (lambda m: setattr(m.opset_import[0], "version", 5), "opset 5"),
    "new opset": (lambda m: setattr(m.opset_import[0], "version", 999), "opset 999"),
    "loose input": (lambda m: m.graph.node[1].input.__setitem__(0, "ghost"), "Relu 'act' reads 'ghost'"),
    "loose output": (lambda m: setattr(m.graph.output[0], "name", "ghost"), "reads 'ghost'"),
    "written twice": (lambda m: m.graph.node[2].output.__setitem__(0, "x"), "written twice"),
    "loop": (_loop, "cannot be put in order"),
    "unknown attribute": (lambda m: m.graph.node[1].attribute.add(name="a", type=1), "not valid ONNX"),
    "rank": (lambda m: m.graph.node[2].attribute[0].ints.append(3), "Transpose 'turn'"),
    "no batch": (lambda m: m.graph.input[0].type.tensor_type.ClearField("shape"), "no batch axis"),
    "strings": (
        lambda m: m.graph.initializer[1].CopyFrom(helper.make_tensor("c1", TensorProto.STRING, [], [b"a"])),
        "has type",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_models(case: str) -> None:
    change, message = BROKEN[case]
    with pytest.raises(QhwError, match=message):
        lower(broken(change))


def test_training_mode_is_refused() -> None:
    net, x = small()
    y = net.node("Dropout", x, 0.5, net.constant(True, dtype=np.bool_))
    with pytest.raises(UnsupportedError, match="training mode"):
        load_qonnx(net.model(y))


def test_huge_tensors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "TENSOR_SIZE_LIMIT", 20)
    net, x = small()
    with pytest.raises(InputError, match=r"has shape \(1, 4, 6\)"):
        load_qonnx(net.model(x))


def test_constants_do_not_grow_without_bound() -> None:
    net, x = small()
    wide = net.node("Add", np.zeros((1 << 15, 1)), np.zeros((1, 1 << 15)))
    with pytest.raises(QhwError, match="has shape"):
        load_qonnx(net.model(x, net.node("Relu", wide)))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_files_end_in_one_message(data: st.DataObject) -> None:
    """Bytes of a good file changed at random: it loads, or a QhwError says why not; nothing else."""
    net, x = small()
    y = net.node("Gemm", net.node("Flatten", x), net.quant(np.ones((3, 24)), 4, 0.25), transB=1)
    content = bytearray(net.model(net.quant(y, 4, 1.0)).SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(QhwError, DecodeError):
        lower(ModelProto.FromString(bytes(content)))


def test_initializers_are_arrays() -> None:
    net, x = small()
    assert set(initializers(net.model(x).graph)) == {"c0", "c1", "c2"}
