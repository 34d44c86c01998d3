"""Runs FINN's build of a project where Vivado is installed, and reads its reports."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.flows.base import Project, Synthesis
from qhw.flows.finn.builder import OUTPUT, SCRIPT
from qhw.flows.finn.project import read_description
from qhw.flows.finn.tools import HOW_TO_GET
from qhw.outside import read_bytes
from qhw.outside.text import read_json, read_text

_LARGEST_REPORT = 1 << 26
_ZYNQ, _ALVEO = "post_synth_resources.json", "post_synth_resources_0.json"
_OUT_OF_CONTEXT = "ooc_synth_and_timing.json"
_PERFORMANCE = "rtlsim_performance.json"
_TIMING = "post_route_timing.rpt"
_WORST_SLACK = re.compile(r"WNS\(ns\).*?\n[\s-]*\n\s*(-?\d+\.\d+)")
_CHECKED = re.compile(r"verify_(.+)_\d+_SUCCESS\.np[yz]")


def synthesised(project: Project) -> tuple[dict[str, Any], str]:
    """The result of the stage ``synth`` and its summary; also how often each of FINN's simulations agreed."""
    synthesis = synthesise_project(project)
    verified = verifications(project.folder / OUTPUT / "verification_output")
    result = {**asdict(synthesis), "verified_frames": verified}
    summary = f"{synthesis.lut:,} LUT, {synthesis.dsp} DSP by {synthesis.tool}"
    return result, summary


def synthesise_project(project: Project, timeout: float = 24 * 3600.0) -> Synthesis:
    """Run ``build.sh``; what it says goes to ``finn_build/qhw_synth.log`` in the project.

    Raises:
        ToolMissingError: Vivado or FINN is not installed.
        CheckFailedError: the build fails, gives other codes than the vectors, or leaves no report.
    """
    path = _path_with_tools(project)
    log = project.folder / OUTPUT / "qhw_synth.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w") as target:
        process = subprocess.Popen(
            ["/bin/sh", SCRIPT],
            cwd=project.folder,
            stdin=subprocess.DEVNULL,
            stdout=target,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path},
            start_new_session=True,
        )
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise CheckFailedError(f"finn build was stopped after {timeout:.0f} s: see {log}") from error
        finally:
            if process.poll() is None:  # Vivado too, which FINN has started
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code:
        last = (
            read_bytes(log, "log of FINN's build", _LARGEST_REPORT)
            .decode(errors="replace")
            .strip()
            .rpartition("\n")[2][:300]
        )
        raise CheckFailedError(
            f"{SCRIPT} ended with exit code {code} on {project.folder}: {last}", hint=f"see {log}"
        )
    clock_ns = read_description(project.folder).clock_ns
    return parse_reports(project.folder / OUTPUT / "report", clock_ns)


def _path_with_tools(project: Project) -> str:
    """The search path for programs, with FINN on it; it may be in the same environment as qhw alone."""
    if shutil.which("vivado") is None:
        raise ToolMissingError(
            "vivado is not on the PATH: the project was written and checked, but not synthesised",
            hint="install AMD Vivado and Vitis HLS and source their settings64.sh, or run "
            f"./{SCRIPT} in {project.folder} where it is installed",
        )
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent)])
    if shutil.which("finn", path=path) is None:
        raise ToolMissingError("The finn flow synthesises with FINN, which is not installed", hint=HOW_TO_GET)
    return path


def parse_reports(folder: Path, clock_ns: float) -> Synthesis:
    """Resources and timing from FINN's report folder; CheckFailedError where they are missing or damaged.

    Args:
        clock_ns: the period of the target clock.
    """
    path = next((folder / n for n in (_ZYNQ, _ALVEO, _OUT_OF_CONTEXT) if (folder / n).is_file()), None)
    if path is None:
        raise CheckFailedError(
            f"FINN's build left neither {_ZYNQ} nor {_OUT_OF_CONTEXT} in {folder}: it was stopped before"
        )
    try:
        stored = read_json(path, "synthesis report", _LARGEST_REPORT)
        used = stored if path.name == _OUT_OF_CONTEXT else stored["(top)"]
        latency, interval = _performance(folder / _PERFORMANCE)
        return Synthesis(
            "finn build",
            lut=int(used["LUT"]),
            ff=int(used["FF"]),
            dsp=int(used["DSP"]),
            bram18=2 * int(used.get("BRAM_36K", 0)) + int(used.get("BRAM_18K", 0)),
            uram=int(used.get("URAM", 0)),
            latency_cycles=latency,
            interval_cycles=interval,
            clock_period_ns=_clock_period(folder, used, clock_ns),
        )
    except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckFailedError(f"{path} is no report of FINN's synthesis: {error}") from error


def _performance(path: Path) -> tuple[int | None, int | None]:
    """Latency and interval as FINN's simulation of the design measured them; None where it did not."""
    if not path.is_file():
        return None, None
    ends = read_json(path, "performance report", _LARGEST_REPORT)
    latency = [int(count) for end in ends for count in end["latency_cycles"]]
    interval = [int(count) for end in ends for count in end["intervals"]]
    return max(latency, default=None), max(interval, default=None)


def _clock_period(folder: Path, used: dict[str, Any], clock_ns: float) -> float | None:
    """The shortest period that the routed design closes at."""
    if used.get("fmax_mhz"):
        return 1e3 / float(used["fmax_mhz"])
    report = folder / _TIMING
    if not report.is_file():
        return None
    slack = _WORST_SLACK.search(read_text(report, "timing report", _LARGEST_REPORT))
    return round(clock_ns - float(slack[1]), 3) if slack else None


def verifications(folder: Path) -> dict[str, int]:
    """How many frames each of FINN's simulations gave the expected codes for, by the step's name."""
    found = (_CHECKED.fullmatch(path.name) for path in sorted(folder.glob("verify_*")))
    return dict(Counter(match[1] for match in found if match))
