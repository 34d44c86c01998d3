"""The cost of design points by the hundred thousand, without lowering one of them.

What a node of the exact graph costs depends on the types of its operands, and on its own format where it has
one. Variants of the network (:class:`qhw.search.network.Variants`) are lowered once each; from then on types
and ranges are propagated through the graph, all points together (:mod:`qhw.search.inference`). A type that
has been seen is a number. What a node costs depends on the types of its operands and its result alone, not
on their ranges, of which there are many more: so it is worked out once for each of them.
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from qhw.boards import Board
from qhw.cost.pricing.architecture import LayerCost, PartCost
from qhw.cost.pricing.costing import ESTIMATED, Costing
from qhw.cost.pricing.design import Design
from qhw.cost.pricing.estimate import estimate
from qhw.devices import Kind as DeviceKind
from qhw.errors import CheckFailedError, UnsupportedError
from qhw.flows.base import Flow
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.builder import value_ranges
from qhw.graph.ir import ExactGraph, Node, TensorType
from qhw.graph.passes.merge_requant import keeps_numbers
from qhw.pipeline.designs import Wanted
from qhw.search.inference import DECLARING, Tensors, results
from qhw.search.space import Kind, Point

OBJECTIVES: Mapping[DeviceKind, tuple[str, ...]] = {
    "fpga": ("lut", "ff", "dsp", "bram18", "share", "memory", "energy", "interval"),
    "microcontroller": ("instructions", "interval", "flash"),
}
"""What a search may minimise on a kind of board, the usual one first: a resource, the largest share of the
board, bits of memory, the energy of one image, the cycles between two, or the instructions of one."""

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

_TYPE_BITS, _OPTION_BITS = 26, 10
"""Bits of the number of a type, and of that of an option, in the key of a case."""

_COLUMNS = ("usage", "interval", "energy_nj", "memory_bits", "reaches")


@dataclass(frozen=True)
class Costs:
    """Costs of points.

    Args:
        usage: resources, (points, resources), in the order of ``resources``.
        interval: cycles between two images.
        reaches: whether they can be built, and are fast enough.
        room: what the board has, by resource.
        budget: the share of it that may be used.
    """

    resources: ClassVar[tuple[str, ...]] = ()

    usage: NDArray[np.float64]
    interval: NDArray[np.float64]
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
        """One of ``OBJECTIVES``, (points,); infinite where nothing is fast enough."""
        return np.asarray(np.where(self.reaches, self._columns()[name], np.inf))

    def _columns(self) -> dict[str, NDArray[np.float64]]:
        usage = {name: self.usage[:, place] for place, name in enumerate(self.resources)}
        return {**usage, "share": self.share, "interval": self.interval}


@dataclass(frozen=True)
class CircuitCosts(Costs):
    """Costs of circuits at the folding that suits each point best.

    Args:
        energy_nj: energy of one image, relative.
        memory_bits: bits of weights, streams and line buffers.
    """

    resources: ClassVar[tuple[str, ...]] = ESTIMATED

    energy_nj: NDArray[np.float64]
    memory_bits: NDArray[np.float64]

    def _columns(self) -> dict[str, NDArray[np.float64]]:
        return {**super()._columns(), "memory": self.memory_bits, "energy": self.energy_nj}


@dataclass(frozen=True)
class ProgramCosts(Costs):
    """Costs of programs.

    Args:
        instructions: of one inference, modelled.
        memory: bytes of all maps and all scratch memory: more than any arena of them has.
        has_room: whether nothing is known that says that the maps find no room.
    """

    resources: ClassVar[tuple[str, ...]] = ("flash",)

    instructions: NDArray[np.float64]
    memory: NDArray[np.float64]
    has_room: NDArray[np.bool_]

    @property
    def fits(self) -> NDArray[np.bool_]:
        return super().fits & self.has_room

    def _columns(self) -> dict[str, NDArray[np.float64]]:
        return {**super()._columns(), "instructions": self.instructions}


class _Numbers:
    """Numbers 64-bit keys in the order in which they are met."""

    def __init__(self) -> None:
        self._keys, self._numbers = np.empty(0, np.int64), np.empty(0, np.int64)

    def of(self, keys: IntArray) -> tuple[IntArray, IntArray]:
        """The number of each key (keys,), and the places of new ones in the order of their numbers."""
        places = np.searchsorted(self._keys, keys)
        is_known = np.zeros(len(keys), dtype=np.bool_)
        if len(self._keys):
            is_known = self._keys[np.minimum(places, len(self._keys) - 1)] == keys
            if is_known.all():
                return self._numbers[places], np.empty(0, np.int64)
        (missing,) = np.nonzero(~is_known)
        new, firsts = np.unique(keys[missing], return_index=True)
        slots = np.searchsorted(self._keys, new)
        numbers = len(self._keys) + np.arange(len(new))
        self._keys = np.insert(self._keys, slots, new)
        self._numbers = np.insert(self._numbers, slots, numbers)
        return self._numbers[np.searchsorted(self._keys, keys)], missing[firsts]


class _NodeTable:
    """What is known of one node: for the types of its operands, that of its result and its row of cost."""

    def __init__(self) -> None:
        self.numbers = _Numbers()
        self.pairs: list[_Numbers] = []
        self.results, self.rows = np.empty(0, np.int64), np.empty(0, np.int64)

    def keys(self, columns: Sequence[IntArray], options: IntArray) -> IntArray:
        """One number for each case of operands' numbers and an option."""
        key, *others = columns
        while len(self.pairs) < len(others) - 1:
            self.pairs.append(_Numbers())
        for pairs, column in zip(self.pairs, others, strict=False):
            key, _ = pairs.of(key << _TYPE_BITS | column)
        for column in others[len(others) - 1 :]:
            key = key << _TYPE_BITS | column
        return np.asarray(key << _OPTION_BITS | options)

    def add(self, results: Sequence[int], rows: Sequence[int]) -> None:
        """Remember what the node gives and costs in the cases that were numbered last."""
        self.results = np.concatenate([self.results, np.array(results, dtype=np.int64)])
        self.rows = np.concatenate([self.rows, np.array(rows, dtype=np.int64)])


class _Rows:
    """Rows of cost, each of one node at some types: what it takes at every limit and leaning."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.places: dict[object, int] = {}
        self._room = np.empty((0, *shape))

    def add(self, key: object, row: NDArray[np.float64]) -> None:
        """Remember a row."""
        place = len(self.places)
        if place == len(self._room):
            self._room = np.resize(self._room, (2 * place + 64, *self._room.shape[1:]))
        self.places[key], self._room[place] = place, row

    @property
    def stacked(self) -> NDArray[np.float64]:
        """All rows, (rows, limits, leanings, columns)."""
        return self._room[: len(self.places)]


class Pricer(ABC):
    """Prices points of a space on a board; :func:`pricer_for` makes the one that suits a flow.

    Args:
        graphs: the exact graph of each variant, in the form in which it is priced.
        choices: the place of the variable that chooses the variant of a node, by the node's source; others
            have none (:meth:`qhw.search.network.Variants.sources`).
        counts: how many options each variable has.
        board, wanted: as for a build.

    Raises:
        UnsupportedError: variants differ in what no variable explains.
    """

    def __init__(
        self,
        graphs: Sequence[ExactGraph],
        choices: Mapping[tuple[str, Kind], int],
        counts: Sequence[int],
        board: Board,
        wanted: Wanted,
    ) -> None:
        self.graphs, self.graph = list(graphs), graphs[0]
        self.board, self.wanted = board, wanted
        self.priced = 0
        """Rows of cost that were worked out so far."""
        _check_alike(self.graphs)
        self._own = [_own_variable(self.graphs, place, choices) for place in range(len(self.graph.nodes))]
        self._counts = tuple(counts)
        self._tables = [_NodeTable() for _ in self.graph.nodes]
        self._tensors = {name: Tensors() for name in self.graph.tensors}
        ranges = value_ranges(self.graph)
        self._inputs = {
            name: self._tensors[name].add(self.graph.tensors[name], ranges[name])
            for name in self.graph.inputs
        }

    @abstractmethod
    def price(self, points: IntArray | Sequence[Point]) -> Costs:
        """The costs of some points, (points, variables)."""

    def settle(self, point: Point) -> Costs:
        """The costs of one point, with all that is known only of whole designs."""
        return self.price([point])

    def types(self, point: Point) -> dict[str, TensorType]:
        """The type of each computed tensor at a point."""
        self.price([point])
        found, _ = self._numbered(np.array([point], dtype=np.int64))
        known = {name: self._tensors[name] for name in found}
        return {name: known[name].kinds[known[name].kind_of[n[0]]] for name, n in found.items()}

    def _chosen_of(self, points: IntArray | Sequence[Point]) -> IntArray:
        return np.asarray(points, dtype=np.int64).reshape(-1, len(self._counts))

    def _numbered(self, chosen: IntArray) -> tuple[dict[str, IntArray], IntArray]:
        """The numbers of all types at some points, and the rows of cost of all nodes, (points, nodes)."""
        numbers = {name: np.full(len(chosen), number) for name, number in self._inputs.items()}
        rows = np.empty((len(self.graph.nodes), len(chosen)), dtype=np.int64)
        for place, node in enumerate(self.graph.nodes):
            own, table = self._own[place], self._tables[place]
            columns = [numbers[name] for name in self.graph.activations(node)]
            options = np.zeros(len(chosen), np.int64) if own is None else chosen[:, own]
            cases, new = table.numbers.of(table.keys(columns, options))
            if len(new):
                table.add(*self._filled(place, np.stack([*columns, options], axis=1)[new]))
            numbers[node.output], rows[place] = table.results[cases], table.rows[cases]
        return numbers, np.ascontiguousarray(rows.T)

    def _filled(self, place: int, cases: IntArray) -> tuple[list[int], list[int]]:
        """The results of a node and its rows of cost, by its operands' numbers and an option, (cases, …)."""
        found = [0] * len(cases)
        options = cases[:, -1] % len(self.graphs)
        for option in np.unique(options):
            (where,) = np.nonzero(options == option)
            graph = self.graphs[option]
            given = cases[where, :-1].tolist()
            given_by = results(graph, graph.nodes[place], self._tensors, given)
            for case, number in zip(where, given_by, strict=True):
                found[case] = number
        return found, self._rows_of(place, cases, found)

    @abstractmethod
    def _rows_of(self, place: int, cases: IntArray, found: Sequence[int]) -> list[int]:
        """The rows of cost of a node in some cases, with the numbers of its results."""


class CircuitPricer(Pricer):
    """Prices circuits: sums over nodes, each at the folding that suits it best.

    Args:
        flow: whose circuits; others as for :class:`Pricer`, graphs as they are lowered.

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
        super().__init__([design.graph for design in designs], choices, counts, board, wanted)
        self.design = designs[0]
        self.limits = self._interval_limits(designs)
        self._rows = _Rows((len(self.limits), len(_LEANINGS), len(ESTIMATED) + 3))

    @property
    def room(self) -> NDArray[np.float64]:
        """The board's resources."""
        return np.array(list(self.board.amounts(ESTIMATED).values()), dtype=np.float64)

    def price(self, points: IntArray | Sequence[Point]) -> CircuitCosts:
        chosen = self._chosen_of(points)
        block = max(1, _BLOCK // (len(self.limits) * len(_LEANINGS)))
        parts = [self._price(chosen[start : start + block]) for start in range(0, len(chosen), block)]
        columns = [np.concatenate([getattr(part, name) for part in parts]) for name in _COLUMNS]
        return CircuitCosts(
            **dict(zip(_COLUMNS, columns, strict=True)), room=self.room, budget=self.wanted.share
        )

    def _price(self, chosen: IntArray) -> CircuitCosts:
        _, rows = self._numbered(chosen)
        table = self._rows.stacked
        width = int(np.prod(table.shape[1:]))
        ends = np.arange(0, rows.size + 1, rows.shape[1])
        # A matrix of ones adds rows up in the order of the nodes, without a copy of each.
        picked = csr_array((np.ones(rows.size), rows.ravel(), ends), shape=(len(rows), len(table)))
        total = (picked @ table.reshape(len(table), width)).reshape(len(rows), *table.shape[1:])
        intervals = np.ascontiguousarray(table[..., -1])
        slowest = intervals[rows[:, 0]]
        for column in rows.T[1:]:
            np.maximum(slowest, intervals[column], out=slowest)
        return self._chosen(total[..., :-1], slowest)

    def _chosen(self, total: NDArray[np.float64], slowest: NDArray[np.float64]) -> CircuitCosts:
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
        return CircuitCosts(
            usage=usage[at],
            interval=slowest[at],
            energy_nj=total[(*at, len(ESTIMATED))],
            memory_bits=total[(*at, len(ESTIMATED) + 1)],
            reaches=np.isfinite(slowest[at]),
            room=self.room,
            budget=self.wanted.share,
        )

    def _rows_of(self, place: int, cases: IntArray, found: Sequence[int]) -> list[int]:
        node = self.graph.nodes[place]
        known = [self._tensors[name] for name in (*self.graph.activations(node), node.output)]
        rows = []
        for (*numbers, option), result in zip(cases.tolist(), found, strict=True):
            kinds = tuple(of.kind_of[n] for of, n in zip(known, (*numbers, result), strict=True))
            rows.append(self._row(place, option % len(self.graphs), kinds))
        return rows

    def _row(self, place: int, option: int, kinds: tuple[int, ...]) -> int:
        """The row of cost of a node whose computed operands and result have these types."""
        key = (place, option, kinds)
        if key not in self._rows.places:
            graph = self.graphs[option]
            node = graph.nodes[place]
            names = (*graph.activations(node), node.output)
            known = {name: self._tensors[name].kinds[k] for name, k in zip(names, kinds, strict=True)}
            self._rows.add(key, self._costs(graph, node, known))
            self.priced += 1
        return self._rows.places[key]

    def _costs(self, graph: ExactGraph, node: Node, kinds: Mapping[str, TensorType]) -> NDArray[np.float64]:
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


class ProgramPricer(Pricer):
    """Prices programs: sums over their parts (:class:`qhw.cost.pricing.architecture.Parts`), on whole maps.

    A part is priced once for the types of all its tensors, and for which Requants keep every number that
    reaches them: lowering leaves those out. Memory is no sum: whether maps find room, and by which patches,
    :meth:`settle` asks of the design of a point.

    Args:
        flow: whose programs; others as for :class:`Pricer`, graphs as they are lowered.

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
        pricing = designs[0].architecture.parts
        assert pricing is not None
        self._flow, self._pricing = flow, pricing
        super().__init__([pricing.prepared(graph) for graph in graphs], choices, counts, board, wanted)
        places = {node.name: place for place, node in enumerate(self.graph.nodes)}
        self._parts = [tuple(places[name] for name in part) for part in pricing.split(self.graph)]
        self._names = [self._tensors_of(part) for part in self._parts]
        self._kinds: dict[str, IntArray] = {}
        self._known: dict[tuple[int, ...], int] = {}
        self._costs: list[PartCost | None] = []
        self._shared: dict[str, int] = {}
        self._bytes: list[int] = []
        self._holds: list[list[int]] = []

    def price(self, points: IntArray | Sequence[Point]) -> ProgramCosts:
        chosen = self._chosen_of(points)
        numbers, left_out = self._numbered(chosen)
        rows = np.stack(
            [self._rows_of_part(part, chosen, numbers, left_out) for part in range(len(self._parts))], axis=1
        )
        met, rows = np.unique(rows, return_inverse=True)
        rows = rows.reshape(len(chosen), -1)
        amounts = np.array(
            [
                (np.inf,) * 4 if cost is None else (cost.instructions, cost.cycles, cost.flash, cost.memory)
                for cost in (self._costs[row] for row in met.tolist())
            ]
        )
        instructions, cycles, flash, memory = amounts[rows].sum(axis=1).T
        flash = flash + self._shared_bytes(rows, met.tolist())
        interval = np.maximum(cycles, 1)
        return ProgramCosts(
            usage=flash[:, np.newaxis],
            interval=interval,
            reaches=self._is_fast(interval),
            room=np.array([self.board.capacity["flash"]], dtype=np.float64),
            budget=self.wanted.share,
            instructions=instructions,
            memory=memory,
            has_room=np.ones(len(rows), dtype=np.bool_),
        )

    def settle(self, point: Point) -> ProgramCosts:
        costs = self.price([point])
        if not costs.fits[0] or costs.memory[0] <= self._pricing.room(self.board.capacity, self.wanted.share):
            return costs
        design = self._flow.prepare(self._graph_of(point), self.board, self.wanted.multipliers)
        try:
            figures = estimate(self._flow.best(design, budget=self.wanted.share)).figures
        except CheckFailedError:
            return dataclasses.replace(costs, has_room=np.zeros(1, dtype=np.bool_))
        interval = np.array([figures["interval"]])
        return dataclasses.replace(
            costs,
            usage=np.array([[figures["flash"]]]),
            interval=interval,
            reaches=self._is_fast(interval),
            instructions=np.array([figures["instructions"]]),
        )

    def _is_fast(self, interval: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether intervals are those of the rate that is wanted, or shorter."""
        if self.wanted.fps is None:
            return np.isfinite(interval)
        return np.asarray(self.board.clock_mhz * 1e6 / interval >= self.wanted.fps)

    def _shared_bytes(self, rows: IntArray, met: Sequence[int]) -> NDArray[np.float64]:
        """Bytes of what is there once, of each point's parts together: rows by their places in ``met``."""
        names = [self._holds[row] for row in met]
        ends, held = np.cumsum([0, *map(len, names)]), np.array([*chain(*names)], dtype=np.int64)
        holds = csr_array((np.ones(len(held)), held, ends), shape=(len(met), len(self._bytes)))
        starts = np.arange(0, rows.size + 1, rows.shape[1])
        picked = csr_array((np.ones(rows.size), rows.ravel(), starts), shape=(len(rows), len(met)))
        there = picked @ holds
        there.data[:] = 1
        return np.asarray(there @ np.array(self._bytes, dtype=np.float64))

    def _tensors_of(self, part: Sequence[int]) -> list[str]:
        """The computed tensors that a part reads or makes."""
        nodes = [self.graph.nodes[place] for place in part]
        names = [name for node in nodes for name in (*self.graph.activations(node), node.output)]
        return list(dict.fromkeys(names))

    def _rows_of_part(
        self, part: int, chosen: IntArray, numbers: Mapping[str, IntArray], left_out: IntArray
    ) -> IntArray:
        """The row of cost of a part at each point."""
        names, places = self._names[part], self._parts[part]
        own = [
            chosen[:, of] % len(self.graphs) for of in map(self._own.__getitem__, places) if of is not None
        ]
        kinds = [self._kinds_of(name)[numbers[name]] for name in names]
        cases, where = np.unique(
            np.stack([*kinds, *left_out[:, places].T, *own], axis=1), axis=0, return_inverse=True
        )
        rows = [self._row(part, tuple(case)) for case in cases.tolist()]
        return np.asarray(np.array(rows, dtype=np.int64)[where.reshape(-1)])

    def _kinds_of(self, name: str) -> IntArray:
        """The type of each number of a tensor."""
        kind_of = self._tensors[name].kind_of
        if len(self._kinds.get(name, ())) < len(kind_of):
            self._kinds[name] = np.array(kind_of, dtype=np.int64)
        return self._kinds[name]

    def _row(self, part: int, case: tuple[int, ...]) -> int:
        """The row of cost of a part, its tensors being of some types and its nodes of some variants."""
        key = (part, *case)
        if key not in self._known:
            self._known[key] = len(self._costs)
            try:
                cost = self._pricing.cost(*self._part(part, case), self.board.family)
            except UnsupportedError:  # these types together, which no variant has
                cost = None
            self._costs.append(cost)
            self._holds.append(
                [self._number(*item) for item in ({} if cost is None else cost.shared).items()]
            )
            self.priced += 1
        return self._known[key]

    def _number(self, name: str, size: int) -> int:
        """The number of something that is there once."""
        if name not in self._shared:
            self._shared[name] = len(self._bytes)
            self._bytes.append(size)
        return self._shared[name]

    def _part(self, part: int, case: tuple[int, ...]) -> tuple[ExactGraph, list[str]]:
        """A graph of one part in a case, and those of its tensors that the network gives out."""
        names, places = self._names[part], self._parts[part]
        kinds, case = case[: len(names)], case[len(names) :]
        owning = [place for place in places if self._own[place] is not None]
        graph = self._graph(
            places,
            {name: self._tensors[name].kinds[kind] for name, kind in zip(names, kinds, strict=True)},
            {place for place, is_out in zip(places, case, strict=False) if is_out},
            dict(zip(owning, case[len(places) :], strict=True)),
        )
        made = {node.output for node in graph.nodes}
        elsewhere = {
            name for place, node in enumerate(self.graph.nodes) if place not in places for name in node.inputs
        }
        instead = self._renamed(places, {node.name for node in graph.nodes})
        read = {instead.get(name, name) for name in (*elsewhere, *self.graph.outputs)}
        given_out = [name for name in graph.outputs if name in made]
        inputs = tuple(name for name in names if name not in made and name not in instead)
        outputs = tuple(name for name in names if name in made and name in read)
        return dataclasses.replace(graph, inputs=inputs, outputs=outputs), given_out

    def _renamed(self, places: Sequence[int], kept: Container[str]) -> dict[str, str]:
        """What is read instead of the results of nodes that are left out."""
        instead: dict[str, str] = {}
        for node in (self.graph.nodes[place] for place in places):
            if node.name not in kept:
                instead[node.output] = instead.get(node.inputs[0], node.inputs[0])
        return instead

    def _graph(
        self,
        places: Sequence[int],
        kinds: Mapping[str, TensorType],
        left_out: Container[int],
        options: Mapping[int, int],
    ) -> ExactGraph:
        """A graph of some nodes, each of the variant that is chosen for it, at some types."""
        kept = [place for place in places if place not in left_out]
        instead = self._renamed(places, {self.graph.nodes[place].name for place in kept})
        tensors, constants, nodes = dict(kinds), dict[str, IntArray](), list[Node]()
        for place in kept:
            graph = self.graphs[options.get(place, 0)]
            node = graph.nodes[place]
            nodes.append(
                dataclasses.replace(node, inputs=tuple(instead.get(name, name) for name in node.inputs))
            )
            for name in node.inputs:
                if name in graph.constants:
                    constants[name], tensors[name] = graph.constants[name], graph.tensors[name]
        outputs = tuple(instead.get(name, name) for name in self.graph.outputs)
        return dataclasses.replace(
            self.graph, outputs=outputs, tensors=tensors, constants=constants, nodes=nodes
        )

    def _graph_of(self, point: Point) -> ExactGraph:
        """The graph of a point, as lowering would give it."""
        (numbers, (left_out,)) = self._numbered(np.array([point], dtype=np.int64))
        known = {name: self._tensors[name] for name in numbers}
        return self._graph(
            range(len(self.graph.nodes)),
            {name: known[name].kinds[known[name].kind_of[n[0]]] for name, n in numbers.items()},
            {int(place) for place in np.flatnonzero(left_out)},
            {place: point[of] % len(self.graphs) for place, of in enumerate(self._own) if of is not None},
        )

    def _rows_of(self, place: int, cases: IntArray, found: Sequence[int]) -> list[int]:
        """1 where the node is left out: a Requant that keeps every number that reaches it."""
        node = self.graph.nodes[place]
        if not isinstance(node, ir.Requant):
            return [0] * len(cases)
        (x,), y = node.inputs, self._tensors[node.output]
        joins_ends = x in self.graph.inputs and node.output in self.graph.outputs
        rows = []
        for (number, option), result in zip(cases.tolist(), found, strict=True):
            before, after = self._tensors[x].operand(number), y.kinds[y.kind_of[result]]
            own = self.graphs[option % len(self.graphs)].nodes[place]
            is_same = before.type == after and not joins_ends
            rows.append(int(is_same and keeps_numbers(own, before.type, before.range, after)))
        return rows


def pricer_for(
    graphs: Sequence[ExactGraph],
    choices: Mapping[tuple[str, Kind], int],
    counts: Sequence[int],
    flow: Flow,
    board: Board,
    wanted: Wanted,
) -> Pricer:
    """What prices a flow's points; arguments and errors as for :class:`CircuitPricer`."""
    kind = ProgramPricer if flow.architecture(graphs[0]).parts is not None else CircuitPricer
    return kind(graphs, choices, counts, flow, board, wanted)


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
        kind == "weights" or any(isinstance(g.nodes[place], DECLARING) for g in graphs)
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
    return (bare, *constants, graph.tensors[node.output] if isinstance(node, DECLARING) else None)
