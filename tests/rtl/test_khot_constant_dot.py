"""Dot products with constants: their weights, and the widths of their sums."""

from __future__ import annotations

import pytest
from proof_cases import PROOF_CASES

from qhw.formats import KHot
from qhw.rtl.khot_constant_dot import shift_add_tree, weights

DOTS = PROOF_CASES["khot_constant_dot"]


def test_the_weights_are_numbers_of_the_format_and_follow_from_the_seed() -> None:
    drawn = weights(DOTS[6])
    assert set(drawn) <= set(KHot(8, 3).numbers.tolist()) - {0}
    assert drawn == weights({**DOTS[6]}) != weights({**DOTS[6], "SEED": 9})


@pytest.mark.parametrize("case", DOTS)
def test_every_sum_is_as_wide_as_its_extremes(case: dict[str, int]) -> None:
    low, high = (
        (-(1 << case["WA"] - 1), (1 << case["WA"] - 1) - 1) if case["SA"] else (0, (1 << case["WA"]) - 1)
    )
    products = [sorted((low * weight, high * weight)) for weight in weights(case)]
    extremes = sum(product[0] for product in products), sum(product[1] for product in products)
    made = shift_add_tree(case)
    total = made.levels[-1][made.total.number]
    ends = [end << made.total.shift for end in (total.low, total.high)]
    assert extremes == ((-ends[1], -ends[0]) if made.total.negative else tuple(ends))
