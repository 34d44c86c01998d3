"""Streams of a residual project: two words along chains, an image where branches meet."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from qhw.boards import load_board
from qhw.flows.base import load_project_flow
from qhw.formats import Integer
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

pytest.importorskip("hls4ml")


def top_source(project: Path) -> str:
    (source,) = (path for path in (project / "firmware").glob("*.cpp") if not path.stem.endswith("_axi"))
    return source.read_text()


def write(graph: ExactGraph, out: Path) -> None:
    """The project of a graph with streams, not folded."""
    flow = load_project_flow("hls4ml", io_type="io_stream")
    flow.write(flow.prepare(graph, load_board("ultra96")), out)


def test_only_the_streams_into_a_join_hold_an_image(tmp_path: Path) -> None:
    builder = GraphBuilder("residual")
    x = builder.input("x", (2, 6, 6), Integer(8, False))
    weight = builder.constant("w", np.arange(36).reshape(2, 2, 3, 3) % 5)
    y = builder.requant("act", builder.conv("conv", x, weight, pads=(1, 1, 1, 1)), Integer(8, False), 4)
    z = builder.requant("act2", builder.conv("conv2", y, weight, pads=(1, 1, 1, 1)), Integer(8, False), 8)
    builder.finish([builder.requant("out", builder.add("join", y, z), Integer(8, False), 9)])
    write(builder.graph, tmp_path / "project")
    source = top_source(tmp_path / "project")
    depths = dict(re.findall(r"#pragma HLS STREAM variable=(\w+) depth=(\d+)", source))
    read = re.search(r"nnet::add<[^>]*>\((\w+), (\w+),", source)
    assert read is not None
    joined = {read[1], read[2]}
    assert {depths[name] for name in joined} == {"36"}
    assert {depth for name, depth in depths.items() if name not in joined} == {"2"}


def test_a_sum_over_the_whole_image_is_accumulated(tmp_path: Path) -> None:
    builder = GraphBuilder("pooled")
    x = builder.input("x", (3, 5, 5), Integer(8, False))
    builder.finish([builder.sum_pool("gap", x, (5, 5))])
    write(builder.graph, tmp_path / "project")
    source = top_source(tmp_path / "project")
    assert "qhw::reduce<qhw::sum_op" in source
    assert "qhw::pool" not in source
