"""Random exact graphs over every operation, for property tests of whatever executes them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np

from qhw.errors import InputError
from qhw.formats import Format, TableFormat, parse_format
from qhw.formats.integer import Integer
from qhw.formats.modes import IntArray, Overflow, Rounding
from qhw.graph import ir
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph, Exponent

LISTED_FORMATS = [
    format
    for text in (
        "e4m3",
        "e3m2",
        "e2m1",
        "e4m3fn",
        "e3m4",
        "khot<8,2>",
        "khot<6,2,csd>",
        "pow2<4>",
        "ternary",
        "binary",
    )
    if isinstance(format := parse_format(text), TableFormat)
]


class RandomGraph:
    """Appends random operations to live tensors; ``widest`` bounds the accumulators before a Requant."""

    def __init__(self, seed: int, widest: int = 40):
        self.random = np.random.default_rng(seed)
        self.builder = GraphBuilder(f"random_{seed}")
        self.widest = widest
        self.live: list[str] = []

    def build(self, operations: int) -> ExactGraph:
        """A graph of about that many operations on one or two inputs."""
        for _ in range(self.below(1, 3)):
            self.live.append(self.builder.input("x", self.any_shape(), self.any_format(), self.below(-6, 3)))
        choices = list(OPERATIONS)
        attempts = 0
        while len(self.builder.graph.nodes) < operations and attempts < 20 * operations:
            attempts += 1
            x = self.live[self.below(-min(3, len(self.live)), 0)]
            if self.width(x) > self.widest:
                self.requant(x)
                continue
            try:
                choices[self.below(0, len(choices))](self, x)
            except (InputError, ValueError, IndexError):
                continue
        outputs = self.unread()
        self.upsample(outputs)
        return self.builder.finish([*outputs, *(name for name in self.unread() if name not in outputs)])

    def unread(self) -> list[str]:
        """What no node reads."""
        read = {name for node in self.builder.graph.nodes for name in node.inputs}
        return [node.output for node in self.builder.graph.nodes if node.output not in read]

    def upsample(self, outputs: list[str]) -> None:
        """Behind an output, so that a seed's other operations stay what they were; and one more behind it."""
        spatial = [x for x in outputs if len(self.shape(x)) in (2, 3) and self.width(x) <= self.widest]
        if not spatial:
            return
        x = spatial[self.below(0, len(spatial))]
        factors = [self.below(1, 4) for _ in self.shape(x)[1:]]
        behind = (RandomGraph.conv, RandomGraph.pool, RandomGraph.pad, RandomGraph.slice, RandomGraph.requant)
        with contextlib.suppress(InputError, ValueError, IndexError):
            y = self.builder.upsample("upsample", x, factors, bool(self.below(0, 2)))
            behind[self.below(0, len(behind))](self, y)

    def below(self, low: int, high: int) -> int:
        """A random integer in ``[low, high)``."""
        return int(self.random.integers(low, high))

    def any_shape(self) -> tuple[int, ...]:
        """Vectors, lines and images with a few channels."""
        rank = self.below(1, 4)
        return (self.below(1, 6), *(self.below(4, 8) for _ in range(rank - 1)))

    def any_format(self) -> Format:
        if self.below(0, 4) == 0:
            return self.listed_format()
        return Integer(self.below(2, 10), bool(self.below(0, 2)))

    def listed_format(self) -> TableFormat:
        """A format that lists its codes; numbers of at most 20 bits, so that sums stay short."""
        return LISTED_FORMATS[self.below(0, len(LISTED_FORMATS))]

    def code_format(self) -> Format:
        """What a Threshold or Table writes."""
        return self.listed_format() if self.below(0, 3) == 0 else Integer(8)

    def numbers(self, format: Format, shape: tuple[int, ...]) -> IntArray:
        """Mantissas of a format."""
        if isinstance(format, TableFormat):
            return self.random.choice(format.numbers, shape)
        return self.random.integers(format.mantissa_low, format.mantissa_high, shape, endpoint=True)

    def shape(self, x: str) -> tuple[int, ...]:
        return self.builder.type(x).shape

    def width(self, x: str) -> int:
        return self.builder.type(x).format.width

    def wrote(self, x: str) -> None:
        self.live.append(x)

    def constant(self, bits: int, shape: tuple[int, ...], exponent: int | Exponent = 0) -> str:
        high = 1 << (bits - 1)
        format = self.listed_format() if self.below(0, 4) == 0 else None
        numbers = np.arange(-high, high) if format is None else format.numbers
        return self.builder.constant("c", self.random.choice(numbers, shape), format, exponent)

    def exponents(self, count: int, axis: int) -> int | Exponent:
        """One exponent, or one per index of an axis."""
        if self.below(0, 3) or count == 1:
            return self.below(-4, 3)
        return Exponent(tuple(int(e) for e in self.random.integers(-3, 2, count)), axis)

    def spatial(self, x: str) -> int:
        rank = len(self.shape(x)) - 1
        if rank not in (1, 2):
            raise ValueError("not a line or an image")
        return rank

    def conv(self, x: str) -> None:
        rank, channels = self.spatial(x), self.shape(x)[0]
        groups = channels if self.below(0, 3) == 0 else 1
        filters = groups * self.below(1, 4)
        kernel = tuple(self.below(1, 4) for _ in range(rank))
        weight = self.constant(
            self.below(2, 11), (filters, channels // groups, *kernel), self.exponents(filters, 0)
        )
        bias = self.constant(12, (filters,), self.exponents(filters, 0)) if self.below(0, 2) else None
        pads = [self.below(0, 3) for _ in range(rank)]
        ends = pads if self.below(0, 2) else [self.below(0, 3) for _ in range(rank)]
        strides, dilations = ([self.below(1, 3) for _ in range(rank)] for _ in range(2))
        self.wrote(
            self.builder.conv(
                "conv",
                x,
                weight,
                bias,
                strides=strides,
                pads=(*pads, *ends),
                dilations=dilations,
                groups=groups,
            )
        )

    def matmul(self, x: str) -> None:
        columns, rank = self.below(1, 5), len(self.shape(x))
        weight = self.constant(
            self.below(2, 11), (self.shape(x)[-1], columns), self.exponents(columns, 1) if rank < 3 else 0
        )
        bias = self.constant(12, (columns,), self.below(-6, 3)) if self.below(0, 2) else None
        self.wrote(self.builder.matmul("matmul", x, weight, bias))

    def attention(self, x: str) -> None:
        """A product of two computed operands."""
        rank = len(self.shape(x))
        turned = self.builder.transpose("turned", x, (*range(rank - 2), rank - 1, rank - 2))
        self.wrote(self.builder.matmul("attention", x, turned))

    def partner(self, x: str) -> str:
        """Another live tensor of the same shape, the same one, or a constant that broadcasts."""
        same = [t for t in self.live if self.shape(t) == self.shape(x) and self.width(t) <= self.widest]
        if self.below(0, 3):
            return same[self.below(0, len(same))]
        shape = self.shape(x)
        kept = [n if self.below(0, 2) else 1 for n in shape]
        return self.constant(6, tuple(kept[self.below(0, len(shape)) :]), self.below(-5, 2))

    def add(self, x: str) -> None:
        pair = (x, self.partner(x))
        self.wrote(self.builder.add("add", *(pair if self.below(0, 2) else pair[::-1])))

    def mul(self, x: str) -> None:
        self.wrote(self.builder.mul("mul", x, self.partner(x)))

    def affine(self, x: str) -> None:
        channels = self.shape(x)[0]
        shapes = [((channels,), self.exponents(channels, 0)) if self.below(0, 2) else ((), 0) for _ in "ab"]
        multiplier = self.constant(8, *shapes[0])
        offset = self.constant(12, *shapes[1]) if self.below(0, 2) else None
        self.wrote(self.builder.affine("affine", x, multiplier, offset))

    def requant(self, x: str) -> None:
        kind = self.builder.type(x)
        format = Integer(self.below(1, 12), bool(self.below(0, 2)))
        shift = self.below(-2, max(1, kind.format.width - format.width + 2))
        exponent: int | Exponent = max(kind.exponent.values) + shift
        if self.below(0, 4) == 0:
            axis = kind.exponent.axis or 0  # input and output may not vary along different axes
            exponent = Exponent(tuple(exponent + self.below(-2, 3) for _ in range(kind.shape[axis])), axis)
        overflow = list(Overflow)[self.below(0, len(Overflow))]
        if overflow is Overflow.WRAP_SM and not format.signed:
            overflow = Overflow.SAT
        low = (
            -1
            if overflow.saturates and format.width > 2 and format.signed and self.below(0, 3) == 0
            else None
        )
        high = 2 if overflow.saturates and format.width > 2 and self.below(0, 3) == 0 else None
        rounding = list(Rounding)[self.below(0, len(Rounding))]
        self.wrote(
            self.builder.requant(
                "requant", x, format, exponent, rounding=rounding, overflow=overflow, low=low, high=high
            )
        )

    def requant_to_listed(self, x: str) -> None:
        """To a minifloat, k-hot or the like, with bounds now and then."""
        kind, format = self.builder.type(x), self.listed_format()
        shift = self.below(-2, max(1, kind.format.mantissa_high.bit_length() - 4))
        exponent: int | Exponent = max(kind.exponent.values) + shift
        if self.below(0, 4) == 0:
            axis = kind.exponent.axis or 0
            exponent = Exponent(tuple(exponent + self.below(-2, 3) for _ in range(kind.shape[axis])), axis)
        modes = list(Rounding) if hasattr(format, "k") or hasattr(format, "bias") else [format.rounding]
        low, high = (
            int(self.random.choice(half)) if self.below(0, 3) == 0 else None
            for half in (format.numbers[format.numbers < 0], format.numbers[format.numbers >= 0])
        )
        rounding = modes[self.below(0, len(modes))]
        self.wrote(self.builder.requant("listed", x, format, exponent, rounding=rounding, low=low, high=high))

    def threshold(self, x: str) -> None:
        channels = self.shape(x)[0] if self.below(0, 2) else 1
        low, high = self.builder.ranges[x].bounds
        count = self.below(1, 20)
        steps = self.random.integers(1, max(2, (high - low) // count + 1), (channels, count))
        thresholds = self.builder.constant("thresholds", low + np.cumsum(steps, axis=1))
        format = self.code_format()
        levels = np.sort(self.numbers(format, (channels, count + 1)), axis=1)[:, :: 1 - 2 * self.below(0, 2)]
        stored = self.builder.constant("levels", levels)
        self.wrote(self.builder.threshold("threshold", x, thresholds, stored, format))

    def table(self, x: str) -> None:
        low, high = self.builder.ranges[x].bounds
        if high - low >= 1 << 12:
            raise ValueError("too many codes")
        channels = self.shape(x)[0] if self.below(0, 2) else 1
        format = self.code_format()
        table = self.builder.constant("table", self.numbers(format, (channels, high - low + 1)))
        self.wrote(self.builder.table("table", x, table, low, format, self.below(-3, 3)))

    def reduce(self, x: str) -> None:
        rank = len(self.shape(x))
        axes = sorted({self.below(0, rank) for _ in range(2)})
        keepdims = rank == len(axes) or bool(self.below(0, 2))
        method = self.builder.reduce_sum if self.below(0, 2) else self.builder.reduce_max
        self.wrote(method("reduce", x, axes, keepdims))

    def pool(self, x: str) -> None:
        rank = self.spatial(x)
        kernel = [self.below(1, 4) for _ in range(rank)]
        strides = [self.below(1, 3) for _ in range(rank)]
        pads = [self.below(0, k) for k in (*kernel, *kernel)]
        if self.below(0, 2):
            self.wrote(self.builder.sum_pool("sum_pool", x, kernel, strides, pads))
        else:
            dilations = [self.below(1, 3) for _ in range(rank)]
            self.wrote(self.builder.max_pool("max_pool", x, kernel, strides, pads, dilations))

    def reshape(self, x: str) -> None:
        shape = self.shape(x)
        flat = (int(np.prod(shape)),)
        self.wrote(
            self.builder.reshape(
                "reshape", x, flat if self.below(0, 2) else (shape[0], -(-flat[0] // shape[0]))
            )
        )

    def transpose(self, x: str) -> None:
        self.wrote(
            self.builder.transpose("transpose", x, self.random.permutation(len(self.shape(x))).tolist())
        )

    def concat(self, x: str) -> None:
        same = [t for t in self.live if self.builder.type(t) == self.builder.type(x)]
        other = same[self.below(0, len(same))]
        self.wrote(self.builder.concat("concat", [x, other], self.below(0, len(self.shape(x)))))

    def slice(self, x: str) -> None:
        axis = self.below(0, len(self.shape(x)))
        start = self.below(0, self.shape(x)[axis])
        self.wrote(self.builder.slice("slice", x, axis, start, self.shape(x)[axis], self.below(1, 3)))

    def pad(self, x: str) -> None:
        rank, format = len(self.shape(x)), self.builder.type(x).format
        pads = [self.below(0, 2) for _ in range(2 * rank)]
        if isinstance(format, TableFormat):
            value = int(self.random.choice(format.numbers))
        else:
            value = self.below(max(-4, format.mantissa_low), min(4, format.mantissa_high + 1))
        self.wrote(self.builder.pad("pad", x, pads, value))


OPERATIONS: tuple[Callable[[RandomGraph, str], None], ...] = (
    RandomGraph.conv,
    RandomGraph.conv,
    RandomGraph.matmul,
    RandomGraph.attention,
    RandomGraph.add,
    RandomGraph.mul,
    RandomGraph.affine,
    RandomGraph.requant,
    RandomGraph.requant,
    RandomGraph.requant_to_listed,
    RandomGraph.threshold,
    RandomGraph.table,
    RandomGraph.reduce,
    RandomGraph.pool,
    RandomGraph.reshape,
    RandomGraph.transpose,
    RandomGraph.concat,
    RandomGraph.slice,
    RandomGraph.pad,
)


def random_graph(seed: int, operations: int = 10, widest: int = 40) -> ExactGraph:
    """A graph of random operations; the same one for the same arguments."""
    return RandomGraph(seed, widest).build(operations)


def random_inputs(graph: ExactGraph, samples: int, seed: int = 0) -> dict[str, IntArray]:
    """Mantissas over the whole range of every input, both ends included."""
    random = np.random.default_rng(seed)
    inputs = {}
    for name in graph.inputs:
        kind = graph.tensors[name]
        low, high = kind.format.mantissa_low, kind.format.mantissa_high
        if isinstance(kind.format, TableFormat):
            x = random.choice(kind.format.numbers, (samples, *kind.shape))
        else:
            x = random.integers(low, high, (samples, *kind.shape), endpoint=True)
        x[:1], x[1:2] = low, high
        inputs[name] = x
    return inputs


def operations_of(graph: ExactGraph) -> set[str]:
    """The operations that a graph uses."""
    return {node.op for node in graph.nodes}


ALL_OPERATIONS = set(ir.OPERATIONS)
