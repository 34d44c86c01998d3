"""Exact graphs for tests of the FINN flow: one of every operation, and random networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from qhw.formats import Integer
from qhw.formats.modes import Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph, InputEncoding

PIXEL = InputEncoding(scale=1.0, zero_point=0.0, low=0, high=255, rounding=Rounding.RND_CONV, exact=True)


class Network:
    """A graph that grows layer by layer, with constants of one generator."""

    def __init__(self, seed: int, shape: tuple[int, ...], signed: bool = False):
        self.random, self.builder = np.random.default_rng(seed), GraphBuilder(f"net{seed}")
        encoding = None if signed else PIXEL
        self.last = self.builder.input("x", shape, Integer(8, signed), -8, encoding)

    def channels(self, tensor: str) -> int:
        return self.builder.type(tensor).shape[0]

    def constant(self, name: str, low: int, high: int, shape: Any, bits: int | None, exponent: Any) -> str:
        values = self.random.integers(low, high, shape)
        return self.builder.constant(name, values, None if bits is None else Integer(bits), exponent)

    def conv(
        self,
        name: str,
        x: str,
        filters: int,
        kernel: tuple[int, ...],
        *,
        strides: tuple[int, ...] | None = None,
        pads: tuple[int, ...] | None = None,
        dilations: tuple[int, ...] | None = None,
        groups: int = 1,
        bias: bool = False,
        bits: int = 4,
    ) -> str:
        half = 1 << (bits - 1)
        shape = (filters, self.channels(x) // groups, *kernel)
        weight = self.constant(f"{name}_w", -half + 1, half, shape, bits, -4)
        added = self.constant(f"{name}_b", -2000, 2000, filters, None, -11) if bias else None
        return self.builder.conv(
            name, x, weight, added, strides=strides, pads=pads, dilations=dilations, groups=groups
        )

    def matmul(self, name: str, x: str, outputs: int, *, bias: bool = False, bits: int = 4) -> str:
        half = 1 << (bits - 1)
        weight = self.constant(f"{name}_w", -half, half, (self.channels(x), outputs), bits, -4)
        added = self.constant(f"{name}_b", -3000, 3000, outputs, None, -12) if bias else None
        return self.builder.matmul(name, x, weight, added)

    def norm(self, name: str, x: str, *, falling: bool = True, spread: int = 60) -> str:
        """Batch norm with positive, negative and zero gains."""
        channels = self.channels(x)
        gains = self.random.integers(-spread if falling else 1, 2 * spread, channels)
        if falling and channels > 1:
            gains[:2] = 0, -spread // 2
        multiplier = self.builder.constant(f"{name}_m", gains, None, -6)
        offset = self.constant(f"{name}_o", -9000, 9000, channels, None, -12)
        return self.builder.affine(name, x, multiplier, offset)

    def act(
        self, name: str, x: str, bits: int = 4, *, signed: bool = False, exponent: int | None = None
    ) -> str:
        """Rounding to a few bits, at an exponent that uses them."""
        low, high = self.builder.ranges[x].bounds
        kind = self.builder.type(x)
        most = max(abs(int(low)), abs(int(high)), 1).bit_length() + max(kind.exponent.values)
        chosen = most - bits - 2 if exponent is None else exponent
        modes = [Rounding.RND_CONV, Rounding.RND, Rounding.TRN, Rounding.RND_INF]
        rounding = modes[int(self.random.integers(len(modes)))]
        return self.builder.requant(name, x, Integer(bits, signed), chosen, rounding=rounding)

    def flat(self, name: str, x: str) -> str:
        return self.builder.reshape(name, x, (int(np.prod(self.builder.type(x).shape)),))

    def finish(self, output: str) -> ExactGraph:
        return self.builder.finish([output])


def every_operation() -> ExactGraph:
    """Depthwise, grouped, dilated, strided convolutions, branches that meet, pools, and a bias at the end."""
    n = Network(0, (3, 16, 16))
    b = n.builder
    stem = n.act(
        "stem", n.norm("stem_bn", n.conv("stem_c", n.last, 16, (3, 3), strides=(2, 2), pads=(1, 1, 1, 1))), 8
    )
    depth = n.act(
        "dw", n.norm("dw_bn", n.conv("dw_c", stem, 16, (3, 3), pads=(1,) * 4, groups=16)), 6, signed=True
    )
    point = n.act("pw", n.conv("pw_c", depth, 24, (1, 1)), 8)
    other = n.act(
        "pw2", n.conv("pw2_c", stem, 8, (1, 1), bias=True), 8, exponent=b.type("pw").exponent.values[0]
    )
    joined = b.concat("cat", [point, other], 0)
    pooled = b.max_pool("mp", joined, (2, 2), (2, 2))
    grouped = n.act(
        "grp", n.norm("grp_bn", n.conv("grp_c", pooled, 16, (3, 3), pads=(1,) * 4, groups=2)), 8, signed=True
    )
    short = n.act("short", n.conv("short_c", joined, 16, (1, 1), strides=(2, 2), bias=True), 8, signed=True)
    added = n.act("sum_q", b.add("sum", grouped, short), 8)
    dilated = n.act("dil", n.conv("dil_c", added, 16, (3, 3), pads=(2,) * 4, dilations=(2, 2)), 8)
    averaged = n.act("avg_q", b.sum_pool("avg", dilated, (2, 2), (2, 2)), 6)
    halves = [b.slice(f"half{i}", averaged, 0, 8 * i, 8 * i + 8) for i in (0, 1)]
    mixed = n.act("mix", b.add("mix_sum", *halves), 4)
    total = b.reduce_sum("gap", mixed, (1, 2), False)
    scores = n.matmul("fc", total, 10, bias=True, bits=8)
    return n.finish(b.requant("out", scores, Integer(16), -8))


def random_network(seed: int) -> ExactGraph:
    """A chain of random layers, with branches, up to a vector of scores or an image."""
    n = Network(seed, _shape(seed), signed=bool(seed % 3 == 1))
    random, b, x = n.random, n.builder, n.last
    for step in range(int(random.integers(2, 6))):
        rank = len(b.type(x).shape) - 1
        size = min(b.type(x).shape[1:], default=1) if rank else 1
        choice = str(random.choice(["conv", "depthwise", "pool", "residual", "concat", "sum", "join"]))
        if not rank:
            x = n.act(
                f"a{step}",
                n.matmul(f"fc{step}", x, int(random.integers(2, 9)), bias=bool(random.integers(2))),
            )
        elif choice == "pool" and size >= 2 and b.ranges[x].bounds[0] >= 0:
            x = b.max_pool(f"mp{step}", x, (2,) * rank, (2,) * rank)
        elif choice == "sum" and size >= 2:
            x = n.act(f"sp{step}", b.sum_pool(f"s{step}", x, (2,) * rank, (1,) * rank), 4)
        elif choice == "depthwise":
            y = n.conv(f"d{step}", x, n.channels(x), (3,) * rank, pads=(1,) * 2 * rank, groups=n.channels(x))
            x = n.act(
                f"dq{step}",
                n.norm(f"dn{step}", y),
                int(random.integers(2, 9)),
                signed=bool(random.integers(2)),
            )
        elif choice in ("residual", "join"):
            y = n.act(f"rq{step}", n.conv(f"r{step}", x, n.channels(x), (1,) * rank), 5, signed=True)
            x = n.act(f"rs{step}", b.add(f"ra{step}", y, x), int(random.integers(2, 8)))
        elif choice == "concat":
            exponent = b.type(x).exponent.values[0]
            y = n.act(
                f"cq{step}",
                n.conv(f"c{step}", x, 3, (1,) * rank),
                b.type(x).format.width,
                signed=b.type(x).format.signed,
                exponent=exponent,
            )
            x = b.concat(f"cc{step}", [x, y], 0)
        else:
            kernel = int(random.integers(1, min(3, size) + 1))
            wide = np.array(b.type(x).shape[1:] * 2) > 1
            pads = tuple(int(p) for p in random.integers(0, 2, 2 * rank) * wide)
            stride = int(random.integers(1, 3))
            y = n.conv(
                f"v{step}",
                x,
                int(random.integers(2, 7)),
                (kernel,) * rank,
                pads=pads,
                strides=(stride,) * rank,
                bias=bool(random.integers(2)),
                bits=int(random.integers(2, 6)),
            )
            if random.integers(2):
                y = n.norm(f"vn{step}", y)
            x = n.act(f"vq{step}", y, int(random.integers(1, 8)), signed=False)
    if len(b.type(x).shape) > 1 and random.integers(2):
        x = n.matmul("head", n.flat("flat", x), 5, bias=True)
        if random.integers(2):
            x = b.requant("logits", x, Integer(16), -6)
    return n.finish(x)


def _shape(seed: int) -> tuple[int, ...]:
    return [(2, 7, 6), (3, 9), (12,), (1, 8, 8)][seed % 4]
