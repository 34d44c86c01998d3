"""A project folder: what it holds, how its simulation behaves when something is wrong with it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hls4ml_project import designed, first_difference, random_inputs, small_graph, weight_file
from weight_files import write_weights

from qhw.errors import CheckFailedError, InputError, ToolMissingError
from qhw.flows.base import Project, ProjectFlow
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.graph.interpreter import interpret
from qhw.graph.serialize import save_graph
from qhw.pipeline.stages import tree_digests

pytest.importorskip("hls4ml")
FLOW = Hls4mlFlow()
GRAPH = small_graph()
INPUTS = random_inputs(GRAPH, 40)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = FLOW.write(
        designed(FLOW, GRAPH, {"conv1": 2, "fc": 4}), tmp_path_factory.mktemp("built") / "project"
    )
    FLOW.compile(project)
    return project


@pytest.fixture
def project(built: Project, tmp_path: Path) -> Project:
    """A compiled copy that a test may damage."""
    shutil.copytree(built.folder, tmp_path / "project")
    return FLOW.open(tmp_path / "project")


def test_all_layers_have_the_graphs_codes(built: Project) -> None:
    got = FLOW.simulate(built, INPUTS, trace="all")
    expected = interpret(GRAPH, INPUTS, keep="all")
    assert set(got) == {"conv1", "act1", "act2", "act3", "pool", "fc"}
    assert first_difference(GRAPH, expected, got) is None
    assert len(np.unique(got["fc"])) > 50


def test_only_what_is_asked_for_is_traced(built: Project) -> None:
    assert set(FLOW.simulate(built, INPUTS)) == {"fc"}
    assert set(FLOW.simulate(built, INPUTS, trace=["act2"])) == {"act2"}
    with pytest.raises(InputError, match="bn1"):
        FLOW.simulate(built, INPUTS, trace=["bn1"])


def test_a_project_may_be_named_by_a_relative_path(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project.folder.parent)
    got = FLOW.simulate(FLOW.open(Path("project")), INPUTS)
    assert np.array_equal(got["fc"], interpret(GRAPH, INPUTS)["fc"])


def test_a_single_sample_and_none(built: Project) -> None:
    one = {"x": INPUTS["x"][:1]}
    assert np.array_equal(FLOW.simulate(built, one)["fc"], interpret(GRAPH, one)["fc"])
    assert FLOW.simulate(built, {"x": INPUTS["x"][:0]})["fc"].shape == (0, 5)


def test_wrong_inputs_are_refused(built: Project) -> None:
    with pytest.raises(InputError, match="'x' has shape"):
        FLOW.simulate(built, {"x": INPUTS["x"][:, :1]})
    with pytest.raises(InputError, match="no array is given for input 'x'"):
        FLOW.simulate(built, {})


@pytest.mark.parametrize(("layer", "tensor"), [("l_conv1", "conv1"), ("l_conv2", "act2"), ("l_fc", "fc")])
def test_one_flipped_bit_of_a_weight_names_its_layer(project: Project, layer: str, tensor: str) -> None:
    path = weight_file(project.folder, project.name, layer)
    values = path.read_text().split(", ")
    values[7] = repr(float(values[7]) + 2.0**-3)  # the last bit of a fixed<4,1>
    write_weights(path, ", ".join(values))
    got = FLOW.simulate(project, INPUTS, trace="all")
    assert first_difference(GRAPH, interpret(GRAPH, INPUTS, keep="all"), got) == tensor


def test_weights_are_read_when_it_runs_and_sources_compiled_when_they_change(project: Project) -> None:
    assert FLOW.compile(project) == 0.0
    source = project.folder / "firmware" / f"{project.name}.cpp"
    source.write_text(source.read_text() + "\n#error changed\n")
    with pytest.raises(CheckFailedError, match="does not compile") as failure:
        FLOW.simulate(project, INPUTS)
    assert str(project.folder) in str(failure.value)
    assert "changed" in str(failure.value)


@pytest.fixture
def compiler_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What would be compiled raises instead."""

    def refuse(command: object, project: Project) -> None:
        raise CheckFailedError("compiled anew")

    monkeypatch.setattr("qhw.flows.hls4ml.simulation._run", refuse)


@pytest.mark.usefixtures("compiler_is_asked")
@pytest.mark.parametrize("name", ["ap_types/ap_int.h", "ap_types/vector", "nnet_utils/new.h"])
def test_every_file_that_the_compiler_may_read_counts(project: Project, name: str) -> None:
    """Also one that stands in front of a standard header."""
    path = project.folder / "firmware" / name
    assert FLOW.compile(project) == 0.0
    path.write_text(f"#error changed\n{path.read_text() if path.exists() else ''}")
    with pytest.raises(CheckFailedError, match="compiled anew"):
        FLOW.simulate(project, INPUTS)


def plant(project: Project, path: Path) -> None:
    """Somebody else's program in place of the compiled one, and a seal that they could write."""
    program = path / "csim" / project.name
    program.write_text(f"#!/bin/sh\ntouch {path}/executed\n")
    program.chmod(0o755)


def flip_program(project: Project, path: Path) -> None:
    program = path / "csim" / project.name
    content = bytearray(program.read_bytes())
    content[len(content) // 2] ^= 1
    program.write_bytes(content)


def forget_seal(project: Project, path: Path) -> None:
    plant(project, path)
    (path / "csim" / "seal.json").unlink()


def break_seal(project: Project, path: Path) -> None:
    plant(project, path)
    (path / "csim" / "seal.json").write_text("[" * 100_000)


def forbid_execution(project: Project, path: Path) -> None:
    """As a copy onto a file system without such rights does."""
    (path / "csim" / project.name).chmod(0o644)


@pytest.mark.usefixtures("compiler_is_asked")
@pytest.mark.parametrize("damage", [plant, flip_program, forget_seal, break_seal, forbid_execution])
def test_a_program_that_this_user_did_not_compile_is_not_executed(
    project: Project, damage: Callable[[Project, Path], None]
) -> None:
    damage(project, project.folder)
    with pytest.raises(CheckFailedError, match="compiled anew"):
        FLOW.simulate(project, INPUTS)
    assert not (project.folder / "executed").exists()


def test_a_planted_program_is_replaced(project: Project) -> None:
    plant(project, project.folder)
    got = FLOW.simulate(project, INPUTS)
    assert np.array_equal(got["fc"], interpret(GRAPH, INPUTS)["fc"])
    assert not (project.folder / "executed").exists()
    assert FLOW.compile(project) == 0.0


@pytest.mark.usefixtures("compiler_is_asked")
def test_another_user_and_another_compiler_compile_anew(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert FLOW.compile(project) == 0.0
    with monkeypatch.context() as changed:
        changed.setattr("qhw.flows.hls4ml.simulation.compiler_version", lambda compiler: b"g++ 99")
        with pytest.raises(CheckFailedError, match="compiled anew"):
            FLOW.compile(project)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another user"))
    with pytest.raises(CheckFailedError, match="compiled anew"):
        FLOW.compile(project)


def test_a_flow_that_says_no_more_is_compiled_from_all_but_its_products(project: Project) -> None:
    found = set(ProjectFlow.sources(FLOW, project.folder))
    assert found > set(FLOW.sources(project.folder))
    assert found == {name for name in tree_digests(project.folder) if not name.startswith("csim/")}


def test_what_is_compiled_runs_without_a_compiler(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(project.folder))
    assert np.array_equal(FLOW.simulate(project, INPUTS)["fc"], interpret(GRAPH, INPUTS)["fc"])


@pytest.mark.parametrize(
    "name", ["csim", "csim/{}", "csim/seal.json", "firmware", "firmware/defines.h", "firmware/ap_types"]
)
def test_links_in_a_project_are_refused(project: Project, tmp_path: Path, name: str) -> None:
    place = project.folder / name.format(project.name)
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    before = tree_digests(tmp_path / "moved") if (tmp_path / "moved").is_dir() else None
    with pytest.raises(InputError, match="is a symbolic link"):
        FLOW.simulate(project, INPUTS)
    assert before is None or tree_digests(tmp_path / "moved") == before


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("exec sleep 20", "was stopped after 0.5 s"),
        ("echo 'ld: final link failed: No space left on device' >&2; exit 1", "No space left on device"),
    ],
)
def test_a_compiler_that_fails_is_told_in_its_words(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    shutil.rmtree(project.folder / "csim")
    (tmp_path / "g++").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "g++").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("qhw.flows.hls4ml.simulation._COMPILE_TIMEOUT", 0.5 if "sleep" in script else 60.0)
    with pytest.raises(CheckFailedError, match=words):
        FLOW.compile(project)


def test_the_test_bench_compares_its_vectors(project: Project) -> None:
    program = [str(project.folder / "csim" / project.name)]
    assert subprocess.run(program, cwd=project.folder, capture_output=True, check=False).returncode == 0
    expected = project.folder / "tb_data" / "tb_output_predictions.dat"
    first, rest = expected.read_text().split(" ", 1)
    expected.write_text(f"{float(first) + 2.0**-7} {rest}")
    done = subprocess.run(program, cwd=project.folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "1 differing" in done.stdout


def test_a_missing_weight_file_is_one_clear_error(project: Project) -> None:
    weight_file(project.folder, project.name, "l_conv2").unlink()
    with pytest.raises(CheckFailedError, match="is missing") as failure:
        FLOW.simulate(project, INPUTS)
    assert str(project.folder) in str(failure.value)


def test_a_shortened_weight_file_is_no_silent_zero(project: Project) -> None:
    path = weight_file(project.folder, project.name, "l_conv2")
    write_weights(path, path.read_text().rsplit(", ", 1)[0])
    with pytest.raises(CheckFailedError, match="Expected 144 values"):
        FLOW.simulate(project, INPUTS)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("kill -SEGV $$", "died of SIGSEGV"),
        ("echo 'assertion failed' >&2; exit 3", "assertion failed"),
        ("sleep 20", "was stopped after 1 s"),
        ("exit 0", "returned 0 numbers"),
    ],
)
def test_a_simulation_that_dies_does_not_take_us_along(
    project: Project, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    monkeypatch.setattr("qhw.flows.hls4ml.simulation.compile_project", lambda project: 0.0)
    program = project.folder / "csim" / project.name
    program.write_text(f"#!/bin/sh\n: > $2\n: > $3\n{script.replace('sleep', 'exec sleep')}\n")
    with pytest.raises(CheckFailedError, match=words) as failure:
        FLOW.simulate(project, INPUTS, timeout=1.0)
    assert str(project.folder) in str(failure.value)


def test_without_a_compiler(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(project.folder / "csim")
    monkeypatch.setenv("PATH", str(project.folder))
    with pytest.raises(ToolMissingError, match=r"g\+\+ is not installed"):
        FLOW.simulate(project, INPUTS)


def test_the_same_graph_gives_the_same_files(built: Project, tmp_path: Path) -> None:
    again = FLOW.write(designed(FLOW, GRAPH, {"conv1": 2, "fc": 4}), tmp_path / "elsewhere" / "other_name")
    assert again.content_hash() == built.content_hash()
    other = FLOW.write(designed(FLOW, GRAPH, {"conv1": 3, "fc": 4}), tmp_path / "other")
    assert other.content_hash() != built.content_hash()


def test_simulating_does_not_change_the_content(project: Project) -> None:
    before = project.content_hash()
    FLOW.simulate(project, INPUTS, trace="all")
    assert project.content_hash() == before


def test_torch_and_brevitas_are_not_needed(built: Project, tmp_path: Path) -> None:
    (tmp_path / "graph").mkdir()
    save_graph(GRAPH, tmp_path / "graph")
    script = f"""
        import sys
        sys.modules.update(dict.fromkeys(("torch", "brevitas"), None))
        sys.path[:0] = [{str(Path(__file__).parent)!r}]
        from pathlib import Path
        from hls4ml_project import designed
        from qhw.flows.base import load_flow
        from qhw.graph.serialize import load_graph
        graph = load_graph(Path({str(tmp_path / "graph")!r}))
        flow = load_flow("hls4ml")
        folding = {{"conv1": 2, "fc": 4}}
        print(flow.write(designed(flow, graph, folding), Path({str(tmp_path / "p")!r})).content_hash())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.stdout.strip() == built.content_hash()


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qhw.flows.hls4ml.project._write_vectors", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        FLOW.write(designed(FLOW, GRAPH, {}), tmp_path / "project")
    assert list(tmp_path.iterdir()) == []


def test_only_a_project_is_overwritten_or_opened(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("years of work")
    with pytest.raises(InputError, match="is not an hls4ml project"):
        FLOW.write(designed(FLOW, GRAPH, {}), tmp_path / "thesis")
    with pytest.raises(InputError, match="is not an hls4ml project"):
        FLOW.open(tmp_path / "thesis")
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter1.txt"]


def test_the_folder_is_ready_for_vitis(built: Project) -> None:
    settings = (built.folder / "project.tcl").read_text()
    assert "xczu3eg-sbva484-1-e" in settings
    assert "set clock_period 5\n" in settings
    assert "synth      1" in (built.folder / "build_opt.tcl").read_text()
    vectors = (built.folder / "tb_data" / "tb_input_features.dat").read_text().splitlines()
    assert len(vectors) == 4
    assert all(len(line.split()) == 72 for line in vectors)
