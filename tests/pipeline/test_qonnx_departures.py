"""A file on which qonnx itself departs from the specification: noted in build.json, and still verified."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

import qhw
from qhw.formats import Minifloat
from qhw.graph.encode import encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower
from qhw.graph.reading.load import load_qonnx
from qhw.pipeline import verification

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "graph"))

from qonnx_factory import Net, execute

DEPARTING = {"w": "has_subnormal=0, which qonnx ignores", "act": "has_subnormal=0, which qonnx ignores"}


def saved(folder: Path, scale: float) -> Path:
    """Two layers in E3M2; one weight and one activation without subnormals."""
    net, random = Net((3, 6, 6)), np.random.default_rng(0)
    x = net.float_quant("x", 3, 2, scale, name="first")
    weight = net.float_quant(random.normal(0, 1, (4, 3, 3, 3)), 3, 2, scale / 2, has_subnormal=0, name="w")
    x = net.node("Conv", x, weight, kernel_shape=[3, 3], name="conv")
    x = net.float_quant(net.node("Relu", x), 3, 2, scale * 4, has_subnormal=0, name="act")
    dense = net.float_quant(random.normal(0, 1, (64, 5)), 3, 2, scale)
    x = net.node("MatMul", net.node("Flatten", x, axis=1), dense, name="fc")
    path = folder / "model.onnx"
    onnx.save(net.model(net.float_quant(x, 3, 2, scale * 8, name="last")), path)
    return path


def images(scale: float) -> np.ndarray:
    """Every number of the format is there, the subnormal ones too."""
    numbers = Minifloat(3, 2).enumerate() * scale
    return np.random.default_rng(1).choice(numbers, (16, 3, 6, 6)).astype(np.float32)


@pytest.mark.parametrize("scale", [0.25, 0.2371])
def test_such_nodes_are_executed_as_specified(scale: float, tmp_path: Path) -> None:
    path, x = saved(tmp_path, scale), images(scale)
    graph = lower(path)
    expected = interpret(graph, encode_inputs(graph, x), keep="all")
    assert verification.departures_of_qonnx(load_qonnx(path)) == DEPARTING
    row = verification.qonnx_row(graph, expected, {"x": x}, path)
    assert (row["mismatches"], row["backend"]) == (0, "qonnx, FloatQuant as specified")
    assert row["layers"] >= 2
    ours = np.ldexp(expected["last"].astype(np.float64), Minifloat(3, 2).exponent) * (scale * 8)
    assert (np.abs(execute(load_qonnx(path), x)[0] - ours) > 1e-6).any(), "qonnx alone would differ"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_build_notes_them(tmp_path: Path) -> None:
    built = qhw.build(saved(tmp_path, 0.2371), board="ultra96", out=tmp_path / "out").manifest
    assert built["model"]["qonnx_departs"] == DEPARTING
    original = built["model"]["canonical"]
    assert "not a power of two" in original["reason"]
    assert original["differing"] <= 0.01 * original["codes_compared"]
    rows = {row["backend"]: row for row in built["verification"]}
    assert {"canonical.onnx", "hls4ml C-simulation"} <= set(rows)
    assert {row["mismatches"] for row in rows.values()} == {0}
