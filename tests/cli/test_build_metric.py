"""A metric of the user's own from ``qhw build`` to ``qhw simulate``, on the command line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hls4ml")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MINE = """
from sklearn.datasets import load_diabetes
from torch import nn


def data():
    x, y = load_diabetes(return_X_y=True)
    return (x * 20).astype("float32"), ((y - y.mean()) / y.std()).astype("float32")


def net():
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 1))
"""

METRIC = """
from pathlib import Path

Path(__file__).with_name("was-run").touch()


def worst(outputs, targets):
    return abs(outputs[:, 0] - targets).max()


worst.higher_is_better = False
"""


def qhw(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qhw", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env={**os.environ, **environment}
    )


def simulated(folder: Path, *arguments: str, **environment: str) -> tuple[dict[str, Any], str]:
    done = qhw(folder, "simulate", "out", "--json", *arguments, **environment)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    (folder / "mine.py").write_text(MINE)
    (folder / "metric.py").write_text(METRIC)
    given = ("--data", "mine.py:data", "--metric", "metric.py:worst", "--board", "pynq-z2")
    done = qhw(folder, "build", "mine.py:net", *given, "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    (folder / "was-run").unlink()
    return folder


def test_the_figure_of_a_build_is_that_of_its_simulation(built: Path) -> None:
    manifest = json.loads((built / "out" / "build.json").read_text())
    accuracy, metric = manifest["accuracy"], manifest["inputs"]["metric"]
    assert (accuracy["metric"], accuracy["higher_is_better"], accuracy["share"]) == ("worst", False, False)
    assert metric["given"] == "metric.py:worst"
    assert len(metric["sha256"]) == 64
    document, told = simulated(built)
    assert (document["metric"], document["accuracy"]) == ("worst", accuracy["quantised"])
    assert not told
    by_name, _ = simulated(built, "--metric", "mae")
    assert by_name["metric"] == "mae"
    assert 0 < by_name["accuracy"] < accuracy["quantised"]
    (built / "was-run").unlink()


def test_a_folder_from_elsewhere_runs_no_code(built: Path, tmp_path: Path) -> None:
    document, told = simulated(built, XDG_CACHE_HOME=str(tmp_path / "another user"))
    assert (document["metric"], document["accuracy"]) == (None, None)
    assert "'worst' is left out: out was not built here by you" in told
    assert not (built / "was-run").exists()


def test_an_edited_record_runs_no_code(built: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(built, folder)
    (folder / "planted.py").write_text(METRIC)
    record = folder / "out" / ".qhw" / "stages" / "vectors.json"
    text = record.read_text()
    assert str(built / "metric.py") in text
    record.write_text(text.replace(str(built / "metric.py"), str(folder / "planted.py")))
    document, told = simulated(folder)
    assert document["accuracy"] is None
    assert "no code is run" in told
    assert not (folder / "was-run").exists()
    assert not (built / "was-run").exists()


def test_a_file_that_has_changed_is_not_run_but_may_be_named(built: Path, tmp_path: Path) -> None:
    (built / "metric.py").write_text(METRIC.replace(".max()", ".min()"))
    try:
        document, told = simulated(built)
        assert document["accuracy"] is None
        assert "metric.py has changed since the build\nTo do: name it with --metric" in told
        assert not (built / "was-run").exists()
        named, _ = simulated(built, "--metric", "metric.py:worst")
        assert named["metric"] == "worst"
        assert named["accuracy"] >= 0
    finally:
        (built / "metric.py").write_text(METRIC)


def test_what_is_said_of_data_needs_data(built: Path) -> None:
    for arguments, says in (
        (("--task", "regression"), "say how a data set is read, and none is given"),
        (("--metric", "top-1"), "'top-1' is not a metric of regression"),
    ):
        done = qhw(built, "simulate", "out", *arguments)
        assert done.returncode == 2
        assert says in done.stderr
    done = qhw(built, "simulate", "out/model.onnx", "--metric", "mae")
    assert done.returncode == 2
    assert "no targets to compute the metric mae from" in done.stderr
