"""FINN's own builder on the files of a written project, and what the project says of it."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from finn_projects import digits_project, small_project
from graph_factory import resnet8_graph

from qhw.boards import Board, load_board
from qhw.flows.base import Project, load_project_flow
from qhw.flows.finn.builder import CONFIGURATION, STEPS, configuration, finn_board
from qhw.pipeline.designs import Wanted, best_design

pytest.importorskip("finn")

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("small") / "project")


@pytest.fixture(scope="module")
def built(small: Project) -> Project:
    """The small project after FINN's builder, as far as that gets without Vivado."""
    build(small.folder)
    return small


def build(folder: Path) -> None:
    """Run FINN's builder on a project, which must succeed."""
    ran = run_builder(folder)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]


def run_builder(folder: Path) -> subprocess.CompletedProcess[str]:
    """``build.sh`` of a project, with FINN's own builder behind ``finn``, up to the sources of the layers."""
    programs = folder.parent / "programs"
    programs.mkdir()
    finn = programs / "finn"
    finn.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{HERE / "finn_without_vivado.py"}" "$@"\n')
    finn.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    environment |= {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder.parent),  # FINN keeps its settings there
        "XILINX_VIVADO": "/no/Vivado/2024.2",  # named in its report
    }
    # From another folder: nothing in the project depends on where it is built from.
    return subprocess.run(
        [str(folder / "build.sh")], cwd=HERE, env=environment, capture_output=True, text=True, check=False
    )


def layers(path: Path) -> list[tuple[Any, ...]]:
    """Every layer of a model with what decides its hardware: types, folding, memories."""
    from qonnx.custom_op.registry import getCustomOp

    from qhw.flows.finn.project import load_model

    kept = ("PE", "SIMD", "parallel_window", "mem_mode", "ram_style", "resType", "numSteps", "ActVal")
    kept += ("inputDataType", "outputDataType", "accDataType", "weightDataType")
    found = []
    for node in load_model(path).graph.node:
        layer = getCustomOp(node)
        types = layer.get_nodeattr_types()
        found.append((node.name, node.op_type, {k: layer.get_nodeattr(k) for k in kept if k in types}))
    return found


def after_builder(project: Project) -> Path:
    return project.folder / "finn_build" / "intermediate_models" / "step_assign_ddr_weight_offsets.onnx"


def outputs_of(path: Path, inputs: np.ndarray) -> np.ndarray:
    """FINN's Python execution of a model."""
    from qhw.flows.finn.execution import Execution
    from qhw.flows.finn.project import load_model
    from qhw.flows.finn.tools import finn

    with finn():
        model = load_model(path)
        return Execution(inputs).outputs(model)[model.graph.output[0].name]


def check_accepted(project: Project) -> None:
    """FINN's builder made the project's dataflow model, with the same estimates and the expected codes."""
    folder = project.folder
    assert layers(after_builder(project)) == layers(folder / "dataflow.onnx")
    for name in ("estimate_layer_cycles.json", "estimate_layer_resources.json"):
        found = json.loads((folder / "finn_build" / "report" / name).read_text())
        assert json.loads((folder / "reports" / name).read_text()) == found
    given, expected = (np.load(folder / "vectors" / f"{n}.npy") for n in ("input", "expected_output"))
    found = outputs_of(after_builder(project), given)
    assert np.array_equal(found.reshape(expected.shape), expected)
    frames = [path.name for path in (folder / "finn_build" / "verification_output").iterdir()]
    assert sorted(frames) == sorted(f"verify_python_{i}_SUCCESS.npy" for i in range(len(given)))
    sources = json.loads((folder / "finn_build" / "sources.json").read_text())
    for name, kind, _ in layers(folder / "dataflow.onnx"):
        suffixes = {Path(file).suffix for file in sources[name]}
        assert suffixes & ({".cpp"} if kind.endswith("_hls") else {".v", ".sv"}), name


def test_finns_builder_makes_the_same_dataflow_model(built: Project) -> None:
    check_accepted(built)


@pytest.mark.slow
def test_finns_builder_accepts_the_trained_default_model(tmp_path: Path) -> None:
    project = digits_project(tmp_path / "build")
    build(project.folder)
    check_accepted(project)


@pytest.mark.slow
def test_finns_builder_accepts_resnet8(tmp_path: Path) -> None:
    flow, graph = load_project_flow("finn"), resnet8_graph(weight_bits=4)
    design = best_design(graph, load_board("kv260"), flow, Wanted())
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 28, 28))
    project = flow.write(design, tmp_path / "project", vectors={"image": pixels})
    build(project.folder)
    check_accepted(project)


@pytest.mark.slow
def test_a_code_that_is_wrong_by_one_fails_the_build(tmp_path: Path) -> None:
    """One code of the vectors is wrong, by one: the build goes on, the script says it and fails."""
    project = small_project(tmp_path / "project")
    path = project.folder / "vectors" / "expected_output.npy"
    expected = np.load(path)
    expected[3, 2] += 1
    np.save(path, expected)
    ran = run_builder(project.folder)
    assert ran.returncode == 1
    assert "gives other codes than vectors/expected_output.npy" in ran.stderr
    assert "verify_python_3_FAIL.npy" in ran.stderr


def test_finn_stops_where_its_builder_fails(built: Project, tmp_path: Path) -> None:
    """``finn build`` itself ends with exit code 0 in each of these cases."""
    for content, words in (
        ('{"status": "failed"}', "FINN's build failed"),
        (None, "FINN's build failed"),
        ("FAIL", "gives other codes than"),
    ):
        folder = tmp_path / str(words + str(content))[:20]
        folder.mkdir()
        (folder / "build.sh").write_text((built.folder / "build.sh").read_text())
        finn = folder / "finn"
        report = "finn_build/report"
        lines = ["#!/bin/sh", f"mkdir -p {report} finn_build/verification_output"]
        if content == "FAIL":
            lines.append("touch finn_build/verification_output/verify_stitched_ip_rtlsim_3_FAIL.npy")
            content = '{"status": "ok"}'
        if content is not None:
            lines.append(f"echo '{content}' > {report}/metadata_builder.json")
        finn.write_text("\n".join(lines) + "\n")
        finn.chmod(0o755)
        ran = subprocess.run(
            ["sh", "build.sh"],
            cwd=folder,
            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 1
        assert words in ran.stderr


def test_the_steps_are_finns_own_from_the_partition_on() -> None:
    from finn.builder.build_dataflow_config import default_build_dataflow_steps as default

    first = default.index("step_create_dataflow_partition")
    assert list(STEPS) == [step for step in default[first:] if step != "step_target_fps_parallelization"]


def test_finn_reads_every_key_and_finds_every_file(small: Project) -> None:
    from finn.builder.build_dataflow_config import DataflowBuildConfig

    read = DataflowBuildConfig.construct_from(small.folder / CONFIGURATION)
    stored = yaml.safe_load((small.folder / CONFIGURATION).read_text())
    assert read.folding_config_file == small.folder / "folding_config.json"
    assert read.specialize_layers_config_file == small.folder / "specialize_layers_config.json"
    assert read.target_fps is None
    assert read.synth_clk_period_ns == stored["synth_clk_period_ns"] == 5.0
    for key in ("verify_input_npy", "verify_expected_output_npy"):
        assert (small.folder / stored[key]).is_file()


@pytest.mark.parametrize(
    ("board", "name"),
    [
        ("ultra96", "Ultra96"),
        ("ultra96-v2", "Ultra96-V2"),
        ("pynq-z1", "Pynq-Z1"),
        ("pynq-z2", "Pynq-Z2"),
        ("zcu102", "ZCU102"),
        ("zcu104", "ZCU104"),
        ("kv260", "KV260_SOM"),
        ("aup-zu3", "AUP-ZU3_8GB"),
        ("u250", "U250"),
    ],
)
def test_finns_names_of_boards(board: str, name: str) -> None:
    from finn.builder.build_dataflow_config import DataflowBuildConfig

    target = load_board(board)
    stored = configuration(target)
    assert DataflowBuildConfig.from_yaml(yaml.safe_dump(stored))._resolve_fpga_part() == target.part
    assert finn_board(target) == stored["board"] == name
    assert stored["shell_flow_type"] == ("vitis_alveo" if name == "U250" else "vivado_zynq")
    assert "bitfile" in stored["generate_outputs"]


@pytest.mark.parametrize(("board", "style"), [("ultra96", "block"), ("pynq-z2", "block"), ("kv260", None)])
def test_deep_queues_lie_in_memories_that_the_device_has(board: str, style: str | None) -> None:
    assert configuration(load_board(board)).get("large_fifo_mem_style") == style


@pytest.mark.parametrize("changed", [{"name": "my-carrier"}, {"part": "xczu3eg-sbva484-2-e"}])
def test_a_board_that_finn_does_not_know_gets_an_ip_block(changed: dict[str, str]) -> None:
    """Not another board's bitstream: with the same device, its pins and memories may differ."""
    board: Board = dataclasses.replace(load_board("ultra96"), **changed)
    stored = configuration(board)
    assert stored["fpga_part"] == board.part
    assert not {"board", "shell_flow_type"} & set(stored)
    assert "bitfile" not in stored["generate_outputs"]
    assert {"stitched_ip", "out_of_context_synth"} <= set(stored["generate_outputs"])


def test_a_project_does_not_depend_on_its_folder(small: Project, tmp_path: Path) -> None:
    again = small_project(tmp_path / "elsewhere" / "again")
    names = sorted(p.relative_to(again.folder) for p in again.folder.rglob("*") if p.is_file())
    assert (again.folder / "build.sh").stat().st_mode & 0o111
    for name in names:
        assert (again.folder / name).read_bytes() == (small.folder / name).read_bytes(), name
