"""FINN: its dataflow architecture, priced and folded, and its projects, checked without Vivado."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhw.cost import Design, estimate
from qhw.cost.pricing.architecture import Architecture
from qhw.devices import Family
from qhw.errors import InputError, ToolMissingError, UnsupportedError
from qhw.flows.base import Execution, FlowOption, FlowStage, Project, ProjectFlow, Trace, default_vectors
from qhw.flows.finn.emission import emit
from qhw.flows.finn.emission.draft import Emitted, is_streamed
from qhw.flows.finn.prepare import prepared
from qhw.flows.finn.template import ARCHITECTURE
from qhw.flows.folders import written_beside
from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.sim.rows import Row, not_compared

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

    from qhw.flows.finn.passes import Step


SIMULATED_VECTORS = 2
"""Samples that go through each layer's sources: the second shows that the first left nothing behind."""


class FinnFlow(ProjectFlow):
    """FINN's dataflow architecture.

    Designs are priced out of qhw's own measured circuits; FINN's own estimates are in the project.
    """

    name = "finn"
    options = (
        FlowOption(
            "sources",
            str,
            "simulated",
            "How far FINN's Verilog and C++ is simulated: layer by layer, the whole design too, or not.",
            ("simulated", "design", "generated"),
        ),
    )
    multipliers = ("auto", "lut", "dsp")
    simulation = "Python execution"
    least_vectors = 256

    def check_tools(self) -> None:
        from qhw.flows.finn.tools import check_installed

        check_installed()

    @property
    def stages(self) -> tuple[FlowStage, ...]:
        from qhw.flows.finn.synthesis import synthesised

        return (FlowStage("synth", "synthesis", synthesised),)

    def architecture(self, graph: ExactGraph) -> Architecture:
        return ARCHITECTURE

    def rewritten(self, graph: ExactGraph) -> ExactGraph:
        return prepared(graph)

    def takes(self, family: Family) -> bool:
        """AMD's, since Vivado synthesises the projects."""
        return family.kind == "fpga" and family.vendor == "AMD"

    def carries(self, format: Format, *, computed: bool = False) -> bool:
        return is_streamed(format)

    def check(self, design: Design) -> None:
        emit(design.graph)
        super().check(design)

    def write(self, design: Design, out: Path, *, vectors: Mapping[str, IntArray] | None = None) -> Project:
        from qhw.flows.finn import project as files
        from qhw.flows.finn.tools import finn

        self.check_multipliers(design.multipliers)
        out = Path(out)
        if out.exists():
            files.read_description(out)
        emitted = emit(design.graph)
        with written_beside(out) as beside:
            with finn() as scratch:
                self._write_models(design, emitted, beside, scratch)
            files.write_vectors(emitted, vectors or default_vectors(design.graph), beside / "vectors")
            files.save_host(files.host_graph(emitted), beside)
        return self._project(out, design.graph.name)

    def _write_models(self, design: Design, emitted: Emitted, folder: Path, scratch: Path) -> None:
        from qhw.flows.finn import builder, driver, folding, passes, reports
        from qhw.flows.finn import project as files
        from qhw.flows.finn.sources import generate_sources

        board = design.board
        description = files.describe(emitted, design.graph.name, board.part, board.clock_period_ns)
        files.write_description(description, folder)
        files.save_model(emitted.model, folder / files.MODEL)
        model = emitted.model
        for step in passes.hardware_steps():
            model = step.apply(model)
        passes.check_streamed(model, emitted.made_by)
        files.save_model(model, folder / files.HARDWARE)
        interval = estimate(design).initiation_interval
        fold = folding.folding_of(design, emitted.made_by, interval)
        for step in passes.board_steps(board.part, scratch, folding.variants_of(design), fold):
            model = step.apply(model)
        folding.check_divides(model)
        files.save_model(model, folder / files.DATAFLOW)
        folding.write_configurations(model, folder)
        generate_sources(model, folder / files.SOURCES, part=board.part, clock_ns=board.clock_period_ns)
        reports.write_reports(design, model, emitted.made_by, folder)
        builder.write_build(board, folder)
        driver.write_driver(emitted, model, board, folder, scratch)

    def open(self, folder: Path) -> Project:
        from qhw.flows.finn.project import read_description

        return self._project(Path(folder), read_description(Path(folder)).name)

    def _project(self, folder: Path, name: str) -> Project:
        from qhw.flows.finn.project import PRODUCTS

        return Project(folder, self.name, name, products=PRODUCTS)

    def compile(self, project: Project) -> float:
        """Nothing: FINN's Python execution needs no compiler."""
        return 0.0

    def simulate(
        self,
        project: Project,
        inputs: Mapping[str, IntArray],
        *,
        trace: Trace = "outputs",
        timeout: float | None = None,
    ) -> Execution:
        """FINN's Python execution of the dataflow model, and the host's part behind it."""
        from qhw.flows.finn import project as files
        from qhw.flows.finn.execution import Execution as Batch
        from qhw.flows.finn.execution import batch_size
        from qhw.flows.finn.tools import finn

        description = files.read_description(project.folder)
        host = files.load_host(project.folder)
        given = _checked_input(description.input, description.carried[description.input].shape, inputs)
        carried = {c.name: c for c in description.carried.values()}
        parts: dict[str, list[IntArray]] = {}
        with finn():
            model = files.load_model(project.folder / files.DATAFLOW)
            size = batch_size(model)
            for start in range(0, len(given), size):
                batch = Batch(description.carried[description.input].integers(given[start : start + size]))
                for _, results, _ in batch.run(model):
                    for name, value in results.items():
                        if name in carried:
                            parts.setdefault(carried[name].tensor, []).append(carried[name].mantissas(value))
        found = {tensor: np.concatenate(pieces) for tensor, pieces in parts.items()}
        outputs = {description.output}
        if host is not None:
            found |= interpret(host, {description.output: found[description.output]}, keep="all")
            outputs = set(host.outputs)
        return _wanted(found, outputs, trace)

    def verify(
        self,
        project: Project,
        graph: ExactGraph,
        inputs: Mapping[str, IntArray],
        *,
        tell: Callable[[float | None, str], None],
    ) -> Iterator[tuple[Row, Mapping[str, Any]]]:
        """FINN's Python execution after every step and of the project; its sources, layer by layer."""
        from qhw.flows.finn import project as files
        from qhw.flows.finn.tools import finn
        from qhw.flows.finn.verification import StepByStep, models_after

        description = files.read_description(project.folder)
        with finn() as scratch:
            streamlined = files.load_model(project.folder / files.MODEL)
            steps = self._steps_of(project.folder, description.part, scratch)
            made = [*models_after(streamlined, steps, tell)]
            checker = StepByStep([n for n, _ in made], [m for _, m in made], description, prepared(graph))
            row = checker.run(inputs, tell)
        yield row, {"steps": [check.to_json() for check in checker.checks]}
        yield from super().verify(project, graph, inputs, tell=tell)
        if self.chosen["sources"] != "generated":
            yield from self._simulated_sources(project, inputs, tell)

    def _simulated_sources(
        self, project: Project, inputs: Mapping[str, IntArray], tell: Callable[[float | None, str], None]
    ) -> Iterator[tuple[Row, Mapping[str, Any]]]:
        """FINN's generated Verilog and C++ against FINN's Python execution: each layer, and the design."""
        from qhw.flows.finn import project as files
        from qhw.flows.finn.design_simulation import simulate_design
        from qhw.flows.finn.execution import Execution as Batch
        from qhw.flows.finn.simulation import simulate_layers
        from qhw.flows.finn.tools import finn
        from qhw.flows.finn.verification import DESIGN, design_row, layers_row

        description = files.read_description(project.folder)
        given = np.asarray(inputs[description.input])[:SIMULATED_VECTORS]
        first = description.carried[description.input]
        sources = project.folder / files.SOURCES
        with finn():
            model = files.load_model(project.folder / files.DATAFLOW)
            batch = Batch(first.integers(given))
            values = {first.name: batch.inputs, **batch.outputs(model)}
            checks = simulate_layers(model, sources, values, tell=tell)
            yield layers_row(checks, len(given)), {"layers": [asdict(check) for check in checks]}
            if self.chosen["sources"] == "design":
                tell(None, "simulating the whole design")
                try:
                    design = simulate_design(model, sources, values)
                except (ToolMissingError, UnsupportedError) as error:
                    yield not_compared(DESIGN, f"finn {self.simulation}", error.message), {}
                    return
                yield design_row(design), {"design": asdict(design)}

    def _steps_of(self, folder: Path, part: str, scratch: Path) -> list[Step]:
        """The steps of a written project, with the folding of its configuration file."""
        from qhw.flows.finn import folding, passes
        from qhw.flows.finn.tools import library

        def configured(model: ModelWrapper, name: str) -> None:
            apply = library("finn.transformation.general").ApplyConfig
            model.transform(apply(folder / name), make_deepcopy=False)

        def fold(model: ModelWrapper) -> None:
            configured(model, folding.FOLDING_FILE)
            folding.check_divides(model)

        def choose(model: ModelWrapper) -> None:
            configured(model, folding.VARIANTS_FILE)

        return [*passes.hardware_steps(), *passes.board_steps(part, scratch, choose, fold)]


flow = FinnFlow


def _checked_input(name: str, shape: tuple[int, ...], inputs: Mapping[str, IntArray]) -> IntArray:
    if name not in inputs:
        raise InputError(f"no array is given for input '{name}'")
    given = np.asarray(inputs[name])
    if given.shape[1:] != shape:
        raise InputError(f"input '{name}' has shape {given.shape}", allowed=f"(N, *{shape})")
    return given


def _wanted(found: Execution, outputs: set[str], trace: Trace) -> Execution:
    if trace == "all":
        return found
    names = outputs if trace == "outputs" else set(trace)
    if missing := sorted(names - set(found)):
        raise InputError(
            f"no layer of the project gives the tensors {', '.join(missing)} alone",
            allowed=", ".join(sorted(found)),
        )
    return {name: value for name, value in found.items() if name in names}
