"""K-hot, power-of-two, binary and ternary weights in C++: their codes, and that nothing is multiplied."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from multiplications import REFUSAL, without_multiplications
from vectors import Vectors, ap_types, bits, built, compiled, flip_bit, run

from qhw.flows.hls4ml.operands import operand_policy, stored_weights, weight_policy
from qhw.formats import Format, TableFormat, parse_format
from qhw.formats.base import UniformFormat
from qhw.formats.modes import IntArray

WEIGHTS = (
    "khot<8,1>",
    "khot<8,2>",
    "khot<8,3>",
    "khot<4,2>",
    "khot<7,2,csd>",
    "pow2<4>",
    "upow2<3,nozero>",
    "ternary",
    "binary",
)
OPERANDS = ("int8", "uint5", "e4m3", "e3m2", "khot<6,2>")


@pytest.fixture(scope="module")
def unmultiplied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ap_types in which a multiplication does not compile."""
    return without_multiplications(ap_types(), tmp_path_factory.mktemp("types") / "ap_types")


def mantissas(format: Format) -> IntArray:
    """Every number of a format."""
    if isinstance(format, UniformFormat):
        return np.arange(format.mantissa_low, format.mantissa_high + 1)
    assert isinstance(format, TableFormat)
    return format.numbers


def add_pairs(vectors: Vectors, x: Format, weight: Format) -> int:
    """Every number of an operand's format times every weight, and sums that each is part of; how many."""
    left, right = mantissas(x).astype(object), mantissas(weight).astype(object)
    turned = (np.arange(len(right))[None, :] + np.arange(len(left))[:, None]) % len(left)
    sums = (left[turned] * right).sum(axis=1)
    policies = operand_policy(x), weight_policy(weight)
    vectors.case("pairs", f"{x} x {weight}", *policies, len(right), bits(sums))
    vectors.codes(x.code_of(left), x.width)
    stored = stored_weights(weight, mantissas(weight))
    vectors.codes(stored.mantissas, stored.type.bits)
    vectors.numbers(left[:, None] * right[None, :])
    vectors.numbers(sums)
    return len(left) * len(right) + len(sums)


@pytest.mark.slow
def test_every_product_without_a_multiplication(tmp_path: Path, unmultiplied: Path) -> None:
    """Weights are read as the shifts that they are stored as; every number of every format."""
    vectors, count = Vectors(), 0
    for weight in map(parse_format, WEIGHTS):
        for x in map(parse_format, OPERANDS):
            count += add_pairs(vectors, x, weight)
    path = vectors.write(tmp_path)
    program = built("products_test.cpp", tmp_path, unmultiplied)
    assert count > 100_000
    assert run(program, path).stdout == f"{count} compared, 0 differ\n"
    flip_bit(path, path.stat().st_size - 8)
    assert run(program, path).stdout.splitlines()[-1] == f"{count} compared, 1 differ"


def test_what_does_multiply_does_not_compile_so(tmp_path: Path, unmultiplied: Path) -> None:
    vectors = Vectors()
    add_pairs(vectors, parse_format("int8"), parse_format("e3m2"))
    vectors.write(tmp_path)
    done = compiled("products_test.cpp", tmp_path, unmultiplied, "-fsyntax-only")
    assert done.returncode != 0
    assert REFUSAL in done.stderr
    assert compiled("products_test.cpp", tmp_path, None, "-fsyntax-only").returncode == 0


@pytest.mark.slow
def test_sums_with_weights_whose_multiplication_is_deleted(tmp_path: Path, unmultiplied: Path) -> None:
    random, vectors, count = np.random.default_rng(5), Vectors(), 0
    for text, operand, reuse in (
        ("khot<8,1>", "int8", 1),
        ("khot<8,2>", "int8", 6),
        ("khot<8,2>", "e4m3", 12),
        ("khot<6,3,csd>", "e3m2", 4),
        ("pow2<4>", "e3m2", 1),
        ("ternary", "int8", 3),
        ("binary", "e2m1", 2),
    ):
        x, weight = parse_format(operand), parse_format(text)
        n_in, n_out = 12, 5
        left = random.choice(mantissas(x), n_in)
        right = random.choice(mantissas(weight), (n_out, n_in))
        sums = right @ left
        policies = operand_policy(x), weight_policy(weight)
        vectors.case("sums", f"{operand} x {text}", *policies, n_in, n_out, reuse, bits(sums))
        vectors.codes(x.code_of(left), x.width)
        stored = stored_weights(weight, right.reshape(-1))
        vectors.codes(stored.mantissas, stored.type.bits)
        vectors.numbers(sums)
        count += 4 * n_out
    path = vectors.write(tmp_path)
    done = run(built("multiplier_free_test.cpp", tmp_path, unmultiplied), path)
    assert done.stdout == f"{count} compared, 0 differ\n"
