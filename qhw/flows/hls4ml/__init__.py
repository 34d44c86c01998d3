"""hls4ml: a Vitis HLS project with the exact graph's types, checked through its C-simulation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from qhw.cost import Design
from qhw.cost.pricing.architecture import Architecture, is_priced
from qhw.devices import Family
from qhw.errors import UnsupportedError
from qhw.flows.base import (
    Execution,
    FlowOption,
    FlowStage,
    Project,
    ProjectFlow,
    Tool,
    Trace,
    default_vectors,
)
from qhw.flows.hls4ml.folding import ReuseFactor
from qhw.flows.hls4ml.operands import MOST_COMPARED, has_encoder, is_read
from qhw.flows.hls4ml.plan import IoType, Plan, Planner
from qhw.flows.hls4ml.prepare import prepared
from qhw.flows.hls4ml.project import read_description, write_project
from qhw.flows.hls4ml.simulation import compile_project, simulate_project, source_files
from qhw.flows.hls4ml.synthesis import synthesise_project
from qhw.flows.hls4ml.template import architecture
from qhw.formats.base import Format, UniformFormat
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph import ir
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.zynq.folder import PRODUCTS

MAX_UNROLLED_STATEMENTS = 60_000
"""io_parallel writes a C++ statement per input of every output pixel: above this, g++ takes minutes."""

_SPATIAL = (ir.Conv, ir.SumPool, ir.MaxPool)


class Hls4mlFlow(ProjectFlow):
    """Projects for hls4ml's Vitis backend.

    Args:
        io_type: ``io_stream``, ``io_parallel``, or ``auto``: streams where there are convolutions or pools.
    """

    name = "hls4ml"
    options = (
        FlowOption(
            "io_type",
            str,
            "auto",
            "How layers are connected; auto: io_stream where there are convolutions or pools.",
            ("io_stream", "io_parallel", "auto"),
        ),
    )
    multipliers = ("auto", "lut", "dsp")
    tools = (Tool("g++", "The C-simulation", "apt-get install g++ (or gcc-c++, or gcc)"),)

    def __init__(self, io_type: str | None = None, **others: Any) -> None:
        super().__init__(io_type=io_type, **others)

    @property
    def stages(self) -> tuple[FlowStage, ...]:
        return (FlowStage("synth", "synthesis", _synthesised),)

    def takes(self, family: Family) -> bool:
        """AMD's, since Vitis HLS compiles the projects."""
        return family.kind == "fpga" and family.vendor == "AMD"

    def carries(self, format: Format, *, computed: bool = False) -> bool:
        if not is_priced(format):
            return False
        if isinstance(format, TableFormat):
            reached = not computed or has_encoder(format) or format.width <= MOST_COMPARED
            return is_read(format) and reached
        return isinstance(format, UniformFormat)

    def io_type_for(self, graph: ExactGraph) -> IoType:
        """How tensors travel between the layers of that graph."""
        if self.chosen["io_type"] != "auto":
            return cast(IoType, self.chosen["io_type"])
        return "io_stream" if any(isinstance(node, _SPATIAL) for node in graph.nodes) else "io_parallel"

    def architecture(self, graph: ExactGraph) -> Architecture:
        return architecture(self.io_type_for(graph))

    def rewritten(self, graph: ExactGraph) -> ExactGraph:
        return prepared(graph)

    def check(self, design: Design) -> None:
        self.plan(design)
        super().check(design)

    def plan(self, design: Design) -> Plan:
        """The layers that carry out a design; UnsupportedError names what cannot be carried exactly."""
        reuse = {name: cast(ReuseFactor, fold).reuse_factor for name, fold in design.folding.items()}
        plan = Planner(design.graph, design.architecture.options["io_type"], reuse).run()
        _check_code_size(plan)
        return plan

    def write(self, design: Design, out: Path, *, vectors: Mapping[str, IntArray] | None = None) -> Project:
        self.check_multipliers(design.multipliers)
        plan = self.plan(design)
        inputs = vectors if vectors is not None else default_vectors(design.graph)
        expected = interpret(design.graph, inputs)
        write_project(plan, design.board, Path(out), (inputs, expected), design.multipliers)
        return self._project(Path(out), plan.name)

    def open(self, folder: Path) -> Project:
        return self._project(Path(folder), read_description(Path(folder)).name)

    def _project(self, folder: Path, name: str) -> Project:
        return Project(folder, self.name, name, products=("csim", f"{name}_prj", "logs", *PRODUCTS))

    def sources(self, folder: Path) -> list[str]:
        return source_files(folder)

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


flow = Hls4mlFlow


def _synthesised(project: Project) -> tuple[dict[str, Any], str]:
    synthesis = synthesise_project(project)
    return asdict(synthesis), f"{synthesis.lut:,} LUT, {synthesis.dsp} DSP by {synthesis.tool}"


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
