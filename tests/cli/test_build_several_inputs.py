"""``qhw`` with networks of several inputs: from a user's file to the C-simulation, and files with data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from qonnx_factory import Net

import qhw
from qhw.errors import InputError

SOURCE = """
import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn


def data():
    images, y = load_digits(return_X_y=True)
    rows = images.reshape(-1, 8, 8).sum(axis=2) / 40 - 1
    return {"rows": rows.astype("float32"), "image": images.reshape(-1, 1, 8, 8).astype("uint8")}, y


def in_another_order():
    samples, y = data()
    return (samples["rows"], samples["image"]), y


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4)
        self.rows, self.classify = nn.Linear(8, 12), nn.Linear(48, 10)

    def forward(self, image, rows):
        seen = torch.relu(self.norm(self.conv(image))).flatten(1)
        return self.classify(torch.cat((seen, torch.relu(self.rows(rows))), 1))
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qhw", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=800, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the user's file, and the data in an .npz file."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "two.py").write_text(SOURCE)
    names: dict[str, Any] = {}
    exec(SOURCE, names)
    samples, y = names["data"]()
    splits = {"train": slice(400, None), "test": slice(400)}
    stored = {
        f"{split}_{name}": part[rows]
        for split, rows in splits.items()
        for name, part in {**samples, "y": y}.items()
    }
    np.savez(folder / "two.npz", **stored)
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("io_type", ["io_parallel", "io_stream"])
def test_from_a_users_file_to_the_c_simulation(folder: Path, io_type: str) -> None:
    given = ("two.py:Net", "--board", "pynq-z2", "--data", "two.npz", "--out", io_type, "--io-type", io_type)
    epochs = ("--float-epochs", "6", "--quantised-epochs", "2", "--vectors", "100")
    preprocess = (
        ("--preprocess", "image.scale=1/16 image.mean=0.3 rows.std=0.5") if "stream" in io_type else ()
    )
    done = run(folder, "build", *given, *epochs, *preprocess, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    rows = document["verification"]
    assert [row["backend"] for row in rows][-1] == "hls4ml C-simulation"
    assert [row["mismatches"] for row in rows] == [0] * len(rows)
    # Of the sums that qonnx's float32 does not hold, its row says nothing.
    assert all(row["codes_compared"] > (100 if row["backend"] == "qonnx" else 1000) for row in rows)
    assert rows[-1]["distinct_codes"] > 100
    assert document["accuracy"]["quantised"] > 0.6
    build, model = folder / io_type, folder / io_type / "model.onnx"
    for backend in ("exact", "csim"):
        result = qhw.simulate(build, backend=backend, samples=20)
        assert result.accuracy == qhw.simulate(model, data=str(folder / "two.npz"), samples=20).accuracy
    difference = qhw.diff(build, model)
    assert difference.equal
    assert {"Input"} == {layer.op for layer in difference.comparison.layers[:2]}
    assert qhw.cost(build, io_type=io_type).estimate.totals == document["resources"]["estimated"]
    stored = np.load(folder / "two.npz")
    arrays = {name: stored[f"test_{name}"] for name in ("rows", "image")}
    np.savez(folder / "inputs.npz", **arrays)
    told = run(folder, "simulate", io_type, "--input", "inputs.npz", "--json")
    assert told.returncode == 0, told.stderr
    predicted = np.array(json.loads(told.stdout)["predictions"])
    assert np.mean(predicted == stored["test_y"]) == document["accuracy"]["quantised"]


@pytest.mark.slow
def test_one_message_says_what_does_not_fit(folder: Path) -> None:
    given = ("build", "two.py:Net", "--board", "pynq-z2", "--out", "none", "--data")
    for more, says in (
        (("two.py:in_another_order",), "argument 'image' of shape (2, 8)"),
        (("digits",), "takes 2 inputs (image, rows), data set digits has one input"),
        (("two.npz", "--preprocess", "scale=1/16"), "does not say for which input"),
        (("two.npz", "--preprocess", "img.scale=1/16"), "is for input 'img'"),
    ):
        done = run(folder, *given, *more)
        assert done.returncode == 2
        assert says in " ".join(done.stderr.split())
        assert not (folder / "none").exists()


# --- files


RNG = np.random.default_rng(2)
PIXELS = RNG.integers(0, 256, (30, 1, 4, 4)).astype(np.uint8)
DEPTHS = RNG.integers(0, 200, (30, 1, 4, 4)).astype(np.uint8)
LABELS = np.arange(30) % 2


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Two inputs that nothing quantises, read in another order than they are listed in."""
    net = Net((1, 4, 4))
    net.inputs.append(helper.make_tensor_value_info("depth", TensorProto.FLOAT, [1, 1, 4, 4]))

    def weight(*shape: int) -> str:
        return net.quant(RNG.integers(-7, 8, shape) * 0.25, 4, 0.25)

    second = net.node("Conv", "depth", weight(2, 1, 3, 3), kernel_shape=[3, 3])
    first = net.node("Conv", "x", weight(2, 1, 3, 3), kernel_shape=[3, 3])
    total = net.quant(net.node("Add", net.quant(second, 8, 8.0), net.quant(first, 8, 8.0)), 6, 32.0)
    scores = net.node("MatMul", net.node("Flatten", total), weight(8, 2))
    onnx.save(net.model(scores), tmp_path / "two.onnx")
    return tmp_path / "two.onnx"


def test_a_files_inputs_are_told_their_types_by_name(file: Path) -> None:
    arrays = {"depth": DEPTHS, "x": PIXELS}
    with pytest.raises(InputError, match="the model has 2 inputs"):
        qhw.simulate(file, inputs=arrays, input="uint8")
    with pytest.raises(InputError, match="the input 'depht', which the model has not"):
        qhw.simulate(file, inputs=arrays, input="x=uint8,depht=uint8")
    with pytest.raises(InputError, match="'uint99' is not an integer type"):
        qhw.simulate(file, inputs=arrays, input="x=uint8,depth=uint99")
    by_name = qhw.simulate(file, inputs=arrays, input="depth=uint8,x=uint8")
    by_data = qhw.simulate(file, data=(({"depth": DEPTHS, "x": PIXELS}), LABELS))
    in_order = qhw.simulate(file, data=((PIXELS, DEPTHS), LABELS))
    np.testing.assert_array_equal(by_data.predictions(), in_order.predictions())
    assert by_data.accuracy == in_order.accuracy
    codes = qhw.simulate(file, inputs={"x": PIXELS, "depth": DEPTHS}, input="x=uint8,depth=uint8")
    (name,) = codes.values
    np.testing.assert_array_equal(codes.values[name], by_name.values[name])
    assert len(np.unique(codes.values[name])) > 10
    by_qonnx = qhw.simulate(file, inputs=arrays, input="x=uint8,depth=uint8", backend="qonnx")
    np.testing.assert_array_equal(by_qonnx.values[name], codes.values[name])


def test_arrays_of_another_file_are_refused(file: Path, tmp_path: Path) -> None:
    types = "x=uint8,depth=uint8"
    for inputs, says in (
        (PIXELS, "has 2 inputs: x, depth"),
        ({"x": PIXELS}, "arrays are given for x"),
        ({"x": PIXELS, "y": DEPTHS}, "has no input 'depth': its inputs are x, y"),
        ({"x": PIXELS, "depth": DEPTHS[:3]}, "different numbers of samples: 'x' 30, 'depth' 3"),
        ({"x": PIXELS[:, :, :3], "depth": DEPTHS}, "input 'x' has shape"),
    ):
        with pytest.raises(InputError, match=says):
            qhw.simulate(file, inputs=inputs, input=types)
    with pytest.raises(InputError, match=r"takes 2 inputs \(x, depth\), data set tuple has one input"):
        qhw.simulate(file, data=(PIXELS, LABELS))
    np.savez(tmp_path / "arrays.npz", depth=DEPTHS, x=PIXELS)
    stored = qhw.simulate(file, inputs=tmp_path / "arrays.npz", input=types)
    given = qhw.simulate(file, inputs={"x": PIXELS, "depth": DEPTHS}, input=types)
    np.testing.assert_array_equal(stored.predictions(), given.predictions())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_file_is_built_on_data_for_each_input(file: Path, tmp_path: Path) -> None:
    data = ({"depth": DEPTHS, "x": PIXELS}, LABELS)
    result = qhw.build(file, board="pynq-z2", data=data, out=tmp_path / "built")
    annotated = result.manifest["model"]["annotated"]
    assert [(one["input"], one["type"]) for one in annotated] == [("x", "uint8"), ("depth", "uint8")]
    rows = result.manifest["verification"]
    assert [row["mismatches"] for row in rows] == [0] * len(rows)
    assert rows[-1]["backend"] == "hls4ml C-simulation"
    assert result.graph.inputs == ("x", "depth")
    assert "depth" in str(result.tables()[0].rows)
