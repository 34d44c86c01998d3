"""Proof that a circuit between streams passes the right words in the right cycles, whatever its ends do.

Both ends stall at random, for long or seldom. In every clock cycle the circuit's valid and ready must be
those of its timing's machine, and what it offers must be the next word of its reference, until it is taken.
Now and then a reset comes in the middle of an image; a new one follows. An end that waits shows other words
meanwhile.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from qhw.errors import CheckFailedError
from qhw.formats.modes import IntArray
from qhw.rtl.base import Port, Ports, StreamUnit, Values
from qhw.rtl.simulation.verilator import Instance, Simulator, Words, pack

CYCLES = 20_000
"""Clock cycles of a proof."""

_PHASE = 97
"""Cycles after which the ends change how often they stall."""

_WILLING = (0.1, 0.5, 0.9, 1.0)
"""How often an end gives or takes a word."""

_RESETS = 1 / 2000
"""Share of cycles in which a reset comes."""


@dataclass(frozen=True)
class StreamCase:
    """A circuit between streams with its parameters, all of them."""

    unit: StreamUnit
    given: Values

    @property
    def values(self) -> dict[str, int]:
        """The parameters, defaults filled in; raises InputError for values out of range."""
        return self.unit.checked(self.given)


@dataclass(frozen=True)
class StreamProof:
    """The result of comparing a simulation with the reference and the timing.

    Args:
        cycles: clock cycles that were compared.
        words: words that were taken from the output.
        differences: cycles in which valid, ready or an offered word differ.
    """

    case: StreamCase
    cycles: int
    words: int
    differences: int

    def __str__(self) -> str:
        settings = (f"{name}={value}" for name, value in self.case.values.items())
        return " ".join([self.case.unit.name, *settings])


@dataclass
class _Trial:
    """What the ends do in every cycle, and what they must see.

    Args:
        given: the inputs, by port and cycle.
        seen: the outputs, by port and cycle.
        compared: which of their elements are compared: what is not offered is not.
    """

    instance: Instance
    given: dict[str, IntArray]
    seen: dict[str, IntArray]
    compared: dict[str, IntArray]
    words: int


def prove_streams(
    cases: Sequence[StreamCase], simulator: Simulator, cycles: int = CYCLES, seed: int = 1
) -> list[StreamProof]:
    """Simulate some circuits in one build, and compare every clock cycle."""
    trials = [_trial(case, cycles, np.random.default_rng([seed, i])) for i, case in enumerate(cases)]
    stimuli = [pack(trial.instance.inputs, trial.given) for trial in trials]
    shown = simulator.run([trial.instance for trial in trials], stimuli, before_edge=True)
    return [
        StreamProof(case, cycles, trial.words, _differences(trial, rows))
        for case, trial, rows in zip(cases, trials, shown, strict=True)
    ]


def check_streams(proofs: Sequence[StreamProof]) -> None:
    """Raise CheckFailedError that names the circuits that differ, if any does."""
    wrong = [f"{proof}: {proof.differences} cycles differ" for proof in proofs if proof.differences]
    if wrong:
        raise CheckFailedError("\n".join(wrong))


def _differences(trial: _Trial, shown: Words) -> int:
    outputs = trial.instance.outputs
    every = {port.name: (1 << port.width) - 1 for port in outputs}
    masks = {name: trial.compared[name].astype(object) * every[name] for name in every}
    mask = pack(outputs, masks)
    return int(((shown ^ pack(outputs, trial.seen)) & mask).any(axis=1).sum())


def _with_ends(case: StreamCase) -> Instance:
    """The instance, with valid and ready beside its words."""
    words = case.unit.ports(case.values)
    branches = words.outputs[0].lanes
    flags = [f"{port.name}_valid" for port in words.inputs]
    given = (Port(port.name, port.bits) for port in words.inputs)
    inputs = (*given, Port("y_ready", 1, branches), *(Port(name, 1) for name in ("reset", *flags)))
    taken = (Port(f"{port.name}_ready", 1) for port in words.inputs)
    ports = Ports(inputs, (*words.outputs, Port("y_valid", 1, branches), *taken), ())
    unit = replace(case.unit, ports=lambda values: ports, emit=case.unit.carrier)
    return Instance(unit, case.values)


def _trial(case: StreamCase, cycles: int, rng: np.random.Generator) -> _Trial:
    instance = _with_ends(case)
    given = {port.name: np.zeros((cycles, port.lanes), dtype=object) for port in instance.inputs}
    seen = {port.name: np.zeros((cycles, port.lanes), dtype=object) for port in instance.outputs}
    compared = {name: np.ones(rows.shape, dtype=bool) for name, rows in seen.items()}
    for port in case.unit.ports(case.values).inputs:
        given[port.name][:, 0] = _drawn(port, cycles, rng)
    given["reset"][:, 0] = rng.random(cycles) < _RESETS
    given["reset"][0] = 1
    begins = np.flatnonzero(given["reset"][:, 0]).tolist()
    words = 0
    for begin, end in zip(begins, [*begins[1:], cycles], strict=True):
        for rows in compared.values():
            rows[begin] = False
        words += _run(case, (begin + 1, end), given, seen, compared, rng)
    return _Trial(instance, given, seen, compared, words)


def _run(
    case: StreamCase,
    between: tuple[int, int],
    given: dict[str, IntArray],
    seen: dict[str, IntArray],
    compared: dict[str, IntArray],
    rng: np.random.Generator,
) -> int:
    """From the end of one reset to the next: the machine runs, and its ends as they like."""
    begin, end = between
    ports = case.unit.ports(case.values)
    names, branches = [port.name for port in ports.inputs], ports.outputs[0].lanes
    image = case.unit.image(case.values)
    images = -(-(end - begin) // min(image)) + 1
    sent = {
        port.name: _drawn(port, images * count, rng).tolist()
        for port, count in zip(ports.inputs, image, strict=True)
    }
    known = case.unit.reference
    expected = known(case.values, sent) if known is not None else None
    machine = case.unit.timing(case.values).machine()
    gives, takes = (_willing(end - begin, count, rng) for count in (len(names), branches))
    offered, passed, got = [False] * len(names), [0] * len(names), [0] * branches
    for cycle in range(begin, end):
        offered = [was or wills for was, wills in zip(offered, gives[cycle - begin], strict=True)]
        ready_out = takes[cycle - begin]
        valid = machine.valid(offered)
        ready = machine.ready(offered, ready_out)
        for at, name in enumerate(names):
            given[f"{name}_valid"][cycle, 0] = int(offered[at])
            seen[f"{name}_ready"][cycle, 0] = int(ready[at])
            if offered[at]:
                given[name][cycle, 0] = sent[name][passed[at]]
        for at in range(branches):
            given["y_ready"][cycle, at] = int(ready_out[at])
            seen["y_valid"][cycle, at] = int(valid[at])
            for port in ports.outputs:
                compared[port.name][cycle, at] = valid[at] and expected is not None
                if valid[at] and expected is not None:
                    seen[port.name][cycle, at] = expected[port.name][got[at]]
            got[at] += valid[at] and ready_out[at]
        machine.clock(offered, ready_out)
        for at in range(len(names)):
            if offered[at] and ready[at]:
                passed[at], offered[at] = passed[at] + 1, False
    return sum(got)


def _willing(cycles: int, ends: int, rng: np.random.Generator) -> list[list[bool]]:
    """Whether each end gives or takes a word, cycle by cycle; how often changes with the phases."""
    often = rng.choice(np.array(_WILLING), (-(-cycles // _PHASE), ends)).repeat(_PHASE, 0)[:cycles]
    return [[bool(flag) for flag in row] for row in rng.random((cycles, ends)) < often]


def _drawn(port: Port, count: int, rng: np.random.Generator) -> IntArray:
    """Random words; of codes that may arrive, if the port says which."""
    if port.codes is not None:
        lanes = rng.choice(port.codes, (count, port.lanes)).astype(object)
        return np.asarray(sum(lanes[:, i] << i * port.width for i in range(port.lanes)))
    parts = rng.integers(0, 1 << 32, (-(-port.bits // 32), count)).astype(object)
    return np.asarray(sum(part << 32 * i for i, part in enumerate(parts)) & ((1 << port.bits) - 1))
