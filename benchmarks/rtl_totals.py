"""Whole rtl designs synthesised flat by Yosys, beside what `qhw cost --flow rtl` says of them.

    python benchmarks/rtl_totals.py [--case NAME]... [--again] [--report]

Writes ``cost_models/rtl_totals.json``, case by case, and ``benchmarks/results/rtl_totals.md``. A case that
is there already is not synthesised again unless ``--again`` says so, or it is folded otherwise by now; its
estimate is always that of the code as it is. Networks are trained briefly on the digits and quantised without
further training: what a design takes hangs little on how well it was trained. Some cases were looked at while
the forms were written; others are held out: nothing was corrected after them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
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
from qhw.cost.oracle.synth import yosys_version
from qhw.data import load_dataset
from qhw.export import to_onnx
from qhw.flows.base import ProjectFlow, load_flow
from qhw.flows.rtl.synthesis import synthesised
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


_CNN, _WIDE_CNN = "digits-cnn, 8 channels", "digits-cnn, 12 channels"
_XCUP, _XC7, _ECP5 = BOARDS

CASES = (
    Case("mlp", "fixed<4>", _XCUP, 1, False),
    Case("mlp", "fixed<4>", _ECP5, 1, False),
    Case("mlp", "e3m2", _XCUP, 1, False),
    Case(_CNN, "fixed<4>", _XCUP, 1, False),
    Case("depthwise", "fixed<6>", _ECP5, 1, False),
    Case("depthwise", "fixed<6>", _XC7, 1, False),
    *(Case("mlp", "fixed<8>", family, 100_000, True) for family in BOARDS),
    *(Case("mlp", "khot<8,2>", family, 30_000, family != _XCUP) for family in BOARDS),
    *(Case("mlp", "binary", family, 20_000, family != _XCUP) for family in BOARDS),
    *(Case("wide-mlp", "fixed<3>", family, 50_000, True) for family in BOARDS),
    *(Case(_CNN, "fixed<8>", family, 1, True) for family in BOARDS),
    *(Case(_CNN, "fixed<4>", family, 40_000, True) for family in BOARDS),
    *(Case(_CNN, "fixed<5>", family, 10_000, True, "lut") for family in BOARDS),
    *(Case(_WIDE_CNN, "e2m1", family, 5_000, True) for family in BOARDS),
    *(Case("depthwise", "khot<8,2>", family, 10_000, True) for family in BOARDS),
    *(Case("depthwise", "fixed<4>", family, 100_000, True) for family in BOARDS),
    *(Case("depthwise", "e3m2, pointwise fixed<5>", family, 20_000, True) for family in BOARDS),
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


def counted(design: Design) -> dict[str, int]:
    """The cells of the whole design, by Yosys."""
    flow = load_flow("rtl")
    assert isinstance(flow, ProjectFlow)
    with tempfile.TemporaryDirectory() as folder:
        found, _ = synthesised(flow.write(design, Path(folder) / "project"))
    return {name: int(found[name]) for name in RESOURCES}


def row_of(case: Case, known: dict[str, Any] | None) -> dict[str, Any]:
    design = design_of(case)
    totals = estimate(design).totals
    folding = "; ".join(f"{name} {fold}" for name, fold in design.folding.items())
    made = known if known is not None and known["folding"] == folding else None
    return {
        **case.facts,
        "folding": folding,
        "held_out": case.held_out,
        "tool": f"Yosys {yosys_version()}" if made is None else made["tool"],
        "estimated": {name: totals[name] for name in RESOURCES},
        "synthesised": counted(design) if made is None else made["synthesised"],
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
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--report", action="store_true", help="only what was synthesised already")
    given = parser.parse_args()
    rows = {tuple(row[name] for name in CASES[0].facts): row for row in read()}
    for case in CASES:
        key = tuple(case.facts.values())
        chosen = not given.case or any(text in str(case) for text in given.case)
        if not chosen or (given.report and key not in rows):
            continue
        known = None if given.again else rows.get(key)
        try:
            rows[key] = row_of(case, known)
        except qhw.errors.QhwError as refused:
            sys.stderr.write(f"{case}: {refused}\n")
            continue
        ordered = [rows[tuple(c.facts.values())] for c in CASES if tuple(c.facts.values()) in rows]
        write(ordered)
        sys.stderr.write(f"{case}: {rows[key]['estimated']} {rows[key]['synthesised']}\n")
    RESULT.write_text("\n".join([*lines(read()), ""]), encoding="utf-8")


if __name__ == "__main__":
    main()
