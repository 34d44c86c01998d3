"""Integer units, requantisation and thresholds simulated against qhw/formats, in LUTs and in DSP slices."""

from __future__ import annotations

import pytest

from qhw.errors import CheckFailedError, InputError
from qhw.formats.modes import Rounding
from qhw.rtl import UNITS
from qhw.rtl.macs import packed_products
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.verilator import Simulator

MACS = [
    {"WA": 1, "WB": 1, "SA": 0, "SB": 0, "A": 4},
    {"WA": 1, "WB": 5, "SA": 1, "SB": 1, "A": 9},
    {"WA": 4, "WB": 4, "SA": 1, "SB": 0, "A": 12},
    {"WA": 8, "WB": 8, "SA": 1, "SB": 1, "A": 24},
    {"WA": 7, "WB": 12, "SA": 0, "SB": 1, "A": 30},
    {"WA": 8, "WB": 8, "SA": 0, "SB": 1, "A": 48, "MULTIPLIER": 1},
    {"WA": 18, "WB": 27, "SA": 1, "SB": 1, "A": 48, "MULTIPLIER": 1},
    {"WA": 17, "WB": 17, "SA": 0, "SB": 0, "A": 40, "MULTIPLIER": 2},
    {"WA": 8, "WB": 6, "SA": 1, "SB": 0, "A": 20, "MULTIPLIER": 3},
]
DOTS = [
    {"WA": 1, "WB": 1, "SA": 0, "SB": 0, "L": 64, "A": 10},
    {"WA": 2, "WB": 3, "SA": 1, "SB": 0, "L": 1, "A": 8},
    {"WA": 4, "WB": 4, "SA": 0, "SB": 1, "L": 5, "A": 16},
    {"WA": 3, "WB": 8, "SA": 0, "SB": 0, "L": 12, "A": 20},
    {"WA": 8, "WB": 8, "SA": 1, "SB": 1, "L": 7, "A": 28, "MULTIPLIER": 1},
    {"WA": 6, "WB": 5, "SA": 0, "SB": 1, "L": 4, "A": 18, "MULTIPLIER": 2},
    {"WA": 6, "WB": 5, "SA": 0, "SB": 0, "L": 3, "A": 18, "MULTIPLIER": 3},
]
PACKED = [
    {"WA": 8, "WB": 8, "SA": 0, "P": 2, "A": 24},
    {"WA": 4, "WB": 4, "SA": 0, "P": 4, "A": 16},
    {"WA": 4, "WB": 4, "SA": 1, "P": 4, "A": 16, "MULTIPLIER": 1},
    {"WA": 2, "WB": 2, "SA": 1, "P": 9, "A": 10},
    {"WA": 1, "WB": 3, "SA": 0, "P": 7, "A": 8, "MULTIPLIER": 2},
    {"WA": 8, "WB": 8, "SA": 1, "P": 2, "A": 32, "MULTIPLIER": 2},
]
REQUANTIZATIONS = [
    *({"WI": 16, "WO": 6, "S": 7, "ROUNDING": mode} for mode in range(len(Rounding))),
    {"WI": 12, "WO": 8, "S": 0, "SI": 0},
    {"WI": 9, "WO": 1, "S": 1},
    {"WI": 14, "WO": 20, "S": 1, "SO": 0},
    {"WI": 30, "WO": 8, "S": 28, "SI": 0, "SO": 0},
    {"WI": 72, "WO": 8, "S": 60},
]
THRESHOLDS = [
    {"A": 1, "T": 1, "S": 1},
    {"A": 7, "T": 3, "S": 0},
    {"A": 13, "T": 20, "S": 1},
    {"A": 33, "T": 64, "S": 1},
]


@pytest.mark.parametrize(
    ("unit", "cases"),
    [
        ("integer_mac", MACS),
        ("integer_dot", DOTS),
        ("packed_mac", PACKED),
        ("requantize", REQUANTIZATIONS),
        ("threshold", THRESHOLDS),
    ],
)
def test_units_compute_what_the_formats_say(
    simulator: Simulator, unit: str, cases: list[dict[str, int]]
) -> None:
    proofs = prove([Case(UNITS[unit], case) for case in cases], simulator)
    check(proofs)
    assert all(proof.exhaustive or proof.vectors >= 100_000 for proof in proofs)


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
