"""Graphs that hold every operation and mode which the hls4ml flow carries."""

from __future__ import annotations

from typing import Any

import numpy as np

from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph, Exponent

IMAGE = (4, 6, 5)


class Zoo:
    """A graph under construction: each branch starts from an input of its own and ends in an output."""

    def __init__(self, name: str, seed: int = 0):
        self.rng = np.random.default_rng(seed)
        self.builder = GraphBuilder(name)
        self.outputs: list[str] = []

    def numbers(self, *shape: int, bits: int = 4) -> IntArray:
        return self.rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), shape)

    def constant(self, name: str, *shape: int, bits: int = 4, exponent: Any = -3) -> str:
        return self.builder.constant(name, self.numbers(*shape, bits=bits), Integer(bits), exponent)

    def image(self, name: str, bits: int = 6, signed: bool = True, exponent: int = -2) -> str:
        return self.builder.input(name, IMAGE, Integer(bits, signed), exponent)

    def end(self, tensor: str) -> None:
        self.outputs.append(tensor)

    def finish(self) -> ExactGraph:
        return self.builder.finish(self.outputs)

    def conv(self, name: str, x: str, filters: int, kernel: tuple[int, ...], **options: Any) -> str:
        channels = self.builder.type(x).shape[0] // options.get("groups", 1)
        exponent = options.pop("exponent", -3)
        bias = self.constant(f"{name}_b", filters, bits=7, exponent=options.pop("bias_exponent", -7))
        weight = self.constant(f"{name}_w", filters, channels, *kernel, exponent=exponent)
        return self.builder.conv(name, x, weight, bias, **options)


def convolutions() -> ExactGraph:
    """Strided, padded on one side, dilated, grouped, depthwise, 1x1, one-dimensional, per-channel scales."""
    zoo = Zoo("convolutions")
    b, x = zoo.builder, zoo.image("x", 5, False)
    zoo.end(zoo.conv("strided", x, 5, (3, 3), strides=(2, 1), pads=(1, 0, 0, 1)))
    zoo.end(zoo.conv("dilated", x, 3, (2, 3), dilations=(2, 1), pads=(1, 1, 1, 1)))
    zoo.end(zoo.conv("grouped", x, 6, (3, 2), groups=2))
    zoo.end(zoo.conv("depthwise", x, 4, (3, 3), groups=4, pads=(1, 1, 1, 1)))
    zoo.end(zoo.conv("multiplier", x, 8, (1, 2), groups=4))
    wide = zoo.conv("pointwise", x, 7, (1, 1), bias_exponent=-3)
    zoo.end(b.requant("pointwise_q", wide, Integer(5), -2, rounding=Rounding.RND_INF, overflow=Overflow.WRAP))
    y = zoo.image("y", 1, False)
    per_channel = Exponent((-3, -1, -5, -2, -3), 0)
    scaled = zoo.conv("scaled", y, 5, (3, 3), exponent=per_channel, bias_exponent=per_channel)
    zoo.end(b.requant("scaled_q", scaled, Integer(6), -1, rounding=Rounding.RND))
    line = b.input("line", (3, 9), Integer(2), 0)
    zoo.end(zoo.conv("line3", line, 4, (3,), strides=(2,), pads=(1, 2)))
    zoo.end(zoo.conv("line_dw", line, 3, (4,), groups=3))
    zoo.end(b.conv("line_1", line, zoo.constant("line_1w", 2, 3, 1, bits=2, exponent=0)))
    padded = b.pad("spatial", y, (0, 1, 0, 0, 2, 1))
    zoo.end(zoo.conv("padded", padded, 2, (3, 3)))
    return zoo.finish()


def elementwise() -> ExactGraph:
    """Add, Mul and Affine with computed and constant operands, Threshold and Table per channel and not."""
    zoo = Zoo("elementwise", 1)
    b = zoo.builder
    x, y = zoo.image("x"), zoo.image("y", 4, False, 1)
    zoo.end(b.requant("sum_q", b.add("sum", x, y), Integer(7), -1, rounding=Rounding.RND_ZERO))
    zoo.end(b.add("twice", x, x))
    zoo.end(b.mul("product", x, y))
    zoo.end(b.add("per_channel", y, zoo.constant("c", 4, 1, 1, bits=5, exponent=-4)))
    zoo.end(b.mul("per_element", x, zoo.constant("e", *IMAGE, bits=3)))
    scaled = b.affine(
        "scaled",
        y,
        zoo.constant("m", 4, bits=5, exponent=Exponent((-2, -3, 0, -1), 0)),
        zoo.constant("o", 4, bits=5, exponent=-2),
    )
    zoo.end(b.add("joined", b.requant("narrow", scaled, Integer(9), Exponent((-1, 0, -2, 1), 0)), x))
    zoo.end(b.affine("negated", x, b.constant("minus", np.array(-1))))
    z = zoo.image("z", 7, True, 3)
    rows = np.stack([np.sort(zoo.rng.choice(np.arange(-70, 70), 20, replace=False)) for _ in range(4)])
    zoo.end(b.threshold("many", z, b.constant("t", rows), b.constant("l", _levels(4, 20)), Integer(6)))
    few = b.constant("few_t", np.array([[-20, 0, 70]]))
    zoo.end(b.threshold("few", z, few, b.constant("few_l", np.array([[3, 1, -5, -9]])), Integer(6)))
    zoo.end(b.threshold("count", z, few, b.constant("count_l", np.array([[2, 1, 0, -1]])), Integer(3), -1))
    squares = (np.arange(-64, 64) ** 2 // 16)[None, :]
    zoo.end(b.table("square", z, b.constant("sq", squares), -64, Integer(9, False), 2))
    own = zoo.numbers(4, 128, bits=5)
    zoo.end(b.table("own_table", z, b.constant("own", own), -64, Integer(5)))
    return zoo.finish()


def _levels(rows: int, count: int) -> IntArray:
    rising = np.stack([np.arange(count + 1) + row - 10 for row in range(rows)])
    rising[1] = rising[1][::-1]
    return rising


def moves() -> ExactGraph:
    """Pools, reductions, Transpose, Slice, Pad, Concat, Reshape in front of a MatMul, MatMul of rows."""
    zoo = Zoo("moves", 2)
    b = zoo.builder
    x = zoo.image("x")
    zoo.end(b.max_pool("plain_max", x, (2, 2)))
    zoo.end(b.max_pool("odd_max", x, (3, 2), (1, 2), (1, 0, 2, 1), (1, 2)))
    total = b.sum_pool("padded_sum", x, (3, 3), (2, 1), (1, 1, 0, 1))
    zoo.end(b.requant("padded_sum_q", total, Integer(6), 1, rounding=Rounding.RND_CONV))
    zoo.end(b.reduce_sum("whole_image", x, (1, 2), True))
    zoo.end(b.reduce_max("over_rows", x, (1,), False))
    zoo.end(b.reduce_sum("over_channels", x, (0,), False))
    y = zoo.image("y", 3, False, 0)
    zoo.end(b.transpose("turned", y, (2, 0, 1)))
    zoo.end(b.slice("stepped", y, 1, 1, 6, 2))
    zoo.end(b.pad("framed", y, (1, 0, 2, 0, 1, 0), 3))
    zoo.end(b.concat("channels", [y, b.slice("head", y, 0, 0, 3)], 0))
    flat = b.reshape("flat", y, (120,))
    zoo.end(b.matmul("fc", flat, zoo.constant("fw", 120, 7), zoo.constant("fb", 7, bits=8)))
    z = zoo.image("z", 3)
    zoo.end(b.concat("rows", [z, z], 1))
    per_column = Exponent((-3, -1, -2), 1)
    rows = b.matmul("rowwise", z, zoo.constant("rw", 5, 3, exponent=per_column), zoo.constant("rb", 3))
    zoo.end(b.requant("rowwise_q", rows, Integer(5), -2, rounding=Rounding.RND))
    flat = b.affine("flat_scaled", b.reshape("flat_z", z, (120,)), zoo.constant("fm", 120))
    narrow = b.requant("flat_q", flat, Integer(5), -3)
    zoo.end(b.matmul("fc2", narrow, zoo.constant("fw2", 120, 3, exponent=per_column)))
    line = b.input("line", (2, 8), Integer(5), -1)
    zoo.end(b.max_pool("line_max", line, (2,)))
    zoo.end(b.sum_pool("line_sum", line, (3,), (2,), (1, 0)))
    zoo.end(b.concat("line_2", [line, line, line], 0))
    back = b.reshape("back", b.transpose("swapped", line, (1, 0)), (2, 2, 4))
    zoo.end(zoo.conv("again", back, 3, (2, 2)))
    zoo.end(line)
    return zoo.finish()


def reach() -> ExactGraph:
    """What hls4ml has no layer for, or a wrong one."""
    zoo = Zoo("reach", 5)
    b = zoo.builder
    x = zoo.image("x", 5)
    zoo.end(zoo.conv("class", x, 3, (1, 2), strides=(2, 1)))
    zoo.end(zoo.conv("größe 重み" * 100, x, 2, (1, 3), strides=(3, 2), pads=(1, 1, 0, 0)))
    zoo.end(zoo.conv("flat_depthwise", x, 4, (1, 1), strides=(2, 3), groups=4))
    zoo.end(zoo.conv("pointwise", x, 2, (1, 1), strides=(3, 2)))
    q, k = b.input("q", (2, 3, 4), Integer(4)), b.input("k", (2, 5, 4), Integer(5, False), -2)
    scores = b.matmul("scores", q, b.transpose("kt", k, (0, 2, 1)))
    zoo.end(b.matmul("context", b.requant("soft", scores, Integer(5), 1), k))
    zoo.end(b.requant("stacked_q", b.matmul("stacked", q, zoo.constant("sw", 1, 4, 3)), Integer(6), -1))
    zoo.end(b.matmul("mixer", zoo.constant("mw", 2, 5, 3), q))
    row = b.input("row", (4,), Integer(4))
    zoo.end(b.matmul("by_row", row, b.input("m", (4, 2), Integer(3))))
    squeezed = b.requant("squeezed", b.reduce_sum("mean", x, (1, 2), True), Integer(5, False), 1)
    zoo.end(b.mul("excited", x, b.upsample("wide", squeezed, (6, 5))))
    zoo.end(b.upsample("nearest", x, (2, 3)))
    zoo.end(b.upsample("between", b.requant("half", x, Integer(4, False), -1), (1, 2), True))
    zoo.end(b.upsample("turned_up", b.transpose("turned", x, (1, 0, 2)), (2, 1)))
    zoo.end(b.concat("framed", [x, zoo.constant("edge", 4, 6, 2, bits=5, exponent=-2), x], 2))
    deep = b.input("deep", (2, 3, 2, 2), Integer(4))
    zoo.end(b.concat("four_axes", [deep, b.input("deeper", (2, 1, 2, 2), Integer(4))], 1))
    blocks = b.transpose("moved", b.reshape("blocks", x, (2, 2, 1, 6, 5)), (2, 3, 0, 4, 1))
    space = b.reshape("space", blocks, (1, 12, 10))
    zoo.end(zoo.conv("on_space", space, 2, (2, 2)))
    zoo.end(b.slice("cropped", b.slice("cut", x, 2, 1, 5), 1, 0, 5, 2))
    zoo.end(b.pad("value", x, (1, 2, 0, 0, 1, 3), -16))
    zoo.end(b.max_pool("global_max", x, (6, 5)))
    zoo.end(b.requant("edges_q", b.sum_pool("edges", x, (2, 2), (1, 1), (2, 0, 3, 2)), Integer(6), 0))
    wide = b.input("wide", (32, 5, 5), Integer(2))
    zoo.end(zoo.conv("atrous", wide, 6, (3, 3), dilations=(10, 9), pads=(9, 9, 9, 9)))
    return zoo.finish()


def requants() -> ExactGraph:
    """Every rounding with every overflow mode, bounds of its own, shifts per channel, beyond the width."""
    zoo = Zoo("requants", 3)
    b = zoo.builder
    for i, rounding in enumerate(Rounding):
        x = b.input(f"x{i}", (6,), Integer(8, i % 2 == 0), -4)
        for j, overflow in enumerate(Overflow):
            name, modes = f"{rounding.value}_{overflow.value}", {"rounding": rounding, "overflow": overflow}
            zoo.end(b.requant(name, x, Integer(4), -2, **modes))
            zoo.end(b.requant(f"{name}_beyond", x, Integer(2), 3 + (i + j) % 3, **modes))
            if rounding is Rounding.UP:
                zoo.end(b.requant(f"{name}_finer", x, Integer(4), -11, **modes))
    total = b.matmul("total", b.input("t", (4,), Integer(3)), zoo.constant("tw", 4, 3))
    zoo.end(b.requant("all_dropped", total, Integer(2), 90, rounding=Rounding.CEIL))
    zoo.end(b.requant("all_full", total, Integer(5), -90, overflow=Overflow.SAT_ZERO))
    y = b.input("y", (6,), Integer(7), 0)
    shifts = Exponent((-2, 1, 0, 3, 2, -1), 0)
    zoo.end(b.requant("relu6", y, Integer(5), 1, low=0, high=9))
    zoo.end(b.requant("per_channel", y, Integer(5), shifts, rounding=Rounding.RND_ZERO))
    zoo.end(b.requant("wrapped", y, Integer(3), shifts, rounding=Rounding.UP, overflow=Overflow.WRAP))
    zoo.end(b.requant("zeroed", y, Integer(3), shifts, overflow=Overflow.SAT_ZERO, low=-2, high=2))
    zoo.end(b.requant("finer", y, Integer(9, False), -3))
    zoo.end(b.requant("narrow", y, Integer(6), 0, low=-31, high=31))
    zoo.end(b.requant("one_bit", y, Integer(1, False), 2))
    return zoo.finish()
