"""Device families: found by name, and as the measured circuits know them."""

from __future__ import annotations

import pytest

from qhw.boards import list_boards, load_board
from qhw.cost.pricing.calibrated import cost_model, unit_cost
from qhw.devices import fabric_of, fabrics, families, family_named
from qhw.errors import InputError
from qhw.rtl.shared.integers import DSP_OPERANDS


def test_every_kind_of_board_has_a_family() -> None:
    assert {family.name for family in families("fpga")} == set(fabrics())
    assert {"cortex-m4", "cortex-m7", "cortex-m33"} == {family.name for family in families("microcontroller")}
    assert {load_board(name).kind for name in list_boards()} == {family.kind for family in families()}


@pytest.mark.parametrize("family", fabrics())
def test_a_families_own_multiplier_is_one_slice_of_it(family: str) -> None:
    values = {"WA": 9, "WB": 9, "SA": 1, "SB": 1, "A": 20, "MULTIPLIER": fabric_of(family).multiplier}
    assert values["MULTIPLIER"] in DSP_OPERANDS
    assert unit_cost(family, "integer_mac", values).dsp == 1
    assert cost_model(family).family == family


def test_what_is_no_family_is_explained() -> None:
    with pytest.raises(InputError, match="did you mean ultrascale-plus"):
        family_named("ultrascale")
    with pytest.raises(InputError, match="cortex-m7 is not a family of FPGAs"):
        fabric_of("cortex-m7")
