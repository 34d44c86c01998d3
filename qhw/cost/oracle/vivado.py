"""The same designs measured with Vivado, where it is on the PATH: out-of-context synthesis, default strategy.

Tested here against a stand-in that answers as Vivado does; no committed row was measured with it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from qhw.cost.oracle.limited import run_limited
from qhw.cost.oracle.netlist import Counts
from qhw.cost.oracle.synth import Circuit, Limits, SynthesisResult, short_hash
from qhw.devices import fabric_of, fabrics
from qhw.errors import CheckFailedError, InputError, ToolMissingError

_CLOCK_NS = 4.0

_LIMITS = Limits(seconds=1800.0, megabytes=16384)

_ROWS = {
    "lut": ("CLB LUTs*", "CLB LUTs", "Slice LUTs*", "Slice LUTs"),
    "lutram": ("LUT as Memory",),
    "ff": ("Register as Flip Flop",),
    "dsp": ("DSPs",),
    "bram36": ("RAMB36/FIFO*",),
    "bram18": ("RAMB18",),
    "uram": ("URAM",),
}
"""The rows of report_utilization that are read; a family without UltraRAM has no row for it."""


@dataclass(frozen=True)
class Vivado:
    """Measures designs of a Xilinx family; the three definitions of LUT are the one that Vivado reports.

    Raises:
        InputError: a family that Vivado does not know.
        ToolMissingError: Vivado is not on the PATH.
    """

    family: str
    limits: Limits = _LIMITS

    def __post_init__(self) -> None:
        if not fabric_of(self.family).vivado_part:
            known = [name for name, fabric in fabrics().items() if fabric.vivado_part]
            raise InputError(f"Vivado does not know {self.family}", allowed=", ".join(known))

    @cached_property
    def program(self) -> str:
        """The path of the ``vivado`` program."""
        found = shutil.which("vivado")
        if found is None:
            raise ToolMissingError("vivado is not on the PATH", hint="measure with --tool yosys")
        return found

    @cached_property
    def version(self) -> str:
        """The version that ``vivado -version`` reports, e.g. 2020.1."""
        answer = subprocess.run(
            [self.program, "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=120,
            check=False,
        )
        match = re.search(r"[Vv]ivado v(\S+)", answer.stdout)
        if match is None:
            raise CheckFailedError(
                f"{self.program} -version printed no version: {answer.stdout[:200].strip() or 'nothing'}",
                hint="check that Vivado runs, or measure with --tool yosys",
            )
        return match[1]

    def key(self, design: Circuit) -> str:
        """A hash of a design and of everything else that its counts depend on."""
        return short_hash([design.digests, self.script(design), self.version])

    def script(self, design: Circuit) -> str:
        """The Tcl commands, run in a folder that holds copies of the design's files."""
        generics = " ".join(f"{name}={value}" for name, value in design.settings)
        options = [
            f"-top {design.top} -part {fabric_of(self.family).vivado_part}",
            "-mode out_of_context -flatten_hierarchy full",
            *([f"-generic {{{generics}}}"] if generics else []),
            *([] if design.srl else ["-shreg_min_size 1000"]),
        ]
        return "\n".join(
            [
                *(f"read_verilog -sv {{{name}}}" for name in design.sources),
                f"synth_design {' '.join(options)}",
                f"create_clock -period {_CLOCK_NS} [get_ports clk]",
                "report_utilization -file utilization.txt",
                "set file [open levels.txt w]",
                "puts $file [get_property LOGIC_LEVELS [lindex [get_timing_paths] 0]]",
                "close $file",
                "",
            ]
        )

    def synthesise(self, design: Circuit) -> SynthesisResult:
        """Measure one design.

        Raises:
            CheckFailedError: Vivado refused the design, or its report lacks a row.
        """
        with tempfile.TemporaryDirectory(prefix="qhw-vivado-") as folder:
            out = Path(folder)
            design.write(out)
            (out / "run.tcl").write_text(self.script(design))
            command = [self.program, "-mode", "batch", "-nojournal", "-source", "run.tcl"]
            failure, log = run_limited(command, "", out, self.limits.seconds)
            counts = None if failure else _counts(out, design, log)
        return SynthesisResult(self.key(design), "vivado", self.version, "default", counts, failure)


def _counts(out: Path, design: Circuit, log: str) -> Counts:
    try:
        report = (out / "utilization.txt").read_text()
        depth = int((out / "levels.txt").read_text() or 0)
    except (OSError, ValueError):
        said = [line for line in log.splitlines() if line.startswith("ERROR")]
        raise CheckFailedError(f"{design}: Vivado wrote no report", hint="; ".join(said) or None) from None
    found = {name: _cell(report, titles) for name, titles in _ROWS.items()}
    lacking = [name for name, value in found.items() if value is None and name != "uram"]
    if lacking:
        raise CheckFailedError(f"{design}: Vivado's report has no row for {', '.join(lacking)}")
    n = {name: value or 0 for name, value in found.items()}
    bram18 = n["bram18"] + 2 * n["bram36"]
    return Counts(n["lut"], n["lut"], n["lut"], n["lutram"], n["ff"], n["dsp"], bram18, n["uram"], depth)


def _cell(report: str, titles: tuple[str, ...]) -> int | None:
    """The used column of the first row with one of these titles."""
    for title in titles:
        match = re.search(rf"^\|\s*{re.escape(title)}\s*\|\s*(\d+)", report, re.MULTILINE)
        if match:
            return int(match[1])
    return None
