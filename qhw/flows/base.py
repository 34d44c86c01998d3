"""The base of every flow: an exact graph and a board become a design; a project flow writes it.

A flow is one package, found by its name: its options and tools as data, its notion of folding, its
architecture, and, for a project flow, what writes and simulates a project. Nothing else names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeAlias, get_args

import numpy as np

from qhw.boards import Board
from qhw.cost import BUDGET, Design, Multipliers, choose_folding
from qhw.cost.pricing.architecture import Architecture, is_priced
from qhw.cost.pricing.hardware import check_multipliers
from qhw.devices import Family
from qhw.errors import InputError, ToolMissingError, UnsupportedError, closest
from qhw.flows import list_flows
from qhw.formats.base import Format
from qhw.formats.modes import IntArray
from qhw.formats.table import TableFormat
from qhw.graph.ir import ExactGraph
from qhw.sim.compare import compare
from qhw.sim.rows import Row, row_of

__all__ = [
    "BoardRun",
    "ChosenWidths",
    "Flow",
    "FlowOption",
    "FlowStage",
    "Project",
    "ProjectFlow",
    "SerialLine",
    "Tool",
    "default_vectors",
    "list_flows",
    "load_flow",
]

Execution = dict[str, IntArray]
"""Mantissas (N, *shape) by tensor name, as the interpreter returns them."""

Trace = Literal["outputs", "all"] | Collection[str]
"""Which tensors a simulation returns: the outputs, everything that the project carries, or the named ones."""

OptionValue: TypeAlias = "str | int | float"

EVERY_MULTIPLIER: tuple[Multipliers, ...] = get_args(Multipliers)


@dataclass(frozen=True)
class FlowOption:
    """A flow's own option, for ``qhw build`` and ``qhw cost``, a TOML file and the Python API.

    Args:
        name: its name in Python and TOML; the command line writes ``-`` for ``_``.
        kind: the type of its value.
        default: the value where none is given.
        help: its effect, in a sentence.
        allowed: its values, where they can be listed.
    """

    name: str
    kind: type[str] | type[int] | type[float]
    default: OptionValue
    help: str
    allowed: tuple[OptionValue, ...] = ()

    def checked(self, given: Any) -> OptionValue:
        """The value, also from its text; raises InputError where it is none of this option's."""
        allowed = ", ".join(map(str, self.allowed)) or self.kind.__name__
        value: Any = given
        if isinstance(given, str):  # only texts are converted: a TOML file says what it means
            with contextlib.suppress(ValueError):
                value = self.kind(given)
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        right = isinstance(value, self.kind) and not isinstance(value, bool)
        if not right or (self.allowed and value not in self.allowed):
            hint = closest(str(given), [str(one) for one in self.allowed]) if self.allowed else None
            raise InputError(f"{self.name} is {given!r}", allowed=allowed, hint=hint)
        found: OptionValue = value
        return found


@dataclass(frozen=True)
class Tool:
    """A program that a flow needs.

    Args:
        program: the command's name.
        purpose: the step that needs it, as the beginning of a sentence.
        how_to_get: the remedy where it is missing.
    """

    program: str
    purpose: str
    how_to_get: str

    def check(self) -> None:
        """Raise ToolMissingError where it is not on the PATH."""
        if shutil.which(self.program) is None:
            raise ToolMissingError(
                f"{self.purpose} needs {self.program}, which is not on the PATH", hint=self.how_to_get
            )


@dataclass(frozen=True)
class Project:
    """A written project.

    Args:
        folder: the project's folder.
        flow: the name of the flow that wrote it.
        name: the name of its top function or module.
        products: files and folders in it that simulation and later stages make: no part of its content.
    """

    folder: Path
    flow: str
    name: str
    products: tuple[str, ...] = ()

    def content_hash(self) -> str:
        """SHA-256 over every file's relative path and bytes, without what simulation or synthesis adds."""
        digest = hashlib.sha256()
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            relative = path.relative_to(self.folder)
            if relative.parts[0] in self.products:
                continue
            digest.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class ChosenWidths:
    """Feature maps of other widths than a graph had.

    Args:
        graph: with these widths.
        record: how they were chosen, as JSON values.
        overrides: the same for training; see :class:`qhw.quant_config.QuantConfig`. None where layers cannot
            have them.
    """

    graph: ExactGraph
    record: Mapping[str, Any]
    overrides: Mapping[str, Mapping[str, str]] | None


@dataclass(frozen=True)
class SerialLine:
    """Where a board is.

    Args:
        port: the device's name: ``/dev/ttyUSB0``, ``COM3``.
        baud: bits a second; None: those of the flow's boards.
        timeout: seconds without an answer that are too many; None: by how long one takes.
    """

    port: str
    baud: int | None = None
    timeout: float | None = None


@dataclass(frozen=True)
class BoardRun:
    """What a board answered.

    Args:
        values: mantissas (N, *shape) of the outputs, by tensor.
        seconds: from the first image's first byte to the last answer's last.
        design: what the board said that it holds.
    """

    values: Execution
    seconds: float
    design: str


@dataclass(frozen=True)
class Synthesis:
    """A synthesis tool's report on a project.

    ``latency_cycles`` and ``interval_cycles`` are the worst case; None where the tool could not tell.
    ``clock_period_ns`` is the tool's estimate.
    """

    tool: str
    lut: int
    ff: int
    dsp: int
    bram18: int
    uram: int
    latency_cycles: int | None
    interval_cycles: int | None
    clock_period_ns: float | None


@dataclass(frozen=True)
class FlowStage:
    """A step after simulation: synthesis, a bitstream, or flashing a device.

    Args:
        name: the stage's name: ``synth``, ``bitstream`` or ``flash``.
        result: the name of its JSON file and of its entry among the build's facts.
        run: runs the stage; returns the result as JSON values, and a summary in a few words.
    """

    name: str
    result: str
    run: Callable[[Project], tuple[Mapping[str, Any], str]]


class Flow(ABC):
    """An architecture that exact graphs are prepared for; found by the name of its package.

    Its keyword arguments are its options.
    """

    name: ClassVar[str]
    options: ClassVar[tuple[FlowOption, ...]] = ()

    def __init__(self, **given: Any) -> None:
        known = {option.name: option for option in self.options}
        for name in given:
            if name not in known:
                raise InputError(
                    f"The {self.name} flow has no option {name!r}",
                    allowed=", ".join(known) or "no option",
                    hint=closest(name, known) if known else None,
                )
        self.chosen = {
            name: option.default if given.get(name) is None else option.checked(given[name])
            for name, option in known.items()
        }

    @abstractmethod
    def takes(self, family: Family) -> bool:
        """Whether it can build for devices of a family."""

    @abstractmethod
    def architecture(self, graph: ExactGraph) -> Architecture:
        """How that graph would be built: its units, legal foldings and timing."""

    def carries(self, format: Format, *, computed: bool = False) -> bool:
        """Whether tensors of a format can be carried at all; every priced format, unless a flow says less.

        Args:
            computed: also as results of layers, which are rounded to it; else only as constants.
        """
        return is_priced(format)

    def rewritten(self, graph: ExactGraph) -> ExactGraph:
        """The graph in the form that is built: exact, and names of what is left are kept."""
        return graph

    @property
    def leaves_channels_out(self) -> bool:
        """Whether channels that are constant by this network's weights may be left out of a design."""
        return True

    @property
    def chooses_widths(self) -> bool:
        """Whether a build has it choose the bits of feature maps, behind lowering."""
        return False

    @property
    def not_searched(self) -> str:
        """Why formats are not searched with the options that are chosen; empty where they are."""
        return ""

    def check_as_given(self) -> None:
        """Refuse what only a build can do, where a graph is priced as it is given.

        Raises:
            InputError: the flow is to choose widths.
        """
        if self.chooses_widths:
            raise InputError(
                f"The {self.name} flow is to choose the bits of feature maps, and has no samples for it",
                hint="use qhw build; 'qhw cost' prices its folder",
            )

    def check(self, design: Design) -> None:
        """Check that every node is carried exactly and has a cost; UnsupportedError names the node."""
        design.check_priced()

    def prepare(self, graph: ExactGraph, board: Board, multipliers: str = "auto") -> Design:
        """The design of a graph on a board, not folded yet; all that is refused is refused here.

        Raises:
            UnsupportedError: a board that the flow cannot build for, or a node that it cannot carry exactly
                or that has no cost model; named, with the layer that it came from.
            InputError: an unknown choice of multipliers.
        """
        check_multipliers(multipliers)
        self.check_board(board)
        built = self.rewritten(graph)
        design = Design(built, board, self.architecture(graph), multipliers)  # type: ignore[arg-type]
        self.check(design)
        return design

    def best(self, design: Design, *, budget: float = BUDGET, fps: float | None = None) -> Design:
        """The design with the best folding that fits its board; see :func:`qhw.cost.choose_folding`."""
        return choose_folding(design, budget=budget, fps=fps)

    def check_board(self, board: Board) -> None:
        """Refuse a board that the flow cannot build for, by name."""
        if self.takes(board.device):
            return
        able = [name for name in list_flows() if load_flow(name).takes(board.device)]
        if not able:
            raise UnsupportedError(
                f"No flow can build for {board.name}, which is a {board.kind} ({board.device.title}), yet",
                allowed="boards of other kinds: see 'qhw boards'",
            )
        raise _other_flow(self.name, board)


def _other_flow(name: str, board: Board) -> UnsupportedError:
    """An error that names the flows which build for a board, or else those that estimate designs on it."""
    flows = [load_flow(other) for other in list_flows()]
    family = board.device
    builders = [flow.name for flow in flows if isinstance(flow, ProjectFlow) and flow.takes(family)]
    priced = [flow.name for flow in flows if flow.takes(family)]
    estimates = (
        f"no flow writes projects for it yet; 'qhw cost --flow {' or '.join(priced)}' estimates designs"
    )
    return UnsupportedError(
        f"The {name} flow cannot build for {board.name}, which has a {family.title}",
        hint=f"use --flow {' or '.join(builders)}" if builders else estimates,
    )


class ProjectFlow(Flow):
    """A flow that writes projects, which can be simulated."""

    tools: ClassVar[tuple[Tool, ...]] = ()
    multipliers: ClassVar[tuple[Multipliers, ...]] = EVERY_MULTIPLIER
    """The choices of multipliers that its projects can state; ``qhw cost`` prices them all."""
    simulation: ClassVar[str] = "C-simulation"
    """What :meth:`simulate` runs, in tables and messages."""
    least_vectors: ClassVar[int] = 128
    """Samples that a build verifies a project on at least, if there are as many."""

    def memory(self, design: Design) -> Mapping[str, Any] | None:
        """Where a design's buffers lie while it runs, as build.json's ``memory`` says; None for circuits."""
        return None

    @property
    def retrain_epochs(self) -> int:
        """Epochs of quantised training with the widths that were chosen; 0: none."""
        return 0

    def with_widths(
        self, graph: ExactGraph, board: Board, samples: Mapping[str, IntArray], budget: float
    ) -> ChosenWidths:
        """The graph with feature maps of other widths.

        Args:
            samples: mantissas (N, *shape) of the inputs, of the training split.
            budget: the share of each of the board's resources that may be used.
        """
        raise UnsupportedError(f"The {self.name} flow builds feature maps as wide as they are given")

    def checked_by(self) -> str:
        """What a simulation runs on, where that depends on this machine.

        Where it changes, codes are compared again.
        """
        return ""

    def check_tools(self) -> None:
        """Raise ToolMissingError where a program or package that it needs is not there."""
        for tool in self.tools:
            tool.check()

    def check_multipliers(self, chosen: str) -> None:
        """Refuse a choice of multipliers that its projects cannot state."""
        check_multipliers(chosen)
        if chosen not in self.multipliers:
            raise UnsupportedError(
                f"The {self.name} flow cannot write projects with multipliers '{chosen}'",
                allowed=", ".join(self.multipliers),
                hint="'qhw cost' estimates designs with any choice",
            )

    @property
    def stages(self) -> tuple[FlowStage, ...]:
        """The steps after simulation, in order."""
        return ()

    @abstractmethod
    def write(self, design: Design, out: Path, *, vectors: Mapping[str, IntArray] | None = None) -> Project:
        """Write the project folder ``out``, beside it first, then renamed.

        Args:
            design: prepared by this flow, with its folding.
            vectors: input mantissas (N, *shape) for the test bench; its expected outputs are interpreted.
        """

    @abstractmethod
    def open(self, folder: Path) -> Project:
        """A project that this flow wrote earlier; InputError where the folder is something else."""

    def sources(self, folder: Path) -> list[str]:
        """The files of a project folder that its simulation is compiled from or reads, relative to it.

        Those that no project of this flow has count too, since a compiler may take them for one that it has.
        """
        products = self.open(folder).products
        files = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
        return [path.as_posix() for path in files if path.parts[0] not in products]

    @abstractmethod
    def compile(self, project: Project) -> float:
        """Build the simulation, unless this user has built it from the same sources; seconds spent."""

    @abstractmethod
    def simulate(
        self,
        project: Project,
        inputs: Mapping[str, IntArray],
        *,
        trace: Trace = "outputs",
        timeout: float | None = None,
    ) -> Execution:
        """Run the project on input mantissas (N, *shape)."""

    def verify(
        self,
        project: Project,
        graph: ExactGraph,
        inputs: Mapping[str, IntArray],
        *,
        tell: Callable[[float | None, str], None],
    ) -> Iterator[tuple[Row, Mapping[str, Any]]]:
        """Compare the project with the exact graph, layer by layer, in one or several simulations.

        Args:
            graph: the lowered graph.
            inputs: mantissas (N, *shape).
            tell: takes the share that is done, or None, and what is being done.

        Yields:
            A row for the manifest, and JSON values for the build's ``verification.json``.
        """
        from qhw.sim.fast import FastExecutor

        got = self.simulate(project, inputs, trace="all")
        expected = FastExecutor(graph)(inputs, keep=set(got))
        comparison = compare(graph, expected, got, names=("exact graph", f"{self.name} {self.simulation}"))
        yield row_of(comparison, len(next(iter(inputs.values())))), {}

    def run_on_board(
        self,
        project: Project,
        inputs: Mapping[str, IntArray],
        line: SerialLine,
        *,
        tell: Callable[[float | None, str], None],
    ) -> BoardRun:
        """Run input mantissas (N, *shape) through the board that holds the project's design.

        Args:
            tell: as for :meth:`verify`.

        Raises:
            UnsupportedError: designs of this flow are behind no serial line.
            InputError: nothing answers at the port, or too little.
            CheckFailedError: the board holds another design.
        """
        own = ProjectFlow.run_on_board
        able = [name for name in list_flows() if getattr(flow_class(name), "run_on_board", own) is not own]
        raise UnsupportedError(
            f"Designs of the {self.name} flow do not answer by a serial line",
            allowed=f"the flow {', '.join(able)}",
        )


def load_flow(name: str, **options: Any) -> Flow:
    """A flow by name, with its options.

    Raises:
        InputError: an unknown flow, or an option that is not its.
    """
    flow: Flow = flow_class(name)(**options)
    return flow


def load_project_flow(name: str, **options: Any) -> ProjectFlow:
    """A flow that writes projects, by name.

    Raises:
        InputError: an unknown flow, or an option that is not its.
        UnsupportedError: a flow that is only priced.
    """
    flow = load_flow(name, **options)
    if not isinstance(flow, ProjectFlow):
        able = [other for other in list_flows() if issubclass(flow_class(other), ProjectFlow)]
        raise UnsupportedError(
            f"qhw estimates designs of the {name} flow, but cannot write its projects yet",
            allowed=f"flows that write projects: {', '.join(able)}",
            hint=f"'qhw cost --flow {name}' estimates a design's resources and rate",
        )
    return flow


def flow_class(name: str) -> type[Flow]:
    """The class of a flow; raises InputError for an unknown one."""
    if name not in list_flows():
        raise InputError(f"There is no flow '{name}'", hint=closest(name, list_flows()))
    found: type[Flow] = importlib.import_module(f"qhw.flows.{name}").flow
    return found


def every_option() -> dict[str, list[tuple[str, FlowOption]]]:
    """The options of all flows, by name: whose they are, and what they are."""
    found: dict[str, list[tuple[str, FlowOption]]] = {}
    for flow in list_flows():
        for option in flow_class(flow).options:
            found.setdefault(option.name, []).append((flow, option))
    return found


def default_vectors(graph: ExactGraph, samples: int = 4) -> dict[str, IntArray]:
    """A few random input mantissas, the same for the same graph."""
    rng = np.random.default_rng(0)
    vectors = {}
    for name in graph.inputs:
        kind, encoding = graph.tensors[name], graph.input_encodings.get(name)
        low, high = kind.format.mantissa_low, kind.format.mantissa_high
        if encoding is not None:
            low, high = (int(bound - encoding.zero_point) for bound in (encoding.low, encoding.high))
        if isinstance(kind.format, TableFormat):
            numbers = kind.format.numbers
            numbers = numbers[(numbers >= low) & (numbers <= high)]
            vectors[name] = rng.choice(numbers, (samples, *kind.shape))
            continue
        vectors[name] = rng.integers(low, high, (samples, *kind.shape), endpoint=True)
    return vectors
