"""Windows and the largest number: what is refused."""

from __future__ import annotations

import pytest

from qhw.errors import InputError
from qhw.rtl import UNITS


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
