"""The closed forms of constant matrices against real synthesis."""

from __future__ import annotations

import importlib.util

import pytest

from qhw.cost.oracle.synth import Circuit, Yosys
from qhw.rtl import UNITS, closed_forms

pytest.importorskip("pyosys")
if importlib.util.find_spec("da4ml") is None:
    pytest.skip("da4ml is not installed: pip install 'qhw[synth]'", allow_module_level=True)

DESIGNS = [
    {"N": 2, "M": 4, "WA": 7, "SA": 0, "WB": 7, "SEED": 398},
    {"N": 4, "M": 8, "WA": 6, "SA": 0, "WB": 2, "SEED": 818},
    {"N": 3, "M": 2, "WA": 2, "SA": 0, "WB": 7, "SEED": 352},
    {"N": 3, "M": 7, "WA": 4, "SA": 1, "WB": 6, "SEED": 345},
]
"""Signs of outputs, equal and opposite columns, gaps between bits, signed inputs."""


@pytest.mark.parametrize("values", DESIGNS)
def test_flip_flops_are_those_of_the_circuit_and_carry_bits_its_luts(values: dict[str, int]) -> None:
    unit, model = UNITS["constant_matrix"], closed_forms("constant_matrix", "ultrascale-plus")
    design = Circuit(unit.top, unit.files, tuple(values.items()), text=unit.source(values))
    counts = Yosys("ultrascale-plus").synthesise(design).counts
    assert counts is not None
    assert counts.ff == model.flip_flops(values)
    assert counts.lut == pytest.approx(model.features(values)["carry bits"], rel=0.01)
