"""Microcontrollers: C firmware with integer kernels and one static arena, checked in QEMU."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from qhw.cost import BUDGET, Design
from qhw.cost.pricing.architecture import Architecture
from qhw.devices import Family
from qhw.errors import InputError, UnsupportedError
from qhw.flows.base import ChosenWidths, Execution, FlowOption, Project, ProjectFlow, Trace, default_vectors
from qhw.flows.mcu.containers import WIDTHS, Container
from qhw.flows.mcu.toolchain import (
    COMPILER,
    CORES,
    EMULATOR,
    HOST_COMPILER,
    RUN_SECONDS,
    Core,
    Firmware,
    Memory,
    compile_firmware,
    compile_objects,
    core_named,
)
from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph.ir import ExactGraph
from qhw.sim.compare import compare
from qhw.sim.rows import Row, row_of

if TYPE_CHECKING:
    from qhw.boards import Board
    from qhw.flows.mcu.execution import Counts
    from qhw.flows.mcu.project import Description

_SECONDS_PER_SAMPLE = 10.0
_MOST_COMPARED = 8
"""Bits of a format that lists its codes, and is reached by comparing."""


class McuFlow(ProjectFlow):
    """C firmware for Cortex-M microcontrollers.

    Args:
        patches: ``auto``, ``none``, or a plan: ``TENSOR:ROWSxCOLUMNS``.
        run_on: ``auto``, ``qemu`` or ``host``.
        widths: ``given`` or ``quantmcu`` (:mod:`qhw.patch.quantmcu`).
        omega_weight: λ of QuantMCU.
        retrain: epochs of training with QuantMCU's widths.
        memory: bytes of static RAM; 0: the board's.
    """

    name = "mcu"
    options = (
        FlowOption(
            "patches",
            str,
            "auto",
            "Layers that run patch by patch: TENSOR:ROWSxCOLUMNS, none, or auto: as few as fit the SRAM.",
        ),
        FlowOption(
            "run_on",
            str,
            "auto",
            "Where the firmware runs to be checked; auto: in QEMU where it is installed.",
            ("auto", "qemu", "host"),
        ),
        FlowOption(
            "widths",
            str,
            "given",
            "Bits of feature maps: as given, or quantmcu: 8, 4 or 2 for each, by its values and the memory.",
            ("given", "quantmcu"),
        ),
        FlowOption(
            "omega_weight",
            float,
            0.95,
            "QuantMCU's λ, from 0 (the fewest bit operations) to 1 (what the values lose alone).",
        ),
        FlowOption(
            "retrain",
            int,
            0,
            "Epochs of quantised training with the widths that QuantMCU has chosen.",
        ),
        FlowOption(
            "memory",
            int,
            0,
            "Bytes of static RAM that maps, scratch memory and output may take; 0: the board's.",
        ),
    )
    multipliers = ("auto",)

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        omega_weight = float(self.chosen["omega_weight"])
        for name, allowed in (("memory", "bytes, or 0 for the board's"), ("retrain", "epochs, or 0")):
            if int(self.chosen[name]) < 0:
                raise InputError(f"{name} is {self.chosen[name]}", allowed=allowed)
        if self.retrain_epochs and not self.chooses_widths:
            raise InputError("retrain has no effect unless widths are chosen", hint="add --widths quantmcu")
        if not 0 <= omega_weight <= 1:
            raise InputError(f"omega_weight is {omega_weight:g}", allowed="a number from 0 to 1")

    @property
    def chooses_widths(self) -> bool:
        return self.chosen["widths"] == "quantmcu"

    @property
    def retrain_epochs(self) -> int:
        return int(self.chosen["retrain"])

    def with_widths(
        self, graph: ExactGraph, board: Board, samples: Mapping[str, IntArray], budget: float
    ) -> ChosenWidths:
        from qhw.flows.mcu.design import mixed
        from qhw.patch import Settings

        settings = Settings(omega_weight=float(self.chosen["omega_weight"]))
        found = mixed(self.prepare(graph, board), samples, settings, budget)
        overrides = None if found.record.copies else found.record.overrides()
        return ChosenWidths(found.graph, found.record.to_json(), overrides)

    def checked_by(self) -> str:
        return "qemu" if self.core_runs else "host"

    @property
    def core_runs(self) -> bool:
        """Whether firmware is compiled for the board's core and runs in QEMU, not on this machine."""
        if self.chosen["run_on"] != "auto":
            return self.chosen["run_on"] == "qemu"
        return all(shutil.which(tool.program) for tool in (COMPILER, EMULATOR))

    def check_tools(self) -> None:
        for tool in (COMPILER, EMULATOR) if self.core_runs else (HOST_COMPILER,):
            tool.check()

    def takes(self, family: Family) -> bool:
        return family.kind == "microcontroller" and family.name in CORES

    def carries(self, format: Format, *, computed: bool = False) -> bool:
        """Numbers of up to 64 bits; numbers that are not evenly spaced are reached by comparing."""
        try:
            container = Container.holding(format.mantissa_low, format.mantissa_high)
        except UnsupportedError:
            return False
        return container.bits in WIDTHS and (
            not computed or not isinstance(format, TableFormat) or format.width <= _MOST_COMPARED
        )

    def architecture(self, graph: ExactGraph) -> Architecture:
        from qhw.flows.mcu.design import architecture

        return architecture({name: self.chosen[name] for name in ("patches", "memory")})

    def rewritten(self, graph: ExactGraph) -> ExactGraph:
        """Without dead nodes; zero padding merged into convolutions; uneven numbers found by comparing."""
        from qhw.flows.mcu.parts import compared, joined

        return compared(joined(graph))

    def check(self, design: Design) -> None:
        from qhw.flows.mcu.design import program_of

        program_of(design.graph)

    def best(self, design: Design, *, budget: float = BUDGET, fps: float | None = None) -> Design:
        from qhw.flows.mcu.design import best_design

        return best_design(design, budget, fps)

    def write(self, design: Design, out: Path, *, vectors: Mapping[str, IntArray] | None = None) -> Project:
        from qhw.flows.mcu.design import layout_of
        from qhw.flows.mcu.project import write_project

        self.check_multipliers(design.multipliers)
        given = vectors if vectors is not None else default_vectors(design.graph)
        write_project(layout_of(design), design.board, Path(out), given)
        return self.open(Path(out))

    def memory(self, design: Design) -> Mapping[str, Any]:
        """The buffers of the arena, step by step, and the bytes of the board's largest memory."""
        from qhw.flows.mcu.design import layout_of
        from qhw.flows.mcu.memory_map import buffers_of

        layout = layout_of(design)
        return {
            "limit_bytes": int(design.board.capacity["contiguous_sram"]),
            "steps": [step.name for step in layout.program.steps],
            "buffers": buffers_of(layout),
        }

    def open(self, folder: Path) -> Project:
        from qhw.flows.mcu.project import PRODUCTS, read_description

        return Project(Path(folder), self.name, read_description(Path(folder)).name, products=PRODUCTS)

    def sources(self, folder: Path) -> list[str]:
        from qhw.flows.mcu.project import source_files

        return source_files(folder)

    def compile(self, project: Project) -> float:
        """Compile the firmware once, to see that it compiles and fits; what runs is compiled when it runs."""
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="qhw-mcu-") as scratch:
            self._compiled(project, Path(scratch), self._kernels(project, Path(scratch)), observed=False)
        return time.monotonic() - started

    def simulate(
        self,
        project: Project,
        inputs: Mapping[str, IntArray],
        *,
        trace: Trace = "outputs",
        timeout: float | None = None,
    ) -> Execution:
        from qhw.flows.mcu.project import read_description

        description = read_description(project.folder)
        is_traced = trace != "outputs"
        with tempfile.TemporaryDirectory(prefix="qhw-mcu-") as scratch:
            objects = self._kernels(project, Path(scratch))
            firmware = self._compiled(project, Path(scratch), objects, observed=is_traced)
            found, _ = self._run(firmware, description, inputs, observed=is_traced, timeout=timeout)
        if trace in ("outputs", "all"):
            return found
        if missing := sorted(set(trace) - set(found)):
            raise InputError(
                f"the firmware has no map for the tensors {', '.join(missing)} alone",
                allowed=", ".join(sorted(found)),
            )
        return {name: found[name] for name in trace}

    def verify(
        self,
        project: Project,
        graph: ExactGraph,
        inputs: Mapping[str, IntArray],
        *,
        tell: Callable[[float | None, str], None],
    ) -> Iterator[tuple[Row, Mapping[str, Any]]]:
        """The firmware as it is flashed, and once more with every map observed."""
        from qhw.flows.mcu.project import read_description
        from qhw.sim.fast import FastExecutor

        description = read_description(project.folder)
        core = core_named(description.core) if self.core_runs else None
        where = f"in QEMU ({core.machine}, {core.title})" if core else "compiled for this machine"
        executor, count = FastExecutor(graph), len(next(iter(inputs.values())))
        with tempfile.TemporaryDirectory(prefix="qhw-mcu-") as scratch:
            tell(None, f"the firmware {where}")
            objects = self._kernels(project, Path(scratch))
            firmware = self._compiled(project, Path(scratch), objects, observed=False)
            outputs, counts = self._run(firmware, description, inputs, observed=False)
            tell(0.5, "the firmware, map by map")
            watched = self._compiled(project, Path(scratch), objects, observed=True)
            maps, observed = self._run(watched, description, inputs, observed=True)
        maps = {name: value for name, value in maps.items() if name in graph.tensors}
        measured = {"measured": _measured(description, firmware, counts, observed)}
        for found, what, detail in (
            (maps, f"mcu firmware {where}, every map", measured),
            (outputs, f"mcu firmware {where}, as it is flashed", {}),
        ):
            expected = executor(inputs, keep=set(found))
            yield row_of(compare(graph, expected, found, names=("exact graph", what)), count), detail

    def _run(
        self,
        firmware: Firmware,
        description: Description,
        inputs: Mapping[str, IntArray],
        *,
        observed: bool,
        timeout: float | None = None,
    ) -> tuple[Execution, Counts]:
        """Run firmware on samples."""
        from qhw.flows.mcu.execution import execute

        for port in description.inputs:
            if port.tensor not in inputs:
                raise InputError(f"no array is given for input '{port.tensor}'")
            given = np.shape(inputs[port.tensor])
            if given[1:] != port.map.shape:
                raise InputError(
                    f"input '{port.tensor}' has shape {given}", allowed=f"(N, *{port.map.shape})"
                )
        return execute(
            firmware,
            inputs,
            (description.inputs, description.outputs),
            description.sizes,
            [step.observed for step in description.steps] if observed else (),
            timeout=timeout or RUN_SECONDS + _SECONDS_PER_SAMPLE * len(next(iter(inputs.values()))),
        )

    def _core(self, project: Project) -> Core | None:
        """What a project is compiled for: its board's core, or this machine."""
        from qhw.flows.mcu.project import read_description

        return core_named(read_description(project.folder).core) if self.core_runs else None

    def _kernels(self, project: Project, scratch: Path) -> list[Path]:
        """The kernels in the project's own folder, compiled once for all its programs."""
        from qhw.flows.mcu.project import KERNELS, source_files

        folder = project.folder.absolute()
        source_files(folder)  # refuses links
        sources = sorted((folder / KERNELS).glob("*.c"))
        return compile_objects(sources, scratch, self._core(project), includes=[folder / KERNELS])

    def _compiled(
        self, project: Project, scratch: Path, objects: Sequence[Path], *, observed: bool
    ) -> Firmware:
        """The firmware of a project; an observed one may be larger than its board."""
        from qhw.flows.mcu.project import KERNELS, TEST, read_description

        folder = project.folder.absolute()
        description = read_description(folder)
        memory = Memory() if observed else Memory(description.flash, min(description.sram, 4 << 20), 4096)
        return compile_firmware(
            [folder / "model.c", folder / TEST / "harness.c", *objects],
            scratch / ("observed.elf" if observed else "firmware.elf"),
            self._core(project),
            includes=[folder, folder / KERNELS],
            defines=["QHW_OBSERVE"] if observed else [],
            memory=memory,
            platform=folder / TEST,
        )


flow = McuFlow


def _measured(
    description: Description, firmware: Firmware, counts: Counts, observed: Counts
) -> dict[str, Any] | None:
    """What a firmware takes, as build.json has it; None where it did not run for its core."""
    from qhw.flows.mcu.instructions import CPI_HIGH, CPI_LOW

    core = firmware.core
    if core is None:
        return None
    cycles = [round(counts.instructions * cpi) for cpi in (CPI_LOW, CPI_HIGH)]
    return {
        "source": f"QEMU {core.machine}, {core.title}, arm-none-eabi-gcc -O2",
        "flash": firmware.flash,
        "static_ram": firmware.static_ram,
        "stack": counts.stack,
        "instructions": counts.instructions,
        "layers": [
            {"name": s.name, "kernel": s.kernel, "macs": s.macs, "flash": s.flash, "instructions": n}
            for s, n in zip(description.steps, observed.steps, strict=True)
        ],
        "modelled": {
            "cycles": cycles,
            "milliseconds": [round(c / description.clock_mhz / 1e3, 4) for c in cycles],
            "how": f"instructions x {CPI_LOW} to {CPI_HIGH} cycles: one silicon measurement, not this board",
        },
    }
