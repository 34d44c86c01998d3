"""Values and input gradients have the bits of Brevitas's quantizers where both can do the same."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from brevitas import nn as qnn
from brevitas.core.function_wrapper import (
    CeilSte,
    FloorSte,
    Identity,
    RoundSte,
    RoundToZeroSte,
    TensorClamp,
    TensorClampSte,
)
from brevitas.core.quant import IntQuant
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8WeightPerTensorFixedPoint,
    Uint8ActPerTensorFixedPoint,
)
from torch import Tensor

from qhw.formats.fixed import Fixed
from qhw.formats.modes import Overflow, Rounding
from qhw.quantizers import Rule, activation_quantizer, kernels, quantize, weight_quantizer

ROUNDINGS = {
    Rounding.RND_CONV: RoundSte,
    Rounding.TRN: FloorSte,
    Rounding.CEIL: CeilSte,
    Rounding.TRN_ZERO: RoundToZeroSte,
}


def bits(x: Tensor) -> Tensor:
    return x.detach().contiguous().view(torch.int32)


def values_and_gradients(function, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    y = function(x)
    y.backward(grad)
    return bits(y), bits(x.grad)


def numbers(fraction: int, width: int) -> Tensor:
    """Fine and coarse numbers, ties and zeros of both signs, in and beyond the range."""
    generator = torch.Generator().manual_seed(width * 100 + fraction)
    fine = torch.randn(20000, generator=generator) * 2.0 ** (width - fraction - 1)
    ties = torch.arange(-(1 << 11), 1 << 11) / 2.0 ** (fraction + 1)
    return torch.cat([fine, ties, torch.tensor([0.0, -0.0, 1e30, -1e30])])


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("passes_outside", [False, True])
@pytest.mark.parametrize("eager", [False, True])
def test_bits_of_int_quant(rounding: Rounding, passes_outside: bool, eager: bool) -> None:
    clamp = TensorClampSte if passes_outside else TensorClamp
    for width, fraction, signed, narrow in itertools.product((1, 2, 4, 8), (-3, 0, 5), *[(False, True)] * 2):
        if (narrow and not signed) or (width == 1 and signed):
            continue  # Brevitas's narrow unsigned range loses its top code, ap_fixed's loses none
        int_quant = IntQuant(narrow, signed, Identity(), ROUNDINGS[rounding](), clamp())
        scale, bit_width = torch.tensor(2.0**-fraction), torch.tensor(float(width))
        overflow = Overflow.SAT_SYM if narrow else Overflow.SAT
        rule = Rule(width, signed, rounding, overflow, passes_outside=passes_outside)
        x = numbers(fraction, width)
        if rounding is Rounding.TRN_ZERO:
            x = x[(x != 0) | (torch.signbit(x) == 0)]  # Brevitas's sign(x) * floor|x| gives +0 there
        grad = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
        theirs = values_and_gradients(
            lambda v, q=int_quant, s=scale, b=bit_width: q(s, torch.tensor(0.0), b, v), x, grad
        )
        with kernels.use_eager() if eager else torch.enable_grad():
            ours = values_and_gradients(
                lambda v, f=fraction, r=rule: quantize(v, torch.tensor(float(f)), r), x, grad
            )
        assert torch.equal(ours[0], theirs[0]), (width, fraction, signed, narrow)
        assert torch.equal(ours[1], theirs[1]), (width, fraction, signed, narrow)


@pytest.mark.parametrize(
    ("layer", "theirs", "signed"),
    [
        (qnn.QuantIdentity, Int8ActPerTensorFixedPoint, True),
        (qnn.QuantReLU, Uint8ActPerTensorFixedPoint, False),
    ],
)
def test_bits_of_the_activation_quantizer(layer: type, theirs: type, signed: bool) -> None:
    """Brevitas's own layer with its trained scale, and the same layer with our quantizer at that scale."""
    torch.manual_seed(0)
    x, grad = torch.randn(2, 64, 16, 7, 7) * 3
    brevitas_layer = layer(act_quant=theirs)
    brevitas_layer(x)
    fraction = -int(math.log2(float(brevitas_layer.eval().act_quant.scale())))
    ours = layer(act_quant=activation_quantizer(Fixed(8, 8 - fraction, signed)))
    expected = values_and_gradients(brevitas_layer, x, grad)
    found = values_and_gradients(ours, x, grad)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_bits_of_the_weight_quantizer() -> None:
    torch.manual_seed(0)

    class Trained(Int8WeightPerTensorFixedPoint):
        scaling_impl_type = "parameter_from_stats"

    theirs = qnn.QuantLinear(30, 20, bias=False, weight_quant=Trained)
    scale = float(theirs.weight_quant.scale().detach())
    fixed = Fixed(8, 8 + int(math.log2(scale)), overflow=Overflow.SAT_SYM)
    ours = qnn.QuantLinear(30, 20, bias=False, weight_quant=weight_quantizer(fixed))
    ours.weight.data.copy_(theirs.weight.data)
    x = torch.randn(8, 30)
    results = []
    for layer in (theirs, ours):
        y = layer(x)
        y.square().sum().backward()
        results.append((bits(layer.quant_weight().value), bits(y), bits(layer.weight.grad)))
    for found, expected in zip(*results, strict=True):
        assert torch.equal(found, expected)
