"""``--synth`` with stand-ins for Vivado and FINN on the PATH: what is run, what is read, and what is said."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from qhw.errors import CheckFailedError, ToolMissingError
from qhw.flows.base import Project, Synthesis
from qhw.flows.finn.builder import _SCRIPT
from qhw.flows.finn.carried import Carried, numbers
from qhw.flows.finn.project import Description, write_description
from qhw.flows.finn.synthesis import parse_reports, synthesise_project, synthesised, verifications

ZYNQ = {
    "(top)": {"LUT": 18344, "SRL": 1201, "FF": 20110, "BRAM_36K": 31, "BRAM_18K": 5, "DSP": 74},
    "StreamingDataflowPartition_1": {"LUT": 15000, "FF": 1, "BRAM_36K": 0, "BRAM_18K": 0, "DSP": 74},
}
OUT_OF_CONTEXT = {"LUT": 901, "FF": 1003, "DSP": 7, "BRAM_18K": 3, "BRAM_36K": 2, "URAM": 1, "fmax_mhz": 250}
PERFORMANCE = [{"name": "MVAU_rtl_2", "samples": 5, "intervals": [599, 612, 599], "latency_cycles": [2743]}]
TIMING = """\
| Design Timing Summary
| ---------------------
    WNS(ns)      TNS(ns)  TNS Failing Endpoints  TNS Total Endpoints
    -------      -------  ---------------------  -------------------
      1.125        0.000                      0                12345
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    (folder / "driver").mkdir(parents=True)
    (folder / "build.sh").write_text(_SCRIPT)
    for name in ("host.py", "encoding.py", "host.json"):
        (folder / "driver" / name).write_text(name)
    carried = Carried("x", "x", (1,), numbers(1), numbers(0))
    write_description(Description("net", "xczu3eg-sbva484-1-e", 5.0, "x", "x", {"x": carried}, {}), folder)
    return Project(folder, "finn", "net", products=("finn_build",))


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, *lines: str, vivado: bool = True) -> None:
    """``vivado``, which nothing calls, and a ``finn`` of those lines, before everything else on the PATH."""
    folder.mkdir(exist_ok=True)
    programs = {"finn": ["set -e", *lines]} | ({"vivado": ["exit 9"]} if vivado else {})
    for name, script in programs.items():
        (folder / name).write_text("\n".join(["#!/bin/sh", *script]) + "\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def writing(status: str = "ok", **reports: object) -> list[str]:
    """Lines of a ``finn`` that checks how it is called, and leaves reports."""
    expected = "build --batch --build-path finn_build/temporary dataflow_build_config.yaml hardware.onnx"
    lines = [f'[ "$*" = "{expected}" ]', "mkdir -p finn_build/report finn_build/verification_output"]
    for name, content in {"metadata_builder": {"status": status}, **reports}.items():
        lines.append(f"cat > finn_build/report/{name}.json <<'JSON'\n{json.dumps(content, indent=2)}\nJSON")
    return [*lines, "mkdir -p finn_build/deploy/driver", "echo built"]


def test_a_board_is_built_and_its_reports_are_read(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = writing(post_synth_resources=ZYNQ, rtlsim_performance=PERFORMANCE)
    lines.append(f"cat > finn_build/report/post_route_timing.rpt <<'RPT'\n{TIMING}RPT")
    frames = [f"verify_stitched_ip_rtlsim_{i}_SUCCESS.npy" for i in range(12)] + [
        "verify_folded_hls_cppsim_0_SUCCESS.npy"
    ]
    lines.append(f"cd finn_build/verification_output && touch {' '.join(frames)}")
    stand_in(tmp_path / "bin", monkeypatch, *lines)
    result, summary = synthesised(project)
    assert result == {
        "tool": "finn build",
        "lut": 18344,
        "ff": 20110,
        "dsp": 74,
        "bram18": 67,
        "uram": 0,
        "latency_cycles": 2743,
        "interval_cycles": 612,
        "clock_period_ns": 3.875,
        "verified_frames": {"stitched_ip_rtlsim": 12, "folded_hls_cppsim": 1},
    }
    assert summary == "18,344 LUT, 74 DSP by finn build"
    assert (project.folder / "finn_build" / "qhw_synth.log").read_text() == "built\n"
    assert (project.folder / "finn_build" / "deploy" / "driver" / "host.json").read_text() == "host.json"


def test_a_part_alone_is_placed_and_routed_out_of_context(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "bin", monkeypatch, *writing(ooc_synth_and_timing=OUT_OF_CONTEXT))
    expected = Synthesis("finn build", 901, 1003, 7, 7, 1, None, None, 4.0)
    assert synthesise_project(project) == expected


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["echo 'no space left'", "exit 4"], "exit code 4 .*no space left"),
        (writing("failed"), "FINN's build failed: see finn_build/build_dataflow.log"),
        (
            [*writing(), "touch finn_build/verification_output/verify_folded_hls_cppsim_2_FAIL.npy"],
            "other codes than vectors/expected_output.npy: see .*cppsim_2_FAIL.npy",
        ),
        (writing(), "left neither post_synth_resources.json nor ooc_synth_and_timing.json"),
        (writing(post_synth_resources={}), "is no report of FINN's synthesis"),
        (writing(post_synth_resources={"(top)": {"LUT": "many"}}), "is no report of FINN's synthesis"),
        (writing(post_synth_resources=ZYNQ, rtlsim_performance=[3]), "is no report of FINN's synthesis"),
    ],
)
def test_a_failed_build_says_where_to_look(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[str], words: str
) -> None:
    stand_in(tmp_path / "bin", monkeypatch, *lines)
    with pytest.raises(CheckFailedError, match=words) as failure:
        synthesise_project(project)
    assert str(project.folder) in str(failure.value)


def test_results_of_an_earlier_build_are_not_taken_for_this_ones(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "bin", monkeypatch, *writing(post_synth_resources=ZYNQ))
    synthesise_project(project)
    stand_in(tmp_path / "bin", monkeypatch, "echo 'stopped'")
    with pytest.raises(CheckFailedError, match="FINN's build failed"):
        synthesise_project(project)


def test_without_vivado(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(tmp_path / "bin", monkeypatch, "exit 9", vivado=False)
    with pytest.raises(ToolMissingError, match="vivado is not on the PATH") as missing:
        synthesise_project(project)
    assert f"./build.sh in {project.folder}" in str(missing.value)


def test_a_build_that_takes_too_long_is_stopped_with_all_that_it_started(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = tmp_path / "child"
    started = f"sleep 600 & echo $! > {child}.partial; mv {child}.partial {child}; wait"
    stand_in(tmp_path / "bin", monkeypatch, started)
    waited = subprocess.Popen.wait

    def out_of_time(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        if timeout is None:
            return waited(process)
        while not child.exists():
            time.sleep(0.01)
        raise subprocess.TimeoutExpired("finn", timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", out_of_time)
    with pytest.raises(CheckFailedError, match="was stopped after"):
        synthesise_project(project)
    status = Path("/proc") / child.read_text().strip() / "status"
    while True:  # it sleeps for ten minutes, unless it was killed
        try:
            if "Z (zombie)" in status.read_text():
                break
        except OSError:
            break
        time.sleep(0.01)


def test_a_clock_is_only_said_where_it_was_routed(tmp_path: Path) -> None:
    (tmp_path / "post_synth_resources_0.json").write_text(json.dumps(ZYNQ))
    assert parse_reports(tmp_path, 4.0).clock_period_ns is None
    assert verifications(tmp_path) == {}
