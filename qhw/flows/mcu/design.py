"""The design of a firmware: its patch plan, which is its folding; its SRAM, flash and instructions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

from qhw.cost import Design
from qhw.cost.pricing.architecture import Architecture, Fold, LayerFigures, LayerUsage, Site
from qhw.cost.pricing.estimate import Estimate
from qhw.cost.pricing.folding import DoesNotFitError
from qhw.errors import InputError, UnsupportedError, closest
from qhw.flows.mcu.emit import arrays_of, emit
from qhw.flows.mcu.instructions import cycles_of, instructions, model_label
from qhw.flows.mcu.kernels import code_bytes
from qhw.flows.mcu.layout import STACK_BYTES, Layout
from qhw.flows.mcu.parts import PARTS
from qhw.flows.mcu.planner import plan_program
from qhw.flows.mcu.program import Program
from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph
from qhw.patch import QuantMcu, Settings, layer_by_layer, quantmcu
from qhw.patch.plan import PatchPlan, cuts, make_plan, plans
from qhw.patch.unrolled import has_patches

MOST_PATCHES = 8
"""Patches along an axis that a plan is searched with; ``patches`` may ask for more."""

_PLAN = re.compile(r"(?P<cut>.+):(?P<grid>\d+(x\d+)?)")


@dataclass(frozen=True)
class Patches(Fold):
    """Layers up to this one run on so many patches, one after the other; 1 x 1: on whole maps."""

    title: ClassVar[str] = "patches"

    rows: int = 1
    columns: int = 1


@dataclass(frozen=True)
class StepCost(LayerFigures):
    """A step's figures.

    Args:
        kernel: the C function.
        macs: multiply-accumulates, recomputation included.
        instructions: modelled.
        flash: bytes of weights and other constants.
        map_bytes: bytes of the map that it writes.
    """

    kernel: str
    macs: int
    instructions: int
    flash: int
    map_bytes: int


class FirmwareEstimate(Estimate):
    """The figures of a firmware; SRAM and flash of weights are exact, the rest is modelled."""

    @property
    def totals(self) -> dict[str, int]:
        return dict(resources(layout_of(self.design)))

    @property
    def utilisation(self) -> dict[str, float]:
        there = self.board.capacity
        return {name: used / max(there[name], 1) for name, used in self.totals.items()}

    @property
    def binding(self) -> LayerFigures:
        """The layer that takes the most instructions."""
        return max(self.layers, key=lambda layer: layer.cycles)

    @property
    def memory_bits(self) -> int:
        """Bits of the arena."""
        return 8 * layout_of(self.design).arena.bytes

    @property
    def instructions(self) -> int:
        """Modelled instructions of one inference."""
        return sum(x.instructions for x in self.layers if isinstance(x, StepCost))

    @property
    def figures(self) -> dict[str, float]:
        return {**self._common_figures, "instructions": float(self.instructions)}

    def columns(self) -> tuple[str, ...]:
        return ("layer", "operation", "patches", "kernel", "MACs", "instructions", "flash", "map bytes")

    def rows(self) -> Iterator[tuple[int | str, ...]]:
        for x in self.layers:
            assert isinstance(x, StepCost)
            yield (x.node, x.op, str(x.fold), x.kernel, x.macs, x.instructions, x.flash, x.map_bytes)

    def notes(self) -> list[str]:
        layout = layout_of(self.design)
        plan = layout.plan
        how = (
            "layer by layer"
            if plan is None
            else f"patches {layout.patches}, {plan.recomputation:+.1%} multiply-accumulates"
        )
        return [
            f"{self.instructions:,} instructions, {self.latency_us / 1e3:,.2f} ms at {self.clock_mhz:g} MHz; "
            f"'{self.binding.node}' takes most",
            f"{how}; arena {layout.arena.bytes:,} bytes (these steps need {layout.floor:,} at least)",
            f"cost model: {self.label}",
        ]

    def further(self) -> dict[str, Any]:
        layout = layout_of(self.design)
        return {"patches": layout.patches, "arena_bytes": layout.arena.bytes}


def architecture(options: Mapping[str, Any]) -> Architecture:
    """How a firmware is made: nothing of it is a circuit."""
    # Parts are priced on whole maps: with a plan that is asked for, the design has to be asked, room or not.
    is_planned = options["patches"] not in ("auto", "none")
    parts = replace(PARTS, room=lambda capacity, budget: 0) if is_planned else PARTS
    return Architecture(
        "mcu", Patches, {}, _no_streams, _legal, options=options, estimator=estimated, parts=parts
    )


def _no_streams(site: Site, folds: Sequence[Any]) -> LayerUsage:
    raise UnsupportedError("a firmware has no streams")


def _legal(graph: ExactGraph) -> Mapping[str, Sequence[Fold]]:
    """The grids that each cut may take."""
    made = {node.output: node.name for node in graph.nodes}
    found = {}
    for cut in cuts(graph):
        sizes = graph.tensors[cut].shape[1:]
        rows, columns = (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
        found[made[cut]] = [
            Patches(r, c)
            for r in range(1, min(rows, MOST_PATCHES) + 1)
            for c in range(1, min(columns, MOST_PATCHES) + 1)
        ]
    return found


@lru_cache(maxsize=8)
def _program(key: int, box: _Box) -> Program:
    return plan_program(box.graph)


class _Box:
    """A graph by its identity, so that what is made of it can be kept."""

    def __init__(self, graph: ExactGraph):
        self.graph = graph

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Box) and other.graph is self.graph

    def __hash__(self) -> int:
        return id(self.graph)


def program_of(graph: ExactGraph) -> Program:
    """The program of a graph, made once."""
    return _program(id(graph), _Box(graph))


@lru_cache(maxsize=16)
def _layout(box: _Box, cut: str, grid: tuple[int, ...]) -> Layout:
    plan = make_plan(box.graph, cut, grid) if cut else None
    return Layout(program_of(box.graph), box.graph, plan)


def layout_of(design: Design) -> Layout:
    """The layout of a design: its folding says where it is cut, and into how many patches."""
    graph = design.graph
    folded = {name: fold for name, fold in design.folding.items() if fold != Patches()}
    if not folded:
        return _layout(_Box(graph), "", ())
    if len(folded) > 1:
        raise InputError(f"A network is cut once, not at {', '.join(folded)}")
    ((name, fold),) = folded.items()
    assert isinstance(fold, Patches)
    cut = next(node.output for node in graph.nodes if node.name == name)
    rank = len(graph.tensors[cut].shape) - 1
    grid = (fold.columns,) if rank == 1 else (fold.rows, fold.columns)
    return _layout(_Box(graph), cut, grid)


def footprint(graph: ExactGraph, plan: PatchPlan) -> int | None:
    """Bytes of SRAM that the firmware of a graph takes by a plan: its arena and output, without stack.

    A footprint for :mod:`qhw.patch`. None where the firmware cannot be cut there.
    """
    layout = Layout(program_of(graph), graph, plan if plan.cut else None)
    return layout.static_bytes if layout.can_run() else None


def resources(layout: Layout) -> dict[str, int]:
    """SRAM: the arena, the output, an estimated stack; flash: the constants, an estimate of the code."""
    constants = sum(arrays_of(layout).values())
    arena = layout.arena.bytes
    return {
        "sram": layout.static_bytes + STACK_BYTES,
        "contiguous_sram": arena,
        "flash": constants + code_bytes([step.kernel for step in layout.program.steps]),
    }


def estimated(design: Design) -> FirmwareEstimate:
    """The figures of a design."""
    layout = layout_of(design)
    constants = emit(layout, "").constant_bytes
    by_name = {node.name: node for node in design.graph.nodes}
    core, layers = design.board.family, []
    for index, step in enumerate(layout.program.steps):
        count = instructions(layout, step, core)
        ops = "+".join(by_name[name].op for name in step.nodes) or "copy"
        fold = Patches()
        if index < layout.front and layout.plan is not None:
            grid = layout.plan.grid
            fold = Patches(1, grid[0]) if len(grid) == 1 else Patches(grid[0], grid[1])
        cycles = cycles_of(count)
        layers.append(
            StepCost(
                step.name,
                ops,
                fold,
                cycles,
                max(1, cycles),
                step.kernel,
                layout.macs(step),
                count,
                constants.get(step.name, 0),
                layout.program.maps[step.writes].bytes,
            )
        )
    total = max(1, sum(layer.cycles for layer in layers))
    return FirmwareEstimate(design, tuple(layers), total, total, model_label())


def best_design(design: Design, budget: float, fps: float | None) -> Design:
    """The design with the plan that ``patches`` asks for; by itself, the least recomputation that fits.

    Raises:
        DoesNotFitError: no plan fits; by how much, and the smallest one. Or no plan reaches the rate.
        InputError: the network cannot be cut as asked.
    """
    chosen = design.architecture.options["patches"]
    if has_patches(design.graph, chosen.rpartition(":")[0]):
        chosen = "none"  # as QuantMCU leaves it where patches differ in their widths
    if chosen not in ("auto", "none"):
        design = design.folded(_given(design, chosen))
        _check_fits(design, budget, f"with --patches {chosen}")
    elif chosen == "none":
        _check_fits(design, budget, "layer by layer")
    else:
        design = _fitting(design, budget)
    if fps is None:
        return design
    found = estimated(design)
    if found.throughput_fps < fps:
        raise DoesNotFitError(
            f"{design.graph.name} does not reach {fps:g} inferences/s on {design.board.name}: the model says "
            f"{found.throughput_fps:,.1f} ({found.label})",
            hint="ask for a lower rate, use fewer bits, or a board with a faster clock",
        )
    return design


def _given(design: Design, text: str) -> dict[str, Fold]:
    """The folding of a plan in words: ``tensor:RxC``."""
    found = _PLAN.fullmatch(text)
    allowed = cuts(design.graph)
    if found is None:
        raise InputError(f"patches is {text!r}", allowed="auto, none, or a plan: TENSOR:ROWSxCOLUMNS")
    cut, numbers = found["cut"], [int(n) for n in found["grid"].split("x")]
    if cut not in allowed:
        raise InputError(
            f"The network cannot be cut at {cut!r}",
            allowed=", ".join(allowed) or "nowhere: its first layers do not run by patches",
            hint=closest(cut, allowed) if allowed else None,
        )
    sizes = design.graph.tensors[cut].shape[1:]
    if len(numbers) != len(sizes) or any(not 1 <= n <= size for n, size in zip(numbers, sizes, strict=True)):
        raise InputError(
            f"patches is {text!r}",
            allowed=f"a grid within the {' x '.join(map(str, sizes))} pixels of '{cut}'",
        )
    layout = Layout(program_of(design.graph), design.graph, make_plan(design.graph, cut, numbers))
    if not layout.can_run():
        raise InputError(f"The firmware has no map at '{cut}': its layers are joined to one kernel there")
    return _folding(design, layout.plan)


def _folding(design: Design, plan: PatchPlan | None) -> dict[str, Fold]:
    if plan is None or not plan.cut:
        return {}
    node = design.graph.producer(plan.cut)
    assert node is not None
    return {
        node.name: Patches(1, plan.grid[0]) if len(plan.grid) == 1 else Patches(plan.grid[0], plan.grid[1])
    }


def _over(layout: Layout, design: Design, budget: float) -> dict[str, tuple[int, int]]:
    """What needs more than it may have: the need, and the limit."""
    limits = {name: int(there * budget) for name, there in design.board.capacity.items()}
    if memory := design.architecture.options["memory"]:
        limits["sram"] = min(limits["sram"], int(memory) + STACK_BYTES)
    return {
        name: (need, limits[name]) for name, need in resources(layout).items() if need > limits.get(name, 0)
    }


def _check_fits(design: Design, budget: float, how: str) -> None:
    layout = layout_of(design)
    if over := _over(layout, design, budget):
        raise _too_large(design, over, budget, how)


def _candidates(design: Design) -> Iterator[Layout]:
    """Layouts in the order of their recomputation, then of their memory as the plan counts it."""
    program = program_of(design.graph)
    every = sorted(
        plans(design.graph, MOST_PATCHES), key=lambda plan: (plan.macs, plan.peak_bytes, plan.patches)
    )
    for plan in every:
        layout = Layout(program, design.graph, plan if plan.cut else None)
        if layout.can_run():
            yield layout


def _fitting(design: Design, budget: float) -> Design:
    """The plan with the fewest multiply-accumulates whose arena fits."""
    plain = Layout(program_of(design.graph), design.graph)
    over = _over(plain, design, budget)
    if not over:
        return design
    if "flash" not in over:
        for layout in _candidates(design):
            if layout.plan is not None and layout.floor <= _static_room(design, budget):
                folded = design.folded(_folding(design, layout.plan))
                if not _over(layout_of(folded), design, budget):
                    return folded
    raise _too_large(design, over, budget, "layer by layer")


def _static_room(design: Design, budget: float) -> int:
    """Bytes that an arena and the output may have at most."""
    there, asked = design.board.capacity, int(design.architecture.options["memory"])
    room = min(int(there["contiguous_sram"] * budget), int(there["sram"] * budget) - STACK_BYTES)
    return min(room, asked) if asked else room


def mixed(design: Design, samples: Mapping[str, IntArray], settings: Settings, budget: float) -> QuantMcu:
    """The graph of a design with the widths that QuantMCU chooses, such that its firmware fits.

    Args:
        design: not folded; its option ``patches`` may state the plan.
        samples: mantissas (N, *shape) of the inputs.

    Raises:
        CheckFailedError: not even the fewest bits fit.
        InputError: the network cannot be cut as asked.
    """
    graph, chosen, memory = design.graph, design.architecture.options["patches"], _static_room(design, budget)
    if chosen == "auto":
        among = list(plans(graph, MOST_PATCHES, footprint))
        return quantmcu(graph, samples, memory=memory, among=among, settings=settings, footprint=footprint)
    plan = layer_by_layer(graph)
    if chosen != "none":
        plan = layout_of(design.folded(_given(design, chosen))).plan or plan
    return quantmcu(graph, samples, memory=memory, plan=plan, settings=settings, footprint=footprint)


def _smallest(design: Design, budget: float) -> str:
    """The plan with the smallest arena, in words."""
    best = min(_candidates(design), key=lambda layout: (layout.floor, layout.plan.macs if layout.plan else 0))
    layout = Layout(best.program, best.graph, best.plan)
    need = resources(layout)["sram"]
    how = "layer by layer" if layout.plan is None else f"--patches {layout.patches}"
    fits = "fits" if not _over(layout, design, budget) else "does not fit either"
    return f"the smallest plan, {how}, needs {need:,} bytes of SRAM and {fits}"


def _too_large(
    design: Design, over: Mapping[str, tuple[int, int]], budget: float, how: str
) -> DoesNotFitError:
    name, (need, limit) = max(over.items(), key=lambda item: item[1][0] / max(item[1][1], 1))
    # Patches save SRAM, and no flash.
    smallest = "" if name == "flash" else f"{_smallest(design, budget)}; "
    titles = {resource.name: resource.title for resource in design.board.device.resources}
    return DoesNotFitError(
        f"{design.graph.name} does not fit {design.board.name} {how}: it needs {need:,} bytes "
        f"({titles[name]}), {need - limit:,} more than the {limit:,} "
        f"({budget:.0%} of {design.board.capacity[name]:,}) that it may use",
        hint=f"{smallest}use fewer bits, a smaller input or network, or a larger board",
    )
