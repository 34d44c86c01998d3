"""Multiply-accumulators with k-hot weights: what is refused."""

from __future__ import annotations

import pytest

from qhw.errors import InputError
from qhw.rtl import UNITS


def test_a_weight_with_as_many_shifts_as_bits_is_refused() -> None:
    with pytest.raises(InputError, match="K of khot_mac is 4 with WB=4"):
        UNITS["khot_mac"].checked({"WA": 4, "SA": 1, "WB": 4, "K": 4, "A": 20})


@pytest.mark.parametrize("signed", [0, 1])
def test_the_accumulator_holds_a_product(signed: int) -> None:
    unit, given = UNITS["khot_mac"], {"WA": 4, "SA": signed, "WB": 4, "K": 2}
    # The largest magnitudes are 8 or 15, and 6.
    needed = (8 if signed else 15) * 6
    assert unit.checked({**given, "A": 8 - signed})["A"] == needed.bit_length() + 1
    with pytest.raises(InputError, match="one product does not fit"):
        unit.checked({**given, "A": 7 - signed})
