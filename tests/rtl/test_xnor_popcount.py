"""Counts of binary lanes that agree: the accumulator that they need."""

from __future__ import annotations

import pytest

from qhw.errors import InputError
from qhw.rtl import UNITS


def test_the_accumulator_holds_a_count_of_all_lanes() -> None:
    assert UNITS["xnor_popcount"].checked({"L": 12, "A": 4})
    with pytest.raises(InputError, match="A of xnor_popcount is 3: one count of all lanes does not fit"):
        UNITS["xnor_popcount"].checked({"L": 12, "A": 3})
