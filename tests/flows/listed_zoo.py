"""Graphs whose tensors and constants list their codes: minifloats, k-hot, powers of two, binary, ternary."""

from __future__ import annotations

from typing import Any

import numpy as np
from op_zoo import IMAGE, Zoo

from qhw.formats import TableFormat, parse_format
from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.ir import ExactGraph, Exponent


class ListedZoo(Zoo):
    """A zoo with inputs, constants and results in formats given as text."""

    def listed(self, name: str, shape: tuple[int, ...], text: str, exponent: Any = -3) -> str:
        """A constant of random numbers of the format."""
        format = parse_format(text)
        assert isinstance(format, TableFormat)
        return self.builder.constant(name, self.rng.choice(format.numbers, shape), format, exponent)

    def picture(self, name: str, text: str, exponent: int = -4) -> str:
        return self.builder.input(name, IMAGE, parse_format(text), exponent)

    def filters(
        self, name: str, x: str, filters: int, kernel: tuple[int, ...], text: str, **options: Any
    ) -> str:
        channels = self.builder.type(x).shape[0] // options.get("groups", 1)
        exponent = options.pop("exponent", -3)
        bias = self.constant(f"{name}_b", filters, bits=7, exponent=options.pop("bias_exponent", -7))
        weight = self.listed(f"{name}_w", (filters, channels, *kernel), text, exponent)
        return self.builder.conv(name, x, weight, bias, **options)

    def rounded(self, name: str, x: str, text: str, exponent: Any, **options: Any) -> str:
        tensor = self.builder.requant(name, x, parse_format(text), exponent, **options)
        self.end(tensor)
        return tensor


def products() -> ExactGraph:
    """Convolutions and matrix products of every pair of kinds, ended by nothing, a cast, a shift, a code."""
    zoo = ListedZoo("products", 10)
    b = zoo.builder
    x = zoo.picture("x", "e4m3")
    strided = zoo.filters("strided", x, 5, (3, 3), "e3m2", strides=(2, 1), pads=(1, 0, 0, 1))
    zoo.rounded("strided_q", strided, "e4m3", 4)
    zoo.end(zoo.filters("dilated", x, 3, (2, 3), "e2m1", dilations=(2, 1), pads=(1, 1, 1, 1)))
    grouped = zoo.filters("grouped", x, 6, (3, 2), "khot<8,2>", groups=2)
    zoo.end(b.requant("grouped_q", grouped, Integer(7), 4))
    depthwise = zoo.filters("depthwise", x, 4, (3, 3), "khot<6,2,csd>", groups=4, pads=(1, 1, 1, 1))
    zoo.rounded("depthwise_q", depthwise, "e3m2", 3, rounding=Rounding.CEIL)
    pointwise = zoo.filters("pointwise", x, 7, (1, 1), "e4m3fn", bias_exponent=-3)
    zoo.end(b.requant("pointwise_q", pointwise, Integer(5), 11, rounding=Rounding.UP))
    y = zoo.image("y", 3, False)
    by_filter = Exponent((-3, -1, -5, -2, -3), 0)
    scaled = zoo.filters("scaled", y, 5, (3, 3), "e3m2", exponent=by_filter, bias_exponent=-6)
    zoo.rounded("scaled_q", scaled, "e3m3", 0)
    bare = zoo.filters("bare", y, 5, (2, 2), "khot<8,1>", exponent=by_filter, bias_exponent=-6)
    zoo.end(bare)
    own = zoo.filters("own", y, 5, (2, 2), "ternary", exponent=by_filter, bias_exponent=by_filter)
    zoo.rounded("own_q", own, "e2m2", Exponent((-3, -2, -4, -1, -3), 0), rounding=Rounding.RND_INF)
    zoo.end(zoo.filters("bits", y, 3, (3, 3), "binary", pads=(1, 1, 1, 1)))
    zoo.end(zoo.filters("powers", y, 3, (3, 1), "pow2<4>"))
    line = b.input("line", (3, 9), parse_format("e2m3"), 0)
    zoo.end(zoo.filters("line3", line, 4, (3,), "e3m1", strides=(2,), pads=(1, 2)))
    zoo.end(zoo.filters("line_2", line, 4, (2,), "upow2<3,nozero>"))
    wide = b.input("wide", (6,), parse_format("e5m2"), -10)
    product = b.matmul("wide_fc", wide, zoo.listed("ww", (6, 4), "e5m2"), zoo.constant("wb", 4, bits=8))
    zoo.rounded("wide_q", product, "e5m2", 12)
    signs = b.input("signs", (2, 6), parse_format("binary"))
    zoo.end(b.matmul("rows", signs, zoo.listed("rw", (6, 3), "khot<4,3>", Exponent((-3, -1, -2), 1))))
    hot = b.input("hot", IMAGE, parse_format("khot<6,2>"), -3)
    flat = b.reshape("flat", hot, (120,))
    zoo.end(b.matmul("fc", flat, zoo.listed("fw", (120, 7), "e3m0"), zoo.constant("fb", 7, bits=8)))
    zoo.end(b.matmul("fc_int", flat, zoo.constant("iw", 120, 3)))
    return zoo.finish()


def elementwise() -> ExactGraph:
    """Sums, products and affine functions of codes; thresholds and tables to and from them."""
    zoo = ListedZoo("elementwise_codes", 11)
    b = zoo.builder
    x, y, z = zoo.picture("x", "e3m2"), zoo.picture("y", "e4m3", -6), zoo.image("z", 5, True, -1)
    zoo.rounded("sum_q", b.add("sum", x, y), "e4m3", -5)
    zoo.end(b.requant("mixed_q", b.add("mixed", y, z), Integer(8), -3))
    zoo.end(b.add("bare", x, x))
    zoo.rounded("product_q", b.mul("product", x, y), "e3m2", -2, rounding=Rounding.TRN)
    zoo.end(b.mul("mixed_product", z, x))
    zoo.end(b.add("constant", x, zoo.constant("c", 4, 1, 1, bits=5)))
    zoo.end(b.mul("per_element", x, zoo.listed("e", IMAGE, "khot<5,2>")))
    m = zoo.listed("m", (4,), "khot<8,2>", Exponent((-2, -3, 0, -1), 0))
    scaled = b.affine("scaled", z, m, zoo.constant("o", 4, bits=5, exponent=-2))
    zoo.rounded("scaled_q", scaled, "e3m2", -1)
    zoo.end(b.affine("shifted", y, zoo.constant("s", 4), zoo.constant("so", 4, bits=6)))
    w = zoo.image("w", 5, True, -1)
    per_channel = b.requant("per_channel", w, parse_format("e2m1"), Exponent((-1, 0, -2, 1), 0))
    zoo.end(b.requant("back", per_channel, Integer(6), -1))
    zoo.end(b.add("joined", per_channel, y))
    numbers = parse_format("e3m2")
    assert isinstance(numbers, TableFormat)
    rows = np.sort(zoo.rng.choice(np.arange(-16, 16), (4, 5), replace=True) * 8 + np.arange(5), axis=1)
    levels = zoo.rng.choice(numbers.numbers, (4, 6))
    zoo.end(b.threshold("codes", y, b.constant("t", rows), b.constant("l", levels), numbers))
    entries = zoo.rng.choice(numbers.numbers, (1, 32))
    zoo.end(b.table("listed", w, b.constant("table", entries), -16, numbers))
    zoo.rounded("hot", w, "khot<6,2>", -2)
    zoo.rounded("signs", w, "binary", 0, rounding=Rounding.RND)
    zoo.rounded("powers", w, "pow2<3>", -1)
    return zoo.finish()


def moves() -> ExactGraph:
    """Pools, reductions, joins, frames and slices of codes."""
    zoo = ListedZoo("moves_codes", 12)
    b = zoo.builder
    x = zoo.picture("x", "e3m2")
    zoo.end(b.max_pool("plain_max", x, (2, 2)))
    zoo.end(b.max_pool("odd_max", x, (3, 2), (1, 2), (1, 0, 2, 1), (1, 2)))
    zoo.end(b.requant("sum_q", b.sum_pool("padded_sum", x, (3, 3), (2, 1), (1, 1, 0, 1)), Integer(6), 1))
    zoo.rounded("total_q", b.reduce_sum("whole_image", x, (1, 2), True), "e4m3", 0)
    zoo.end(b.reduce_max("over_rows", x, (1,), False))
    zoo.end(b.reduce_sum("over_channels", x, (0,), False))
    y = zoo.picture("y", "e3m2")
    zoo.end(b.transpose("turned", y, (2, 0, 1)))
    zoo.end(b.slice("stepped", y, 1, 1, 6, 2))
    zoo.end(b.pad("framed", y, (1, 0, 2, 0, 1, 0), 3))
    zoo.end(b.concat("channels", [y, b.slice("head", y, 0, 0, 3)], 0))
    padded = b.pad("spatial", y, (0, 1, 0, 0, 2, 1))
    zoo.end(zoo.filters("padded", padded, 2, (3, 3), "e2m1"))
    zoo.end(y)
    return zoo.finish()


def requants() -> ExactGraph:
    """Every rounding to a minifloat and to powers of two; bounds, shifts per channel, subnormals or none."""
    zoo = ListedZoo("requants_codes", 13)
    b = zoo.builder
    for i, rounding in enumerate(Rounding):
        x = b.input(f"x{i}", (6,), Integer(9, i % 2 == 0), -4)
        zoo.rounded(f"mini_{rounding.value}", x, "e3m2", -3, rounding=rounding)
        zoo.rounded(f"power_{rounding.value}", x, "pow2<4>", -2, rounding=rounding)
        zoo.rounded(f"normal_{rounding.value}", x, "e3m1<nosubnormal>", -2, rounding=rounding)
    y = b.input("y", (6,), Integer(7), 0)
    shifts = Exponent((-2, 1, 0, 3, 2, -1), 0)
    zoo.rounded("relu", y, "e3m2", 0, low=0, high=24)
    zoo.rounded("per_channel", y, "e3m2", shifts, rounding=Rounding.RND_ZERO)
    zoo.rounded("finer", y, "e4m3fn", -6)
    zoo.rounded("other", zoo.rounded("first", y, "e2m3", 0), "e4m1", -1)
    return zoo.finish()
