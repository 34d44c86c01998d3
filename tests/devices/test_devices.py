"""Device families: found by name, and as the measured circuits know them."""

from __future__ import annotations

import pytest

from qhw.boards import list_boards, load_board
from qhw.cost.oracle.synth import check_family
from qhw.cost.pricing.calibrated import cost_model, unit_cost
from qhw.devices import fabric_of, fabrics, families, family_named
from qhw.errors import InputError
from qhw.rtl.shared.integers import DSP_OPERANDS


def test_every_kind_of_board_has_a_family() -> None:
    priced = {family.name: family.fabric.priced_as for family in families("fpga") if family.fabric}
    assert {name: like for name, like in priced.items() if like} == {"gowin": "ecp5", "ice40": "ecp5"}
    assert {name for name, like in priced.items() if not like} == set(fabrics())
    assert {"cortex-m4", "cortex-m7", "cortex-m33"} == {family.name for family in families("microcontroller")}
    assert {load_board(name).kind for name in list_boards()} == {family.kind for family in families()}


@pytest.mark.parametrize("family", [*fabrics(), "gowin", "ice40"])
def test_a_families_own_multiplier_is_one_slice_of_it(family: str) -> None:
    values = {"WA": 9, "WB": 9, "SA": 1, "SB": 1, "A": 20, "MULTIPLIER": fabric_of(family).multiplier}
    assert values["MULTIPLIER"] in DSP_OPERANDS
    assert unit_cost(family, "integer_mac", values).dsp == 1
    assert cost_model(family).family == family


def test_a_family_that_was_not_measured_has_its_own_memories_and_the_logic_of_a_like_one() -> None:
    memory = {"D": 512, "W": 36, "STYLE": 2}
    assert [unit_cost(family, "weight_memory", memory).bram18 for family in ("gowin", "ice40")] == [1, 5]
    tree = {"N": 5, "W": 8, "S": 1}
    assert unit_cost("ice40", "adder_tree", tree).lut == unit_cost("ecp5", "adder_tree", tree).lut
    with pytest.raises(InputError, match="gowin is not measured: it is priced by the models of ecp5"):
        check_family("gowin")


def test_what_is_no_family_is_explained() -> None:
    with pytest.raises(InputError, match="did you mean ultrascale-plus"):
        family_named("ultrascale")
    with pytest.raises(InputError, match="cortex-m7 is not a family of FPGAs"):
        fabric_of("cortex-m7")
