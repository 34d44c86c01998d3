"""What follows the last layer on the host, where a user sees it: simulate, its accuracy, build.json."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

import qhw
from qhw.data import Dataset
from qhw.errors import InputError
from qhw.graph.lower import lower
from qhw.pipeline import manifest
from qhw.pipeline.build_stages import host_steps

sys.path.insert(0, str(Path(__file__).parents[1] / "pipeline"))
from test_manifest import EXAMPLE

RNG = np.random.default_rng(11)
IMAGES = RNG.integers(0, 256, size=(60, 1, 4, 4), dtype=np.uint8)


def network(*heads: tuple[str, dict[str, Any]]) -> ModelProto:
    """8-bit pixels, one layer, heads in a row: the answer is the smallest of the layer's results."""
    constants = {
        "scale": np.float32(1),
        "zero": np.uint8(0),
        "step": np.float32(2**-10),
        "none": np.int8(0),
        "w": RNG.integers(-9, 10, size=(16, 5), dtype=np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("Flatten", ["d"], ["f"]),
        helper.make_node("DequantizeLinear", ["w", "step", "none"], ["wd"]),
        helper.make_node("MatMul", ["f", "wd"], ["y0"]),
    ]
    for index, (op, options) in enumerate(heads):
        nodes.append(helper.make_node(op, [f"y{index}"], [f"y{index + 1}"], name=f"head{index}", **options))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])],
        [helper.make_empty_tensor_value_info(f"y{len(heads)}")],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def answers(model: ModelProto) -> np.ndarray:
    options = onnxruntime.SessionOptions()  # optimised, it multiplies the weights' codes in another way
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return np.concatenate([session.run(None, {"x": i[None].astype(np.float32)})[0] for i in IMAGES])


@pytest.mark.parametrize(
    ("heads", "is_index"),
    [
        ([("ArgMin", {"axis": 1, "keepdims": 0})], True),
        ([("Softmax", {"axis": 1}), ("ArgMax", {"axis": 1}), ("Flatten", {})], True),
        ([("Softmax", {"axis": 1})], False),
        ([], False),
    ],
)
def test_accuracy_is_of_the_files_own_answers(
    tmp_path: Path, heads: list[tuple[str, dict[str, Any]]], is_index: bool
) -> None:
    model = network(*heads)
    onnx.save(model, tmp_path / "model.onnx")
    expected = answers(model)
    classes = expected.reshape(60, -1)[:, 0] if is_index else expected.argmax(axis=1)
    labels = np.where(np.arange(60) % 3, classes, (classes + 1) % 5).astype(np.int64)
    data = Dataset("made", "a test", IMAGES, labels, IMAGES, labels, 5, -8)
    result = qhw.simulate(tmp_path / "model.onnx", data=data)
    np.testing.assert_array_equal(result.predictions(), classes)
    assert result.accuracy == pytest.approx(40 / 60)
    (values,) = result.values.values()
    np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-7)
    assert list(result.to_json()["outputs"].values()) == [list(expected.shape[1:])]


def test_the_manifest_lists_it() -> None:
    graph = lower(network(("Softmax", {"axis": 1}), ("ArgMax", {"axis": 1, "keepdims": 0})))
    document = copy.deepcopy(EXAMPLE)
    document["model"]["postprocessing"] = host_steps(graph)
    manifest.validate(document)
    first, second = document["model"]["postprocessing"]
    assert (first["op"], first["source"], first["inputs"], first["outputs"]) == (
        "Softmax",
        "head0",
        ["y0"],
        ["y1"],
    )
    assert second["attributes"] == {"axes": [1], "keepdims": 0, "select_last_index": 0}
    assert (first["shapes"], second["shapes"]) == ([[5]], [[]])
    del first["source"]
    with pytest.raises(InputError, match="'source' is a required property"):
        manifest.validate(document)
    assert host_steps(lower(network())) == []
