"""Random designs through the hls4ml flow's C-simulation, every code against the interpreter.

Each seed is one project of many branches (``tests/flows/random_designs.py``): operations of every kind with
random geometry, formats, rounding and reuse factors, alone and in chains. Where a project fails, its branches
are tried one by one, and those that fail are told.

``--kind windows``: convolutions and pools alone, which take less to compile.

    python benchmarks/hls4ml_random.py [--seeds 0-19] [--branches 20] [--kind windows] [--io-type io_stream]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "flows"))

from hls4ml_project import designed, legal_factors, planned
from random_designs import only, random_design, random_samples, random_windows

from qhw.errors import CheckFailedError, UnsupportedError
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph

RESULT = Path(__file__).parent / "results" / "hls4ml_random.md"

KINDS = {"chains": random_design, "windows": random_windows}


@dataclass
class Tally:
    """What was tried, and what came of it."""

    projects: int = 0
    branches: int = 0
    codes: int = 0
    operations: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)


def differing(graph: ExactGraph, io_type: str, seed: int, samples: int, tally: Tally) -> list[str]:
    """Tensors whose codes differ, at random reuse factors."""
    rng, flow = np.random.default_rng(seed), Hls4mlFlow(io_type)
    folding = {name: int(rng.choice(legal)) for name, legal in legal_factors(flow, graph).items()}
    inputs = random_samples(graph, samples, seed)
    with tempfile.TemporaryDirectory() as folder:
        project = flow.write(designed(flow, graph, folding), Path(folder) / "project", vectors=inputs)
        got = flow.simulate(project, inputs, trace="all")
    expected = interpret(graph, inputs, keep="all")
    tally.codes += sum(values.size for values in got.values())
    return [name for name in got if not np.array_equal(got[name], expected[name])]


def carried(graph: ExactGraph, io_type: str, tally: Tally) -> ExactGraph:
    """The branches that the flow takes; the others' messages are counted."""
    taken = []
    for output in graph.outputs:
        try:
            planned(Hls4mlFlow(io_type), only(graph, [output]))
            taken.append(output)
        except UnsupportedError as error:
            tally.refused[f"{io_type}: {error.message}"] += 1
    return only(graph, taken)


def told(graph: ExactGraph, output: str) -> str:
    """The operations of a branch, with their types."""
    part = only(graph, [output])
    lines = [f"    input {name}: {part.tensors[name]}" for name in part.inputs]
    for node in part.nodes:
        kinds = [part.tensors[name] for name in node.inputs]
        operands = ", ".join(f"{kind.shape} {kind.format} {kind.exponent.values}" for kind in kinds)
        lines.append(f"    {node} ({operands}) -> {part.tensors[node.output]}")
    return "\n".join(lines)


def run(graph: ExactGraph, seed: int, io_type: str, samples: int, tally: Tally) -> None:
    """One project; where it fails, each of its branches."""
    graph = carried(graph, io_type, tally)
    tally.projects += 1
    tally.branches += len(graph.outputs)
    tally.operations.update(node.op for node in graph.nodes)
    try:
        wrong = differing(graph, io_type, seed, samples, tally)
        if not wrong:
            return
        suspects = [output for output in graph.outputs if set(wrong) & set(only(graph, [output]).tensors)]
    except CheckFailedError:
        suspects = list(graph.outputs)
    for output in suspects:
        try:
            wrong = differing(only(graph, [output]), io_type, seed, samples, Tally())
        except CheckFailedError as error:
            wrong = [error.message]
        if wrong:
            text = f"seed {seed}, {io_type}, '{output}': {wrong[0]}\n{told(graph, output)}"
            tally.failed.append(text)
            print(text, flush=True)


def table(tally: Tally, seconds: float) -> Iterator[str]:
    yield "# Random designs through the hls4ml flow\n"
    yield "Every code of the C-simulation against the interpreter (`benchmarks/hls4ml_random.py`).\n"
    yield f"{tally.projects} projects, {tally.branches} branches, {tally.codes:,} codes compared,"
    yield f"{len(tally.failed)} branches that differ or fail, {seconds:.0f} s.\n"
    yield "| operation | nodes |"
    yield "|---|---|"
    for name, count in sorted(tally.operations.items()):
        yield f"| {name} | {count} |"
    if tally.refused:
        yield "\n| refused | branches |"
        yield "|---|---|"
        for message, count in tally.refused.most_common():
            yield f"| {message} | {count} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seeds", default="0-19", help="first-last")
    parser.add_argument("--branches", type=int, default=20)
    parser.add_argument(
        "--kind", choices=KINDS, default="chains", help="windows: convolutions and pools alone"
    )
    parser.add_argument("--samples", type=int, default=24)
    parser.add_argument("--io-type", default="io_stream,io_parallel")
    parser.add_argument("--write", action="store_true", help=f"the table so far to {RESULT.name}")
    options = parser.parse_args()
    first, last = (int(part) for part in options.seeds.split("-"))
    tally, started = Tally(), time.monotonic()
    for seed in range(first, last + 1):
        for io_type in options.io_type.split(","):
            run(KINDS[options.kind](seed, options.branches), seed, io_type, options.samples, tally)
            print(f"seed {seed} {io_type}: {tally.codes:,} codes, {len(tally.failed)} failed", flush=True)
            text = "\n".join(table(tally, time.monotonic() - started))
            if options.write:
                RESULT.write_text(text + "\n")
    print(text)
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
