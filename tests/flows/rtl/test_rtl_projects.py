"""Written designs in Verilator: every code of every stream, and every clock cycle."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import op_zoo
import pytest
from rtl_designs import chain, coded, design_of, products, residual, without

from qhw.errors import CheckFailedError, InputError, UnsupportedError
from qhw.flows.base import Project, default_vectors, load_project_flow
from qhw.flows.rtl.emission import settled
from qhw.flows.rtl.simulation import simulate_project
from qhw.formats.integer import Integer
from qhw.formats.modes import Overflow
from qhw.graph import ir
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph

FLOW = load_project_flow("rtl")


def moves() -> ExactGraph:
    return op_zoo.moves()


def requants() -> ExactGraph:
    """Every rounding with every overflow that is written."""
    graph = op_zoo.requants()
    refused = {
        node.name
        for node in graph.nodes
        if isinstance(node, ir.Requant) and node.overflow is Overflow.WRAP_SM
    }
    return without(graph, refused | {"all_full"})  # shifts left by 90 bits


def written(graph: ExactGraph, folder: Path, seed: int = 1) -> Project:
    return FLOW.write(design_of(graph, seed), folder / "project")


def differing(project: Project, graph: ExactGraph, seed: int, images: int = 5) -> dict[str, int]:
    """The codes of each tensor that are not the interpreter's."""
    inputs = default_vectors(graph, images)
    run = simulate_project(project, inputs, "all", None, seed=seed)
    expected = interpret(graph, inputs, keep="all")
    assert set(graph.outputs) <= set(run.values)
    counts = {name: int((np.asarray(got) != expected[name]).sum()) for name, got in run.values.items()}
    return {name: count for name, count in counts.items() if count}


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [residual, op_zoo.elementwise, op_zoo.convolutions, moves, requants, products, coded],
    ids=lambda f: f.__name__,
)
def test_every_stream_is_exact_with_and_without_stalls(
    make: Callable[[], ExactGraph], tmp_path: Path
) -> None:
    graph = make()
    project = written(graph, tmp_path)
    for seed in (0, 1, 2):
        assert differing(project, graph, seed) == {}


@pytest.mark.slow
def test_cycles_are_those_of_the_schedule(tmp_path: Path) -> None:
    """With more registers, too, which change no cycle and no code."""
    graph = residual()
    for seed, registers in ((1, "few"), (2, "many")):
        design = design_of(graph, seed, registers=registers)
        project = FLOW.write(design, tmp_path / str(seed))
        _, schedule = settled(design)
        run = simulate_project(project, default_vectors(graph, 4), "outputs", None, seed=0)
        assert (run.ends[0] - run.begins[0], run.ends[-1] - run.ends[-2]) == (
            schedule.latency,
            schedule.interval,
        )
        assert differing(project, graph, seed) == {}


@pytest.mark.slow
def test_a_wrong_weight_is_found_in_its_layer_and_a_wrong_word_count_is_told(tmp_path: Path) -> None:
    graph = residual()
    project = written(graph, tmp_path)
    inputs = default_vectors(graph, 3)
    memory = next((project.folder / "memories").glob("*block1_weights.mem"))
    words = memory.read_text().splitlines()
    memory.write_text("\n".join([f"{int(words[0], 16) ^ 1:0{len(words[0])}x}", *words[1:]]) + "\n")
    row, _ = next(FLOW.verify(project, graph, inputs, tell=lambda share, text: None))
    assert row["mismatches"] > 0
    assert "block1" in row["first_difference"]
    stored = json.loads((project.folder / "qhw_project.json").read_text())
    stored["interval_cycles"] += 1
    (project.folder / "qhw_project.json").write_text(json.dumps(stored))
    with pytest.raises(CheckFailedError, match=r"in Verilator, .* by its schedule"):
        FLOW._cycles(project, inputs)


def test_the_same_design_gives_the_same_bytes(tmp_path: Path) -> None:
    one, other = (written(residual(), tmp_path / name) for name in ("one", "other"))
    assert one.content_hash() == other.content_hash()


def test_any_name_becomes_verilog(tmp_path: Path) -> None:
    b = GraphBuilder("endmodule // \n `include")
    x = b.input("module; \\ \n*/", (4,), Integer(4))
    graph = b.finish([b.affine("x_valid", b.affine("é 漢 {0}", x, b.constant("c", np.array(3))), "c")])
    project = FLOW.write(design_of(graph), tmp_path / "project")
    text = (project.folder / "rtl" / "accelerator.v").read_text()
    assert text.isascii()
    names = re.findall(r"^    (\w+) (?:#\(.*\) )?(\w+) \($", text, re.MULTILINE)
    assert len({name for _, name in names}) == len(names)


def test_queues_are_as_deep_as_the_branches_need() -> None:
    design = design_of(residual())
    circuit, schedule = settled(design)
    depths = {c.name: int(c.settings["D"]) for c in circuit.components if c.module == "fifo"}
    joins = [name for name in depths if "sum" in name]
    assert len(joins) == 2
    assert all(schedule.most[name] < depths[name] for name in joins)
    assert max(depths[name] for name in joins) > 2


def test_what_is_not_written_is_refused_by_name(tmp_path: Path) -> None:
    b = GraphBuilder("attention")
    x, y = b.input("x", (4, 4), Integer(4)), b.input("y", (4, 4), Integer(4))
    graph = b.finish([b.matmul("scores", x, y)])
    with pytest.raises(UnsupportedError, match=r"MatMul 'scores' .* not a constant matrix"):
        FLOW.write(design_of(graph), tmp_path / "project")
    assert not (tmp_path / "project").exists()
    with pytest.raises(UnsupportedError, match="multipliers 'packed'"):
        FLOW.write(FLOW.prepare(chain(), design_of(graph).board, "packed"), tmp_path / "project")


def test_something_else_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an rtl project that qhw wrote"):
        FLOW.open(tmp_path)
    project = written(chain(), tmp_path)
    assert FLOW.open(project.folder).name == "chain"
    stored = json.loads((project.folder / "qhw_project.json").read_text())
    stored["inputs"][0]["order"] = [0, 0, 1, 2, 3, 4]
    (project.folder / "qhw_project.json").write_text(json.dumps(stored))
    with pytest.raises(InputError, match="the order of 'x' is none of its 6 elements"):
        FLOW.open(project.folder)


def test_a_link_among_the_sources_is_refused(tmp_path: Path) -> None:
    project = written(chain(), tmp_path)
    shutil.copyfile(project.folder / "rtl" / "layers.v", tmp_path / "elsewhere.v")
    (project.folder / "rtl" / "layers.v").unlink()
    (project.folder / "rtl" / "layers.v").symlink_to(tmp_path / "elsewhere.v")
    with pytest.raises(InputError, match=r"layers\.v"):
        FLOW.compile(project)
