"""Quantizers whose scale may be any number: the formula in float32, Brevitas bit for bit, and training."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.quant import Int8WeightPerChannelFloat, Int8WeightPerTensorFloat
from brevitas.quant.float_quant_ocp import (
    Fp8e4m3OCPWeightPerChannelFloat,
    Fp8e4m3OCPWeightPerTensorFloat,
    Fp8e5m2OCPWeightPerChannelFloat,
    FpOCPWeightPerTensorFloat,
)
from torch import Tensor, nn

from qhw.errors import InputError
from qhw.formats import Fixed, Overflow, TableFormat, parse_format
from qhw.quantizers import (
    RELU,
    Quantizer,
    TableQuantizer,
    activation_quantizer,
    binary_points,
    kernels,
    make_quantizer,
    weight_quantizer,
)

FORMATS = (
    *("e4m3", "e5m2", "e3m4", "e3m2", "e2m3", "e2m1", "e4m3fn", "e5m2ieee", "e4m3fnuz", "e3m2<nosubnormal>"),
    *("khot<8,1>", "khot<8,2>", "khot<8,3,csd>", "pow2<4>", "binary", "ternary", "e3m2<TRN>", "e2m3<UP>"),
)
SCALES = np.array([0.0131, 1.7, 3e-5, 190.0], dtype=np.float32)


def at_scale(quantizer: Quantizer, scales: np.ndarray | float) -> Quantizer:
    """The quantizer with these very float32 scales: its parameter in float64, which tells them apart."""
    units = np.ldexp(
        np.asarray(scales, dtype=np.float64), quantizer.spec.exponent if is_listed(quantizer) else 0
    )
    quantizer.theta = nn.Parameter(torch.from_numpy(np.asarray(-np.log2(units))))
    quantizer.started.fill_(True)
    return quantizer


def is_listed(quantizer: Quantizer) -> bool:
    return isinstance(quantizer.spec, TableFormat)


def in_float32(x: np.ndarray, spec: TableFormat, scale: np.ndarray) -> np.ndarray:
    """What FloatQuant of QONNX says: x / scale, onto the format, times scale."""
    numbers = spec.quantize(x.astype(np.float32) / scale).astype(np.float32)
    return np.asarray(numbers * scale + np.float32(0), dtype=np.float32)


def probes(spec: TableFormat) -> np.ndarray:
    numbers = np.sort(spec.numbers.astype(np.float64)) * 2.0**spec.exponent
    middles = (numbers[1:] + numbers[:-1]) / 2
    return np.concatenate([numbers, middles, numbers * 1.03, [1e30, -1e30, 0.0]]).astype(np.float32)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("channels", [None, len(SCALES)])
@pytest.mark.parametrize("text", FORMATS)
def test_every_number_midpoint_and_neighbour(text: str, channels: int | None, compiled: bool) -> None:
    spec = parse_format(text)
    assert isinstance(spec, TableFormat)
    scales = SCALES[:, None] if channels else SCALES[:1, None]
    x = probes(spec) * scales
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))], axis=1)
    quantizer = at_scale(
        make_quantizer(spec, channels=channels, scaling="free"), scales[:, 0] if channels else SCALES[0]
    )
    assert quantizer.scale(2).dtype == torch.float64
    assert np.array_equal(np.asarray(quantizer.scale(2)).reshape(-1), scales[:, 0])
    if compiled:
        y = quantizer.quantize(torch.from_numpy(x))
    else:
        with kernels.use_eager():
            y = quantizer.quantize(torch.from_numpy(x))
    assert np.array_equal(y.detach().numpy(), in_float32(x, spec, scales))
    number = quantizer.mantissas(torch.from_numpy(x)).numpy()
    assert spec.holds(number)
    numbers = np.ldexp(number, spec.exponent).astype(np.float32)
    assert np.array_equal(numbers * scales, y.detach().numpy())


class Fp6(FpOCPWeightPerTensorFloat):
    """E3M2 of the OCP."""

    bit_width, exponent_bit_width, mantissa_bit_width = 6, 3, 2


class Fp4(FpOCPWeightPerTensorFloat):
    """E2M1 of the OCP."""

    bit_width, exponent_bit_width, mantissa_bit_width = 4, 2, 1


@pytest.mark.parametrize(
    ("theirs", "text"),
    [
        (Fp8e4m3OCPWeightPerTensorFloat, "e4m3fn"),
        (Fp8e4m3OCPWeightPerChannelFloat, "e4m3fn"),
        (Fp8e5m2OCPWeightPerChannelFloat, "e5m2ieee"),
        (Fp6, "e3m2"),
        (Fp4, "e2m1"),
        (Int8WeightPerTensorFloat, "int8"),
        (Int8WeightPerChannelFloat, "int8"),
    ],
)
def test_the_values_of_brevitas_bit_for_bit(theirs: type, text: str) -> None:
    layer = qnn.QuantLinear(200, 32, bias=False, weight_quant=theirs)
    with torch.no_grad():
        spread = 2.0 ** torch.randint(-12, 3, (32, 200), generator=torch.Generator().manual_seed(0))
        layer.weight.mul_(spread)
    expected = layer.quant_weight()
    spec = Fixed(8, 8, overflow=Overflow.SAT_SYM) if text == "int8" else parse_format(text)
    if isinstance(spec, Fixed):
        spec = Fixed(8, overflow=Overflow.SAT_SYM)
    scale = expected.scale.detach().double().numpy()
    channels = 32 if scale.size > 1 else None
    quantizer = make_quantizer(spec, channels=channels, scaling="free")
    at_scale(quantizer, scale.reshape(-1) if channels else float(scale))
    assert len(np.unique(np.log2(scale) % 1)) == scale.size, "scales that are no powers of two"
    assert torch.equal(quantizer.quantize(layer.weight), expected.value)


def test_the_gradient_of_the_scale() -> None:
    spec = parse_format("e3m2")
    quantizer = at_scale(make_quantizer(spec, scaling="free"), 0.37)
    x = torch.linspace(-20, 20, 4001, dtype=torch.float64, requires_grad=True)
    grad = torch.sin(torch.arange(4001, dtype=torch.float64))
    quantizer.quantize(x).backward(grad)
    unit = float(quantizer.unit[0])
    assert unit == float(np.float32(0.37)) * 2.0**spec.exponent
    scaled = x.detach().numpy() / unit
    rounded = spec.to_mantissa(scaled * 2.0**spec.exponent)
    inside = np.abs(scaled) <= spec.mantissa_high + 32  # half a gap beyond the largest still rounds to it
    inside &= np.abs(scaled) < spec.mantissa_high + 32
    slope = np.where(inside, rounded - scaled, np.sign(scaled) * spec.mantissa_high)
    assert quantizer.theta.grad is not None
    expected = -math.log(2) * unit * float((grad.numpy() * slope).sum())
    assert float(quantizer.theta.grad) == pytest.approx(expected, rel=1e-12)
    assert np.array_equal(x.grad != 0, inside & (grad.numpy() != 0))


@pytest.mark.parametrize(
    "text", ["fixed<4>", "ufixed<3>", "e2m1", "e4m3", "khot<8,2>", "khot<8,1>", "ternary"]
)
def test_statistics_and_training_do_no_worse_than_with_a_power_of_two(text: str) -> None:
    data = torch.randn(4096, generator=torch.Generator().manual_seed(0)) * 0.037
    data = data.abs() if text.startswith("u") else data

    def error(quantizer: Quantizer) -> float:
        return float((quantizer.quantize(data) - data).square().mean().detach())

    powers, free = (make_quantizer(parse_format(text), scaling=s) for s in ("power_of_two", "free"))
    before = error(free)
    assert before <= error(powers)
    if text in ("e4m3", "khot<8,2>", "khot<8,1>"):  # as good at twice the scale: nothing there to be trained
        return
    with torch.no_grad():
        free.theta += 0.7
    off = error(free)
    optimizer = torch.optim.Adam([free.theta], lr=0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (free.quantize(data) - data).square().mean().backward()
        optimizer.step()
    assert error(free) < min(0.9 * off, 1.3 * before)


def test_each_channel_trains_its_own_scale() -> None:
    data = torch.randn(3, 2000, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [0.13], [7]]
    )
    quantizer = make_quantizer(parse_format("e2m1"), channels=3, axis=0, scaling="free")
    quantizer.quantize(data).square().sum().backward()
    assert quantizer.theta.grad is not None
    assert (quantizer.theta.grad != 0).all()
    alone = [make_quantizer(parse_format("e2m1"), scaling="free") for _ in range(3)]
    rows = torch.stack([one.quantize(row) for one, row in zip(alone, data, strict=True)])
    assert torch.equal(rows, quantizer.quantize(data))


def test_quantizers_that_share_a_scale() -> None:
    first = make_quantizer(parse_format("e4m3"), activation=RELU, scaling="free")
    second = make_quantizer(parse_format("e3m2"), scaling="free")
    second.share_scale(first)
    model = copy.deepcopy(nn.ModuleList([first, second]))
    one, other = model
    one.quantize(torch.randn(100))
    assert bool(other.started)
    assert one.theta is other.theta
    assert len(binary_points(model)) == 1
    other.quantize(torch.randn(100)).sum().backward()
    with torch.no_grad():
        one.theta -= 0.3
    assert np.array_equal(one.unit, other.unit)
    loaded = nn.ModuleList([make_quantizer(parse_format(t), scaling="free") for t in ("e4m3", "e3m2")])
    loaded[1].share_scale(loaded[0])
    loaded.load_state_dict(model.state_dict())
    assert np.array_equal(loaded[1].unit, one.unit)


def test_brevitas_layers_take_free_scales() -> None:
    khot = parse_format("khot<8,2>")
    layer = qnn.QuantConv2d(3, 4, 3, weight_quant=weight_quantizer(khot, per_channel=True, scaling="free"))
    weight = layer.quant_weight()
    assert weight.scale.shape == (4, 1, 1, 1)
    assert {math.frexp(float(s))[0] for s in weight.scale.flatten()} != {0.5}
    numbers = (weight.value / weight.scale).detach().double().numpy()
    assert khot.holds(np.rint(numbers).astype(np.int64))
    assert np.abs(numbers - np.rint(numbers)).max() < 1e-4
    act = qnn.QuantReLU(act_quant=activation_quantizer(parse_format("e3m2"), scaling="free"))
    act(layer(torch.randn(2, 3, 8, 8))).sum().backward()
    assert layer.weight_quant.quantizer.theta.grad is not None


def test_integers_with_a_scale() -> None:
    quantizer = make_quantizer(parse_format("fixed<8>"), scaling="free")
    x: Tensor = torch.linspace(-3, 3, 1000)
    y = quantizer.quantize(x).detach().numpy()
    unit = np.float32(quantizer.unit[0])
    assert np.array_equal(y, np.clip(np.rint(x.numpy() / unit), -128, 127).astype(np.float32) * unit)
    assert str(quantizer.format) == "fixed<8,8>"
    assert repr(quantizer) == "FixedQuantizer(fixed<8,8>, free scale)"


def test_what_has_no_free_scale_says_so() -> None:
    stated = make_quantizer(parse_format("fixed<8,3>"), scaling="free")
    assert (stated.is_free, stated.unit.tolist()) == (False, [2.0**-5])
    free = make_quantizer(parse_format("e4m3"), scaling="free")
    with pytest.raises(InputError, match="seen no data: its scale is not known"):
        _ = free.unit
    free.start(torch.ones(3))
    with pytest.raises(InputError, match="free scale, and so no whole fraction bits"):
        _ = free.fraction
    with pytest.raises(InputError, match="free scale and an exponent bias cannot be learned together"):
        TableQuantizer(parse_format("e4m3"), learns="bias", free=True)
    biased = make_quantizer(parse_format("e4m3"), scaling="exponent_bias")
    biased.start(torch.randn(100))
    assert float(biased.scale(0)) == 1.0
    assert make_quantizer(parse_format("khot<8,2>"), scaling="exponent_bias").learns == "scale"
