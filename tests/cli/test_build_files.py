"""``qhw build`` of files with operations of many kinds, two outputs, a head on the host and odd names."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from qonnx_factory import Net, execute

from qhw.data import load_dataset


def many_kinds() -> onnx.ModelProto:
    """Enlarged twice (ConvTranspose, Resize), joined, gated by a Sigmoid, classified twice; 8x8 pixels."""
    random = np.random.default_rng(3)
    net = Net((1, 8, 8))
    net.annotations["x"] = "UINT5"

    def weight(*shape: int) -> str:
        return net.quant(random.integers(-7, 8, shape) * 0.125, 4, 0.125)

    def positive(x: str) -> str:
        return net.quant(net.node("Relu", x), 6, 0.5, signed=0)

    first = positive(
        net.node("Conv", "x", weight(4, 1, 3, 3), name="class", kernel_shape=[3, 3], pads=[1] * 4)
    )
    large = net.node("ConvTranspose", first, weight(4, 4, 2, 2), kernel_shape=[2, 2], strides=[2, 2])
    large = net.node("MaxPool", net.quant(large, 6, 0.5), kernel_shape=[2, 2], strides=[2, 2])
    nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    large = net.node("Resize", large, "", [1, 1, 2, 2], mode="nearest", **nearest)
    large = net.node("MaxPool", large, kernel_shape=[2, 2], strides=[2, 2])
    joined = net.node("Concat", first, large, axis=1)
    joined = positive(net.node("Conv", joined, weight(6, 8, 1, 1), name="größe 重み", kernel_shape=[1, 1]))
    mean = net.quant(net.node("GlobalAveragePool", joined), 6, 0.5, signed=0)
    gate = net.quant(net.node("Conv", mean, weight(6, 6, 1, 1), kernel_shape=[1, 1]), 6, 0.25)
    gate = net.quant(net.node("Sigmoid", gate), 6, 2.0**-6, signed=0)
    flat = net.node("Flatten", net.quant(net.node("Mul", joined, gate), 6, 0.5, signed=0), axis=1)
    scores = net.quant(net.node("MatMul", flat, weight(384, 10), name="n" * 1000), 8, 4.0)
    rest = net.quant(net.node("MatMul", flat, weight(384, 3), name="int"), 8, 2.3)
    return net.model(net.node("Softmax", scores, axis=1, name="probability"), rest)


@pytest.mark.slow
@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
def test_many_kinds_of_operations_are_built_exactly(tmp_path: Path, io_type: str) -> None:
    model = many_kinds()
    onnx.save(model, tmp_path / "net.onnx")
    given = ("net.onnx", "--board", "zcu102", "--data", "digits", "--out", "out", "--io-type", io_type)
    command = [sys.executable, "-m", "qhw", "build", *given, "--vectors", "12", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=800, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["verification"][-1]["backend"] == "hls4ml C-simulation"
    assert [row["mismatches"] for row in document["verification"]] == [0] * len(document["verification"])
    (step,) = document["model"]["postprocessing"]
    assert (step["op"], step["outputs"]) == ("Softmax", ["probability_out"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "out"]

    data = load_dataset("digits")
    probabilities, _ = execute(model, data.test_x.astype(np.float32))
    right = np.mean(probabilities.argmax(axis=1) == data.test_y)
    assert document["accuracy"]["quantised"] == pytest.approx(right, abs=1e-12)
