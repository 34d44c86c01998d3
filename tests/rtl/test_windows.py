"""Windows against delayed copies of the image, the largest number against NumPy's."""

from __future__ import annotations

import pytest

from qhw.errors import InputError
from qhw.rtl import UNITS
from qhw.rtl.simulation.proof import Case, check, prove
from qhw.rtl.simulation.verilator import Simulator

LINE_BUFFERS = [
    {"K": 2, "W": 1, "N": 2, "STYLE": 1},
    {"K": 2, "W": 5, "N": 2, "STYLE": 0},
    {"K": 3, "W": 8, "N": 3, "STYLE": 0},
    {"K": 3, "W": 8, "N": 28, "STYLE": 0},
    {"K": 3, "W": 21, "N": 32, "STYLE": 1},
    {"K": 5, "W": 4, "N": 100, "STYLE": 1},
    {"K": 3, "W": 16, "N": 224, "STYLE": 2},
    {"K": 4, "W": 70, "N": 64, "STYLE": 2},
    {"K": 3, "W": 48, "N": 700, "STYLE": 3},
]
MAX_POOLS = [
    {"W": 1, "N": 2, "S": 1},
    {"W": 1, "N": 9, "S": 0},
    {"W": 4, "N": 4, "S": 1},
    {"W": 5, "N": 4, "S": 0},
    {"W": 8, "N": 9, "S": 1},
    {"W": 7, "N": 5, "S": 0},
    {"W": 16, "N": 16, "S": 1},
    {"W": 33, "N": 3, "S": 1},
]


@pytest.mark.parametrize(("unit", "cases"), [("line_buffer", LINE_BUFFERS), ("max_pool", MAX_POOLS)])
def test_windows_compute_what_numpy_says(
    simulator: Simulator, unit: str, cases: list[dict[str, int]]
) -> None:
    proofs = prove([Case(UNITS[unit], case) for case in cases], simulator)
    check(proofs)
    assert all(proof.exhaustive or proof.vectors >= 100_000 for proof in proofs)


@pytest.mark.parametrize(
    ("unit", "values", "said"),
    [
        ("line_buffer", {"K": 5, "W": 8, "N": 4, "STYLE": 1}, "N of line_buffer is 4"),
        ("line_buffer", {"K": 3, "W": 8, "N": 2000, "STYLE": 0}, "N of line_buffer is 2000 with STYLE=0"),
        ("max_pool", {"W": 8, "N": 1}, "N of max_pool .* is 1"),
    ],
)
def test_parameters_out_of_range_are_named(unit: str, values: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        UNITS[unit].checked(values)
