"""The commands as Python functions; results are small typed objects that a notebook shows as tables."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.arrays import load_mantissas, save_arrays
from qhw.boards import Board, load_board
from qhw.errors import InputError
from qhw.executions import Target, choose_inputs, find_target, inputs_of_trace
from qhw.pipeline.options import BuildOptions, designed
from qhw.pipeline.run import BuildResult
from qhw.pipeline.run import build as run_build
from qhw.preprocessing import Preprocess
from qhw.report.tables import Shown, Table
from qhw.search.result import SearchResult
from qhw.sim.compare import Comparison, compare, describe

if TYPE_CHECKING:
    import pandas
    from torch import fx, nn

    from qhw.cost import Estimate
    from qhw.data import Dataset, Reading
    from qhw.formats.modes import IntArray
    from qhw.pipeline.data_choice import DataChoice
    from qhw.pipeline.stages import Observer
    from qhw.quant_config import QuantConfig
    from qhw.tracing import Example
    from qhw.train import TrainConfig

__all__ = [
    "BoardResult",
    "BuildResult",
    "CostResult",
    "DiffResult",
    "SearchResult",
    "SimulationResult",
    "build",
    "convert",
    "cost",
    "diff",
    "ptq",
    "run",
    "search",
    "simulate",
]


def convert(model: nn.Module, config: QuantConfig, example: Example) -> fx.GraphModule:
    """A plain module as a quantised one, ready to train; see :func:`qhw.convert.convert`."""
    from qhw.convert import convert as run_convert

    return run_convert(model, config, example)


def ptq(
    model: nn.Module,
    data: Any,
    config: QuantConfig | Mapping[str, Any] | str | None = None,
    *,
    methods: str | Sequence[str] | None = None,
    calibration: str | None = None,
    samples: int = 512,
    seed: int = 0,
    shape: Sequence[int] | None = None,
    pixels: bool = False,
) -> fx.GraphModule:
    """A trained float module as a quantised one, without training: what ``qhw ptq`` does.

    Args:
        model: the trained network; it is left as it is.
        data: what it was trained on, as for :func:`build`; some samples of its training split are looked at.
            None: samples are distilled from the network's batch norms, and ``shape`` says what they are like.
        config: the formats, or one format as text (``"e2m1"``, ``"khot<4,2>"``).
        methods: names of :mod:`qhw.ptq.methods`; None: the recipe that did best.
        calibration: how ranges of activations are chosen: max, percentile, mse or entropy; None: mse.
        samples, seed: how many samples are looked at, and which.
        shape, pixels: without data, the shape of one sample, and whether it holds whole pixels of 0..255.

    Raises:
        InputError, UnsupportedError: something given cannot be used.

    Example::

        quantised = qhw.ptq(net, "digits", "fixed<4>", methods=("equalize", "gptq"))
        qhw.build(quantised, board="ultra96", data="digits")
    """
    from qhw.pipeline.data_choice import choose_data
    from qhw.ptq.run import Shape, quantise
    from qhw.ptq.settings import PtqSettings
    from qhw.quant_config import QuantConfig, formats_named

    if isinstance(config, str):
        config = formats_named(config)
    formats = config if isinstance(config, QuantConfig) else QuantConfig.from_mapping(config or {})
    named = {"methods": methods, "calibration": calibration}
    given: dict[str, Any] = {name: value for name, value in named.items() if value is not None}
    settings = PtqSettings(samples=samples, seed=seed, **given)
    if data is None and shape is None:
        raise InputError("There are neither data nor a shape of samples", hint="give one of the two")
    known = Shape(tuple(shape or ()), pixels) if data is None else choose_data(data).dataset
    return quantise(model, known, formats, settings).model


def build(
    model: str | Path | nn.Module = "digits-cnn",
    *,
    board: str | Path | None = None,
    design: str | None = None,
    flow: str = "hls4ml",
    data: Any = None,
    task: str = "",
    metric: str = "",
    target: str | Sequence[str] = (),
    layout: str = "",
    preprocess: Preprocess | str | Mapping[str, Any] | None = None,
    state: str | Path | None = None,
    trained: bool = False,
    expect: float | None = None,
    weights: str | None = None,
    activations: str | None = None,
    quant: QuantConfig | Mapping[str, Any] | None = None,
    training: TrainConfig | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    clock_mhz: float | None = None,
    fps: float | None = None,
    budget: float | None = None,
    multipliers: str = "auto",
    input: str | None = None,
    seed: int = 0,
    quantise: str = "training",
    methods: str | Sequence[str] | None = None,
    calibration: str | None = None,
    samples: int | None = None,
    vectors: int | None = None,
    synth: bool = False,
    observer: Observer | None = None,
    **flow_options: Any,
) -> BuildResult:
    """Build a model for a board: what ``qhw build`` does.

    Args:
        model: a built-in model's name, a QONNX file, ``file.py:function``, or a module: a plain one is
            trained and quantised, one that :func:`convert` (or Brevitas) made is exported as it is.
        board: a board's name, or the path of a TOML file.
        design: a point of a front that :func:`search` found, ``FRONT.json#3``: its model, data, board, flow
            and rate, in place of those arguments; ``out``, ``vectors`` and ``synth`` may be given beside it.
        data: a data set's name or path, or data in Python: arrays, a ``torch.utils.data.Dataset``, and what
            else :data:`qhw.data.given.TAKEN` lists.
        task, metric, target, layout: what the data do not say themselves (:class:`qhw.data.Reading`).
        preprocess: what training did to samples before the network saw them; it becomes its first layer. Of
            several inputs by the names of forward()'s arguments: ``{"image": Preprocess(scale=1 / 255)}``.
        state: a file with the network's trained weights, or
        trained: the network has them: it is fine-tuned, not trained anew in float.
        expect: the figure that the trained network, or the quantised model, had; a worse one is refused, with
            the likely cause.
        weights, activations: formats, in place of those in ``quant``.
        quant: formats of everything, by layer where wanted.
        training: settings in place of the model's own recipe; ``{"device": "cuda"}`` trains on a GPU.
        out: the build folder.
        fps, budget, multipliers: requirements on the design, as for :func:`cost`.
        input: the integer type of the model's input, as in "uint8", where the model does not say it; of
            several inputs "image=uint8,depth=int12".
        quantise: by ``training``, or by ``ptq``, without it, by these
        methods, calibration, samples: as for :func:`ptq`.
        vectors: samples that go through the C-simulation.
        observer: receives the progress of the build.
        flow_options: the flow's own; hls4ml: ``io_type``, finn: ``sources``.

    Raises:
        InputError, UnsupportedError, ToolMissingError: something given cannot be used.
        CheckFailedError: codes differ, or no folding fits the board.

    Example::

        result = qhw.build("mlp", board="ultra96", out="digits")
        result.manifest["accuracy"]
    """
    if design is not None:
        given = {"out": out, "vectors": vectors, "synth": synth or None}
        return run_build(designed(design, given), data=data, observer=observer)
    options = _options(
        model=model,
        board=board,
        data=data,
        target=target,
        preprocess=preprocess,
        state=state,
        out=out,
        quant=quant,
        training=training,
        flow_options=flow_options,
        flow=flow,
        task=task,
        metric=metric,
        layout=layout,
        trained=trained,
        expect=expect,
        weights=weights,
        activations=activations,
        clock_mhz=clock_mhz,
        fps=fps,
        budget=budget,
        multipliers=multipliers,
        input=input,
        quantise=quantise,
        methods=methods,
        calibration=calibration,
        samples=samples,
        seed=seed,
        vectors=vectors,
        synth=synth,
    )
    return run_build(
        options,
        model=_object(model),
        data=_object(data),
        observer=observer,
    )


def _plain(preprocess: Preprocess | str | Mapping[str, Any] | None) -> str | dict[str, Any] | None:
    """A preprocessing as plain values, of each input where it is by name."""
    if isinstance(preprocess, Preprocess):
        return asdict(preprocess)
    if not isinstance(preprocess, Mapping):
        return preprocess
    return {name: asdict(part) if isinstance(part, Preprocess) else part for name, part in preprocess.items()}


def _options(
    *,
    model: Any,
    board: str | Path | None,
    data: Any,
    target: str | Sequence[str],
    preprocess: Any,
    state: str | Path | None,
    out: str | Path | None,
    quant: Any,
    training: Any,
    flow_options: Mapping[str, Any],
    **rest: Any,
) -> BuildOptions:
    """Options from arguments in Python: paths and names as text, settings as plain values."""
    return BuildOptions(
        model=type(model).__name__ if _object(model) is not None else str(model),
        board="" if board is None else str(board),
        data=None if data is None or _object(data) is not None else str(data),
        target=(target,) if isinstance(target, str) else tuple(target),
        preprocess=_plain(preprocess),
        state=None if state is None else Path(state),
        out=None if out is None else Path(out),
        quant=_settings(quant),
        training=_settings(training),
        flow_options={name: value for name, value in flow_options.items() if value is not None},
        **rest,
    )


def _object(given: Any) -> Any:
    """What was given, unless it is a name or a path."""
    return None if isinstance(given, str | os.PathLike) else given


def _settings(given: Any) -> dict[str, Any]:
    """A settings object or mapping as a plain mapping, fit for JSON."""
    from qhw.quant_config import QuantConfig

    if given is None or isinstance(given, Mapping):
        return dict(given or {})
    return given.to_mapping() if isinstance(given, QuantConfig) else asdict(given)


def search(
    model: str | Path | nn.Module = "digits-cnn",
    *,
    board: str | Path,
    flow: str = "hls4ml",
    data: Any = None,
    space: Mapping[str, Any] | None = None,
    against: str = "",
    strategy: str | None = None,
    evaluator: str | None = None,
    evaluations: int | None = None,
    methods: str | Sequence[str] | None = None,
    points: int | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    store: str | Path | None = None,
    name: str = "search",
    resume: bool = False,
    task: str = "",
    metric: str = "",
    target: str | Sequence[str] = (),
    layout: str = "",
    preprocess: Preprocess | str | Mapping[str, Any] | None = None,
    state: str | Path | None = None,
    trained: bool = False,
    expect: float | None = None,
    quant: QuantConfig | Mapping[str, Any] | None = None,
    training: TrainConfig | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    clock_mhz: float | None = None,
    fps: float | None = None,
    budget: float | None = None,
    multipliers: str = "auto",
    seed: int = 0,
    observer: Observer | None = None,
    **flow_options: Any,
) -> SearchResult:
    """Search each layer's format by accuracy and by what the hardware costs: what ``qhw search`` does.

    Args:
        model, data, task, metric, target, layout, preprocess, state, trained, expect: as for :func:`build`; a
            plain network, which is trained in float unless it comes with its weights.
        space: formats to choose from, ties and pins (:class:`qhw.search.space.SpaceSettings`).
        against: what is minimised beside the loss of accuracy: lut (the usual one), ff, dsp, bram18, share,
            memory, energy or interval; on a microcontroller instructions (the usual one), interval or flash.
        strategy, evaluator: how points are proposed and judged, by name.
        evaluations: how many points are judged at most.
        methods: methods of :func:`ptq` by which points are quantised; None: its default ones, or none where
            points are trained.
        points: how many points of the front are kept at most.
        workers, scheduler: processes that judge points, and a Dask scheduler to join.
        store, name, resume: the record (an SQLite file or a PostgreSQL URL), the study in it, and whether to
            go on with what it holds.
        quant: formats of what is not searched.
        fps, budget, multipliers, clock_mhz: requirements on every point, as for :func:`cost`.
        out: the folder of ``front.json``.
        observer: receives the progress; in a notebook the front is drawn as it grows, unless one is given.

    Raises:
        InputError, UnsupportedError, ToolMissingError: something given cannot be used.
        CheckFailedError: no point keeps to the budget and the rate.

    Example::

        result = qhw.search("mlp", board="ultra96", against="lut", evaluations=20)
        result.to_dataframe()
        qhw.build(design=f"{result.file}#1")
    """
    from qhw.search.options import SearchOptions
    from qhw.search.plot import live_plot
    from qhw.search.run import search as run_search
    from qhw.search.space import SpaceSettings

    build_options = _options(
        model=model,
        board=board,
        data=data,
        target=target,
        preprocess=preprocess,
        state=state,
        out=out,
        quant=quant,
        training=training,
        flow_options=flow_options,
        flow=flow,
        task=task,
        metric=metric,
        layout=layout,
        trained=trained,
        expect=expect,
        clock_mhz=clock_mhz,
        fps=fps,
        budget=budget,
        multipliers=multipliers,
        seed=seed,
    )
    chosen: dict[str, Any] = {
        "strategy": strategy,
        "evaluator": evaluator,
        "evaluations": evaluations,
        "points": points,
    }
    options = SearchOptions(
        build_options,
        space=SpaceSettings.from_mapping(space or {}),
        against=against,
        methods=methods if methods is None or isinstance(methods, str) else ",".join(methods),
        workers=workers,
        scheduler=scheduler,
        store=None if store is None else str(store),
        name=name,
        resume=resume,
        **{key: value for key, value in chosen.items() if value is not None},
    )
    return run_search(
        options,
        model=_object(model),
        data=_object(data),
        observer=observer,
        watch=None if observer is not None else live_plot(against or "cost"),
    )


@dataclass(frozen=True, repr=False)
class SimulationResult(Shown):
    """A model's answers to a batch of inputs.

    Args:
        target: the model or build that ran.
        mantissas: every tensor that was kept, integers (N, *shape), by name.
        values: the outputs by name, as real numbers (float64); where the file ends in a Softmax, an ArgMax or
            their like, its own outputs, computed on the host.
        classes: the class of each sample: the index that the file answers with, or that of the largest value.
        samples: the number of inputs.
        seconds: the run, once it was planned and compiled.
        accuracy: the metric where targets were known.
        metric: its name.
    """

    target: str
    mantissas: Mapping[str, IntArray]
    values: Mapping[str, NDArray[Any]]
    classes: NDArray[np.int64]
    samples: int
    seconds: float
    accuracy: float | None = None
    metric: str | None = None
    written: str = ""

    def predictions(self) -> NDArray[np.int64]:
        """The class of each sample: the largest value of the first output, or the index that it is."""
        return self.classes

    def to_json(self) -> dict[str, Any]:
        """Figures and predictions as JSON values."""
        return {
            "target": self.target,
            "samples": self.samples,
            "seconds": round(self.seconds, 4),
            "accuracy": self.accuracy,
            "metric": self.metric,
            "outputs": {name: list(value.shape[1:]) for name, value in self.values.items()},
            "predictions": self.predictions().tolist(),
        }

    def tables(self) -> list[Table]:
        """The figures of the run."""
        rate = self.samples / self.seconds if self.seconds else 0.0
        accuracy = () if self.accuracy is None else ((f"accuracy ({self.metric})", self.written),)
        rows = (("samples", f"{self.samples:,}"), *accuracy, ("samples per second", f"{rate:,.0f}"))
        return [Table(f"Simulation of {self.target}", ("", ""), rows)]


def simulate(
    model: str | Path,
    *,
    data: Any = None,
    inputs: NDArray[Any] | Mapping[str, NDArray[Any]] | str | Path | None = None,
    samples: int | None = None,
    backend: str | None = None,
    device: str = "cpu",
    save_trace: str | Path | None = None,
    input: str | None = None,
    reading: Reading | None = None,
) -> SimulationResult:
    """Run a model exactly: what ``qhw simulate`` does.

    Args:
        model: a QONNX file or a build folder.
        data: a data set's name or path, or data in Python, whose test split goes in, or
        inputs: an array (N, ...), one per input name, or a .npy file (.npz: one per input name). Without
            either: what a build folder was verified on (its data set's test split); for a file, random ones.
        samples: take at most this many.
        backend: "exact", "interpreter", "qonnx", or "csim" (a build folder's project).
        device: where the "exact" backend multiplies: cpu, cuda, cuda:N, or auto; the codes are the same.
        save_trace: the file (.npz) for every layer's mantissas, which :func:`diff` reads.
        input: the integer type of a file's input, as in "uint8", where the file does not say it; of several
            inputs "image=uint8,depth=int12".
        reading: the task, the metric and what else the data do not say themselves; without data, the metric
            alone, for a build folder's own samples in place of the build's.

    Raises:
        InputError: something given cannot be used.
    """
    from qhw.graph.encode import decode_output, encode_inputs
    from qhw.pipeline.build_stages import score
    from qhw.sim.postprocess import postprocess, predicted_classes

    choice, metric = _data_and_metric(data, reading)
    dataset = None if choice is None else choice.dataset
    target = find_target(model, backend, input=input, data=dataset, device=device)
    graph = target.graph
    arrays, judge = choose_inputs(target, data=choice, inputs=inputs, samples=samples, metric=metric)
    encode_inputs(graph, dict(arrays))  # refuses them as they were given, before a first sample is taken out
    keep = "all" if save_trace else "outputs"
    # The first run is not timed: it plans and compiles, and checks the library on each new batch shape.
    warm = None if target.backend == "exact" else 1
    target.run({name: array[:warm] for name, array in arrays.items()}, keep)
    start = time.perf_counter()
    execution = target.run(arrays, keep)
    seconds = time.perf_counter() - start
    decoded = {name: decode_output(graph, name, execution[name]) for name in graph.outputs}
    values, classes = postprocess(graph, decoded), predicted_classes(graph, decoded)
    if save_trace is not None:
        save_arrays(Path(save_trace), execution)
    count = len(next(iter(arrays.values())))
    result = SimulationResult(target.name, execution, values, classes, count, seconds)
    if judge is None:
        return result
    figure, name = score(graph, execution, judge), judge.metric.name
    return replace(result, accuracy=figure, metric=name, written=judge.metric.written(figure))


@dataclass(frozen=True, repr=False)
class BoardResult(Shown):
    """What a board answered, beside the exact graph.

    Args:
        folder: the build folder.
        port: where the board is.
        design: what the board says that it holds, which is the folder's.
        comparison: the exact graph's outputs and the board's, code by code.
        classes: the class of each sample: the index that the file answers with, or that of the largest value.
        seconds: from the first byte sent to the last received.
        accuracy, metric: the board's figure and its name, where targets were known.
    """

    folder: str
    port: str
    design: str
    comparison: Comparison
    classes: NDArray[np.int64]
    seconds: float
    accuracy: float | None = None
    metric: str | None = None
    written: str = ""

    @property
    def equal(self) -> bool:
        """Whether no code differs."""
        return self.comparison.mismatches == 0

    @property
    def first_difference(self) -> str:
        """The first sample and element that differ, and both values; empty where all are equal."""
        c = self.comparison
        return "" if c.first is None else describe(c.first, c.left, c.right)

    @property
    def images_per_second(self) -> float:
        """By the serial line, one image at a time."""
        return len(self.classes) / self.seconds if self.seconds else 0.0

    def to_json(self) -> dict[str, Any]:
        """Figures and predictions as JSON values."""
        return {
            "folder": self.folder,
            "port": self.port,
            "design": self.design,
            "samples": len(self.classes),
            "codes_compared": self.comparison.codes,
            "mismatches": self.comparison.mismatches,
            "first_difference": self.first_difference or None,
            "accuracy": self.accuracy,
            "metric": self.metric,
            "seconds": round(self.seconds, 4),
            "images_per_second": round(self.images_per_second, 2),
            "predictions": self.classes.tolist(),
        }

    def tables(self) -> list[Table]:
        """The figures of the run."""
        c = self.comparison
        accuracy = () if self.accuracy is None else ((f"accuracy ({self.metric})", self.written),)
        rows = (
            ("design", self.design),
            ("samples", f"{len(self.classes):,}"),
            ("codes compared", f"{c.codes:,}"),
            ("differ", f"{c.mismatches:,}"),
            *accuracy,
            ("images per second", f"{self.images_per_second:,.1f}"),
        )
        note = f"First difference: {self.first_difference}" if self.first_difference else ""
        return [Table(f"{self.folder} on the board at {self.port}", ("", ""), rows, note)]


def run(
    folder: str | Path,
    *,
    port: str,
    data: Any = None,
    inputs: NDArray[Any] | Mapping[str, NDArray[Any]] | str | Path | None = None,
    samples: int | None = None,
    baud: int | None = None,
    timeout: float | None = None,
    reading: Reading | None = None,
    observer: Observer | None = None,
) -> BoardResult:
    """Run a build on its board, and compare every code with the exact graph: what ``qhw run`` does.

    Nothing of the folder is executed: its graph, its description and its Verilog are read as data.

    Args:
        folder: a build folder, whose bitstream the board holds.
        port: the board's serial port, ``/dev/ttyUSB0``.
        data, inputs, samples, reading: as for :func:`simulate`.
        baud: bits a second; None: those of the flow's boards.
        timeout: seconds without an answer that are too many; None: by how long one takes.
        observer: receives the progress.

    Raises:
        InputError: something given cannot be used; nothing answers at the port, or too little.
        UnsupportedError: the flow's designs are behind no serial line.
        ToolMissingError: pyserial is not installed.
        CheckFailedError: the board holds another design.
    """
    from qhw.flows.base import SerialLine, load_project_flow
    from qhw.graph.encode import decode_output, encode_inputs
    from qhw.pipeline import manifest
    from qhw.pipeline.build_stages import PROJECT_FOLDER, open_project, score
    from qhw.pipeline.stages import Silent, check_written
    from qhw.sim.postprocess import predicted_classes

    for name, value in (("baud", baud), ("timeout", timeout)):
        if value is not None and not 0 < value < 1e9:
            raise InputError(f"{name} is {value}", allowed="a number above 0")
    target = find_target(folder, "exact")
    if not target.path.is_dir():
        raise InputError(f"{folder} is a file: no board holds it", hint="give a build folder")
    choice, metric = _data_and_metric(data, reading)
    flow = load_project_flow(manifest.read(target.path)["flow"]["name"])
    if not check_written(target.path, PROJECT_FOLDER):
        raise InputError(f"{folder} has no project", hint="run the same qhw build again, to its end")
    arrays, judge = choose_inputs(target, data=choice, inputs=inputs, samples=samples, metric=metric)
    graph, watching = target.graph, observer or Silent()
    watching.started("run")
    expected = target.run(arrays, "outputs")
    line = SerialLine(port, baud, timeout)
    mantissas = encode_inputs(graph, dict(arrays))
    got = flow.run_on_board(open_project(flow, target.path), mantissas, line, tell=watching.progress)
    outputs = {name: expected[name] for name in graph.outputs}
    comparison = compare(graph, outputs, got.values, names=("exact graph", "the board"))
    classes = predicted_classes(
        graph, {name: decode_output(graph, name, got.values[name]) for name in graph.outputs}
    )
    result = BoardResult(str(folder), port, got.design, comparison, classes, got.seconds)
    if judge is None:
        return result
    figure, name = score(graph, got.values, judge), judge.metric.name
    return replace(result, accuracy=figure, metric=name, written=judge.metric.written(figure))


def _data_and_metric(data: Any, reading: Reading | None) -> tuple[DataChoice | None, str]:
    """A data set as it is read, and the metric; InputError where it is said how to read none."""
    from qhw.data import Reading
    from qhw.pipeline.data_choice import choose_data

    choice = None if data is None else choose_data(data, reading)
    if choice is None and reading is not None and replace(reading, metric="") != Reading():
        raise InputError(
            "task, target and layout say how a data set is read, and none is given",
            hint="name one with --data, or leave them out",
        )
    return choice, "" if reading is None else reading.metric


@dataclass(frozen=True, repr=False)
class CostResult(Shown):
    """An estimate, per layer and in all; nothing of it was measured."""

    estimate: Estimate

    def to_json(self) -> dict[str, Any]:
        """Totals, utilisation, latency and layers as JSON values."""
        e = self.estimate
        return {
            "board": e.board.name,
            "cost_model": e.label,
            "flow": e.flow,
            "options": dict(e.design.architecture.options),
            "multipliers": e.design.multipliers,
            "resources": e.totals,
            "utilisation": {
                name: round(e.totals[name] / e.board.capacity[name], 4) for name in self._present
            },
            "latency": {
                "cycles": e.latency_cycles,
                "initiation_interval": e.initiation_interval,
                "clock_mhz": e.clock_mhz,
                "throughput_fps": round(e.throughput_fps, 2),
                "binding_layer": e.binding.node,
            },
            **e.further(),
            "layers": [asdict(layer) for layer in e.layers],
        }

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per operation: its folding, resources, cycles and energy."""
        from qhw.report.frames import frame

        return frame([asdict(layer) for layer in self.estimate.layers])

    def plot(self) -> Any:
        """What each layer takes of the board, as an Altair chart.

        Raises:
            ToolMissingError: altair is not installed.
        """
        from qhw.report.charts import as_altair, layers_chart

        layers = [asdict(layer) for layer in self.estimate.layers]
        return as_altair(layers_chart(layers, self.estimate.board.capacity))

    @property
    def _present(self) -> list[str]:
        totals = self.estimate.totals
        return [name for name, there in self.estimate.board.capacity.items() if there and name in totals]

    def tables(self) -> list[Table]:
        """A row per layer, and the totals against the board."""
        from qhw.flows.base import load_flow

        e = self.estimate
        used = tuple(
            (name.upper(), e.totals[name], e.board.capacity[name], f"{e.utilisation[name]:.1%}")
            for name in self._present
        )
        usual = {option.name: option.default for option in load_flow(e.flow).options}
        chosen = {k: v for k, v in e.design.architecture.options.items() if v and v != usual.get(k)}
        settings = "".join(f", {v if isinstance(v, str) else k}" for k, v in chosen.items())
        layers = Table(f"Cost per layer, {e.flow}{settings}", e.columns(), tuple(e.rows()))
        note = "\n".join(e.notes())
        return [layers, Table(f"On {e.board.title}", ("", "estimated", "board", "used"), used, note)]


def cost(
    model: str | Path,
    *,
    board: str | Path | None = None,
    flow: str | None = None,
    clock_mhz: float | None = None,
    fps: float | None = None,
    budget: float | None = None,
    multipliers: str = "auto",
    input: str | None = None,
    **flow_options: Any,
) -> CostResult:
    """Estimate a model's resources on a board, at the fastest folding that fits: ``qhw cost``.

    Args:
        model: a QONNX file or a build folder.
        board: a board's name or TOML file; None: the one that the build folder was built for.
        flow: hls4ml (folded by reuse factors) or finn (by PE and SIMD); None: what the build folder was built
            with, or else hls4ml, where it can build for the board, and the first that can where not.
        fps: images per second that are enough; the smallest design that reaches them.
        budget: share of each of the board's resources that may be used, 0.8 unless given.
        multipliers: auto, lut, dsp or packed; see :data:`qhw.cost.Multipliers`.
        input: the integer type of a file's input, as in "uint8", where the file does not say it.
        flow_options: the flow's own; hls4ml: ``io_type``, finn: ``sources``.

    Of a build folder, what is not given is as it was built: its board and clock, the flow and the flow's own
    options. The requirements are not taken over.

    Raises:
        InputError, UnsupportedError: something given cannot be used.
        CheckFailedError: no folding fits the board.
    """
    from qhw.cost import estimate
    from qhw.flows.base import load_flow
    from qhw.pipeline.designs import Wanted, best_design
    from qhw.pipeline.manifest import read

    wanted = Wanted(fps, budget, multipliers)
    target = find_target(model, input=input)
    built = read(target.path) if target.path.is_dir() else None
    if board is None:
        if built is None:
            raise InputError("No board is given", hint="name one with --board; 'qhw boards' lists them")
        board = str(built["inputs"]["board"]["given"])
        clock_mhz = built["board"]["clock_mhz"] if clock_mhz is None else clock_mhz
    chosen = load_board(board)
    if clock_mhz is not None:
        chosen = chosen.at_clock(clock_mhz)
    named = flow or _usual_flow(chosen, built["flow"]["name"] if built else BuildOptions().flow)
    given = {name: value for name, value in flow_options.items() if value is not None}
    if built is not None and named == built["flow"]["name"]:
        given = built["flow"]["options"] | given
    asked = load_flow(named, **given)
    asked.check_as_given()
    return CostResult(estimate(best_design(target.graph, chosen, asked, wanted)))


def _usual_flow(board: Board, usual: str) -> str:
    """The usual one where it can build for the board, else the first that can; it also says why none can."""
    from qhw.flows.base import list_flows, load_flow

    able = [name for name in list_flows() if load_flow(name).takes(board.device)]
    return usual if usual in able or not able else able[0]


@dataclass(frozen=True, repr=False)
class DiffResult(Shown):
    """Two executions, tensor by tensor, in the order of the graph; ``note`` tells what may mislead."""

    comparison: Comparison
    note: str = ""

    @property
    def equal(self) -> bool:
        """Whether no code differs."""
        return self.comparison.mismatches == 0

    @property
    def first_difference(self) -> str:
        """The first differing layer, element and both values; empty where all are equal."""
        c = self.comparison
        return "" if c.first is None else describe(c.first, c.left, c.right)

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON values."""
        return {
            "a": self.comparison.left,
            "b": self.comparison.right,
            "equal": self.equal,
            "first_difference": self.first_difference or None,
            "note": self.note or None,
            "layers": [asdict(layer) for layer in self.comparison.layers],
        }

    def tables(self) -> list[Table]:
        """A row per tensor."""
        c = self.comparison
        rows = tuple((x.layer, x.op, x.codes, x.distinct, x.mismatches) for x in c.layers)
        note = f"First difference: {self.first_difference}" if self.first_difference else "No code differs."
        note += f"\n{self.note}" if self.note else ""
        columns = ("layer", "operation", "codes", "distinct", "differ")
        return [Table(f"{c.left} | {c.right}", columns, rows, note)]


def diff(
    first: str | Path,
    second: str | Path,
    *,
    data: str | Dataset | None = None,
    inputs: NDArray[Any] | Mapping[str, NDArray[Any]] | str | Path | None = None,
    samples: int | None = None,
) -> DiffResult:
    """Compare two executions layer by layer: ``qhw diff``.

    Args:
        first, second: ``file.onnx`` (its exact graph), ``file.onnx@qonnx``, a build folder (its project's
            C-simulation), any of them with ``@exact``, ``@interpreter``, ``@qonnx`` or ``@csim``, or a
            trace that :func:`simulate` saved (.npz); one of the two has to be a model.
        data, inputs, samples: the inputs, as for :func:`simulate`. Beside a trace, the inputs in it.

    Raises:
        InputError: something given cannot be used, or the two have no tensor in common.
    """
    from qhw.pipeline.data_choice import choose_data

    choice = None if data is None else choose_data(data)
    dataset = None if choice is None else choice.dataset
    sides = [_side(given, dataset) for given in (first, second)]
    models = [side for side in sides if isinstance(side, Target)]
    if not models:
        raise InputError(
            "Both sides are traces, which do not store the order of the layers",
            hint="give the model on one side",
        )
    graph = models[0].graph
    trace = next((side for side in sides if not isinstance(side, Target)), None)
    if trace is None:
        arrays, _ = choose_inputs(models[0], data=choice, inputs=inputs, samples=samples)
    elif data is not None or inputs is not None:
        raise InputError("A trace has its own inputs", hint="leave out --data and --input")
    else:
        arrays = {name: x[:samples] for name, x in inputs_of_trace(graph, trace).items()}
    left, right = (
        side.run(arrays) if isinstance(side, Target) else {name: x[:samples] for name, x in side.items()}
        for side in sides
    )
    names = _side_name(sides[0], first), _side_name(sides[1], second)
    comparison = compare(graph, left, right, names=names, right_graph=models[-1].graph)
    return DiffResult(comparison, _rounding_note(models, comparison))


def _rounding_note(models: list[Target], comparison: Comparison) -> str:
    """Whether the first difference is nothing but the rounding of qonnx's own float32 sums."""
    first = comparison.first
    for model in models:
        if first is not None and model.backend == "qonnx":
            from qhw.pipeline.verification import FLOAT32_BITS, held_by

            if first.tensor not in held_by(model.graph, FLOAT32_BITS):
                bits = model.graph.tensors[first.tensor].format.width
                return (
                    f"qonnx computes in float32, whose {FLOAT32_BITS} bits do not hold every sum up to there "
                    f"({first.tensor} has {bits}): that the two part says nothing about the exact graph"
                )
    return ""


def _side(given: str | Path, data: Dataset | None) -> Target | dict[str, IntArray]:
    if str(given).endswith(".npz"):
        return load_mantissas(Path(given))
    return find_target(given, "csim" if Path(given).is_dir() else None, data=data)


def _side_name(side: Target | Mapping[str, IntArray], given: str | Path) -> str:
    return side.name if isinstance(side, Target) else str(given)
