"""The stages of a build, in order: what each one reads, does and writes into the build folder.

====================  =======================================================================
train                 ``training/``: the trained weights
ptq                   ``quantised/``: the weights of the quantised network, with ``--quantise ptq``
export, or import     ``model.onnx``
lower                 ``graph/``: the exact graph (and ``canonical.onnx`` where scales are arbitrary)
widths                only where the flow chooses bits of feature maps: ``graph/`` has them, as has
                      ``mixed.onnx``; ``lowered/`` is the graph before, ``widths.json`` says why;
                      ``retrained/``: what torch says, where it was trained with them
cost                  ``cost/``: folding, and what the design is estimated to take (or that none fits)
vectors               ``vectors/``: inputs, labels, and the exact graph's codes for them
project               ``project/``: what the flow generates
compile, verify       the project's C-simulation against the exact graph, layer by layer
synth                 ``synthesis.json``, with ``--synth``
report                ``report.html`` (:mod:`qhw.pipeline.reporting`)
====================  =======================================================================
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.arrays import LARGEST_FILE, load_arrays, load_mantissas, read_array, save_arrays
from qhw.boards import Board
from qhw.data.inputs import Samples, parts_of, rows_of
from qhw.errors import InputError, UnsupportedError
from qhw.outside import inside, sha256
from qhw.outside.schema import by_name, check, table
from qhw.outside.text import read_json
from qhw.pipeline.data_choice import DataChoice
from qhw.pipeline.designs import best_design, check_computes, without_channels
from qhw.pipeline.input_type import annotated_copy
from qhw.pipeline.options import PTQ_OPTIONS, BuildOptions
from qhw.pipeline.own_metric import record_of
from qhw.pipeline.source import Source, is_quantised, load_module, require_training
from qhw.pipeline.stages import Stage, Workspace, check_own, file_digest, json_digest, tree_digests
from qhw.pipeline.state import LARGEST_STATE, load_state
from qhw.pipeline.verification import (
    canonical_row,
    checked,
    departures_of_qonnx,
    qonnx_row,
    torch_row,
)
from qhw.preprocessing import Preprocessing, preprocessed, preprocessing_of
from qhw.resources import resource_dir
from qhw.sim.rows import Row, not_compared, row_of
from qhw.torch_device import chosen_device, is_device

if TYPE_CHECKING:
    from torch import nn

    from qhw.cost import Design
    from qhw.data import Dataset
    from qhw.flows.base import ChosenWidths, FlowStage, Project, ProjectFlow
    from qhw.formats.modes import IntArray
    from qhw.graph.ir import ExactGraph
    from qhw.sim.fast import FastExecutor
    from qhw.tasks import Judge, Metric
    from qhw.train import Progress, TrainConfig

Facts = dict[str, Any]

MODEL_FILE = "model.onnx"
CANONICAL_FILE = "canonical.onnx"
MIXED_FILE = "mixed.onnx"
GRAPH_FOLDER = "graph"
LOWERED_FOLDER = "lowered"
"""The graph as it was lowered, where the flow has then chosen other widths."""

RETRAINED_FOLDER = "retrained"
"""Weights and torch's values, where the network was trained with these widths."""

PROJECT_FOLDER = "project"

TEST_BENCH_VECTORS = 16
"""Samples that the project's own test bench runs."""

SLOW_REFERENCE_VECTORS = 16
"""Samples for the executors that are a reference, not fast: qonnx and the interpreter."""

LAYER_VECTORS = 64
"""Samples on which torch and the exact graph are compared layer by layer; their outputs: on all."""

RANDOM_VECTORS = 64
"""Random samples that a build without data is verified on."""

WIDTHS_SAMPLES = 64
"""Training samples whose feature maps are counted to choose widths by."""

RETRAINING_RATE = 0.1
"""Of the recipe's learning rate, with which a trained network is trained on with other widths."""

SIMULATION_MACS = 1_500_000_000
"""Multiply-accumulates that the default number of C-simulation vectors adds up to: about 20 s."""

EXPORTED_AS_IT_IS = "quantised already: exported as it is"

SYNTHESES = ("synth", "bitstream")
"""A flow's stages that are run with ``--synth``."""

LARGEST_DEPARTURE = 0.01
"""Points (of 1) by which a trained network may miss the figure that its user had."""


@dataclass(frozen=True)
class BuildPlan:
    """A build, with every name in its options looked up."""

    options: BuildOptions
    source: Source
    board: Board
    flow: ProjectFlow
    data: DataChoice | None
    folder: Path

    @property
    def board_digest(self) -> str:
        """SHA-256 of what the board's description says, its sources left out."""
        board = self.board
        return json_digest([board.name, board.part, board.family, board.clock_mhz, dict(board.capacity)])


def stages(plan: BuildPlan) -> list[Stage]:
    """The stages of a build, each with what it depends on."""
    options = plan.options
    data = {"data": plan.data.identity if plan.data else None}
    judged = {"metric": record_of(plan.data.metric if plan.data else None), "expect": options.expect}
    board = {"board": plan.board_digest}
    flow = {"flow": [options.flow, plan.flow.chosen]}
    checked_by = {"checked_by": plan.flow.checked_by()}
    wanted = {"wanted": options.wanted.to_json()}
    first = _first_stages(plan, data)
    made = first[-1].name
    lowers = {"widths": plan.flow.chooses_widths}
    graph: tuple[str, ...] = ("lower",)
    chain = [*first, _stage(plan, "lower", _lower, (made,), lowers)]
    if plan.flow.chooses_widths:
        graph = ("lower", "widths")
        retrained = _trained_with(plan) if plan.flow.retrain_epochs else {}
        needs = (*(["train"] if retrained else []), made, "lower")
        chain.append(_stage(plan, "widths", _widths, needs, board | flow | wanted | data | retrained))
    chain += [
        _stage(plan, "cost", _cost, graph, board | flow | wanted),
        _stage(plan, "vectors", _vectors, (made, *graph), data | judged),
        replace(
            _stage(plan, "project", _project, (*graph, "cost", "vectors"), board | flow | wanted),
            keeps_edits=True,
            added=partial(project_sources, plan.flow),
        ),
        _stage(plan, "compile", _compile, ("project",), flow | checked_by),
        _stage(
            plan,
            "verify",
            _verify,
            (*graph, "vectors", "project"),
            flow | checked_by | {"vectors": options.vectors},
        ),
    ]
    further = [stage for stage in plan.flow.stages if options.synth and stage.name in SYNTHESES]
    return [*chain, *(_stage(plan, s.name, partial(_further, s), ("project",), flow) for s in further)]


def _trained_with(plan: BuildPlan) -> dict[str, Any]:
    """What a further training depends on, beside the weights that it begins with."""
    options = plan.options
    return {
        "model": plan.source.digest,
        "seed": options.seed,
        "quant": repr(options.quant_config()),
        "recipe": _weighing(options.training),
    }


def _first_stages(plan: BuildPlan, data: Mapping[str, Any]) -> list[Stage]:
    """How the model becomes model.onnx."""
    options, model = plan.options, {"model": plan.source.digest}
    annotation = {"input": options.input, **data}
    if plan.source.kind == "qonnx":
        return [_stage(plan, "import", _import, (), model | annotation)]
    if not plan.source.is_trained_here:
        return [_stage(plan, "export", _export_given, (), {**model, **data, **annotation})]
    handed = {
        "state": None if options.state is None else sha256(options.state, "state", LARGEST_STATE),
        "trained": options.trained,
        "preprocess": _said(preprocessing_of(options.preprocess)),
        "expect": options.expect,
    }
    given = {**model, **data, **handed, "seed": options.seed, "quant": repr(options.quant_config())}
    recipe = {"recipe": [options.float_epochs, options.quantised_epochs, _weighing(options.training)]}
    if not options.is_trained_quantised:
        in_float = {name: value for name, value in given.items() if name != "quant"}
        chosen = given | {"ptq": repr(options.ptq_settings())}
        return [
            _stage(plan, "train", _train_float, (), in_float | recipe),
            _stage(plan, "ptq", _ptq, ("train",), chosen),
            _stage(plan, "export", _export_ptq, ("ptq",), chosen | annotation),
        ]
    return [
        _stage(plan, "train", _train, (), given | recipe),
        _stage(plan, "export", _export_trained, ("train",), given | annotation),
    ]


def _said(preprocessing: Preprocessing) -> str:
    """A preprocessing as text: equal text, equal numbers."""
    return repr(preprocessing[""] if set(preprocessing) == {""} else sorted(preprocessing.items()))


def _weighing(training: Mapping[str, Any]) -> dict[str, Any]:
    """Training settings as far as they decide the weights: of a GPU its kind alone, not which one it is."""
    if not is_device(training.get("device")):
        return dict(training)  # without one, or refused where training starts
    kind = chosen_device(training["device"]).type
    rest = {name: value for name, value in training.items() if name != "device"}
    return rest if kind == "cpu" else rest | {"device": kind}


def _stage(
    plan: BuildPlan,
    name: str,
    run: Callable[[BuildPlan, Workspace], Facts],
    needs: tuple[str, ...],
    inputs: Mapping[str, Any] | None = None,
) -> Stage:
    return Stage(name, partial(run, plan), {"qhw": source_digest(), **(inputs or {})}, needs)


@cache
def source_digest() -> str:
    """SHA-256 over this package's own files and what it copies into projects: other code, other results."""
    kinds = {".py", ".h", ".c", ".cpp", ".json", ".ld", ".v"}
    folders = (
        Path(__file__).parent.parent,
        resource_dir("hls"),
        resource_dir("mcu"),
        resource_dir("cost_models") / "rtl",
    )
    return json_digest(
        [
            {name: digest for name, digest in tree_digests(folder).items() if Path(name).suffix in kinds}
            for folder in folders
        ]
    )


def read_graph(folder: Path, name: str = GRAPH_FOLDER) -> ExactGraph:
    """The exact graph of a build folder: the one that is built, or ``LOWERED_FOLDER``, as it was lowered."""
    from qhw.graph.serialize import load_graph

    return load_graph(folder / name)


# --- a model becomes model.onnx ---------------------------------------------------------------------


def _import(plan: BuildPlan, work: Workspace) -> Facts:
    from qhw.graph.reading.load import load_qonnx

    assert plan.source.path is not None
    model = load_qonnx(plan.source.path)
    shutil.copyfile(plan.source.path, work.scratch / MODEL_FILE)
    data = None if plan.data is None else plan.data.dataset
    return _model_facts(plan, work, f"{len(model.graph.node)} nodes", data)


def _model_facts(plan: BuildPlan, work: Workspace, summary: str, data: Dataset | None) -> Facts:
    """Facts of model.onnx, once its input is annotated where that is needed."""
    file = work.scratch / MODEL_FILE
    annotations = annotated_copy(file, file, plan.options.input, data)
    facts: Facts = {"sha256": file_digest(file), "summary": summary}
    if not annotations:
        return facts
    stored = [annotation.to_json() for annotation in annotations]
    told = "".join(f"; '{made.input}' is {made.type} ({made.why})" for made in annotations)
    return facts | {"annotated": stored[0] if len(stored) == 1 else stored, "summary": summary + told}


def _train(plan: BuildPlan, work: Workspace) -> Facts:
    import torch

    from qhw.train import predict, train

    module, data = _network(plan)
    if is_quantised(module):  # only a function's result: of all others it is known without loading them
        check_idle(plan.source, plan.options)
        return {"summary": EXPORTED_AS_IT_IS}
    told = check_expected(plan.options, module, data)
    if data.own_metric is not None and not told:
        # What a user's function does not take is said now, not after hours of training.
        data.own_metric.score(predict(module, data.test_x), data.test_targets)
    result = train(
        module,
        data,
        recipe_of(plan.source, plan.options),
        plan.options.quant_config(),
        checkpoints=work.partial,
        progress=telling(work.progress),
    )
    (work.scratch / "training").mkdir()
    torch.save(result.quantised_model.state_dict(), work.scratch / "training" / "quantised.pt")
    torch.save(result.float_model.state_dict(), work.scratch / "training" / "float.pt")
    return {
        "float": result.float_accuracy,
        "quantised": result.quantised_accuracy,
        "samples": result.samples,
        "summary": f"{data.figure.name} {data.figure.written(result.quantised_accuracy)} "
        f"(float {data.figure.written(result.float_accuracy)}) on {result.samples} test samples{told}",
    }


def telling(progress: Callable[[float | None, str], None]) -> Callable[[Progress], None]:
    """What training calls after each step, so that its share of the phase is told."""

    def tell(step: Progress) -> None:
        done = (step.epoch - 1 + step.step / step.steps) / step.epochs
        progress(done, f"{step.phase}, epoch {step.epoch} of {step.epochs}, loss {step.loss:.3f}")

    return tell


def _train_float(plan: BuildPlan, work: Workspace) -> Facts:
    import torch

    from qhw.train import train_float

    options = plan.options
    module, data = _network(plan)
    if is_quantised(module):
        check_idle(plan.source, options)
        return {"summary": EXPORTED_AS_IT_IS}
    told = check_expected(options, module, data)
    model, figure = train_float(
        module,
        data,
        recipe_of(plan.source, options),
        options.quant_config(),
        checkpoints=work.partial,
        progress=telling(work.progress),
    )
    (work.scratch / "training").mkdir()
    torch.save(model.state_dict(), work.scratch / "training" / "float.pt")
    summary = f"{data.figure.name} {data.figure.written(figure)} on {len(data.test_x)} test samples{told}"
    return {"float": figure, "samples": len(data.test_x), "summary": summary}


def _ptq(plan: BuildPlan, work: Workspace) -> Facts:
    """The float network is quantised without training."""
    import torch

    from qhw.outside.weights import read_weights
    from qhw.ptq.run import quantise
    from qhw.tracing import trainable
    from qhw.train import as_inputs

    options = plan.options
    module, data = _network(plan)
    if is_quantised(module):
        return {"summary": EXPORTED_AS_IT_IS}
    module = trainable(module, as_inputs(rows_of(data.train_x, slice(2))))
    module.load_state_dict(
        read_weights(work.build / "training" / "float.pt", "trained weights", LARGEST_FILE)
    )
    result = quantise(module, data, options.quant_config(), options.ptq_settings(), tell=work.progress)
    (work.scratch / "quantised").mkdir()
    torch.save(result.model.state_dict(), work.scratch / "quantised" / "weights.pt")
    assert result.quantised is not None
    summary = (
        f"{data.figure.name} {data.figure.written(result.quantised)} by "
        f"{', '.join(result.settings.methods) or 'calibration alone'}, without training"
    )
    facts = result.to_json()
    del facts["seconds"]  # facts depend on the inputs alone
    return facts | {"summary": summary}


def _export_ptq(plan: BuildPlan, work: Workspace) -> Facts:
    from qhw.outside.weights import read_weights
    from qhw.ptq.calibrated import skeleton
    from qhw.ptq.run import chosen_samples

    options = plan.options
    module, data = _network(plan)
    if is_quantised(module):
        return _export(module, data, plan, work)
    settings = options.ptq_settings()
    example = chosen_samples(data, settings)[0][:2]
    model = skeleton(module, options.quant_config(), settings, example, pixels=data.has_pixels)
    model.load_state_dict(read_weights(work.build / "quantised" / "weights.pt", "weights", LARGEST_FILE))
    return _export(model, data, plan, work)


def _network(plan: BuildPlan) -> tuple[nn.Module, Dataset]:
    """The network with the weights and the preprocessing that were handed over; the data for its inputs."""
    from qhw.train import data_for

    data = _required_data(plan).dataset
    module = load_module(plan.source, data, plan.options.seed)
    data = data_for(module, data)
    return handed_over(module, plan.source, plan.options, data.train_x), data


def network_of(source: Source, options: BuildOptions, samples: Samples, data: Dataset | None) -> nn.Module:
    """The network with the weights and the preprocessing that were handed over.

    Args:
        samples: (N, ...), as the network is given them.
        data: the data set that a built-in network is made for.

    Raises:
        InputError, UnsupportedError: the network cannot be made, or what was handed over is none of it.
    """
    return handed_over(load_module(source, data, options.seed), source, options, samples)


def handed_over(module: nn.Module, source: Source, options: BuildOptions, samples: Samples) -> nn.Module:
    """A network with the weights and the preprocessing that were handed over beside it."""
    from qhw.tracing import arguments_of, trainable
    from qhw.train import as_inputs

    preprocessing = preprocessing_of(options.preprocess)
    if is_quantised(module):
        if options.state is not None or not all(part.is_none for part in preprocessing.values()):
            raise InputError(
                f"{source.given} is quantised already: state and preprocess have no place in it",
                hint="load the weights, and put the preprocessing into its forward(), before it is given",
            )
        return module
    arrays = parts_of(samples)
    names = arguments_of(module, len(arrays))
    if options.state is not None:
        module = trainable(module, as_inputs(rows_of(samples, slice(2))))
        load_state(module, options.state)
    return preprocessed(module, preprocessing, [array.shape for array in arrays], names)


def check_expected(options: BuildOptions, module: nn.Module, data: Dataset) -> str:
    """What a network that was trained elsewhere reaches in float, before anything is done to it.

    Raises:
        InputError: that is less than its user had.
    """
    if not options.is_trained:
        return ""
    from qhw.tracing import check_runs
    from qhw.train import as_inputs, evaluate

    check_runs(module, as_inputs(rows_of(data.test_x, slice(2))))
    found = evaluate(module, data)
    _require_figure(
        options,
        data,
        found,
        "in float the network's",
        "say what training did to them: --preprocess 'scale=1/255 mean=… std=…'",
    )
    return f"; it came with {data.figure.written(found)}"


def _require_figure(options: BuildOptions, data: Dataset, found: float, whose: str, remedy: str) -> None:
    """Refuse a figure that is worse than its user had; what happens to samples first is the likely cause."""
    figure, expected = data.figure, options.expect
    if expected is not None and figure.loss_against(expected, found) > LARGEST_DEPARTURE:
        raise InputError(
            f"{whose} {figure.name} is {figure.written(found)} on data set {data.name}, "
            f"not {figure.written(expected)}",
            hint=f"samples run {_bounds(data)} here; {remedy}",
        )


def _bounds(data: Dataset) -> str:
    """The smallest and the largest number of the samples, of each input."""
    return " and ".join(f"from {part.min():g} to {part.max():g}" for part in data.inputs("test"))


def _export_trained(plan: BuildPlan, work: Workspace) -> Facts:
    from qhw.convert import convert
    from qhw.outside.weights import read_weights
    from qhw.train import as_inputs, quant_of

    given, data = _network(plan)
    if is_quantised(given):
        return _export(given, data, plan, work)
    example = as_inputs(rows_of(data.train_x, slice(2)))
    model = convert(given, quant_of(plan.options.quant_config(), data, given), example)
    weights = work.build / "training" / "quantised.pt"
    model.load_state_dict(read_weights(weights, "trained weights", LARGEST_FILE))
    return _export(model, data, plan, work)


def _export_given(plan: BuildPlan, work: Workspace) -> Facts:
    require_training()
    from qhw.train import data_for

    module = plan.source.module
    return _export(module, data_for(module, _required_data(plan).dataset), plan, work)


def _export(model: nn.Module, data: Dataset, plan: BuildPlan, work: Workspace) -> Facts:
    """Write model.onnx, and what torch itself says in float64: every layer, and the whole test split."""
    import torch

    from qhw.export import export_qonnx
    from qhw.train import as_inputs, predict

    model.eval()
    export_qonnx(model, work.scratch / MODEL_FILE, as_inputs(rows_of(data.test_x, slice(1))))
    work.progress(None, "torch in float64")
    folder = work.scratch / "torch"
    folder.mkdir()
    np.save(folder / "outputs.npy", predict(model, data.test_x, dtype=torch.float64))
    if layers := _torch_layers(model, rows_of(data.test_x, slice(LAYER_VECTORS))):
        save_arrays(folder / "layers.npz", layers)
    size = (work.scratch / MODEL_FILE).stat().st_size
    # A file may call inputs otherwise than forward() does; their order is the same.
    in_order = replace(data, names=()) if data.names else data
    facts = _model_facts(plan, work, f"{MODEL_FILE}, {size / 1024:,.0f} KiB", in_order)
    return facts | {"arguments": list(data.names)} if data.names else facts


def _torch_layers(model: nn.Module, samples: Samples) -> dict[str, NDArray[Any]]:
    """Every layer's values, where qhw converted the model; of a user's own, none."""
    from torch import fx

    from qhw.export import is_converted, layer_values

    return layer_values(model, samples) if isinstance(model, fx.GraphModule) and is_converted(model) else {}


def _required_data(plan: BuildPlan) -> DataChoice:
    if plan.data is None:
        raise InputError(
            f"The model {plan.source.given} has no data to train on", hint="name a data set with --data"
        )
    return plan.data


def check_idle(source: Source, options: BuildOptions) -> None:
    """Refuse options without effect: a quantised model has its formats, and is not trained.

    Raises:
        InputError: naming the options.
    """
    names = (
        *("weights", "activations", "quant", "training", "float_epochs", "quantised_epochs"),
        *("state", "trained", "preprocess", "quantise", *PTQ_OPTIONS),
    )
    if idle := [name for name in names if getattr(options, name) not in (None, {}, False, "training")]:
        raise InputError(
            f"{source.given} is quantised already: {', '.join(idle)} would change nothing",
            hint="leave them out, or give the plain model",
        )


def recipe_of(source: Source, options: BuildOptions) -> TrainConfig:
    """How a model is trained: by its own recipe, with what the options say in its place.

    Raises:
        InputError: a training setting is unknown or out of bounds, or its device is not there.
    """
    from qhw.errors import closest
    from qhw.train import TrainConfig

    if source.kind == "builtin":
        from qhw.models import model_entry

        recipe = model_entry(source.name).recipe()
    else:
        recipe = TrainConfig()
    known = asdict(recipe)
    for name in options.training:
        if name not in known:
            raise InputError(f"Unknown training setting {name!r}", hint=closest(name, known))
    epochs = {"float_epochs": options.float_epochs, "quantised_epochs": options.quantised_epochs}
    given = {name: value for name, value in epochs.items() if value is not None}
    if options.is_trained:
        given = {"float_epochs": 0} | given
    chosen = replace(recipe, **({"seed": options.seed} | dict(options.training) | given))
    chosen_device(chosen.device)
    return chosen


# --- model.onnx becomes codes -----------------------------------------------------------------------


def _lower(plan: BuildPlan, work: Workspace) -> Facts:
    from qhw.graph.lower import lower_model
    from qhw.graph.reading.load import load_qonnx
    from qhw.graph.serialize import graph_hash, save_graph

    lowering = lower_model(load_qonnx(work.build / MODEL_FILE))
    graph, canonical = lowering.graph, lowering.canonical
    check_computes(graph)
    if canonical is not None:
        canonical.save(str(work.scratch / CANONICAL_FILE))
    folder = work.scratch / (LOWERED_FOLDER if plan.flow.chooses_widths else GRAPH_FOLDER)
    folder.mkdir()
    save_graph(graph, folder)
    macs, weights = work_of(graph)
    return {
        "canonical": lowering.reason,
        "qonnx_departs": departures_of_qonnx(lowering.model),
        "nodes": len(graph.nodes),
        "macs": macs,
        "weights": weights,
        "graph_sha256": graph_hash(graph),
        "postprocessing": host_steps(graph),
        "summary": f"{len(graph.nodes)} integer operations, {macs:,} multiply-accumulates",
    }


def _widths(plan: BuildPlan, work: Workspace) -> Facts:
    """Feature maps of fewer bits, in the exact graph and in a QONNX file of it."""
    from qhw.graph.canonical import write_canonical
    from qhw.graph.encode import encode_inputs
    from qhw.graph.lower import lower_model
    from qhw.graph.reading.load import load_qonnx
    from qhw.graph.serialize import graph_hash, save_graph

    lowered = read_graph(work.build, LOWERED_FOLDER)
    given = _samples(plan, work, lowered, "train")
    samples = encode_inputs(lowered, {name: x[:WIDTHS_SAMPLES] for name, x in given.items()})
    chosen = plan.flow.with_widths(lowered, plan.board, samples, plan.options.wanted.share)
    graph, record = chosen.graph, chosen.record
    trained = ""
    if plan.flow.retrain_epochs:
        graph, trained = _retrained(plan, work, chosen)
    else:
        lowering = lower_model(load_qonnx(work.build / MODEL_FILE))
        write_canonical(graph, lowering.tails, lowering.model).save(str(work.scratch / MIXED_FILE))
    (work.scratch / GRAPH_FOLDER).mkdir()
    save_graph(graph, work.scratch / GRAPH_FOLDER)
    _write_json(work.scratch / "widths.json", record)
    bits = [choice["bits"] for choice in record["choices"]]
    counts = ", ".join(f"{bits.count(b)} of {b} bits" for b in sorted(set(bits), reverse=True))
    fewer = record["wide_bit_operations"] / max(record["bit_operations"], 1)
    return {
        "graph_sha256": graph_hash(graph),
        "summary": f"feature maps: {counts}; {fewer:.2f}x fewer bit operations{trained}",
    }


def _retrained(plan: BuildPlan, work: Workspace, chosen: ChosenWidths) -> tuple[ExactGraph, str]:
    """The graph of the network after some epochs of quantised training with the widths, and its figure.

    Raises:
        UnsupportedError: patches have widths of their own.
    """
    import torch

    from qhw.graph.lower import lower
    from qhw.outside.weights import read_weights
    from qhw.tracing import trainable
    from qhw.train import as_inputs, train

    if chosen.overrides is None:
        raise UnsupportedError(
            "Patches that hold outliers keep widths of their own, and a layer that is trained has one",
            hint="leave --retrain out, or state other patches",
        )
    options = plan.options
    module, data = _network(plan)
    module = trainable(module, as_inputs(rows_of(data.train_x, slice(2))))
    # Where quantised training was made already, its weights are nearer; quantizers begin anew.
    name = "quantised.pt" if options.is_trained_quantised else "float.pt"
    found = read_weights(work.build / "training" / name, "trained weights", LARGEST_FILE)
    module.load_state_dict({key: found[key] for key in module.state_dict()})
    quant = options.quant_config()
    overrides = {**quant.overrides, **chosen.overrides}
    recipe = recipe_of(plan.source, options)
    recipe = replace(
        recipe,
        float_epochs=0,
        quantised_epochs=plan.flow.retrain_epochs,
        learning_rate=RETRAINING_RATE * recipe.learning_rate,
    )
    result = train(
        module,
        data,
        recipe,
        replace(quant, overrides=overrides),
        checkpoints=work.partial,
        progress=telling(work.progress),
    )
    folder = work.scratch / RETRAINED_FOLDER
    folder.mkdir()
    torch.save(result.quantised_model.state_dict(), folder / "quantised.pt")
    _export(result.quantised_model, data, plan, replace(work, scratch=folder))
    (folder / MODEL_FILE).rename(work.scratch / MIXED_FILE)
    graph = plan.flow.rewritten(lower(work.scratch / MIXED_FILE))
    return graph, f"; {data.figure.name} {data.figure.written(result.quantised_accuracy)} trained with them"


def host_steps(graph: ExactGraph) -> list[dict[str, Any]]:
    """The host's operations behind the graph's outputs, as build.json lists them."""
    after = graph.postprocessing
    if after is None:
        return []
    return [
        {
            "op": step.op,
            "source": step.source,
            "inputs": list(step.inputs),
            "outputs": list(step.outputs),
            "shapes": [list(shape) for shape in step.shapes],
            "attributes": {k: list(v) if isinstance(v, tuple) else v for k, v in step.attributes.items()},
        }
        for step in after.steps
    ]


def work_of(graph: ExactGraph) -> tuple[int, int]:
    """Multiply-accumulates per sample, and constants that convolutions and matrix products read."""
    macs = weights = 0
    for node in graph.nodes:
        if node.op not in ("Conv", "MatMul"):
            continue
        out, operand = graph.tensors[node.output], graph.tensors[node.inputs[1]]
        depth = operand.size // operand.shape[0] if node.op == "Conv" else operand.shape[-2]
        macs += out.size * depth
        weights += operand.size if node.inputs[1] in graph.constants else 0
    return macs, weights


def _vectors(plan: BuildPlan, work: Workspace) -> Facts:
    """Inputs, and the codes that the exact graph answers with: what every backend is compared with."""
    from qhw.graph.encode import encode_inputs
    from qhw.sim.fast import FastExecutor

    graph = read_graph(work.build)
    inputs = _samples(plan, work, graph)
    mantissas = encode_inputs(graph, inputs)
    executor = FastExecutor(graph)
    outputs = executor(mantissas)
    folder = work.scratch / "vectors"
    folder.mkdir()
    save_arrays(folder / "inputs.npz", mantissas)
    save_arrays(folder / "outputs.npz", outputs)
    facts: Facts = {"samples": len(next(iter(mantissas.values())))}
    if plan.data is not None:
        data = plan.data.dataset
        own = "" if data.own_metric is None else data.own_metric.name
        np.savez(
            folder / "targets.npz",
            targets=data.test_targets,
            task=data.task,
            metric=data.metric,
            own_metric=own,
        )
        facts["accuracy"] = score(graph, outputs, data.judge)
        if not plan.source.is_trained_here:
            remedy = "what training did to them has to be in the model, in front of its first quantizer"
            _require_figure(plan.options, data, facts["accuracy"], "the model's", remedy)
        facts["metric"] = {"task": data.task, "metric": data.figure.name} | direction_of(data.figure)
        facts["warning"] = _warning_of_fall(plan, work, facts["accuracy"])
        facts["data_sha256"], facts["data_source"] = data.sha256, data.source
        facts["own_metric"] = record_of(plan.data.metric)
    rows = [_interpreter_row(work, executor, mantissas)]
    few = {name: x[:SLOW_REFERENCE_VECTORS] for name, x in inputs.items()}
    few_mantissas = {name: mantissas[name][:SLOW_REFERENCE_VECTORS] for name in few}
    if plan.flow.chooses_widths:
        if plan.flow.retrain_epochs:
            rows += _torch_rows(work, executor, mantissas, outputs, work.build / RETRAINED_FOLDER / "torch")
            rows.append(_retrained_row(work.build, executor, few, few_mantissas))
        else:
            rows.append(_mixed_row(work.build, executor, few, few_mantissas))
        # What model.onnx says is compared with the graph as it was lowered.
        graph = read_graph(work.build, LOWERED_FOLDER)
        executor = FastExecutor(graph)
        outputs = executor(mantissas)
    if plan.source.kind != "qonnx":
        rows += _torch_rows(work, executor, mantissas, outputs, work.build / "torch")
    expected = executor(few_mantissas, keep="all")
    work.progress(None, "qonnx")
    if work.facts["lower"]["canonical"] is None:
        rows.append(qonnx_row(graph, expected, few, work.build / MODEL_FILE))
    else:
        row, facts["original"] = _canonical_row(work, graph, expected, few)
        rows.append(row)
    facts["verification"] = [checked(row, "this is a fault of qhw: please report it") for row in rows]
    return facts | {"summary": _vectors_summary(facts)}


def _mixed_row(
    build: Path, executor: FastExecutor, inputs: Mapping[str, NDArray[Any]], mantissas: Mapping[str, IntArray]
) -> Row:
    """qonnx's execution of ``mixed.onnx`` against the exact graph with the widths that were chosen."""
    from qonnx.core.modelwrapper import ModelWrapper

    from qhw.graph.reading.model_file import read_model

    mixed = ModelWrapper(read_model(build / MIXED_FILE))
    row = canonical_row(executor.graph, executor(mantissas, keep="all"), inputs, mixed)
    return row | {"backend": MIXED_FILE}


def _retrained_row(
    build: Path, executor: FastExecutor, inputs: Mapping[str, NDArray[Any]], mantissas: Mapping[str, IntArray]
) -> Row:
    """qonnx's execution of the trained ``mixed.onnx`` against the exact graph."""
    row = qonnx_row(executor.graph, executor(mantissas, keep="all"), inputs, build / MIXED_FILE)
    return row | {"backend": MIXED_FILE}


def _interpreter_row(work: Workspace, executor: FastExecutor, mantissas: Mapping[str, IntArray]) -> Row:
    from qhw.graph.interpreter import interpret
    from qhw.sim.compare import compare

    work.progress(None, "interpreter")
    few = {name: x[:SLOW_REFERENCE_VECTORS] for name, x in mantissas.items()}
    by_rule = interpret(executor.graph, few, keep="all")
    names = ("interpreter", "fast executor")
    comparison = compare(executor.graph, by_rule, executor(few, keep="all"), names=names)
    return row_of(comparison, len(next(iter(few.values()))))


def _torch_rows(
    work: Workspace,
    executor: FastExecutor,
    mantissas: Mapping[str, IntArray],
    outputs: Mapping[str, IntArray],
    folder: Path,
) -> list[Row]:
    """Torch's layers on some samples, and its outputs on all, as they lie in a folder."""
    if work.facts["lower"]["canonical"] is not None:
        reason = "its scales are not all powers of two: canonical.onnx is the reference"
        return [not_compared("exact graph", "torch", reason)]
    graph = executor.graph
    rows = []
    stored = folder / "layers.npz"
    if stored.is_file():
        layers = load_arrays(stored)
        few = {name: x[:LAYER_VECTORS] for name, x in mantissas.items()}
        rows.append(torch_row(graph, executor(few, keep="all"), layers))
    answers = read_array(folder / "outputs.npy", "file of torch's outputs")
    return [*rows, torch_row(graph, outputs, {graph.outputs[0]: answers})]


def _canonical_row(
    work: Workspace, graph: ExactGraph, expected: Mapping[str, IntArray], inputs: Mapping[str, NDArray[Any]]
) -> tuple[Row, Facts]:
    """canonical.onnx against the exact graph; and how far the original file's own execution is from it."""
    from qonnx.core.modelwrapper import ModelWrapper

    from qhw.graph.lower import lower_model
    from qhw.graph.reading.load import load_qonnx
    from qhw.graph.reading.model_file import read_model
    from qhw.sim.canonical import compare_with_original

    canonical = ModelWrapper(read_model(work.build / CANONICAL_FILE))
    apart = compare_with_original(lower_model(load_qonnx(work.build / MODEL_FILE)), inputs)
    original = {
        "reason": work.facts["lower"]["canonical"],
        "codes_compared": sum(part.codes for part in apart),
        "differing": sum(part.differing for part in apart),
        "largest": max((part.largest for part in apart), default=0),
    }
    return canonical_row(graph, expected, inputs, canonical), original


def _vectors_summary(facts: Facts) -> str:
    compared = [row for row in facts["verification"] if "not_compared" not in row]
    sides = list(dict.fromkeys(name for row in compared for name in (row["reference"], row["backend"])))
    return f"{facts['samples']} samples; {' = '.join(sides)}"


def _samples(
    plan: BuildPlan, work: Workspace, graph: ExactGraph, split: str = "test"
) -> dict[str, NDArray[Any]]:
    """A split of the data, or random samples."""
    if plan.data is None:
        return random_inputs(graph, RANDOM_VECTORS)
    data = plan.data.dataset
    if arguments := work.facts.get("export", {}).get("arguments"):
        data = replace(data.for_inputs(arguments, "the model"), names=())
    return samples_for(graph, data, split)


def samples_for(graph: ExactGraph, data: Dataset, split: str = "test") -> dict[str, NDArray[Any]]:
    """A split for each of a graph's inputs.

    Raises:
        InputError: the data have another number of inputs, or inputs of other names.
    """
    arrays = data.for_inputs(graph.inputs, "the model").inputs(split)
    return dict(zip(graph.inputs, arrays, strict=True))


def random_inputs(graph: ExactGraph, count: int, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Random samples over the whole range of every graph input, (count, *shape), as a user gives them.

    Raises:
        InputError: there would be too many numbers.
    """
    from qhw.graph.ir import TENSOR_SIZE_LIMIT

    random = np.random.default_rng(seed)
    inputs = {}
    most = TENSOR_SIZE_LIMIT // max(sum(graph.tensors[name].size for name in graph.inputs), 1)
    if count > most:
        raise InputError(f"{count} random samples are asked for", allowed=f"up to {most} of this model's")
    for name in graph.inputs:
        kind, encoding = graph.tensors[name], graph.input_encodings.get(name)
        low, high = (
            (encoding.low, encoding.high)
            if encoding
            else (kind.format.mantissa_low, kind.format.mantissa_high)
        )
        codes = random.integers(low, high, endpoint=True, size=(count, *kind.shape))
        unit, zero = (encoding.unit, encoding.zero_point) if encoding and not encoding.exact else (1.0, 0.0)
        largest = np.finfo(np.float32).max
        inputs[name] = np.clip((codes - zero) * unit, -largest, largest).astype(np.float32)
    return inputs


def score(graph: ExactGraph, outputs: Mapping[str, IntArray], judge: Judge) -> float:
    """A metric of the graph's output mantissas."""
    from qhw.graph.encode import decode_output
    from qhw.sim.postprocess import judged_output

    values = {name: decode_output(graph, name, outputs[name]) for name in graph.outputs}
    return judge.score(judged_output(graph, values, by_order=judge.task.by_order))


def _warning_of_fall(plan: BuildPlan, work: Workspace, quantised: float) -> str | None:
    """A message where the exact graph is worse than the float model by more than a few points."""
    in_float = work.facts.get("train", {}).get("float")
    if in_float is None:
        return None
    from qhw.pipeline.accuracy import warning_of_fall

    is_trained = plan.options.is_trained_quantised
    epochs = recipe_of(plan.source, plan.options).quantised_epochs if is_trained else None
    figure = _required_data(plan).dataset.figure
    return warning_of_fall(figure, in_float, quantised, plan.options.quant_config(), epochs)


def direction_of(metric: Metric) -> Facts:
    """Which way a metric is better, for build.json."""
    return {"higher_is_better": metric.higher_is_better, "share": metric.is_share}


# --- codes become a project -------------------------------------------------------------------------


def _cost(plan: BuildPlan, work: Workspace) -> Facts:
    """Choose the folding that fits the board, and keep what the design is estimated to take."""
    from qhw.cost import estimate
    from qhw.cost.calibration.model_file import worst_lut_error
    from qhw.graph.passes import constant_channels

    graph = read_graph(work.build)
    design = best_design(graph, plan.board, plan.flow, plan.options.wanted)
    removed = constant_channels.removed(graph, design.graph)
    estimated = estimate(design)
    folding = {name: fold.to_json() for name, fold in design.folding.items()}
    folder = work.scratch / "cost"
    folder.mkdir()
    _write_json(folder / "folding.json", folding)
    _write_json(folder / "channels.json", {"removed": removed})
    _write_json(folder / "layers.json", [asdict(layer) for layer in estimated.layers])
    used = estimated.utilisation
    fullest = max(used, key=lambda name: used[name])
    share = f"{used[fullest]:.0%} of the {fullest.upper()}"
    left_out = f"; {removed} constant channels left out" if removed else ""
    return {
        "folding": folding,
        "options": dict(design.architecture.options),
        "resources": estimated.totals,
        "cost_model": estimated.label,
        "lut_error": worst_lut_error(plan.board.family),
        "latency": {
            "cycles": estimated.latency_cycles,
            "initiation_interval": estimated.initiation_interval,
        },
        "summary": f"{share}, {estimated.throughput_fps:,.0f} inferences/s ({estimated.label}){left_out}",
    }


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def _design(plan: BuildPlan, build: Path) -> Design:
    """The design that was priced, with the folding that was chosen for it."""
    path = build / "cost" / "channels.json"
    stored = read_json(path, "channels", 1 << 10)
    check(stored, table({"removed": {"type": "integer", "minimum": 0}}), str(path))
    graph = without_channels(read_graph(build), stored["removed"])
    design = plan.flow.prepare(graph, plan.board, plan.options.wanted.multipliers)
    path, notion = build / "cost" / "folding.json", design.architecture.fold
    stored = read_json(path, "folding", 1 << 26)
    factors = table({item.name: {"type": "integer", "minimum": 1} for item in fields(notion)})
    check(stored, by_name(factors), str(path))
    return design.folded({name: notion.from_json(fold) for name, fold in stored.items()})


def _project(plan: BuildPlan, work: Workspace) -> Facts:
    bench = {
        name: x[:TEST_BENCH_VECTORS]
        for name, x in load_mantissas(work.build / "vectors" / "inputs.npz").items()
    }
    design = _design(plan, work.build)
    project = plan.flow.write(design, work.scratch / PROJECT_FOLDER, vectors=bench)
    files = sum(1 for path in project.folder.rglob("*") if path.is_file())
    memory = plan.flow.memory(design)
    facts: Facts = {"project_sha256": project.content_hash(), "summary": f"{files} files"}
    return facts | ({} if memory is None else {"memory": memory})


def open_project(flow: ProjectFlow, build: Path) -> Project:
    """The project of a build folder."""
    return flow.open(inside(build.resolve(), PROJECT_FOLDER))


def open_own_project(flow: ProjectFlow, build: Path) -> Project:
    """The project of a build folder, to be compiled and executed.

    Raises:
        InputError: this user has not built it, or it was changed since; the first such file is named.
    """
    check_own(build, "project", project_sources(flow, build))
    return open_project(flow, build)


def project_sources(flow: ProjectFlow, build: Path) -> list[str]:
    """The files that a build folder's project is simulated from, also those added by hand, relative to it."""
    return [f"{PROJECT_FOLDER}/{name}" for name in flow.sources(inside(build, PROJECT_FOLDER))]


def _compile(plan: BuildPlan, work: Workspace) -> Facts:
    plan.flow.compile(open_project(plan.flow, work.build))
    return {}


def _verify(plan: BuildPlan, work: Workspace) -> Facts:
    """The project against the exact graph, by each of its flow's simulations."""
    graph = read_graph(work.build)
    inputs = load_mantissas(work.build / "vectors" / "inputs.npz")
    count = plan.options.vectors or simulation_vectors(
        graph, len(next(iter(inputs.values()))), plan.flow.least_vectors
    )
    inputs = {name: x[:count] for name, x in inputs.items()}
    rows: list[Row] = []
    details: dict[str, Any] = {}
    project = open_project(plan.flow, work.build)
    for row, detail in plan.flow.verify(project, graph, inputs, tell=work.progress):
        rows.append(
            checked(row, "the project was edited, or this is a fault of qhw; to write it again, delete it")
        )
        details |= detail
    if details:
        _write_json(work.scratch / "verification.json", details)
    first = rows[0]
    compared = f"{first['codes_compared']:,} codes of {first['layers']} layers"
    facts: Facts = {"verification": rows, "summary": f"{first['vectors']} samples, {compared}, 0 differ"}
    return facts | ({"measured": details["measured"]} if "measured" in details else {})


def simulation_vectors(graph: ExactGraph, available: int, least: int) -> int:
    """How many samples go through a project's simulation by default: all, unless that takes minutes."""
    macs, _ = work_of(graph)
    return min(available, max(least, SIMULATION_MACS // max(macs, 1)))


def _further(stage: FlowStage, plan: BuildPlan, work: Workspace) -> Facts:
    """Run a flow's own stage on a verified project."""
    result, summary = stage.run(open_project(plan.flow, work.build))
    _write_json(work.scratch / f"{stage.result}.json", result)
    return {stage.result: dict(result), "summary": summary}
