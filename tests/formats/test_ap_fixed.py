"""Fixed point against ap_fixed itself: the ap_types headers that hls4ml ships, through g++."""

from __future__ import annotations

import importlib.util
import itertools
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from qhw.formats import Fixed, Overflow
from qhw.formats.fixed import AP_FIXED_ROUNDINGS
from qhw.formats.modes import IntArray

PROGRAM = """
#include "ap_fixed.h"
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

template <class T> struct Load {{
    static T from(int64_t code) {{
        T value;
        value.range(T::width - 1, 0) = ap_uint<T::width>(code);
        return value;
    }}
}};
template <> struct Load<double> {{
    static double from(int64_t code) {{
        double value;
        std::memcpy(&value, &code, sizeof value);
        return value;
    }}
}};

template <class Source, class Target> void convert(const std::vector<int64_t> &codes, FILE *out) {{
    std::vector<int64_t> results;
    for (int64_t code : codes) {{
        Target target = Load<Source>::from(code);
        results.push_back(ap_uint<Target::width>(target.range(Target::width - 1, 0)).to_int64());
    }}
    fwrite(results.data(), sizeof(int64_t), results.size(), out);
}}

int main(int, char **argv) {{
    FILE *in = fopen(argv[1], "rb"), *out = fopen(argv[2], "wb");
    std::vector<int64_t> codes(strtoul(argv[3], nullptr, 10));
    if (fread(codes.data(), sizeof(int64_t), codes.size(), in) != codes.size())
        return 1;
{calls}
    return fclose(out);
}}
"""


@dataclass(frozen=True)
class Shape:
    """Source and target of a conversion; no source stands for double."""

    source: Fixed | None
    target: Fixed


def fixed(width: int, integer: int, signed: bool = True) -> Fixed:
    return Fixed(width, integer, signed)


EXHAUSTIVE = [
    Shape(fixed(12, 6), fixed(8, 3)),
    Shape(fixed(12, 6), fixed(8, 6)),
    Shape(fixed(12, 6), fixed(6, 6)),
    Shape(fixed(12, 6), fixed(4, 8)),  # width < integer: the last bit stands for 16
    Shape(fixed(12, 6), fixed(3, 9)),  # every source rounds to the last bit or to zero
    Shape(fixed(12, 6), fixed(5, 1)),
    Shape(fixed(12, 6), fixed(6, -1)),  # negative integer width: only numbers below 1/4
    Shape(fixed(12, 6), fixed(1, 1)),
    Shape(fixed(12, 6), fixed(2, 2)),
    Shape(fixed(12, 6), fixed(20, 10)),
    Shape(fixed(12, 6), fixed(20, 4)),
    Shape(fixed(12, 12), fixed(8, 4)),
    Shape(fixed(12, -2), fixed(8, -3)),
    Shape(fixed(12, -4), fixed(8, 2)),
    # The source lies wholly below the last bit; one bit further down the headers assert.
    Shape(fixed(12, -6), fixed(8, 2)),
    Shape(fixed(12, 20), fixed(8, 18)),
    Shape(fixed(12, 20), fixed(8, 2)),
    Shape(fixed(1, 1), fixed(4, 2)),
    Shape(fixed(3, 4), fixed(6, 3)),
    Shape(fixed(8, 3), fixed(8, 3)),
    Shape(fixed(12, 6, False), fixed(8, 3)),
    Shape(fixed(12, 6, False), fixed(6, 7)),
    Shape(fixed(12, 6), fixed(8, 3, False)),
    Shape(fixed(12, 6), fixed(4, 7, False)),
    Shape(fixed(12, 6), fixed(1, 1, False)),
    Shape(fixed(12, 6, False), fixed(8, 3, False)),
    Shape(fixed(12, 6, False), fixed(6, -1, False)),
    Shape(fixed(12, -4, False), fixed(8, 2, False)),
]
RANDOM = [
    Shape(fixed(40, 18), fixed(17, 6)),
    Shape(fixed(60, 30), fixed(33, 20, False)),
]
REAL = [Shape(None, target) for target in (fixed(8, 3), fixed(6, 9), fixed(9, -2, False))]


def modes_of(shape: Shape) -> list[Fixed]:
    """The target in every mode pair that ap_fixed has for it."""
    overflows = [mode for mode in Overflow if shape.target.signed or mode is not Overflow.WRAP_SM]
    return [shape.target.with_modes(*pair) for pair in itertools.product(AP_FIXED_ROUNDINGS, overflows)]


def cpp_source(shape: Shape) -> str:
    if shape.source is None:
        return "double"
    sign = "" if shape.source.signed else "u"
    return f"ap_{sign}fixed<{shape.source.width}, {shape.source.integer}>"


class Oracle:
    """Compiles every mode pair of some shapes once and converts codes through them."""

    def __init__(self, shapes: list[Shape], folder: Path, optimise: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.cases = [(shape, target) for shape in shapes for target in modes_of(shape)]
        calls = "\n".join(
            f"    convert<{cpp_source(shape)}, {target.cpp_type()}>(codes, out);"
            for shape, target in self.cases
        )
        source, self.program, self.folder = folder / "oracle.cpp", folder / "oracle", folder
        source.write_text(PROGRAM.format(calls=calls))
        command = [
            "g++",
            "-std=c++17",
            optimise,
            "-w",
            f"-I{headers()}",
            str(source),
            "-o",
            str(self.program),
        ]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def convert(self, codes: IntArray) -> IntArray:
        """Target codes (cases, codes) of source codes, given as the raw bits of an int64."""
        inputs, outputs = self.folder / "codes.bin", self.folder / "results.bin"
        codes.astype(np.int64).tofile(inputs)
        subprocess.run([self.program, inputs, outputs, str(codes.size)], check=True, timeout=600)
        return np.fromfile(outputs, dtype=np.int64).reshape(len(self.cases), codes.size)


def headers() -> Path:
    spec = importlib.util.find_spec("hls4ml")
    if spec is None or spec.origin is None or shutil.which("g++") is None:
        pytest.skip("needs g++ and the ap_types headers of hls4ml")
    return Path(spec.origin).parent / "templates" / "vivado" / "ap_types"


def assert_equal(shape: Shape, target: Fixed, mantissas: IntArray, expected: IntArray) -> None:
    wrong = np.flatnonzero(target.code_of(mantissas) != expected)
    assert wrong.size == 0, (
        f"{wrong.size} of {expected.size} differ, {shape.source} -> {target}: item {wrong[0]} gives "
        f"{mantissas[wrong[0]]}, ap_fixed {target.mantissa_of(expected[wrong[0]])}"
    )


def check(oracle: Oracle, codes: IntArray) -> int:
    """Compares every case; the number of conversions compared."""
    compared = 0
    for (shape, target), expected in zip(oracle.cases, oracle.convert(codes), strict=True):
        if shape.source is None:
            mantissas = target.to_mantissa(codes.view(np.float64))
        else:
            own = codes[: 1 << shape.source.width] if shape.source.width <= 12 else codes
            expected = expected[: own.size]
            mantissas = target.from_mantissa(shape.source.mantissa_of(own), shape.source.exponent)
        assert_equal(shape, target, mantissas, expected)
        compared += expected.size
    return compared


@pytest.mark.slow
def test_every_mode_pair_on_every_code_of_12_bits(tmp_path: Path) -> None:
    oracle = Oracle(EXHAUSTIVE, tmp_path, "-O0")
    assert len(oracle.cases) == 22 * 35 + 6 * 28  # shapes with a signed and an unsigned target
    assert check(oracle, np.arange(1 << 12)) > 3_000_000


@pytest.mark.slow
def test_every_mode_pair_on_a_million_wide_codes(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for index, shape in enumerate(RANDOM):
        assert shape.source is not None
        bits = rng.integers(1, shape.source.width, 1_000_000)
        codes = rng.integers(0, 1 << shape.source.width, 1_000_000) >> bits
        negative = rng.integers(0, 2, codes.size) == 1
        codes = np.where(negative, (1 << shape.source.width) - 1 - codes, codes)
        oracle = Oracle([shape], tmp_path / str(index), "-O1")
        assert check(oracle, codes) == len(oracle.cases) * 1_000_000


@pytest.mark.slow
def test_every_mode_pair_on_doubles(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    numbers = rng.standard_normal(40_000) * 2.0 ** rng.integers(-20, 24, 40_000)
    ties = rng.integers(-(1 << 12), 1 << 12, 20_000) * 2.0 ** rng.integers(-12, 6, 20_000)
    special = np.array([0.0, -0.0, 1e300, -1e300, 5e-324, -5e-324])
    check(Oracle(REAL, tmp_path, "-O0"), np.concatenate([numbers, ties, special]).view(np.int64))
