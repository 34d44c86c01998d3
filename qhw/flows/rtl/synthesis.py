"""Yosys on a project, and the family's router and packer, to a bitstream. All of them come with pip."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qhw.cost.oracle import yosys_run, yosys_script
from qhw.cost.oracle.limited import run_limited
from qhw.cost.oracle.netlist import Counts, count
from qhw.cost.oracle.synth import yosys_version
from qhw.errors import CheckFailedError
from qhw.flows.base import Project, Synthesis
from qhw.flows.rtl.board_top import BAUD, BOARD_TOP
from qhw.flows.rtl.circuit import TOP
from qhw.flows.rtl.emission.draft import MEMORIES
from qhw.flows.rtl.project import BOARD, SOURCES, Description, Resource, read_description
from qhw.flows.rtl.routing import Router, router_of
from qhw.flows.rtl.routing.base import NETLIST, REPORT
from qhw.outside import read_bytes, refuse_link
from qhw.outside.text import read_json
from qhw.resources import resource_dir

SYNTHESIS, BITSTREAM = "synthesis", "bitstream"
SECONDS, MEGABYTES = 7200.0, 12_288
"""How long each tool may take, and how much memory Yosys may."""

_FULL = 0.95
"""The share of a device up to which a design is expected to be placed."""

_LARGEST_FILE = 1 << 30
_COUNTED = "netlist.json"


def synthesised(project: Project) -> tuple[Mapping[str, Any], str]:
    """The result of the stage ``synth`` and its summary: the cells by Yosys, the cycles of its schedule.

    Raises:
        ToolMissingError: pyosys is not installed.
        CheckFailedError: Yosys refuses the design, or runs out of time or memory; the design does not fit.
    """
    description = read_description(project.folder)
    with _scratch(project, SYNTHESIS) as name:
        counts = _run_yosys(project, description, TOP, (SOURCES,), Path(name))
    used = {name: getattr(counts, name) for name in ("lut", "ff", "dsp", "bram18", "uram")}
    result = Synthesis(
        f"yosys {yosys_version()}",
        **used,
        latency_cycles=description.latency_cycles,
        interval_cycles=description.interval_cycles,
        clock_period_ns=None,
    )
    return asdict(result), f"{result.lut:,} LUT, {result.ff:,} FF, {result.dsp} DSP by {result.tool}"


def netlist_of(project: Project) -> tuple[Counts, Mapping[str, Any]]:
    """The cells by Yosys, and the flat netlist as it writes it in JSON; refused as by `synthesised`."""
    with _scratch(project, SYNTHESIS) as name:
        counts = _run_yosys(project, read_description(project.folder), TOP, (SOURCES,), Path(name))
        return counts, dict(read_json(Path(name) / _COUNTED, "netlist", _LARGEST_FILE))


def bitstream(project: Project) -> tuple[Mapping[str, Any], str]:
    """The result of the stage ``bitstream`` and its summary; ``bitstream/board.*`` in the project is it.

    A board without a pin file has none: the result then says why, under ``not_made``.

    Raises:
        ToolMissingError: pyosys, or a tool of the family, is not installed.
        CheckFailedError: the design does not fit or route, or a tool fails.
    """
    description = read_description(project.folder)
    router = router_of(description.family)
    if why := _why_not(description, router):
        return {"not_made": why}, f"not made: {why}"
    assert router is not None
    out = project.folder / BITSTREAM
    steps = router.steps(description.part, description.clock_mhz)
    made = steps[-1].makes
    with _scratch(project, BITSTREAM) as name:
        folder = Path(name)
        _run_yosys(project, description, BOARD_TOP, (SOURCES, BOARD), folder)
        shutil.copyfile(project.folder / BOARD / router.constraints, folder / router.constraints)
        for step in steps:
            _ran(step.command, folder, step.tool, step.makes)
        report = read_json(folder / REPORT, "report of nextpnr", _LARGEST_FILE)
        (folder / made).replace(out / made)
    fmax = min(float(clock["achieved"]) for clock in report["fmax"].values())
    used = {kind: [n["used"], n["available"]] for kind, n in report["utilization"].items() if n["used"]}
    content = read_bytes(out / made, "bitstream", _LARGEST_FILE)
    result = {
        "file": f"{BITSTREAM}/{made}",
        "sha256": hashlib.sha256(content).hexdigest(),
        "fmax_mhz": round(fmax, 2),
        "clock_mhz": description.clock_mhz,
        "meets_clock": fmax >= description.clock_mhz,
        "baud": BAUD,
        "utilisation": used,
    }
    slow = "" if result["meets_clock"] else f", SLOWER than its {description.clock_mhz:g} MHz"
    return result, f"{len(content) / 1024:,.0f} KiB, {fmax:.1f} MHz after routing{slow}"


def _why_not(description: Description, router: Router | None) -> str:
    """Why there is no bitstream to make; empty where there is one."""
    if router is None:
        why = f"no open tool places and routes {description.part}"
        return f"{why}; {description.zynq}" if description.zynq else why
    if description.no_board:
        return description.no_board
    return "" if router.takes(description.part) else f"nothing is known of the package of {description.part}"


def _scratch(project: Project, name: str) -> tempfile.TemporaryDirectory[str]:
    (project.folder / name).mkdir(exist_ok=True)
    return tempfile.TemporaryDirectory(dir=(project.folder / name).absolute(), prefix="run-")


def _run_yosys(
    project: Project, description: Description, top: str, sources: Sequence[str], folder: Path
) -> Counts:
    """Synthesise a top module from copies of a project's files; its cells, and a netlist to place."""
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
    for name in (yosys_script.MULTIPLIERS, yosys_script.INFERRED):
        shutil.copy(resource_dir("cost_models") / "mapping" / name, folder)
    family = description.family
    commands = [
        # Parameters say which file a memory is read from: modules are elaborated where they are used.
        *(f"read_verilog -defer -sv {name}" for name in files),
        *yosys_script.commands(family, top, "area", memories=True, vendor_cells=True, srl=True),
        "blackbox =A:whitebox",
        f"write_json {NETLIST}",
        "delete =A:blackbox",
        "tee -q -o statistics.json stat -json",
        f"write_json {_COUNTED}",
    ]
    given = json.dumps({"megabytes": MEGABYTES, "commands": commands})
    _ran([sys.executable, "-P", str(yosys_run.__file__)], folder, "Yosys", _COUNTED, given)
    counts = count(
        read_json(folder / _COUNTED, "netlist", _LARGEST_FILE),
        read_json(folder / "statistics.json", "statistics", _LARGEST_FILE),
    )
    _check_fit(counts, description)
    return counts


def _check_fit(counts: Counts, description: Description) -> None:
    """Raise CheckFailedError where a resource is not enough: by how much, and the budget that would do."""
    needed = {name: int(getattr(counts, name)) for name in description.resources}
    beyond = {name: n for name, n in needed.items() if n > description.resources[name].available}
    if not beyond:
        return
    told = "; ".join(
        f"{n:,} {name.upper()}, {n - there:,} more than the {there:,} there are"
        for name, n in beyond.items()
        for there in [description.resources[name].available]
    )
    raise CheckFailedError(
        f"The synthesised design does not fit {description.part}: it needs {told}",
        hint=_smaller([(n, description.resources[name]) for name, n in beyond.items()]),
    )


def _smaller(needed: Sequence[tuple[int, Resource]]) -> str:
    """The budget whose folding would fit, if the estimate is as wrong for it as it is for this one."""
    smaller = "use fewer bits, a smaller network or a larger board"
    if any(n * each.least > _FULL * each.available * each.estimated for n, each in needed):
        return f"no folding of it would fit: {smaller}"
    budget = min(_FULL, *(_FULL * each.estimated / n for n, each in needed))
    return f"a folding that would fit: --budget {int(100 * budget)}%; or {smaller}"


def _ran(command: Sequence[str], folder: Path, tool: str, makes: str, given: str = "") -> None:
    """Run a tool in a folder, where it has to make a file."""
    failure, log = run_limited(command, given, folder, SECONDS)
    smaller = "a smaller design: give --fps or --budget"
    if failure:
        least = f" ({SECONDS:g} s)" if failure == "time" else ""
        raise CheckFailedError(f"{tool} ran out of {failure}{least}", hint=smaller)
    if not (folder / makes).is_file():
        said = [line for line in log.splitlines() if "ERROR" in line] or log.splitlines()[-3:]
        remedy = f"; where it is too full, {smaller}" if tool.startswith("nextpnr") else ""
        told = "; ".join(said) or "its log is empty"
        raise CheckFailedError(f"{tool} made no {makes}", hint=f"{told}{remedy}")
