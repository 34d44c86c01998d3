"""The table of models: run on packaged files, and the committed page says what the committed records say."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qhw.graph.lower import lower_model
from qhw.graph.reading.load import load_qonnx

pytest.importorskip("torch")

FOLDER = Path(__file__).parents[2] / "benchmarks"
RESULTS, PAGE = FOLDER / "results" / "model_zoo.json", FOLDER.parent / "docs" / "models.md"
OTHERS = ("package_sources", "brevitas_nets", "torch_nets", "onnxruntime_nets")
LIMITS = (50_000_000, 20_000_000)


@pytest.fixture(scope="module")
def zoo() -> Any:
    """Imports a module of ``benchmarks/zoo``."""
    sys.path.insert(0, str(FOLDER))
    yield lambda name: importlib.import_module(f"zoo.{name}")
    sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def fp8() -> Path:
    spec = find_spec("qonnx")
    assert spec is not None
    assert spec.submodule_search_locations
    return next(Path(spec.submodule_search_locations[0]).rglob("qonnx_act_weight_fp8.onnx"))


def rows_of(page: str) -> dict[tuple[str, str], list[str]]:
    """The cells of every model's row, by its group and name."""
    found = {}
    for section in page.split("\n## ")[1:]:
        group, _, table = section.partition("\n")
        for line in table.splitlines():
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)][1:-1]
            if len(cells) == 9 and cells[0] != "model" and not cells[0].startswith("-"):
                found[group, cells[0]] = cells
    return found


def check_page(page: str, records: list[dict[str, Any]]) -> None:
    """The page has a row for every record, with its numbers, and counts them."""
    rows = rows_of(page)
    assert len(rows) == len(records)
    for record in records:
        group, _, name = record["name"].partition("/")
        cells = rows[group, name]
        assert cells[1] == record["kind"]
        assert (cells[2] == "works") == (record["outcome"] == "exact")
        if "codes" in record:
            assert [int(cell.replace(",", "")) for cell in cells[3:5]] == [
                record["codes"],
                record["differing"],
            ]
    counted = [r for r in records if r["kind"] in ("CNN", "MLP") and r["outcome"] != "absent"]
    works = sum(record["outcome"] == "exact" for record in counted)
    assert f"**{works} of {len(counted)} CNN and MLP models work" in page


def test_the_script_on_two_packaged_files(tmp_path: Path) -> None:
    results = tmp_path / "found.json"
    command = [
        sys.executable,
        str(FOLDER / "model_zoo.py"),
        "--cache",
        str(tmp_path),
        "--results",
        str(results),
    ]
    command += ["--only", "fp8", "residual_block", "--without", *OTHERS]
    said = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said[0] == said[1]  # the second time, records are kept: the same seconds too
    exact, refused = json.loads(results.read_text())
    assert exact["name"] == "qonnx data/qonnx_act_weight_fp8"
    assert exact["outcome"] == "exact"
    assert exact["codes"] > 60
    assert exact["differing"] == 0
    assert exact["builds"]["hls4ml"] == "written"
    assert refused["name"] == "qonnx data/residual_block_clean"
    assert refused["outcome"] == "refused"
    assert "float model" in refused["reason"]
    check_page(results.with_suffix(".md").read_text(), [exact, refused])


def test_a_graph_of_another_network_is_found_out(zoo: Any, fp8: Path, tmp_path: Path) -> None:
    model = onnx.load(str(fp8))
    (weight,) = [tensor for tensor in model.graph.initializer if list(tensor.dims) == [16, 3]]
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(model, str(tmp_path / "other.onnx"))
    trial, entries = zoo("trial"), zoo("entries")
    entry = entries.Entry("test/fp8", "MLP", None, samples=3)
    lowering = lower_model(load_qonnx(fp8))
    assert trial._compared(entry, fp8, lowering)["outcome"] == "exact"
    found = trial._compared(entry, tmp_path / "other.onnx", lowering)
    assert found["outcome"] == "differs"
    assert "span away" in found["reason"]


def test_inputs_reach_every_code_and_lie_between_them(zoo: Any, fp8: Path) -> None:
    graph = lower_model(load_qonnx(fp8)).graph
    x = zoo("execution").inputs_for(graph, 500, image=False)["x.1"]
    assert x.shape == (500, 3)
    unit = graph.input_encodings["x.1"].unit
    assert 0.2 < np.mean(x / unit == np.rint(x / unit)) < 0.8


def test_the_committed_page_is_that_of_the_committed_records(zoo: Any) -> None:
    records = json.loads(RESULTS.read_text(encoding="utf-8"))
    page: ModuleType = zoo("page")
    shown = PAGE.read_text(encoding="utf-8")
    assert shown == page.page(records, *LIMITS)
    check_page(shown, records)
    assert len({record["name"] for record in records}) == len(records)


@pytest.mark.parametrize("outcome", ["refused", "crashed", "differs", "absent"])
def test_what_does_not_work_is_not_counted_as_working(zoo: Any, outcome: str) -> None:
    record = {"name": "here/net", "kind": "CNN", "outcome": outcome, "reason": "a|b's 'x' <c>", "seconds": {}}
    works = {
        "name": "here/other",
        "kind": "MLP",
        "outcome": "exact",
        "codes": 5,
        "differing": 0,
        "seconds": {},
    }
    text = zoo("page").page([record, works], *LIMITS)
    counted = 1 if outcome == "absent" else 2
    assert f"**1 of {counted} CNN and MLP models work" in text
    assert f"| here | {counted} | 1 | 0 | {2 - counted} |" in text
    check_page(text, [record, works])
