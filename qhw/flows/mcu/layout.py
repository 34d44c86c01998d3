"""How a program runs: its first steps patch by patch or not, and where each map lies meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from qhw.flows.mcu.arena import Arena, Buffer, aligned, lower_bound, pack
from qhw.flows.mcu.containers import Map
from qhw.flows.mcu.program import ConvLayer, ElementwiseLayer, PoolLayer, Program, Step, macs_of
from qhw.graph.ir import ExactGraph
from qhw.patch.plan import PatchPlan, front_of, patches_of
from qhw.patch.regions import Reading, Region, reading, regions_of

INPUTS = ".inputs"
"""The buffer of all inputs, which lie one after the other."""

ARENA_SCRATCH = ".scratch"

STACK_BYTES = 1024
"""The estimate of the stack, which a build measures: kernels keep nothing large on it."""

_PATCHABLE = (ConvLayer, ElementwiseLayer, PoolLayer)


@dataclass(frozen=True)
class Call:
    """The geometry of one call of a step: for the whole map, or for a patch.

    Args:
        in_plane, out_plane: rows and columns that are there, and that are computed.
        pads: rows and columns of padding in front.
        rows: bytes from row to row, of each map that is read, and of the one that is written.
        offsets: bytes in front of the first pixel, likewise.
        region: of the tensor that is written, patch by patch; empty for the whole of it.
    """

    in_plane: tuple[int, int]
    out_plane: tuple[int, int]
    pads: tuple[int, int]
    rows: tuple[int, ...]
    offsets: tuple[int, ...]
    region: Region = ()

    @property
    def pixels(self) -> int:
        """Pixels that are computed."""
        return self.out_plane[0] * self.out_plane[1]


@dataclass(frozen=True)
class Layout:
    """A program with its patch plan and its arena.

    Args:
        graph: the graph that the program was made of.
        plan: None where every step runs once, on whole maps.
    """

    program: Program
    graph: ExactGraph
    plan: PatchPlan | None = None

    @cached_property
    def front(self) -> int:
        """How many steps run patch by patch."""
        if self.plan is None:
            return 0
        nodes = {node.name for node in front_of(self.graph, self.plan)[0]}
        return sum(1 for step in self.program.steps if nodes.issuperset(step.nodes) and step.nodes)

    @cached_property
    def regions(self) -> list[dict[str, Region]]:
        """The region of every tensor of the front, patch by patch."""
        if self.plan is None:
            return []
        nodes = front_of(self.graph, self.plan)[0]
        cut = self.plan.cut
        patches = patches_of(self.graph, cut, self.plan.grid)
        return [regions_of(self.graph, nodes, cut, patch) for patch in patches]

    def can_run(self) -> bool:
        """Whether the cut is a map, and every step in front of it can run on a part of its maps."""
        if self.plan is None:
            return True
        steps = self.program.steps[: self.front]
        nodes = {name for step in steps for name in step.nodes}
        front = front_of(self.graph, self.plan)[0]
        writes = bool(steps) and steps[-1].writes == self.plan.cut
        return (
            writes
            and nodes == {node.name for node in front}
            and all(isinstance(step.layer, _PATCHABLE) for step in steps)
            and all(len(self.graph.tensors[step.writes].shape) in (2, 3) for step in steps)
            and not any(name in self.program.constants for step in steps for name in step.reads)
        )

    def calls(self, step: Step) -> list[Call]:
        """The calls of a step: one, or one per patch."""
        if step in self.program.steps[: self.front]:
            return [self._patched(step, regions) for regions in self.regions]
        return [self._whole(step)]

    def rectangles(self, step: Step) -> tuple[tuple[tuple[int, int], tuple[int, int]], ...]:
        """Rows and columns of every patch of a step; empty where it runs once."""
        planes = [_plane(call.region) for call in self.calls(step) if call.region]
        return tuple((rows, columns) for rows, columns in planes)

    @property
    def patches(self) -> str:
        """The patch plan in words; empty without one."""
        if self.plan is None:
            return ""
        return f"{self.plan.cut}:{'x'.join(map(str, self.plan.grid))}"

    def _whole(self, step: Step) -> Call:
        layer, out = step.layer, self.program.maps[step.writes]
        maps = [self._map(name) for name in step.reads]
        plane = layer.plane if isinstance(layer, PoolLayer) else out.plane
        pads = layer.pads if isinstance(layer, ConvLayer | PoolLayer) else (0, 0)
        if isinstance(layer, ElementwiseLayer):
            plane = maps[0].plane
        rows = (*(m.row_bytes for m in maps), plane[1] * out.pixel_bytes)
        return Call(maps[0].plane, plane, pads, rows, (0,) * len(rows))

    def _patched(self, step: Step, regions: Mapping[str, Region]) -> Call:
        """A step on its part of one patch."""
        node = next(node for node in self.graph.nodes if node.name == step.nodes[0])
        region = regions[step.writes]
        read = reading(self.graph, node, region)
        rows, offsets = [], []
        for name in step.reads:
            held = self._held(name, regions)
            begin = [a - start for (a, _), (start, _) in zip(_plane(read.region), _plane(held), strict=True)]
            m = self._map(name)
            row = _size(held)[1] * m.pixel_bytes
            rows.append(row)
            offsets.append(begin[0] * row + begin[1] * m.pixel_bytes)
        out = self.program.maps[step.writes]
        held = self._held(step.writes, regions)
        begin = [a - start for (a, _), (start, _) in zip(_plane(region), _plane(held), strict=True)]
        row = _size(held)[1] * out.pixel_bytes
        return Call(
            _size(read.region),
            _size(region),
            _before(read),
            (*rows, row),
            (*offsets, begin[0] * row + begin[1] * out.pixel_bytes),
            region,
        )

    def _held(self, tensor: str, regions: Mapping[str, Region]) -> Region:
        """What memory holds of a tensor while a patch runs: inputs and the cut are there as a whole."""
        assert self.plan is not None
        if tensor in self.program.inputs or tensor == self.plan.cut:
            return tuple((0, size) for size in self.graph.tensors[tensor].shape[1:])
        return regions[tensor]

    def _map(self, name: str) -> Map:
        if name in self.program.constants:
            return self.program.constants[name][0]
        return self.program.maps[name]

    # --- memory -----------------------------------------------------------------------------------

    @cached_property
    def in_place(self) -> dict[str, str]:
        """Maps that are written over one that nothing reads any more, by name."""
        found: dict[str, str] = {}
        last = self._last_reads()
        for index, step in enumerate(self.program.steps[self.front :], self.front):
            if not isinstance(step.layer, ElementwiseLayer) or step.writes in self.program.outputs:
                continue
            out = self.program.maps[step.writes]
            for name in step.reads:
                root = self.program.root(name)
                source = self._map(name)
                fits = source.container.bits == out.container.bits >= 8 and source.shape == out.shape
                free = root not in (*self.program.inputs, *self.program.outputs, *self.program.constants)
                if fits and free and last[root] == index and root not in found.values():
                    found[step.writes] = root
                    break
        return found

    def memory_of(self, tensor: str) -> str:
        """The buffer that a tensor lies in."""
        name = self.program.root(tensor)
        while name in self.in_place:
            name = self.program.root(self.in_place[name])
        return name

    def _last_reads(self) -> dict[str, int]:
        """The last step that reads each root tensor; what the front reads as a whole is read by all of it."""
        last: dict[str, int] = {}
        for index, step in enumerate(self.program.steps):
            for name in step.reads:
                root = self.program.root(name)
                whole = index < self.front and name in self.program.inputs
                last[root] = self.front - 1 if whole else index
        return last

    @cached_property
    def buffers(self) -> list[Buffer]:
        """What lies in the arena: inputs, maps that are no outputs, and scratch memory."""
        first, last, sizes = dict[str, int](), self._last_reads(), dict[str, int]()
        used = max((last.get(name, -1) for name in self.program.inputs), default=-1)
        found = [Buffer(INPUTS, self.io_bytes[0], -1, used)]
        for index, step in enumerate(self.program.steps):
            name = step.writes
            if step.scratch:
                found.append(Buffer(step.name + ARENA_SCRATCH, step.scratch, index, index))
            if name in self.program.outputs:
                continue
            first[name] = 0 if self.plan is not None and name == self.plan.cut else index
            last.setdefault(name, index)
            sizes[name] = self._bytes(name, index)
        merged: dict[str, Buffer] = {}
        for name, size in sizes.items():
            memory = self.memory_of(name)
            made = Buffer(memory, size, first[name], max(last[name], first[name]))
            if memory in merged:
                before = merged[memory]
                made = Buffer(
                    memory,
                    max(size, before.bytes),
                    min(made.first, before.first),
                    max(made.last, before.last),
                )
            merged[memory] = made
        return [*merged.values(), *found]

    def _bytes(self, name: str, index: int) -> int:
        m = self.program.maps[name]
        if index >= self.front or (self.plan is not None and name == self.plan.cut):
            return m.bytes
        return max(
            _size(regions[name])[0] * _size(regions[name])[1] * m.pixel_bytes for regions in self.regions
        )

    @cached_property
    def floor(self) -> int:
        """Bytes that no arena is smaller than."""
        return lower_bound(self.buffers)

    @cached_property
    def arena(self) -> Arena:
        return pack(self.buffers)

    @property
    def static_bytes(self) -> int:
        """Bytes of static RAM: the arena and the output, which the caller holds."""
        return self.arena.bytes + aligned(self.io_bytes[1])

    def offset(self, tensor: str) -> int:
        """Where a tensor begins in the arena."""
        return self.arena.offsets[self.memory_of(tensor)]

    def macs(self, step: Step) -> int:
        """Multiply-accumulates of a step, recomputation included."""
        return sum(macs_of(step, call.pixels) for call in self.calls(step))

    @property
    def io_bytes(self) -> tuple[int, int]:
        """Bytes of what the caller hands over: inputs, outputs."""
        return placed(self.program, self.program.inputs)[1], placed(self.program, self.program.outputs)[1]


def placed(program: Program, tensors: tuple[str, ...]) -> tuple[dict[str, int], int]:
    """Inputs or outputs one after the other, each from an aligned offset; and the bytes of all."""
    offsets, at = {}, 0
    for name in tensors:
        at = -(-at // 8) * 8
        offsets[name] = at
        at += program.maps[name].bytes
    return offsets, at


def _plane(region: Region) -> Region:
    """A region with rows and columns: one spatial axis is a row."""
    return ((0, 1), *region) if len(region) == 1 else region


def _size(region: Region) -> tuple[int, int]:
    (top, bottom), (left, right) = _plane(region)
    return bottom - top, right - left


def _before(read: Reading) -> tuple[int, int]:
    return (0, read.before[0]) if len(read.before) == 1 else (read.before[0], read.before[1])
