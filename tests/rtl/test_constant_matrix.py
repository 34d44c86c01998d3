"""Products with constant matrices: da4ml's Verilog between our registers, and what is refused."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest
from proof_cases import PROOF_CASES

from qhw.errors import InputError, ToolMissingError
from qhw.rtl import UNITS
from qhw.rtl.constant_matrix import adder_graph, matrix

MATRICES = PROOF_CASES["constant_matrix"]

needs_da4ml = pytest.mark.skipif(
    importlib.util.find_spec("da4ml") is None, reason="da4ml is not installed: pip install 'qhw[synth]'"
)


@needs_da4ml
def test_the_proof_meets_empty_rows_and_columns_and_signs() -> None:
    drawn = [matrix(case) for case in MATRICES]
    assert any(not weights.any(axis=0).all() for weights in drawn)
    assert any(not weights.any(axis=1).all() for weights in drawn)
    assert any(any(adder_graph(case).stages[-1].out_negs) for case in MATRICES)


@needs_da4ml
def test_the_same_matrix_gives_the_same_circuit() -> None:
    program = f"from qhw.rtl import UNITS\nprint(UNITS['constant_matrix'].source({MATRICES[1]}), end='')"
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert again == UNITS["constant_matrix"].source(MATRICES[1])
    assert "module constant_matrix (" in again


@needs_da4ml
@pytest.mark.timeout(60)
def test_another_user_of_da4ml_in_the_process_keeps_its_own() -> None:
    program = (
        "from da4ml import cmvm, trace\n"
        "from qhw.rtl import UNITS\n"
        "mine = cmvm.solve\n"
        f"print(UNITS['constant_matrix'].source({MATRICES[1]}), end='')\n"
        "from da4ml.cmvm import solve\n"
        "assert solve is cmvm.solve is mine"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == UNITS["constant_matrix"].source(MATRICES[1])


def test_nothing_is_solved_before_a_circuit_is_needed() -> None:
    program = (
        "import sys\n"
        "from qhw.cost.calibration import catalogue\n"
        "assert len(catalogue.points('ultrascale-plus', ['constant_matrix'])) == 30\n"
        "assert not {'numba', 'da4ml'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_missing_da4ml_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("da4ml", "da4ml.cmvm"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ToolMissingError, match="needs da4ml") as caught:
        UNITS["constant_matrix"].source({**MATRICES[0], "SEED": 999})
    assert "qhw[synth]" in str(caught.value)


def test_a_matrix_of_zeros_is_refused() -> None:
    zeros = {"N": 1, "M": 1, "WA": 4, "SA": 0, "WB": 2}
    seed = next(seed for seed in range(100) if not matrix({**zeros, "SEED": seed}).any())
    with pytest.raises(InputError, match="every weight that it draws is 0"):
        UNITS["constant_matrix"].checked({**zeros, "SEED": seed})
