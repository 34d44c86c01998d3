"""Every unit and component simulated by Verilator against its reference: designs, vectors, differences.

Of a measured unit the designs are the first of its sample, as they are synthesised for the cost models; a
component holds its own. All inputs are tried where they hold up to 20 bits, else 100,000 random steps; the
pipeline is stopped now and then. Circuits between streams run 100,000 cycles with random stalls at both ends
and resets in the middle of images.

    python benchmarks/rtl_proofs.py [--designs 12] [--units integer_mac,...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from qhw.cost.calibration import catalogue
from qhw.rtl import UNITS
from qhw.rtl.base import StreamUnit
from qhw.rtl.components import LANE_COMPONENTS, STREAMS
from qhw.rtl.simulation.composed import COMPOSED
from qhw.rtl.simulation.proof import Case, Proof, prove
from qhw.rtl.simulation.streams import StreamCase, StreamProof, prove_streams
from qhw.rtl.simulation.verilator import Simulator

RESULT = Path(__file__).parent / "results" / "rtl_proofs.md"
FAMILY = "ultrascale-plus"
TOGETHER = 12
"""Designs in one build."""


CYCLES = 100_000
"""Clock cycles of a circuit between streams."""

BETWEEN_STREAMS: Mapping[str, StreamUnit] = {**STREAMS, **COMPOSED}


def proofs(simulator: Simulator, cases: Sequence[Case]) -> list[Proof]:
    """Proofs of some designs, a few in a build."""
    batches = [cases[i : i + TOGETHER] for i in range(0, len(cases), TOGETHER)]
    return [proof for batch in batches for proof in prove(batch, simulator)]


def cases_of(unit: str, designs: int) -> list[Case]:
    """The first designs of a unit's sample, or those of a component."""
    if unit in LANE_COMPONENTS:
        return [Case(LANE_COMPONENTS[unit], values) for values in LANE_COMPONENTS[unit].samples]
    points = catalogue.points(FAMILY, [unit])[:designs]
    return [Case(UNITS[unit], dict(point.parameters)) for point in points]


def row(unit: str, summary: str, found: Sequence[Proof]) -> str:
    """One line of the table of units."""
    exhaustive = sum(proof.exhaustive for proof in found)
    vectors, differences = (
        sum(getattr(proof, name) for proof in found) for name in ("vectors", "differences")
    )
    return f"| {unit} | {summary} | {len(found)} | {exhaustive} | {vectors:,} | {differences} |"


def stream_row(unit: str, summary: str, found: Sequence[StreamProof]) -> str:
    """One line of the table of circuits between streams."""
    cycles, words, differences = (
        sum(getattr(proof, name) for proof in found) for name in ("cycles", "words", "differences")
    )
    return f"| {unit} | {summary} | {len(found)} | {cycles:,} | {words:,} | {differences} |"


def row_of(name: str, simulator: Simulator, designs: int) -> tuple[str, int]:
    """A circuit's line, and its differences."""
    if name in BETWEEN_STREAMS:
        unit = BETWEEN_STREAMS[name]
        cases = [StreamCase(unit, values) for values in unit.samples]
        passed = prove_streams(cases, simulator, cycles=CYCLES)
        return stream_row(name, unit.summary, passed), sum(proof.differences for proof in passed)
    found = proofs(simulator, cases_of(name, designs))
    summary = (LANE_COMPONENTS.get(name) or UNITS[name]).summary
    return row(name, summary, found), sum(proof.differences for proof in found)


def rows_there() -> dict[str, str]:
    """The lines of the page, by the circuit's name."""
    lines = RESULT.read_text().splitlines() if RESULT.exists() else []
    return {line.split(" | ")[0].removeprefix("| "): line for line in lines}


def report(rows: Mapping[str, str]) -> str:
    """The page."""
    header = "| computes | designs | of them exhaustive | steps compared | differences |"
    ruler = "|---|---|---:|---:|---:|---:|"

    def those(names: Iterable[str]) -> list[str]:
        return [rows[name] for name in names if name in rows]

    return "\n".join(
        [
            "# Circuits against their references",
            "",
            "Simulated by Verilator. A difference is a cycle whose outputs are not what the reference says.",
            "",
            "## Measured units",
            "",
            f"| unit {header}",
            ruler,
            *those(UNITS),
            "",
            "## Components within modules",
            "",
            f"| component {header}",
            ruler,
            *those(LANE_COMPONENTS),
            "",
            "## Between streams",
            "",
            "Both ends stall at random; resets come in the middle of images. Valid and ready must be those",
            "of the schedule's model in every cycle, and a word that is offered the next of the reference.",
            "",
            "| circuit | computes | designs | cycles compared | words taken | differences |",
            ruler,
            *those(BETWEEN_STREAMS),
            "",
        ]
    )


def main() -> None:
    """Prove, write the table, and fail where anything differs."""
    every = [*UNITS, *LANE_COMPONENTS, *BETWEEN_STREAMS]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--designs", type=int, default=TOGETHER, help="of each measured unit")
    parser.add_argument("--units", default="", help="with commas between; the page keeps the others' lines")
    given = parser.parse_args()
    names = given.units.split(",") if given.units else every
    unknown = set(names) - set(every)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: no unit or component; there are {', '.join(every)}")
    rows, differences = rows_there() if given.units else {}, 0
    with tempfile.TemporaryDirectory() as folder:
        simulator = Simulator(Path(folder) / "verilator")
        for name in track(names, "simulating", console=Console(stderr=True)):
            rows[name], differing = row_of(name, simulator, given.designs)
            differences += differing
    RESULT.write_text(report(rows))
    Console().print(RESULT.read_text(), markup=False, highlight=False)
    if differences:
        sys.exit(1)


if __name__ == "__main__":
    main()
