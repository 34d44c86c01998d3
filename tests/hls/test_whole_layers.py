"""Whole layers in C++, from arrays and from streams, against sums of mantissas that qhw.formats rounds."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from vectors import Vectors, bits, built, flip_bit, run

from qhw.flows.hls4ml.operands import operand_policy, stored_weights, weight_policy
from qhw.formats import Fixed, Overflow, Rounding, TableFormat, parse_format
from qhw.formats.modes import IntArray
from qhw.formats.requantise import requantise

SAMPLES = 4


@dataclass(frozen=True)
class Product:
    """Formats of the operands and of the result, how many bits its rounding drops, and the reuse factor."""

    x: str
    weight: str
    result: str
    down: int
    reuse: int

    def config(self, sums: IntArray) -> str:
        parts = (
            operand_policy(parse_format(self.x)),
            weight_policy(parse_format(self.weight)),
            operand_policy(parse_format(self.result)),
            bits(sums),
            self.down,
            self.reuse,
        )
        return f"product_config<{', '.join(map(str, parts))}>"

    def rounded(self, sums: IntArray) -> IntArray:
        """Codes of the result, -0 never."""
        format = parse_format(self.result)
        return format.code_of(requantise(sums, self.down, format, Rounding.RND_CONV, Overflow.SAT))


@dataclass(frozen=True)
class Window:
    """A convolution's geometry, as ``conv_config`` lists it."""

    channels: int
    filters: int
    groups: int
    size: tuple[int, int]
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pad: tuple[int, int, int, int] = (0, 0, 0, 0)

    def parameters(self) -> tuple[int, ...]:
        axes = (self.size, self.kernel, self.stride, self.dilation, self.pad)
        return (self.channels, self.filters, self.groups, *itertools.chain(*axes))

    def sums(self, x: IntArray, weight: IntArray, bias: IntArray) -> IntArray:
        """Plain loops: x (H, W, C), weight (F, KH, KW, C / groups); the result (OH, OW, F)."""
        top, bottom, left, right = self.pad
        padded = np.pad(x, ((top, bottom), (left, right), (0, 0)))
        depth, per_group = self.channels // self.groups, self.filters // self.groups
        spans = [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]
        rows = (padded.shape[0] - spans[0]) // self.stride[0] + 1
        columns = (padded.shape[1] - spans[1]) // self.stride[1] + 1
        result = np.zeros((rows, columns, self.filters), dtype=object)
        for h, w, f in np.ndindex(*result.shape):
            start_h, start_w, group = h * self.stride[0], w * self.stride[1], f // per_group
            window = padded[
                start_h : start_h + spans[0] : self.dilation[0],
                start_w : start_w + spans[1] : self.dilation[1],
                group * depth : (group + 1) * depth,
            ]
            result[h, w, f] = (window * weight[f]).sum() + bias[f]
        return result


def numbers(random: np.random.Generator, text: str, shape: tuple[int, ...]) -> IntArray:
    """Random mantissas of a format, as Python integers."""
    format = parse_format(text)
    every = format.numbers if isinstance(format, TableFormat) else format.mantissa_of(format.codes())
    return random.choice(every, shape).astype(object)


MATVECS = (
    (Product("e4m3", "e4m3", "e4m3", 14, 1), 24, 6),
    (Product("e5m2", "e5m2", "e5m2", 30, 12), 24, 6),
    (Product("int8", "khot<8,2>", "e3m2", 7, 4), 12, 5),
    (Product("e3m2", "int4", "pow2<4>", 3, 10), 10, 4),
)
CONVS = (
    (Product("e4m3", "e3m2", "e4m3", 8, 1), Window(3, 4, 1, (5, 6), (3, 3), (2, 1), pad=(1, 0, 1, 1))),
    (Product("e2m1", "khot<8,2>", "e3m2", 5, 9), Window(4, 6, 2, (6, 5), (3, 2), dilation=(1, 2))),
    (Product("binary", "e3m2", "e3m2", 2, 2), Window(2, 2, 2, (4, 4), (3, 3), pad=(1, 1, 1, 1))),
    (Product("e3m4", "e2m5", "e4m3fn", 6, 8), Window(4, 8, 1, (3, 4), (1, 1), (1, 2))),
)


def add_matvec(vectors: Vectors, random: np.random.Generator, product: Product, n_in: int, n_out: int) -> int:
    weight = numbers(random, product.weight, (n_out, n_in))
    x = numbers(random, product.x, (SAMPLES, n_in))
    bias = random.integers(-50, 50, n_out).astype(object)
    sums = x @ weight.T + bias
    return add_product(vectors, product, ("matvec", (n_in, n_out)), weight, bias, x, sums)


def add_conv(vectors: Vectors, random: np.random.Generator, product: Product, window: Window) -> int:
    depth = window.channels // window.groups
    weight = numbers(random, product.weight, (window.filters, *window.kernel, depth))
    x = numbers(random, product.x, (SAMPLES, *window.size, window.channels))
    bias = random.integers(-50, 50, window.filters).astype(object)
    sums = np.stack([window.sums(image, weight, bias) for image in x])
    return add_product(vectors, product, ("conv", window.parameters()), weight, bias, x, sums)


def add_product(
    vectors: Vectors,
    product: Product,
    layer: tuple[str, tuple[int, ...]],
    weight: IntArray,
    bias: IntArray,
    x: IntArray,
    sums: IntArray,
) -> int:
    """A layer with its weights, biases, inputs (SAMPLES, …) and results; how many are compared."""
    kind, geometry = layer
    every = np.concatenate([sums.reshape(-1), bias])
    config = f"{kind}_config<{product.config(every)}, {', '.join(map(str, geometry))}>"
    vectors.case(kind, f"{kind} of {product}", config)
    stored = stored_weights(parse_format(product.weight), weight.reshape(-1))
    vectors.codes(np.asarray(stored.mantissas, dtype=np.int64) % (1 << stored.type.bits), stored.type.bits)
    vectors.numbers([len(bias)])
    vectors.numbers(bias, bits(every))
    vectors.numbers([SAMPLES])
    x_format, y_format = parse_format(product.x), parse_format(product.result)
    for sample, total in zip(x, sums, strict=True):
        vectors.codes(x_format.code_of(sample.reshape(-1)), x_format.width)
        vectors.numbers(product.rounded(total.reshape(-1)), y_format.width + 1)
    return 2 * sums.size


def add_thresholds(vectors: Vectors, text: str, width: int, exponent: int) -> int:
    """Every number of that width and exponent to a format, by its thresholds; how many."""
    format = parse_format(text)
    assert isinstance(format, TableFormat)
    numbers = np.arange(-(1 << width - 1), 1 << width - 1)
    thresholds = [t for t in format.mantissa_thresholds(exponent) if t < numbers[-1] + 2]
    levels = format.code_of(format.numbers)[: len(thresholds) + 1]
    vectors.case("thresholds", f"thresholds of {text}", width, format.width, len(thresholds))
    vectors.numbers(thresholds)
    vectors.numbers(levels)
    vectors.numbers(format.canonical(format.encode_mantissa(numbers, exponent)))
    return len(numbers)


def add_additions(vectors: Vectors, a: Fixed, b: Fixed, result: Fixed) -> int:
    """Every sum of two fixed-point formats, rounded to even and saturated; how many."""
    exponent = min(a.exponent, b.exponent)
    left, right = (format.mantissa_of(format.codes()) << format.exponent - exponent for format in (a, b))
    sums = (left[:, None] + right[None, :]).reshape(-1)
    types = (format.cpp_type().split(", AP")[0].rstrip(">") + ">" for format in (a, b, result))
    vectors.case("additions", f"{a} + {b}", *types)
    drop = result.exponent - exponent
    vectors.numbers(requantise(sums, drop, result, Rounding.RND_CONV, Overflow.SAT))
    return sums.size


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    folder, vectors, random = tmp_path_factory.mktemp("layers"), Vectors(), np.random.default_rng(8)
    count = sum(add_matvec(vectors, random, *case) for case in MATVECS)
    count += sum(add_conv(vectors, random, *case) for case in CONVS)
    for text in ("khot<6,2>", "khot<5,2,csd>", "ternary", "binary", "e3m2", "pow2<3,nozero>"):
        count += add_thresholds(vectors, text, 9, -4)
    for a, b, result in (
        (Fixed(6, 3), Fixed(7, 2), Fixed(6, 2)),
        (Fixed(5, 5, False), Fixed(6, 3), Fixed(5, 4, False)),
        (Fixed(8, 4), Fixed(8, 4), Fixed(8, 4)),
    ):
        count += add_additions(vectors, a, b, result)
    path = vectors.write(folder)
    return built("whole_layers_test.cpp", folder), path, count


@pytest.mark.slow
def test_layers_from_arrays_and_streams(layers: tuple[Path, Path, int]) -> None:
    program, vectors, count = layers
    done = run(program, vectors)
    assert done.stdout == f"{count} compared, 0 differ\n"
    assert done.returncode == 0


@pytest.mark.slow
def test_one_flipped_bit_is_found(layers: tuple[Path, Path, int], tmp_path: Path) -> None:
    program, vectors, count = layers
    copy = tmp_path / "vectors.bin"
    shutil.copyfile(vectors, copy)
    flip_bit(copy, copy.stat().st_size - 8)
    done = run(program, copy)
    assert done.stdout.splitlines()[-1] == f"{count} compared, 1 differ"
    assert done.stdout.startswith("fixed<8,4> + fixed<8,4>: at 255, 255: ")
    assert done.returncode == 1
