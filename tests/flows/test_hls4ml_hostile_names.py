"""Names, folders and boards of somebody else's making: in a project they are text, and none of it runs."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qhw.boards import Board, load_board
from qhw.errors import InputError
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.formats.integer import Integer
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

pytest.importorskip("hls4ml")

PAYLOAD = (
    'x"; exec touch pwned; set y "[exec touch pwned]\n`touch pwned`$(touch pwned)\';\\\n'
    '*/ #error "pwned"\n}}{{run}} ü <b>&amp;[/red]\t\x1b]0;pwned\x07 ../../up %s {0} \u202e'
)
TRACES = ('"; exec', "exec touch", "`touch", "$(touch", "*/ #", "{{run}}", "[/red]", "\x1b", "\u202e", "ü")


def hostile_graph() -> ExactGraph:
    """A convolution and two requantisers; every name in it is the payload."""
    builder = GraphBuilder(PAYLOAD)
    x = builder.input(f"{PAYLOAD} x", (1, 4, 4), Integer(4))
    weight = builder.constant(f"{PAYLOAD} w", np.arange(-9, 9).reshape(2, 1, 3, 3), Integer(5))
    y = builder.conv(f"{PAYLOAD} conv", x, weight, source=f"{PAYLOAD} layer")
    y = builder.requant(f"{PAYLOAD} q", y, Integer(6), 1, source=PAYLOAD)
    builder.output(builder.requant(f"{PAYLOAD} q2", y, Integer(4), 2))
    return builder.finish()


@pytest.fixture(scope="module", params=["io_stream", "io_parallel"])
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / PAYLOAD.replace("/", "|")
    flow = Hls4mlFlow(io_type=request.param)
    flow.write(flow.prepare(hostile_graph(), load_board("ultra96")), folder / "project")
    return folder / "project"


def test_no_file_holds_a_name_as_it_was_given(project: Path) -> None:
    """The description alone does, and the driver's facts: they are JSON, which nothing executes."""
    looked_at = 0
    for path in project.rglob("*"):
        if (
            path.is_file()
            and path.name not in ("qhw_project.json", "accelerator.json")
            and "ap_types" not in path.parts
        ):
            text = path.read_bytes().decode(errors="replace")
            assert not [trace for trace in TRACES if trace in text], path
            assert str(project) not in text
            assert re.fullmatch(r"[A-Za-z0-9_.-]+", path.name)
            looked_at += 1
    assert looked_at > 40
    stored = json.loads((project / "qhw_project.json").read_text())
    assert PAYLOAD + " conv" in stored["nodes"].values()
    assert re.fullmatch(r"[a-z0-9_]+", stored["name"])


def test_the_projects_own_folder_is_not_in_it(project: Path) -> None:
    import yaml

    assert yaml.safe_load((project / "hls4ml_config.yml").read_text())["OutputDir"] == "."


STANDING_IN = """
proc open_project {args} {puts "project: $args"}
proc set_part {args} {puts "part: $args"}
foreach name {set_top add_files open_solution catch_all config_array_partition config_compile create_clock
    config_interface config_op set_clock_uncertainty csim_design csynth_design cosim_design export_design
    config_schedule} {
    proc $name {args} {}
}
proc vitis_hls {args} {}
proc exit {args} {}
source build_prj.tcl
puts "part variable: $part"
"""


@pytest.mark.skipif(shutil.which("tclsh") is None, reason="tclsh is not installed")
@pytest.mark.parametrize("part", ["xczu3eg-sbva484-1-e", "A0.b_C+d-E" * 8])
def test_tcl_runs_the_script_and_nothing_else(tmp_path: Path, part: str) -> None:
    board = dataclasses.replace(load_board("ultra96"), part=part, clock_mhz=333.3333)
    flow = Hls4mlFlow(io_type="io_parallel")
    folder = tmp_path / "a [exec touch pwned] $x; {"
    flow.write(flow.prepare(hostile_graph(), board), folder)
    (folder / "run.tcl").write_text(STANDING_IN)
    done = subprocess.run(["tclsh", "run.tcl"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert f"part: {part}\n" in done.stdout, done.stderr
    assert f"part variable: {part}\n" in done.stdout, done.stderr
    assert not list(tmp_path.rglob("pwned"))


HOSTILE = (
    'x"; exec touch y',
    "[exec x]",
    "$x",
    "a b",
    "a\nb",
    "a\\b",
    "{",
    "-part",
    "../x",
    "ü",
    "",
    "x" * 81,
    "a;b",
)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ["part", "name", "family"])
def test_a_board_names_itself_and_its_part_by_plain_words(tmp_path: Path, field: str, text: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'based_on = "ultra96"\n{field} = {json.dumps(text)}\n')
    with pytest.raises(InputError, match=rf"{field}|family"):
        load_board(path)


def test_the_parts_of_known_boards_are_such_words() -> None:
    board: Board = load_board("ulx3s")
    assert re.fullmatch(r"[A-Za-z0-9._+-]+", board.part)
