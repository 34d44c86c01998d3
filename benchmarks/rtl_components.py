"""What components take by their counts, beside what Yosys makes of each alone.

    python benchmarks/rtl_components.py [--components gearbox,...] [--designs 3]

Writes ``benchmarks/results/rtl_components.md``; the lines of components that are not named stay. The counts
are for whole designs (``benchmarks/rtl_totals.py``), where bits that are constant or that nothing reads go
away, and gates are shared with what stands beside. A component alone shows where a count is off.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from qhw.cost.oracle.synth import Circuit, Yosys, yosys_version
from qhw.rtl.base import Module, Values
from qhw.rtl.components import COMPONENTS
from qhw.rtl.shared.counting import Columns, Counting

RESULT = Path(__file__).parent / "results" / "rtl_components.md"
FAMILIES = ("ultrascale-plus", "ecp5")
"""LUTs of six inputs, and of four; 7 series cells are those of UltraScale+ here."""
RESOURCES = ("lut", "ff", "bram18")
DESIGNS = 3


@dataclass(frozen=True)
class Compared:
    """A component's resources, summed up over its designs: counted, and by Yosys."""

    counted: Mapping[str, float]
    made: Mapping[str, int]

    @property
    def cells(self) -> list[str]:
        """Cells of the table."""
        pairs = [(self.counted[name], self.made[name]) for name in RESOURCES]
        return [f"{counted:,.0f} / {made:,}" for counted, made in pairs]


def circuit_of(unit: Module, values: Values, folder: Path) -> Circuit:
    """The circuit for the oracle; its constants are in a file."""
    files = list(unit.files)
    if unit.constants is not None:
        memory = folder / "constants.mem"
        memory.write_text("".join(f"{word:x}\n" for word in unit.constants(values)))
        for place, file in enumerate(files):
            files[place] = folder / file.name
            files[place].write_text(file.read_text().replace('FILE = ""', f'FILE = "{memory.absolute()}"'))
    return Circuit(unit.name, tuple(files), tuple(values.items()), memories=True, srl=True)


def compared(name: str, family: str, designs: int) -> Compared:
    """A component's first designs."""
    unit, oracle = COMPONENTS[name], Yosys(family)
    counted, made = dict.fromkeys(RESOURCES, 0.0), dict.fromkeys(RESOURCES, 0)
    for sample in unit.samples[:designs]:
        values = unit.checked(sample)
        columns = None
        if unit.constants is not None:
            words = list(unit.constants(values))
            width = max((values["D"] - 1).bit_length(), 1) if "L" in values else values["W"]
            columns = Columns.of(words, width)
        taken = unit.counted(values, Counting(family, columns))
        with tempfile.TemporaryDirectory() as folder:
            counts = oracle.synthesise(circuit_of(unit, values, Path(folder))).counts
        assert counts is not None
        for resource in RESOURCES:
            counted[resource] += getattr(taken, resource)
            made[resource] += getattr(counts, resource)
    return Compared(counted, made)


def rows_there() -> dict[str, str]:
    """The lines of the page, by component and family."""
    lines = RESULT.read_text().splitlines() if RESULT.exists() else []
    return {" | ".join(line.strip("| ").split(" | ")[:2]): line for line in lines if line.startswith("| ")}


def report(rows: Mapping[str, str]) -> Iterator[str]:
    """The page."""
    yield "# Components alone: counted, and synthesised"
    yield ""
    yield f"`benchmarks/rtl_components.py`, Yosys {yosys_version()}: of each the first {DESIGNS} designs,"
    yield "summed up, counted / synthesised. In designs, bits that are constant or unread go away; whole"
    yield "designs are in [rtl_totals.md](rtl_totals.md). Of a `delay` on Xilinx devices, Yosys makes shift"
    yield "registers of LUTs: that is counted with what stands around it (`flows/rtl/priced.py`)."
    yield ""
    yield "| component | family | LUT | FF | BRAM18 |"
    yield "|---|---|---:|---:|---:|"
    for name in COMPONENTS:
        yield from (rows[f"{name} | {family}"] for family in FAMILIES if f"{name} | {family}" in rows)
    yield ""


def main() -> None:
    """Synthesise, and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--components", default="", help="with commas between; all without any")
    parser.add_argument("--designs", type=int, default=DESIGNS, help="of each component")
    given = parser.parse_args()
    names: Sequence[str] = given.components.split(",") if given.components else list(COMPONENTS)
    unknown = sorted(set(names) - set(COMPONENTS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: no component; there are {', '.join(COMPONENTS)}")
    rows = rows_there()
    for name in track(names, "synthesising", console=Console(stderr=True)):
        for family in FAMILIES:
            cells = compared(name, family, given.designs).cells
            rows[f"{name} | {family}"] = f"| {name} | {family} | {' | '.join(cells)} |"
        RESULT.write_text("\n".join(report(rows)))


if __name__ == "__main__":
    main()
