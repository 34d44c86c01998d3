"""Small projects for the tests of the hls4ml flow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from op_zoo import Zoo

from qhw.boards import load_board
from qhw.cost import Design
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.flows.hls4ml.folding import ReuseFactor
from qhw.flows.hls4ml.plan import Plan
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph.ir import ExactGraph

BOARD = load_board("ultra96")


def designed(flow: Hls4mlFlow, graph: ExactGraph, folding: Mapping[str, int] | None = None) -> Design:
    """The flow's design of a graph, with those reuse factors."""
    folds = {name: ReuseFactor(factor) for name, factor in (folding or {}).items()}
    return flow.prepare(graph, BOARD).folded(folds)


def planned(flow: Hls4mlFlow, graph: ExactGraph, folding: Mapping[str, int] | None = None) -> Plan:
    """The layers of that design."""
    return flow.plan(designed(flow, graph, folding))


def legal_factors(flow: Hls4mlFlow, graph: ExactGraph) -> dict[str, list[int]]:
    """The reuse factors that every foldable node may take."""
    legal = flow.prepare(graph, BOARD).legal
    return {name: [fold.to_json()["reuse_factor"] for fold in folds] for name, folds in legal.items()}


def small_graph(name: str = "small") -> ExactGraph:
    """Convolution, batch norm, activation, residual add, pool, fully connected."""
    zoo = Zoo(name, 4)
    b = zoo.builder
    x = b.input("x", (2, 6, 6), Integer(8, False), -8)
    first = zoo.conv("conv1", x, 4, (3, 3), pads=(1, 1, 1, 1))
    norm = b.affine("bn1", first, zoo.constant("m", 4, bits=6), zoo.constant("o", 4, bits=6))
    act = b.requant("act1", norm, Integer(6), -5)
    second = b.requant("act2", zoo.conv("conv2", act, 4, (3, 3), pads=(1, 1, 1, 1)), Integer(6), -4)
    added = b.requant("act3", b.add("residual", act, second), Integer(6, False), -4)
    flat = b.reshape("flat", b.max_pool("pool", added, (2, 2)), (36,))
    zoo.end(b.matmul("fc", flat, zoo.constant("fw", 36, 5), zoo.constant("fb", 5)))
    return zoo.finish()


def random_inputs(graph: ExactGraph, samples: int, seed: int = 0) -> dict[str, IntArray]:
    """Mantissas over the whole range of every input."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for name in graph.inputs:
        format, shape = graph.tensors[name].format, (samples, *graph.tensors[name].shape)
        if isinstance(format, TableFormat):
            inputs[name] = rng.choice(format.numbers, shape)
        else:
            inputs[name] = rng.integers(format.mantissa_low, format.mantissa_high, shape, endpoint=True)
    return inputs


def first_difference(
    graph: ExactGraph, expected: dict[str, IntArray], got: dict[str, IntArray]
) -> str | None:
    """The first tensor, in the graph's order, whose codes differ."""
    order = [node.output for node in graph.nodes if node.output in got]
    return next((t for t in order if not np.array_equal(expected[t], got[t])), None)


def middle_folding(flow: Hls4mlFlow, graph: ExactGraph, position: float) -> dict[str, int]:
    """Legal reuse factors, the same fraction of the way from none to all, for every node."""
    return {name: f[round(position * (len(f) - 1))] for name, f in legal_factors(flow, graph).items()}


def weight_file(folder: Path, project: str, layer: str) -> Path:
    """The file that a layer's weights are read from."""
    lines = (folder / "firmware" / f"{project}.cpp").read_text().splitlines()
    call = next(line for line in lines if line.endswith(f"// {layer}"))
    arguments = call.split("(")[-1].split(")")[0].split(", ")
    return folder / "firmware" / "weights" / f"{arguments[2]}.txt"
