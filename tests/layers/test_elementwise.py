"""Activation, add, concat and input layers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qhw.errors import InputError, UnsupportedError
from qhw.formats.fixed import Fixed
from qhw.layers import Normalize, QuantActivation, QuantAdd, QuantConcat, share
from qhw.quantizers import RELU, RELU6, leaky_relu


def learned(layer) -> Fixed:
    fixed = layer.result.format
    assert isinstance(fixed, Fixed)
    return fixed


def test_add_is_the_quantised_sum() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 4, 5, 5)
    layer = QuantAdd(Fixed(6, signed=False), RELU)
    y = layer(a, b)
    expected = learned(layer).quantize((a + b).clamp_min(0).numpy())
    assert np.array_equal(y.detach().numpy(), expected)


def test_add_gives_both_branches_the_gradient() -> None:
    a, b = torch.randn(2, 3, 4, requires_grad=True).unbind()
    a.retain_grad()
    b.retain_grad()
    layer = QuantAdd(Fixed(8))
    layer(a, b).sum().backward()
    assert torch.equal(a.grad, torch.ones(3, 4))
    assert torch.equal(b.grad, torch.ones(3, 4))
    assert layer.result.theta.grad is not None


def test_add_of_a_tensor_to_itself() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    QuantAdd(Fixed(12))(x, x).sum().backward()
    assert torch.equal(x.grad, torch.full((3, 4), 2.0))


def test_add_needs_one_shape() -> None:
    with pytest.raises(InputError, match="one shape"):
        QuantAdd(Fixed(8))(torch.ones(2, 3), torch.ones(2, 2))


def test_add_broadcasts_axes_of_length_one() -> None:
    a, b = torch.randn(2, 3, 4), torch.randn(2, 3, 1, requires_grad=True)
    layer = QuantAdd(Fixed(12))
    result = layer(a, b)
    assert torch.equal(result, layer(a, b.expand(2, 3, 4)))
    result.sum().backward()
    assert torch.equal(b.grad, torch.full((2, 3, 1), 4.0))


def test_mixed_memory_orders() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 2, 3, 4, 5)
    layer = QuantAdd(Fixed(6))
    expected = layer(a, b)
    mixed = layer(a.contiguous(memory_format=torch.channels_last), b)
    assert torch.equal(mixed, expected)
    sliced = layer(a[:, :, ::2], b[:, :, ::2])
    assert torch.equal(sliced, expected[:, :, ::2])


def test_concat_has_one_format() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 3, 4), torch.randn(2, 5, 4) * 16
    layer = QuantConcat(Fixed(8))
    y = layer(a, b)
    fixed = learned(layer)
    assert y.shape == (2, 8, 4)
    assert np.array_equal(y[:, :3].detach().numpy(), fixed.quantize(a.numpy()))
    assert np.array_equal(y[:, 3:].detach().numpy(), fixed.quantize(b.numpy()))


@pytest.mark.parametrize("activation", [RELU, RELU6, leaky_relu(0.25)])
def test_activation_keeps_its_function(activation) -> None:
    x = torch.randn(100) * 5
    layer = QuantActivation(Fixed(10), activation)
    y = layer(x)
    assert layer.activation == activation
    assert np.array_equal(y.detach().numpy(), learned(layer).quantize(activation(x).numpy()))


def test_shared_results_have_one_format() -> None:
    layers = [QuantActivation(Fixed(8, signed=False), RELU), QuantAdd(Fixed(8, signed=False), RELU)]
    share(layers)
    layers[0](torch.randn(10) * 100)
    layers[1](torch.randn(10), torch.randn(10))
    assert learned(layers[0]) == learned(layers[1])
    assert layers[0].result is layers[1].result
    with pytest.raises(InputError, match="same activation"):
        share([QuantActivation(Fixed(8), RELU), QuantActivation(Fixed(8))])


def test_normalize_is_exact_and_follows_the_type_of_the_model() -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    layer = Normalize(exponent=-8)
    assert layer(pixels).dtype == torch.float32
    assert torch.equal(layer(pixels) * 256, pixels.float())
    assert layer.double()(pixels).dtype == torch.float64
    assert layer.state_dict() == {}


def test_normalize_by_a_factor() -> None:
    assert Normalize.by(1 / 16).exponent == -4
    assert Normalize.by(1.0).exponent == 0
    with pytest.raises(UnsupportedError, match="power of two, not"):
        Normalize.by(1 / 255)
