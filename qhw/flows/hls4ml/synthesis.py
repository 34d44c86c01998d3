"""Runs AMD's C synthesis on a project where it is installed, and reads its report."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

from qhw.errors import CheckFailedError, ToolMissingError
from qhw.flows.base import Project, Synthesis

COMMANDS = {
    "vitis-run": ("vitis-run", "--mode", "hls", "--tcl", "build_prj.tcl"),
    "vitis_hls": ("vitis_hls", "-f", "build_prj.tcl"),
}
"""How to run a project's script, newest tool first."""


def synthesise_project(project: Project, timeout: float = 6 * 3600.0) -> Synthesis:
    """Run the first tool found; its output goes to ``logs/synthesis.log`` in the project.

    Raises ToolMissingError where none is installed, CheckFailedError where it fails or leaves no report.
    """
    tool = next((name for name in COMMANDS if shutil.which(name)), None)
    if tool is None:
        raise ToolMissingError(
            "neither vitis-run nor vitis_hls is on the PATH: the project was written, but not synthesised",
            hint="install AMD Vitis and source its settings64.sh, or run "
            f"`{' '.join(COMMANDS['vitis-run'])}` in {project.folder} where it is installed",
        )
    log = project.folder / "logs" / "synthesis.log"
    log.parent.mkdir(exist_ok=True)
    try:
        with log.open("w") as target:
            code = subprocess.run(
                COMMANDS[tool],
                cwd=project.folder,
                stdout=target,
                stderr=subprocess.STDOUT,
                timeout=timeout,
                check=False,
            ).returncode
    except subprocess.TimeoutExpired as error:
        raise CheckFailedError(f"{tool} was stopped after {timeout:.0f} s: see {log}") from error
    if code:
        raise CheckFailedError(f"{tool} ended with exit code {code} on {project.folder}: see {log}")
    return parse_report(_report(project, tool, log), tool)


def _report(project: Project, tool: str, log: Path) -> Path:
    """The report of the top function."""
    folder = project.folder / f"{project.name}_prj" / "solution1" / "syn" / "report"
    for name in ("csynth.xml", f"{project.name}_csynth.xml"):
        if (folder / name).is_file():
            return folder / name
    raise CheckFailedError(f"{tool} left no report in {folder}: see {log}")


def parse_report(path: Path, tool: str) -> Synthesis:
    """Resources, latency and clock from a csynth.xml; CheckFailedError where it is not one."""
    try:
        root = ElementTree.parse(path).getroot()
        used = {
            name: int(_text(root, f"AreaEstimates/Resources/{name}"))
            for name in ("LUT", "FF", "DSP", "BRAM_18K")
        }
    except (OSError, ElementTree.ParseError, ValueError) as error:
        raise CheckFailedError(f"{path} is not a C synthesis report: {error}") from error
    latency = "PerformanceEstimates/SummaryOfOverallLatency"
    uram = root.findtext("AreaEstimates/Resources/URAM")
    return Synthesis(
        tool,
        lut=used["LUT"],
        ff=used["FF"],
        dsp=used["DSP"],
        bram18=used["BRAM_18K"],
        uram=int(uram) if uram else 0,
        latency_cycles=_number(root.findtext(f"{latency}/Worst-caseLatency")),
        interval_cycles=_number(root.findtext(f"{latency}/Interval-max")),
        clock_period_ns=_float(
            root.findtext("PerformanceEstimates/SummaryOfTimingAnalysis/EstimatedClockPeriod")
        ),
    )


def _text(root: ElementTree.Element, path: str) -> str:
    text = root.findtext(path)
    if text is None:
        raise ValueError(f"it has no {path}")
    return text


def _number(text: str | None) -> int | None:
    """A count of cycles; the tool writes 'undef' where it cannot tell."""
    return int(text) if text and text.strip().isdigit() else None


def _float(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None
