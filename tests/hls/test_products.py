"""Products and dot products in C++ against qhw.formats: every pair of codes of every pair of formats."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from itertools import combinations_with_replacement, product
from pathlib import Path

import numpy as np
import pytest
from vectors import Vectors, bits, built, flip_bit, run

from qhw.flows.hls4ml.operands import operand_policy
from qhw.formats import TableFormat, parse_format

EIGHT_BITS = ("e4m3", "e5m2", "e3m4", "e2m5")
SMALLER = tuple(f"e{e}m{width - 1 - e}" for width in range(3, 8) for e in range(1, width))


def table(text: str) -> TableFormat:
    format = parse_format(text)
    assert isinstance(format, TableFormat)
    return format


def add_pair(vectors: Vectors, a: TableFormat, b: TableFormat) -> int:
    """Every product of two formats, and sums that every one of them is part of; how many numbers."""
    left, right = (format.mantissa_of(format.codes()).astype(object) for format in (a, b))
    products = left[:, None] * right[None, :]
    turned = (np.arange(len(right))[None, :] + np.arange(len(left))[:, None]) % len(left)
    sums = (left[turned] * right).sum(axis=1)
    policies = operand_policy(a), operand_policy(b)
    vectors.case("pairs", f"{a} x {b}", *policies, len(right), bits(sums))
    for format in (a, b):
        vectors.codes(format.codes(), format.width)
    vectors.numbers(products, mantissa_bits(a) + mantissa_bits(b))
    vectors.numbers(sums, bits(sums))
    return products.size + sums.size


def mantissa_bits(format: TableFormat) -> int:
    """The bits of the header library's mantissa: M + 2 of significand, and the largest shift."""
    return format.mantissa_bits + 2 + (1 << format.exponent_bits) - 2


def written(folder: Path, pairs: Iterable[tuple[str, str]]) -> tuple[Path, Path, int]:
    """The program for those pairs, its vectors, and how many numbers they hold."""
    vectors = Vectors()
    count = sum(add_pair(vectors, table(a), table(b)) for a, b in pairs)
    path = vectors.write(folder)
    return built("products_test.cpp", folder), path, count


@pytest.fixture(scope="module")
def eight_bits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    return written(tmp_path_factory.mktemp("eight-bits"), product(EIGHT_BITS, EIGHT_BITS))


def test_every_pair_of_eight_bit_codes(eight_bits: tuple[Path, Path, int]) -> None:
    program, vectors, count = eight_bits
    assert count == 16 * (65536 + 256)
    done = run(program, vectors)
    assert done.stdout == f"{count} compared, 0 differ\n"
    assert done.returncode == 0


def test_one_flipped_bit_of_the_vectors_is_one_difference(
    eight_bits: tuple[Path, Path, int], tmp_path: Path
) -> None:
    program, vectors, count = eight_bits
    copy = tmp_path / "vectors.bin"
    last_product = vectors.stat().st_size - 8 * 256 - 8
    for byte, place in ((last_product, "255, 255"), (last_product + 8, "0, -1")):
        shutil.copyfile(vectors, copy)
        flip_bit(copy, byte)
        done = run(program, copy)
        assert done.stdout.splitlines()[-1] == f"{count} compared, 1 differ"
        assert done.stdout.startswith(f"e2m5 x e2m5: at {place}: ")
        assert done.returncode == 1


@pytest.mark.slow
def test_every_pair_of_codes_of_fewer_bits(tmp_path: Path) -> None:
    """Sign, 1 to 6 exponent bits, the rest mantissa: 3 to 7 bits, with each other and with 8 bits."""
    program, vectors, count = written(tmp_path, combinations_with_replacement((*SMALLER, *EIGHT_BITS), 2))
    assert count > 2_000_000
    done = run(program, vectors)
    assert done.stdout == f"{count} compared, 0 differ\n"
    assert done.returncode == 0
