"""Minifloat units simulated against qhw/formats: sums that are exact, and every way of rounding them back."""

from __future__ import annotations

import pytest

from qhw.errors import CheckFailedError, InputError
from qhw.formats.modes import Rounding
from qhw.rtl import UNITS
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.verilator import Simulator

MACS = [
    {"EA": 1, "MA": 0, "EB": 1, "MB": 0, "A": 3},
    {"EA": 1, "MA": 3, "EB": 1, "MB": 2, "A": 8},
    {"EA": 1, "MA": 0, "EB": 4, "MB": 0, "A": 20},
    {"EA": 2, "MA": 1, "EB": 3, "MB": 0, "A": 13},
    {"EA": 4, "MA": 3, "EB": 4, "MB": 3, "A": 37},
    {"EA": 5, "MA": 2, "EB": 5, "MB": 2, "A": 76},
    {"EA": 4, "MA": 3, "EB": 5, "MB": 10, "A": 64},
]
DOTS = [
    {"EA": 1, "MA": 0, "EB": 1, "MB": 0, "L": 3, "A": 5},
    {"EA": 1, "MA": 3, "EB": 1, "MB": 2, "L": 1, "A": 8},
    {"EA": 2, "MA": 0, "EB": 3, "MB": 1, "L": 7, "A": 18},
    {"EA": 4, "MA": 3, "EB": 4, "MB": 3, "L": 4, "A": 39},
    {"EA": 5, "MA": 4, "EB": 3, "MB": 0, "L": 2, "A": 46},
]
MIXED_MACS = [
    {"WA": 1, "SA": 0, "EB": 1, "MB": 0, "A": 3},
    {"WA": 1, "SA": 1, "EB": 1, "MB": 0, "A": 2},
    {"WA": 1, "SA": 1, "EB": 3, "MB": 2, "A": 10},
    {"WA": 1, "SA": 0, "EB": 2, "MB": 3, "A": 10},
    {"WA": 8, "SA": 1, "EB": 4, "MB": 3, "A": 26},
    {"WA": 10, "SA": 0, "EB": 5, "MB": 0, "A": 42},
]
CONVERSIONS = [
    *({"A": 12, "E": 3, "M": 2, "P": 3, "ROUNDING": mode} for mode in range(len(Rounding))),
    *({"A": 15, "E": 3, "M": 0, "P": 2, "ROUNDING": mode} for mode in range(len(Rounding))),
    {"A": 2, "E": 4, "M": 3, "P": 1, "ROUNDING": 8},
    {"A": 7, "E": 5, "M": 0, "P": 6, "ROUNDING": 3},
    *({"A": bits, "E": 5, "M": 5, "P": 3} for bits in (8, 9, 10, 11)),
    *({"A": bits, "E": 2, "M": 4, "P": 4} for bits in (10, 11, 12)),
    {"A": 16, "E": 1, "M": 3, "P": 0},
    {"A": 14, "E": 1, "M": 0, "P": 8},
    {"A": 72, "E": 5, "M": 10, "P": 8},
]


@pytest.mark.parametrize(
    ("unit", "cases"),
    [
        ("minifloat_mac", MACS),
        ("minifloat_dot", DOTS),
        ("mixed_mac", MIXED_MACS),
        ("fixed_to_minifloat", CONVERSIONS),
    ],
)
@pytest.mark.slow
def test_units_compute_what_the_formats_say(
    simulator: Simulator, unit: str, cases: list[dict[str, int]]
) -> None:
    proofs = prove([Case(UNITS[unit], case) for case in cases], simulator)
    check(proofs)
    assert all(proof.exhaustive or proof.vectors >= 100_000 for proof in proofs)


def test_a_tie_that_goes_the_other_way_is_found(simulator: Simulator) -> None:
    """The reference of ties to even against the circuit of ties away from zero."""
    unit = UNITS["fixed_to_minifloat"]
    even = {"A": 10, "E": 3, "M": 1, "P": 2, "ROUNDING": 4}
    wrong = type(unit)(**{**vars(unit), "reference": lambda v, s: unit.reference(v | {"ROUNDING": 3}, s)})
    right, differing = prove([Case(unit, even), Case(wrong, even)], simulator)
    assert right.differences == 0
    with pytest.raises(CheckFailedError, match="fixed_to_minifloat A=10"):
        check([differing])


@pytest.mark.parametrize(
    ("unit", "values", "said"),
    [
        ("minifloat_mac", {"EA": 4, "MA": 3, "EB": 4, "MB": 3, "A": 36}, "A of minifloat_mac is 36"),
        ("minifloat_mac", {"EA": 6, "MA": 3, "EB": 4, "MB": 3, "A": 99}, "EA of minifloat_mac .* is 6"),
        ("minifloat_dot", {"EA": 4, "MA": 3, "EB": 4, "MB": 3, "L": 4, "A": 38}, "A of minifloat_dot is 38"),
        ("mixed_mac", {"WA": 8, "SA": 0, "EB": 4, "MB": 3, "A": 26}, "A of mixed_mac is 26"),
        ("fixed_to_minifloat", {"A": 6, "E": 4, "M": 3, "P": 6}, "A of fixed_to_minifloat is 6: with P=6"),
        ("fixed_to_minifloat", {"A": 9, "E": 4, "M": 3, "P": 6, "ROUNDING": 9}, "ROUNDING of .* is 9"),
    ],
)
def test_parameters_out_of_range_are_named(unit: str, values: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        UNITS[unit].checked(values)
