"""qhw's prices of FINN's layers beside FINN's own estimates, node by node.

    python benchmarks/finn_prices.py [BUILD ...]

Without a build folder of the FINN flow, the default model is built for an Ultra96 first. Writes
``benchmarks/results/finn_prices.md``. Neither side is measured: qhw's is calibrated against Yosys, FINN's
are its published formulas.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import qhw

RESULTS = Path(__file__).parent / "results" / "finn_prices.md"
COUNTS = ("cycles", "lut", "dsp", "bram18")


def table(build: Path) -> list[str]:
    """The rows of one build, and their sums; of cycles the largest."""
    manifest = json.loads((build / "build.json").read_text())
    rows = json.loads((build / "project" / "reports" / "layers.json").read_text())
    head = [f"{count}, {side}" for count in COUNTS for side in ("qhw", "FINN")]
    lines = [
        f"## {manifest['inputs']['model']['given']} on {manifest['board']['title']}",
        "",
        f"| node | operation | {' | '.join(head)} | FINN's layers |",
        f"|---|---|{'---:|' * len(head)}---|",
    ]
    shown = [row for row in rows if row["layers"]]
    for row in shown:
        names = ", ".join(row["layers"])
        lines.append(f"| {row['node']} | {row['op']} | {' | '.join(_pairs(row))} | {names} |")
    total = {
        side: {
            count: (max if count == "cycles" else sum)(row[side][count] for row in shown) for count in COUNTS
        }
        for side in ("qhw", "finn")
    }
    return [*lines, f"| all | | {' | '.join(_pairs(total))} | |", ""]


def _pairs(row: dict[str, Any]) -> list[str]:
    return [f"{row[side][count]:,.0f}" for count in COUNTS for side in ("qhw", "finn")]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("builds", nargs="*", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        builds = given.builds
        if not builds:
            builds = [Path(folder) / "build"]
            qhw.build("digits-cnn", board="ultra96", flow="finn", sources="generated", out=builds[0])
        lines = [
            "# Prices of FINN's layers: qhw's and FINN's own",
            "",
            "Estimates of the same folding (`benchmarks/finn_prices.py`): qhw's circuits, calibrated",
            "against Yosys, and FINN's formulas, which price its RTL matrix units at no LUT and most HLS",
            "layers at nothing, and put weights into block RAM. Cycles are those between two images;",
            "FINN's of a window include the pixels that fill it.",
            "",
            *(line for build in builds for line in table(build)),
        ]
    RESULTS.write_text("\n".join(lines))
    print(RESULTS.read_text())


if __name__ == "__main__":
    main()
