"""The synthesis oracle: what a circuit takes of a device family, measured with Yosys, one process per design.

No vendor tool: the counts are those of Yosys and abc with a mapping of multipliers to carry chains
(``cost_models/mapping/mul_rows.v``), and of the packing that :mod:`qhw.cost.oracle.netlist` defines. Where
Vivado is on the PATH, :mod:`qhw.cost.oracle.vivado` measures the same designs; a record says which tool
measured it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from qhw.cost.oracle import nextpnr, yosys_script
from qhw.cost.oracle.limited import run_limited
from qhw.cost.oracle.netlist import Counts, count
from qhw.cost.oracle.yosys_script import MULTIPLIERS, Mapper
from qhw.devices import fabric_of, fabrics
from qhw.errors import CheckFailedError, InputError, QhwError, ToolMissingError
from qhw.outside.schema import check, table
from qhw.outside.text import read_json
from qhw.resources import resource_dir

MAPPER: Mapper = "area"
"""How abc covers logic with LUTs in every committed measurement, chosen before the first of them.

``area`` is ``abc -lut``: least depth, then area recovered wherever that costs no depth, and LUTs refined by
mfs2 and lutpack. ``delay`` is abc9 with the device's own delays, Yosys's default: 5-30 % more LUTs on
converters, requantisers and minifloat MACs, which a vendor tool does not spend where the timing is met.
"""

FAMILIES = tuple(fabrics())


@dataclass(frozen=True)
class Circuit:
    """A Verilog top module with its parameters.

    Args:
        top: the module.
        files: the Verilog files to read, in order; they include no other file.
        parameters: the top module's parameters, integers.
        text: Verilog of an emitted module, read after the files; its parameters are in it, and not set.
        memories: whether arrays may become memories (else registers and logic).
        vendor_cells: whether it instantiates cells of the device, such as DSP slices.
        srl: whether shift registers may become SRL cells (else they stay flip-flops).
    """

    top: str
    files: tuple[Path, ...]
    parameters: tuple[tuple[str, int], ...] = ()
    text: str = ""
    memories: bool = False
    vendor_cells: bool = False
    srl: bool = False

    def __str__(self) -> str:
        return " ".join([self.top, *(f"{name}={value}" for name, value in self.parameters)])

    @property
    def sources(self) -> list[str]:
        """Names of the files that :meth:`write` writes, in the order in which they are read."""
        return [*(file.name for file in self.files), *(["emitted.v"] if self.text else [])]

    @property
    def digests(self) -> list[str]:
        """Hashes of everything that is read."""
        return [*(file_digest(file) for file in self.files), short_hash(self.text)]

    @property
    def settings(self) -> tuple[tuple[str, int], ...]:
        """The parameters that the tool sets."""
        return () if self.text else self.parameters

    def write(self, folder: Path) -> None:
        """Copies of the files, and the emitted module."""
        for file in self.files:
            shutil.copy(file, folder / file.name)
        if self.text:
            (folder / "emitted.v").write_text(self.text)


@dataclass(frozen=True)
class Limits:
    """How much time and memory one design's synthesis may take."""

    seconds: float = 120.0
    megabytes: int = 4096


@dataclass(frozen=True)
class SynthesisResult:
    """The result of a synthesis.

    Args:
        key: a hash of the design, the tool and the script: the same key gives the same counts.
        tool, version, mapper: the tool that measured, its version and its mapper.
        counts: None where the synthesis ran out of ``failure``: "time" or "memory".
        fmax_mhz: after place and route, where a tool for that is installed (ECP5: nextpnr).
    """

    key: str
    tool: str
    version: str
    mapper: str
    counts: Counts | None
    failure: str = ""
    fmax_mhz: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> SynthesisResult:
        """The result that :meth:`to_json` wrote."""
        counts = data["counts"]
        return cls(**{**data, "counts": None if counts is None else Counts(**counts)})


class Oracle(Protocol):
    """A tool that measures designs of one family: Yosys here, Vivado in :mod:`qhw.cost.oracle.vivado`."""

    @property
    def family(self) -> str:
        """Device family, e.g. "ecp5"."""

    def key(self, design: Circuit) -> str:
        """A hash of a design and of everything else that its counts depend on."""

    def synthesise(self, design: Circuit) -> SynthesisResult:
        """Measure, cached or not."""


@dataclass(frozen=True)
class Yosys:
    """Measures designs of one family.

    Args:
        family: see ``FAMILIES``.
        mapper: abc's way of mapping to LUTs.
        limits: time and memory for one design.
        scramble: a seed of new names inside every design, to see what a count owes to names alone.

    Raises:
        InputError: an unknown family, or a seed below 1.
        ToolMissingError: pyosys is not installed.
    """

    family: str
    mapper: Mapper = MAPPER
    limits: Limits = Limits()
    scramble: int | None = None

    def __post_init__(self) -> None:
        check_family(self.family)
        if self.scramble is not None and self.scramble < 1:
            raise InputError(f"A seed of names must be 1 or more, not {self.scramble}")

    def key(self, design: Circuit) -> str:
        """A hash of a design and of everything else that its counts depend on."""
        digests = [*design.digests, file_digest(_multiplier_map())]
        return short_hash([digests, self.commands(design), self.version])

    @property
    def version(self) -> str:
        """The version of pyosys, and of nextpnr where it places and routes."""
        router = nextpnr.version() if self.family == "ecp5" else None
        return yosys_version() + (f"+nextpnr-{router}" if router else "")

    def commands(self, design: Circuit) -> list[str]:
        """The script, run in a folder that holds copies of the design's files."""
        sets = " ".join(f"-set {name} {value}" for name, value in design.settings)
        return [
            *(f"read_verilog -sv {name}" for name in design.sources),
            *([f"chparam {sets} {design.top}"] if sets else []),
            *yosys_script.commands(
                self.family,
                design.top,
                self.mapper,
                memories=design.memories,
                vendor_cells=design.vendor_cells,
                srl=design.srl,
                scramble=self.scramble,
            ),
            "blackbox =A:whitebox",
            *([f"write_json {nextpnr.NETLIST}"] if self.family == "ecp5" and nextpnr.version() else []),
            "delete =A:blackbox",
            "tee -q -o statistics.json stat -json",
            "write_json netlist.json",
        ]

    def synthesise(self, design: Circuit) -> SynthesisResult:
        """Measure one design.

        Raises:
            CheckFailedError: Yosys refused the design, or its netlist cannot be counted.
        """
        with tempfile.TemporaryDirectory(prefix="qhw-synth-") as folder:
            out = Path(folder)
            design.write(out)
            shutil.copy(_multiplier_map(), out)
            given = {"megabytes": self.limits.megabytes, "commands": self.commands(design)}
            script = Path(__file__).with_name("yosys_run.py")
            failure, log = run_limited(
                [sys.executable, "-P", str(script)], json.dumps(given), out, self.limits.seconds
            )
            counts = None if failure else _counts(out, design, log)
            fmax = nextpnr.fmax_mhz(out, self.limits.seconds) if counts else None
        return SynthesisResult(self.key(design), "yosys", self.version, self.mapper, counts, failure, fmax)


def check_family(family: str) -> None:
    """Raise InputError for a family that cannot be measured."""
    if like := fabric_of(family).priced_as:
        raise InputError(
            f"{family} is not measured: it is priced by the models of {like}", allowed=", ".join(FAMILIES)
        )


def yosys_version() -> str:
    """The version of pyosys.

    Raises:
        ToolMissingError: pyosys is not installed.
    """
    try:
        return importlib.metadata.version("pyosys")
    except importlib.metadata.PackageNotFoundError:
        raise ToolMissingError(
            "Synthesis needs Yosys, and the package pyosys is not installed", hint="pip install 'qhw[synth]'"
        ) from None


def measure(
    oracle: Oracle, designs: Sequence[Circuit], *, jobs: int = 1, cache: Path | None = None
) -> Iterator[tuple[int, SynthesisResult | QhwError]]:
    """Synthesise many designs, several at a time; yields (index, result) as they finish.

    A design that the tool refuses yields its error in place of a result, and the rest goes on. Results that
    are in the folder ``cache`` are taken from there; failures are not kept.
    """
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        tasks = {pool.submit(_measure, oracle, design, cache): i for i, design in enumerate(designs)}
        try:
            for task in as_completed(tasks):
                yield tasks[task], task.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _measure(oracle: Oracle, design: Circuit, cache: Path | None) -> SynthesisResult | QhwError:
    kept = cache / f"{oracle.key(design)}.json" if cache else None
    found = _cached(kept) if kept else None
    if found:
        return found
    try:
        result = oracle.synthesise(design)
    except ToolMissingError:
        raise
    except QhwError as error:
        return error
    if kept and result.counts:
        _write(kept, json.dumps(result.to_json()))
    return result


def _cached(path: Path) -> SynthesisResult | None:
    """A kept result; None if there is none, or the file is not whole."""
    try:
        stored = read_json(path, "measured result", 1 << 16)
        check(stored, _RESULT, str(path))
        return SynthesisResult.from_json(stored)
    except InputError:
        return None


_TEXT = {"type": "string"}
_RESULT = table(
    {
        **dict.fromkeys(("key", "tool", "version", "mapper", "failure"), _TEXT),
        "counts": table({field.name: {"type": "integer", "minimum": 0} for field in fields(Counts)}),
        "fmax_mhz": {"type": ["number", "null"]},
    }
)
"""A kept result, as :meth:`SynthesisResult.to_json` writes it: those with counts alone are kept."""


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    beside.write_text(text)
    beside.replace(path)


def _counts(out: Path, design: Circuit, log: str) -> Counts:
    """Raises CheckFailedError naming the design, with what the tool said last."""
    try:
        netlist = json.loads((out / "netlist.json").read_text())
        statistics = json.loads((out / "statistics.json").read_text())
        return count(netlist, statistics)
    except (OSError, ValueError):
        said = [line for line in log.splitlines() if "ERROR" in line] or log.splitlines()[-3:]
        raise CheckFailedError(
            f"{design}: Yosys wrote no netlist with statistics", hint="; ".join(said) or "its log is empty"
        ) from None
    except CheckFailedError as error:
        raise CheckFailedError(f"{design}: {error.message}", hint=error.hint) from None


def short_hash(value: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


@cache
def file_digest(path: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _multiplier_map() -> Path:
    return resource_dir("cost_models") / "mapping" / MULTIPLIERS
