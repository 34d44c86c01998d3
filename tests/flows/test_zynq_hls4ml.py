"""The hls4ml flow's C++ between beats, behind the shell's Verilog, by the driver of the folder: digits."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from trained_digits import digits_graph, test_images
from zynq_simulation import Board, compiled, imported, with_bitstream

from qhw.boards import load_board
from qhw.flows.base import Project, load_project_flow
from qhw.graph.encode import decode_output, encode_input
from qhw.graph.interpreter import interpret


def written(folder: Path, io_type: str, board: str = "pynq-z2") -> Project:
    flow = load_project_flow("hls4ml", io_type=io_type)
    return flow.write(flow.best(flow.prepare(digits_graph(), load_board(board))), folder)


@pytest.mark.slow
@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
def test_digits_by_the_driver(io_type: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every code and value, with stalls at every stream."""
    project = written(tmp_path / "project", io_type)
    (tmp_path / "board").mkdir()
    program = compiled(project.folder, tmp_path / "board", f"{project.name}_axi")
    images, labels = test_images(60)
    expected = interpret(digits_graph(), {"x": encode_input(digits_graph(), "x", images)})["logits"]
    with Board(program, project.folder) as board:
        driver = imported(project.folder, monkeypatch, board.pynq)
        with_bitstream(project.folder / "zynq" / "driver")
        accelerator = driver.Accelerator(batch=25)
        values = accelerator.run(images)
        assert np.array_equal(accelerator.run_codes(accelerator.encode(images[:3])), expected[:3])
        assert accelerator.counters["images"] == 63
    assert np.array_equal(values, decode_output(digits_graph(), "logits", expected))
    assert (values.argmax(axis=1) == labels).mean() > 0.85


def test_the_c_simulation_calls_the_function_that_is_exported(tmp_path: Path) -> None:
    project = written(tmp_path / "project", "io_parallel")
    export = (project.folder / "zynq" / "export_ip.tcl").read_text()
    (top,) = re.findall(r"set_top (\w+)", export)
    assert f"    {top}(s_axis, m_axis);" in (project.folder / f"{project.name}_test.cpp").read_text()
    assert f"void {top}(" in (project.folder / "firmware" / f"{top}.cpp").read_text()
    design = (project.folder / "zynq" / "block_design.tcl").read_text()
    (core,) = re.findall(r"-vlnv (qhw:\S+) network", design)
    words = dict(re.findall(r"-(vendor|library|ipname|version) (\S+)", export))
    assert core == ":".join(words[part] for part in ("vendor", "library", "ipname", "version"))
    assert set(project.products) >= {"vivado", "bitstream"}


def test_a_board_without_a_processing_system_has_no_such_folder(tmp_path: Path) -> None:
    project = written(tmp_path / "project", "io_parallel", "u250")
    assert not (project.folder / "zynq").exists()
    assert f"{project.name}(" in (project.folder / f"{project.name}_test.cpp").read_text()
    assert not list((project.folder / "firmware").glob("*_axi*"))


def test_a_changed_weight_is_another_design(tmp_path: Path) -> None:
    flow = load_project_flow("hls4ml", io_type="io_parallel")
    graph = digits_graph()
    other = dataclasses.replace(graph, constants={**graph.constants, "w1": -graph.constants["w1"]})
    texts = []
    for index, one in enumerate((graph, graph, other)):
        folder = tmp_path / str(index)
        flow.write(flow.best(flow.prepare(one, load_board("pynq-z2"))), folder)
        texts.append((folder / "zynq" / "driver" / "accelerator.json").read_text())
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]
