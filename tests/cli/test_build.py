"""``qhw build`` from end to end, on real data: what it writes, how it resumes, what it finds."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markupsafe import escape
from weight_files import write_weights

from qhw.pipeline import manifest
from qhw.pipeline.stages import MARKER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUICK = ("--float-epochs", "2", "--quantised-epochs", "1")
STAGES = ["train", "export", "lower", "cost", "vectors", "project", "compile", "verify", "report"]

CONV2_WEIGHTS = 16 * 16 * 3 * 3

BLOCKED = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "brevitas"):
            raise ImportError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
from qhw.cli import main
main(sys.argv[1:])
"""
"""The command line in a process in which torch and Brevitas cannot be imported."""


def qhw(*arguments: object, code: str | None = None) -> subprocess.CompletedProcess[str]:
    start = ["-m", "qhw"] if code is None else ["-c", code]
    command = [sys.executable, *start, *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=800)


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {stage["name"]: stage["status"] for stage in document["stages"]}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A build of the default model, trained for a short while; its folder and what --json printed."""
    out = tmp_path_factory.mktemp("built") / "out"
    done = qhw("build", "--board", "ultra96", *QUICK, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


@pytest.fixture(scope="module")
def from_file(
    built: tuple[Path, dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The same model built again from its QONNX file, without torch."""
    out = tmp_path_factory.mktemp("from-file") / "out"
    model = built[0] / "model.onnx"
    arguments = ("build", model, "--board", "ultra96", "--data", "digits", "--out", out, "--json")
    done = qhw(*arguments, code=BLOCKED)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_everything_is_written_and_everything_agrees(built: tuple[Path, dict[str, Any]]) -> None:
    folder, document = built
    assert manifest.read(folder) == document
    assert statuses(document) == dict.fromkeys(STAGES, "done")
    for name in (
        "model.onnx",
        "graph/graph.json",
        "vectors/inputs.npz",
        "project/project.tcl",
        "report.html",
    ):
        assert (folder / name).is_file(), name
    rows = {(row["backend"], row["reference"]): row for row in document["verification"]}
    assert {row["mismatches"] for row in rows.values()} == {0}
    simulated = rows["hls4ml C-simulation", "exact graph"]
    assert simulated["vectors"] == document["accuracy"]["samples"] == 364
    assert simulated["layers"] >= 8
    assert simulated["distinct_codes"] > 500
    assert ("exact graph", "torch") in rows
    assert document["accuracy"]["quantised"] > 0.8
    assert document["resources"]["utilisation"]["dsp"] <= 0.8
    assert document["latency"]["throughput_fps"] > 1000


def test_a_second_build_runs_nothing(built: tuple[Path, dict[str, Any]]) -> None:
    folder, before = built
    done = qhw("build", "--board", "ultra96", *QUICK, "--out", folder, "--json")
    document = json.loads(done.stdout)
    assert statuses(document) == dict.fromkeys(STAGES, "skipped")
    for key in ("accuracy", "verification", "resources", "latency", "flow", "model"):
        assert document[key] == before[key], key


def test_from_the_file_alone_without_torch_the_project_is_the_same(
    built: tuple[Path, dict[str, Any]], from_file: tuple[Path, dict[str, Any]]
) -> None:
    trained, imported = built[1], from_file[1]
    assert statuses(imported) == dict.fromkeys(["import", *STAGES[2:]], "done")
    assert imported["flow"]["project_sha256"] == trained["flow"]["project_sha256"]
    assert imported["model"]["graph_sha256"] == trained["model"]["graph_sha256"]
    assert imported["accuracy"]["quantised"] == trained["accuracy"]["quantised"]
    assert imported["accuracy"]["float"] is None


def test_simulating_and_costing_without_torch(from_file: tuple[Path, dict[str, Any]]) -> None:
    folder, document = from_file
    model = folder / "model.onnx"
    simulated = qhw("simulate", model, "--data", "digits", "--json", code=BLOCKED)
    assert json.loads(simulated.stdout)["accuracy"] == document["accuracy"]["quantised"]
    cost = json.loads(qhw("cost", model, "--board", "ultra96", "--json", code=BLOCKED).stdout)
    assert cost["resources"] == document["resources"]["estimated"]


def test_a_flipped_bit_in_the_project_is_found_and_its_layer_named(
    from_file: tuple[Path, dict[str, Any]],
) -> None:
    """One least significant bit of one weight of conv2; the next build keeps the edit and finds it."""
    folder, document = from_file
    files = (folder / "project" / "firmware" / "weights").glob("w*.txt")
    (weights,) = (path for path in files if len(values_of(path)) == CONV2_WEIGHTS)
    before = weights.read_text()
    flip_last_bit(weights)
    write_weights(weights, weights.read_text())
    arguments = ("build", folder / "model.onnx", "--board", "ultra96", "--data", "digits", "--out", folder)
    wrong_model = ("build", document["inputs"]["model"]["given"], *arguments[2:], "--json")
    try:
        done = qhw(*wrong_model)
        assert done.returncode == 1, done.stderr
        found = json.loads((folder / "build.json").read_text())
        assert statuses(found)["project"] == "edited"
        assert statuses(found)["verify"] == "failed"
        assert found["verification"][-1]["mismatches"] > 0
        assert "conv2" in found["verification"][-1]["first_difference"]
        page = (folder / "report.html").read_text()
        assert str(escape(found["verification"][-1]["first_difference"])) in page
        assert "≠" in page
        compared = qhw("diff", folder / "model.onnx", folder, "--data", "digits", "--samples", "20")
        assert compared.returncode == 1
        assert "conv2" in compared.stdout
    finally:
        write_weights(weights, before)
    assert qhw(*wrong_model).returncode == 0


def values_of(weights: Path) -> list[float]:
    return [float(value) for value in re.split(r"[,\s]+", weights.read_text().strip()) if value]


def flip_last_bit(weights: Path) -> None:
    """Change the first weight by one unit in the last place, towards the others."""
    text, values = weights.read_text(), values_of(weights)
    unit = min(abs(a) for a in np.diff(sorted(set(values))))
    changed = values[0] + (unit if values[0] <= 0 else -unit)
    first = re.match(r"\s*[^,\s]+", text)
    assert first is not None
    weights.write_text(f"{changed:.17g}" + text[first.end() :])


def reuse(document: dict[str, Any]) -> int:
    """All reuse factors of a build, added up."""
    return sum(fold["reuse_factor"] for fold in document["flow"]["folding"].values())


def test_fewer_dsps_mean_more_reuse_and_the_same_codes(
    from_file: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, large = from_file
    board = tmp_path / "small.toml"
    board.write_text('based_on = "ultra96"\nname = "small"\ndsp = 10\nlut = 30000\n')
    out = tmp_path / "out"
    model = folder / "model.onnx"
    done = qhw("build", model, "--board", board, "--data", "digits", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    small = json.loads(done.stdout)
    assert small["resources"]["estimated"]["dsp"] <= 10
    assert reuse(small) > reuse(large)
    assert small["latency"]["cycles"] > large["latency"]["cycles"]
    assert small["verification"][-1] == large["verification"][-1]


VITIS = """#!/bin/sh
[ "$*" = "--mode hls --tcl build_prj.tcl" ] && [ -f build_prj.tcl ] || exit 9
name=$(sed -n 's/^set project_name *"*\\([a-z0-9_]*\\)"*.*/\\1/p' project.tcl)
mkdir -p ${name}_prj/solution1/syn/report
cat > ${name}_prj/solution1/syn/report/csynth.xml <<'XML'
<profile><PerformanceEstimates>
<SummaryOfTimingAnalysis><EstimatedClockPeriod>3.65</EstimatedClockPeriod></SummaryOfTimingAnalysis>
<SummaryOfOverallLatency><Worst-caseLatency>900</Worst-caseLatency><Interval-max>700</Interval-max>
</SummaryOfOverallLatency></PerformanceEstimates>
<AreaEstimates><Resources><BRAM_18K>12</BRAM_18K><DSP>36</DSP><FF>8012</FF><LUT>7056</LUT><URAM>0</URAM>
</Resources></AreaEstimates></profile>
XML
"""
"""Stands in for vitis-run: writes the report of a C synthesis where the tool does."""


def test_synthesis_is_asked_for_and_where_it_ran_its_figures_count(
    from_file: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, before = from_file
    model = before["inputs"]["model"]["given"]
    command = ("build", model, "--board", "ultra96", "--data", "digits", "--out", folder, "--synth")
    done = qhw(*command)
    assert done.returncode == 2
    assert "neither vitis-run nor vitis_hls is on the PATH" in done.stderr
    document = manifest.read(folder)
    assert statuses(document)["synth"] == "failed"
    assert document["resources"]["synthesised"] is None
    assert document["latency"]["source"] == "estimated"

    (tmp_path / "vitis-run").write_text(VITIS)
    (tmp_path / "vitis-run").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    done = qhw(*command, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert statuses(document) == {
        **dict.fromkeys(statuses(before), "skipped"),
        "synth": "done",
        "report": "done",  # which shows the figures
    }
    resources, latency = document["resources"], document["latency"]
    assert resources["synthesised"] == {"lut": 7056, "ff": 8012, "dsp": 36, "bram18": 12, "uram": 0}
    assert resources["estimated"] == before["resources"]["estimated"]
    assert (resources["utilisation"]["lut"], resources["utilisation"]["dsp"]) == (0.1, 0.1)
    assert (latency["cycles"], latency["initiation_interval"], latency["source"]) == (900, 700, "synthesised")
    assert latency["throughput_fps"] == pytest.approx(200e6 / 700, rel=1e-4)


def test_a_board_that_nothing_fits_says_which_resource(
    from_file: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    board = tmp_path / "tiny.toml"
    board.write_text('based_on = "ultra96"\nname = "tiny"\nlut = 500\n')
    arguments = ("build", from_file[0] / "model.onnx", "--board", board, "--out", tmp_path / "out")
    done = qhw(*arguments)
    assert done.returncode == 1
    assert re.search(r"does not fit tiny .* needs [\d,]+ LUT, [\d,]+ more than", done.stderr)
    assert "Traceback" not in done.stderr
    assert statuses(manifest.read(tmp_path / "out"))["cost"] == "failed"


@pytest.mark.parametrize("stage", ["lower", "cost", "compile"])
def test_ctrl_c_leaves_whole_stages_and_the_next_build_goes_on(
    from_file: tuple[Path, dict[str, Any]], tmp_path: Path, stage: str
) -> None:
    """Interrupted as soon as the stage before has been reported: in this one, or on a busy machine later."""
    order = ["import", *STAGES[2:]]
    before = order[order.index(stage) - 1]
    out = tmp_path / "out"
    command = ["build", str(from_file[0] / "model.onnx"), "--board", "ultra96", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "qhw", *command],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stderr is not None
    while before not in (line := process.stderr.readline()):
        assert line, "the stage was never reported"
    os.killpg(process.pid, signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130, rest
    assert "Traceback" not in rest
    found = statuses(manifest.read(out))
    stopped = next(name for name in order if found.get(name) == "interrupted")
    assert order.index(stopped) >= order.index(stage)
    assert all(found.get(name, "pending") == "pending" for name in order[order.index(stopped) + 1 :])
    assert not (out / MARKER / "scratch").exists()
    done = qhw(*command, "--json")
    assert done.returncode == 0, done.stderr
    again = statuses(json.loads(done.stdout))
    assert again[before] == "skipped"
    assert again[stopped] == "done"


def test_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    """Interrupted in training, then continued: the weights are those of a run without interruption."""
    command = ["build", "mlp", "--board", "ultra96", "--float-epochs", "6", "--quantised-epochs", "1"]
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "qhw", *command, "--out", str(out)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 300
    while not list(out.glob(f"{MARKER}/partial/train-*/*.pt")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert not (out / "model.onnx").exists()
    results = {}
    for folder in (out, tmp_path / "straight"):
        done = qhw(*command, "--out", folder, "--json")
        assert done.returncode == 0, done.stderr
        results[folder] = json.loads(done.stdout)["model"]["sha256"]
    assert len(set(results.values())) == 1
    assert not (out / MARKER / "partial").exists()


def test_a_users_own_function(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 10))\n"
        "def number():\n"
        "    return 3\n"
    )
    out = tmp_path / "out"
    arguments = ("--board", "pynq-z1", "--data", "digits", *QUICK, "--out", out, "--json")
    done = qhw("build", f"{tmp_path}/mine.py:net", *arguments)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["model"]["name"] == "mine-net"
    assert {row["mismatches"] for row in document["verification"]} == {0}
    for name, message in (("nett", "did you mean net"), ("number", "returned a int")):
        done = qhw("build", f"{tmp_path}/mine.py:{name}", *arguments[:-3], "--out", tmp_path / "other")
        assert done.returncode == 2
        assert message in done.stderr
        assert not (tmp_path / "other").exists()
