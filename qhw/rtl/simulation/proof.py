"""Proof that a circuit computes what it should: simulated, and compared with the formats' integers.

All codes are tried where the inputs hold 20 bits or less, else random ones with the corners among them;
the pipeline is stopped now and then, with other codes on its inputs meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qhw.errors import CheckFailedError
from qhw.formats.modes import IntArray
from qhw.rtl.base import Control, Port, Streams, Unit, Values
from qhw.rtl.simulation.verilator import Instance, Simulator, Words, pack

EXHAUSTIVE_BITS = 20
"""Bits of input up to which every combination is tried."""

VECTORS = 100_000
"""Random steps where not every combination is tried."""

_INT64_WIDTH = 62
_PHASE = 997
"""Steps after which controls change how often they are 1."""


@dataclass(frozen=True)
class Case:
    """A unit with its parameters, all of them."""

    unit: Unit
    given: Values

    @property
    def instance(self) -> Instance:
        """The instance, defaults filled in; raises InputError for values out of range."""
        return Instance(self.unit, self.unit.checked(self.given))


@dataclass(frozen=True)
class Proof:
    """The result of comparing a simulation with the reference.

    Args:
        vectors: steps whose outputs were compared.
        exhaustive: whether every combination of inputs was among them.
        differences: clock cycles whose outputs differ from the reference.
    """

    instance: Instance
    vectors: int
    exhaustive: bool
    differences: int


@dataclass(frozen=True)
class _Trial:
    """Steps of one instance spread over clock cycles.

    Args:
        streams: the inputs and the expected outputs, by step.
        step_of: the step that each cycle shows the inputs of.
        edges: enabled clock edges up to and with each cycle.
    """

    unit: Unit
    instance: Instance
    streams: dict[str, IntArray]
    step_of: IntArray
    edges: IntArray
    exhaustive: bool

    @property
    def steps(self) -> int:
        return len(next(iter(self.streams.values())))

    def stimuli(self) -> Words:
        by_cycle = {name: stream[self.step_of] for name, stream in self.streams.items() if name != "enable"}
        by_cycle["enable"] = np.diff(self.edges, prepend=0)[:, None]
        return pack(self.instance.inputs, by_cycle)


def prove(cases: Sequence[Case], simulator: Simulator, vectors: int = VECTORS, seed: int = 1) -> list[Proof]:
    """Simulate some units in one build, and compare every clock cycle.

    Args:
        vectors: random steps per unit where its inputs hold more than 20 bits.
    """
    trials = [
        _trial(case.unit, case.instance, vectors, np.random.default_rng([seed, i]))
        for i, case in enumerate(cases)
    ]
    shown = simulator.run([trial.instance for trial in trials], [trial.stimuli() for trial in trials])
    return [_compared(trial, rows) for trial, rows in zip(trials, shown, strict=True)]


def check(proofs: Sequence[Proof]) -> None:
    """Raise CheckFailedError that names the units that differ, if any does."""
    wrong = [f"{proof.instance}: {proof.differences} cycles differ" for proof in proofs if proof.differences]
    if wrong:
        raise CheckFailedError("\n".join(wrong))


def _trial(unit: Unit, instance: Instance, vectors: int, rng: np.random.Generator) -> _Trial:
    ports = unit.ports(instance.values)
    exhaustive = bool(ports.inputs) and _input_bits(ports.inputs) <= EXHAUSTIVE_BITS
    streams = (
        _all_codes(ports.inputs, vectors, rng) if exhaustive else _some_codes(ports.inputs, vectors, rng)
    )
    steps = len(next(iter(streams.values()))) if streams else vectors
    for control in ports.controls:
        streams[control.name] = _ones(control, steps, rng)[:, None]
    enable = next((control for control in ports.controls if control.name == "enable"), None)
    # The outputs of the last step appear at the last edge.
    needed = steps + unit.latency(instance.values) - 1
    edges = np.cumsum(np.ones(needed) if enable is None else _enabled(enable, needed, rng)).astype(np.int64)
    # An enabled cycle after n edges holds the inputs of step n; a stopped cycle, those of any step.
    enabled = np.diff(edges, prepend=0)
    step_of = np.where(enabled, np.minimum(edges - 1, steps - 1), rng.integers(0, steps, len(edges)))
    return _Trial(unit, instance, streams, step_of, edges, exhaustive)


def _input_bits(ports: Sequence[Port]) -> float:
    if any(port.rising for port in ports):
        return math.inf
    return sum(
        port.lanes * (port.width if port.codes is None else math.log2(len(port.codes))) for port in ports
    )


def _all_codes(ports: Sequence[Port], least: int, rng: np.random.Generator) -> dict[str, IntArray]:
    """Every combination of codes in random order, again in others up to the ``least`` steps.

    A unit that sums or stores shows its states only over many steps. Each array has shape (steps, lanes).
    """
    lists = [_codes(port) for port in ports for _ in range(port.lanes)]
    grid = np.stack(np.meshgrid(*lists, indexing="ij"), axis=-1).reshape(-1, len(lists))
    shuffled = np.concatenate([rng.permutation(grid) for _ in range(max(1, -(-least // len(grid))))])
    ends = np.cumsum([port.lanes for port in ports])[:-1]
    return {port.name: part for port, part in zip(ports, np.split(shuffled, ends, axis=1), strict=True)}


def _codes(port: Port) -> IntArray:
    return np.arange(1 << port.width) if port.codes is None else port.codes


def _some_codes(ports: Sequence[Port], steps: int, rng: np.random.Generator) -> dict[str, IntArray]:
    return {port.name: _drawn(port, steps, rng) for port in ports}


def _drawn(port: Port, steps: int, rng: np.random.Generator) -> IntArray:
    shape = (steps, port.lanes)
    if port.codes is not None:
        return np.asarray(rng.choice(port.codes, shape))
    drawn = _numbers(port.width, shape, rng)
    # In some steps all lanes agree, so that sums reach their bounds.
    agreed = np.where(rng.random((steps, 1)) < 1 / 8, drawn[:, :1], drawn)
    if not port.rising:
        return agreed
    flip = 1 << (port.width - 1) if port.signed else 0
    return np.asarray(np.sort(agreed ^ flip, axis=1) ^ flip)


def _numbers(width: int, shape: tuple[int, int], rng: np.random.Generator) -> IntArray:
    """Codes of any size: uniform, small, short (many zeros at the end), and next to powers of two."""
    uniform = _uniform(width, shape, rng)
    mask = (1 << width) - 1
    cut = rng.integers(0, width, shape).astype(uniform.dtype)
    one = np.asarray(uniform * 0 + 1)
    small, short = uniform >> cut, uniform >> cut << cut
    corner = ((one << cut) + rng.integers(-1, 2, shape)) & mask
    inverted = np.where(rng.random(shape) < 0.5, one * mask, one * 0)
    kind = rng.integers(0, 4, shape)
    return np.asarray(np.choose(kind, [uniform, small ^ inverted, short, corner ^ inverted]))


def _uniform(width: int, shape: tuple[int, int], rng: np.random.Generator) -> IntArray:
    if width <= _INT64_WIDTH:
        return rng.integers(0, 1 << width, shape)
    parts = [rng.integers(0, 1 << 32, shape).astype(object) << 32 * i for i in range(-(-width // 32))]
    return np.asarray(sum(parts[1:], parts[0]) & ((1 << width) - 1))


def _ones(control: Control, steps: int, rng: np.random.Generator) -> IntArray:
    """When a control is 1: how often that is changes with the phases."""
    phases = rng.choice(np.array(control.often), -(-steps // _PHASE))
    ones = (rng.random(steps) < np.repeat(phases, _PHASE)[:steps]).astype(np.int64)
    if control.start is not None:
        ones[0] = control.start
    return ones


def _enabled(control: Control, needed: int, rng: np.random.Generator) -> IntArray:
    """Enabled or not by cycle, until ``needed`` cycles were; the last one is."""
    ones = _ones(control, 8 * needed, rng)
    return ones[: int(np.searchsorted(np.cumsum(ones), needed)) + 1]


def _compared(trial: _Trial, shown: Words) -> Proof:
    """Each cycle against the step that left the pipeline last."""
    instance = trial.instance
    expected = _packed_reference(trial.unit, instance, trial.streams)
    behind = trial.edges - trial.unit.latency(instance.values)
    defined = behind >= trial.unit.warm_up(instance.values)
    differ = (shown[defined] != expected[behind[defined]]).any(axis=1)
    return Proof(instance, trial.steps, trial.exhaustive, int(differ.sum()))


def _packed_reference(unit: Unit, instance: Instance, streams: Streams) -> Words:
    reference = dict(unit.reference(instance.values, streams))
    for port in instance.outputs:
        _check_range(instance, port, reference[port.name])
    return pack(instance.outputs, {name: np.asarray(rows) for name, rows in reference.items()})


def _check_range(instance: Instance, port: Port, rows: IntArray) -> None:
    """Check that the reference's numbers fit the port, or the comparison would hide their upper bits."""
    low = -(1 << port.width - 1) if port.signed else 0
    if rows.min() < low or rows.max() >= low + (1 << port.width):
        raise CheckFailedError(
            f"{port.name} of {instance} has {port.width} bits, which do not hold its results"
        )
