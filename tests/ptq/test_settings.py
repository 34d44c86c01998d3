"""What can be asked of post-training quantisation, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from qhw.errors import InputError
from qhw.ptq.methods import methods_named
from qhw.ptq.settings import PtqSettings, names_in

METHODS = (
    *("adaround", "bias-correction", "bn-fold", "bn-reestimate", "equalize", "flexround"),
    *("gpfq", "gptq", "preshift", "smoothquant"),
)


def test_files_are_found_by_name() -> None:
    assert names_in("methods") == METHODS
    assert names_in("calibrations") == ("entropy", "max", "mse", "percentile")
    assert len(methods_named(METHODS)) == len(METHODS)
    assert all("arXiv" in method.title for method in methods_named(METHODS))


def test_the_order_in_which_methods_are_named_does_not_matter() -> None:
    given = PtqSettings("gptq,bn-fold, equalize,gptq")
    assert given == PtqSettings(("equalize", "gptq", "bn-fold"))
    orders = [method.order for method in methods_named(given.methods)]
    assert orders == sorted(orders)
    assert PtqSettings("none").methods == PtqSettings(()).methods == ()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"methods": "gptk"}, r"'gptk' is not a method[\s\S]*did you mean gptq"),
        ({"methods": "gptq,adaround"}, "gptq and adaround each decide"),
        ({"methods": "bn-fold,bn-reestimate"}, "bn-fold leaves no batch norm"),
        ({"calibration": "maximum"}, "the calibration is 'maximum'"),
        ({"calibration": "percentile:20"}, r"'percentile:20'[\s\S]*percentile:50 to"),
        ({"calibration": "percentile:much"}, "'percentile:much'"),
        ({"calibration": "mse:3"}, "'mse:3'"),
        ({"samples": 1}, r"samples is 1[\s\S]*integers from 2"),
        ({"samples": True}, "samples is True"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_what_is_not_known_is_refused(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        PtqSettings(**settings)
