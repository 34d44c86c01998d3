"""Scales and zero points against qonnx's integer quantizer in float64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from qonnx.custom_op.general.intquant import int_quant

from qhw.errors import InputError
from qhw.formats import Binary, Integer, KHot, Minifloat, Scaled

values = arrays.arrays(np.float64, 6, elements=st.floats(-1e4, 1e4))


@given(values, st.integers(2, 12), st.booleans(), st.floats(2.0**-12, 100), st.data())
def test_affine_integers_are_those_of_qonnx(
    x: np.ndarray, bits: int, signed: bool, scale: float, data: st.DataObject
) -> None:
    integer = Integer(bits, signed)
    zero_point = data.draw(st.integers(integer.mantissa_low, integer.mantissa_high))
    affine = Scaled(integer, scale, zero_point)
    expected = int_quant(
        x, np.float64(scale), np.float64(zero_point), np.float64(bits), signed, False, "ROUND"
    )
    assert affine.quantize(x).tolist() == (expected + 0.0).tolist()
    assert affine.encode(affine.quantize(x)).tolist() == affine.encode(x).tolist()
    assert (affine.mantissa_of(affine.encode(x)) * scale).tolist() == affine.quantize(x).tolist()


def test_any_format_takes_a_scale() -> None:
    assert Scaled(Binary(), 0.5).quantize([-3.0, 0.0]).tolist() == [-0.5, 0.5]
    assert Scaled(KHot(8, 2), 0.25).encode([1.75, 2.0]).tolist() == [8, 8]
    scaled = Scaled(Minifloat(4, 3), 0.1)
    assert scaled.quantize([0.1, 1e9, -0.0]).tolist() == [0.1, 48.0, -0.0]
    assert np.signbit(scaled.quantize([-0.0])).all()


def test_scales_and_zero_points_that_make_no_sense() -> None:
    for scale in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="Scale of int8"):
            Scaled(Integer(8), scale)
    with pytest.raises(InputError, match="e4m3 has zero point 3"):
        Scaled(Minifloat(4, 3), 1.0, 3)
