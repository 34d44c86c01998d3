"""Dot products with constants, emitted as Verilog and simulated against qhw/formats."""

from __future__ import annotations

import pytest

from qhw.formats import KHot
from qhw.rtl import UNITS
from qhw.rtl.constants import shift_add_tree, weights
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.verilator import Simulator

DOTS = [
    {"WA": 4, "SA": 1, "WB": 4, "K": 1, "L": 1, "A": 9, "SEED": 0},
    {"WA": 1, "SA": 0, "WB": 8, "K": 3, "L": 6, "A": 24, "SEED": 8},
    {"WA": 1, "SA": 1, "WB": 8, "K": 3, "L": 6, "A": 24, "SEED": 8},
    {"WA": 4, "SA": 0, "WB": 5, "K": 3, "L": 3, "A": 12, "SEED": 1},
    {"WA": 3, "SA": 1, "WB": 6, "K": 3, "L": 5, "A": 12, "SEED": 2},
    {"WA": 5, "SA": 0, "WB": 8, "K": 2, "L": 12, "A": 24, "SEED": 8},
    {"WA": 8, "SA": 1, "WB": 8, "K": 3, "L": 16, "A": 24, "SEED": 7},
    {"WA": 16, "SA": 1, "WB": 16, "K": 8, "L": 4, "A": 40, "SEED": 8},
]


@pytest.mark.slow
def test_units_compute_what_the_formats_say(simulator: Simulator) -> None:
    proofs = prove([Case(UNITS["khot_constant_dot"], case) for case in DOTS], simulator)
    check(proofs)
    assert all(proof.exhaustive or proof.vectors >= 100_000 for proof in proofs)


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
