"""The closed forms of minifloat units against real synthesis: flip-flops, and the LUTs of a shifter."""

from __future__ import annotations

import pytest

from qhw.cost.oracle.synth import Circuit, Yosys
from qhw.resources import resource_dir
from qhw.rtl import UNITS, closed_forms
from qhw.rtl.shared.shifters import staged_shifter

pytest.importorskip("pyosys")

DESIGNS = [
    ("minifloat_mac", {"EA": 1, "MA": 2, "EB": 1, "MB": 0, "A": 8}),
    ("minifloat_mac", {"EA": 4, "MA": 3, "EB": 5, "MB": 2, "A": 60}),
    ("minifloat_dot", {"EA": 2, "MA": 0, "EB": 4, "MB": 3, "L": 5, "A": 27}),
    ("mixed_mac", {"WA": 5, "SA": 1, "EB": 4, "MB": 2, "A": 26}),
    ("mixed_mac", {"WA": 1, "SA": 0, "EB": 3, "MB": 3, "A": 13}),
    ("fixed_to_minifloat", {"A": 40, "E": 4, "M": 3, "P": 6, "ROUNDING": 4}),
    ("fixed_to_minifloat", {"A": 40, "E": 5, "M": 0, "P": 5, "ROUNDING": 6}),
    ("fixed_to_minifloat", {"A": 12, "E": 5, "M": 1, "P": 2, "ROUNDING": 3}),
    ("fixed_to_minifloat", {"A": 7, "E": 2, "M": 5, "P": 4, "ROUNDING": 0}),
]


@pytest.mark.parametrize(("unit", "values"), DESIGNS)
def test_flip_flops_are_those_of_the_circuit(unit: str, values: dict[str, int]) -> None:
    design = Circuit(UNITS[unit].top, UNITS[unit].files, tuple(values.items()))
    counts = Yosys("ultrascale-plus").synthesise(design).counts
    assert counts is not None
    assert counts.ff == closed_forms(unit, "ultrascale-plus").flip_flops(values)


@pytest.mark.parametrize(
    ("bits", "places", "signed"), [(1, 2, False), (3, 6, True), (5, 14, True), (6, 28, False), (2, 60, False)]
)
def test_a_stage_of_a_shifter_takes_a_lut_and_a_flip_flop_for_every_bit(
    bits: int, places: int, signed: bool
) -> None:
    sources = tuple(
        resource_dir("cost_models") / "rtl" / f"{name}.v" for name in ("extend", "delay", "shift_left")
    )
    settings = {"W": bits, "S": int(signed), "WP": places.bit_length(), "WY": bits + places}
    counts = (
        Yosys("ultrascale-plus").synthesise(Circuit("shift_left", sources, tuple(settings.items()))).counts
    )
    shifter = staged_shifter(bits, places, bits + places, signed)
    assert counts is not None
    assert (counts.lut, counts.ff) == (shifter.bits, shifter.registers)
