"""Images per second of resnet8 in minifloats and k-hot, by the exact graph's fast executor, against int8.

The networks are converted, shown some images of Fashion-MNIST in training mode (so that scales and statistics
are real ones), exported, lowered and run on the same batch. The outputs of the first images are compared with
the interpreter's, code by code. Rounds are interleaved; medians are reported.

    python benchmarks/simulation_formats.py [--rounds 7] [--batch 256]
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qhw.convert import convert
from qhw.data import Dataset, load_dataset
from qhw.export import export_qonnx
from qhw.graph.builder import value_ranges
from qhw.graph.encode import encode_input
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.graph.lower import lower
from qhw.models import build_model
from qhw.quant_config import QuantConfig
from qhw.sim.backends import exact_float, product_bound
from qhw.sim.fast import FastExecutor

RESULT = Path(__file__).parent / "results" / "simulation_formats.md"
CHECKED_IMAGES = 4

NETWORKS: dict[str, dict[str, Any]] = {
    "int8 (fixed<8>)": {},
    "e3m2": {"weights": "e3m2", "activations": "e3m2"},
    "e4m3": {"weights": "e4m3", "activations": "e4m3"},
    "e4m3, free scales": {"weights": "e4m3", "activations": "e4m3", "scaling": "free"},
    "khot<8,2> weights, fixed<8> activations": {"weights": "khot<8,2>", "scales": "khot<8,2>"},
    "int8 first and last, the rest e3m2": {
        "weights": "e3m2",
        "activations": "e3m2",
        "overrides": {"conv": {"weights": "int8"}, "classify": {"weights": "int8"}},
    },
}


def network(data: Dataset, settings: Mapping[str, Any], folder: Path) -> ExactGraph:
    """resnet8 in those formats, its scales and statistics from real images; weights as they are made."""
    torch.manual_seed(0)
    images = torch.from_numpy(data.train_x[:32]).float()
    model = convert(build_model("resnet8", data), QuantConfig(**settings), images).train()
    model(images)
    return lower(export_qonnx(model.eval(), folder / "model.onnx"))


def kinds_of_products(graph: ExactGraph) -> str:
    """In which arithmetic the sums of its convolutions and matrix products are proven exact."""
    ranges = value_ranges(graph)
    found: Counter[str] = Counter()
    for node in graph.nodes:
        if node.op in ("Conv", "MatMul"):
            weight = graph.constants[node.inputs[1]]
            rows = weight if node.op == "Conv" else weight.T
            kind = exact_float(product_bound(rows, ranges[node.inputs[0]].bounds))
            found["integers" if kind is None else kind.name] += 1
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items()))


def measure(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each, measured in turns after two warm-ups."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 2):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn > 1:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


def runner(graph: ExactGraph, images: NDArray[np.uint8]) -> Callable[[], object]:
    """One run of the fast executor, whose first outputs are the interpreter's."""
    (name,) = graph.inputs
    mantissas = {name: encode_input(graph, name, images)}
    executor = FastExecutor(graph)
    head = {name: mantissas[name][:CHECKED_IMAGES]}
    for tensor, expected in interpret(graph, head).items():
        assert np.array_equal(executor(mantissas)[tensor][:CHECKED_IMAGES], expected), tensor
    return lambda: executor(mantissas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    data = load_dataset("fashion-mnist")
    with tempfile.TemporaryDirectory() as scratch:
        graphs = {title: network(data, settings, Path(scratch)) for title, settings in NETWORKS.items()}
    images = data.test_x[: options.batch]
    seconds = measure({title: runner(graph, images) for title, graph in graphs.items()}, options.rounds)
    first = next(iter(seconds.values()))
    lines = [
        "# Simulation speed of formats",
        "",
        f"resnet8 on Fashion-MNIST's test split, batch {options.batch}, {torch.get_num_threads()} threads; "
        f"median of {options.rounds} interleaved rounds. The machine's load average was "
        f"{os.getloadavg()[0]:.1f}. The codes of {CHECKED_IMAGES} images are the interpreter's.",
        "",
        "| formats | images/s | time against int8 | widest sum | exact in |",
        "|---|---:|---:|---:|---|",
    ]
    for title, graph in graphs.items():
        widest = max(graph.tensors[n.output].format.width for n in graph.nodes if n.op in ("Conv", "MatMul"))
        rate, share = options.batch / seconds[title], seconds[title] / first
        lines.append(f"| {title} | {rate:,.0f} | {share:.2f}x | {widest} bits | {kinds_of_products(graph)} |")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
