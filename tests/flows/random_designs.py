"""Random graphs of everything that the hls4ml flow carries: geometry, formats, rounding, chains.

One graph holds many branches, each from an input of its own to an output, since a project's compilation takes
seconds and a branch more hardly any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from qhw.errors import InputError
from qhw.formats import TableFormat, parse_format
from qhw.formats.base import Format
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph, Exponent, TensorType

LISTED = ("e4m3", "e3m2", "e2m1", "e3m1<nosubnormal>", "khot<6,2>", "pow2<4>", "ternary", "binary")
ENCODED = ("e4m3", "e3m2", "e5m2", "e2m3", "pow2<4>", "khot<5,2>", "ternary")
WIDEST_OUTPUT = 50
WIDEST = 220
"""Bits beyond which a branch is cut by a Requant."""

Step = Callable[["Designer", str], str]


class Designer:
    """Adds branches; every random choice comes from one seed."""

    def __init__(self, name: str, seed: int, *, large: bool = True):
        self.rng = np.random.default_rng(seed)
        self.builder = GraphBuilder(name)
        self.outputs: list[str] = []
        self.side = 9 if large else 6
        # Few in one graph, others in the next: every further C++ type takes its time to compile.
        self.bits = [self.number(1, 12) for _ in range(3)] + [self.number(2, 24)]
        self.points = [self.number(-9, 6) for _ in range(3)]

    def pick(self, options: Sequence[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def number(self, low: int, high: int) -> int:
        """Both ends included."""
        return int(self.rng.integers(low, high + 1))

    def chance(self, of: float) -> bool:
        return bool(self.rng.random() < of)

    def type(self, tensor: str) -> TensorType:
        return self.builder.type(tensor)

    def width(self, tensor: str) -> int:
        format = self.type(tensor).format
        return int(max(-format.mantissa_low, format.mantissa_high)).bit_length() + 1

    def integer(self) -> Integer:
        return Integer(self.pick(self.bits), self.chance(0.6))

    def format(self, listed: float = 0.2) -> Format:
        return parse_format(self.pick(LISTED)) if self.chance(listed) else self.integer()

    def input(self, shape: Sequence[int], format: Format | None = None, exponent: int | None = None) -> str:
        exponent = self.pick(self.points) if exponent is None else exponent
        return self.builder.input("x", tuple(shape), format or self.format(), exponent)

    def like(self, tensor: str) -> str:
        """A second operand of the same shape, format and exponent."""
        kind = self.type(tensor)
        return self.input(kind.shape, kind.format, kind.exponent.values[0])

    def numbers(self, format: Format, shape: Sequence[int]) -> IntArray:
        """Mantissas of a format, of up to 60 bits."""
        if isinstance(format, TableFormat):
            return self.rng.choice(format.numbers, tuple(shape))
        low, high = max(format.mantissa_low, -(1 << 60)), min(format.mantissa_high, 1 << 60)
        return self.rng.integers(low, high, tuple(shape), endpoint=True)

    def constant(self, shape: Sequence[int], most: int = 8, listed: float = 0.0, exponent: Any = None) -> str:
        format = (
            self.format(listed) if listed else Integer(min(most, self.pick(self.bits)), self.chance(0.75))
        )
        exponent = self.pick(self.points) if exponent is None else exponent
        values = self.numbers(format, shape)
        if not isinstance(format, TableFormat):
            if self.chance(0.3):
                values = values * self.rng.integers(0, 2, tuple(shape))
            if self.chance(0.04):
                values = np.zeros_like(values)
        return self.builder.constant("c", values, format, exponent)

    def exponents(self, count: int, axis: int, of: float = 0.2) -> int | Exponent:
        """One, or one per index of an axis."""
        if not self.chance(of) or count < 2:
            return int(self.pick(self.points))
        first = self.number(-6, 2)
        return Exponent(tuple(first + self.number(-3, 3) for _ in range(count)), axis)

    def one_exponent(self, tensor: str) -> bool:
        return self.type(tensor).exponent.is_scalar

    def spatial(self, tensor: str) -> bool:
        """Whether it has a channel and one or two spatial axes, and one exponent."""
        return len(self.type(tensor).shape) in (2, 3) and self.one_exponent(tensor)

    def branch(self) -> None:
        """From an input through up to three operations to an output."""
        rank = self.pick((1, 2, 3, 3, 3, 4))
        side = self.side if rank < 4 else 4
        tensor = self.input([self.number(1, 6), *(self.number(1, side) for _ in range(rank - 1))])
        windowed = 1 < rank < 4 and self.chance(0.5)
        for i in range(self.number(1, 3)):
            tensor = self.step(tensor, WINDOWS if windowed and i == 0 else STEPS)
            if self.width(tensor) > WIDEST or self.type(tensor).size > 700:
                break
            if self.chance(0.6):
                tensor = requant(self, tensor)
            if self.chance(0.15) and self.width(tensor) <= WIDEST_OUTPUT:
                self.outputs.append(tensor)
        if self.width(tensor) > WIDEST_OUTPUT:
            tensor = requant(self, tensor)
        if tensor not in (*self.builder.graph.inputs, *self.outputs):
            self.outputs.append(tensor)

    def window(self) -> None:
        """One convolution or pool of random geometry: little to compile, so many fit in a project."""
        shape = [self.number(1, 4), *(self.number(1, 10) for _ in range(self.pick((1, 2, 2))))]
        tensor = self.input(shape, Integer(4, self.chance(0.5)), 0)
        self.outputs.append(self.step(tensor, WINDOWS))

    def step(self, tensor: str, steps: Sequence[Step]) -> str:
        """A random operation that takes the tensor; a Requant where the ones that were drawn do not."""
        for _ in range(12):
            before = len(self.builder.graph.inputs)
            kept = self.builder.graph.inputs
            try:
                return str(self.pick(steps)(self, tensor))
            except (InputError, ValueError):
                for name in kept[before:] or self.builder.graph.inputs[before:]:
                    del self.builder.graph.tensors[name]
                self.builder.graph.inputs = kept
        return requant(self, tensor)

    def finish(self) -> ExactGraph:
        return self.builder.finish(self.outputs)


def no(reason: str) -> None:
    """This operation does not take the tensor."""
    raise ValueError(reason)


def window(d: Designer, tensor: str, dilated: bool = True) -> dict[str, tuple[int, ...]]:
    """A kernel that fits, with its strides, pads and dilations."""
    spatial = d.type(tensor).shape[1:]
    if not d.spatial(tensor):
        no("not spatial")
    kernel, strides, begins, ends, dilations = [], [], [], [], []
    for size in spatial:
        taps = d.number(1, min(7, size + 2)) if d.chance(0.7) else 1
        dilation = d.number(1, 3) if dilated and taps > 1 and d.chance(0.3) else 1
        span = dilation * (taps - 1) + 1
        begin, end = (d.number(0, span - 1) if d.chance(0.5) else 0 for _ in range(2))
        if size + begin + end < span:
            no("too large")
        kernel.append(taps)
        dilations.append(dilation)
        strides.append(d.number(1, 4) if d.chance(0.5) else 1)
        begins.append(begin)
        ends.append(end)
    return {
        "kernel": tuple(kernel),
        "strides": tuple(strides),
        "pads": (*begins, *ends),
        "dilations": tuple(dilations),
    }


def conv(d: Designer, x: str) -> str:
    geometry = window(d, x)
    channels = d.type(x).shape[0]
    groups = d.pick([g for g in range(1, channels + 1) if channels % g == 0])
    filters = groups if d.chance(0.4) else groups * d.number(1, 3)
    shape = (filters, channels // groups, *geometry.pop("kernel"))
    weight = d.constant(shape, listed=0.2, exponent=d.exponents(filters, 0))
    bias = d.constant((filters,), exponent=d.exponents(filters, 0, 0.1)) if d.chance(0.6) else None
    return d.builder.conv("conv", x, weight, bias, groups=groups, **geometry)


def matmul(d: Designer, x: str) -> str:
    if not d.one_exponent(x):
        no("exponents")
    shape = d.type(x).shape
    if len(shape) > 1 and d.chance(0.4):
        x = d.builder.reshape("flat", x, (d.type(x).size,))
        shape = d.type(x).shape
    columns = d.number(1, 7)
    weight = d.constant((shape[-1], columns), listed=0.2, exponent=d.exponents(columns, 1))
    bias = d.constant((columns,)) if d.chance(0.6) else None
    return d.builder.matmul("fc", x, weight, bias)


def matmul_general(d: Designer, x: str) -> str:
    """Computed operands, a constant on the left, matrices stacked."""
    shape = d.type(x).shape
    if len(shape) < 2 or not d.one_exponent(x):
        no("not a matrix")
    other = d.number(1, 6)
    lead = tuple(1 if d.chance(0.3) else n for n in shape[:-2])
    bias = d.constant((other,)) if d.chance(0.3) else None
    match d.number(0, 3):
        case 0:
            return d.builder.matmul("attention", x, d.input((*lead, shape[-1], other)), bias)
        case 1:
            return d.builder.matmul("attention", d.input((*lead, other, shape[-2])), x)
        case 2 if len(shape) > 2:
            return d.builder.matmul("stacked", x, d.constant((*lead, shape[-1], other), listed=0.2), bias)
        case _:
            return d.builder.matmul("mixer", d.constant((*lead, other, shape[-2]), listed=0.2), x)


def add(d: Designer, x: str) -> str:
    if d.chance(0.3):
        return d.builder.add("twice", x, x)
    return d.builder.add("sum", x, d.input(d.type(x).shape))


def mul(d: Designer, x: str) -> str:
    if d.chance(0.2):
        return d.builder.mul("square", x, x)
    return d.builder.mul("product", x, d.input(d.type(x).shape))


def with_constant(d: Designer, x: str) -> str:
    """A sum or product with a constant that broadcasts, on either side."""
    shape = tuple(n if d.chance(0.6) else 1 for n in d.type(x).shape)[d.number(0, 1) :]
    add_it = d.chance(0.5)
    operands = [x, d.constant(shape, listed=0.0 if add_it else 0.2)]
    if d.chance(0.3):
        operands.reverse()
    return (d.builder.add if add_it else d.builder.mul)("constant", *operands)


def affine(d: Designer, x: str) -> str:
    channels = d.type(x).shape[0]
    multiplier = d.constant((channels,), listed=0.2, exponent=d.exponents(channels, 0))
    offset = d.constant((channels,), exponent=d.exponents(channels, 0)) if d.chance(0.6) else None
    return d.builder.affine("bn", x, multiplier, offset)


def requant(d: Designer, x: str) -> str:
    """To any format by any mode, shifted by anything from nothing to beyond the width, left or right."""
    kind = d.type(x)
    exponent = kind.exponent.values[0] + (d.number(-4, d.width(x)) if d.chance(0.8) else d.number(-30, 60))
    if d.chance(0.15) and kind.exponent.axis in (None, 0) and kind.shape[0] > 1:
        exponent = Exponent(tuple(exponent + d.number(-3, 3) for _ in range(kind.shape[0])), 0)
    if d.chance(0.15):
        format = parse_format(d.pick(ENCODED))
        return d.builder.requant("q", x, format, exponent, rounding=_rounding(d, format))
    format, overflow = d.integer(), d.pick(list(Overflow))
    if overflow is Overflow.WRAP_SM and not format.signed:
        overflow = Overflow.WRAP
    limits: dict[str, int] = {}
    if overflow in (Overflow.SAT, Overflow.SAT_ZERO) and d.chance(0.25):
        ends = sorted(d.number(format.mantissa_low, format.mantissa_high) for _ in range(2))
        limits = {"low": ends[0], "high": ends[1]}
        if overflow is Overflow.SAT_ZERO:
            limits = {"low": min(0, ends[0]), "high": max(0, ends[1])}
    rounding = d.pick(list(Rounding))
    return d.builder.requant("q", x, format, exponent, rounding=rounding, overflow=overflow, **limits)


def _rounding(d: Designer, format: Format) -> Rounding:
    return d.pick(list(Rounding)) if hasattr(format, "exponent_bits") else format.rounding


def narrow(d: Designer, x: str) -> tuple[str, int, int]:
    """The tensor in at most 10 bits, and its range."""
    if d.width(x) > 10:
        x = d.builder.requant("narrow", x, Integer(d.number(3, 9)), d.number(-3, 3))
    return x, d.type(x).format.mantissa_low, d.type(x).format.mantissa_high


def threshold(d: Designer, x: str) -> str:
    x, low, high = narrow(d, x)
    count, rows = d.number(1, min(20, high - low + 1)), d.pick((1, d.type(x).shape[0]))
    places = np.arange(low, high + 3)
    values = np.stack([np.sort(d.rng.choice(places, count, replace=False)) for _ in range(rows)])
    format = parse_format(d.pick(LISTED)) if d.chance(0.2) else Integer(8)
    if isinstance(format, TableFormat):
        levels = d.rng.choice(format.numbers, (d.pick((1, rows)), count + 1))
    elif d.chance(0.5):
        levels = (np.arange(count + 1) * d.pick((1, -1, 2)) + d.number(-5, 5))[None]
    else:
        levels = d.rng.integers(-128, 127, (d.pick((1, rows)), count + 1))
    constants = d.builder.constant("t", values), d.builder.constant("l", levels)
    return d.builder.threshold("act", x, *constants, format, d.number(-4, 4))


def table(d: Designer, x: str) -> str:
    x, low, high = narrow(d, x)
    format = parse_format(d.pick(LISTED)) if d.chance(0.2) else Integer(d.number(2, 20))
    shape = (d.pick((1, d.type(x).shape[0])), high - low + 1)
    if isinstance(format, TableFormat):
        entries = d.rng.choice(format.numbers, shape)
    else:
        entries = d.rng.integers(format.mantissa_low, format.mantissa_high, shape, endpoint=True)
    return d.builder.table("table", x, d.builder.constant("entries", entries), low, format, d.number(-4, 4))


def prelu(d: Designer, x: str) -> str:
    """What lies above zero, plus a slope (one, or one per channel) times what lies below."""
    kind, count = d.type(x), d.pick((1, d.type(x).shape[0]))
    if not isinstance(kind.format, Integer) or not kind.format.signed or not d.one_exponent(x):
        no("unsigned")
    exponent = kind.exponent.values[0]
    positive = d.builder.requant("above", x, kind.format, exponent, low=0)
    negative = d.builder.requant("below", x, kind.format, exponent, high=0)
    slope = d.constant((count,) if count > 1 else (), most=5)
    return d.builder.add("prelu", positive, d.builder.affine("leaky", negative, slope))


def max_pool(d: Designer, x: str) -> str:
    geometry = window(d, x)
    if d.chance(0.15):
        return d.builder.max_pool("global", x, d.type(x).shape[1:])
    if d.chance(0.3):
        return d.builder.max_pool("max", x, geometry["kernel"])
    return d.builder.max_pool("max", x, **geometry)


def average_pool(d: Designer, x: str) -> str:
    geometry = window(d, x, dilated=False)
    del geometry["dilations"]
    if d.chance(0.2):
        geometry = {"kernel": d.type(x).shape[1:]}
    total = d.builder.sum_pool("total", x, **geometry)
    return d.builder.affine("mean", total, d.constant(())) if d.chance(0.7) else total


def reduction(d: Designer, x: str) -> str:
    shape = d.type(x).shape
    axes = tuple(axis for axis in range(len(shape)) if d.chance(0.5)) or (len(shape) - 1,)
    reduce = d.pick((d.builder.reduce_sum, d.builder.reduce_max))
    kept = d.chance(0.5) or len(axes) == len(shape)
    return str(reduce("reduced", x, axes, kept))


def reshape(d: Designer, x: str) -> str:
    """To two or three axes, sizes drawn from the divisors."""
    left, shape = d.type(x).size, []
    for _ in range(d.number(0, 2)):
        shape.append(d.pick([n for n in range(1, left + 1) if left % n == 0]))
        left //= shape[-1]
    return d.builder.reshape("shaped", x, (*shape, left))


def transpose(d: Designer, x: str) -> str:
    return d.builder.transpose("turned", x, [int(axis) for axis in d.rng.permutation(len(d.type(x).shape))])


def depth_to_space(d: Designer, x: str) -> str:
    """Blocks of channels to space, or of space to channels: Reshape, Transpose, Reshape."""
    shape = d.type(x).shape
    if len(shape) != 3 or not d.one_exponent(x):
        no("no image")
    channels, height, width = shape
    if channels % 4 == 0 and d.chance(0.7):
        parts = d.builder.reshape("blocks", x, (2, 2, channels // 4, height, width))
        moved = d.builder.transpose("moved", parts, d.pick(((2, 3, 0, 4, 1), (0, 3, 1, 4, 2))))
        moved = moved if d.type(moved).shape[2] == 2 else parts
        if moved == parts:
            no("another mode")
        return d.builder.reshape("space", moved, (channels // 4, 2 * height, 2 * width))
    down, across = (d.pick([n for n in (1, 2, 3) if size % n == 0]) for size in (height, width))
    parts = d.builder.reshape("blocks", x, (channels, height // down, down, width // across, across))
    moved = d.builder.transpose("moved", parts, (2, 4, 0, 1, 3))
    return d.builder.reshape("depth", moved, (down * across * channels, height // down, width // across))


def slice_(d: Designer, x: str) -> str:
    axis = d.number(0, len(d.type(x).shape) - 1)
    size = d.type(x).shape[axis]
    start = d.number(0, size - 1)
    return d.builder.slice("cut", x, axis, start, d.number(start + 1, size), d.number(1, 3))


def split(d: Designer, x: str) -> str:
    """Both halves, and their sum or join along another axis."""
    axis = d.number(0, len(d.type(x).shape) - 1)
    size = d.type(x).shape[axis]
    if size % 2 or not d.one_exponent(x):
        no("odd")
    halves = [d.builder.slice("half", x, axis, i * size // 2, (i + 1) * size // 2) for i in (0, 1)]
    if d.chance(0.5):
        return d.builder.add("halves", *halves)
    return d.builder.concat("beside", halves[::-1], d.number(0, len(d.type(x).shape) - 1))


def pad(d: Designer, x: str) -> str:
    format = d.type(x).format
    pads = [d.number(0, 2) if d.chance(0.4) else 0 for _ in range(2 * len(d.type(x).shape))]
    if isinstance(format, TableFormat):
        value = int(d.rng.choice(format.numbers))
    else:
        value = d.number(format.mantissa_low, format.mantissa_high) if d.chance(0.6) else 0
    return d.builder.pad("framed", x, pads, value)


def upsample(d: Designer, x: str) -> str:
    factors = [d.number(1, 3) for _ in d.type(x).shape[1:]]
    format, zeros = d.type(x).format, d.chance(0.4)
    return d.builder.upsample("larger", x, factors, zeros and bool(format.holds([0])))


def excite(d: Designer, x: str) -> str:
    """Squeeze and excite: every channel times a function of its sum."""
    kind = d.type(x)
    if not d.spatial(x):
        no("not spatial")
    total = d.builder.reduce_sum("squeezed", x, tuple(range(1, len(kind.shape))), True)
    gate = d.builder.requant("gate", total, Integer(5, False), kind.exponent.values[0] + d.number(0, 5))
    return d.builder.mul("excited", x, d.builder.upsample("wide", gate, kind.shape[1:]))


def concat(d: Designer, x: str) -> str:
    """With another tensor, itself and constants, along any axis."""
    kind = d.type(x)
    axis, parts = d.number(0, len(kind.shape) - 1), [x]
    for _ in range(d.number(1, 3)):
        shape = tuple(d.number(1, 3) if i == axis else n for i, n in enumerate(kind.shape))
        what = d.number(0, 4)
        if what == 0:
            parts.append(x)
        elif what == 1:
            parts.append(
                d.builder.constant("part", d.numbers(kind.format, shape), kind.format, kind.exponent)
            )
        else:
            parts.append(d.input(shape, kind.format, kind.exponent.values[0]))
    order = d.rng.permutation(len(parts))
    return d.builder.concat("joined", [parts[i] for i in order], axis)


WINDOWS: tuple[Step, ...] = (conv, conv, conv, max_pool, average_pool)

STEPS: tuple[Step, ...] = (
    conv, conv, matmul, matmul, matmul_general, add, mul, with_constant, affine, threshold, table,
    prelu, max_pool, max_pool, average_pool, reduction, reshape, transpose, depth_to_space, slice_, split,
    pad, concat, upsample, excite,
)  # fmt: skip


def random_design(seed: int, branches: int = 20, *, large: bool = True) -> ExactGraph:
    """A graph of so many branches."""
    designer = Designer(f"random_{seed}", seed, large=large)
    for _ in range(branches):
        designer.branch()
    return only(designer.finish(), designer.outputs)


def random_windows(seed: int, branches: int = 30) -> ExactGraph:
    """A graph of so many convolutions and pools, each alone, of few formats."""
    designer = Designer(f"windows_{seed}", seed)
    designer.bits, designer.points = [4], [0]
    for _ in range(branches):
        designer.window()
    return only(designer.finish(), designer.outputs)


def only(graph: ExactGraph, outputs: Sequence[str]) -> ExactGraph:
    """Some outputs with what they depend on."""
    needed, nodes = set(outputs), []
    for node in reversed(graph.nodes):
        if node.output in needed:
            needed.update(node.inputs)
            nodes.append(node)
    inputs = tuple(name for name in graph.inputs if name in needed)
    return replace(graph.replace_nodes(nodes[::-1]), inputs=inputs, outputs=tuple(outputs))


def random_samples(graph: ExactGraph, samples: int, seed: int) -> dict[str, IntArray]:
    """Inputs over their whole range: the lowest, the highest, both mixed, and evenly drawn ones."""
    rng = np.random.default_rng(seed)
    inputs = {}
    for name in graph.inputs:
        kind = graph.tensors[name]
        low, high = kind.format.mantissa_low, kind.format.mantissa_high
        shape = (samples, *kind.shape)
        if isinstance(kind.format, TableFormat):
            values = rng.choice(kind.format.numbers, shape)
        else:
            values = rng.integers(low, high, shape, endpoint=True)
        values[0], values[1] = low, high
        values[2:4] = np.where(rng.random((2, *kind.shape)) < 0.5, low, high)
        inputs[name] = values
    return inputs
