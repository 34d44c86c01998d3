"""What can run a model: a QONNX file or a build folder, by one of several backends, or a saved trace."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.arrays import read_array
from qhw.errors import InputError, QhwError, closest
from qhw.pipeline.stages import MARKER

if TYPE_CHECKING:
    from qhw.data import Dataset
    from qhw.formats.modes import IntArray
    from qhw.graph.ir import ExactGraph
    from qhw.sim.fast import FastExecutor

BACKENDS = {
    "exact": "the exact graph, by the fast executor",
    "interpreter": "the exact graph, by the interpreter that defines it",
    "qonnx": "the QONNX file, by qonnx itself",
    "csim": "the C-simulation of a build folder's project",
}


@dataclass(frozen=True)
class Target:
    """A model, and what runs it.

    Args:
        given: as the user wrote it.
        path: a QONNX file or a build folder.
        backend: one of ``BACKENDS``.
    """

    given: str
    path: Path
    backend: str

    @property
    def name(self) -> str:
        """What messages call it: the path and the backend."""
        return f"{self.path}@{self.backend}"

    @cached_property
    def model_file(self) -> Path:
        """The QONNX file."""
        return self.path / "model.onnx" if self.path.is_dir() else self.path

    @cached_property
    def graph(self) -> ExactGraph:
        """The exact graph: a build folder's own, or lowered now."""
        from qhw.graph.lower import lower
        from qhw.graph.serialize import load_graph

        if (self.path / "graph").is_dir():
            return load_graph(self.path / "graph")
        with _naming(self.model_file):
            return lower(self.model_file)

    @cached_property
    def _executor(self) -> FastExecutor:
        from qhw.sim.fast import FastExecutor

        return FastExecutor(self.graph)

    def run(self, inputs: Mapping[str, NDArray[Any]], keep: str = "all") -> dict[str, IntArray]:
        """Mantissas (N, *shape) by tensor name, for inputs as a user has them.

        Args:
            keep: "outputs", or "all" layers that the backend can show.
        """
        from qhw.graph.encode import encode_inputs

        mantissas = encode_inputs(self.graph, dict(inputs))
        return mantissas | self._run(inputs, mantissas, keep)

    def _run(
        self, inputs: Mapping[str, NDArray[Any]], mantissas: dict[str, IntArray], keep: Any
    ) -> dict[str, IntArray]:
        if self.backend == "csim":
            return self._simulate_project(mantissas, keep)
        if self.backend == "qonnx":
            from qhw.pipeline.verification import execute_qonnx

            return execute_qonnx(self.graph, self.model_file, inputs)
        if self.backend == "interpreter":
            from qhw.graph.interpreter import interpret

            return interpret(self.graph, mantissas, keep=keep)
        return self._executor(mantissas, keep=keep)

    def _simulate_project(self, mantissas: dict[str, IntArray], keep: Any) -> dict[str, IntArray]:
        from qhw.flows.base import load_flow
        from qhw.pipeline.build_stages import open_project
        from qhw.pipeline.manifest import read

        flow = load_flow(read(self.path)["flow"]["name"])
        return flow.simulate(open_project(flow, self.path), mantissas, trace=keep)


def find_target(given: str | Path, backend: str | None = None) -> Target:
    """A QONNX file or a build folder; ``@backend`` at its end says what runs it.

    Without one, a QONNX file is run as its exact graph, and so is a build folder.

    Raises:
        InputError: no such file or folder, an unknown backend, or one that this target has not.
    """
    text = str(given)
    path, _, suffix = text.rpartition("@")
    if not path or Path(text).exists():
        path, suffix = text, ""
    chosen = suffix or backend or "exact"
    if chosen not in BACKENDS:
        raise InputError(
            f"Unknown backend {chosen!r} for {path}",
            allowed="; ".join(f"{name} ({meaning})" for name, meaning in BACKENDS.items()),
            hint=closest(chosen, BACKENDS),
        )
    place = Path(path)
    _check_place(place, path)
    if chosen == "csim" and not place.is_dir():
        raise InputError(f"{path} is a file: it has no project to simulate", hint="give a build folder")
    return Target(text, place, chosen)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts a file's name before what is said to be wrong in it: there may be two of them."""
    try:
        yield
    except QhwError as error:
        if str(path) not in error.message:
            error.message = f"{path}: {error.message}"
        raise


def _check_place(place: Path, path: str) -> None:
    if place.is_dir() and not (place / MARKER).is_dir():
        raise InputError(f"{path} is not a build folder", hint="give a folder that qhw build has written")
    if not place.exists():
        hint = "give a QONNX file or a build folder"
        if "/" not in path and not path.endswith(".onnx"):
            hint += f"; a built-in model is built first: qhw build {path} --board ultra96"
        raise InputError(f"{path} does not exist", hint=hint)


def choose_inputs(
    graph: ExactGraph,
    *,
    data: str | Dataset | None = None,
    inputs: Any = None,
    samples: int | None = None,
) -> tuple[dict[str, Any], NDArray[np.int64] | None]:
    """Samples for a graph, and their labels if they have any.

    Args:
        data: a data set, of which the test split is taken.
        inputs: an array (N, ...), a path to a .npy file, or a dict of arrays by input name.
        samples: take only the first so many.

    Raises:
        InputError: both are given, neither fits the graph, or there are no samples; random samples stand in
            for neither.
    """
    from qhw.pipeline.build_stages import RANDOM_VECTORS, random_inputs
    from qhw.pipeline.data_choice import choose_data

    if data is not None and inputs is not None:
        raise InputError("Both a data set and inputs are given", hint="give one of them")
    labels = None
    if data is not None:
        dataset = choose_data(data).dataset
        arrays, labels = _by_name(graph, dataset.test_x), dataset.test_y[:samples]
    elif inputs is not None:
        arrays = _by_name(graph, read_array(Path(inputs)) if isinstance(inputs, str | Path) else inputs)
    else:
        arrays = random_inputs(graph, samples or RANDOM_VECTORS)
    _check_counts(arrays)
    return {name: array[:samples] for name, array in arrays.items()}, labels


def _check_counts(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays without samples, and inputs with unlike numbers of them."""
    for name, array in arrays.items():
        if array.ndim == 0:
            raise InputError(f"input '{name}' is a single number", allowed="a batch, (N, ...)")
        if len(array) == 0:
            raise InputError(f"input '{name}' holds no samples", allowed="a batch, (N, ...), N from 1")
    if len({len(array) for array in arrays.values()}) > 1:
        counts = ", ".join(f"'{name}' {len(array)}" for name, array in arrays.items())
        raise InputError(f"The inputs hold unlike numbers of samples: {counts}")


def inputs_of_trace(graph: ExactGraph, trace: Mapping[str, IntArray]) -> dict[str, NDArray[Any]]:
    """The graph's inputs in a trace, as a user would give them.

    Raises:
        InputError: the trace lacks one.
    """
    inputs = {}
    for name in graph.inputs:
        if name not in trace:
            raise InputError(
                f"The trace has no input {name!r}", allowed=f"its tensors: {', '.join(list(trace)[:8])}"
            )
        encoding = graph.input_encodings.get(name)
        if encoding is None or encoding.exact:
            inputs[name] = trace[name] + (int(encoding.zero_point) if encoding else 0)
        else:
            inputs[name] = trace[name].astype(np.float32) * np.float32(encoding.unit)
    return inputs


def _by_name(graph: ExactGraph, arrays: Any) -> dict[str, NDArray[Any]]:
    if isinstance(arrays, Mapping):
        return {name: np.asarray(array) for name, array in arrays.items()}
    if len(graph.inputs) != 1:
        raise InputError(
            f"The model has {len(graph.inputs)} inputs: {', '.join(graph.inputs)}",
            hint="give a dict of arrays by input name (Python only)",
        )
    return {graph.inputs[0]: np.asarray(arrays)}
