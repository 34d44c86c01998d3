"""Executions of a model: a QONNX file or a build folder on one of several backends, or a saved trace."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.arrays import LARGEST_FILE, load_mantissas, read_array
from qhw.data.inputs import arrangement
from qhw.errors import InputError, QhwError, closest
from qhw.outside.arrays import read_npz
from qhw.pipeline.input_type import check_type
from qhw.pipeline.stages import MARKER, check_written

if TYPE_CHECKING:
    from qhw.data import Dataset
    from qhw.formats.modes import IntArray
    from qhw.graph.ir import ExactGraph
    from qhw.sim.fast import FastExecutor
    from qhw.tasks import Judge

BACKENDS = {
    "exact": "the exact graph, by the fast executor",
    "interpreter": "the exact graph, by the interpreter that defines it",
    "qonnx": "the QONNX file, by qonnx itself",
    "csim": "the C-simulation of a build folder's project",
}


_OF_A_JUDGE = ("task", "metric", "targets")

_OWN_METRIC = "own_metric"
"""The name of the user's own function, in place of the task's metric; older builds lack it."""


@dataclass(frozen=True)
class Target:
    """A model, and what runs it.

    Args:
        given: the target as the user wrote it.
        path: a QONNX file or a build folder.
        backend: one of ``BACKENDS``.
        input: the integer type of a file's input, where the file does not say it.
        data: the data set that goes in; see :func:`qhw.pipeline.input_type.annotated_copy`.
        device: where the fast executor multiplies; see :func:`qhw.torch_device.chosen_device`.
    """

    given: str
    path: Path
    backend: str
    input: str | None = None
    data: Dataset | None = None
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Its name in messages: the path and the backend."""
        return f"{self.path}@{self.backend}"

    @cached_property
    def model_file(self) -> Path:
        """The QONNX file; where its input had to be annotated, a copy that lives as long as this target."""
        if self.path.is_dir():
            # With feature maps of other widths than the model's, the graph is that of a file of its own.
            name = "mixed.onnx" if check_written(self.path, "mixed.onnx") else "model.onnx"
            check_written(self.path, name)
            return self.path / name
        return self._annotated or self.path

    @cached_property
    def _annotated(self) -> Path | None:
        if self.input is None and (self.data is None or not self.data.holds_pixels):
            return None
        from qhw.graph.reading.load import load_qonnx
        from qhw.pipeline.input_type import annotated_copy

        with _naming(self.path):
            load_qonnx(self.path)  # refuses what is none before anything else reads it
            copy = Path(self._folder.name) / self.path.name
            return copy if annotated_copy(self.path, copy, self.input, self.data) else None

    @cached_property
    def _folder(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="qhw-")

    @cached_property
    def graph(self) -> ExactGraph:
        """The exact graph: a build folder's own, or lowered now."""
        from qhw.graph.lower import lower
        from qhw.graph.serialize import load_graph

        if self.path.is_dir() and check_written(self.path, "graph"):
            return load_graph(self.path / "graph")
        file = self.model_file
        with _naming(self.path):
            return lower(file)

    @cached_property
    def _executor(self) -> FastExecutor:
        from qhw.sim.fast import FastExecutor

        return FastExecutor(self.graph, device=self.device)

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
        from qhw.flows.base import load_project_flow
        from qhw.pipeline.build_stages import open_own_project
        from qhw.pipeline.manifest import read

        flow = load_project_flow(read(self.path)["flow"]["name"])
        return flow.simulate(open_own_project(flow, self.path), mantissas, trace=keep)


def find_target(
    given: str | Path,
    backend: str | None = None,
    *,
    input: str | None = None,
    data: Dataset | None = None,
    device: str = "cpu",
) -> Target:
    """A QONNX file or a build folder; ``@backend`` at its end says what runs it.

    Without one, a QONNX file is run as its exact graph, and so is a build folder.

    Args:
        input: the integer type of a file's input, where the file does not say it.
        data: the data set that goes in; see :func:`qhw.pipeline.input_type.annotated_copy`.
        device: where the fast executor multiplies; see :func:`qhw.torch_device.chosen_device`.

    Raises:
        InputError: no such file or folder, an unknown backend, or one that this target has not; an input
            type that is none, or is given for a build folder; a device for another than the fast executor.
    """
    if input is not None:
        check_type(input)
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
    if chosen != "exact" and device != "cpu":
        raise InputError(f"The backend {chosen} runs on the CPU, not on {device}", allowed="exact")
    place = Path(path)
    _check_place(place, path)
    if chosen == "csim" and not place.is_dir():
        raise InputError(f"{path} is a file: it has no project to simulate", hint="give a build folder")
    if input is not None and place.is_dir():
        raise InputError(
            f"{path} is a build folder: its input type was chosen by 'qhw build'",
            hint=f"leave --input {input} out, or build again with --input {input}",
        )
    return Target(text, place, chosen, input, data, device)


def own_samples(target: Target, metric: str = "") -> tuple[dict[str, NDArray[Any]], Judge | None] | None:
    """The samples that a build was verified on: inputs of its data set's test split, and their metric.

    None for a file, and for a build that did not get so far.

    Args:
        metric: one of the task's metrics, or ``file.py:function``, in place of the build's.

    Raises:
        InputError: they are not what the build wrote; the metric is not one of the task's.
    """
    folder = target.path / "vectors"
    if not (target.path.is_dir() and check_written(target.path, "vectors")):
        return None
    inputs = inputs_of_trace(target.graph, load_mantissas(folder / "inputs.npz"))
    return inputs, stored_judge(folder / "targets.npz", len(next(iter(inputs.values()))), metric)


def stored_judge(path: Path, count: int, metric: str = "") -> Judge | None:
    """The metric that a build stored with the targets of ``count`` samples; None where it has none.

    Of a user's own metric the build stored the name: the function is run only by the rules of
    :func:`qhw.pipeline.own_metric.recorded_metric`, else there is none.

    Args:
        path: ``vectors/targets.npz`` of a build folder.
        metric: as for :func:`own_samples`.

    Raises:
        InputError: the file holds something else; the metric is not one of the task's.
    """
    from qhw.pipeline.own_metric import own_metric, recorded_metric
    from qhw.pipeline.user_file import user_function
    from qhw.tasks import Judge, task_named

    if not path.is_file():
        return None
    stored = read_npz(path, "file of targets", LARGEST_FILE, (*_OF_A_JUDGE, _OWN_METRIC))
    if missing := [name for name in _OF_A_JUDGE if name not in stored]:
        raise InputError(f"{path} lacks {missing[0]}", allowed=f"arrays named {', '.join(_OF_A_JUDGE)}")
    targets = stored["targets"]
    if targets.ndim == 0 or len(targets) != count:
        raise InputError(f"{path} holds targets of shape {targets.shape}", allowed=f"{count}, one per sample")
    task = task_named(str(stored["task"]))
    task.check_targets(targets, task.classes_of(targets))
    of_the_build = task.metric(str(stored["metric"]))
    if metric:
        function = user_function(metric, "metric")
        return Judge(task, task.metric(metric) if function is None else own_metric(function), targets)
    if not (name := str(stored.get(_OWN_METRIC, ""))):
        return Judge(task, of_the_build, targets)
    own = recorded_metric(path.parents[1], name)
    return None if own is None else Judge(task, own, targets)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put a file's name in front of a message about its content: there may be two files."""
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
    target: Target,
    *,
    data: Any = None,
    inputs: Any = None,
    samples: int | None = None,
    metric: str = "",
) -> tuple[dict[str, Any], Judge | None]:
    """Samples for a target, and the metric to judge the answers by, if there are targets.

    Without data and inputs, those that a build folder was verified on; for a file, random ones.

    Args:
        data: a data set, of which the test split is taken.
        inputs: an array (N, ...), a dict of arrays by input name, or the path of a .npy or .npz file of them.
        samples: take at most this many.
        metric: the metric for what a build folder was verified on, in place of the build's.

    Raises:
        InputError: both are given, neither fits the graph, there are no samples, or no targets for a metric.
    """
    from qhw.pipeline.build_stages import RANDOM_VECTORS, random_inputs, samples_for
    from qhw.pipeline.data_choice import choose_data

    if data is not None and inputs is not None:
        raise InputError("Both a data set and inputs are given", hint="give one of them")
    graph, judge = target.graph, None
    if data is not None:
        dataset = choose_data(data).dataset
        arrays, judge = samples_for(graph, dataset), dataset.judge
    elif inputs is not None:
        arrays = _by_name(graph, _read(Path(inputs)) if isinstance(inputs, str | Path) else inputs)
    elif (own := own_samples(target, metric)) is not None:
        arrays, judge = own
    else:
        arrays = random_inputs(graph, samples or RANDOM_VECTORS)
    if metric and data is None and judge is None:
        raise InputError(
            f"There are no targets to compute the metric {metric} from",
            hint="give a data set with --data, or a build folder that was built with one",
        )
    _check_counts(arrays)
    few = {name: array[:samples] for name, array in arrays.items()}
    return few, None if judge is None else judge.first(samples)


def _read(path: Path) -> Any:
    """An array, or arrays by name, from a file."""
    if path.suffix == ".npz":
        return read_npz(path, "input file", LARGEST_FILE)
    return read_array(path)


def _check_counts(arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse arrays without samples, and inputs with different numbers of them."""
    for name, array in arrays.items():
        if array.ndim == 0:
            raise InputError(f"input '{name}' is a single number", allowed="a batch, (N, ...)")
        if len(array) == 0:
            raise InputError(f"input '{name}' holds no samples", allowed="a batch, (N, ...), N from 1")
    if len({len(array) for array in arrays.values()}) > 1:
        counts = ", ".join(f"'{name}' {len(array)}" for name, array in arrays.items())
        raise InputError(f"The inputs hold different numbers of samples: {counts}")


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
    if isinstance(arrays, Mapping) and len(arrays) == len(graph.inputs):
        given = list(arrays)
        places = arrangement(given, graph.inputs, "what is given")
        return {
            name: np.asarray(arrays[given[place]]) for name, place in zip(graph.inputs, places, strict=True)
        }
    if isinstance(arrays, Mapping):
        raise InputError(
            f"arrays are given for {', '.join(map(str, arrays)) or 'no input'}",
            allowed=", ".join(graph.inputs),
        )
    if len(graph.inputs) != 1:
        raise InputError(
            f"The model has {len(graph.inputs)} inputs: {', '.join(graph.inputs)}",
            hint="give arrays by input name: a dict in Python, or an .npz file",
        )
    return {graph.inputs[0]: np.asarray(arrays)}
