"""A design while it is written: its circuit so far, and the streams that its tensors travel in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import numpy as np

from qhw.cost.pricing.design import Design
from qhw.errors import UnsupportedError
from qhw.flows.rtl.circuit import Circuit, Component, Element, Setting, Wire, identifier, numbers_of
from qhw.flows.rtl.loading import LOADED
from qhw.flows.rtl.template import PeSimd
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.ir import Node
from qhw.rtl.components import STREAMS
from qhw.rtl.fifo import Queue
from qhw.rtl.shared.memories import BLOCK_RAM, LUT_MEMORY
from qhw.rtl.shared.timing import Timing

STREAM_WORDS = 2
"""Words of the queue in front of a component."""

DEEP_IMAGES = 4
"""Images that a queue where branches meet holds, while it is measured how deep it has to be."""

LUT_WORDS = 64
"""Words up to which a memory is made of LUTs, as :data:`qhw.cost.pricing.hardware.ROM_DEPTH`."""

MEMORIES = "memories"
"""The folder of the memories' words."""


def memory_style(words: int) -> int:
    """How a memory of that many words is made."""
    return LUT_MEMORY if words <= LUT_WORDS else BLOCK_RAM


def refuse(node: Node, why: str, *, allowed: str | None = None, hint: str | None = None) -> NoReturn:
    """Raise UnsupportedError that names the node, and the layer that it came from."""
    source = f" (from {node.source})" if node.source and node.source != node.name else ""
    raise UnsupportedError(
        f"{node.op} '{node.name}'{source} cannot be written in Verilog yet: {why}",
        allowed=allowed,
        hint=hint or "--flow hls4ml or --flow finn may carry it",
    )


def channels_last(shape: Sequence[int]) -> IntArray:
    """The order of a tensor's elements, pixel by pixel, all channels of one after the other."""
    places = np.arange(int(np.prod(shape, dtype=np.int64))).reshape(shape)
    return np.moveaxis(places, 0, -1).reshape(-1) if len(shape) > 1 else places.reshape(-1)


def row_major(shape: Sequence[int]) -> IntArray:
    """The order of a tensor's elements in memory."""
    return np.arange(int(np.prod(shape, dtype=np.int64)))


@dataclass
class Draft:
    """What is written so far.

    Args:
        queues: the depth of queues where branches meet, by component; several images unless given.
    """

    design: Design
    queues: Mapping[str, int] = field(default_factory=dict)
    circuit: Circuit = field(default_factory=Circuit)
    branches: dict[str, list[Wire]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)

    def fold(self, node: Node) -> PeSimd:
        """The folding of a node."""
        fold = self.design.fold_of(node)
        assert isinstance(fold, PeSimd)
        return fold

    def is_absorbed(self, node: Node) -> bool:
        """Whether a node follows the one that it reads without a queue between them."""
        graph = self.design.graph
        source = graph.producer(node.inputs[0])
        if not isinstance(node, ir.Requant) or source is None or isinstance(source, ir.Requant):
            return False
        scalar = all(graph.tensors[name].exponent.is_scalar for name in (node.inputs[0], node.output))
        return scalar and len(graph.consumers(source.output)) == 1

    def name(self, text: str) -> str:
        """A name that nothing else has."""
        base = name = text
        number = 0
        while name in self.names:
            number += 1
            name = f"{base}_{number}"
        self.names.add(name)
        return name

    def label(self, node: Node, what: str = "") -> str:
        """A name for something of a node: its place in the graph, its name, and what it is."""
        base = f"l{self.design.graph.nodes.index(node)}_{identifier(node.name)}"
        return self.name(f"{base}_{what}" if what else base)

    def wire(self, tensor: str, lanes: int, element: Element, order: IntArray) -> Wire:
        """A new stream."""
        return Wire(self.name(f"s_{identifier(tensor)}"), tensor, lanes, element, order)

    def add(
        self,
        module: str,
        inputs: Sequence[Wire],
        output: Wire,
        timing: Timing,
        settings: Mapping[str, Setting] | None = None,
        *,
        name: str,
        node: str = "",
    ) -> Wire:
        """A component with one output."""
        self.circuit.components.append(
            Component(name, module, tuple(inputs), (output,), timing, settings or {}, node)
        )
        return output

    def stream(
        self,
        unit: str,
        inputs: Sequence[Wire],
        output: Wire,
        settings: Mapping[str, Setting],
        *,
        name: str,
        node: str = "",
    ) -> Wire:
        """A component between streams, whose timing follows from its parameters."""
        timing = stream_timing(unit, settings)
        return self.add(unit, inputs, output, timing, settings, name=name, node=node)

    def memory(self, name: str, codes: IntArray, width: int) -> str:
        """A memory's words, of one row of codes each; the Verilog text of its file's name."""
        self.circuit.memories[name] = (width, codes)
        return f'"{MEMORIES}/{name}.mem"'

    @property
    def loads(self) -> bool:
        """Whether weights are loaded; else they are there from the start."""
        return self.design.architecture.options.get("weight_memory") == LOADED

    def loaded_memory(self, module: str, name: str, codes: IntArray, width: int) -> dict[str, str]:
        """A memory of a module that is loaded, of one row of codes for each word: what writes it, as pins."""
        self.circuit.memories[name] = (width, codes)
        names = self.circuit.loaded.setdefault(module, [])
        names.append(name)
        index = len(names) - 1
        return {"write": f"load{index}_write", "target": f"load{index}_address", "x": f"load{index}"}

    def load_ports(self, module: str) -> list[str]:
        """The ports of a module's memories that are loaded."""
        names = self.circuit.loaded.get(module, ())
        return [line for i, name in enumerate(names) for line in self.circuit.weights_of(name).ports(i)]

    # --- streams on their way ------------------------------------------------------------------------

    def give(self, node: Node, wire: Wire) -> None:
        """The stream of a node's result: for each of its readers one."""
        self.carry(node.output, wire)

    def carry(self, tensor: str, wire: Wire) -> None:
        """A tensor's stream, copied for each of its readers and for the graph's output."""
        graph = self.design.graph
        self.circuit.carried[tensor] = wire
        readers = sum(node.inputs.count(tensor) for node in graph.nodes) + (tensor in graph.outputs)
        if readers == 1:
            self.branches[tensor] = [wire]
            return
        copies = [self.wire(tensor, wire.lanes, wire.element, wire.order) for _ in range(readers)]
        name, settings = self.name(f"fork_{identifier(tensor)}"), {"N": readers}
        timing = stream_timing("fork_stream", settings)
        component = Component(name, "fork_stream", (wire,), tuple(copies), timing, settings)
        self.circuit.components.append(component)
        self.branches[tensor] = copies

    def take(self, tensor: str) -> Wire:
        """The stream of a tensor, for one reader."""
        return self.branches[tensor].pop(0)

    def read(
        self,
        node: Node,
        index: int,
        lanes: int,
        order: IntArray | None = None,
        *,
        queue: bool = True,
        via: Callable[[Wire], Wire] = lambda wire: wire,
    ) -> Wire:
        """An input of a node, in words of that many elements, in an order, behind a queue.

        ``via`` comes first: the stream as another one. Where branches meet, each waits for the others, in a
        queue that the schedule measures.
        """
        wire = via(self.take(node.inputs[index]))
        if order is not None:
            wire = self.ordered(wire, order)
        wire = self.geared(wire, lanes)
        name, computed = self.label(node, "queue"), [*self.design.graph.activations(node)]
        if not queue:
            return wire
        return self.queued(wire, name, DEEP_IMAGES * wire.words if len(computed) > 1 else STREAM_WORDS)

    def geared(self, wire: Wire, lanes: int) -> Wire:
        """The same stream in words of that many elements."""
        if wire.lanes == lanes:
            return wire
        settings: dict[str, Setting] = {"A": wire.lanes, "B": lanes, "W": wire.element.width}
        out = self.wire(wire.tensor, lanes, wire.element, wire.order)
        return self.stream("gearbox", [wire], out, settings, name=self.name(f"gear_{wire.name}"))

    def queued(self, wire: Wire, name: str, depth: int = STREAM_WORDS) -> Wire:
        """The stream behind a queue; it is as deep as was measured, if it was."""
        depth = max(self.queues.get(name, depth), STREAM_WORDS)
        style = self.design.costing.hardware.queue_style(depth, wire.bits)
        settings: dict[str, Setting] = {"D": depth, "W": wire.bits, "STYLE": style}
        out = self.wire(wire.tensor, wire.lanes, wire.element, wire.order)
        return self.add("fifo", [wire], out, Queue(depth), settings, name=name)

    def ordered(self, wire: Wire, order: IntArray) -> Wire:
        """The stream in another order: through a memory of the whole image, unless it is the same."""
        if np.array_equal(wire.order, order):
            return wire
        lanes = _common_lanes(wire, order)
        wire = self.geared(wire, lanes)
        place = np.empty(wire.order.size, dtype=np.int64)
        place[wire.order] = np.arange(wire.order.size)
        return self.gathered(wire, place[order[::lanes]] // lanes, order)

    def gathered(self, wire: Wire, words: IntArray, order: IntArray) -> Wire:
        """Some words of the stream's image, in an order of their own."""
        name = self.name(f"gather_{wire.name}")
        out = self.wire(wire.tensor, wire.lanes, wire.element, order)
        bits = max(1, (wire.words - 1).bit_length())
        settings: dict[str, Setting] = {
            "W": wire.bits,
            "D": wire.words,
            "L": len(words),
            "STYLE": memory_style(wire.words),
            "FILE_STYLE": memory_style(len(words)),
            "FILE": self.memory(name, words[:, None], bits),
        }
        return self.stream("gather_stream", [wire], out, settings, name=name)


def stream_timing(unit: str, settings: Mapping[str, Setting]) -> Timing:
    """When words pass through a component between streams."""
    return STREAMS[unit].timing(numbers_of(settings))


def _common_lanes(wire: Wire, order: IntArray) -> int:
    """The most elements of a word that stay together in both orders."""
    for lanes in sorted(_divisors(wire.lanes), reverse=True):
        words = wire.order.reshape(-1, lanes)
        given = {row[0]: row for row in words}
        if all(row[0] in given and np.array_equal(given[row[0]], row) for row in order.reshape(-1, lanes)):
            return lanes
    return 1


def _divisors(number: int) -> list[int]:
    return [factor for factor in range(1, number + 1) if number % factor == 0]
