"""What a unit is: a circuit with its parameters, ports and meaning, and what it takes of a device.

The circuit of a measured unit lies in ``cost_models/rtl``. Its LUTs are a weighted sum of counts of
structure. Where a bit is known to take one LUT the weight comes out at 1; the weights are fitted to measured
circuits, and kept in ``cost_models/<family>/model.json``. Flip-flops, DSP slices and memories follow from the
circuit and have no fitted weight. A component's circuit lies beside its file in ``components/``; all that it
takes is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from qhw.errors import InputError, closest
from qhw.formats.modes import IntArray
from qhw.resources import resource_dir

if TYPE_CHECKING:
    from qhw.rtl.shared.counting import Counting, Taken
    from qhw.rtl.shared.timing import Timing

Values: TypeAlias = "Mapping[str, int]"
"""The value of every parameter, by name."""

Streams: TypeAlias = "Mapping[str, IntArray]"
"""One array of shape (steps, lanes) by the name of a port: the codes (input) or numbers (output)."""

Words: TypeAlias = "Mapping[str, Sequence[int]]"
"""The words of a stream, one after the other, by the name of a port."""

Features: TypeAlias = "dict[str, float]"
"""Counts of structure, by what is counted."""

Bound: TypeAlias = "int | Callable[[Values], int]"
"""A bound, or how it follows from the parameters before."""


@dataclass(frozen=True)
class Parameter:
    """An integer parameter of a unit, from low to high; with a default it may be left out."""

    name: str
    low: int
    high: int
    meaning: str
    default: int | None = None

    @property
    def allowed(self) -> str:
        """The range in words."""
        return f"{self.low} to {self.high}"


@dataclass(frozen=True)
class Port:
    """A data port: ``lanes`` elements of ``width`` bits, the first in the lowest bits.

    Args:
        signed: whether its elements are two's complement.
        codes: the only codes that may arrive at an input; None: all of them.
        rising: whether an element of an input is never less than the one before it.
    """

    name: str
    width: int
    lanes: int = 1
    signed: bool = False
    codes: IntArray | None = None
    rising: bool = False

    @property
    def bits(self) -> int:
        """Bits of all lanes together."""
        return self.width * self.lanes


@dataclass(frozen=True)
class Control:
    """A one-bit input.

    Args:
        often: the shares of clock cycles in which it is 1 in a simulation, which changes between them.
        start: its value in the first step.
    """

    name: str
    often: tuple[float, ...] = (0.5,)
    start: int | None = None


ENABLE = Control("enable", (1.0, 0.9, 0.3))
"""Stops every register while it is 0."""

FIRST = Control("first", (0.01, 0.2), start=1)
"""The product that comes in with it starts a new sum."""


@dataclass(frozen=True)
class Ports:
    """Inputs and outputs of a unit whose parameters are set, beside ``clk``."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    controls: tuple[Control, ...] = (ENABLE,)


COMPONENTS_FOLDER = Path(__file__).parent / "components"
"""Verilog of the components, beside their files."""


def verilog_files() -> dict[str, Path]:
    """The files of all units and components, and of what they are built of, by module."""
    folders = resource_dir("cost_models") / "rtl", COMPONENTS_FOLDER
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.v"))}


@dataclass(frozen=True, kw_only=True)
class Module:
    """A circuit with its parameters and ports.

    Args:
        name: also the name of its Verilog module.
        summary: its description, one line.
        ranges: its parameters, in order; all of them integers.
        sources: its files, by module, what they need first.
        ports: its ports, from the values of its parameters.
        rule: raises InputError for values that do not go together.
        memories: whether its arrays are meant to become memories.
        srl: whether its shift registers are meant to become SRL cells.
        emit: makes the Verilog where parameters do not suffice.
        constants: the words of its memory of constants, as proofs fill it; its parameter FILE names the file.
    """

    name: str
    summary: str
    ranges: tuple[Parameter, ...]
    sources: tuple[str, ...]
    ports: Callable[[Values], Ports]
    rule: Callable[[Values], None] = lambda values: None
    memories: bool = False
    srl: bool = False
    emit: Callable[[Values], str] | None = None
    constants: Callable[[Values], Sequence[int]] | None = None

    @property
    def top(self) -> str:
        """The Verilog module."""
        return self.name

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of its parameters, in order."""
        return tuple(parameter.name for parameter in self.ranges)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that a tool reads, in order."""
        found = verilog_files()
        return tuple(found[source] for source in self.sources)

    def source(self, given: Values) -> str:
        """The Verilog of the unit and of everything it needs.

        Raises InputError for values out of range.
        """
        values = self.checked(given)
        text = "\n".join(file.read_text() for file in self.files)
        return text + self.emit(values) if self.emit else text

    def overrides(self, given: Values) -> dict[str, int]:
        """The parameters to set on the module; none where the source holds them already."""
        return {} if self.emit else self.checked(given)

    def checked(self, given: Values) -> dict[str, int]:
        """Every parameter's value, defaults filled in, in order.

        Raises InputError: an unknown, missing or out-of-range parameter, or a combination that is none.
        """
        for name in given:
            if name not in self.parameters:
                raise InputError(
                    f"{self.name} has no parameter {name!r}", hint=closest(name, self.parameters)
                )
        values = {parameter.name: self._value(parameter, given) for parameter in self.ranges}
        self.rule(values)
        return values

    def _value(self, parameter: Parameter, given: Values) -> int:
        value = given.get(parameter.name, parameter.default)
        where = f"{parameter.name} of {self.name} ({parameter.meaning})"
        if value is None:
            raise InputError(f"{where} is missing", allowed=parameter.allowed)
        if isinstance(value, bool) or not isinstance(value, int | np.integer):
            raise InputError(f"{where} must be an integer, not {value!r}", allowed=parameter.allowed)
        if not parameter.low <= value <= parameter.high:
            raise InputError(f"{where} is {value}", allowed=parameter.allowed)
        return int(value)


@dataclass(frozen=True, kw_only=True)
class Unit(Module):
    """A circuit, and what it must compute in every clock cycle.

    Args:
        latency: clock edges from an input to the output it first shows in.
        reference: maps codes on the inputs (one row per enabled clock edge; controls are inputs of one bit)
            to the numbers that the outputs show ``latency`` edges on.
        warm_up: steps after which every output is defined.
    """

    latency: Callable[[Values], int]
    reference: Callable[[Values, Streams], Streams]
    warm_up: Callable[[Values], int] = lambda values: 0


@dataclass(frozen=True, kw_only=True)
class CountedUnit(Unit):
    """A unit of streams and lanes that designs are composed of; it is counted, not measured.

    Args:
        counted: what it takes of a device, from the values of its parameters.
        samples: the designs that are simulated, the smallest first.
    """

    counted: Callable[[Values, Counting], Taken]
    samples: tuple[Values, ...]


@dataclass(frozen=True, kw_only=True)
class StreamUnit(Module):
    """A circuit between streams with valid and ready: what words come out for those that go in, and when.

    An input ``x`` has ports ``x``, ``x_valid`` and ``x_ready``. The output is ``y``; where several readers
    take it, ``y_valid`` and ``y_ready`` have a bit for each, and ``y`` a lane.

    Args:
        ports: the streams' words alone; what is output beside ``y`` goes with it.
        image: words of an image on each input, in order.
        reference: the words of whole images that come out, by output port, from those that go in, by input;
            None where only their cycles are known.
        timing: when words pass.
        samples: the designs that are simulated, the smallest first.
        carrier: the Verilog of a module of the same name with all ports, where the circuit has only valid and
            ready, and the words pass beside it.
    """

    image: Callable[[Values], tuple[int, ...]]
    reference: Callable[[Values, Words], Words] | None
    timing: Callable[[Values], Timing]
    samples: tuple[Values, ...]
    carrier: Callable[[Values], str] | None = None


@dataclass(frozen=True, kw_only=True)
class CountedStream(StreamUnit):
    """A circuit between streams that designs are composed of; it is counted, not measured.

    Args:
        counted: what it takes of a device, from the values of its parameters.
    """

    counted: Callable[[Values, Counting], Taken]


def _none(values: Values) -> int:
    return 0


def _no_memory(values: Values, family: str) -> int:
    return 0


@dataclass(frozen=True)
class ClosedForms:
    """The resources of one unit in a family of devices, from the values of its parameters.

    Args:
        features: counts of structure that its LUTs are fitted to.
        flip_flops: its flip-flops.
        dsp: its DSP slices.
        bram18: block RAMs of 18 Kb (ECP5: DP16KD) in a family of devices.
        uram: UltraRAMs.
    """

    features: Callable[[Values], Features]
    flip_flops: Callable[[Values], int]
    dsp: Callable[[Values], int] = _none
    bram18: Callable[[Values, str], int] = _no_memory
    uram: Callable[[Values, str], int] = _no_memory


OWN_DSP = -1
"""Among the choices of an axis: stands for the DSP slice of the family."""


@dataclass(frozen=True)
class Axis:
    """One parameter: an integer from low to high, whose bounds may follow from the parameters before it.

    ``choices`` in place of bounds: one of these.
    """

    name: str
    low: Bound = 0
    high: Bound = 0
    choices: tuple[int, ...] = ()

    def at(self, fraction: float, values: Values) -> int:
        """The value at a fraction of the way, 0 <= fraction < 1."""
        if self.choices:
            return self.choices[int(fraction * len(self.choices))]
        low, high = _bound(self.low, values), _bound(self.high, values)
        return low + int(fraction * (max(high, low) - low + 1))


def _bound(bound: Bound, values: Values) -> int:
    return bound(values) if callable(bound) else bound


@dataclass(frozen=True)
class Space:
    """The designs of a unit that are measured.

    Args:
        place: the unit's place in the measured sets, one of its own; a new unit comes last.
        points: how many designs.
        axes: its parameters, in order.
    """

    place: int
    points: int
    axes: tuple[Axis, ...]


@dataclass(frozen=True, kw_only=True)
class MeasuredUnit(Unit):
    """A unit whose price is fitted to measured designs.

    Args:
        space: the designs that are measured.
        closed_forms: its resources in a family of devices.
        energy_pj: energy of one cycle, relative; comparisons and shifts count as additions of as many bits.
            None where it is not known: of constants, what is added up is known only for given ones.
    """

    space: Space
    closed_forms: Callable[[str], ClosedForms]
    energy_pj: Callable[[Values], float] | None = None
