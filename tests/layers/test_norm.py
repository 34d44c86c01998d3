"""Batch norm in fixed point against torch's batch norm, and against exact integers."""

from __future__ import annotations

import copy
from fractions import Fraction

import pytest
import torch
from torch import Tensor, nn

from qhw.errors import InputError, UnsupportedError
from qhw.formats.fixed import Fixed
from qhw.layers import QuantBatchNorm1d, QuantBatchNorm2d
from qhw.quantizers import IDENTITY, RELU, FixedQuantizer, kernels, leaky_relu

FINE = Fixed(52, 12)
"""So fine that quantisation is far below the tolerance of a comparison in float64."""


def random_norm(kind: type, channels: int) -> nn.Module:
    norm = kind(channels)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2.0)
        norm.bias.normal_()
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 4.0)
    return norm


CASES = [
    (nn.BatchNorm2d, QuantBatchNorm2d, (6, 5, 4, 3), False),
    (nn.BatchNorm2d, QuantBatchNorm2d, (6, 5, 4, 3), True),
    (nn.BatchNorm1d, QuantBatchNorm1d, (60, 5), False),
    (nn.BatchNorm1d, QuantBatchNorm1d, (6, 5, 11), False),
]


@pytest.mark.parametrize(("float_kind", "kind", "shape", "channels_last"), CASES)
@pytest.mark.parametrize(
    ("activation", "reference"),
    [(IDENTITY, nn.Identity()), (RELU, nn.ReLU()), (leaky_relu(0.125), nn.LeakyReLU(0.125))],
)
@pytest.mark.parametrize("mode", ["train", "eval", "frozen"])
@pytest.mark.parametrize("eager", [False, True])
def test_fine_formats_give_torchs_batch_norm(
    float_kind, kind, shape, channels_last, activation, reference, mode, eager
) -> None:
    """Values, every gradient and the running statistics, in the limit of fine formats."""
    torch.manual_seed(0)
    norm = random_norm(float_kind, shape[1]).double()
    quantised = kind.from_float(norm, scale=FINE, bias=FINE, result=FINE, activation=activation).double()
    x = torch.randn(shape, dtype=torch.float64) * 3 + 1
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    grad = torch.randn(shape, dtype=torch.float64)
    for module in (norm, quantised):
        module.train(mode == "train")
    if mode == "frozen":
        quantised.train()
        quantised.frozen = True
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    with kernels.use_eager() if eager else torch.enable_grad():
        y = quantised(a)
        y.backward(grad)
    expected = reference(norm(b))
    expected.backward(grad)
    tolerance = {"rtol": 1e-8, "atol": 1e-9}
    torch.testing.assert_close(y, expected, **tolerance)
    torch.testing.assert_close(a.grad, b.grad, **tolerance)
    torch.testing.assert_close(quantised.weight.grad, norm.weight.grad, **tolerance)
    torch.testing.assert_close(quantised.bias.grad, norm.bias.grad, **tolerance)
    torch.testing.assert_close(quantised.running_mean, norm.running_mean, **tolerance)
    torch.testing.assert_close(quantised.running_var, norm.running_var, **tolerance)
    assert quantised.num_batches_tracked == norm.num_batches_tracked


def build(per_channel: bool = False) -> QuantBatchNorm2d:
    return QuantBatchNorm2d.from_float(
        random_norm(nn.BatchNorm2d, 5),
        scale=Fixed(6),
        bias=Fixed(9),
        result=Fixed(5, signed=False),
        activation=RELU,
        per_channel=per_channel,
    )


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_one_pass_does_what_its_pieces_do(per_channel: bool, train: bool) -> None:
    """The fused layer against the same thing composed of small pieces; values bit for bit."""
    torch.manual_seed(0)
    fused = build(per_channel).train(train)
    x = torch.randn(4, 5, 6, 6) * 2
    fused(x)
    apart = copy.deepcopy(fused)
    grad = torch.randn(4, 5, 6, 6)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    y = fused(a)
    y.backward(grad)

    wide = b.double()
    if train:
        mean, var = wide.mean((0, 2, 3)), wide.var((0, 2, 3), unbiased=False)
    else:
        mean, var = apart.running_mean.double(), apart.running_var.double()
    scale, bias = apart.constants_from(mean, var)
    shape = (1, 5, 1, 1)
    z = b * scale.float().reshape(shape) + bias.float().reshape(shape)
    expected = apart.result.quantize(z)
    expected.backward(grad)
    assert torch.equal(y, expected)
    torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)
    for (name, ours), theirs in zip(fused.named_parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-4, msg=name)


def test_evaluation_is_exact() -> None:
    """In float64, every code is what rational arithmetic gives, and the constants are those of float32."""
    torch.manual_seed(0)
    norm = build()
    norm(torch.randn(4, 5, 6, 6))
    norm.eval()
    scale, bias = (constant.detach() for constant in norm.constants())
    wide = copy.deepcopy(norm).double()
    assert torch.equal(wide.constants()[0], scale)
    assert torch.equal(wide.constants()[1], bias)
    sums = torch.randint(-(1 << 20), 1 << 20, (2, 5, 3, 3))
    x = sums.double() / 2**18
    y = wide(x).detach()
    fixed = norm.result.format
    assert isinstance(fixed, Fixed)
    step = Fraction(2) ** -fixed.fraction
    for index in torch.cartesian_prod(*(torch.arange(size) for size in x.shape)).tolist():
        channel = index[1]
        exact = Fraction(float(x[tuple(index)])) * Fraction(float(scale[channel])) + Fraction(
            float(bias[channel])
        )
        expected = min(max(round(max(exact, Fraction(0)) / step), 0), fixed.mantissa_high) * step
        assert Fraction(float(y[tuple(index)])) == expected


def test_constants_are_in_their_formats() -> None:
    norm = build(per_channel=True)
    norm(torch.randn(4, 5, 6, 6))
    for values, quantizer in zip(
        norm.eval().constants(), (norm.scale_quantizer, norm.bias_quantizer), strict=True
    ):
        for value, fixed in zip(values.tolist(), quantizer.format, strict=True):
            assert fixed.quantize([value])[0] == value


def test_a_shared_result_quantizer() -> None:
    shared = FixedQuantizer(Fixed(8), axis=1)
    norms = [QuantBatchNorm2d(3, scale=Fixed(8), bias=Fixed(8), result=shared) for _ in range(2)]
    for norm in norms:
        norm(torch.randn(2, 3, 4, 4))
    assert norms[0].result.format == norms[1].result.format
    with pytest.raises(InputError, match="this layer needs"):
        QuantBatchNorm2d(3, scale=Fixed(8), bias=Fixed(8), result=shared, activation=RELU)


def test_no_affine_parameters_to_train() -> None:
    norm = QuantBatchNorm2d.from_float(
        nn.BatchNorm2d(3, affine=False), scale=Fixed(8), bias=Fixed(8), result=Fixed(8)
    )
    norm(torch.randn(2, 3, 4, 4)).sum().backward()
    assert norm.weight.grad is None
    assert norm.bias.grad is None
    assert norm.result.theta.grad is not None


def test_cumulative_statistics() -> None:
    norm = nn.BatchNorm1d(3, momentum=None)
    quantised = QuantBatchNorm1d.from_float(norm, scale=Fixed(8), bias=Fixed(8), result=Fixed(8))
    for _ in range(3):
        x = torch.randn(50, 3)
        norm(x)
        quantised(x)
    torch.testing.assert_close(quantised.running_mean, norm.running_mean)
    torch.testing.assert_close(quantised.running_var, norm.running_var)


def test_wrong_inputs_are_refused() -> None:
    norm = build()
    with pytest.raises(InputError, match="5 channels was given"):
        norm(torch.randn(2, 4, 3, 3))
    with pytest.raises(InputError, match="more than one value per channel"):
        norm(torch.randn(1, 5, 1, 1))
    with pytest.raises(UnsupportedError, match="no running statistics"):
        QuantBatchNorm2d.from_float(
            nn.BatchNorm2d(3, track_running_stats=False), scale=Fixed(8), bias=Fixed(8), result=Fixed(8)
        )


def test_gradients_reach_every_parameter() -> None:
    norm = build()
    x = torch.randn(4, 5, 6, 6, requires_grad=True)
    norm(x).square().sum().backward()
    grads: dict[str, Tensor | None] = {name: p.grad for name, p in norm.named_parameters()}
    assert set(grads) == {
        "weight", "bias", "scale_quantizer.theta", "bias_quantizer.theta", "result.theta"
    }  # fmt: skip
    assert all(grad is not None and bool(grad.abs().sum() > 0) for grad in grads.values())
