"""FINN's estimates beside qhw's, and FINN's settings of its driver."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from finn_projects import small_design, small_project

from qhw.cost import estimate
from qhw.flows.base import Project

pytest.importorskip("finn")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return small_project(tmp_path_factory.mktemp("small") / "project")


def report(project: Project, name: str) -> dict[str, dict[str, float]]:
    stored: dict[str, dict[str, float]] = json.loads((project.folder / "reports" / name).read_text())
    return stored


def test_every_layer_of_finn_is_a_nodes(small: Project) -> None:
    """Whatever FINN estimates is in the table, once."""
    rows = json.loads((small.folder / "reports" / "layers.json").read_text())
    cycles, resources = (
        report(small, "estimate_layer_cycles.json"),
        report(small, "estimate_layer_resources.json"),
    )
    total = resources.pop("total")
    layers = [name for row in rows for name in row["layers"]]
    assert len(layers) == len(set(layers))
    assert set(layers) == set(cycles) == set(resources)
    for ours, finns in (("lut", "LUT"), ("dsp", "DSP"), ("bram18", "BRAM_18K")):
        assert sum(row["finn"][ours] for row in rows) == total[finns] > 0
    assert max(row["finn"]["cycles"] for row in rows) == max(cycles.values())


def test_a_row_says_what_qhw_estimates_of_the_same_node(small: Project) -> None:
    rows = {row["node"]: row for row in json.loads((small.folder / "reports" / "layers.json").read_text())}
    layers = estimate(small_design()).layers
    assert list(rows) == [cost.node for cost in layers]
    for cost in layers:
        assert rows[cost.node]["qhw"]["lut"] == cost.lut
        assert rows[cost.node]["qhw"]["cycles"] == cost.initiation_interval
    assert any("MVAU" in name for name in rows["conv1"]["layers"])
    assert any("Padding" in name for name in rows["conv1"]["layers"])
    assert rows["norm1"]["layers"] == {}  # part of the thresholds behind it
    assert rows["result"]["layers"] == {}  # the host's


def test_finns_driver_is_told_the_ports_of_the_stream(small: Project) -> None:
    settings = json.loads((small.folder / "driver" / "settings.json").read_text())["driver_information"]
    ports, vectors = settings["io_shape_dict"], small.folder / "vectors"
    assert settings["fclk_mhz"] == 200.0
    for end, name, dma in (("i", "input", "idma"), ("o", "expected_output", "odma")):
        (normal,), (folded,) = ports[f"{end}shape_normal"], ports[f"{end}shape_folded"]
        assert ports[f"{dma}_names"] == [f"{dma}0"]
        assert normal[1:] == list(np.load(vectors / f"{name}.npy").shape[1:])
        assert np.prod(folded) == np.prod(normal)
    assert ports["idt"] == ["DataType['UINT8']"]


@pytest.mark.parametrize(("board", "has"), [("kv260", True), ("u250", False)])
def test_only_of_zynq_boards_finns_names_are_known_before_it_builds(
    board: str, has: bool, tmp_path: Path
) -> None:
    project = small_project(tmp_path / "project", board)
    assert (project.folder / "driver" / "settings.json").exists() is has
    assert (project.folder / "driver" / "host.py").exists()
