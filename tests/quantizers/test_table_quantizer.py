"""Quantizers of formats that list their codes: against the formats themselves, and against Brevitas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant.float_quant_ocp import Fp8e4m3OCPWeightPerTensorFloat

from qhw.errors import InputError
from qhw.formats import Minifloat, Rounding, TableFormat, parse_format
from qhw.quantizers import RELU, FixedQuantizer, TableQuantizer, kernels, make_quantizer, weight_quantizer

FORMATS = (
    *("e4m3", "e5m2", "e3m4", "e3m2", "e2m3", "e2m1", "e4m3fn", "e5m2ieee", "e4m3fnuz", "e3m2<nosubnormal>"),
    *("khot<8,1>", "khot<8,2>", "khot<8,3,csd>", "khot<5,2>", "pow2<4>", "binary", "ternary"),
)


def table(text: str) -> TableFormat:
    format = parse_format(text)
    assert isinstance(format, TableFormat)
    return format


def probes(format: TableFormat) -> np.ndarray:
    """Every number, every midpoint, the floats beside them, and numbers far beyond."""
    numbers = np.sort(format.numbers.astype(np.float64)) * 2.0**format.exponent
    middles = (numbers[1:] + numbers[:-1]) / 2
    exact = np.concatenate([numbers, middles, [1e-30, 1e30, 0.0]]).astype(np.float32)
    around = [np.nextafter(exact, np.float32(end)) for end in (-np.inf, np.inf)]
    return np.concatenate([exact, *around, -exact])


def started(spec: TableFormat, power: int, **settings) -> TableQuantizer:
    quantizer = TableQuantizer(spec, **settings)
    with torch.no_grad():
        quantizer.theta.fill_(-power - spec.exponent)
        quantizer.started.fill_(True)
    return quantizer


@pytest.mark.parametrize("text", FORMATS)
@pytest.mark.parametrize("power", [0, -5])
@pytest.mark.parametrize("compiled", [True, False])
def test_every_number_neighbour_and_midpoint(text: str, power: int, compiled: bool) -> None:
    spec = table(text)
    x = probes(spec) * np.float32(2.0**power)
    quantizer = started(spec, power)
    if compiled:
        y = quantizer.quantize(torch.from_numpy(x))
    else:
        with kernels.use_eager():
            y = quantizer.quantize(torch.from_numpy(x))
    expected = spec.quantize(x.astype(np.float64) * 2.0**-power) * 2.0**power
    assert np.array_equal(y.detach().numpy().astype(np.float64), expected)
    assert quantizer.scale_exponent == (power,)


@pytest.mark.parametrize("rounding", list(Rounding))
@pytest.mark.parametrize("family", ["e3m2<{}>", "khot<8,2,{}>", "e4m3<{}>"])
def test_every_rounding_mode(rounding: Rounding, family: str) -> None:
    spec = table(family.format(rounding.value))
    x = probes(spec)
    # Far beyond the range every mode saturates here, as the format does.
    results = [started(spec, 0).quantize(torch.from_numpy(x)).detach().numpy()]
    with kernels.use_eager():
        results.append(started(spec, 0).quantize(torch.from_numpy(x)).detach().numpy())
    for result in results:
        assert np.array_equal(result.astype(np.float64), spec.quantize(x.astype(np.float64)))


@pytest.mark.parametrize("text", ["e4m3", "e3m2", "e3m2<nosubnormal,TRN>", "khot<8,2>", "binary"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [None, 5])
@pytest.mark.parametrize("activation", ["none", "relu"])
def test_compiled_and_eager_give_the_same_bits(text, dtype, channels, activation) -> None:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(7, 5, 33, generator=generator, dtype=dtype) * 40
    grad = torch.randn(x.shape, generator=generator, dtype=dtype)
    settings = {"activation": RELU} if activation == "relu" else {}
    results = []
    for eager in (False, True):
        quantizer = started(table(text), 1, channels=channels, axis=1, **settings)
        own = x.clone().requires_grad_()
        if eager:
            with kernels.use_eager():
                y = quantizer.quantize(own)
                y.backward(grad)
        else:
            y = quantizer.quantize(own)
            y.backward(grad)
        results.append((y.detach(), own.grad, quantizer.theta.grad))
    for mine, other in zip(*results, strict=True):
        assert torch.equal(mine, other)


class Fp8Brevitas(Fp8e4m3OCPWeightPerTensorFloat):
    """Brevitas's E4M3 of the OCP, with a power of two for its scale."""

    restrict_scaling_type = "power_of_two"
    scaling_impl_type = "const"
    scaling_const = 64.0


def test_forward_is_brevitass_bit_for_bit_and_the_gradient_goes_straight_through() -> None:
    layer = qnn.QuantLinear(64, 64, bias=False, weight_quant=Fp8Brevitas)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(64, 64, generator=torch.Generator().manual_seed(1)) * 20)
    theirs = layer.quant_weight()
    scale = float(theirs.scale)
    assert np.log2(scale) == int(np.log2(scale))
    spec = table("e4m3fn")
    quantizer = started(spec, int(np.log2(scale)), passes_outside=False)
    x = layer.weight.detach().clone().requires_grad_()
    mine = quantizer.quantize(x)
    assert torch.equal(mine.detach(), theirs.value.detach())
    grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    mine.backward(grad)
    theirs.value.backward(grad)
    inside = x.detach().abs() <= 448 * scale
    assert x.grad is not None
    assert torch.equal(x.grad[inside], grad[inside])
    # Brevitas departs from straight through: its gradient also goes through floor(log2 |x|), which makes y/x
    # of it for normal numbers (brevitas.core.quant.float.FloatQuant does not detach its internal scale).
    normal = inside & (x.detach().abs() >= 2.0**-6 * scale)
    slope = (mine / x).detach()
    torch.testing.assert_close(layer.weight.grad[normal], (grad * slope)[normal])


def test_a_learned_bias_is_a_learned_scale_by_another_name() -> None:
    spec = table("e4m3")
    scaled, biased = started(spec, -3), started(spec, -3, learns="bias")
    x = torch.randn(1000)
    assert torch.equal(scaled.quantize(x), biased.quantize(x))
    assert scaled.format == spec
    format = biased.format
    assert isinstance(format, Minifloat)
    assert (format.exponent_bias, biased.scale_exponent) == (10, (0,))
    assert np.array_equal(format.quantize(x.numpy()), biased.quantize(x).detach().numpy())


@pytest.mark.parametrize("text", ["e4m3", "e2m1", "khot<8,2>", "khot<8,1>", "pow2<4>", "ternary"])
def test_statistics_start_the_scale_and_training_improves_it(text: str) -> None:
    data = torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 0.037
    quantizer = make_quantizer(table(text))
    quantizer.start(data)
    (start,) = quantizer.fraction

    def error(fraction: int) -> float:
        other = started(table(text), 0)
        with torch.no_grad():
            other.theta.fill_(fraction)
        return float((other.quantize(data).detach() - data).square().sum())

    assert error(start) <= min(error(start + step) for step in (-2, -1, 1, 2))


def test_k_hot_lets_the_gradient_straight_through() -> None:
    quantizer = started(table("khot<8,1>"), 0)
    x = torch.tensor([3.3, -5.7, 70.0, 1000.0], requires_grad=True)
    y = quantizer.quantize(x)
    assert y.tolist() == [4.0, -4.0, 64.0, 64.0]
    y.backward(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 2.0, 0.0, 0.0]


def test_brevitas_layers_take_any_format() -> None:
    layer = qnn.QuantConv2d(3, 4, 3, weight_quant=weight_quantizer(table("khot<8,2>"), per_channel=True))
    weight = layer.quant_weight()
    numbers = (weight.value / weight.scale).detach().numpy()
    assert table("khot<8,2>").holds(numbers.astype(np.int64))
    assert np.array_equal(numbers, np.rint(numbers))
    layer(torch.randn(1, 3, 8, 8)).sum().backward()
    assert layer.weight.grad is not None


def test_what_cannot_be_trained_says_so() -> None:
    with pytest.raises(InputError, match="overflows to infinity or NaN"):
        make_quantizer(table("e4m3fn<SPECIAL>"))
    with pytest.raises(InputError, match="no exponent bias"):
        TableQuantizer(table("khot<8,2>"), learns="bias")
    with pytest.raises(InputError, match="powers of two with a zero"):
        make_quantizer(table("pow2<8,nozero>"))
    with pytest.raises(InputError, match="seen no data: its scale is not known"):
        _ = make_quantizer(table("e4m3")).fraction
    with pytest.raises(InputError, match="NaN or infinity"):
        make_quantizer(table("e4m3")).start(torch.tensor([1.0, float("nan")]))
    assert isinstance(make_quantizer(parse_format("int8")), FixedQuantizer)
