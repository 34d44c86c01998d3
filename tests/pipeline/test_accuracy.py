"""A fall of accuracy is said, with its likely cause."""

from __future__ import annotations

import re

import pytest

from qhw.pipeline.accuracy import warning_of_fall
from qhw.quant_config import QuantConfig
from qhw.tasks import task_named

TOP1 = task_named("classification").metric()
RMSE = task_named("regression").metric()


@pytest.mark.parametrize(
    ("formats", "epochs", "says"),
    [
        (
            {"activations": "int8"},
            5,
            "stated binary point.*-128 to 127 in steps of 1.*'fixed<8>' learns it",
        ),
        ({"activations": "fixed<6,2,RND,WRAP>"}, 5, "wrap around .*; SAT saturates"),
        ({"activations": "fixed<8>"}, 0, "was not trained; give it --quantised-epochs"),
        ({"activations": "fixed<3>"}, None, "without training; give it more bits, other --methods"),
        ({"weights": "fixed<2>"}, 5, r"few bits: weights \(fixed<2>\)"),
        ({"activations": "fixed<8>"}, 5, "train longer"),
    ],
)
def test_the_likely_cause_is_named(formats: dict[str, str], epochs: int | None, says: str) -> None:
    found = warning_of_fall(TOP1, 0.98, 0.17, QuantConfig(**formats), epochs)  # type: ignore[arg-type]
    assert found is not None
    assert found.startswith("quantised, the top-1 is 17.00%; in float it was 98.00%: ")
    assert re.search(says, found)


def test_a_small_fall_or_a_rise_is_none() -> None:
    config = QuantConfig()
    assert warning_of_fall(TOP1, 0.98, 0.96, config, 5) is None
    assert warning_of_fall(TOP1, 0.5, 0.9, config, 5) is None
    assert warning_of_fall(RMSE, 2.0, 2.05, config, 5) is None
    assert warning_of_fall(RMSE, 2.0, 1.0, config, 5) is None
    assert warning_of_fall(RMSE, 2.0, 2.5, config, 5) is not None
