"""What formats turn into inside a multiplier, and that shift-add multiplication takes no DSP slice."""

from __future__ import annotations

import numpy as np
import pytest

from qhw.boards import load_board
from qhw.cost import estimate
from qhw.cost.operands import factor_of, product, product_width, unrolled_products
from qhw.formats import Format, Integer, parse_format
from qhw.graph.builder import GraphBuilder
from qhw.graph.ir import ExactGraph

FAMILY = "ultrascale-plus"


@pytest.mark.parametrize("text", ["e4m3", "e5m2", "e3m2", "e2m1", "int8", "uint4", "pow2<4>", "binary"])
@pytest.mark.parametrize("other", ["e4m3", "e2m5", "int8", "khot<8,2>", "khot<8,3>", "ternary", "pow2<5>"])
def test_a_product_is_as_wide_as_the_largest_mantissas_need(text: str, other: str) -> None:
    a, b = parse_format(text), parse_format(other)
    magnitudes = [max(f.mantissa_high, -f.mantissa_low) for f in (a, b)]
    # An integer's sign is part of its bits, a minifloat's is not.
    needed = (magnitudes[0] * magnitudes[1]).bit_length()
    assert needed - 1 <= product_width(factor_of(a), factor_of(b)) <= needed + 2


@pytest.mark.parametrize("text", ["khot<8,1>", "khot<8,3>", "khot<8,2,csd>", "pow2<4>", "binary", "ternary"])
@pytest.mark.parametrize("other", ["int8", "fixed<18,9>", "e4m3"])
def test_formats_without_a_multiplier_take_no_dsp_slice(text: str, other: str) -> None:
    both = factor_of(parse_format(text)), factor_of(parse_format(other))
    assert product(*both, FAMILY).dsp == 0
    assert product(*both[::-1], FAMILY).dsp == 0


def test_every_one_of_k_hot_is_a_shifter_and_every_further_one_an_adder() -> None:
    x = factor_of(Integer(8))
    lut = [float(product(factor_of(parse_format(f"khot<8,{k}>")), x, FAMILY).lut) for k in (1, 2, 3)]
    steps = np.diff(lut)
    assert steps[0] == steps[1] > 0
    width = product_width(factor_of(parse_format("khot<8,1>")), x)
    assert steps[0] == width * 2 + width  # seven places: three stages, two to a LUT


def test_unrolled_k_hot_constants_cost_their_ones() -> None:
    values = np.array([0, 1, 5, -6, 64, 0b1010001])
    x = factor_of(Integer(8))
    assert unrolled_products(values, parse_format("khot<8,3>"), x) == (0 + 1 + 2 + 2 + 1 + 3) * 8
    assert unrolled_products(values, Integer(8), x) == (0 + 1 + 3 + 2 + 1 + 7) * 8


def test_k_hot_is_stored_as_its_shifts() -> None:
    assert factor_of(parse_format("khot<8,2>")).stored_bits == 1 + 2 * 3
    assert factor_of(parse_format("khot<8,2,csd>")).stored_bits == 2 * (4 + 1)


def dense(weights: Format, activations: Format) -> ExactGraph:
    random = np.random.default_rng(0)
    builder = GraphBuilder("dense")
    x = builder.input("x", (16,), activations)
    numbers = weights.mantissa_of(np.setdiff1d(weights.codes(), list(weights.special_codes)))
    w = builder.constant("w", random.choice(numbers, (16, 8)), weights)
    return builder.finish([builder.matmul("dense", x, w)])


@pytest.mark.parametrize("reuse", [1, 4])
def test_a_folded_k_hot_layer_needs_no_dsp_slice_where_integers_do(reuse: int) -> None:
    board = load_board("ultra96")

    def dsp(weights: str) -> int:
        graph = dense(parse_format(weights), Integer(8))
        return estimate(graph, board, {"dense": reuse}).totals["dsp"]

    assert dsp("khot<8,2>") == 0
    assert dsp("int8") == (0 if reuse == 1 else 16 * 8 // reuse)
