"""The study: its pieces on a few samples and formats, and tables that say what was recorded."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn.datasets import load_breast_cancer

pytest.importorskip("torch")

from qhw.data import Dataset
from qhw.train import TrainConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
FOLDER = BENCHMARKS / "minifloat_vs_integer"


@pytest.fixture(scope="module")
def study() -> Iterator[Any]:
    """Imports a module of the study."""
    sys.path.insert(0, str(BENCHMARKS))
    yield lambda name: importlib.import_module(f"minifloat_vs_integer.{name}")
    sys.path.remove(str(BENCHMARKS))


def small_data() -> Dataset:
    x, y = load_breast_cancer(return_X_y=True)
    x = ((x - x.mean(0)) / x.std(0)).astype("float32")
    return Dataset(
        "cancer", "scikit-learn", x[:400], y[:400].astype("int64"), x[400:], y[400:].astype("int64")
    )


def small_network(study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    networks = study("networks")
    monkeypatch.setattr(networks, "CACHE", tmp_path)
    return dataclasses.replace(
        networks.NETWORKS["mlp"],
        load=small_data,
        training=TrainConfig(3, 0, batch_size=32, threads=1),
        seeds=1,
        target=networks.Target("ultra96-v2", 1_000_000),
    )


def test_cells_are_measured_priced_and_not_measured_again(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, formats, store = study("cells"), study("formats"), study("store")
    network = small_network(study, tmp_path, monkeypatch)
    wanted = [formats.Formats("fixed<8>", "fixed<8>"), formats.Formats("e2m1", "e2m1")]
    monkeypatch.setattr(cells, "every", lambda: wanted)
    monkeypatch.setattr(cells, "WEIGHTS", ("fixed<8>", "e2m1"))
    monkeypatch.setattr(cells, "ACTIVATIONS", ("fixed<8>", "e2m1"))
    path = tmp_path / "results.json"
    records, told = store.Store(path), []
    cells.measure(network, 0, "none", wanted, records, told.append)
    cells.price(network, records, told.append)
    wide, narrow = (records.get("cells", cells.cell_key("mlp", 0, "none", f)) for f in wanted)
    assert wide["held"] >= narrow["held"] - 0.05
    assert wide["test"] > 0.8
    costs = [records.get("costs", cells.cost_key("mlp", f)) for f in wanted]
    weights = 30 * 64 + 64 * 32 + 32 * 2
    assert [cost["weight_bits"] for cost in costs] == [8 * weights, 4 * weights]
    assert all(cost["lut"] > 0 and cost["dsp"] == 0 for cost in costs)
    told.clear()
    cells.measure(network, 0, "none", wanted, store.Store(path), told.append)
    assert told == []


def test_a_split_is_chosen_by_what_is_held_out_and_shown_by_the_test_split(study: Any) -> None:
    cells, formats, tables = study("cells"), study("formats"), study("tables")

    def cell(text: str, held: float, test: float, lut: float) -> None:
        key = formats.Formats(text, text)
        records["cells"][cells.cell_key("mlp", 0, "gpfq", key)] = {"held": held, "test": test, "seconds": 1.0}
        records["costs"][cells.cost_key("mlp", key)] = {"lut": lut, "weight_bits": 4000.0}

    records: dict[str, dict[str, Any]] = {"cells": {}, "costs": {}}
    cell("fixed<4>", 0.80, 0.81, 100.0)
    cell("e2m1", 0.90, 0.70, 150.0)
    cell("e3m0", 0.85, 0.99, 300.0)
    found = tables.Cells(records, tables.Judged("mlp", "MLP", "held", "test", 1000))
    best = found.best("minifloat", 4, "gpfq")
    assert (best.formats.weights, best.shown) == ("e2m1", (0.70,))
    difference = tables.differences(found, "minifloat", "gpfq", "power of two")[4]
    assert difference.values == pytest.approx((-0.11,))
    assert difference.noise == pytest.approx(1.96 * (2 * 0.755 * 0.245 / 1000) ** 0.5, rel=0.02)
    lines = tables.at_equal(found, "LUT", lambda row: row.lut)
    assert lines[2] == "| 100 | 81.0 `fixed<4>` | – | – |"
    assert "**-11.0**" in "\n".join(tables.claim([found], "minifloat"))


def test_a_front_is_compared_at_equal_cost_and_at_equal_accuracy(study: Any) -> None:
    tables = study("tables")

    def point(cost: float, held: float, test: float) -> dict[str, float]:
        return {"cost": cost, "held": held, "test": test}

    theirs = [point(100, 0.8, 0.8), point(200, 0.9, 0.88), point(250, 0.85, 0.99)]
    ours = [point(90, 0.85, 0.84), point(150, 0.9, 0.87), point(300, 0.99, 0.98)]
    found = tables.gain([(ours, theirs)])
    assert found.accuracy == pytest.approx((0.04, -0.01))
    assert found.lut == pytest.approx((-0.1, -0.25))


def test_the_committed_page_says_what_was_recorded(study: Any) -> None:
    records = json.loads((FOLDER / "results.json").read_text())
    assert study("report").readme(records) == (FOLDER / "README.md").read_text()
    assert (FOLDER / "results.json").stat().st_size < 1 << 20


def test_pquants_widths_are_priced_as_fixed_point(
    study: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hgq = study("hgq")
    monkeypatch.setattr(hgq, "WIDTHS", (3, 4))
    bench = hgq.Bench(small_network(study, tmp_path, monkeypatch), 0)
    names = [
        f"{layer}.{kind}" for layer in ("hidden1", "hidden2", "classify") for kind in ("input", "weight")
    ]
    answers = {"held": bench.held.judge.targets.tolist(), "test": [0] * len(bench.network.data.test_x)}
    narrow, wide = (
        bench.priced_epoch({"widths": dict.fromkeys(names, width), "ebops": 1.0, **answers})
        for width in (0.0, 9.0)
    )
    assert narrow["formats"]["classify.weights"] == "fixed<3>"
    assert wide["formats"]["norm1.activations"] == "fixed<4>"
    assert narrow["cost"] < wide["cost"]
    assert narrow["held"] == 1.0
    assert narrow["test"] == pytest.approx(float((bench.network.data.test_y == 0).mean()))
