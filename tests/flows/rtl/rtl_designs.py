"""Graphs of everything that the rtl flow writes, and designs of them at random foldings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from op_zoo import Zoo

from qhw.boards import load_board
from qhw.cost.pricing.design import Design
from qhw.flows.base import load_flow
from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

REFUSED = ("WRAP_SM",)
"""Overflow modes that nothing is written for."""


def design_of(graph: ExactGraph, seed: int = 1, board: str = "ulx3s") -> Design:
    """A design at a folding that is drawn node by node."""
    design = load_flow("rtl").prepare(graph, load_board(board))
    rng = np.random.default_rng(seed)
    return design.folded({name: folds[int(rng.integers(len(folds)))] for name, folds in design.legal.items()})


def without(graph: ExactGraph, dropped: set[str]) -> ExactGraph:
    """The graph without some nodes, and without every output that follows from one of them."""
    lost = {node.output for node in graph.nodes if node.name in dropped}
    for node in graph.nodes:
        if lost.intersection(node.inputs):
            lost.add(node.output)
    outputs = tuple(name for name in graph.outputs if name not in lost)
    needed, nodes = set(outputs), []
    for node in reversed(graph.nodes):
        if node.output in needed:
            nodes.append(node)
            needed.update(node.inputs)
    inputs = tuple(name for name in graph.inputs if name in needed)
    return replace(graph, inputs=inputs, outputs=outputs).replace_nodes(nodes[::-1])


def residual() -> ExactGraph:
    """A strided convolution, a residual block, a pool and a matrix: a small network."""
    zoo = Zoo("residual", 3)
    b = zoo.builder
    x = b.input("image", (3, 8, 8), Integer(8, False), -8)
    stem = zoo.conv("stem", x, 4, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1), bias_exponent=-11)
    first = b.requant("first", stem, Integer(6, False), -5, rounding=Rounding.RND_CONV)
    inner = b.requant("inner", zoo.conv("block1", first, 4, (3, 3), pads=(1, 1, 1, 1)), Integer(6), -4)
    outer = b.requant("outer", zoo.conv("block2", inner, 4, (3, 3), pads=(1, 1, 1, 1)), Integer(6), -4)
    joined = b.requant("joined", b.add("sum", outer, first), Integer(6, False), -4)
    pooled = b.max_pool("pool", joined, (2, 2), (2, 2))
    flat = b.reshape("flat", pooled, (16,))
    logits = b.matmul("classify", flat, zoo.constant("cw", 16, 5), zoo.constant("cb", 5, bits=7, exponent=-7))
    zoo.end(b.requant("logits", logits, Integer(10), -3))
    return zoo.finish()


def chain(bits: int = 4) -> ExactGraph:
    """A matrix and the rounding behind it."""
    b = GraphBuilder("chain")
    x = b.input("x", (6,), Integer(bits))
    weight = b.constant("w", np.random.default_rng(0).integers(-8, 8, (6, 4)), Integer(4))
    return b.finish([b.requant("y", b.matmul("fc", x, weight), Integer(5), 3)])
