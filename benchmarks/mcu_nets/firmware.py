"""Networks of benchmarks/quantmcu.py as firmware: run in QEMU, compared with the exact graph, measured."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qhw.boards import load_board
from qhw.flows.base import load_project_flow
from qhw.flows.mcu.project import read_description
from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph


def in_qemu(graph: ExactGraph, patches: str, board: str, inputs: Mapping[str, IntArray]) -> dict[str, Any]:
    """What a graph takes as firmware for a board, built with so many patches (``--patches``).

    Raises AssertionError where a code differs from the exact graph's, in any map or output.
    """
    flow = load_project_flow("mcu", patches=patches, run_on="qemu")
    design = flow.best(flow.prepare(graph, load_board(board)))
    with tempfile.TemporaryDirectory(prefix="qhw-quantmcu-") as scratch:
        project = flow.write(design, Path(scratch) / "firmware", vectors=inputs)
        description = read_description(project.folder)
        compared, told = 0, dict[str, Any]()
        for row, detail in flow.verify(project, design.graph, inputs, tell=lambda *_: None):
            assert row["mismatches"] == 0, row
            compared += row["codes_compared"]
            told |= detail
    found = told["measured"]
    layers = found.pop("layers")
    return {
        **{name: found[name] for name in ("instructions", "flash", "static_ram", "stack")},
        "arena": description.arena,
        "macs": sum(layer["macs"] for layer in layers),
        "steps": len(layers),
        "codes_compared": compared,
    }
