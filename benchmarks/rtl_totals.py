"""Whole rtl designs synthesised flat by Yosys, beside what `qhw cost --flow rtl` says of them.

    python benchmarks/rtl_totals.py [--case NAME]... [--modules] [--report]

Writes ``cost_models/rtl_totals.json``, case by case, and ``benchmarks/results/rtl_totals.md``. A case
whose text was synthesised before is not synthesised again: netlists are kept in ``build/rtl_totals``. An
estimate is always that of the code as it is. Networks are trained briefly on the digits and quantised without
further training: what a design takes hangs little on how well it was trained. Some cases were looked at while
the forms were written; others are held out: nothing was corrected after them.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import qhw
from qhw.boards import load_board
from qhw.cost import Design, estimate
from qhw.cost.oracle.netlist import CARRY, MEMORY_LUTS
from qhw.cost.oracle.synth import yosys_version
from qhw.cost.pricing.usage import Usage
from qhw.data import load_dataset
from qhw.export import to_onnx
from qhw.flows.base import Project, ProjectFlow, load_flow
from qhw.flows.rtl.circuit import TOP
from qhw.flows.rtl.emission import settled
from qhw.flows.rtl.priced import taken
from qhw.flows.rtl.project import read_description
from qhw.flows.rtl.synthesis import netlist_of
from qhw.flows.rtl.totals import FILE, RESOURCES, SCHEMA_VERSION, Errors, error, read
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.layers import Normalize
from qhw.models.digits_cnn import DigitsCnn
from qhw.models.mlp import Mlp
from qhw.quant_config import formats_named
from qhw.resources import resource_dir
from qhw.train import Phase, TrainConfig

RESULT = Path(__file__).parent / "results" / "rtl_totals.md"
NETLISTS = Path("build") / "rtl_totals"
BOARDS = {"ultrascale-plus": "zcu104", "7series": "pynq-z2", "ecp5": "ulx3s"}
BUDGET = 0.9


class Depthwise(nn.Module):
    """A strided convolution, a depthwise and a pointwise one, a max pool and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.normalize = Normalize(exponent=4)
        self.stem = nn.Conv2d(1, 8, 3, padding=1, stride=2)
        self.first = nn.ReLU()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second = nn.ReLU()
        self.pointwise = nn.Conv2d(8, 12, 1)
        self.third = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.classify = nn.Linear(48, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.stem(self.normalize(x)))
        x = self.second(self.depthwise(x))
        x = self.pool(self.third(self.pointwise(x)))
        result: Tensor = self.classify(x.flatten(1))
        return result


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp": lambda: Mlp(64, 10, 4, (24, 16)),
    "wide-mlp": lambda: Mlp(64, 10, 4, (48, 32)),
    "small-mlp": lambda: Mlp(64, 10, 4, (20, 12)),
    "middle-mlp": lambda: Mlp(64, 10, 4, (32, 20)),
    "digits-cnn, 6 channels": lambda: DigitsCnn((1, 8, 8), 10, 4, width=6),
    "digits-cnn, 8 channels": lambda: DigitsCnn((1, 8, 8), 10, 4, width=8),
    "digits-cnn, 12 channels": lambda: DigitsCnn((1, 8, 8), 10, 4, width=12),
    "depthwise": Depthwise,
}


@dataclass(frozen=True)
class Case:
    """A network in formats, at the smallest folding for a rate, on a family; held out or not."""

    network: str
    formats: str
    family: str
    fps: float
    held_out: bool
    multipliers: str = "auto"

    @property
    def facts(self) -> dict[str, Any]:
        """What tells it from others, as the JSON has it."""
        return {
            "network": self.network,
            "formats": self.formats,
            "family": self.family,
            "fps": self.fps,
            "multipliers": self.multipliers,
        }

    def __str__(self) -> str:
        return f"{self.network} {self.formats} {self.family} {self.fps:g} {self.multipliers}"


_NARROW_CNN, _CNN, _WIDE_CNN = (f"digits-cnn, {channels} channels" for channels in (6, 8, 12))
_XCUP, _XC7, _ECP5 = BOARDS

CASES = (
    Case("mlp", "fixed<4>", _XCUP, 1, False),
    Case("mlp", "fixed<4>", _ECP5, 1, False),
    Case("mlp", "e3m2", _XCUP, 1, False),
    Case(_CNN, "fixed<4>", _XCUP, 1, False),
    Case("depthwise", "fixed<6>", _ECP5, 1, False),
    Case("depthwise", "fixed<6>", _XC7, 1, False),
    *(Case("mlp", "fixed<8>", family, 100_000, False) for family in BOARDS),
    *(Case("mlp", "khot<8,2>", family, 30_000, False) for family in BOARDS),
    *(Case("mlp", "binary", family, 20_000, False) for family in BOARDS),
    *(Case("wide-mlp", "fixed<3>", family, 50_000, False) for family in BOARDS),
    *(Case(_CNN, "fixed<8>", family, 1, False) for family in BOARDS),
    *(Case(_CNN, "fixed<4>", family, 40_000, False) for family in BOARDS),
    *(Case(_CNN, "fixed<5>", family, 10_000, False, "lut") for family in BOARDS),
    *(Case(_WIDE_CNN, "e2m1", family, 5_000, False) for family in BOARDS),
    *(Case("depthwise", "khot<8,2>", family, 10_000, False) for family in BOARDS),
    *(Case("depthwise", "fixed<4>", family, 100_000, False) for family in BOARDS),
    *(Case("depthwise", "e3m2, pointwise fixed<5>", family, 20_000, False) for family in BOARDS),
    # Held out since December 2026.
    *(Case("small-mlp", "fixed<5>", family, 1, True) for family in BOARDS),
    *(Case("small-mlp", "e2m2", family, 20_000, True) for family in BOARDS),
    *(Case("small-mlp", "khot<6,2>", family, 200_000, True) for family in BOARDS),
    *(Case("middle-mlp", "fixed<6>", family, 200_000, True) for family in BOARDS),
    *(Case("middle-mlp", "ternary", family, 50_000, True) for family in BOARDS),
    *(Case("middle-mlp", "fixed<4>", family, 20_000, True, "lut") for family in BOARDS),
    *(Case(_NARROW_CNN, "fixed<6>", family, 5_000, True) for family in BOARDS),
    *(Case(_NARROW_CNN, "khot<6,2>", family, 1, True) for family in BOARDS),
    *(Case("depthwise", "fixed<5>", family, 30_000, True) for family in BOARDS),
    *(Case("depthwise", "fixed<8>", family, 1, True) for family in BOARDS),
)


@cache
def graph_of(network: str, formats: str) -> ExactGraph:
    """The exact graph of a network that was trained for two epochs; "A, LAYER B" has one layer in others."""
    torch.manual_seed(0)
    data, model = load_dataset("digits"), NETWORKS[network]()
    config = TrainConfig(float_epochs=2, threads=1)
    Phase("float", config.float_epochs, config.learning_rate, config, None, "").run(model, data, None)
    text, _, other = formats.partition(", ")
    quant: dict[str, Any] = dict(formats_named(text))
    if other:
        layer, given = other.split()
        quant["overrides"] = {layer: formats_named(given)}
    return lower(to_onnx(qhw.ptq(model, data, quant, methods=[], samples=128)))


def design_of(case: Case) -> Design:
    flow = load_flow("rtl")
    design = flow.prepare(
        graph_of(case.network, case.formats), load_board(BOARDS[case.family]), case.multipliers
    )
    return flow.best(design, budget=BUDGET, fps=case.fps)


@dataclass(frozen=True)
class Synthesised:
    """The cells of a whole design by Yosys, its flat netlist, and a hash of the design's text."""

    design: str
    counts: dict[str, int]
    netlist: dict[str, Any]


def synthesised(design: Design) -> Synthesised:
    """By Yosys, kept under a hash of the design's text: nothing is synthesised twice."""
    flow = load_flow("rtl")
    assert isinstance(flow, ProjectFlow)
    with tempfile.TemporaryDirectory() as folder:
        project = flow.write(design, Path(folder) / "project")
        digest = text_of(project)
        kept = NETLISTS / f"{digest}.json.gz"
        if not kept.is_file():
            counts, netlist = netlist_of(project)
            cells = {name: getattr(counts, name) for name in RESOURCES}
            NETLISTS.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"counts": cells, "netlist": netlist})
            kept.write_bytes(gzip.compress(text.encode(), compresslevel=1))
    return Synthesised(digest, **json.loads(gzip.decompress(kept.read_bytes())))


def text_of(project: Project) -> str:
    """A hash of everything that Yosys reads of a project, and of its version."""
    digest = hashlib.sha256(f"{read_description(project.folder).family} {yosys_version()}".encode())
    for path in sorted(project.folder.rglob("*")):
        if path.suffix in (".v", ".mem"):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:24]


_REGISTERS = re.compile(r"FD[RSCP]E|TRELLIS_FF")
_OUTPUT_PINS = ("Q", "O", "Z", "COUT", "S0", "S1", "CO", "P", "DO", "DOD", "DOC", "DOB", "DOA", "DPO")


def modules(design: Design) -> Iterator[str]:
    """Component by component, what was counted and what there is, those that are furthest off first.

    A register belongs to the component whose file says it; a LUT to that whose wire it drives, or to that of
    the next wire behind it that has a name. Yosys names a wire once: a few cells are one component off.
    """
    circuit, _ = settled(design)
    counted = taken(circuit, design.board.family)
    top = synthesised(design).netlist["modules"][TOP]
    kinds = {component.name: component.module for component in circuit.components}
    found = _cells_of(top, kinds)
    yield "| component | module | LUT | FF |"
    yield "|---|---|---|---|"
    names = sorted(
        {*counted, *found},
        key=lambda name: (
            -abs(counted.get(name, Usage()).lut - found[name]["lut"])
            - abs(counted.get(name, Usage()).ff - found[name]["ff"])
        ),
    )
    for name in names:
        own, cells = counted.get(name, Usage()), found[name]
        kind = kinds.get(name, "the top")
        lut, ff = (
            f"{given:.0f} / {there} ({given - there:+.0f})"
            for given, there in ((own.lut, cells["lut"]), (own.ff, cells["ff"]))
        )
        yield f"| {name or 'top'} | {'of its own' if kind == name else kind} | {lut} | {ff} |"


def _cells_of(top: dict[str, Any], kinds: dict[str, str]) -> dict[str, Counter[str]]:
    """LUTs (raw: carry positions share none) and registers of each component of a netlist."""
    named: dict[int, list[str]] = defaultdict(list)
    for name, wire in top["netnames"].items():
        owner = name.split(".")[0]
        if not wire.get("hide_name") and owner in kinds and "." in name:
            for net in wire["bits"]:
                named[net].append(owner)
    drives: dict[str, list[int]] = defaultdict(list)
    reads: dict[int, list[str]] = defaultdict(list)
    for name, cell in top["cells"].items():
        for pin, nets in cell["connections"].items():
            if pin in _OUTPUT_PINS:
                drives[name] += nets
            else:
                for net in nets:
                    reads[net].append(name)

    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, cell in top["cells"].items():
        kind = cell["type"]
        if _REGISTERS.fullmatch(kind):
            file = Path(cell["attributes"].get("src", "").split("|")[0].split(":")[0]).stem
            owners = [o for net in drives[name] for o in named[net]]
            fitting = [o for o in owners if kinds[o] == file] or [o for o in owners if kinds[o] == o]
            found[(fitting or owners or [""])[0]]["ff"] += 1
        elif lut := luts_of(kind):
            found[_owner(name, drives, reads, named)]["lut"] += lut
    return found


def _owner(
    name: str, drives: dict[str, list[int]], reads: dict[int, list[str]], named: dict[int, list[str]]
) -> str:
    """The component of the first wire with a name at a cell's output or behind it."""
    front, seen = [name], {name}
    while front:
        nets = [net for cell in front for net in drives.get(cell, ())]
        for net in nets:
            if named[net]:
                return named[net][0]
        front = [cell for net in nets for cell in reads[net] if cell not in seen]
        seen.update(front)
    return ""


def luts_of(kind: str) -> int:
    """LUT sites of a cell."""
    return 1 if re.fullmatch(r"LUT\d|INV", kind) else {**CARRY, **MEMORY_LUTS}.get(kind, 0)


def row_of(case: Case) -> dict[str, Any]:
    design = design_of(case)
    totals, found = estimate(design).totals, synthesised(design)
    return {
        **case.facts,
        "folding": "; ".join(f"{name} {fold}" for name, fold in design.folding.items()),
        "held_out": case.held_out,
        "design": found.design,
        "tool": f"Yosys {yosys_version()}",
        "estimated": {name: totals[name] for name in RESOURCES},
        "synthesised": found.counts,
    }


def write(rows: Sequence[dict[str, Any]]) -> None:
    stored = {"schema_version": SCHEMA_VERSION, "rows": list(rows)}
    path = resource_dir("cost_models") / FILE
    beside = path.with_suffix(".part")
    beside.write_text(json.dumps(stored, indent=1) + "\n")
    beside.replace(path)


def lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The report."""
    yield "# Totals of rtl designs: counted, and synthesised flat\n"
    yield "`benchmarks/rtl_totals.py`: whole designs, each synthesised by Yosys as one flat netlist. Figures"
    yield "are those of `qhw cost --flow rtl` / synthesised. Nothing was corrected after the held-out ones."
    for title, held_out in (("Held out", True), ("Looked at while the forms were written", False)):
        chosen = [row for row in rows if row["held_out"] == held_out]
        if not chosen:
            continue
        yield f"\n## {title}\n"
        names = [name.upper() for name in RESOURCES]
        yield f"| network | formats | family | images/s | multipliers | {' | '.join(names)} |"
        yield f"|{'---|' * (5 + len(names))}"
        for row in chosen:
            cells = [
                row["network"],
                f"`{row['formats']}`",
                row["family"],
                f"{row['fps']:,.0f}",
                row["multipliers"],
            ]
            for name in RESOURCES:
                given, found = row["estimated"][name], row["synthesised"][name]
                off = "" if given == found else f" ({error(row, name):+.1%})"
                cells.append(f"{given:,} / {found:,}{off}")
            yield f"| {' | '.join(cells)} |"
        yield ""
        for family in BOARDS:
            own = [row for row in chosen if row["family"] == family]
            if own:
                said = ", ".join(f"{name.upper()} {Errors.of(own, name)}" for name in RESOURCES)
                yield f"- {family}, {len(own)} designs: {said}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", action="append", default=[], help="only cases whose name contains this")
    parser.add_argument("--modules", action="store_true", help="the components of the cases, and how far off")
    parser.add_argument("--report", action="store_true", help="only what was synthesised already")
    given = parser.parse_args()
    if given.modules:
        for case in CASES:
            if not given.case or any(text in str(case) for text in given.case):
                print(f"\n## {case}\n", *modules(design_of(case)), sep="\n")
        return
    rows = {tuple(row[name] for name in CASES[0].facts): row for row in read()}
    for case in CASES:
        key = tuple(case.facts.values())
        chosen = not given.case or any(text in str(case) for text in given.case)
        if not chosen or (given.report and key not in rows):
            continue
        try:
            rows[key] = row_of(case)
        except qhw.errors.QhwError as refused:
            sys.stderr.write(f"{case}: {refused}\n")
            continue
        ordered = [rows[tuple(c.facts.values())] for c in CASES if tuple(c.facts.values()) in rows]
        write(ordered)
        sys.stderr.write(f"{case}: {rows[key]['estimated']} {rows[key]['synthesised']}\n")
    RESULT.write_text("\n".join([*lines(read()), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
