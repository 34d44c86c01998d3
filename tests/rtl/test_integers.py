"""Integer units, requantisation and thresholds: a wrong circuit is found, wrong parameters are refused."""

from __future__ import annotations

import pytest

from qhw.errors import CheckFailedError, InputError
from qhw.rtl import UNITS
from qhw.rtl.packed_mac import packed_products
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.verilator import Simulator


def test_a_wrong_circuit_is_found(simulator: Simulator) -> None:
    """The reference of one rounding against the circuit of another."""
    unit = UNITS["requantize"]
    shifted = {"WI": 10, "WO": 5, "S": 4}
    proofs = prove([Case(unit, shifted | {"ROUNDING": 4})], simulator)
    check(proofs)
    wrong = type(unit)(**{**vars(unit), "reference": lambda v, s: unit.reference(v | {"ROUNDING": 0}, s)})
    with pytest.raises(CheckFailedError, match="requantize WI=10"):
        check(prove([Case(wrong, shifted | {"ROUNDING": 4})], simulator))


@pytest.mark.parametrize(("bits", "lanes"), [(2, 9), (3, 5), (4, 4), (5, 3), (6, 2), (7, 2), (8, 2)])
def test_as_many_products_share_a_slice_as_finn_packs(bits: int, lanes: int) -> None:
    assert packed_products(bits, bits, 27) == lanes


@pytest.mark.parametrize(
    ("unit", "values", "said"),
    [
        ("integer_mac", {"WA": 8, "WB": 8, "SA": 1, "SB": 1, "A": 12}, "A of integer_mac is 12"),
        ("integer_mac", {"WA": 40, "WB": 8, "SA": 1, "SB": 1, "A": 60}, "WA of integer_mac .* is 40"),
        ("integer_mac", {"WA": 28, "WB": 8, "SA": 1, "SB": 1, "A": 40, "MULTIPLIER": 1}, "28 and 8 bits"),
        ("integer_dot", {"WA": 8, "WB": 8, "SA": 1, "SB": 1, "A": 30}, "L of integer_dot .* is missing"),
        ("packed_mac", {"WA": 8, "WB": 8, "SA": 1, "P": 3, "A": 24}, "P of packed_mac is 3"),
        ("requantize", {"WI": 8, "WO": 8, "S": 8}, "S of requantize is 8"),
        ("threshold", {"A": 8, "T": 300}, "T of threshold .* is 300"),
        ("threshold", {"A": 8, "T": 3, "X": 1}, "no parameter 'X'"),
    ],
)
def test_parameters_out_of_range_are_named(unit: str, values: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        UNITS[unit].checked(values)
