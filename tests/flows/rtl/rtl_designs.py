"""Graphs of everything that the rtl flow writes, and designs of them at random foldings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from op_zoo import Zoo

from qhw.boards import load_board
from qhw.cost.pricing.design import Design
from qhw.flows.base import load_flow
from qhw.formats import parse_format
from qhw.formats.base import Format
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Rounding
from qhw.formats.table import TableFormat
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

REFUSED = ("WRAP_SM",)
"""Overflow modes that nothing is written for."""


def design_of(graph: ExactGraph, seed: int = 1, board: str = "ulx3s", registers: str = "few") -> Design:
    """A design at a folding that is drawn node by node."""
    design = load_flow("rtl", registers=registers).prepare(graph, load_board(board))
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


PRODUCTS = (
    ("int6", "khot<8,2>"),
    ("uint4", "khot<6,2,csd>"),
    ("e4m3", "khot<6,2>"),
    ("e4m3", "e3m2"),
    ("e3m1", "e4m3fn"),
    ("int5", "e3m2"),
    ("e3m2", "int5"),
    ("binary", "binary"),
    ("ternary", "int4"),
    ("uint3", "ternary"),
    ("pow2<4>", "int4"),
    ("khot<6,2>", "int3"),
    ("e2m1", "pow2<3>"),
)
"""Formats of a layer's input and weights."""


def products() -> ExactGraph:
    """A matrix in every pair of formats, and convolutions that pad in some."""
    zoo = Zoo("products", 6)
    b = zoo.builder
    for index, (given, weights) in enumerate(PRODUCTS):
        x_format, w_format = parse_format(given), parse_format(weights)
        exponent = getattr(x_format, "exponent", None) or 0
        x = b.input(f"x{index}", (4, 4, 3), x_format, exponent)

        def drawn(*shape: int, format: Format = w_format) -> IntArray:
            listed = isinstance(format, TableFormat)
            numbers = format.numbers if listed else np.arange(format.mantissa_low, format.mantissa_high + 1)
            return np.asarray(zoo.rng.choice(numbers, shape))

        flat = b.reshape(f"flat{index}", x, (48,))
        zoo.end(b.matmul(f"fc{index}", flat, b.constant(f"fw{index}", drawn(48, 4), w_format)))
        if index % 3 == 0:
            conv_w = b.constant(f"cw{index}", drawn(4, 4, 2, 3), w_format)
            zoo.end(b.conv(f"conv{index}", x, conv_w, pads=(1, 0, 0, 1)))
    return zoo.finish()


def coded() -> ExactGraph:
    """Formats with codes of their own, rounded to, moved, compared, added and looked up."""
    zoo = Zoo("coded", 7)
    b = zoo.builder
    x = zoo.image("x", 9, True, 0)
    for index, text in enumerate(
        ("e4m3", "e3m2", "e2m1", "pow2<4>", "khot<5,2>", "ternary", "e3m1<nosubnormal>")
    ):
        format = parse_format(text)
        y = b.requant(f"y{index}", x, format, 1)
        if index % 2:
            zoo.end(b.max_pool(f"max{index}", y, (2, 2), (1, 1), (0, 1, 0, 0)))
            zoo.end(b.affine(f"scaled{index}", y, zoo.constant(f"m{index}", 4), zoo.constant(f"o{index}", 4)))
        else:
            zoo.end(b.sum_pool(f"sum{index}", y, (2, 2), (2, 1)))
            zoo.end(b.add(f"added{index}", y, x))
    return zoo.finish()


def chain(bits: int = 4) -> ExactGraph:
    """A matrix and the rounding behind it."""
    b = GraphBuilder("chain")
    x = b.input("x", (6,), Integer(bits))
    weight = b.constant("w", np.random.default_rng(0).integers(-8, 8, (6, 4)), Integer(4))
    return b.finish([b.requant("y", b.matmul("fc", x, weight), Integer(5), 3)])
