"""The table of networks in the FINN flow: run on a packaged file, and the page says what the records say."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch")
pytest.importorskip("finn")

FOLDER = Path(__file__).parents[2] / "benchmarks"
RESULTS, PAGE = FOLDER / "results" / "finn_models.json", FOLDER.parent / "docs" / "finn_models.md"


@pytest.fixture(scope="module")
def module() -> Iterator[Callable[[str], ModuleType]]:
    """Imports a module of ``benchmarks``."""
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module
    sys.path.remove(str(FOLDER))


def test_the_page_is_that_of_the_records(module: Callable[[str], ModuleType]) -> None:
    records = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == module("zoo.finn_page").page(records)


def test_no_committed_network_differs_or_fails_without_a_message() -> None:
    records = json.loads(RESULTS.read_text(encoding="utf-8"))
    assert {record["outcome"] for record in records} <= {"exact", "refused", "absent", "not run"}
    exact = [record for record in records if record["outcome"] == "exact"]
    assert all(record["codes"] > 0 and record["differing"] == 0 for record in exact)
    assert all(record["distinct"] > 1 for record in exact)
    assert all(record["reason"] for record in records if record["outcome"] == "refused")


def test_a_file_that_finn_cannot_stream_is_refused_with_the_reason(
    module: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    run, entries = module("zoo.finn_trial").run, module("zoo.package_data").entries
    found = {entry.name: entry for entry in entries(tmp_path)}
    refused = run(found["qonnx data/qonnx_act_weight_fp8"], tmp_path)
    assert refused["outcome"] == "refused"
    assert "e4m3fn" in refused["reason"]


def test_a_small_network_is_compared_and_priced_on_every_board(
    module: Callable[[str], ModuleType], tmp_path: Path
) -> None:
    boards, run = module("zoo.finn_trial").BOARDS, module("zoo.finn_trial").run
    found = {entry.name: entry for entry in module("zoo.torch_nets").entries(tmp_path)}
    record = run(found["torch/MLP"], tmp_path)
    assert record["outcome"] == "exact", record
    assert record["vectors"] == 256
    assert record["rtl"] + record["hls"] == sum(record["layers"].values())
    rates = [record["boards"][name]["fps"] for name in boards]
    assert rates[0] <= rates[-1]
