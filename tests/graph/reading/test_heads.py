"""Softmax, ArgMax and their like at the end of a file: off the graph, recorded, and done on the host.

The oracle is onnxruntime on the file, its quantizers written as QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper
from qonnx_factory import Net

from qhw.errors import QhwError, UnsupportedError
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.graph.passes import simplify
from qhw.graph.reading.heads import postprocessing_of
from qhw.graph.reading.load import load_qonnx
from qhw.graph.serialize import graph_hash, load_graph, save_graph
from qhw.sim.postprocess import postprocess, predicted_classes

ROUNDED = {"Softmax", "LogSoftmax", "Sigmoid", "Tanh"}


def qdq(net: Net, x: Any, scale: float = 0.25, zero: int = 0, dtype: Any = np.int8) -> str:
    parameters = net.constant(scale), net.constant(zero, dtype=dtype)
    return net.node("DequantizeLinear", net.node("QuantizeLinear", x, *parameters), *parameters)


def logits(opset: int = 17, shape: tuple[int, ...] = (12,), classes: int = 7) -> tuple[Net, str]:
    """A layer whose results, multiples of 1/8, hold ties."""
    net = Net(shape, opset=opset)
    w = np.random.default_rng(3).integers(-3, 4, size=(shape[-1], classes)) / 2
    return net, net.node("MatMul", qdq(net, net.x), qdq(net, w, 0.5), name="layer")


def in_onnxruntime(model: ModelProto, x: np.ndarray) -> list[np.ndarray]:
    """Sample by sample, as the files fix the batch."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    copy = ModelProto()
    copy.CopyFrom(model)
    outputs = [value.name for value in copy.graph.output]
    del copy.graph.output[:]
    copy.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outputs)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), options)
    results = [session.run(None, {"x": x[i : i + 1]}) for i in range(len(x))]
    return [np.concatenate(parts) for parts in zip(*results, strict=True)]


def on_the_host(graph: ExactGraph, x: np.ndarray) -> tuple[dict[str, Any], dict[str, Any]]:
    mantissas = interpret(graph, encode_inputs(graph, x))
    values = {name: decode_output(graph, name, mantissas[name]) for name in graph.outputs}
    return values, postprocess(graph, values)


def samples(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).normal(size=(40, *shape)).astype(np.float32)


HEADS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "softmax": [("Softmax", {"axis": -1})],
    "softmax of the default axis": [("Softmax", {})],
    "log softmax": [("LogSoftmax", {"axis": 1})],
    "hardmax": [("Hardmax", {"axis": 1})],
    "sigmoid": [("Sigmoid", {})],
    "tanh": [("Tanh", {})],
    "argmax": [("ArgMax", {"axis": 1, "keepdims": 0})],
    "argmin, the last": [("ArgMin", {"axis": -1, "select_last_index": 1})],
    "argmax, the last": [("ArgMax", {"axis": -1, "select_last_index": 1})],
    "softmax, argmax, cast": [
        ("Softmax", {"axis": 1}),
        ("ArgMax", {"axis": 1, "keepdims": 1}),
        ("Cast", {"to": TensorProto.INT32}),
        ("Flatten", {}),
    ],
}


@pytest.mark.parametrize("name", HEADS)
def test_heads_are_what_onnxruntime_computes(name: str) -> None:
    net, y = logits()
    for op, options in HEADS[name]:
        y = net.node(op, y, **options)
    model = net.model(y)
    graph = lower(model)
    after = graph.postprocessing
    assert after is not None
    assert [step.op for step in after.steps] == [op for op, _ in HEADS[name]]
    assert (after.reads, after.outputs) == (("layer_out",), (y,))
    assert {node.op for node in graph.nodes} == {"MatMul"}
    x = samples(12)
    (expected,) = in_onnxruntime(model, x)
    values, found = on_the_host(graph, x)
    assert list(found) == [y]
    assert found[y].shape == expected.shape == (40, *after.steps[-1].shapes[0])
    assert found[y].dtype == expected.dtype
    if ROUNDED & {HEADS[name][-1][0]}:
        np.testing.assert_allclose(found[y], expected, rtol=3e-6, atol=1e-7)
    else:
        np.testing.assert_array_equal(found[y], expected)
    first = values[graph.outputs[0]]
    chosen = predicted_classes(graph, values)
    is_index = "arg" in name
    np.testing.assert_array_equal(chosen, expected.reshape(-1) if is_index else first.argmax(axis=1))


def test_ties_are_there() -> None:
    """What the order of equals decides is decided in the cases above: some largest values come twice."""
    net, y = logits()
    values, _ = on_the_host(lower(net.model(y)), samples(12))
    first = values[next(iter(values))]
    assert ((first == first.max(axis=1, keepdims=True)).sum(axis=1) > 1).any()


@pytest.mark.parametrize(("opset", "largest"), [(9, 1), (11, 0), (11, 1), (17, 0), (17, 1)])
def test_top_k_has_two_outputs(opset: int, largest: int) -> None:
    net, y = logits(13)
    if opset == 9:
        # QuantizeLinear came with opset 10: the layer is written without it
        net = Net((12,), opset=9)
        y = net.node("MatMul", net.quant(net.x, 8, 0.25), net.quant(np.eye(12, 7), 8, 0.5), name="layer")
        names = net.node("TopK", y, outputs=2, k=3)
    else:
        k = net.constant([3], dtype=np.int64)
        names = net.node("TopK", y, k, outputs=2, axis=-1, largest=largest, sorted=1)
        net.opset = opset
    model = net.model(*names)
    graph = lower(model)
    values, found = on_the_host(graph, samples(12))
    assert list(found) == names
    if opset == 9:
        layer = values[graph.outputs[0]].astype(np.float32)
        expected = [np.sort(layer, axis=1)[:, ::-1][:, :3], np.argsort(-layer, axis=1, kind="stable")[:, :3]]
    else:
        expected = in_onnxruntime(model, samples(12))
    for name, wanted in zip(names, expected, strict=True):
        np.testing.assert_array_equal(found[name], wanted)


def test_softmax_of_old_opsets_takes_all_later_axes() -> None:
    for opset, axis in ((11, 1), (11, 2), (11, None), (13, 1)):
        net = Net((3, 4), opset=opset)
        y = net.node("Softmax", qdq(net, net.x), **({} if axis is None else {"axis": axis}))
        model = net.model(y)
        _, found = on_the_host(lower(model), samples(3, 4))
        (expected,) = in_onnxruntime(model, samples(3, 4))
        np.testing.assert_allclose(found[y], expected, rtol=3e-6, atol=1e-7)


def test_one_of_two_outputs_has_a_head() -> None:
    net, y = logits()
    probabilities, label = net.node("Softmax", y, axis=1), net.node("ArgMax", y, axis=1, keepdims=0)
    other = qdq(net, net.node("Relu", y), 0.5)
    model = net.model(other, probabilities, label, y)
    graph = lower(model)
    assert graph.postprocessing is not None
    assert graph.postprocessing.reads == (other, y)
    assert graph.postprocessing.outputs == (other, probabilities, label, y)
    assert len(graph.outputs) == 2
    _, found = on_the_host(graph, samples(12))
    expected = dict(zip((other, probabilities, label, y), in_onnxruntime(model, samples(12)), strict=True))
    assert list(found) == list(expected)
    for name in (other, label, y):
        np.testing.assert_array_equal(found[name], expected[name])
    np.testing.assert_allclose(found[probabilities], expected[probabilities], rtol=3e-6)


def test_quantised_probabilities() -> None:
    """ONNX Runtime's exporter quantises every result, that of a Softmax, too."""
    for zero, dtype in ((0, np.uint8), (-128, np.int8), (37, np.uint8)):
        net, y = logits()
        y = qdq(net, net.node("Softmax", y, axis=1), 1 / 256, zero, dtype)
        model = net.model(y)
        graph = lower(model)
        _, found = on_the_host(graph, samples(12))
        (expected,) = in_onnxruntime(model, samples(12))
        far = np.abs(found[y] - expected)
        assert far.max() <= 1 / 256  # a rounding of Softmax's may carry it over a tie
        assert (far > 0).mean() < 0.02


def test_a_quantised_sigmoid_stays_in_the_graph() -> None:
    net, y = logits()
    model = net.model(qdq(net, net.node("Sigmoid", y), 1 / 128))
    graph = lower(model)
    assert graph.postprocessing is None
    assert "Threshold" in {node.op for node in graph.nodes}


def test_what_is_no_end_is_refused_with_its_cause() -> None:
    net, y = logits()
    y = net.node("MatMul", net.node("Softmax", y, axis=1, name="attention"), qdq(net, np.eye(7), 0.5))
    with pytest.raises(
        UnsupportedError, match="'attention' is a Softmax, which is not supported: it divides"
    ):
        load_qonnx(net.model(y))
    net, y = logits()
    with pytest.raises(QhwError, match=r"batch axis|across the samples"):
        load_qonnx(net.model(net.node("ArgMax", y, axis=0)))


def test_heads_are_kept_in_files_and_by_passes(tmp_path: Path) -> None:
    net, y = logits()
    names = net.node("TopK", y, net.constant([2], dtype=np.int64), outputs=2, axis=1)
    with_head = lower(net.model(*names))
    net, y = logits()
    without = lower(net.model(y))
    for graph in (with_head, without):
        save_graph(graph, tmp_path)
        loaded = load_graph(tmp_path)
        assert loaded.postprocessing == graph.postprocessing
        assert graph_hash(loaded) == graph_hash(graph)
        assert simplify(loaded).postprocessing == graph.postprocessing
    assert (
        "postprocessing" not in (tmp_path / "graph.json").read_text()
    )  # as graphs were before there were heads
    assert graph_hash(with_head) != graph_hash(without)


def test_a_copy_of_a_loaded_model_tells_its_heads() -> None:
    net, y = logits()
    loaded = load_qonnx(net.model(net.node("ArgMax", y, axis=1)))
    found = postprocessing_of(loaded)
    assert found is not None
    again = onnx.ModelProto.FromString(loaded.model.SerializeToString())
    assert postprocessing_of(type(loaded)(again)) == found
    assert postprocessing_of(load_qonnx(net.model(y))) is None
