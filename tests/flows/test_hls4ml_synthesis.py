"""Running C synthesis and reading its report, with a stand-in for AMD's tool on the PATH."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhw.errors import CheckFailedError, ToolMissingError
from qhw.flows.base import Project, Synthesis
from qhw.flows.hls4ml.synthesis import parse_report, synthesise_project

REPORT = """<?xml version="1.0"?>
<profile>
  <UserAssignments><TopModelName>qhw_net</TopModelName></UserAssignments>
  <PerformanceEstimates>
    <SummaryOfTimingAnalysis><EstimatedClockPeriod>3.650</EstimatedClockPeriod></SummaryOfTimingAnalysis>
    <SummaryOfOverallLatency>
      <Best-caseLatency>210</Best-caseLatency><Worst-caseLatency>214</Worst-caseLatency>
      <Interval-min>70</Interval-min><Interval-max>{interval}</Interval-max>
    </SummaryOfOverallLatency>
  </PerformanceEstimates>
  <AreaEstimates>
    <Resources>
      <BRAM_18K>12</BRAM_18K><DSP>37</DSP><FF>8012</FF><LUT>10455</LUT><URAM>0</URAM>
    </Resources>
    <AvailableResources>
      <BRAM_18K>432</BRAM_18K><DSP>360</DSP><FF>141120</FF><LUT>70560</LUT><URAM>0</URAM>
    </AvailableResources>
  </AreaEstimates>
</profile>
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project", "hls4ml", "qhw_net")


def stand_in(folder: Path, tool: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put an executable of that name on the PATH, before everything else."""
    folder.mkdir(exist_ok=True)
    path = folder / tool
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def writing_a_report(report: str, arguments: str) -> str:
    return f"""[ "$*" = "{arguments}" ] || exit 9
mkdir -p qhw_net_prj/solution1/syn/report
cat > qhw_net_prj/solution1/syn/report/csynth.xml <<'XML'
{report}XML
echo synthesised"""


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [("vitis-run", "--mode hls --tcl build_prj.tcl"), ("vitis_hls", "-f build_prj.tcl")],
)
def test_the_report_is_read(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, arguments: str
) -> None:
    script = writing_a_report(REPORT.format(interval=72), arguments)
    stand_in(tmp_path / "bin", tool, script, monkeypatch)
    assert synthesise_project(project) == Synthesis(
        tool,
        lut=10455,
        ff=8012,
        dsp=37,
        bram18=12,
        uram=0,
        latency_cycles=214,
        interval_cycles=72,
        clock_period_ns=3.65,
    )
    assert (project.folder / "logs" / "synthesis.log").read_text() == "synthesised\n"


def test_cycles_that_the_tool_cannot_tell(tmp_path: Path) -> None:
    path = tmp_path / "csynth.xml"
    path.write_text(REPORT.format(interval="undef"))
    assert parse_report(path, "vitis_hls").interval_cycles is None


def test_without_the_tool(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project.folder))
    with pytest.raises(ToolMissingError, match="neither vitis-run nor vitis_hls") as missing:
        synthesise_project(project)
    assert "vitis-run --mode hls --tcl build_prj.tcl" in str(missing.value)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'no licence'; exit 4", "ended with exit code 4"),
        ("exit 0", "left no report"),
        (writing_a_report("<profile>", "--mode hls --tcl build_prj.tcl"), "is not a C synthesis report"),
        (writing_a_report("<profile/>\n", "--mode hls --tcl build_prj.tcl"), "is not a C synthesis report"),
    ],
)
def test_a_failed_synthesis_says_where_to_look(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    stand_in(tmp_path / "bin", "vitis-run", script, monkeypatch)
    with pytest.raises(CheckFailedError, match=words) as failure:
        synthesise_project(project)
    assert str(project.folder) in str(failure.value)
