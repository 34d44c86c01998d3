"""The closed forms on ECP5: counts that Yosys measured, and parts of circuits against real synthesis."""

from __future__ import annotations

import pytest

from qhw.cost.oracle.synth import Circuit, Yosys
from qhw.resources import resource_dir
from qhw.rtl import closed_forms
from qhw.rtl.shared import lut4

FAMILY = "ecp5"

MEASURED = [
    ("integer_mac", "WA=7 WB=6 SA=0 SB=0 A=17 MULTIPLIER=0", 121),
    ("integer_mac", "WA=1 WB=7 SA=0 SB=1 A=11 MULTIPLIER=0", 30),
    ("integer_mac", "WA=12 WB=5 SA=1 SB=0 A=28 MULTIPLIER=0", 172),
    ("integer_mac", "WA=11 WB=2 SA=0 SB=1 A=18 MULTIPLIER=3", 36),
    ("integer_dot", "WA=2 WB=5 SA=1 SB=0 L=48 A=19 MULTIPLIER=0", 1241),
    ("integer_dot", "WA=1 WB=3 SA=1 SB=0 L=10 A=9 MULTIPLIER=0", 147),
    ("integer_dot", "WA=7 WB=6 SA=1 SB=1 L=8 A=22 MULTIPLIER=0", 836),
    ("adder_tree", "N=8 W=11 S=0", 90),
    ("adder_tree", "N=26 W=6 S=1", 214),
    ("adder_tree", "N=49 W=1 S=0", 152),
    ("xnor_popcount", "L=112 A=22", 353),
    ("khot_mac", "WA=5 SA=0 WB=9 K=3 CSD=0 A=18", 157),
    ("khot_mac", "WA=6 SA=0 WB=5 K=3 CSD=1 A=24", 181),
    ("khot_minifloat_mac", "EA=1 MA=3 WB=4 K=1 CSD=1 A=17", 51),
    ("khot_constant_dot", "WA=4 SA=0 WB=5 K=3 L=16 A=18 SEED=700", 252),
    ("minifloat_mac", "EA=5 MA=3 EB=4 MB=2 A=58", 306),
    ("minifloat_mac", "EA=4 MA=3 EB=4 MB=4 A=41", 248),
    ("minifloat_dot", "EA=2 MA=3 EB=1 MB=2 L=16 A=19", 1201),
    ("mixed_mac", "WA=8 SA=0 EB=5 MB=3 A=48", 301),
    ("mixed_mac", "WA=6 SA=1 EB=2 MB=4 A=20", 142),
    ("line_buffer", "K=5 W=30 N=90 STYLE=2", 11),
    ("minifloat_dot", "EA=3 MA=1 EB=1 MB=0 L=1 A=11", 45),
    ("requantize", "WI=19 WO=4 S=2 SI=1 SO=0 ROUNDING=3", 30),
    ("requantize", "WI=23 WO=6 S=9 SI=1 SO=1 ROUNDING=4", 29),
    ("requantize", "WI=9 WO=8 S=0 SI=1 SO=0 ROUNDING=7", 9),
]
"""Designs that are fitted, and their LUTs (Yosys 0.70, rows of ``cost_models/ecp5/measured.csv``)."""


@pytest.mark.parametrize(("unit", "parameters", "luts"), MEASURED)
def test_luts_add_up_to_those_of_the_circuit_without_a_fitted_weight(
    unit: str, parameters: str, luts: int
) -> None:
    values = {name: int(value) for name, value in (part.split("=") for part in parameters.split())}
    assert sum(closed_forms(unit, FAMILY).features(values).values()) == luts


def test_an_adder_takes_whole_carry_cells_from_five_bits_on() -> None:
    assert [lut4.adder(bits) for bits in range(2, 9)] == [2, 3, 5, 6, 6, 8, 8]
    # The highest of five bits is not read: its cell goes, the chain stays.
    assert lut4.adder(4, built=5) == 4


def test_three_new_bits_are_looked_at_in_a_lut() -> None:
    assert [lut4.reduction(inputs) for inputs in (1, 2, 4, 5, 7, 8)] == [0, 1, 1, 2, 2, 3]


SHIFTS = [
    (8, 1, 0, 9),
    (8, 2, 0, 16),
    (8, 3, 0, 18),
    (8, 5, 0, 31),
    (8, 7, 0, 33),
    (8, 7, 1, 31),
    (1, 5, 0, 6),
]

DEEP_SHIFTS = [(6, 8, 29), (8, 8, 42), (9, 8, 49), (8, 14, 56), (9, 14, 70), (14, 14, 104), (9, 30, 109)]


@pytest.mark.parametrize(("bits", "places", "luts"), DEEP_SHIFTS)
def test_two_whole_stages_share_less_beyond_seven_bits(bits: int, places: int, luts: int) -> None:
    assert lut4.shift_up_to(bits, places, False) == pytest.approx(luts, abs=3)


@pytest.mark.parametrize(("bits", "places", "signed", "luts"), SHIFTS)
def test_a_shifter_shares_its_first_choices(bits: int, places: int, signed: int, luts: int) -> None:
    assert lut4.shift_up_to(bits, places, bool(signed)) == luts


def _synthesised(top: str, files: str, **settings: int) -> int:
    sources = tuple(resource_dir("cost_models") / "rtl" / f"{name}.v" for name in files.split())
    counts = Yosys(FAMILY).synthesise(Circuit(top, sources, tuple(settings.items()))).counts
    assert counts is not None
    return counts.lut


@pytest.mark.slow
@pytest.mark.parametrize(
    ("a", "b", "signed_b"), [(2, 2, 0), (3, 3, 0), (3, 3, 1), (4, 3, 1), (6, 5, 0), (5, 1, 1)]
)
def test_a_multiplier_is_gates_rows_and_a_tree(a: int, b: int, signed_b: int) -> None:
    pytest.importorskip("pyosys")
    measured = _synthesised("multiply", "multiply", WA=a, WB=b, SA=0, SB=signed_b)
    assert lut4.multiplier(a, b, False, bool(signed_b)) == measured


@pytest.mark.slow
@pytest.mark.parametrize("bits", [3, 8, 11, 16])
def test_a_comparison_takes_two_luts_for_two_bits_beside_its_chain(bits: int) -> None:
    pytest.importorskip("pyosys")
    assert lut4.comparison(bits) == _synthesised("at_least", "at_least extend", A=bits, S=1)
