"""Every measured circuit simulated by Verilator against the formats: how many designs, vectors, differences.

The designs are the first of each unit's sample, as they are synthesised for the cost models. All inputs are
tried where they hold up to 20 bits, else 100,000 random steps; the pipeline is stopped now and then.

    python benchmarks/rtl_proofs.py [--designs 12] [--units integer_mac,...]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track

from qhw.cost.calibration import catalogue
from qhw.rtl import UNITS
from qhw.rtl.simulation.proof import Case, Proof, prove
from qhw.rtl.simulation.verilator import Simulator

RESULT = Path(__file__).parent / "results" / "rtl_proofs.md"
FAMILY = "ultrascale-plus"
TOGETHER = 12
"""Designs in one build."""


def proofs(simulator: Simulator, unit: str, designs: int) -> list[Proof]:
    """Proofs of the first designs of a unit's sample."""
    points = catalogue.points(FAMILY, [unit])[:designs]
    cases = [Case(UNITS[unit], dict(point.parameters)) for point in points]
    batches = [cases[i : i + TOGETHER] for i in range(0, len(cases), TOGETHER)]
    return [proof for batch in batches for proof in prove(batch, simulator)]


def row(unit: str, found: Sequence[Proof]) -> str:
    """One line of the table."""
    exhaustive = sum(proof.exhaustive for proof in found)
    vectors, differences = (
        sum(getattr(proof, name) for proof in found) for name in ("vectors", "differences")
    )
    return f"| {unit} | {UNITS[unit].summary} | {len(found)} | {exhaustive} | {vectors:,} | {differences} |"


def main() -> None:
    """Prove, write the table, and fail where anything differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--designs", type=int, default=TOGETHER, help="of each unit")
    parser.add_argument("--units", default="", help="with commas between; all without any")
    given = parser.parse_args()
    units = given.units.split(",") if given.units else catalogue.units()
    with tempfile.TemporaryDirectory() as folder:
        simulator = Simulator(Path(folder) / "verilator")
        every = {
            unit: proofs(simulator, unit, given.designs)
            for unit in track(units, "simulating", console=Console(stderr=True))
        }
    lines = [
        "# Circuits against the formats",
        "",
        "Simulated by Verilator; a difference is a cycle whose outputs are not what qhw/formats says.",
        "",
        "| unit | computes | designs | of them exhaustive | steps compared | differences |",
        "|---|---|---:|---:|---:|---:|",
        *(row(unit, found) for unit, found in every.items()),
        "",
    ]
    RESULT.write_text("\n".join(lines))
    Console().print(RESULT.read_text(), markup=False, highlight=False)
    if any(proof.differences for found in every.values() for proof in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
