"""A whole build: look every name up, run the stages, write the manifest."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qhw.boards import Board, load_board
from qhw.errors import InputError, UnsupportedError
from qhw.formats.base import Format
from qhw.pipeline import manifest as manifests
from qhw.pipeline.build_stages import (
    GRAPH_FOLDER,
    MODEL_FILE,
    PROJECT_FOLDER,
    BuildPlan,
    check_idle,
    read_graph,
    recipe_of,
    stages,
)
from qhw.pipeline.data_choice import DataChoice, choose_data
from qhw.pipeline.options import BuildOptions
from qhw.pipeline.reporting import build_report
from qhw.pipeline.source import Source, find_source, require_training, slug
from qhw.pipeline.stages import (
    MARKER,
    Observer,
    Outcome,
    check_ours,
    check_written,
    create,
    json_digest,
    opened,
    run_stages,
    telling_full_disk,
)
from qhw.pipeline.verification import VerificationError
from qhw.report import FILE_NAME as REPORT
from qhw.report.tables import Shown, Table

if TYPE_CHECKING:
    import pandas

    from qhw.data import Reading
    from qhw.flows.base import Flow
    from qhw.graph.ir import ExactGraph
    from qhw.quant_config import QuantConfig

DEFAULT_FOLDER = Path("qhw-build")


@dataclass(frozen=True, repr=False)
class BuildResult(Shown):
    """A finished build: its folder and its manifest (``build.json``)."""

    folder: Path
    manifest: manifests.Manifest

    @property
    def project(self) -> Path:
        """The generated project."""
        return self.folder / PROJECT_FOLDER

    @property
    def model_file(self) -> Path:
        """The QONNX file that everything was made from."""
        return self.folder / MODEL_FILE

    @property
    def report(self) -> Path:
        """The page that shows the build: ``report.html``, which opens offline."""
        return self.folder / REPORT

    @property
    def graph(self) -> ExactGraph:
        """The exact graph; raises InputError where it is not what was written there."""
        check_written(self.folder, GRAPH_FOLDER)
        return read_graph(self.folder)

    @property
    def project_sha256(self) -> str:
        """Hash over the generated files: equal inputs give equal projects."""
        digest: str = self.manifest["flow"]["project_sha256"]
        return digest

    @property
    def layers(self) -> list[dict[str, Any]]:
        """What each operation is estimated to take; raises InputError where it is not what was written."""
        from qhw.report.build_page import layers_of

        return layers_of(self.folder, self.manifest)

    def to_dataframe(self) -> pandas.DataFrame:
        """One row per operation: its folding, resources, cycles and energy, as estimated."""
        from qhw.report.frames import frame

        return frame(self.layers)

    def plot(self) -> Any:
        """What each layer takes of the board, as an Altair chart.

        Raises:
            ToolMissingError: altair is not installed.
        """
        from qhw.report.charts import as_altair, layers_chart

        return as_altair(layers_chart(self.layers, self.manifest["resources"]["board"]))

    def tables(self) -> list[Table]:
        """Accuracy, verification, and resources against the board."""
        from qhw.report.summary import build_tables

        return build_tables(self.manifest)


def build(
    options: BuildOptions,
    *,
    model: Any = None,
    data: Any = None,
    observer: Observer | None = None,
) -> BuildResult:
    """Build a model for a board, as :func:`qhw.build` describes.

    Args:
        model: a ``torch.nn.Module``, in place of ``options.model``.
        data: data in Python (:data:`qhw.data.given.TAKEN`), in place of ``options.data``.
        observer: receives the progress of the build.

    Raises:
        InputError, UnsupportedError, ToolMissingError: something given cannot be used.
        CheckFailedError: codes differ, or no folding fits the board.
    """
    plan = make_plan(options, model, data)
    outcomes: list[Outcome] = []
    log = plan.folder / MARKER / "build.log"
    with telling_full_disk(plan.folder), opened(plan.folder), _quiet(log):
        mismatch = None
        try:
            run_stages(plan.folder, stages(plan), outcomes, observer)
        except VerificationError as error:
            mismatch = error
            raise
        finally:
            if any(outcome.facts for outcome in outcomes):
                written = _manifest(plan, outcomes, mismatch)
                manifests.write(written, plan.folder)
                if mismatch is not None:  # of all failed checks the one that is worth looking at
                    build_report(plan.folder, written, [], observer)
        build_report(plan.folder, written, outcomes, observer)
        written["stages"] = _told(outcomes)
        manifests.write(written, plan.folder)
    return BuildResult(plan.folder, written)


def make_plan(options: BuildOptions, model: Any = None, data: Any = None) -> BuildPlan:
    """Look up everything that the options name, and refuse now what would fail later.

    Raises:
        InputError: a name is unknown, a file missing, or the output folder not ours.
        ToolMissingError: one of the flow's tools, torch or Brevitas is not installed.
        UnsupportedError: the flow cannot build for the board, or with what is asked for.
    """
    source = find_source(options.model if model is None else model)
    if not options.board:
        raise InputError("No board is given", allowed=_board_names(), hint="name one with --board")
    board = load_board(options.board)
    if options.clock_mhz is not None:
        board = board.at_clock(options.clock_mhz)
    options.quant_config()
    choice = data_of(source, options.data if data is None else data, options.reading)
    if options.expect is not None and choice is None:
        raise InputError(
            "What is expected of the model cannot be checked: there are no data",
            hint="name a data set with --data, or leave --expect out",
        )
    if source.kind != "qonnx":
        require_training()
    if source.is_trained_here:
        recipe_of(source, options)
    else:
        check_idle(source, options)
    from qhw.flows.base import load_project_flow

    flow = load_project_flow(options.flow, **options.flow_options)
    flow.check_board(board)
    flow.check_multipliers(options.wanted.multipliers)
    flow.check_tools()
    if flow.chooses_widths and choice is None:
        raise InputError(
            "There are no data to choose the bits of feature maps by", hint="name a data set with --data"
        )
    if flow.retrain_epochs and not source.is_trained_here:
        raise InputError(
            f"{source.given} cannot be trained with other widths: it is quantised already",
            hint="leave --retrain out, or give the plain network",
        )
    if options.synth and "synth" not in [stage.name for stage in flow.stages]:
        raise UnsupportedError(f"The {flow.name} flow has no synthesis", hint="leave --synth out")
    if source.kind != "qonnx":
        _check_carried(options.quant_config(), flow)
    folder = options.out or DEFAULT_FOLDER / f"{source.name}-{board.name}-{options.flow}{_format_of(options)}"
    check_ours(folder)
    return BuildPlan(options, source, board, flow, choice, folder)


def _format_of(options: BuildOptions) -> str:
    """The end of a build folder's name: builds of a model in other formats stand side by side."""
    from qhw.quant_config import formats_named

    given = {"weights": options.weights, "activations": options.activations, **options.quant}
    settings = {name: value for name, value in given.items() if value}
    text = str(settings.get("weights", ""))
    end = "" if options.is_trained_quantised else f"-{options.quantise}"
    if not settings:
        return end
    is_one_format = bool(text) and settings == formats_named(text)
    return f"-{slug(text) if is_one_format else json_digest(settings)[:8]}{end}"


def _check_carried(config: QuantConfig, flow: Flow) -> None:
    """Refuse before training what the flow would refuse after it.

    Raises:
        UnsupportedError: naming the setting, the format and the flow.
    """
    for setting, format in config.formats():
        computed = setting.rpartition(" ")[2] in ("activations", "outputs")
        if not flow.carries(format, computed=computed):
            role = " as the result of a layer" if flow.carries(format) else ""
            raise UnsupportedError(
                f"{setting}: the {flow.name} flow cannot carry the format {format}{role}",
                hint=_carrying(format, computed),
            )


def _carrying(format: Format, computed: bool) -> str:
    """A remedy for a format that a flow cannot carry."""
    from qhw.flows.base import ProjectFlow, list_flows, load_flow

    flows = {name: load_flow(name) for name in list_flows()}
    able = [
        name
        for name, flow in flows.items()
        if isinstance(flow, ProjectFlow) and flow.carries(format, computed=computed)
    ]
    if able:
        return f"use --flow {' or '.join(able)}"
    return "no flow carries it; qhw.convert, qhw.export_qonnx and 'qhw simulate' do"


def data_of(source: Source, given: Any, reading: Reading) -> DataChoice | None:
    """The data set that was given, or a built-in model's own; None for a QONNX file without one.

    Raises:
        InputError: there is no such data set, or the model needs one.
    """
    if given is not None:
        return choose_data(given, reading)
    if source.kind == "builtin":
        from qhw.models import model_entry

        return choose_data(model_entry(source.name).dataset, reading)
    if source.kind == "qonnx":
        return None
    raise InputError(
        f"The model {source.given} has no data to train and check on", hint="name a data set with --data"
    )


def _board_names() -> str:
    from qhw.boards import list_boards

    return f"{', '.join(list_boards())}, or a TOML file"


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Redirect what libraries print into a file of the build folder."""
    with (
        create(log) as file,
        contextlib.redirect_stdout(file),
        contextlib.redirect_stderr(file),
    ):
        yield


# --- the manifest -----------------------------------------------------------------------------------


def _manifest(
    plan: BuildPlan, outcomes: list[Outcome], mismatch: VerificationError | None
) -> manifests.Manifest:
    facts: dict[str, Mapping[str, Any]] = {outcome.name: outcome.facts for outcome in outcomes}
    rows = [row for outcome in outcomes for row in outcome.facts.get("verification", ())]
    return {
        "schema_version": manifests.SCHEMA_VERSION,
        "inputs": _inputs(plan, facts),
        "tools": manifests.tool_versions(),
        "board": {
            "name": plan.board.name,
            "title": plan.board.title,
            "kind": plan.board.kind,
            "part": plan.board.part,
            "clock_mhz": plan.board.clock_mhz,
        },
        "flow": _flow(plan, facts),
        "model": _model(plan, facts),
        "stages": _told(outcomes),
        "accuracy": _accuracy(facts),
        "verification": rows + ([mismatch.row] if mismatch else []),
        "resources": _resources(plan.board, facts),
        "latency": _latency(plan.board, facts),
        "memory": facts.get("project", {}).get("memory"),
        "measured": facts.get("verify", {}).get("measured"),
    } | {name: facts[name][name] for name in ("bitstream",) if name in facts.get(name, ())}


def _told(outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    return [{"name": o.name, "status": o.status, "seconds": round(o.seconds, 3)} for o in outcomes]


def _inputs(plan: BuildPlan, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    data = None
    if plan.data is not None:
        vectors = facts.get("vectors", {})
        data = {"given": plan.data.given, "sha256": vectors.get("data_sha256", plan.data.identity)}
        data |= {"source": vectors["data_source"]} if vectors else {}
    metric = plan.data.metric if plan.data else None
    return {
        "model": {"given": plan.source.given, "sha256": plan.source.digest, "source": plan.source.kind},
        "data": data,
        "metric": None if metric is None else {"given": metric.given, "sha256": metric.digest},
        "board": {"given": plan.options.board, "sha256": plan.board_digest},
        "options": plan.options.to_json(),
    }


def _flow(plan: BuildPlan, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    project, cost = facts.get("project", {}), facts.get("cost", {})
    return {
        "name": plan.flow.name,
        "options": cost.get("options", {}),
        "wanted": plan.options.wanted.to_json(),
        "project": PROJECT_FOLDER if project else None,
        "project_sha256": project.get("project_sha256"),
        "folding": cost.get("folding", {}),
    }


def _model(plan: BuildPlan, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    first, lowered = facts.get("export") or facts.get("import") or {}, facts.get("lower", {})
    return {
        "name": plan.source.name,
        "file": MODEL_FILE,
        "sha256": first.get("sha256"),
        "graph": GRAPH_FOLDER,
        "graph_sha256": facts.get("widths", lowered).get("graph_sha256"),
        "canonical": facts.get("vectors", {}).get("original"),
        "qonnx_departs": lowered.get("qonnx_departs", {}),
        "postprocessing": lowered.get("postprocessing", []),
        "annotated": first.get("annotated"),
    } | {name: lowered.get(name) for name in ("nodes", "weights", "macs")}


def _accuracy(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    vectors, trained = facts.get("vectors", {}), facts.get("train", {})
    if "accuracy" not in vectors:
        return None
    return {
        **vectors["metric"],
        "float": trained.get("float"),
        "quantised": vectors["accuracy"],
        "samples": vectors["samples"],
        "split": "test",
        "warning": vectors["warning"],
    }


def _resources(board: Board, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    estimated = facts.get("cost", {}).get("resources")
    synthesis = facts.get("synth", {}).get("synthesis")
    has = dict(board.capacity)
    synthesised = {name: synthesis[name] for name in has} if synthesis else None
    used = synthesised or estimated or {}
    return {
        "estimated": estimated,
        "synthesised": synthesised,
        "board": has,
        "utilisation": {name: round(used[name] / has[name], 4) for name in used if has.get(name)},
        "cost_model": facts.get("cost", {}).get("cost_model", ""),
        "lut_error": facts.get("cost", {}).get("lut_error"),
    }


def _latency(board: Board, facts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    latency, synthesis = facts.get("cost", {}).get("latency"), facts.get("synth", {}).get("synthesis")
    source = "estimated"
    if synthesis and synthesis["interval_cycles"] and synthesis["latency_cycles"] is not None:
        latency = {"cycles": synthesis["latency_cycles"], "initiation_interval": synthesis["interval_cycles"]}
        source = "synthesised"
    if latency is None:
        return None
    fps = board.clock_mhz * 1e6 / latency["initiation_interval"]
    return {**latency, "clock_mhz": board.clock_mhz, "throughput_fps": round(fps, 2), "source": source}
