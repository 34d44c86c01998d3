"""hls4ml: a Vitis HLS project with the exact graph's types, checked through its C-simulation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from qhw.errors import InputError, UnsupportedError
from qhw.flows.base import BoardLike, Execution, Flow, Project, Synthesis, Trace
from qhw.flows.hls4ml.coded import is_coded
from qhw.flows.hls4ml.folding import divisors
from qhw.flows.hls4ml.operands import MOST_COMPARED, has_encoder
from qhw.flows.hls4ml.operations import conv_factors, product_factors
from qhw.flows.hls4ml.plan import IoType, Plan, Planner
from qhw.flows.hls4ml.prepare import prepared
from qhw.flows.hls4ml.project import read_description, write_project
from qhw.flows.hls4ml.simulation import compile_project, simulate_project
from qhw.flows.hls4ml.synthesis import synthesise_project
from qhw.formats.base import Format, UniformFormat
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph

MAX_UNROLLED_STATEMENTS = 60_000
"""io_parallel writes a C++ statement per input of every output pixel: above this, g++ takes minutes."""

_SPATIAL = (ir.Conv, ir.SumPool, ir.MaxPool)


class Hls4mlFlow(Flow):
    """Projects for hls4ml's Vitis backend.

    Args:
        io_type: ``io_stream``, ``io_parallel``, or ``auto``: streams where there are convolutions or pools.
    """

    name = "hls4ml"

    def __init__(self, io_type: IoType | Literal["auto"] = "auto"):
        if io_type not in ("io_stream", "io_parallel", "auto"):
            raise InputError(f"io_type '{io_type}'", allowed="io_stream, io_parallel, auto")
        self._io_type = io_type

    def carries(self, format: Format, *, computed: bool = False) -> bool:
        if isinstance(format, TableFormat):
            return not computed or has_encoder(format) or format.width <= MOST_COMPARED
        return isinstance(format, UniformFormat)

    def io_type_for(self, graph: ExactGraph) -> IoType:
        """How tensors travel between the layers of that graph."""
        if self._io_type != "auto":
            return self._io_type
        return "io_stream" if any(isinstance(node, _SPATIAL) for node in graph.nodes) else "io_parallel"

    def plan(self, graph: ExactGraph, folding: Mapping[str, int]) -> Plan:
        """The layers that carry out a graph; UnsupportedError names what cannot be carried exactly."""
        plan = Planner(prepared(graph), self.io_type_for(graph), folding).run()
        _check_code_size(plan)
        return plan

    def check(self, graph: ExactGraph, board: BoardLike) -> None:
        self.plan(graph, {})

    def legal_folding(self, graph: ExactGraph) -> dict[str, tuple[int, ...]]:
        graph = prepared(graph)
        legal = {node.name: self._legal(graph, node) for node in graph.nodes}
        return {name: factors for name, factors in legal.items() if factors}

    def _legal(self, graph: ExactGraph, node: ir.Node) -> tuple[int, ...]:
        if isinstance(node, ir.Conv | ir.MatMul) and is_coded(graph, node):
            weight = graph.tensors[node.inputs[1]]
            return divisors(math.prod(weight.shape)) if node.inputs[1] in graph.constants else ()
        if isinstance(node, ir.MatMul) and node.inputs[1] in graph.constants:
            return product_factors(graph, node, self.io_type_for(graph))
        if not isinstance(node, ir.Conv):
            return ()
        return conv_factors(graph, node, self.io_type_for(graph))

    def write(
        self,
        graph: ExactGraph,
        board: BoardLike,
        folding: Mapping[str, int],
        out: Path,
        *,
        vectors: Mapping[str, IntArray] | None = None,
    ) -> Project:
        plan = self.plan(graph, folding)
        inputs = vectors if vectors is not None else _default_vectors(graph)
        write_project(plan, board, Path(out), (inputs, interpret(graph, inputs)))
        return Project(Path(out), self.name, plan.name)

    def open(self, folder: Path) -> Project:
        return Project(Path(folder), self.name, read_description(Path(folder)).name)

    def compile(self, project: Project) -> float:
        return compile_project(project)

    def simulate(
        self,
        project: Project,
        inputs: Mapping[str, IntArray],
        *,
        trace: Trace = "outputs",
        timeout: float | None = None,
    ) -> Execution:
        return simulate_project(project, inputs, trace, timeout)

    def synthesise(self, project: Project) -> Synthesis:
        return synthesise_project(project)


flow = Hls4mlFlow


def _check_code_size(plan: Plan) -> None:
    """Refuse an io_parallel design whose unrolled convolutions would be too much C++."""
    statements = sum(plan.unrolled_statements.values())
    if plan.io_type == "io_stream" or statements <= MAX_UNROLLED_STATEMENTS:
        return
    largest = max(plan.unrolled_statements, key=lambda name: plan.unrolled_statements[name])
    raise UnsupportedError(
        f"io_parallel would unroll the convolutions into {statements:,} C++ statements, "
        f"{plan.unrolled_statements[largest]:,} of them for '{largest}'",
        allowed=f"up to {MAX_UNROLLED_STATEMENTS:,}",
        hint="use io_stream",
    )


def _default_vectors(graph: ExactGraph, samples: int = 4) -> dict[str, IntArray]:
    """A few random input mantissas, the same for the same graph."""
    rng = np.random.default_rng(0)
    vectors = {}
    for name in graph.inputs:
        kind, encoding = graph.tensors[name], graph.input_encodings.get(name)
        low, high = kind.format.mantissa_low, kind.format.mantissa_high
        if encoding is not None:
            low, high = (int(bound - encoding.zero_point) for bound in (encoding.low, encoding.high))
        if isinstance(kind.format, TableFormat):
            numbers = kind.format.numbers
            numbers = numbers[(numbers >= low) & (numbers <= high)]
            vectors[name] = rng.choice(numbers, (samples, *kind.shape))
            continue
        vectors[name] = rng.integers(low, high, (samples, *kind.shape), endpoint=True)
    return vectors
