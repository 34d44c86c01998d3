"""resnet8 on Fashion-MNIST the whole way: its C-simulation against the exact graph, layer by layer."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import qhw
from qhw.data import Dataset, load_dataset
from qhw.data.fashion_mnist import DEBIAN_FOLDER
from qhw.graph.serialize import load_graph
from qhw.train import TrainConfig

SAMPLES = 100


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not DEBIAN_FOLDER.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_a_hundred_images_have_the_exact_graphs_codes_in_every_layer(tmp_path: Path) -> None:
    """Briefly trained: real weights on real images; tests/test_train.py tells how accurate it gets."""
    data = load_dataset("fashion-mnist")
    short = dataclasses.replace(
        data,
        train_x=data.train_x[:4000],
        train_y=data.train_y[:4000],
        test_x=data.test_x[:500],
        test_y=data.test_y[:500],
    )
    result = qhw.build(
        "resnet8",
        board="zcu104",
        data=short,
        training=TrainConfig(float_epochs=1, quantised_epochs=1),
        vectors=SAMPLES,
        out=tmp_path / "out",
    )
    rows = {(row["backend"], row["reference"]): row for row in result.manifest["verification"]}
    assert all(row["mismatches"] == 0 for row in rows.values())
    simulated = rows["hls4ml C-simulation", "exact graph"]
    assert simulated["vectors"] >= SAMPLES
    assert simulated["layers"] >= 10
    assert simulated["distinct_codes"] > 500
    outputs = load_graph(tmp_path / "out" / "graph").outputs
    assert rows["exact graph", "torch"]["codes_compared"] >= SAMPLES * 10 * len(outputs)
    for board, vectors in (("ultra96", 256), ("kv260", 64)):
        check_finn(tmp_path / "out" / "model.onnx", board, short, vectors, tmp_path / board)


def check_finn(model: Path, board: str, data: Dataset, vectors: int, out: Path) -> None:
    """The same file through every step of FINN's; tests/flows/finn simulates the layers' sources."""
    pytest.importorskip("finn.util.settings", reason="finn-plus is not installed")
    result = qhw.build(
        model, board=board, flow="finn", data=data, sources="generated", vectors=vectors, out=out
    )
    rows = {row["backend"]: row for row in result.manifest["verification"]}
    assert all(row["mismatches"] == 0 for row in rows.values())
    stepped = next(row for name, row in rows.items() if "after each of" in name)
    assert stepped["vectors"] == vectors
    assert stepped["layers"] > 20
    assert rows["finn Python execution"]["distinct_codes"] > min(500, 4 * vectors)
