"""Minifloat units: a tie that goes the other way is found, wrong parameters are refused."""

from __future__ import annotations

import pytest

from qhw.errors import CheckFailedError, InputError
from qhw.rtl import UNITS
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.verilator import Simulator


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
