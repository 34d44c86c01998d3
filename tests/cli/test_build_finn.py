"""``qhw build --flow finn`` from end to end: the default model, for two boards, on its whole test split."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from qhw.errors import ToolMissingError
from qhw.pipeline import manifest

pytest.importorskip("finn.util.settings", reason="finn-plus is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

QUICK = ("--float-epochs", "3", "--quantised-epochs", "1")


def qhw(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "qhw", *(str(argument) for argument in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=800)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The default model, briefly trained, for an Ultra96; its folder and its manifest."""
    out = tmp_path_factory.mktemp("finn") / "out"
    done = qhw("build", "--board", "ultra96", "--flow", "finn", *QUICK, "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def rows(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["backend"]: row for row in document["verification"]}


def test_no_step_and_no_layer_changes_a_code(built: tuple[Path, dict[str, Any]]) -> None:
    folder, document = built
    assert manifest.read(folder) == document
    found = rows(document)
    assert {row["mismatches"] for row in found.values()} == {0}
    stepped = next(row for name, row in found.items() if "after each of" in name)
    assert stepped["vectors"] == found["finn Python execution"]["vectors"] == 364
    assert found["finn Python execution"]["distinct_codes"] > 500
    layers = found["FINN's sources, layer by layer"]
    assert "not_compared" not in layers
    details = json.loads((folder / "verification.json").read_text())
    assert len(details["layers"]) == layers["layers"] >= 15
    assert {check["backend"] for check in details["layers"]} == {"verilator", "g++"}
    assert {step["step"] for step in details["steps"]} >= {"streamlined graph", "matrix units", "folding"}
    assert document["resources"]["utilisation"]["dsp"] <= 0.8


def test_the_same_model_for_another_board_goes_on_where_it_was_interrupted(
    built: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    model, out = built[0] / "model.onnx", tmp_path / "kv260"
    command = ("build", model, "--board", "kv260", "--flow", "finn", "--data", "digits")
    command = (*command, "--sources", "generated", "--out", out, "--json")
    process = subprocess.Popen(
        [sys.executable, "-m", "qhw", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while process.poll() is None and not [*out.rglob("project.partial")]:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 130
    assert not (out / "project").exists()
    done = qhw(*command)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {row["mismatches"] for row in rows(document).values()} == {0}
    statuses = {stage["name"]: stage["status"] for stage in document["stages"]}
    assert (statuses["lower"], statuses["project"]) == ("skipped", "done")


def test_a_build_is_simulated_and_compared_as_any_other(built: tuple[Path, dict[str, Any]]) -> None:
    folder = built[0]
    done = qhw("simulate", folder, "--backend", "csim", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == built[1]["accuracy"]["quantised"]
    done = qhw("diff", f"{folder}@exact", f"{folder}@csim", "--samples", "20")
    assert done.returncode == 0, done.stderr


def test_without_finn_the_flow_alone_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    from qhw.flows.base import load_project_flow

    monkeypatch.setitem(sys.modules, "finn", None)
    with pytest.raises(ToolMissingError, match="FINN, which is not installed") as caught:
        load_project_flow("finn").check_tools()
    assert "pip install --no-deps finn-plus" in str(caught.value)
    load_project_flow("hls4ml").check_tools()


def test_minifloats_are_refused_before_training(tmp_path: Path) -> None:
    done = qhw("build", "--board", "ultra96", "--flow", "finn", "--format", "e3m2", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "the finn flow cannot carry the format e3m2" in done.stderr
    assert "--flow hls4ml" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_whole_design_is_clocked(tmp_path: Path) -> None:
    """A small network of its own: the rate that was estimated, and queues deep enough for it."""
    from finn_nets import Network

    from qhw.boards import load_board
    from qhw.flows.base import load_project_flow
    from qhw.pipeline.designs import Wanted, best_design

    n = Network(3, (2, 6, 6))
    y = n.act("a", n.conv("c", n.last, 4, (3, 3), pads=(1,) * 4), 4)
    graph = n.finish(n.act("s", n.builder.add("sum", n.act("b", n.conv("d", y, 4, (1, 1)), 4), y), 4))
    flow = load_project_flow("finn", sources="design")
    design = best_design(graph, load_board("ultra96"), flow, Wanted(fps=100_000))
    project = flow.write(design, tmp_path / "project")
    inputs = {"x": n.random.integers(0, 256, (3, 2, 6, 6))}
    found = [*flow.verify(project, graph, inputs, tell=lambda share, text: None)]
    assert [row["mismatches"] for row, _ in found] == [0] * 4
    clocked = found[-1][1]["design"]
    assert clocked["interval_cycles"] <= 2000
    assert not clocked["full"]
    assert max(clocked["depths"].values()) > 2
