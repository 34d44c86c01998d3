"""Rounding to minifloats and powers of two in C++ against qhw.formats: every boundary, in every mode."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from vectors import Vectors, bits, built, flip_bit, run

from qhw.flows.hls4ml.operands import operand_policy, ordinal
from qhw.formats import Overflow, Rounding, TableFormat, parse_format
from qhw.formats.base import as_mantissas
from qhw.formats.modes import IntArray
from qhw.formats.requantise import requantise

MINIFLOATS = tuple(f"e{e}m{width - 1 - e}" for width in range(3, 9) for e in range(1, width))
OTHERS = (
    "e4m3fn",
    "e5m2ieee",
    "e4m3fnuz",
    "e3m2<nosubnormal>",
    "e4m3<nosubnormal>",
    "e2m1<nosubnormal>",
    "e4m5",
    "pow2<4>",
    "upow2<3>",
)
DOWN = (3, 0, -2)
"""Fraction bits of a number beyond the result's: down to eighths, none, and numbers that are coarser."""


def boundary_numbers(format: TableFormat, down: int) -> IntArray:
    """Every number of a format, every midpoint of neighbours, what is beside them, and what is beyond."""
    numbers = format.numbers.astype(object)
    gap = numbers[-1] - numbers[-2]
    beyond = [numbers[-1] + gap, numbers[-1] + 4 * gap, numbers[0] - gap, numbers[0] - 4 * gap]
    twice = np.concatenate([2 * numbers, numbers[1:] + numbers[:-1], 2 * np.array(beyond, dtype=object)])
    units = twice << (down - 1) if down > 0 else twice >> (1 - down)
    return np.unique(as_mantissas(np.concatenate([units - 1, units, units + 1])))


def add_conversions(vectors: Vectors, format: TableFormat, down: int) -> int:
    """Those numbers to a format in every mode, within its range and within part of it; how many results."""
    numbers = boundary_numbers(format, down)
    width = bits(numbers)
    vectors.case("conversions", f"{format} >> {down}", operand_policy(format), down, width)
    vectors.numbers([len(numbers)])
    vectors.numbers(numbers, width)
    third = len(format.numbers) // 3
    ranges = [(format.numbers[0], format.numbers[-1]), (0, format.numbers[-1 - third])]
    vectors.numbers([len(ranges)])
    for low, high in ranges:
        vectors.numbers([ordinal(format, int(low)), ordinal(format, int(high))])
        for rounding in Rounding:
            rounded = requantise(numbers, down, format, rounding, Overflow.SAT, int(low), int(high))
            vectors.numbers(format.code_of(rounded), format.width + 1)
    unsigned = int(np.count_nonzero(numbers >= 0))
    return len(ranges) * len(Rounding) * (len(numbers) + unsigned)


def add_mantissas(vectors: Vectors, format: TableFormat) -> int:
    """Every code that is a number, and -0, to its mantissa."""
    codes = np.setdiff1d(format.codes(), list(format.special_codes))
    vectors.case("mantissas", str(format), operand_policy(format))
    vectors.codes(codes, format.width)
    vectors.numbers(format.mantissa_of(codes), 128)
    return len(codes)


@pytest.fixture(scope="module")
def conversions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, int]:
    folder, vectors, count = tmp_path_factory.mktemp("conversions"), Vectors(), 0
    for text in (*MINIFLOATS, *OTHERS):
        format = parse_format(text)
        assert isinstance(format, TableFormat)
        count += sum(add_conversions(vectors, format, down) for down in DOWN)
        count += add_mantissas(vectors, format)
    path = vectors.write(folder)
    return built("conversions_test.cpp", folder), path, count


@pytest.mark.slow
def test_every_boundary_in_every_mode(conversions: tuple[Path, Path, int]) -> None:
    program, vectors, count = conversions
    assert count > 1_000_000
    done = run(program, vectors)
    assert done.stdout == f"{count} compared, 0 differ\n"
    assert done.returncode == 0


@pytest.mark.slow
def test_one_flipped_bit_is_found(conversions: tuple[Path, Path, int], tmp_path: Path) -> None:
    """The last number is the mantissa of the last code: one comparison."""
    program, vectors, count = conversions
    copy = tmp_path / "vectors.bin"
    shutil.copyfile(vectors, copy)
    flip_bit(copy, copy.stat().st_size - 16)
    done = run(program, copy)
    assert done.stdout.splitlines()[-1] == f"{count} compared, 1 differ"
    assert done.stdout.startswith("upow2<3>: at 7, -1")
    assert done.returncode == 1
