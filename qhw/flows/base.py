"""What every flow offers: an exact graph and a board become a project folder that can be simulated."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import qhw.flows
from qhw.errors import InputError, closest
from qhw.formats.base import Format, UniformFormat
from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph

Execution = dict[str, IntArray]
"""Mantissas (N, *shape) by tensor name, as the interpreter returns them."""

Trace = Literal["outputs", "all"] | Collection[str]
"""Which tensors a simulation returns: the outputs, everything that the project carries, or the named ones."""

BUILD_PRODUCTS = ("csim",)
"""Folders of a project that simulating it creates: no part of its content."""


class BoardLike(Protocol):
    """What a flow needs to know of a board."""

    @property
    def name(self) -> str: ...
    @property
    def part(self) -> str: ...
    @property
    def clock_mhz(self) -> float: ...


@dataclass(frozen=True)
class Project:
    """A written project: its folder, the flow that wrote it, and the top function's name."""

    folder: Path
    flow: str
    name: str

    def content_hash(self) -> str:
        """SHA-256 over every file's relative path and bytes, without what simulation or synthesis adds."""
        digest = hashlib.sha256()
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            relative = path.relative_to(self.folder)
            if relative.parts[0] in (*BUILD_PRODUCTS, f"{self.name}_prj", "logs"):
                continue
            digest.update(f"{relative.as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(path.read_bytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Synthesis:
    """What a synthesis tool reported for a project's top function.

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


class Flow(ABC):
    """Turns an exact graph and a board into a project folder; found by the name of its module."""

    name: ClassVar[str]

    def carries(self, format: Format, *, computed: bool = False) -> bool:
        """Whether tensors of a format can be carried at all: fixed point, unless a flow says more.

        ``computed``: as results of layers, which are rounded to it; not only as constants.
        """
        return isinstance(format, UniformFormat)

    @abstractmethod
    def check(self, graph: ExactGraph, board: BoardLike) -> None:
        """Refuse what the flow cannot carry exactly: UnsupportedError names the node."""

    @abstractmethod
    def io_type_for(self, graph: ExactGraph) -> str:
        """How tensors travel between that graph's layers: ``io_stream`` or ``io_parallel``."""

    @abstractmethod
    def legal_folding(self, graph: ExactGraph) -> dict[str, tuple[int, ...]]:
        """The reuse factors that every foldable node may take, rising, by node name."""

    @abstractmethod
    def write(
        self,
        graph: ExactGraph,
        board: BoardLike,
        folding: Mapping[str, int],
        out: Path,
        *,
        vectors: Mapping[str, IntArray] | None = None,
    ) -> Project:
        """Write the project folder ``out``, beside it first, then renamed.

        Args:
            folding: reuse factor by node name; nodes that are left out are not folded.
            vectors: input mantissas (N, *shape) for the test bench; its expected outputs are interpreted.
        """

    @abstractmethod
    def open(self, folder: Path) -> Project:
        """A project that this flow wrote earlier; InputError where the folder is something else."""

    @abstractmethod
    def compile(self, project: Project) -> float:
        """Build the project's simulation, if its sources changed; seconds spent."""

    @abstractmethod
    def simulate(
        self,
        project: Project,
        inputs: Mapping[str, IntArray],
        *,
        trace: Trace = "outputs",
        timeout: float | None = None,
    ) -> Execution:
        """Run the project on input mantissas (N, *shape), in child processes."""

    @abstractmethod
    def synthesise(self, project: Project) -> Synthesis:
        """Run the vendor's synthesis; ToolMissingError where it is not installed."""


def list_flows() -> list[str]:
    """The names of the flows there are: the packages in ``qhw.flows``."""
    return sorted(module.name for module in pkgutil.iter_modules(qhw.flows.__path__) if module.ispkg)


def load_flow(name: str, **options: Any) -> Flow:
    """A flow by name; ``options`` go to its constructor (``io_type`` for hls4ml)."""
    if name not in list_flows():
        raise InputError(f"there is no flow '{name}'", hint=closest(name, list_flows()))
    flow: Flow = importlib.import_module(f"qhw.flows.{name}").flow(**options)
    return flow
