"""FINN projects for tests: a small random network, and the trained default model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from graph_factory import UINT8, Network

from qhw.api import build as run_build
from qhw.boards import load_board
from qhw.cost import Design
from qhw.flows.base import Project, load_project_flow
from qhw.formats.integer import Integer
from qhw.graph.ir import ExactGraph
from qhw.pipeline.designs import Wanted, best_design


@cache
def small_graph() -> ExactGraph:
    """A residual block, a pool and a classifier; the host adds its bias, and rounds to 16 bits."""
    net = Network("small", 3, weight_bits=4)
    x = net.builder.input("image", (2, 8, 8), Integer(8, False), -8, UINT8)
    x = net.relu("relu1", net.norm("norm1", net.conv("conv1", x, 4, 3)))
    y = net.signed("act2", net.norm("norm2", net.conv("conv2", x, 4, 3)))
    x = net.relu("relu3", net.builder.add("add", y, x))
    x = net.builder.max_pool("pool", x, (2, 2))
    x = net.builder.reshape("flat", x, (64,))
    weight = net.builder.constant("fc_weight", net.integers(4, (64, 5)), Integer(4), -3)
    bias = net.builder.constant("fc_bias", net.integers(8, (5,)), Integer(8), -7)
    x = net.builder.matmul("fc", x, weight, bias)
    return net.builder.finish([net.builder.requant("result", x, Integer(12), -7)])


@cache
def small_design(board: str = "ultra96") -> Design:
    """The small network on a board, at a rate."""
    flow = load_project_flow("finn")
    return best_design(small_graph(), load_board(board), flow, Wanted(fps=100_000.0))


def small_project(folder: Path, board: str = "ultra96") -> Project:
    """The small network's project, with random test vectors."""
    design = small_design(board)
    pixels = np.random.default_rng(1).integers(0, 256, (8, 2, 8, 8))
    return load_project_flow("finn").write(design, folder, vectors={"image": pixels})


def digits_project(build: Path) -> Project:
    """The default model, trained and built."""
    run_build("digits-cnn", board="ultra96", flow="finn", out=build)
    return load_project_flow("finn").open(build / "project")
