"""A board with 10 DSP slices: more reuse, more latency, the same codes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qhw.boards import load_board
from qhw.cost import Estimate, choose_folding, estimate
from qhw.flows.base import load_project_flow
from qhw.formats import Integer
from qhw.graph.builder import GraphBuilder
from qhw.graph.interpreter import interpret
from qhw.graph.ir import ExactGraph

pytest.importorskip("hls4ml")


def small_cnn() -> ExactGraph:
    """Two convolutions, the second of 2,304 products, a pool and a dense layer; random 8-bit weights."""
    random = np.random.default_rng(3)
    builder = GraphBuilder("small_cnn")
    x = builder.input("image", (1, 8, 8), Integer(8, False), -8)
    for index in (1, 2):
        depth = builder.type(x).shape[0]
        weight = builder.constant(f"w{index}", random.integers(-99, 99, (16, depth, 3, 3)), Integer(8), -7)
        y = builder.conv(f"conv{index}", x, weight, pads=(1, 1, 1, 1))
        x = builder.requant(f"act{index}", y, Integer(8, False), -6)
    x = builder.reshape("flat", builder.sum_pool("pool", x, (8, 8)), (16,))
    weight = builder.constant("w", random.integers(-128, 128, (16, 10)), Integer(8), -7)
    return builder.finish([builder.matmul("dense", x, weight)])


def slowest(found: Estimate) -> int:
    """The largest reuse factor."""
    return max(fold.to_json()["reuse_factor"] for fold in found.folding.values())


@pytest.mark.slow
def test_ten_dsp_slices_cost_time_and_change_no_code(tmp_path: Path) -> None:
    file = tmp_path / "scarce.toml"
    file.write_text('based_on = "ultra96"\ndsp = 10\n')
    graph, flow = small_cnn(), load_project_flow("hls4ml", io_type="io_stream")
    images = {"image": np.random.default_rng(4).integers(0, 256, (40, 1, 8, 8))}
    expected = interpret(graph, images)["dense"]
    estimates = []
    for board in (load_board("ultra96"), load_board(file)):
        design = choose_folding(flow.prepare(graph, board))
        project = flow.write(design, tmp_path / board.name)
        flow.compile(project)
        codes = flow.simulate(project, images)["dense"]
        assert np.array_equal(codes, expected)
        estimates.append(estimate(design))
    usual, scarce = estimates
    assert scarce.totals["dsp"] <= 10 < usual.totals["dsp"]
    assert slowest(scarce) > slowest(usual)
    assert scarce.latency_cycles > usual.latency_cycles
    assert np.unique(expected).size > 100
