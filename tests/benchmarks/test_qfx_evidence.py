"""What the evidence for QFX's claims varies, keeps, adds up and refuses."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from qhw.boards import load_board
from qhw.convert import convert
from qhw.cost import estimate
from qhw.errors import CheckFailedError
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.flows.hls4ml.folding import ReuseFactor
from qhw.formats import Format, Integer, parse_format
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph
from qhw.layers import QuantAdd, QuantAvgPool, QuantBatchNorm
from qhw.models.resnet8 import build
from qhw.quantizers import Quantizer, binary_points

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "qfx_evidence.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("qfx_evidence", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_only_the_element_wise_layers_change_their_width(script: ModuleType) -> None:
    images = torch.randint(0, 256, (2, 1, 28, 28)).float()
    model = convert(build((1, 28, 28), 10, -8), script.element_wise(4), images)
    layers = [m for m in model.modules() if isinstance(m, QuantBatchNorm | QuantAdd | QuantAvgPool)]
    narrow = [m for layer in layers for m in layer.modules() if isinstance(m, Quantizer)]
    assert {quantizer.spec.width for quantizer in narrow} == {4}
    others = {m for m in model.modules() if isinstance(m, Quantizer)} - set(narrow)
    weights, results, biases_and_logits = [8] * (9 + 1), [8] * (2 + 1), [16] * (3 + 1)
    assert sorted(quantizer.spec.width for quantizer in others) == weights + results + biases_and_logits


def test_binary_points_are_held_or_trained(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8).numpy()
    bench = object.__new__(script.Bench)
    bench.recipe = script.Recipe()
    bench.data = type("Data", (), {"train_x": images})
    epochs: list[tuple[int, int]] = []

    def record(model: torch.nn.Module, seed: int, count: int, rate: float, *folder: object) -> None:
        epochs.append((count, len(binary_points(model))))

    monkeypatch.setattr(bench, "_train", record, raising=False)
    network = build((1, 28, 28), 10, -8)
    for method, expected in (
        (script.ROUNDED, [0]),
        (script.ROUNDED_LONGER, [0]),
        (script.HELD, [0, 2]),
        (script.QFX, [0, 2]),
        (script.ESTIMATE, [0, 2]),
    ):
        epochs.clear()
        bench.quantised(network, script.Job("", method, 0, script.element_wise(4)))
        assert [count for count, _ in epochs] == expected
        if len(expected) == 2:
            assert (epochs[1][1] > 0) == (method != script.HELD)


def test_a_key_tells_results_apart(script: ModuleType) -> None:
    job, recipe = script.Job("a", script.QFX, 0, script.element_wise(4)), script.Recipe()
    others = [
        (dataclasses.replace(job, seed=1), recipe),
        (dataclasses.replace(job, method=script.HELD), recipe),
        (dataclasses.replace(job, quant=script.element_wise(5)), recipe),
        (job, script.Recipe(images=100)),
        (job, script.Recipe(training=dataclasses.replace(script.TRAINING, learning_rate=1.0))),
    ]
    assert len({job.key(recipe), *(other.key(with_) for other, with_ in others)}) == 6


def test_no_two_jobs_share_a_key(script: ModuleType) -> None:
    wanted = script.jobs(range(3), script.BITS, script.WEIGHT_FORMATS)
    assert len({job.key(script.Recipe()) for job in wanted}) == len(wanted)


def test_what_is_stored_is_not_run_again(script: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "results" / "stored.json"
    first = script.Store(path).get("one", lambda: {"accuracy": 0.5})

    def fail() -> dict[str, float]:
        raise AssertionError

    again = script.Store(path)
    assert again.get("one", fail) == first == {"accuracy": 0.5}
    again.get("two", lambda: {"accuracy": 0.25})
    assert set(script.Store(path).records) == {"one", "two"}


def test_differences_are_taken_seed_by_seed(script: ModuleType) -> None:
    assert script.spread([0.9, 0.8, 0.94]) == "88.00 (80.00 to 94.00)"
    gains = script.gains([0.90, 0.80], [0.85, 0.81])
    assert script.spread(gains, signed=True) == "+2.00 (-1.00 to +5.00)"
    assert script.verdict(gains) == "higher in 1 of 2 seeds: not told apart"
    assert script.verdict([0.01, 0.02]) == "higher in every seed"
    assert script.verdict([-0.01, -0.02]) == "lower in every seed"
    assert script.verdict([0.0, 0.0]) == "higher in 0 of 2 seeds: not told apart"


def test_every_figure_lands_in_its_row_and_column(script: ModuleType) -> None:
    bits, formats = (8, 4), ("fixed<8>", "khot<8,1>")
    records = []
    for index, job in enumerate(script.jobs(range(2), bits, formats)):
        costs = dict.fromkeys(("dsp", "lut", "matrix_lut", "bram18"), 1000 * index) | {"fastest": 50.4}
        found = costs if job.method == script.ESTIMATE else {"accuracy": index / 100, "moved": index / 200}
        records.append((job, found | {"seconds": 60}))
    text = script.report(records, script.Recipe(), bits, formats)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    assert {len(row) for row in rows} == {6, 9}
    per_seed = 2 + 2 * 4 + 2 * 3
    eight, four = (next(row for row in rows if row[0] == name) for name in ("8", "4"))
    assert eight[1] == f"{2 + per_seed / 2:.2f} (2.00 to {2 + per_seed}.00)"
    assert four[4] == f"{9 + per_seed / 2:.2f} (9.00 to {9 + per_seed}.00)"
    assert four[5] == f"{(9 + per_seed / 2) / 2:.2f} (4.50 to {(9 + per_seed) / 2:.2f})"
    gained = next(line for line in text.splitlines() if line.startswith("- 4 bits"))
    assert re.findall(r"([a-z]+): \+(\d)\.00", gained) == [("rounded", "3"), ("rounded", "2"), ("held", "1")]
    fixed, hot = (next(row for row in rows if row[0] == f"`{name}`") for name in formats)
    assert fixed[3] == "+0.00 (+0.00 to +0.00)"
    assert hot[3] == "+3.00 (+3.00 to +3.00)"
    assert hot[4:] == [f"{1000 * (15 + per_seed / 2):,.0f}"] * 4 + ["50"]
    assert f"took {len(records)} minutes" in text


def product(weights: Format) -> ExactGraph:
    builder = GraphBuilder("product")
    x = builder.input("x", (4,), Integer(8))
    w = builder.constant("w", np.array([[1], [2], [4], [8]]), weights)
    return builder.finish([builder.matmul("dense", x, w)])


def test_k_hot_with_a_dsp_slice_is_refused(script: ModuleType) -> None:
    board, by_two = load_board("ultra96-v2"), {"dense": ReuseFactor(2)}
    costs = [
        estimate(Hls4mlFlow("io_stream").prepare(product(parse_format(text)), board).folded(by_two))
        for text in ("khot<8,1>", "int8")
    ]
    assert script.checked("khot<8,1>", costs[0]).totals["dsp"] == 0
    assert script.checked("fixed<8>", costs[1]).totals["dsp"] > 0
    with pytest.raises(CheckFailedError, match=r"khot<8,1> .* in dense \(2\)"):
        script.checked("khot<8,1>", costs[1])
