"""The quantizers inside Brevitas's own layers."""

from __future__ import annotations

import copy

import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant_tensor import QuantTensor
from torch import nn

from qhw.formats.fixed import Fixed
from qhw.formats.modes import Overflow
from qhw.quantizers import (
    RELU,
    activation_quantizer,
    bias_quantizer,
    binary_points,
    plain_tensors,
    weight_quantizer,
)

W, B, A = Fixed(6), Fixed(10), Fixed(6, signed=False)


def layers(per_channel: bool = False) -> list[nn.Module]:
    quant = {
        "weight_quant": weight_quantizer(W, per_channel),
        "bias_quant": bias_quantizer(B, per_channel),
    }
    return [
        qnn.QuantLinear(8, 4, bias=True, **quant),
        qnn.QuantConv1d(8, 4, 3, **quant),
        qnn.QuantConv2d(8, 4, 3, groups=2, **quant),
    ]


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("index", range(3))
def test_parameters_of_a_layer_are_in_their_formats(per_channel: bool, index: int) -> None:
    torch.manual_seed(0)
    layer = layers(per_channel)[index]
    shapes = [(5, 8), (5, 8, 9), (5, 8, 9, 9)]
    x = torch.randn(shapes[index])
    layer(x).square().sum().backward()
    for name in ("weight", "bias"):
        quantizer = getattr(layer, f"{name}_quant").quantizer
        values = getattr(layer, f"quant_{name}")().value
        formats = quantizer.format if per_channel else [quantizer.format] * 4
        assert quantizer.theta.shape == ((4,) if per_channel else ())
        assert quantizer.theta.grad is not None
        for channel, fixed in enumerate(formats):
            row = values[channel].detach().double().reshape(-1)
            assert torch.equal(row, torch.from_numpy(fixed.quantize(row.numpy())))
    weight, bias = layer.quant_weight().value, layer.quant_bias().value
    plain = copy.deepcopy(layer)
    plain.weight_quant.disable_quant = plain.bias_quant.disable_quant = True
    plain.weight.data, plain.bias.data = weight.detach(), bias.detach()
    assert torch.equal(layer(x), plain(x))


def test_a_relu_runs_in_the_quantizers_pass() -> None:
    layer = qnn.QuantReLU(act_quant=activation_quantizer(A))
    x = torch.randn(3, 4)
    y = layer(x)
    assert layer.act_quant.quantizer.activation == RELU
    fixed = layer.act_quant.quantizer.format
    assert isinstance(fixed, Fixed)
    assert torch.equal(y.double(), torch.from_numpy(fixed.quantize(x.clamp_min(0).numpy())))


def test_other_activations_run_before_it() -> None:
    layer = qnn.QuantTanh(act_quant=activation_quantizer(Fixed(8)))
    x = torch.randn(3, 4)
    y = layer(x)
    fixed = layer.act_quant.quantizer.format
    assert isinstance(fixed, Fixed)
    assert torch.equal(y.double(), torch.from_numpy(fixed.quantize(torch.tanh(x).numpy())))


def test_activations_per_channel() -> None:
    layer = qnn.QuantIdentity(act_quant=activation_quantizer(Fixed(8), channels=3))
    layer(torch.randn(2, 3, 4, 4) * torch.tensor([1.0, 10.0, 100.0]).reshape(1, 3, 1, 1))
    integers = [fixed.integer for fixed in layer.act_quant.quantizer.format]
    assert integers == sorted(integers)
    assert len(set(integers)) == 3


def test_quant_tensors_carry_the_scale() -> None:
    torch.manual_seed(0)
    quant = activation_quantizer(Fixed(8))
    layer = qnn.QuantConv2d(
        3, 4, 3, bias=False, weight_quant=weight_quantizer(W), input_quant=quant, return_quant_tensor=True
    )
    y = layer(torch.randn(1, 3, 6, 6))
    assert isinstance(y, QuantTensor)
    expected = layer.input_quant.scale() * layer.weight_quant.scale()
    assert torch.equal(y.scale.flatten(), expected.flatten())
    assert float(layer.weight_quant.bit_width()) == 6
    assert float(layer.weight_quant.zero_point()) == 0


def test_plain_tensors_give_the_same_values() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=activation_quantizer(Fixed(8))),
        layers()[0],
        qnn.QuantReLU(act_quant=activation_quantizer(A)),
    )
    x = torch.randn(5, 8)
    expected = model(x)
    assert torch.equal(plain_tensors(model)(x), expected)


def test_loading_a_checkpoint_keeps_the_binary_points_in_place() -> None:
    """An optimizer made before load_state_dict still trains the model's own parameters afterwards."""
    torch.manual_seed(0)
    model = nn.Sequential(layers()[0], qnn.QuantReLU(act_quant=activation_quantizer(A)))
    model(torch.randn(5, 8))
    points = binary_points(model)
    state = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for theta in points:
            theta += 2
    model.load_state_dict(state)
    assert [id(theta) for theta in binary_points(model)] == [id(theta) for theta in points]
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_float_weights_that_are_loaded_start_the_binary_point_again() -> None:
    torch.manual_seed(0)
    layer = layers()[0]
    before = layer.weight_quant.quantizer.fraction[0]
    trained = nn.Linear(8, 4)
    trained.weight.data *= 64
    layer.load_state_dict(trained.state_dict(), strict=False)
    assert layer.weight_quant.quantizer.fraction[0] == before - 6


def test_narrow_range_is_known_to_brevitas() -> None:
    fixed = Fixed(4, overflow=Overflow.SAT_SYM)
    layer = qnn.QuantLinear(8, 4, bias=False, weight_quant=weight_quantizer(fixed))
    assert layer.weight_quant.is_narrow_range
    assert layer.weight_quant.is_signed
    assert layer.weight_quant.rounding_mode == "ROUND"
    assert -8 not in layer.weight_quant.quantizer.mantissas(layer.weight * 100)


def test_a_disabled_quantizer_keeps_the_relu() -> None:
    layer = qnn.QuantReLU(act_quant=activation_quantizer(A))
    layer.act_quant.disable_quant = True
    x = torch.randn(50)
    assert torch.equal(layer(x), x.clamp_min(0))
