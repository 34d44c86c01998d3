"""The references of what drives a folded layer, against counts by hand; and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from qhw.errors import InputError
from qhw.rtl import UNITS


def test_a_folded_layer_counts_words_sums_and_pixels() -> None:
    """The reference itself: two pixels of two sums of two words each, nothing ever waiting."""
    steps = 10
    streams = {"reset": [1] + [0] * (steps - 1), "x_valid": [1] * steps, "y_ready": [1] * steps}
    columns = {name: np.array(stream)[:, None] for name, stream in streams.items()}
    shown = UNITS["layer_control"].reference({"P": 2, "F": 2, "I": 2, "D": 1}, columns)
    assert shown["address"][:, 0].tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert shown["first"][:, 0].tolist() == [1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert shown["y_valid"][:, 0].tolist() == [0, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    assert shown["y_last"][:, 0].tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_a_window_is_read_row_by_row_once_for_every_fold() -> None:
    """The reference itself: both places of a 2 x 2 window on an image of 2 x 3 pixels, each twice."""
    words = 6
    given = {
        "reset": [1] + [0] * 30,
        "x_valid": [0] + [1] * words + [0] * 24,
        "read": [0] + [1] * 30,
        "x": [0, *range(words), *[0] * 24],
    }
    columns = {name: np.array(stream)[:, None] for name, stream in given.items()}
    values = {"K": 2, "N": 3, "M": 2, "C": 1, "F": 2, "W": 8, "DEPTHWISE": 0, "STYLE": 1}
    shown = UNITS["window_buffer"].reference(values, columns)
    read = shown["y"][1:, 0][shown["y_valid"][:-1, 0] == 1].tolist()
    places = [0, 1, 3, 4], [1, 2, 4, 5]
    assert read == [pixel for place in places for pixel in place * 2]


@pytest.mark.parametrize(
    ("unit", "values", "said"),
    [
        ("layer_control", {"P": 4, "F": 0, "I": 3}, "F of layer_control .* is 0"),
        (
            "window_buffer",
            {"K": 3, "N": 8, "M": 2, "C": 1, "F": 1, "W": 8, "STYLE": 1},
            "M of window_buffer is 2",
        ),
        (
            "window_buffer",
            {"K": 3, "N": 8, "M": 8, "C": 2, "F": 2, "W": 8, "DEPTHWISE": 1, "STYLE": 1},
            "F of window_buffer is 2 with DEPTHWISE=1",
        ),
        (
            "window_buffer",
            {"K": 3, "N": 999, "M": 8, "C": 4, "F": 2, "W": 8, "STYLE": 1},
            "D of window_buffer is 8192 with STYLE=1",
        ),
    ],
)
def test_parameters_out_of_range_are_named(unit: str, values: dict[str, int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        UNITS[unit].checked(values)
