"""The exact schedule of a design: in which clock cycle every word passes, whatever its numbers are.

Every component is a few counters (the machine of its timing, ``rtl/components/``), with the valid and ready
of its Verilog. A simulation of them gives the cycles of an image, the latency, and how full every queue
becomes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qhw.errors import CheckFailedError, ToolMissingError
from qhw.formats.modes import IntArray
from qhw.native import compiled
from qhw.rtl.fifo import Queue, QueueMachine

if TYPE_CHECKING:
    from qhw.flows.rtl.circuit import Circuit


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
