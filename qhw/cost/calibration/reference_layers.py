"""The layers that predictions are held against: small, complete, simulated equal to the exact graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qhw.cost.calibration.layers import FoldedLayer
from qhw.formats import Format, Integer, Minifloat, parse_format
from qhw.formats.modes import IntArray
from qhw.graph.builder import GraphBuilder

_IMAGE = (8, 8)
_DSP48 = {"ultrascale-plus": 1, "7series": 2}


def reference_layers(family: str) -> Mapping[str, FoldedLayer]:
    """Three layers by name: a convolution in LUTs, a depthwise one in DSP slices, a matrix of minifloats."""
    return {
        "convolution 3x3, 4 to 8 channels, int4 x int4": convolution(),
        "depthwise 3x3, 8 channels, uint8 x int8 in DSP slices": depthwise(_DSP48[family]),
        "linear 32 to 16, e3m2 x e3m2": linear(),
    }


def other_foldings(family: str) -> list[FoldedLayer]:
    """The same layers folded otherwise."""
    dsp = _DSP48[family]
    return [
        *(convolution(pe, simd) for pe, simd in ((1, 2), (4, 4), (8, 1), (8, 4))),
        *(depthwise(dsp, pe) for pe in (1, 4, 8)),
        *(linear(pe, simd) for pe, simd in ((1, 4), (2, 16), (8, 2))),
    ]


def convolution(pe: int = 2, simd: int = 4) -> FoldedLayer:
    """A 3 x 3 window over 8 x 8 pixels of 4 channels, int4 x int4, to 8 channels of int4."""
    builder = GraphBuilder("convolution")
    x = builder.input("x", (4, *_IMAGE), Integer(4))
    weight = builder.constant("weight", _drawn(Integer(4), (8, 4, 3, 3)), Integer(4))
    total = builder.conv("conv", x, weight)
    return FoldedLayer(builder.finish([builder.requant("y", total, Integer(4), 5)]), pe, simd)


def depthwise(multiplier: int, pe: int = 2) -> FoldedLayer:
    """A 3 x 3 window over each of 8 channels of 8 x 8 pixels, uint8 x int8, to uint8."""
    builder = GraphBuilder("depthwise")
    x = builder.input("x", (8, *_IMAGE), Integer(8, False))
    weight = builder.constant("weight", _drawn(Integer(8), (8, 1, 3, 3)), Integer(8))
    total = builder.conv("conv", x, weight, groups=8)
    graph = builder.finish([builder.requant("y", total, Integer(8, False), 8)])
    return FoldedLayer(graph, pe, 1, multiplier)


def linear(pe: int = 4, simd: int = 8) -> FoldedLayer:
    """A matrix of 32 x 16 numbers, e3m2 x e3m2, to e3m2."""
    kind = parse_format("e3m2")
    assert isinstance(kind, Minifloat)
    builder = GraphBuilder("linear")
    x = builder.input("x", (32,), kind, kind.exponent)
    weight = builder.constant("weight", _drawn(kind, (32, 16)), kind, kind.exponent)
    total = builder.matmul("matmul", x, weight)
    return FoldedLayer(builder.finish([builder.requant("y", total, kind, 0)]), pe, simd)


def _drawn(format: Format, shape: tuple[int, ...]) -> IntArray:
    """Weights: every code as likely as another, the same ones each time."""
    codes = np.random.default_rng(1).choice(format.codes(), shape)
    return np.asarray(format.mantissa_of(codes))
