"""The clock that written designs reach after routing, board by board, by the open tools of each family.

    python benchmarks/rtl_fmax.py [--boards icebreaker ...] [--fps 1000] NAME=BUILD ...

A BUILD is the folder of a finished build of any board; its trained network is folded for each board anew.
Without ``--fps`` the folding is the fastest that fits, as in ``qhw build``. Rows of earlier runs are kept, in
``rtl_fmax.json``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.errors import CheckFailedError
from qhw.flows.base import load_project_flow
from qhw.flows.rtl.pin_file import boards_with_pins
from qhw.flows.rtl.synthesis import bitstream, synthesised
from qhw.graph.serialize import load_graph

RESULTS = Path(__file__).parent / "results"
_RESOURCES = ("lut", "ff", "dsp", "bram18")


def measured(name: str, folder: Path, board_name: str, fps: float | None, registers: str) -> dict[str, Any]:
    """A network on a board: estimated, synthesised and routed; what the flow says where it does not fit."""
    flow, board = load_project_flow("rtl", registers=registers), load_board(board_name)
    row: dict[str, Any] = {"model": name, "board": board_name, "fps": fps, "registers": registers}
    try:
        design = flow.best(flow.prepare(load_graph(folder / "graph"), board), fps=fps)
        estimated = estimate(design)
        row["estimated"] = {name: estimated.totals[name] for name in _RESOURCES}
        with tempfile.TemporaryDirectory() as scratch:
            project = flow.write(design, Path(scratch) / "project")
            counts, _ = synthesised(project)
            row["synthesised"] = {name: counts[name] for name in _RESOURCES}
            row["cycles"] = counts["interval_cycles"]
            made, _ = bitstream(project)
            row |= {name: made[name] for name in ("fmax_mhz", "clock_mhz", "utilisation")}
            row["kib"] = round((project.folder / made["file"]).stat().st_size / 1024)
    except CheckFailedError as error:
        row["refused"] = f"{error.message}; {error.hint}"
    return row


def text(rows: list[dict[str, Any]]) -> str:
    """The table, as Markdown."""
    lines = [
        "Routed by nextpnr 0.11 behind Yosys 0.70, seed 1, for the oscillator's clock; estimates in",
        "brackets. Images per second: at the oscillator's clock, and at the clock that is reached; the",
        "serial line carries fewer. Rows of `digits-mlp` are of an earlier version; `mlp` is the model",
        "that comes with qhw.",
        "",
        "| board | network | at | LUT | FF | DSP | RAM | MHz reached | oscillator | images/s | KiB |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        asked = "the fastest that fits" if row["fps"] is None else f"{row['fps']:g} images/s"
        asked += "" if row["registers"] == "few" else f", --registers {row['registers']}"
        head = f"| {row['board']} | {row['model']} | {asked}"
        if "refused" in row:
            lines.append(f"{head} | {row['refused']} | | | | | | | |")
            continue
        amounts = " | ".join(f"{row['synthesised'][n]:,} ({row['estimated'][n]:,})" for n in _RESOURCES)
        rates = " and ".join(
            f"{row[clock] * 1e6 / row['cycles']:,.0f}" for clock in ("clock_mhz", "fmax_mhz")
        )
        lines.append(
            f"{head} | {amounts} | {row['fmax_mhz']:.1f} | {row['clock_mhz']:g} | {rates} | {row['kib']} |"
        )
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("builds", nargs="+", metavar="NAME=BUILD")
    parser.add_argument("--boards", nargs="+", choices=boards_with_pins(), default=boards_with_pins())
    parser.add_argument("--fps", type=float)
    parser.add_argument("--registers", default="few")
    options = parser.parse_args()
    path = RESULTS / "rtl_fmax.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    same = ("board", "model", "fps", "registers")
    for given in options.builds:
        model, _, build = given.partition("=")
        for board in options.boards:
            row = measured(model, Path(build), board, options.fps, options.registers)
            print(text([row]).splitlines()[-1], flush=True)
            rows = [r for r in rows if any(r.get(key) != row.get(key) for key in same)] + [row]
            rows.sort(key=lambda r: [str(r.get(key)) for key in ("model", "board", "fps", "registers")])
            path.write_text(json.dumps(rows, indent=1) + "\n")
            path.with_suffix(".md").write_text(text(rows))


if __name__ == "__main__":
    main()
