"""FINN's passes leave every number as it is, and the step that does not is named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finn_nets import Network, every_operation, random_network

from qhw.boards import load_board
from qhw.cost import choose_folding, estimate
from qhw.errors import CheckFailedError
from qhw.flows.base import load_project_flow
from qhw.flows.finn import FinnFlow, execution, folding, passes, verification
from qhw.flows.finn import project as files
from qhw.flows.finn.emission import emit
from qhw.flows.finn.prepare import prepared
from qhw.flows.finn.tools import finn, library
from qhw.formats.modes import IntArray
from qhw.graph.builder import value_ranges
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph
from qhw.sim.fast import FastExecutor

pytest.importorskip("finn.util.settings", reason="finn-plus is not installed")

BOARD = load_board("kv260")


def samples(graph: ExactGraph, count: int) -> dict[str, IntArray]:
    random, ranges = np.random.default_rng(0), value_ranges(graph)
    return {
        name: random.integers(*ranges[name].bounds, (count, *graph.tensors[name].shape), endpoint=True)
        for name in graph.inputs
    }


def quiet(fraction: float | None, text: str) -> None:
    """No progress."""


def models(graph: ExactGraph, scratch: Path, fps: float | None = 2000) -> Iterator[tuple[str, Any]]:
    flow = FinnFlow()
    design = choose_folding(flow.prepare(graph, BOARD), fps=fps)
    emitted = emit(design.graph)
    fold = folding.folding_of(design, emitted.made_by, estimate(design).initiation_interval)
    choose = folding.variants_of(design)
    steps = [*passes.hardware_steps(), *passes.board_steps(BOARD.part, scratch, choose, fold)]
    yield from verification.models_after(emitted.model, steps, quiet)


def checked(graph: ExactGraph, count: int = 20) -> tuple[dict[str, Any], list[verification.StepCheck], Any]:
    emitted = emit(prepared(graph))
    description = files.describe(emitted, graph.name, BOARD.part, 5.0)
    with finn() as scratch:
        made = [*models(graph, scratch)]
        checker = verification.StepByStep(
            [name for name, _ in made], [model for _, model in made], description, prepared(graph)
        )
        return checker.run(samples(graph, count), quiet), checker.checks, made[-1][1]


def test_every_operation_keeps_its_numbers_through_every_step() -> None:
    row, checks, model = checked(every_operation(), 70)
    assert row["mismatches"] == 0
    assert row["vectors"] == 70
    assert checks[0].step == "streamlined graph"
    assert all(check.codes == checks[0].codes > 50_000 for check in checks)
    kinds = {execution.abstract(node.op_type) for node in model.graph.node}
    assert {"MVAU", "VVAU", "ConvolutionInputGenerator", "FMPadding", "Thresholding", "Pool"} <= kinds
    assert {
        "StreamingConcat",
        "StreamingSplit",
        "ElementwiseAdd",
        "DuplicateStreams",
        "GlobalAccPool",
    } <= kinds


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_random_networks_keep_their_numbers(seed: int) -> None:
    row, checks, _ = checked(random_network(seed))
    assert row["mismatches"] == 0
    assert checks[-1].codes > 0


def test_the_batched_execution_is_finns_own() -> None:
    """Every tensor of the final model, image by image through FINN's unchanged operators."""
    graph = every_operation()
    onnx_exec = library("qonnx.core.onnx_exec")
    with finn() as scratch:
        *_, (_, model) = models(graph, scratch)
        given = emit(prepared(graph)).carried["x"].integers(samples(graph, 3)["x"])
        batched = execution.Execution(given).outputs(model)
        abstract = execution.for_batch(model, 1)
        for index in range(len(given)):
            own = onnx_exec.execute_onnx(
                abstract, {model.graph.input[0].name: given[index : index + 1]}, True
            )
            assert batched
            for name, value in batched.items():
                assert np.array_equal(value[index : index + 1], own[name]), name


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("rows", [1, 3])
def test_counting_by_bisection_is_counting(channels_last: bool, rows: int) -> None:
    random = np.random.default_rng(0)
    values = random.integers(-30, 30, (2, 4, 5, 3) if channels_last else (2, 3, 4, 5)).astype(np.float32)
    thresholds = np.sort(random.integers(-20, 20, (rows, 7)), axis=1).astype(np.float32)
    theirs = library("qonnx.custom_op.general.multithreshold").multithreshold
    expected = theirs(values, thresholds, 1.0, -4.0, channels_last)
    assert np.array_equal(execution.counted(values, thresholds, 1.0, -4.0, channels_last), expected)


def test_a_step_that_changes_a_value_is_named() -> None:
    graph = every_operation()
    emitted = emit(prepared(graph))
    description = files.describe(emitted, graph.name, BOARD.part, 5.0)

    def spoilt(model: Any) -> Any:
        name = next(node for node in model.graph.node if node.op_type == "Thresholding").input[1]
        model.set_initializer(name, model.get_initializer(name) + 1)
        return model

    with finn():
        steps = passes.hardware_steps()
        steps.insert(3, passes.Step("spoiling", spoilt))
        made = [*verification.models_after(emitted.model, steps, quiet)]
        checker = verification.StepByStep(
            [name for name, _ in made], [model for _, model in made], description, prepared(graph)
        )
        row = checker.run(samples(graph, 8), quiet)
    assert row["backend"] == "FINN after the step 'spoiling'"
    assert row["mismatches"] > 0
    assert "stem" in row["first_difference"]


def test_foldings_are_the_designs(tmp_path: Path) -> None:
    graph = every_operation()
    flow = FinnFlow()
    design = choose_folding(flow.prepare(graph, BOARD), fps=20_000)
    written = flow.write(design, tmp_path / "project")
    with finn():
        model = files.load_model(written.folder / files.DATAFLOW)
        owner = folding.owners(model, files.read_description(written.folder).made_by)
        assert set(owner.values()) <= {node.name for node in graph.nodes}
        cycles = folding.cycles_of(model)
        interval = estimate(design).initiation_interval
        matrices = [n for n in model.graph.node if execution.abstract(n.op_type) in ("MVAU", "VVAU")]
        assert matrices
        layers = {layer.node: layer for layer in estimate(design).layers}
        for node in matrices:
            fold = design.folding[owner[node.name]]
            operator = library("qonnx.custom_op.registry").getCustomOp(node)
            given = {"pe": operator.get_nodeattr("PE"), "simd": operator.get_nodeattr("SIMD")}
            assert given == fold.to_json()
            assert cycles[node.name] <= layers[owner[node.name]].initiation_interval <= interval
        # A window also takes the pixels that fill it.
        slow = {name: count for name, count in cycles.items() if count > 1.3 * interval}
        assert not slow


def test_a_folding_that_does_not_divide_a_layer_is_refused(tmp_path: Path) -> None:
    graph = every_operation()
    flow = FinnFlow()
    written = flow.write(flow.prepare(graph, BOARD), tmp_path / "project")
    path = written.folder / folding.FOLDING_FILE
    stored = json.loads(path.read_text())
    name = next(key for key in stored if key.startswith("MVAU"))
    stored[name]["PE"] = 7
    path.write_text(json.dumps(stored))
    with pytest.raises(CheckFailedError, match=f"'{name}' has PE 7, which does not divide its"):
        [*flow.verify(written, graph, samples(graph, 4), tell=quiet)]


def test_a_project_is_simulated_with_the_hosts_part(tmp_path: Path) -> None:
    graph = every_operation()
    flow = load_project_flow("finn")
    written = flow.write(flow.prepare(graph, BOARD), tmp_path / "project")
    inputs = samples(graph, 5)
    expected = interpret(graph, inputs)
    assert np.array_equal(flow.simulate(written, inputs)["out"], expected["out"])
    every = flow.simulate(written, inputs, trace="all")
    exact = FastExecutor(graph)(inputs, keep=set(every))
    assert all(np.array_equal(every[name], exact[name]) for name in every)
    assert flow.open(written.folder) == written


def test_the_same_design_gives_the_same_bytes(tmp_path: Path) -> None:
    graph = every_operation()
    flow = FinnFlow()
    design = flow.prepare(graph, BOARD)
    hashes = {flow.write(design, tmp_path / name / "project").content_hash() for name in ("a", "b")}
    assert len(hashes) == 1
    for path in (tmp_path / "a").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path


@pytest.mark.parametrize("choice", ["lut", "dsp"])
def test_what_multiplies_is_told_to_finn(tmp_path: Path, choice: str) -> None:
    n = Network(4, (3, 8, 8))
    graph = n.finish(n.act("q", n.conv("c", n.last, 4, (3, 3), bits=6)))
    flow = FinnFlow()
    written = flow.write(flow.prepare(graph, BOARD, choice), tmp_path / "project")
    with finn():
        model = files.load_model(written.folder / files.DATAFLOW)
        (unit,) = (n for n in model.graph.node if n.op_type.startswith("MVAU"))
        assert library("qonnx.custom_op.registry").getCustomOp(unit).get_nodeattr("resType") == choice
