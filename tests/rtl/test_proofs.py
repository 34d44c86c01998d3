"""Every unit simulated against its reference in integers, at the edges of its parameters."""

from __future__ import annotations

import importlib.util

import pytest
from proof_cases import PROOF_CASES

from qhw.cost.calibration import catalogue
from qhw.rtl import UNITS
from qhw.rtl.simulation.proof import VECTORS, Case, check, prove
from qhw.rtl.simulation.verilator import Simulator

SAMPLED = 6
"""Designs of the sample that stand in for edges where nobody has written any down."""


def cases_of(unit: str) -> list[Case]:
    """The designs to simulate."""
    sample = [dict(point.parameters) for point in catalogue.points("ultrascale-plus", [unit])[:SAMPLED]]
    return [Case(UNITS[unit], values) for values in PROOF_CASES.get(unit, sample)]


@pytest.mark.slow
@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_computes_what_its_reference_says(simulator: Simulator, unit: str) -> None:
    if unit == "constant_matrix" and importlib.util.find_spec("da4ml") is None:
        pytest.skip("da4ml is not installed: pip install 'qhw[synth]'")
    proofs = prove(cases_of(unit), simulator)
    check(proofs)
    assert all(proof.exhaustive or proof.vectors >= VECTORS for proof in proofs)
