"""The closed forms of what drives a layer, against real synthesis: flip-flops, memories, counters."""

from __future__ import annotations

import pytest

from qhw.cost.oracle.synth import Circuit, Yosys
from qhw.resources import resource_dir
from qhw.rtl import UNITS, closed_forms
from qhw.rtl.shared.structure import counter, counter_bits

FAMILY = "ultrascale-plus"
WINDOW = {"K": 3, "N": 10, "M": 9, "C": 2, "DEPTHWISE": 0, "F": 5, "W": 12, "STYLE": 1}

DESIGNS = [
    ("layer_control", {"P": 49, "F": 6, "I": 10, "D": 11}),
    ("layer_control", {"P": 1, "F": 1, "I": 10, "D": 7}),
    ("layer_control", {"P": 7, "F": 5, "I": 1, "D": 4}),
    ("window_buffer", WINDOW),
    ("window_buffer", {**WINDOW, "K": 1, "N": 1, "M": 1, "C": 24, "W": 40}),
    ("window_buffer", {**WINDOW, "C": 7, "DEPTHWISE": 1, "F": 1, "W": 30, "STYLE": 2}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("unit", "values"), DESIGNS)
def test_flip_flops_and_memories_are_those_of_the_circuit(unit: str, values: dict[str, int]) -> None:
    pytest.importorskip("pyosys")
    given, model = UNITS[unit], closed_forms(unit, FAMILY)
    design = Circuit(given.top, given.files, tuple(values.items()), memories=given.memories)
    counts = Yosys(FAMILY).synthesise(design).counts
    assert counts is not None
    assert (counts.ff, counts.bram18) == (model.flip_flops(values), model.bram18(values, FAMILY))
    assert counts.lutram == model.features(values).get("memory LUTs", 0)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 3, 8, 12, 100, 256, 400])
def test_a_counter_takes_its_comparison_and_its_lowest_bit(count: int) -> None:
    pytest.importorskip("pyosys")
    files = tuple(resource_dir("cost_models") / "rtl" / f"{name}.v" for name in ("cycle", "counted"))
    counts = Yosys(FAMILY).synthesise(Circuit("counted", files, (("N", count),))).counts
    assert counts is not None
    assert (counts.ff, counts.lut) == (counter_bits(count), counter(count))
