"""The reference of a queue against counts by hand; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from qhw.errors import InputError
from qhw.rtl import UNITS


def test_a_queue_is_full_at_its_depth_and_empties_in_order() -> None:
    """The reference itself: five words into a queue of three, then out."""
    steps = 12
    streams = {
        "reset": [1] + [0] * (steps - 1),
        "x_valid": [0] + [1] * 5 + [0] * 6,
        "y_ready": [0] * 6 + [1] * 6,
        "x": range(10, 10 + steps),
    }
    columns = {name: np.array(list(stream))[:, None] for name, stream in streams.items()}
    shown = UNITS["fifo"].reference({"D": 3, "W": 8, "STYLE": 0}, columns)
    assert shown["count"][:, 0].tolist() == [0, 1, 1, 2, 3, 3, 2, 1, 0, 0, 0, 0]
    assert shown["x_ready"][:, 0].tolist() == [1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1]
    assert shown["y_valid"][:, 0].tolist() == [0, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0]
    assert shown["y"][2:9, 0].tolist() == [11, 11, 11, 11, 12, 13, 14]


@pytest.mark.parametrize(
    ("unit", "values", "said"),
    [
        ("fifo", {"D": 1, "W": 8, "STYLE": 1}, "D of fifo .* is 1"),
        ("fifo", {"D": 2000, "W": 8, "STYLE": 0}, "D of fifo is 2000 with STYLE=0"),
        ("weight_memory", {"D": 64, "W": 8, "STYLE": 0}, "STYLE of weight_memory .* is 0"),
        ("weight_memory", {"D": 8192, "W": 8, "STYLE": 1}, "D of weight_memory is 8192"),
    ],
)
def test_parameters_out_of_range_are_named(unit: str, values: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        UNITS[unit].checked(values)
