"""The trainable quantizer: its gradient's formula, where it starts, and that it learns."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from torch import Tensor, nn

from qhw.errors import InputError, UnsupportedError
from qhw.formats.fixed import Fixed
from qhw.formats.modes import Overflow, Rounding
from qhw.quantizers import (
    RELU,
    RELU6,
    FixedQuantizer,
    Rule,
    binary_points,
    leaky_relu,
    quantize,
)


def straight_through(x: Tensor, scale: Tensor, low: float, high: float) -> Tensor:
    """The quantizer as a composition whose gradients torch works out itself (SAT, RND_CONV)."""
    scaled = x / scale
    rounded = scaled + (scaled.round() - scaled).detach()
    return rounded.clamp(low, high) * scale


@given(fraction=st.integers(-3, 8), signed=st.booleans(), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_gradients_are_those_of_the_straight_through_composition(
    fraction: int, signed: bool, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = (torch.randn(500, generator=generator, dtype=torch.float64) * 8).requires_grad_()
    grad = torch.randn(500, generator=generator, dtype=torch.float64)
    theta = torch.tensor(fraction + 0.3, dtype=torch.float64, requires_grad=True)
    low, high = (-16.0, 15.0) if signed else (0.0, 31.0)

    bits = theta + (theta.round() - theta).detach()
    expected = torch.autograd.grad(straight_through(x, torch.exp2(-bits), low, high), (x, theta), grad)
    found = torch.autograd.grad(quantize(x, theta, Rule(5, signed)), (x, theta), grad)
    # clamp() splits its gradient at the very bound; no number lies there unless rounding puts it there.
    at_bound = ((x / 2.0**-fraction).round() == low) | ((x / 2.0**-fraction).round() == high)
    assert torch.equal(found[0][~at_bound], expected[0][~at_bound])
    assert float(found[1]) == pytest.approx(float(expected[1]), rel=1e-9, abs=1e-9)


def test_gradient_of_theta_by_hand() -> None:
    """dy/dtheta = -ln 2 * s * (round(x/s) - x/s, or the bound)."""
    x = torch.tensor([0.3, 100.0, -100.0])
    theta = torch.tensor(2.0, requires_grad=True)
    quantize(x, theta, Rule(4)).backward(torch.tensor([1.0, 10.0, 100.0]))
    expected = -math.log(2) * 0.25 * ((1 - 0.3 * 4) + 10 * 7 + 100 * -8)
    assert theta.grad is not None
    assert float(theta.grad) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("overflow", [Overflow.WRAP, Overflow.WRAP_SM, Overflow.SAT_ZERO])
def test_gradients_beyond_the_range(overflow: Overflow) -> None:
    """Wrapping passes the gradient on, SAT_ZERO does not; the scale's is the bound on either."""
    x = torch.tensor([9.0, -20.0], requires_grad=True)
    theta = torch.tensor(0.0, requires_grad=True)
    quantize(x, theta, Rule(4, overflow=overflow)).backward(torch.tensor([1.0, 100.0]))
    assert x.grad is not None
    assert theta.grad is not None
    assert x.grad.tolist() == ([0.0, 0.0] if overflow is Overflow.SAT_ZERO else [1.0, 100.0])
    assert float(theta.grad) == pytest.approx(-math.log(2) * (7 + 100 * -8))


@pytest.mark.parametrize(
    ("activation", "reference"),
    [(RELU, nn.ReLU()), (RELU6, nn.ReLU6()), (leaky_relu(0.25), nn.LeakyReLU(0.25))],
)
def test_fused_activations_are_torchs(activation, reference: nn.Module) -> None:
    x = torch.cat([torch.randn(4000) * 6, torch.tensor([0.0, 6.0, -0.0])])
    grad = torch.randn(x.shape)
    theta = torch.tensor(4.0)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    fused = quantize(a, theta, Rule(8, activation=activation))
    apart = quantize(reference(b), theta, Rule(8))
    fused.backward(grad)
    apart.backward(grad)
    assert torch.equal(fused, apart)
    assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("off", [-3, 3])
@pytest.mark.parametrize("overflow", [Overflow.SAT, Overflow.SAT_SYM, Overflow.SAT_ZERO, Overflow.WRAP])
@pytest.mark.parametrize("per_channel", [False, True])
def test_a_binary_point_started_three_off_comes_back(off: int, overflow: Overflow, per_channel: bool) -> None:
    """Only theta is trained, to reproduce the data: it returns to the point that statistics find best."""
    torch.manual_seed(0)
    spread = torch.tensor([[1.0], [8.0], [0.05]]) if per_channel else torch.tensor([[1.0]])
    data = torch.randn(spread.shape[0], 4000) * spread
    quantizer = FixedQuantizer(Fixed(6, overflow=overflow), channels=len(data) if per_channel else None)
    quantizer.start(data)
    best = quantizer.fraction
    with torch.no_grad():
        quantizer.theta += off
    assert quantizer.fraction == tuple(bits + off for bits in best)
    optimizer = torch.optim.Adam([quantizer.theta], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        (quantizer.quantize(data) - data).square().mean().backward()
        optimizer.step()
    errors = {bits: _error(data, quantizer, bits) for bits in range(-6, 14)}
    for channel, bits in enumerate(quantizer.fraction):
        if overflow.saturates and overflow is not Overflow.SAT_ZERO:
            assert abs(bits - best[channel]) <= 1
        # Wrapping and SAT_ZERO punish every overflow: the range that holds nearly all the data is as good.
        error = errors[bits][channel]
        assert error <= 6 * min(errors[other][channel] for other in errors)
        assert error < errors[best[channel] + off][channel] / 4


def _error(data: Tensor, quantizer: FixedQuantizer, bits: int) -> list[float]:
    rule = quantizer.rule
    theta = torch.full((len(data),), float(bits)) if quantizer.per_channel else torch.tensor(float(bits))
    return (quantize(data, theta, rule, 0) - data).square().mean(1).tolist()


@pytest.mark.parametrize("off", [-3, 3])
def test_binary_points_come_back_in_a_network(off: int) -> None:
    """Real data, real loss: a trained classifier whose weights are frozen and whose points are all wrong."""
    torch.manual_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    _train(model, list(model.parameters()), x, y, 150, 0.01)
    model.requires_grad_(False)
    hidden = FixedQuantizer(Fixed(4, signed=False), activation=RELU)
    weights = [FixedQuantizer(Fixed(4), passes_outside=True) for _ in range(2)]

    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.points = nn.ModuleList([hidden, *weights])

        def forward(self, x: Tensor) -> Tensor:
            first, second = model[0], model[2]
            z = nn.functional.linear(x, weights[0].quantize(first.weight), first.bias)
            return nn.functional.linear(hidden.quantize(z), weights[1].quantize(second.weight), second.bias)

    quantised = Quantised()
    start = _accuracy(quantised, x, y)
    best = [q.fraction[0] for q in (hidden, *weights)]
    with torch.no_grad():
        for quantizer in (hidden, *weights):
            quantizer.theta += off
    spoiled = _accuracy(quantised, x, y)
    _train(quantised, binary_points(quantised), x, y, 200, 0.05)
    found = [q.fraction[0] for q in (hidden, *weights)]
    assert start > 0.95
    assert spoiled < start - 0.2
    assert _accuracy(quantised, x, y) > start - 0.025
    assert all(abs(now - then) <= 1 for now, then in zip(found, best, strict=True)), (found, best)


def _train(model: nn.Module, parameters: list, x: Tensor, y: Tensor, steps: int, rate: float) -> None:
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


@given(
    width=st.integers(2, 16),
    signed=st.booleans(),
    exponent=st.integers(-20, 20),
    seed=st.integers(0, 100),
)
@settings(max_examples=100, deadline=None)
def test_start_is_the_best_binary_point(width: int, signed: bool, exponent: int, seed: int) -> None:
    """No other binary point has a smaller squared error on the data."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(300, generator=generator, dtype=torch.float64) * 2.0**exponent
    quantizer = FixedQuantizer(Fixed(width, signed=signed))
    quantizer.start(data)
    target = data if signed else data.clamp_min(0)

    def error(bits: int) -> float:
        y = quantize(data, torch.tensor(float(bits)), Rule(width, signed))
        return float((y - target).square().sum())

    found = quantizer.fraction[0]
    assert error(found) == min(error(bits) for bits in range(found - 8, found + 9))


def test_formats_follow_what_is_learned() -> None:
    quantizer = FixedQuantizer(Fixed(8, rounding=Rounding.TRN))
    with pytest.raises(InputError, match="has seen no data"):
        _ = quantizer.format
    quantizer.quantize(torch.tensor([0.9, -0.3]))
    assert quantizer.format == Fixed(8, 1)
    assert quantizer.format.rounding is Rounding.TRN
    with torch.no_grad():
        quantizer.theta -= 1.6
    assert quantizer.format == Fixed(8, 3)
    assert quantizer.spec == Fixed(8)
    assert float(quantizer.scale(4)) == 2.0**-5


def test_formats_per_channel() -> None:
    quantizer = FixedQuantizer(Fixed(4), channels=2, axis=1)
    x = torch.tensor([[0.9, 90.0], [-0.4, 20.0]])
    y, scale, zero_point, bit_width = quantizer(x)
    assert quantizer.format == (Fixed(4, 1), Fixed(4, 8))
    assert scale.tolist() == [[0.125, 16.0]]
    assert (float(zero_point), float(bit_width)) == (0.0, 4.0)
    assert torch.equal(y, quantizer.mantissas(x) * scale)


def test_a_stated_binary_point_stays() -> None:
    quantizer = FixedQuantizer(Fixed(8, 3))
    quantizer.start(torch.randn(10) * 1000)
    assert quantizer.format == Fixed(8, 3)
    assert not quantizer.theta.requires_grad
    assert binary_points(quantizer) == []


def test_a_checkpoint_holds_the_binary_point(tmp_path) -> None:
    quantizer = FixedQuantizer(Fixed(8))
    quantizer.quantize(torch.randn(100) * 50)
    torch.save(quantizer.state_dict(), tmp_path / "q.pt")
    other = FixedQuantizer(Fixed(8))
    other.load_state_dict(torch.load(tmp_path / "q.pt", weights_only=True))
    other.quantize(torch.randn(100) * 1e-3)
    assert other.format == quantizer.format


def test_double_gives_the_same_codes() -> None:
    torch.manual_seed(0)
    x = torch.randn(1000)
    quantizer = FixedQuantizer(Fixed(7))
    codes = quantizer.quantize(x).detach()
    assert torch.equal(quantizer.double().quantize(x.double()).float(), codes)


def test_shared_binary_points_are_listed_once() -> None:
    quantizer = FixedQuantizer(Fixed(8))
    model = nn.ModuleList([nn.ModuleList([quantizer]), nn.ModuleList([quantizer]), FixedQuantizer(Fixed(4))])
    assert len(binary_points(model)) == 2


@pytest.mark.parametrize("slope", [0.1, 0.3, 2.0, -0.5, 0.0])
def test_other_slopes_are_refused(slope: float) -> None:
    with pytest.raises(UnsupportedError, match="power of two"):
        leaky_relu(slope)


def test_widths_beyond_float64_are_refused() -> None:
    with pytest.raises(InputError, match="64 bits cannot be trained"):
        FixedQuantizer(Fixed(64))
