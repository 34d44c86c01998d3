"""Adder trees and counts of agreeing binary lanes, simulated against qhw/formats."""

from __future__ import annotations

import pytest

from qhw.errors import InputError
from qhw.rtl import UNITS
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.verilator import Simulator

TREES = [
    {"N": 1, "W": 5, "S": 1},
    {"N": 2, "W": 1, "S": 0},
    {"N": 5, "W": 3, "S": 1},
    {"N": 7, "W": 2, "S": 0},
    {"N": 17, "W": 9, "S": 1},
    {"N": 32, "W": 12, "S": 0},
    {"N": 6, "W": 60, "S": 1},
]
COUNTS = [
    {"L": 1, "A": 2},
    {"L": 2, "A": 2},
    {"L": 4, "A": 3},
    {"L": 7, "A": 5},
    {"L": 9, "A": 9},
    {"L": 63, "A": 7},
    {"L": 97, "A": 20},
]


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "cases"), [("adder_tree", TREES), ("xnor_popcount", COUNTS)])
def test_units_compute_what_the_formats_say(
    simulator: Simulator, unit: str, cases: list[dict[str, int]]
) -> None:
    proofs = prove([Case(UNITS[unit], case) for case in cases], simulator)
    check(proofs)
    assert all(proof.exhaustive or proof.vectors >= 100_000 for proof in proofs)


def test_the_accumulator_holds_a_count_of_all_lanes() -> None:
    assert UNITS["xnor_popcount"].checked({"L": 12, "A": 4})
    with pytest.raises(InputError, match="A of xnor_popcount is 3: one count of all lanes does not fit"):
        UNITS["xnor_popcount"].checked({"L": 12, "A": 3})
