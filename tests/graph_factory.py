"""Graphs for tests and benchmarks, built straight with GraphBuilder: no training, no QONNX."""

from __future__ import annotations

import numpy as np

from qhw.formats.integer import Integer
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph, InputEncoding

UINT8 = InputEncoding(1.0, 0.0, 0, 255, Rounding.RND_CONV, exact=True)


class Network:
    """A GraphBuilder with the layers of a quantised network: convolution, batch norm, activation."""

    def __init__(self, name: str, seed: int, weight_bits: int = 8):
        self.builder = GraphBuilder(name)
        self.random = np.random.default_rng(seed)
        self.weight_bits = weight_bits

    def integers(self, bits: int, shape: tuple[int, ...]) -> np.ndarray:
        """Signed integers, normally distributed over ``bits`` bits as trained weights are."""
        top = 2 ** (bits - 1) - 1
        return np.clip(np.rint(self.random.normal(0, top / 3, shape)), -top, top).astype(np.int64)

    def conv(self, name: str, x: str, filters: int, kernel: int, stride: int = 1) -> str:
        depth = self.builder.type(x).shape[0]
        weight = self.builder.constant(
            f"{name}_weight",
            self.integers(self.weight_bits, (filters, depth, kernel, kernel)),
            Integer(self.weight_bits),
            1 - self.weight_bits,
        )
        pads = (kernel // 2,) * 4
        return self.builder.conv(name, x, weight, strides=(stride, stride), pads=pads)

    def norm(self, name: str, x: str) -> str:
        """Batch norm in fixed point: an 8-bit multiplier that brings the accumulator to about 1."""
        kind = self.builder.type(x)
        channels = kind.shape[0]
        spread = kind.format.width + kind.exponent.values[0] - 4
        multiplier = self.builder.constant(
            f"{name}_multiplier", self.random.integers(32, 128, channels), Integer(8), -7 - spread
        )
        offset = self.builder.constant(f"{name}_offset", self.integers(8, (channels,)), Integer(8), -7)
        return self.builder.affine(name, x, multiplier, offset)

    def relu(self, name: str, x: str) -> str:
        return self.builder.requant(name, x, Integer(8, False), -7)

    def signed(self, name: str, x: str) -> str:
        return self.builder.requant(name, x, Integer(8), -6)


def resnet8_graph(seed: int = 0, side: int = 28, channels: int = 1, weight_bits: int = 8) -> ExactGraph:
    """ResNet8 in the shape that a power-of-two network lowers to; weights are random."""
    net = Network("resnet8", seed, weight_bits)
    x = net.builder.input("image", (channels, side, side), Integer(8, False), -8, UINT8)
    x = net.relu("relu", net.norm("norm", net.conv("conv", x, 16, 3)))
    for block, (filters, stride) in enumerate(((16, 1), (32, 2), (64, 2)), start=1):
        name = f"block{block}"
        y = net.relu(
            f"{name}_relu1", net.norm(f"{name}_norm1", net.conv(f"{name}_conv1", x, filters, 3, stride))
        )
        y = net.signed(f"{name}_act2", net.norm(f"{name}_norm2", net.conv(f"{name}_conv2", y, filters, 3)))
        if stride != 1:
            x = net.signed(f"{name}_act3", net.conv(f"{name}_shortcut", x, filters, 1, stride))
        x = net.relu(f"{name}_relu2", net.builder.add(f"{name}_add", y, x))
    side = net.builder.type(x).shape[1]
    pooled = net.builder.sum_pool("pool", x, (side, side))
    scale = net.builder.constant("pool_scale", np.array(round(2**12 / side**2)), Integer(12, False), -12)
    x = net.builder.requant("pool_act", net.builder.affine("pool_mean", pooled, scale), Integer(8, False), -7)
    x = net.builder.reshape("flat", x, (64,))
    weight = net.builder.constant("fc_weight", net.integers(8, (64, 10)), Integer(8), -7)
    bias = net.builder.constant("fc_bias", net.integers(8, (10,)), Integer(8), -7)
    return net.builder.finish([net.builder.matmul("fc", x, weight, bias)])
