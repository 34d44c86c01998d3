"""Every code of the C-simulation against the interpreter, for every operation, layer by layer."""

from __future__ import annotations

from pathlib import Path

import listed_zoo
import numpy as np
import op_zoo
import pytest
from hls4ml_project import designed, first_difference, middle_folding, random_inputs

from qhw.flows.hls4ml import Hls4mlFlow
from qhw.graph.interpreter import interpret

pytest.importorskip("hls4ml")


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize(
    ("kind", "io_type", "folded"),
    [
        ("convolutions", "io_stream", 0.5),
        ("convolutions", "io_parallel", 1.0),
        ("elementwise", "io_stream", 0.0),
        ("elementwise", "io_parallel", 0.0),
        ("moves", "io_stream", 0.4),
        ("moves", "io_parallel", 1.0),
        ("reach", "io_stream", 0.5),
        ("reach", "io_parallel", 1.0),
        ("requants", "io_stream", 0.0),
        ("requants", "io_parallel", 0.0),
    ],
)
def test_every_operation_keeps_its_codes(tmp_path: Path, kind: str, io_type: str, folded: float) -> None:
    graph = getattr(op_zoo, kind)()
    flow = Hls4mlFlow(io_type)
    project = flow.write(designed(flow, graph, middle_folding(flow, graph, folded)), tmp_path / "project")
    inputs = random_inputs(graph, 150)
    got = flow.simulate(project, inputs, trace="all")
    expected = interpret(graph, inputs, keep="all")
    assert first_difference(graph, expected, got) is None
    assert set(graph.outputs) <= set(got)
    assert all(np.array_equal(got[name], expected[name]) for name in got)
    # A shift past the width of its input leaves one to three codes by nature: the others must vary.
    varied = [values for name, values in got.items() if not name.endswith(("_beyond", "_finer"))]
    assert np.median([len(np.unique(values)) for values in varied]) >= 4


@pytest.mark.slow
@pytest.mark.usefixtures("quickly_compiled")
@pytest.mark.parametrize("io_type", ["io_stream", "io_parallel"])
@pytest.mark.parametrize(
    ("kind", "folded"), [("products", 0.5), ("elementwise", 0.0), ("moves", 0.3), ("requants", 0.0)]
)
def test_every_operation_keeps_its_codes_in_formats_that_list_them(
    tmp_path: Path, kind: str, folded: float, io_type: str
) -> None:
    graph = getattr(listed_zoo, kind)()
    flow = Hls4mlFlow(io_type)
    project = flow.write(designed(flow, graph, middle_folding(flow, graph, folded)), tmp_path / "project")
    inputs = random_inputs(graph, 150)
    got = flow.simulate(project, inputs, trace="all")
    expected = interpret(graph, inputs, keep="all")
    assert first_difference(graph, expected, got) is None
    assert set(graph.outputs) <= set(got)
    assert all(np.array_equal(got[name], expected[name]) for name in got)
    assert np.median([len(np.unique(values)) for values in got.values()]) >= 4


@pytest.mark.slow
def test_a_residual_network_keeps_its_codes(tmp_path: Path) -> None:
    from graph_factory import resnet8_graph

    graph = resnet8_graph(side=16)
    flow = Hls4mlFlow()
    project = flow.write(designed(flow, graph, middle_folding(flow, graph, 0.6)), tmp_path / "project")
    inputs = random_inputs(graph, 16)
    got = flow.simulate(project, inputs, trace="all")
    assert first_difference(graph, interpret(graph, inputs, keep="all"), got) is None
    assert len(got) > 20
    assert all(len(np.unique(values)) > 20 for values in got.values())
