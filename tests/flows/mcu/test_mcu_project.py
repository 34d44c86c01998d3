"""Project folders: the same bytes each time, one C text for every name, and descriptions that are checked."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from firmware import H743, differing, needs_gcc, needs_qemu

from qhw.errors import CheckFailedError, InputError
from qhw.flows.base import Project, default_vectors
from qhw.flows.mcu import McuFlow
from qhw.flows.mcu.emit import identifiers
from qhw.flows.mcu.project import DESCRIPTION, read_description, source_files
from qhw.formats.integer import Integer
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph
from tests.graph_factory import resnet8_graph
from tests.random_graphs import random_inputs

GRAPH = resnet8_graph(side=8)


def write(folder: Path, graph: ExactGraph = GRAPH, patches: str = "none") -> Project:
    flow = McuFlow(patches=patches, run_on="host")
    return flow.write(flow.best(flow.prepare(graph, H743)), folder / "project")


def test_the_same_design_is_the_same_bytes(tmp_path: Path) -> None:
    hashes = {write(tmp_path / name, patches="relu:2x2").content_hash() for name in "ab"}
    assert len(hashes) == 1


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    description = read_description(write(tmp_path, patches="relu:2x3").folder)
    assert (description.board, description.core, description.patches) == (
        "stm32h743",
        "cortex-m7",
        "relu:2x3",
    )
    assert len(description.steps[0].observed.regions) == 6
    assert description.steps[1].observed.regions == ()
    assert description.inputs[0].map.shape == (1, 8, 8)


def test_the_folder_holds_all_that_a_project_needs(tmp_path: Path) -> None:
    folder = write(tmp_path).folder
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {
        "model.c",
        "model.h",
        "Makefile",
        "kernels/qhw_kernels.h",
        "test/harness.c",
        "test/in.bin",
    } <= names
    assert not any("malloc" in path.read_text() for path in folder.rglob("*.c"))
    pytest.importorskip("vl_convert")
    assert (folder / "memory.svg").read_text().startswith("<svg")


@needs_gcc
def test_its_makefile_checks_it_on_this_machine(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    folder = write(tmp_path).folder
    before = Project(folder, "mcu", "x", products=("build",)).content_hash()
    subprocess.run(["make", "host"], cwd=folder, check=True, capture_output=True)
    assert Project(folder, "mcu", "x", products=("build",)).content_hash() == before
    (folder / "test" / "expected.bin").write_bytes(b"\0" * 8)
    assert subprocess.run(["make", "host"], cwd=folder, check=False, capture_output=True).returncode


@needs_qemu
@pytest.mark.slow
def test_its_makefile_checks_it_in_qemu(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    subprocess.run(["make", "qemu"], cwd=write(tmp_path).folder, check=True, capture_output=True)


@needs_gcc
def test_names_of_any_kind_become_c(tmp_path: Path) -> None:
    b = GraphBuilder('*/ "odd"\nname')
    x = b.input("int", (2, 3, 3), Integer(4), 0)
    y = x
    for name in ("for", "1st/layer", "a.b", "a_b", "qhw_run", "größe", "*/ #error", "in", "x\\"):
        y = b.requant(name, y, Integer(4), 0, source=name)
    graph = b.finish([y])
    assert differing(graph, random_inputs(graph, 3)) == []
    text = (write(tmp_path, graph).folder / "model.c").read_text()
    assert "#error" not in "".join(line for line in text.splitlines() if not line.startswith("//"))


def test_identifiers_differ() -> None:
    names = ["a.b", "a_b", "a/b", "", "9", "int", "Qhw_x"]
    found = identifiers(names)
    assert len(set(found.values())) == len(names)
    assert all(name.isidentifier() and name not in ("int",) for name in found.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("core", "cortex-m99"),
        ("flow", "finn"),
        ("arena", -1),
        ("steps", "none"),
        ("inputs", [{"tensor": "x"}]),
        ("clock_mhz", 0),
    ],
)
def test_a_damaged_description_is_refused(key: str, value: object, tmp_path: Path) -> None:
    folder = write(tmp_path).folder
    stored = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps(stored | {key: value}))
    with pytest.raises(InputError, match=DESCRIPTION):
        McuFlow().open(folder)


def test_another_folder_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a project"):
        McuFlow().open(tmp_path)
    flow = McuFlow()
    (tmp_path / "project").mkdir()
    with pytest.raises(InputError, match="not a project"):
        flow.write(flow.best(flow.prepare(GRAPH, H743)), tmp_path / "project")


def test_a_link_among_the_sources_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path).folder
    assert "model.c" in source_files(folder)
    (folder / "kernels" / "more.c").symlink_to("/dev/null")
    with pytest.raises(InputError, match=r"more\.c"):
        source_files(folder)


@needs_gcc
def test_a_changed_weight_shows(tmp_path: Path) -> None:
    flow, project = McuFlow(run_on="host"), write(tmp_path)
    inputs = random_inputs(GRAPH, 4)
    (row, _), *_ = flow.verify(project, GRAPH, inputs, tell=lambda share, what: None)
    assert row["mismatches"] == 0
    text = (project.folder / "model.c").read_text()
    start = text.index("{", text.index("conv_weights[")) + 1
    numbers = text[start : text.index("}", start)].split(",")
    numbers[12] = " 99" if int(numbers[12]) < 0 else " -99"  # behind the header that a packing may have
    end = text.index("}", start)
    (project.folder / "model.c").write_text(text[:start] + ",".join(numbers) + text[end:])
    (row, _), *_ = flow.verify(project, GRAPH, inputs, tell=lambda share, what: None)
    assert row["mismatches"] > 0
    assert "relu" in row["first_difference"]


@needs_gcc
def test_firmware_that_ends_early_is_told(tmp_path: Path) -> None:
    flow, project = McuFlow(run_on="host"), write(tmp_path)
    harness = project.folder / "test" / "harness.c"
    harness.write_text(harness.read_text().replace("n < count", "n + 1 < count"))
    with pytest.raises(CheckFailedError, match=r"bytes to out\.bin"):
        flow.simulate(project, default_vectors(GRAPH))
