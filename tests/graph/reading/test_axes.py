"""Constants that would be computed over an axis that no tensor has."""

from __future__ import annotations

import numpy as np
import pytest
from qonnx_factory import Net

from qhw.errors import InputError, UnsupportedError
from qhw.graph.lower import lower


@pytest.mark.parametrize("axis", [2**32, -(2**31), 65])
def test_an_axis_far_out_is_named_and_takes_no_memory(axis: int) -> None:
    net = Net((4,))
    x = net.quant("x", 8, 0.5)
    both = net.node(
        "Concat", net.constant(np.ones(2, np.float32)), net.constant(np.ones(2, np.float32)), axis=axis
    )
    with pytest.raises(InputError, match=rf"Concat .* has the axis {axis}"):
        lower(net.model(net.node("Add", x, both)))


def test_what_overflows_is_refused_without_a_warning(
    recwarn: pytest.WarningsRecorder,
) -> None:
    net = Net((4,))
    x = net.quant("x", 8, 0.5)
    thresholds = np.linspace(-1, 1, 3, dtype=np.float32)[None]
    y = net.node(
        "MultiThreshold",
        x,
        net.constant(thresholds),
        domain="qonnx.custom_op.general",
        out_scale=0.5,
        out_bias=3.4e38,
    )
    with pytest.raises(UnsupportedError, match="no multiple of half its out_scale"):
        lower(net.model(y))
    assert not [warning for warning in recwarn if issubclass(warning.category, RuntimeWarning)]
