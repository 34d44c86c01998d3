"""Multiply-accumulators with k-hot weights, stored as their shifts, simulated against qhw/formats."""

from __future__ import annotations

import pytest

from qhw.errors import InputError
from qhw.rtl import UNITS
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.verilator import Simulator

INTEGERS = [
    {"WA": 2, "SA": 1, "WB": 2, "K": 1, "A": 3},
    {"WA": 2, "SA": 0, "WB": 2, "K": 1, "CSD": 1, "A": 4},
    {"WA": 4, "SA": 0, "WB": 4, "K": 2, "A": 8},
    {"WA": 4, "SA": 1, "WB": 4, "K": 1, "CSD": 1, "A": 7},
    {"WA": 5, "SA": 1, "WB": 6, "K": 3, "CSD": 1, "A": 10},
    {"WA": 3, "SA": 0, "WB": 6, "K": 4, "A": 15},
    {"WA": 4, "SA": 0, "WB": 8, "K": 4, "CSD": 1, "A": 12},
    {"WA": 8, "SA": 1, "WB": 9, "K": 2, "CSD": 1, "A": 20},
    {"WA": 8, "SA": 1, "WB": 10, "K": 3, "A": 30},
    {"WA": 32, "SA": 1, "WB": 16, "K": 6, "CSD": 1, "A": 47},
    {"WA": 20, "SA": 0, "WB": 16, "K": 7, "A": 40},
]
MINIFLOATS = [
    {"EA": 1, "MA": 0, "WB": 2, "K": 1, "A": 3},
    {"EA": 1, "MA": 2, "WB": 4, "K": 2, "CSD": 1, "A": 7},
    {"EA": 2, "MA": 1, "WB": 5, "K": 3, "A": 12},
    {"EA": 3, "MA": 0, "WB": 8, "K": 4, "CSD": 1, "A": 15},
    {"EA": 4, "MA": 3, "WB": 6, "K": 1, "A": 24},
    {"EA": 4, "MA": 3, "WB": 8, "K": 3, "CSD": 1, "A": 30},
    {"EA": 5, "MA": 2, "WB": 9, "K": 2, "A": 48},
    {"EA": 6, "MA": 8, "WB": 16, "K": 3, "CSD": 1, "A": 87},
]


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "cases"), [("khot_mac", INTEGERS), ("khot_minifloat_mac", MINIFLOATS)])
def test_units_compute_what_the_formats_say(
    simulator: Simulator, unit: str, cases: list[dict[str, int]]
) -> None:
    proofs = prove([Case(UNITS[unit], case) for case in cases], simulator)
    check(proofs)
    assert all(proof.exhaustive or proof.vectors >= 100_000 for proof in proofs)


def test_a_weight_with_as_many_shifts_as_bits_is_refused() -> None:
    with pytest.raises(InputError, match="K of khot_mac is 4 with WB=4"):
        UNITS["khot_mac"].checked({"WA": 4, "SA": 1, "WB": 4, "K": 4, "A": 20})


@pytest.mark.parametrize("signed", [0, 1])
def test_the_accumulator_holds_a_product(signed: int) -> None:
    unit, given = UNITS["khot_mac"], {"WA": 4, "SA": signed, "WB": 4, "K": 2}
    # The largest magnitudes are 8 or 15, and 6.
    needed = (8 if signed else 15) * 6
    assert unit.checked({**given, "A": 8 - signed})["A"] == needed.bit_length() + 1
    with pytest.raises(InputError, match="one product does not fit"):
        unit.checked({**given, "A": 7 - signed})
