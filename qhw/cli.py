"""The command line: one command per verb. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from qhw.errors import QhwError, brief, printable
from qhw.flow_command import FlowCommand, flow_options
from qhw.flows import list_flows
from qhw.ptq.settings import DEFAULT_CALIBRATION, DEFAULT_METHODS, QUANTISE, names_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import Console

    from qhw.report.tables import Table

FAULT = 70
"""The exit code after a fault of qhw's own (EX_SOFTWARE of sysexits.h)."""

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it (128 + SIGINT)."""

app = typer.Typer(
    name="qhw",
    help="From a PyTorch model to bit-exact hardware, with the precision chosen by what the hardware costs.",
    no_args_is_help=False,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _begins(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _boards(incomplete: str) -> list[str]:
    from qhw.boards import list_boards

    return _begins(incomplete, list_boards())


def _models(incomplete: str) -> list[str]:
    """Built-in models, QONNX files, and the folders in which they may be."""
    from glob import escape, glob

    from qhw.models import model_names

    paths = (Path(path) for path in sorted(glob(f"{escape(incomplete)}*")))
    files = [
        f"{path}/" if path.is_dir() else str(path)
        for path in paths
        if path.is_dir() or path.suffix == ".onnx"
    ]
    return _begins(incomplete, model_names()) + files


def _flows(incomplete: str) -> list[str]:
    return _begins(incomplete, list_flows())


Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="digits, mnist, fashion-mnist; an .npz, .csv or .parquet file; a folder of images or idx files; "
        "or file.py:function.",
    ),
]
TaskName = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="classification, regression, segmentation, multilabel, autoencoder.  [default: by the targets]",
    ),
]
MetricName = Annotated[
    str | None,
    typer.Option(
        "--metric",
        help="The task's metric, e.g. f1, auc, mae; or file.py:function of your own (more is better, unless "
        "function.higher_is_better = False).",
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option("--target", help="A table's column of targets, by default its last; may be given again."),
]
Layout = Annotated[
    str | None, typer.Option("--layout", help="nhwc for images whose channels come last.  [default: nchw]")
]
Fps = Annotated[
    float | None, typer.Option("--fps", help="Images per second that are enough: the smallest design.")
]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="Share of the board that may be used, e.g. 70%.  [default: 80%]"),
]
Multipliers = Annotated[
    str | None,
    typer.Option(
        "--multipliers", help="Integer products: auto, lut, dsp, or packed in a DSP slice.  [default: auto]"
    ),
]
Clock = Annotated[float | None, typer.Option("--clock-mhz", help="Clock in MHz.  [default: the board's]")]
Board = Annotated[
    str | None,
    typer.Option(
        "--board",
        "-b",
        help="A board's name ('qhw boards' lists them), or a TOML file.",
        autocompletion=_boards,
    ),
]
InputType = Annotated[
    str | None,
    typer.Option(
        "--input",
        help="The integer type of the model's input, e.g. uint8, if the file states none; of several inputs "
        "image=uint8,depth=int12.",
    ),
]
InputFile = Annotated[
    Path | None,
    typer.Option(
        "--input", help="A .npy file with a batch of inputs, (N, ...); of several inputs an .npz file."
    ),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        help="A .npy file with a batch of inputs, (N, ...), or .npz by their names; or the integer type of "
        "the model's input, e.g. uint8, if the file states none; may be given twice.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:N, or auto (a GPU where there is one).  [default: cpu]"),
]
State = Annotated[
    Path | None, typer.Option("--state", help="Trained weights of the network: a file of its state dict.")
]
Trained = Annotated[
    bool | None,
    typer.Option("--trained", help="The network has its weights: it is not trained anew in float."),
]
Expect = Annotated[
    str | None,
    typer.Option("--expect", help="The figure that it had in float, e.g. 97.5%; less is refused."),
]
Preprocessing = Annotated[
    str | None,
    typer.Option(
        "--preprocess",
        metavar="'scale=… mean=… std=…'",
        help="What training did to samples: (x * scale - mean) / std, numbers per channel with commas.",
    ),
]
NumberFormat = Annotated[
    str | None,
    typer.Option("--format", help="Format of the whole network: 'fixed<8>', 'e4m3', 'khot<8,2>'."),
]
Weights = Annotated[str | None, typer.Option("--weights", help="Format of the weights.")]
Activations = Annotated[str | None, typer.Option("--activations", help="Format of the activations.")]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        "--layer",
        metavar="PATTERN:[SETTING=]FORMAT",
        help="Formats of some layers, e.g. 'classify:weights=fixed<4>'; may be given again.",
    ),
]
ScalingName = Annotated[
    str | None,
    typer.Option("--scaling", help="The trained scale: power_of_two (default), free, or exponent_bias."),
]
Config = Annotated[Path | None, typer.Option("--config", help="A TOML file with any of these options.")]
FloatEpochs = Annotated[int | None, typer.Option("--float-epochs", min=0, help="Epochs before quantisation.")]
Seed = Annotated[
    int | None, typer.Option("--seed", min=0, help="Random seed of weights and training.  [default: 0]")
]
Methods = Annotated[
    str | None,
    typer.Option(
        "--methods",
        help=f"What is done without training, with commas between: {', '.join(names_in('methods'))}, or none."
        f"  [default: {','.join(DEFAULT_METHODS)}]",
    ),
]
CalibrationName = Annotated[
    str | None,
    typer.Option(
        "--calibration",
        help=f"How ranges are chosen without training: {', '.join(names_in('calibrations'))}, or "
        f"percentile:99.99.  [default: {DEFAULT_CALIBRATION}]",
    ),
]
CalibrationSamples = Annotated[
    int | None,
    typer.Option(
        "--samples",
        min=2,
        help="Samples of the training split that ptq looks at.  [default: 512]",
    ),
]
Samples = Annotated[int | None, typer.Option("--samples", min=1, help="Take at most this many samples.")]


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"qhw {version('qhw')}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Options that come before or after any command (``main`` takes them out of the arguments)."""
    if context.invoked_subcommand is None:
        from qhw.report.first_contact import what_next

        typer.echo(printable(what_next(Path())))


@app.command(cls=FlowCommand)
def build(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A built-in model, a QONNX file, or file.py:function.  [default: digits-cnn]",
            autocompletion=_models,
        ),
    ] = None,
    board: Board = None,
    design: Annotated[
        str | None,
        typer.Option("--design", metavar="FRONT.json#N", help="A point that 'qhw search' found, as it is."),
    ] = None,
    flow: Annotated[
        str | None,
        typer.Option(
            "--flow", help=f"The kind of project: {', '.join(list_flows())}.", autocompletion=_flows
        ),
    ] = None,
    data: Data = None,
    task: TaskName = None,
    metric: MetricName = None,
    target: Target = None,
    layout: Layout = None,
    preprocess: Preprocessing = None,
    state: State = None,
    trained: Trained = None,
    expect: Expect = None,
    input_type: InputType = None,
    number_format: NumberFormat = None,
    weights: Weights = None,
    activations: Activations = None,
    layers: Layers = None,
    scaling: ScalingName = None,
    quantise: Annotated[
        str | None,
        typer.Option(
            "--quantise", help=f"How the network is quantised: {', '.join(QUANTISE)}.  [default: training]"
        ),
    ] = None,
    methods: Methods = None,
    calibration: CalibrationName = None,
    calibration_samples: CalibrationSamples = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Build folder.  [default: one in qhw-build]"),
    ] = None,
    config: Config = None,
    clock_mhz: Clock = None,
    fps: Fps = None,
    budget: Budget = None,
    multipliers: Multipliers = None,
    float_epochs: FloatEpochs = None,
    quantised_epochs: Annotated[
        int | None, typer.Option("--quantised-epochs", min=0, help="Epochs with quantisation.")
    ] = None,
    seed: Seed = None,
    device: Device = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="float32, or bf16 for products in training.  [default: float32]"),
    ] = None,
    vectors: Annotated[
        int | None,
        typer.Option("--vectors", min=1, help="Samples for the C-simulation (default: by its speed)."),
    ] = None,
    synth: Annotated[
        bool | None, typer.Option("--synth/--no-synth", help="Synthesise too, with the flow's tools.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train, export, lower, generate a project, simulate it and compare every output code."""
    given = {
        "model": model, "board": board, "flow": flow, "data": data, "format": number_format,
        "weights": weights, "activations": activations, "layer": layers or None, "scaling": scaling,
        "out": out, "task": task, "metric": metric, "target": target or None, "layout": layout,
        "preprocess": preprocess, "state": state, "trained": trained, "expect": expect,
        "clock_mhz": clock_mhz, "fps": fps, "budget": budget, "multipliers": multipliers,
        "input": input_type, "float_epochs": float_epochs, "quantised_epochs": quantised_epochs,
        "quantise": quantise, "methods": methods, "calibration": calibration, "samples": calibration_samples,
        "seed": seed, "device": device, "precision": precision,
        "vectors": vectors, "synth": synth, **flow_options(context),
    }  # fmt: skip
    with _command(as_json) as document:
        from qhw.pipeline import options as parsing
        from qhw.pipeline.run import build as run_build

        if design is None:
            chosen = parsing.merge(config, given)
        else:
            chosen = parsing.designed(design, given | {"config": config})
        with _live_progress() as progress:
            result = run_build(chosen, observer=progress)
        document.update(result.manifest)
        _show(result.tables(), f"Build folder: {result.folder}", f"Report: {result.report}", hidden=as_json)


@app.command(cls=FlowCommand)
def search(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            help="A built-in model, or file.py:function.  [default: digits-cnn]", autocompletion=_models
        ),
    ] = None,
    board: Board = None,
    flow: Annotated[
        str | None,
        typer.Option(
            "--flow", help=f"Whose hardware is priced: {', '.join(list_flows())}.", autocompletion=_flows
        ),
    ] = None,
    data: Data = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="What is minimised beside the loss of accuracy: lut, ff, dsp, bram18, share, memory, "
            "energy, interval; on a microcontroller instructions, interval, flash.  [default: the first]",
        ),
    ] = None,
    strategy: Annotated[
        str | None, typer.Option("--strategy", help="How points are proposed; 'help' lists the strategies.")
    ] = None,
    evaluator: Annotated[
        str | None, typer.Option("--evaluator", help="How points are judged; 'help' lists the evaluators.")
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option("--evaluations", min=1, help="Points that are judged at most.  [default: 200]"),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="What points are quantised by, as in qhw ptq.  [default: gpfq; none where they are trained]",
        ),
    ] = None,
    points: Annotated[
        int | None, typer.Option("--points", min=1, help="Points of the front at most.  [default: 24]")
    ] = None,
    fps: Fps = None,
    budget: Budget = None,
    multipliers: Multipliers = None,
    clock_mhz: Clock = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that judge points.  [default: 1]")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option("--scheduler", metavar="tcp://…", help="A Dask scheduler to join.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            "--store", help="The record: an SQLite file or postgresql://….  [default: in the folder]"
        ),
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The study's name in the store.")] = None,
    resume: Annotated[bool | None, typer.Option("--resume", help="Go on with what the store holds.")] = None,
    plot: Annotated[bool, typer.Option("--plot", help="Draw front.png beside report.html.")] = False,
    task: TaskName = None,
    metric: MetricName = None,
    target: Target = None,
    layout: Layout = None,
    preprocess: Preprocessing = None,
    state: State = None,
    trained: Trained = None,
    expect: Expect = None,
    float_epochs: Annotated[
        int | None, typer.Option("--float-epochs", min=0, help="Epochs of the float network.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Random seed of everything.  [default: 0]")
    ] = None,
    device: Device = None,
    config: Annotated[
        Path | None, typer.Option("--config", help="A TOML file with any of these options, and [space].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the result.  [default: one in qhw-search]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Choose each layer's format by accuracy and by what the hardware costs: the Pareto front of both."""
    given = {
        "model": model, "board": board, "flow": flow, "data": data, "against": against, "strategy": strategy,
        "evaluator": evaluator, "evaluations": evaluations, "methods": methods, "points": points, "fps": fps,
        "budget": budget,
        "multipliers": multipliers, "clock_mhz": clock_mhz, "workers": workers, "scheduler": scheduler,
        "store": store, "name": name, "resume": resume, "task": task, "metric": metric,
        "target": target or None, "layout": layout, "preprocess": preprocess, "state": state,
        "trained": trained, "expect": expect, "float_epochs": float_epochs, "seed": seed, "device": device,
        "out": out, **flow_options(context),
    }  # fmt: skip
    with _command(as_json) as document:
        if "help" in (strategy, evaluator):
            from qhw.report.search import choices_json, choices_tables

            document.update(choices_json())
            _show(choices_tables(), hidden=as_json)
            return
        from qhw.search import options as parsing
        from qhw.search.run import search as run_search

        chosen = parsing.merged(config, given)
        with _live_progress() as progress:
            result = run_search(chosen, observer=progress)
        document.update(result.to_json())
        lines = [
            f"Report: {result.report}",
            f"Front: {result.file}; build a point with 'qhw build --design {result.file}#1'",
        ]
        if plot:
            lines.append(f"Plot: {result.save_plot()}")
        _show(result.tables(), *lines, hidden=as_json)


@app.command()
def ptq(
    model: Annotated[
        str | None,
        typer.Argument(
            help="A built-in model, or file.py:function.  [default: digits-cnn]", autocompletion=_models
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            help="As for 'qhw build', or none: samples are then made from the network's batch norms.",
        ),
    ] = None,
    task: TaskName = None,
    metric: MetricName = None,
    target: Target = None,
    layout: Layout = None,
    preprocess: Preprocessing = None,
    state: State = None,
    trained: Trained = None,
    expect: Expect = None,
    shape: Annotated[
        str | None,
        typer.Option("--shape", help="With --data none, the shape of one sample, e.g. 1,28,28."),
    ] = None,
    input_type: InputType = None,
    number_format: NumberFormat = None,
    weights: Weights = None,
    activations: Activations = None,
    layers: Layers = None,
    scaling: ScalingName = None,
    methods: Methods = None,
    calibration: CalibrationName = None,
    samples: CalibrationSamples = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The QONNX file, which 'qhw build' takes.")] = Path(
        "model.onnx"
    ),
    config: Config = None,
    float_epochs: FloatEpochs = None,
    seed: Seed = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Quantise a trained network without training, and write it as a QONNX file."""
    given = {
        "model": model, "data": data, "format": number_format, "weights": weights,
        "activations": activations, "layer": layers or None, "scaling": scaling, "task": task,
        "metric": metric, "target": target or None, "layout": layout, "preprocess": preprocess,
        "state": state, "trained": trained, "expect": expect, "input": input_type,
        "float_epochs": float_epochs, "quantise": "ptq", "methods": methods, "calibration": calibration,
        "samples": samples, "seed": seed, "device": device,
    }  # fmt: skip
    with _command(as_json) as document:
        from qhw.pipeline import options as parsing
        from qhw.pipeline.quantise import quantise_file, shape_of

        chosen = parsing.merge(config, given)
        with _live_progress() as progress:
            progress.started("ptq")
            result = quantise_file(
                chosen, out, shape=None if shape is None else shape_of(shape), tell=progress.progress
            )
        document.update(result.to_json())
        _show(result.tables(), f"QONNX file: {result.path}", hidden=as_json)


@app.command()
def simulate(
    model: Annotated[str, typer.Argument(help="A QONNX file or a build folder.")],
    data: Data = None,
    task: TaskName = None,
    metric: MetricName = None,
    target: Target = None,
    layout: Layout = None,
    inputs: Inputs = None,
    samples: Samples = None,
    backend: Annotated[
        str,
        typer.Option(
            "--backend", help="exact (fast executor), interpreter, qonnx, or csim (a build folder's project)."
        ),
    ] = "exact",
    device: Device = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Save every layer's mantissas (.npz).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Run a model exactly, on a data set or on your own inputs; a build folder on what it was verified on."""
    with _command(as_json) as document:
        from qhw import api
        from qhw.data import Reading

        file, input_type = _file_and_type(inputs or [])
        reading = Reading(task or "", metric or "", tuple(target or ()), layout or "")  # type: ignore[arg-type]
        result = api.simulate(
            model,
            data=data,
            reading=reading,
            inputs=file,
            samples=samples,
            backend=backend,
            device=device or "cpu",
            save_trace=out,
            input=input_type,
        )
        document.update(result.to_json())
        _show(result.tables(), hidden=as_json)


@app.command()
def run(
    folder: Annotated[str, typer.Argument(help="A build folder, whose bitstream the board holds.")],
    port: Annotated[str, typer.Option("--port", "-p", help="The board's serial port, e.g. /dev/ttyUSB0.")],
    data: Data = None,
    task: TaskName = None,
    metric: MetricName = None,
    target: Target = None,
    layout: Layout = None,
    input_file: InputFile = None,
    count: Annotated[
        int | None, typer.Option("--count", "--samples", min=1, help="Send at most this many samples.")
    ] = None,
    baud: Annotated[
        int | None, typer.Option("--baud", min=1, help="Bits a second.  [default: those of the build]")
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", help="Seconds without an answer that are too many.  [default: by how long one takes]"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Send samples to a board, and compare every code with the exact graph; exit code 1 if one differs."""
    with _command(as_json) as document:
        from qhw import api
        from qhw.data import Reading

        reading = Reading(task or "", metric or "", tuple(target or ()), layout or "")  # type: ignore[arg-type]
        with _live_progress() as progress:
            result = api.run(
                folder,
                port=port,
                data=data,
                inputs=input_file,
                samples=count,
                baud=baud,
                timeout=timeout,
                reading=reading,
                observer=progress,
            )
        document.update(result.to_json())
        _show(result.tables(), hidden=as_json)
    if not result.equal:
        raise typer.Exit(1)


@app.command(cls=FlowCommand)
def cost(
    context: typer.Context,
    model: Annotated[str, typer.Argument(help="A QONNX file or a build folder.")],
    board: Board = None,
    flow: Annotated[
        str | None,
        typer.Option(
            "--flow", help=f"The architecture to estimate: {', '.join(list_flows())}.", autocompletion=_flows
        ),
    ] = None,
    input_type: InputType = None,
    clock_mhz: Clock = None,
    fps: Fps = None,
    budget: Budget = None,
    multipliers: Multipliers = None,
    as_json: Json = False,
) -> None:
    """Estimate resources, latency and energy per layer, at the fastest folding that fits the board."""
    with _command(as_json) as document:
        from qhw import api
        from qhw.pipeline.options import share_of

        result = api.cost(
            model,
            board=board,
            flow=flow,
            clock_mhz=clock_mhz,
            fps=fps,
            budget=None if budget is None else share_of(budget),
            multipliers=multipliers or "auto",
            input=input_type,
            **flow_options(context),
        )
        document.update(result.to_json())
        _show(result.tables(), hidden=as_json)


@app.command()
def diff(
    first: Annotated[str, typer.Argument(metavar="A", help="See above.")],
    second: Annotated[str, typer.Argument(metavar="B", help="See above.")],
    data: Data = None,
    input_file: InputFile = None,
    samples: Samples = None,
    as_json: Json = False,
) -> None:
    """Show where two executions part, layer by layer; exit code 1 if they do.

    Each of A and B is FILE.onnx (its exact graph), FILE.onnx@qonnx (executed by qonnx), a build folder
    (its project's C-simulation), or a trace that 'qhw simulate --out FILE.npz' saved.
    """
    with _command(as_json) as document:
        from qhw import api

        result = api.diff(first, second, data=data, inputs=input_file, samples=samples)
        document.update(result.to_json())
        _show(result.tables(), hidden=as_json)
    if not result.equal:
        raise typer.Exit(1)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="A build folder, or the folder of a search.")],
    as_json: Json = False,
) -> None:
    """Write report.html again: one page that opens offline, on a phone and in print."""
    with _command(as_json) as document:
        from qhw.pipeline.reporting import report as run

        with _live_progress() as progress:
            page = run(folder, observer=progress)
        document.update({"report": str(page)})
        _show((), f"Report: {page}", hidden=as_json)


@app.command()
def boards(
    name: Annotated[str | None, typer.Argument(help="A board's name or TOML file.")] = None,
    as_json: Json = False,
) -> None:
    """List the boards, or show one with the sources of its numbers."""
    with _command(as_json) as document:
        from qhw.report import boards as report

        document.update(report.boards_json(name))
        _show(report.boards_tables(name), hidden=as_json)


@app.command()
def calibrate(
    family: Annotated[str, typer.Option("--family", help="ultrascale-plus, 7series or ecp5.")],
    units: Annotated[
        str | None, typer.Option("--units", help="Units to measure, separated by commas.  [default: all]")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option("--jobs", min=1, help="Syntheses at a time.  [default: one per processor]")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Measure at most this many designs now.")
    ] = None,
    tool: Annotated[str, typer.Option("--tool", help="yosys, or vivado where it is on the PATH.")] = "yosys",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The measured set.  [default: the project's own]")
    ] = None,
    as_json: Json = False,
) -> None:
    """Synthesise the circuits that the cost models stand on; measures only what the set does not hold."""
    with _command(as_json) as document:
        from qhw.cost.calibration.calibrate import calibrate as run
        from qhw.cost.calibration.calibrate import oracle_of
        from qhw.report.calibration import calibration_tables

        oracle = oracle_of(tool, family)
        with _live_progress() as progress:
            progress.started("measure")
            result = run(
                family,
                units=units.split(",") if units else (),
                jobs=jobs,
                limit=limit,
                path=out,
                oracle=oracle,
                progress=progress.progress,
            )
        document.update(result.to_json())
        _show(calibration_tables(result), hidden=as_json)


@app.command()
def doctor(as_json: Json = False) -> None:
    """List the optional tools: which are installed, what each one unlocks, and how to get it."""
    with _command(as_json) as document:
        from dataclasses import asdict

        from qhw.doctor import diagnose

        diagnosis = diagnose()
        document["tools"] = [asdict(tool) for tool in diagnosis.found]
        _show(diagnosis.tables(), hidden=as_json)


def _file_and_type(given: list[str]) -> tuple[Path | None, str | None]:
    """The file and the integer type among the values of ``--input``; raises InputError for two of a kind."""
    from qhw.errors import InputError
    from qhw.pipeline.input_type import is_type_name

    types = [text for text in given if is_type_name(text)]
    files = [text for text in given if not is_type_name(text)]
    if len(types) > 1 or len(files) > 1:
        raise InputError(
            f"--input is given as {' and '.join(given)}",
            allowed="one .npy or .npz file and one type, e.g. uint8",
        )
    return Path(files[0]) if files else None, types[0] if types else None


@contextlib.contextmanager
def _command(as_json: bool) -> Iterator[dict[str, Any]]:
    """Around every command: a document to fill, and errors told in one message with their exit code.

    With ``--json`` the document is all that reaches stdout: what libraries and child processes print
    there goes to stderr, and an error takes the document's place.
    """
    document: dict[str, Any] = {}
    with _stdout_to_stderr() if as_json else contextlib.nullcontext(sys.stdout) as real_stdout:
        message, code = "", 0
        try:
            yield document
        except QhwError as error:
            if _debug():
                raise
            message, code = str(error), error.exit_code
        except OSError as error:
            if _debug():
                raise
            where = f"{error.filename}: " if error.filename else ""
            message, code = f"{where}{error.strerror or error} (--debug tells where)", QhwError.exit_code
        except MemoryError:
            if _debug():
                raise
            message, code = "there is not enough memory for this (--debug tells where)", QhwError.exit_code
        except KeyboardInterrupt:
            message, code = "interrupted; the same command goes on from the finished stages", INTERRUPTED
        except Exception as error:
            if _debug():
                raise
            message, code = _fault(error), FAULT
        if message:
            message = brief(message)
            _tell(message)
            document = {"error": message, "exit_code": code}
        if as_json and not _written(real_stdout, json.dumps(document, indent=2) + "\n"):
            code = QhwError.exit_code
    if code:
        raise typer.Exit(code)


def _fault(error: Exception) -> str:
    """What is told of an exception that nobody foresaw."""
    return (
        f"{type(error).__name__}: {error}\n"
        "This is a fault of qhw. To do: please report it, with the input and what the same command prints "
        "with --debug"
    )


def _tell(message: str) -> None:
    """An error on stderr; where that cannot be written the exit code has to do."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"Error: {printable(message)}\n")
        sys.stderr.flush()


def _written(stream: TextIO, text: str) -> bool:
    """Write past the buffer, which closing would write again; tells on stderr why it is not possible."""
    data = text.encode()
    try:
        while data:
            data = data[os.write(stream.fileno(), data) :]
    except OSError as error:
        _tell(f"the JSON document cannot be written: {error.strerror}")
        return False
    return True


def _debug() -> bool:
    import logging

    return logging.getLogger("qhw").level == logging.DEBUG


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[Any]:
    """Yields the real stdout while file descriptor 1 is another name of stderr."""
    sys.stdout.flush()
    kept = os.dup(1)
    try:
        os.dup2(2, 1)
        with os.fdopen(os.dup(kept), "w", encoding="utf-8") as real_stdout:
            yield real_stdout
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _live_progress() -> Iterator[Any]:
    from qhw.report.progress import LiveProgress

    with LiveProgress(_console(sys.stderr)) as progress:
        yield progress


def _console(stream: TextIO) -> Console:
    """A console on a stream; as wide as the terminal, 120 columns where there is none."""
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else 120)


def _show(tables: Iterable[Table], *lines: str, hidden: bool) -> None:
    if hidden:
        return
    from qhw.report.tables import print_tables

    console = _console(sys.stdout)
    print_tables(console, tables)
    for line in lines:
        console.print(printable(line), markup=False, highlight=False, soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; always ends in ``SystemExit``.

    Exit codes: 0 done, 1 a check failed, 2 bad input, 70 a fault of qhw, 130 Ctrl-C.
    """
    given = sys.argv[1:] if arguments is None else arguments
    _open_closed_streams()
    _replace_what_terminals_lack()
    _log_to_stderr("--debug" in given)
    app([argument for argument in given if argument != "--debug"], prog_name="qhw")


def _open_closed_streams() -> None:
    """Nothing that is opened later may become stdin, stdout or stderr because that was closed.

    Without stdout there is nowhere to print: that is an error, as it is of other programs.
    """
    if sys.stdin is None:
        os.open(os.devnull, os.O_RDONLY)
    is_closed = sys.stdout is None
    if is_closed:
        os.open(os.devnull, os.O_WRONLY)
    if sys.stderr is None:
        os.open(os.devnull, os.O_WRONLY)
        sys.stderr = os.fdopen(2, "w", closefd=False)
    if is_closed:
        _tell("stdout is closed\nTo do: give it a file or a pipe, or /dev/null")
        raise SystemExit(QhwError.exit_code)


def _replace_what_terminals_lack() -> None:
    """Where the locale's encoding has no µ, print a ? in its place, rather than end in an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _log_to_stderr(debug: bool) -> None:
    import logging

    class Printable(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return printable(super().format(record))

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Printable("%(name)s: %(message)s" if debug else "%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("qhw").setLevel(logging.DEBUG if debug else logging.WARNING)
