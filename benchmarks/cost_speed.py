"""How fast designs are folded: seconds to fold a network on one core, proven optimal.

How fast points of a search are priced is in `benchmarks/search_prices.py`.

    python benchmarks/cost_speed.py
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
from rich.console import Console

from qhw.boards import load_board
from qhw.cost import Design, choose_folding
from qhw.flows.base import load_flow
from qhw.formats import Integer
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from graph_factory import resnet8_graph

RESULT = Path(__file__).parent / "results" / "cost_speed.md"
ROUNDS = 7
BOARD = load_board("zcu102")


def seconds(work: Callable[[], object]) -> float:
    """Median over the rounds."""
    found = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def deep(layers: int) -> ExactGraph:
    """A chain of convolutions and activations."""
    random, builder = np.random.default_rng(1), GraphBuilder("deep")
    x = builder.input("x", (16, 16, 16), Integer(8, False), -8)
    for index in range(layers // 2):
        weight = builder.constant(f"w{index}", random.integers(-8, 8, (16, 16, 3, 3)), Integer(4), -3)
        y = builder.conv(f"conv{index}", x, weight, pads=(1, 1, 1, 1))
        x = builder.requant(f"act{index}", y, Integer(8, False), -6)
    return builder.finish([x])


def prepared(flow: str, graph: ExactGraph) -> Design:
    return load_flow(flow).prepare(graph, BOARD)


def folding(name: str, graph: ExactGraph, flow: str) -> list[str]:
    """One row of the table of foldings."""
    design = prepared(flow, graph)
    options = sum(len(folds) for folds in design.legal.values())
    took = seconds(lambda: choose_folding(design))
    return [name, flow, f"{len(graph.nodes)}", f"{options:,}", f"{took:.2f}"]


def main() -> None:
    """Measure and write the table."""
    flows = ("hls4ml", "rtl")
    graphs = (("resnet8", resnet8_graph()), ("a chain", deep(50)))
    folds = [folding(name, graph, flow) for name, graph in graphs for flow in flows]
    lines = [
        "# Speed of folding",
        "",
        f"Folding for {BOARD.title}, proven optimal; one thread, median of {ROUNDS} rounds.",
        "",
        "| network | flow | layers | options | seconds |",
        "|---|---|---:|---:|---:|",
        *(f"| {' | '.join(row)} |" for row in folds),
        "",
    ]
    RESULT.write_text("\n".join(lines))
    Console().print(RESULT.read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
