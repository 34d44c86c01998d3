"""Average pools in fixed point: exact sums, and the constant with the least error."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qhw.errors import InputError, UnsupportedError
from qhw.formats.fixed import Fixed
from qhw.layers import QuantAdaptiveAvgPool, QuantAvgPool1d, QuantAvgPool2d
from qhw.layers.pool import reciprocal

FINE = Fixed(50, 10)
CASES = [
    (nn.AvgPool2d(2), QuantAvgPool2d, ((2, 2), (2, 2), (0, 0)), (2, 3, 8, 6)),
    (nn.AvgPool2d(3, 2, 1), QuantAvgPool2d, ((3, 3), (2, 2), (1, 1)), (2, 3, 9, 7)),
    (nn.AvgPool2d((2, 3), (1, 2)), QuantAvgPool2d, ((2, 3), (1, 2), (0, 0)), (2, 3, 8, 9)),
    (nn.AvgPool1d(3, 2, 1), QuantAvgPool1d, ((3,), (2,), (1,)), (2, 3, 11)),
]


@pytest.mark.parametrize(("reference", "kind", "window", "shape"), CASES)
def test_fine_formats_give_torchs_average(reference, kind, window, shape) -> None:
    torch.manual_seed(0)
    a, b = (torch.randn(shape, dtype=torch.float64) for _ in range(2))
    b = a.clone().requires_grad_()
    a.requires_grad_()
    layer = kind(*window, multiplier=FINE, result=FINE)
    y, expected = layer(a), reference(b)
    torch.testing.assert_close(y, expected, rtol=1e-8, atol=1e-9)
    grad = torch.randn_like(y)
    y.backward(grad)
    expected.backward(grad)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("size", "shape"), [((1, 1), (2, 3, 7, 5)), ((2, 4), (2, 3, 6, 8)), ((3,), (2, 3, 9))]
)
def test_adaptive_pools(size: tuple[int, ...], shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    reference = nn.AdaptiveAvgPool2d(size) if len(size) == 2 else nn.AdaptiveAvgPool1d(size)
    layer = QuantAdaptiveAvgPool(size, multiplier=FINE, result=FINE)
    torch.testing.assert_close(layer(x), reference(x), rtol=1e-8, atol=1e-9)


def test_sums_are_exact_and_the_constant_is_fixed_point() -> None:
    torch.manual_seed(0)
    mantissas = torch.randint(-128, 128, (2, 3, 7, 7))
    layer = QuantAdaptiveAvgPool((1, 1), multiplier=Fixed(8), result=Fixed(8))
    y = layer(mantissas.double() / 16)
    constant = layer.reciprocal(49).format
    assert constant.mantissa_of(constant.encode([1 / 49]))[0] == 84  # 2^12 / 49
    exact = mantissas.sum((2, 3)).numpy() * 84 / 2.0 ** (4 + 12)
    fixed = layer.result.format
    assert isinstance(fixed, Fixed)
    assert np.array_equal(y.detach().numpy().reshape(2, 3), fixed.quantize(exact))


@given(width=st.integers(2, 24), signed=st.booleans(), area=st.integers(1, 5000))
def test_the_constant_has_the_least_error(width: int, signed: bool, area: int) -> None:
    found = reciprocal(Fixed(width, signed=signed), area).format
    error = abs(float(found.quantize([1 / area])[0]) - 1 / area)
    for fraction in range(-2, width + 15):
        other = Fixed(width, width - fraction, signed)
        assert error <= abs(float(other.quantize([1 / area])[0]) - 1 / area)


def test_a_stated_binary_point_of_the_constant_stays() -> None:
    assert reciprocal(Fixed(8, 2), 49).format == Fixed(8, 2)


def test_windows_of_several_sizes_are_refused() -> None:
    layer = QuantAdaptiveAvgPool((3, 3), multiplier=Fixed(8), result=Fixed(8))
    with pytest.raises(UnsupportedError, match="windows of one size"):
        layer(torch.randn(1, 2, 7, 7))
    with pytest.raises(InputError, match="over 2 axes"):
        layer(torch.randn(1, 2, 7))
    with pytest.raises(InputError, match="no positive number"):
        QuantAdaptiveAvgPool((1,), multiplier=Fixed(1), result=Fixed(8))(torch.randn(1, 2, 7))
