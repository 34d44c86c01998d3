"""The cost of design points by the hundred thousand, without lowering one of them.

What a node of the exact graph costs depends on the types of its operands, and on its own format where it
has one. Variants of the network (:class:`qhw.search.network.Variants`) are lowered once each; from then on
types are propagated through the graph by the operations' own inference rules. A type that has been seen is a
number, and a node at some numbers is a row of a table: what is not in it yet is inferred and priced, once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qhw.boards import Board
from qhw.cost.pricing.architecture import LayerCost
from qhw.cost.pricing.costing import ESTIMATED, Costing
from qhw.cost.pricing.design import Design
from qhw.errors import UnsupportedError
from qhw.flows.base import Flow
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.builder import value_ranges
from qhw.graph.infer import Operand, Range, infer
from qhw.graph.ir import ExactGraph, Node, TensorType
from qhw.pipeline.designs import Wanted
from qhw.search.space import Kind, Point

OBJECTIVES = ("lut", "ff", "dsp", "bram18", "share", "memory", "energy", "interval")
"""What a search may minimise: a resource, the largest share of the board, bits of memory, the energy of one
image, or the cycles between two."""

_INTERVALS = 64
"""Intervals that are tried where the fastest design within the budget is asked for."""

_LEANINGS = (
    (1.0, 1.0, 1.0, 1.0, 1.0),
    (1.0, 0.01, 0.01, 0.01, 0.01),
    (0.01, 0.01, 1.0, 0.01, 0.01),
    (0.01, 0.01, 0.01, 1.0, 0.01),
)
"""What foldings are chosen by, layer for layer: shares of all resources (in the order of ``ESTIMATED``), or
mostly LUT, DSP or BRAM. A point takes the leaning whose largest share is least; the integer program of
:mod:`qhw.cost.pricing.folding`, which weighs layers against each other, has the last word about a front."""

_BLOCK = 1 << 17
"""Rows that are added up at a time."""

_COLUMNS = ("usage", "interval", "energy_nj", "memory_bits", "reaches")


@dataclass(frozen=True)
class PointCosts:
    """Costs of points at the folding that suits each best.

    Args:
        usage: resources, (points, resources), in the order of ``ESTIMATED``.
        interval: cycles between two images.
        energy_nj: energy of one image, relative.
        memory_bits: bits of weights, streams and line buffers.
        reaches: whether some folding is fast enough.
        room: what the board has, by resource.
        budget: the share of it that may be used.
    """

    usage: NDArray[np.float64]
    interval: NDArray[np.float64]
    energy_nj: NDArray[np.float64]
    memory_bits: NDArray[np.float64]
    reaches: NDArray[np.bool_]
    room: NDArray[np.float64]
    budget: float

    @property
    def fits(self) -> NDArray[np.bool_]:
        """Which points keep to the budget, and to the rate."""
        return np.asarray((self.usage <= self.room * self.budget).all(axis=1) & self.reaches)

    @property
    def share(self) -> NDArray[np.float64]:
        """The largest share of a resource of the board."""
        with np.errstate(divide="ignore", invalid="ignore"):
            shares = np.where(self.usage > 0, self.usage / self.room, 0.0)
        return np.asarray(shares.max(axis=1))

    def objective(self, name: str) -> NDArray[np.float64]:
        """One of ``OBJECTIVES``, (points,); infinite where no folding is fast enough."""
        if name in ESTIMATED:
            values = self.usage[:, ESTIMATED.index(name)]
        else:
            columns = {
                "share": self.share,
                "memory": self.memory_bits,
                "energy": self.energy_nj,
                "interval": self.interval,
            }
            values = columns[name]
        return np.asarray(np.where(self.reaches, values, np.inf))


class _NodeTable:
    """What is known of one node: for each key, the number of its result's type and its rows of cost."""

    def __init__(self) -> None:
        self.results: dict[tuple[int, ...], int] = {}
        self.places: dict[tuple[int, ...], int] = {}
        self._rows: list[NDArray[np.float64]] = []
        self._stacked = np.empty(0)

    def add(self, key: tuple[int, ...], result: int, rows: NDArray[np.float64]) -> None:
        """Remember what a node gives and costs at some types."""
        self.results[key], self.places[key] = result, len(self._rows)
        self._rows.append(rows)

    def stacked(self) -> NDArray[np.float64]:
        """All rows, (keys, intervals, leanings, columns)."""
        if len(self._stacked) < len(self._rows):
            self._stacked = np.stack(self._rows)
        return self._stacked


class PointPricer:
    """Prices points of a space on a board.

    Args:
        graphs: the exact graph of each variant, lowered.
        counts: how many options each variable has.
        choices: the place of the variable that chooses the variant of a node, by the node's source; others
            have none (:meth:`qhw.search.network.Variants.sources`).
        flow, board, wanted: as for a build.

    Raises:
        UnsupportedError: the flow cannot carry a variant, or variants differ in what no variable explains.
    """

    def __init__(
        self,
        graphs: Sequence[ExactGraph],
        choices: Mapping[tuple[str, Kind], int],
        counts: Sequence[int],
        flow: Flow,
        board: Board,
        wanted: Wanted,
    ) -> None:
        designs = [flow.prepare(graph, board, wanted.multipliers) for graph in graphs]
        self.design, self.wanted, self.board = designs[0], wanted, board
        self.graphs = [design.graph for design in designs]
        self.graph = self.graphs[0]
        self.priced = 0
        """Nodes that were inferred and priced so far."""
        _check_alike(self.graphs)
        self._own = [_own_variable(self.graphs, place, choices) for place in range(len(self.graph.nodes))]
        self._counts = tuple(counts)
        self._types: list[tuple[TensorType, Range]] = []
        self._numbers: dict[object, int] = {}
        self._tables = [_NodeTable() for _ in self.graph.nodes]
        ranges = value_ranges(self.graph)
        self._inputs = {
            name: self._number(self.graph.tensors[name], ranges[name]) for name in self.graph.inputs
        }
        self.limits = self._interval_limits(designs)

    @property
    def room(self) -> NDArray[np.float64]:
        """The board's resources."""
        return np.array(list(self.board.amounts(ESTIMATED).values()), dtype=np.float64)

    def price(self, points: IntArray | Sequence[Point]) -> PointCosts:
        """The costs of some points, (points, variables)."""
        chosen = np.asarray(points, dtype=np.int64).reshape(-1, len(self._counts))
        block = max(1, _BLOCK // (len(self.limits) * len(_LEANINGS)))
        parts = [self._price(chosen[start : start + block]) for start in range(0, len(chosen), block)]
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS]
        return PointCosts(
            **dict(zip(_COLUMNS, columns, strict=True)), room=self.room, budget=self.wanted.share
        )

    def _price(self, chosen: IntArray) -> PointCosts:
        numbers = {name: np.full(len(chosen), number) for name, number in self._inputs.items()}
        total = np.zeros((len(chosen), len(self.limits), len(_LEANINGS), len(ESTIMATED) + 2))
        slowest = np.zeros(total.shape[:-1])
        for place, node in enumerate(self.graph.nodes):
            own = self._own[place]
            columns = [numbers[name] for name in self.graph.activations(node)]
            columns.append(np.zeros(len(chosen), np.int64) if own is None else chosen[:, own])
            firsts, where = _distinct(columns)
            table = self._tables[place]
            keys = [tuple(int(column[first]) for column in columns) for first in firsts]
            for key in keys:
                if key not in table.places:
                    self._fill(place, key)
            rows = np.array([table.places[key] for key in keys])[where]
            numbers[node.output] = np.array([table.results[key] for key in keys])[where]
            costs = table.stacked()[rows]
            total += costs[..., :-1]
            np.maximum(slowest, costs[..., -1], out=slowest)
        return self._chosen(total, slowest)

    def _chosen(self, total: NDArray[np.float64], slowest: NDArray[np.float64]) -> PointCosts:
        """The fastest interval that fits, or the slowest; there, the leaning with the least largest share."""
        usage = total[..., : len(ESTIMATED)]
        share = (usage / np.maximum(self.room, 1e-9)).max(axis=-1)
        share = np.where(np.isfinite(slowest), share, np.inf)
        leaning = share.argmin(axis=2)
        least = np.take_along_axis(share, leaning[..., None], axis=2)[..., 0]
        fits = least <= self.wanted.share
        best = np.where(fits.any(axis=1), fits.argmax(axis=1), len(self.limits) - 1)
        every = np.arange(len(total))
        at = every, best, leaning[every, best]
        return PointCosts(
            usage[at],
            slowest[at],
            total[(*at, len(ESTIMATED))],
            total[(*at, len(ESTIMATED) + 1)],
            np.isfinite(slowest[at]),
            self.room,
            self.wanted.share,
        )

    def _fill(self, place: int, key: tuple[int, ...]) -> None:
        """Infer the result of a node at some types, and price it at every folding."""
        *operands, option = key
        graph = self.graphs[option % len(self.graphs)] if self._own[place] is not None else self.graph
        node = graph.nodes[place]
        types = dict(zip(graph.activations(node), (self._types[number] for number in operands), strict=True))
        given = [
            Operand(types[name][0], types[name][1])
            if name in types
            else Operand(graph.tensors[name], _constant_range(graph, name), graph.constants[name])
            for name in node.inputs
        ]
        declared = graph.tensors[node.output]
        result = infer(node, given, _declared(node, declared, given))
        kind = _declared(node, declared, given) if _states_its_type(node) else result.type()
        rows = self._rows(graph, node, {**{name: t for name, (t, _) in types.items()}, node.output: kind})
        self._tables[place].add(key, self._number(kind, result.range), rows)
        self.priced += 1

    def _rows(self, graph: ExactGraph, node: Node, kinds: Mapping[str, TensorType]) -> NDArray[np.float64]:
        """What a node takes at each limit of the interval, at the folding that each leaning prefers."""
        tensors = {**graph.tensors, **kinds}
        for name in list(kinds):  # what a chain of moves passes on is of the same type
            source = graph.producer(name)
            while source is not None and isinstance(source, ir.Reshape):
                kind = tensors[source.inputs[0]]
                tensors[source.inputs[0]] = TensorType(kind.shape, kinds[name].format, kinds[name].exponent)
                source = graph.producer(source.inputs[0])
        retyped = dataclasses.replace(graph, tensors=tensors)
        alone = dataclasses.replace(retyped, nodes=[node])
        architecture = self.design.architecture
        folds = architecture.legal_folding(alone).get(node.name, (architecture.fold(),))
        costing = Costing(retyped, architecture, self.design.costing.hardware)
        return _at_limits(costing.layers(node, folds), self.limits, self.room)

    def _number(self, kind: TensorType, range_: Range) -> int:
        key = (kind, _frozen(range_.low), _frozen(range_.high))
        if key not in self._numbers:
            self._numbers[key] = len(self._types)
            self._types.append((kind, range_))
        return self._numbers[key]

    def _interval_limits(self, designs: Sequence[Design]) -> NDArray[np.float64]:
        if self.wanted.fps is not None:
            return np.array([float(math.floor(self.board.clock_mhz * 1e6 / self.wanted.fps))])
        intervals: set[int] = set()
        for design in designs:
            unfolded = (design.architecture.fold(),)
            for node in design.graph.nodes:
                costs = design.costing.layers(node, design.legal.get(node.name, unfolded))
                intervals.update(cost.initiation_interval for cost in costs)
        rising = np.array(sorted(intervals), dtype=np.float64)
        picked = np.unique(np.linspace(0, len(rising) - 1, min(len(rising), _INTERVALS)).round().astype(int))
        return np.asarray(rising[picked])


def _at_limits(
    costs: Sequence[LayerCost], limits: NDArray[np.float64], room: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A node at each limit and leaning: resources, energy, memory, interval; infinite where none is."""
    table = np.array(
        [
            [*(getattr(c, name) for name in ESTIMATED), c.energy_nj, c.memory_bits, c.initiation_interval]
            for c in costs
        ],
        dtype=np.float64,
    )
    shares = table[:, : len(ESTIMATED)] / np.maximum(room, 1)
    rows = np.full((len(limits), len(_LEANINGS), table.shape[1]), np.inf)
    for which, weights in enumerate(_LEANINGS):
        order = np.lexsort((table[:, -1], shares.sum(axis=1), shares @ np.array(weights)))
        for place, limit in enumerate(limits):
            fast = order[table[order, -1] <= limit]
            if len(fast):
                rows[place, which] = table[fast[0]]
    return rows


def _distinct(columns: Sequence[IntArray]) -> tuple[IntArray, IntArray]:
    """The first place of each distinct row, and which of them every row is."""
    key = columns[0]
    for column in columns[1:]:
        key = key * (int(column.max()) + 1) + column
    _, firsts, where = np.unique(key, return_index=True, return_inverse=True)
    return firsts, where.reshape(-1)


_DECLARING = (ir.Requant, ir.Threshold, ir.Table)


def _states_its_type(node: Node) -> bool:
    return isinstance(node, _DECLARING) or node.moves_codes


def _declared(node: Node, declared: TensorType, operands: Sequence[Operand]) -> TensorType:
    """The type that an operation leaves open: a Requant's own, or that of the codes which it moves."""
    if node.moves_codes:
        first = operands[0].type
        return TensorType(declared.shape, first.format, first.exponent)
    return declared


def _constant_range(graph: ExactGraph, name: str) -> Range:
    value = graph.constants[name]
    return Range.of(int(value.min()), int(value.max())) if value.size else Range.of(0, 0)


def _frozen(bounds: IntArray) -> tuple[int, ...] | int:
    return int(bounds) if bounds.ndim == 0 else tuple(int(bound) for bound in bounds)


def _check_alike(graphs: Sequence[ExactGraph]) -> None:
    names = [[node.name for node in graph.nodes] for graph in graphs]
    for other in names[1:]:
        if other != names[0]:
            differing = next(a for a, b in zip([*names[0], ""], [*other, ""], strict=False) if a != b)
            raise UnsupportedError(
                f"The network has other operations in other formats, from '{differing or other[-1]}' on",
                hint="pin that layer's format, or leave out formats that change what it becomes",
            )


def _own_variable(
    graphs: Sequence[ExactGraph], place: int, choices: Mapping[tuple[str, Kind], int]
) -> int | None:
    """The variable that chooses a node's variant; nodes without one are alike in all variants."""
    node = graphs[0].nodes[place]
    kind: Kind = "weights" if isinstance(node, ir.Conv | ir.MatMul) else "activations"
    found = choices.get((node.source or node.name, kind))
    if found is not None and (
        kind == "weights" or any(isinstance(g.nodes[place], _DECLARING) for g in graphs)
    ):
        return found
    first = _essence(graphs[0], node)
    for graph in graphs[1:]:
        if _essence(graph, graph.nodes[place]) != first:
            raise UnsupportedError(
                f"{node.op} '{node.name}' changes with the formats of the space, and no variable is its own",
                hint="pin the formats of the layers around it",
            )
    return None


def _essence(graph: ExactGraph, node: Node) -> tuple[object, ...]:
    """All of a node but the types of its computed operands."""
    constants = [
        (graph.tensors[name], graph.constants[name].tobytes())
        for name in node.inputs
        if name in graph.constants
    ]
    bare = dataclasses.replace(node, inputs=(), output="")
    return (bare, *constants, graph.tensors[node.output] if isinstance(node, _DECLARING) else None)
