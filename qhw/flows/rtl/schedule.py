"""The exact schedule of a design: in which clock cycle every word passes, whatever its numbers are.

Every component is a few counters here, with the valid and ready of its Verilog. A simulation of them gives
the cycles of an image, the latency, and how full every queue becomes.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qhw.errors import CheckFailedError, ToolMissingError
from qhw.formats.modes import IntArray
from qhw.native import compiled

if TYPE_CHECKING:
    from qhw.flows.rtl.circuit import Circuit


class Machine(ABC):
    """A component's state between two clock edges.

    Within a cycle ``valid`` is asked first, from the inputs on, then ``ready``, from the outputs back, then
    ``clock``: the edge.
    """

    @abstractmethod
    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        """Which outputs have a word, by which inputs have one."""

    @abstractmethod
    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        """Which inputs are taken, by which inputs have a word and which outputs are taken."""

    @abstractmethod
    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        """The edge: by which inputs had a word, and which outputs were ready."""


class Timing(ABC):
    """When a component takes and gives words.

    ``kind`` and ``numbers`` say it to ``schedule.cpp``.
    """

    kind: ClassVar[int]

    @property
    def flags(self) -> IntArray:
        """Whether each word of an image belongs to a part of it, where that is asked."""
        return np.zeros(0, dtype=np.bool_)

    @property
    @abstractmethod
    def numbers(self) -> tuple[int, ...]:
        """Its parameters as numbers."""

    @abstractmethod
    def machine(self) -> Machine:
        """Its state after a reset."""


@dataclass(frozen=True)
class Queue(Timing):
    """``fifo``: ``depth`` words in the memory, and one in the output register."""

    depth: int

    kind = 0

    @property
    def numbers(self) -> tuple[int, ...]:
        return (self.depth,)

    def machine(self) -> QueueMachine:
        return QueueMachine(self.depth)


class QueueMachine(Machine):
    """Its words; ``most`` is how many lay in the memory at a time."""

    def __init__(self, depth: int) -> None:
        self.depth, self.count, self.shows, self.most = depth, 0, False, 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (self.shows,)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (self.count != self.depth,)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        push = inputs[0] and self.count != self.depth
        if not self.shows or outputs[0]:
            self.shows = self.count != 0
            self.count -= self.shows
        self.count += push
        self.most = max(self.most, self.count)


@dataclass(frozen=True)
class Pipeline(Timing):
    """``pipeline_control``: ``depth`` registers that move together; of several inputs it takes one each."""

    depth: int

    kind = 1

    @property
    def numbers(self) -> tuple[int, ...]:
        return (self.depth,)

    def machine(self) -> PipelineMachine:
        return PipelineMachine(self.depth)


class PipelineMachine(Machine):
    """Which registers hold a word, the last in the lowest bit."""

    def __init__(self, depth: int) -> None:
        self.entry, self.held = 1 << depth, 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (bool(self.held & 1),)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        moves = outputs[0] or not self.held & 1
        if len(inputs) == 1:
            return (moves,)
        both = moves and inputs[0] and inputs[1]
        return both, both

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if outputs[0] or not self.held & 1:
            self.held = (self.held | (self.entry if all(inputs) else 0)) >> 1


@dataclass(frozen=True)
class Gear(Timing):
    """``gearbox``: words of ``a`` elements become words of ``b``."""

    a: int
    b: int

    kind = 2

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.a, self.b

    def machine(self) -> GearMachine:
        return GearMachine(self.a, self.b)


class GearMachine(Machine):
    """Its elements."""

    def __init__(self, a: int, b: int) -> None:
        self.a, self.b, self.count = a, b, 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (self.count >= self.b,)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        if self.a % self.b == 0:
            return (self.count == 0 or (self.count == self.b and outputs[0]),)
        if self.b % self.a == 0:
            return (self.count != self.b or outputs[0],)
        return (self.count <= self.b,)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        push = inputs[0] and self.ready(inputs, outputs)[0]
        pull = self.count >= self.b and outputs[0]
        self.count += self.a * push - self.b * pull


@dataclass(frozen=True, eq=False)
class Masked(Timing):
    """Some words of an image pass; the others are made, or dropped."""

    within: IntArray

    @property
    def numbers(self) -> tuple[int, ...]:
        return (len(self.within),)

    @property
    def flags(self) -> IntArray:
        return self.within


class MaskMachine(Machine):
    """The place in the image."""

    def __init__(self, within: list[bool]) -> None:
        self.within, self.place = within, 0


class Padded(Masked):
    """``pad_stream``: whether each word of an output image comes from the input."""

    kind = 3

    def machine(self) -> PadMachine:
        return PadMachine(self.within.tolist())


class PadMachine(MaskMachine):
    """The place in the output image."""

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (inputs[0] or not self.within[self.place],)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (outputs[0] and self.within[self.place],)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if outputs[0] and self.valid(inputs)[0]:
            self.place = (self.place + 1) % len(self.within)


class Cropped(Masked):
    """``crop_stream``: whether each word of an input image goes to the output."""

    kind = 4

    def machine(self) -> CropMachine:
        return CropMachine(self.within.tolist())


class CropMachine(MaskMachine):
    """The place in the input image."""

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (inputs[0] and self.within[self.place],)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (outputs[0] or not self.within[self.place],)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if inputs[0] and self.ready(inputs, outputs)[0]:
            self.place = (self.place + 1) % len(self.within)


@dataclass(frozen=True)
class Fork(Timing):
    """``fork_stream`` to ``readers``."""

    readers: int

    kind = 5

    @property
    def numbers(self) -> tuple[int, ...]:
        return (self.readers,)

    def machine(self) -> ForkMachine:
        return ForkMachine(self.readers)


class ForkMachine(Machine):
    """Which readers have taken the word."""

    def __init__(self, readers: int) -> None:
        self.taken = [False] * readers

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return [inputs[0] and not taken for taken in self.taken]

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (all(taken or out for taken, out in zip(self.taken, outputs, strict=True)),)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if not inputs[0]:
            return
        done = [taken or out for taken, out in zip(self.taken, outputs, strict=True)]
        self.taken = [False] * len(done) if all(done) else done


@dataclass(frozen=True)
class Joined(Timing):
    """``interleave``: ``a`` words of the first stream, then ``b`` of the second."""

    a: int
    b: int

    kind = 6

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.a, self.b

    def machine(self) -> JoinMachine:
        return JoinMachine(self.a, self.b)


class JoinMachine(Machine):
    """The place in a round."""

    def __init__(self, a: int, b: int) -> None:
        self.a, self.round, self.place = a, a + b, 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (inputs[self.place >= self.a],)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        first = self.place < self.a
        return outputs[0] and first, outputs[0] and not first

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        if outputs[0] and inputs[self.place >= self.a]:
            self.place = (self.place + 1) % self.round


@dataclass(frozen=True)
class Gathered(Timing):
    """``gather_stream``: ``taken`` words in, then ``given`` words out."""

    taken: int
    given: int

    kind = 7

    @property
    def numbers(self) -> tuple[int, ...]:
        return self.taken, self.given

    def machine(self) -> GatherMachine:
        return GatherMachine(self.taken, self.given)


class GatherMachine(Machine):
    """Its counters and flags, as in the module."""

    def __init__(self, taken: int, given: int) -> None:
        self.words, self.length = taken, given
        self.taken = self.given = 0
        self.full = self.reading = self.closing = False
        self.held = [False, False]

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        return (self.held[1],)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (not self.full,)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        enable = outputs[0] or not self.held[1]
        write, step = inputs[0] and not self.full, enable and self.reading
        if enable:
            self.held = [self.reading, self.held[0]]
        if enable and self.closing:
            self.closing = self.full = False
        if write:
            self.taken = (self.taken + 1) % self.words
            if self.taken == 0:
                self.full = self.reading = True
        if step:
            self.given = (self.given + 1) % self.length
            if self.given == 0:
                self.reading, self.closing = False, True


@dataclass(frozen=True)
class Window:
    """The loops of ``sliding_window``, by the names of its parameters."""

    M: int
    N: int
    C: int
    KM: int = 1
    KN: int = 1
    SM: int = 1
    SN: int = 1
    DM: int = 1
    DN: int = 1
    OM: int = 1
    ON: int = 1
    G: int = 1
    F: int = 1

    @property
    def span(self) -> int:
        """Words from a window's first to its last."""
        return ((self.KM - 1) * self.DM * self.N + (self.KN - 1) * self.DN + 1) * self.C

    @property
    def reads(self) -> int:
        """Words that are read at a place."""
        return self.KM * self.KN * self.C * self.F

    @property
    def released(self) -> tuple[int, int, int]:
        """Words that are done with behind a place, a row of places, and an image."""
        side = self.SN * self.C
        rest = self.M * self.N * self.C - (self.OM - 1) * self.SM * self.N * self.C - (self.ON - 1) * side
        return side, self.SM * self.N * self.C - (self.ON - 1) * side, rest


@dataclass(frozen=True)
class Folded(Timing):
    """``sliding_window`` and ``layer_control`` behind it.

    Args:
        window: its loops.
        depth: words of its memory.
        sum_words: words of a sum.
        edges: from a word to the numbers that it ends.
    """

    window: Window
    depth: int
    sum_words: int
    edges: int

    kind = 8

    @property
    def numbers(self) -> tuple[int, ...]:
        window = self.window
        loops = (window.reads, window.ON, window.OM, *window.released)
        return self.depth, window.span, self.sum_words, self.edges, *loops

    def machine(self) -> FoldedMachine:
        return FoldedMachine(self)


class FoldedMachine(Machine):
    """The window's level and place, and what is on its way to the outputs."""

    def __init__(self, timing: Folded) -> None:
        window = timing.window
        self.depth, self.span, self.sum_words = timing.depth, window.span, timing.sum_words
        self.reads, self.columns, self.rows = window.reads, window.ON, window.OM
        self.released = window.released
        self.entry, self.flight = 1 << timing.edges, 0
        self.level = self.word = self.column = self.row = self.in_sum = 0

    def valid(self, inputs: Sequence[bool]) -> Sequence[bool]:
        goes = self.level >= self.span or self.in_sum == 0
        return (goes and bool(self.flight & 1),)

    def ready(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> Sequence[bool]:
        return (self.level < self.depth,)

    def clock(self, inputs: Sequence[bool], outputs: Sequence[bool]) -> None:
        there = self.level >= self.span
        write = inputs[0] and self.level < self.depth
        if (there or self.in_sum == 0) and (outputs[0] or not self.flight & 1):
            ends = False
            if there:
                self.in_sum += 1
                ends = self.in_sum == self.sum_words
                if ends:
                    self.in_sum = 0
                self._read()
            self.flight = (self.flight | (self.entry if ends else 0)) >> 1
        self.level += write

    def _read(self) -> None:
        self.word += 1
        if self.word < self.reads:
            return
        self.word, last = 0, self.column == self.columns - 1
        bottom = self.row == self.rows - 1
        self.level -= self.released[last + (last and bottom)]
        self.column = 0 if last else self.column + 1
        if last:
            self.row = 0 if bottom else self.row + 1


@dataclass(frozen=True)
class Schedule:
    """What a design's schedule says.

    Args:
        latency: clock cycles from an image's first word in to its last word out, the first image of a run.
        interval: clock cycles between the last words of two images, in a long run.
        most: by queue, how many words lay in its memory at a time.
    """

    latency: int
    interval: int
    most: Mapping[str, int]


_KERNEL = Path(__file__).with_name("schedule.cpp")
_NUMBERS = 16


def scheduled(circuit: Circuit, images: int = 4) -> Schedule:
    """The schedule of a circuit whose ends never wait: in C++ where there is a compiler.

    Raises CheckFailedError where the circuit gets stuck.
    """
    try:
        library = compiled(_KERNEL).load()
    except ToolMissingError:
        return interpreted(circuit, images)
    return _by_kernel(library, circuit, images)


def _by_kernel(library: ctypes.CDLL, circuit: Circuit, images: int) -> Schedule:
    place = {wire.name: index for index, wire in enumerate(circuit.wires)}
    parts = circuit.components
    numbers = np.zeros((len(parts), _NUMBERS), dtype=np.int64)
    for row, component in zip(numbers, parts, strict=True):
        row[: len(component.timing.numbers)] = component.timing.numbers
    within = [np.asarray(component.timing.flags, dtype=np.uint8) for component in parts]
    joined = [[place[wire.name] for wire in (*c.inputs, *c.outputs)] for c in parts]
    begin, ends = np.zeros(1, dtype=np.int64), np.zeros(images, dtype=np.int64)
    most = np.zeros(len(parts), dtype=np.int64)
    arrays = {
        "kinds": [component.timing.kind for component in parts],
        "at": np.cumsum([0, *(len(flags) for flags in within)]),
        "wires": [index for row in joined for index in row],
        "starts": np.cumsum([0, *(len(row) for row in joined)]),
        "inputs_of": [len(component.inputs) for component in parts],
        "input_wires": [place[wire.name] for wire in circuit.inputs],
        "input_words": [wire.words for wire in circuit.inputs],
        "output_wires": [place[wire.name] for wire in circuit.outputs],
        "output_words": [wire.words for wire in circuit.outputs],
    }
    given = {name: np.ascontiguousarray(array, dtype=np.int64) for name, array in arrays.items()}
    flags = np.concatenate([*within, np.zeros(1, dtype=np.uint8)])

    def at(array: IntArray) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    def count(number: int) -> ctypes.c_int64:
        return ctypes.c_int64(number)

    stuck = library.schedule(
        *(count(len(parts)), at(given["kinds"]), at(numbers), at(flags), at(given["at"])),
        *(at(given["wires"]), at(given["starts"]), at(given["inputs_of"]), count(len(place))),
        *(count(len(circuit.inputs)), at(given["input_wires"]), at(given["input_words"])),
        *(count(len(circuit.outputs)), at(given["output_wires"]), at(given["output_words"])),
        *(count(images), count(_LONGEST_QUIET), at(begin), at(ends), at(most)),
    )
    if stuck:
        raise CheckFailedError(_STUCK)
    held = {c.name: int(n) for c, n in zip(parts, most, strict=True) if isinstance(c.timing, Queue)}
    return _schedule(int(begin[0]), [int(end) for end in ends], held)


def _schedule(begin: int, ends: Sequence[int], most: Mapping[str, int]) -> Schedule:
    interval = ends[-1] - ends[-2] if len(ends) > 1 else ends[-1] - begin
    return Schedule(ends[0] - begin, interval, most)


def interpreted(circuit: Circuit, images: int = 4) -> Schedule:
    """The same schedule, by the machines in Python."""
    machines = [component.timing.machine() for component in circuit.components]
    place = {wire.name: index for index, wire in enumerate(circuit.wires)}
    reads = [[place[wire.name] for wire in component.inputs] for component in circuit.components]
    writes = [[place[wire.name] for wire in component.outputs] for component in circuit.components]
    valid, ready = [False] * len(place), [False] * len(place)
    joined = list(zip(machines, reads, writes, strict=True))
    backwards = joined[::-1]
    ins = [(place[wire.name], wire.words * images) for wire in circuit.inputs]
    outs = [(place[wire.name], wire.words) for wire in circuit.outputs]
    given, got = [0] * len(ins), [0] * len(outs)
    ends: list[int] = []
    begin, cycle, quiet = None, 0, 0
    for index, _ in outs:
        ready[index] = True
    while len(ends) < images:
        for number, (index, total) in enumerate(ins):
            valid[index] = given[number] < total
        for machine, sources, targets in joined:
            for index, flag in zip(targets, machine.valid([valid[i] for i in sources]), strict=True):
                valid[index] = flag
        for machine, sources, targets in backwards:
            flags = machine.ready([valid[i] for i in sources], [ready[i] for i in targets])
            for index, flag in zip(sources, flags, strict=True):
                ready[index] = flag
        moved = False
        for number, (index, _) in enumerate(ins):
            if valid[index] and ready[index]:
                begin = cycle if begin is None else begin
                given[number] += 1
                moved = True
        for number, (index, words) in enumerate(outs):
            if valid[index]:
                got[number] += 1
                moved = True
                if number == 0 and got[0] % words == 0:
                    ends.append(cycle)
        for machine, sources, targets in joined:
            machine.clock([valid[i] for i in sources], [ready[i] for i in targets])
        cycle += 1
        quiet = 0 if moved else quiet + 1
        if quiet > _LONGEST_QUIET:
            raise CheckFailedError(_STUCK)
    assert begin is not None
    most = {
        component.name: machine.most
        for component, machine in zip(circuit.components, machines, strict=True)
        if isinstance(machine, QueueMachine)
    }
    return _schedule(begin, ends, most)


_STUCK = "the schedule is stuck: no word enters or leaves the design any more"

_LONGEST_QUIET = 10_000_000
"""Cycles without a word at the ends after which a design counts as stuck."""
