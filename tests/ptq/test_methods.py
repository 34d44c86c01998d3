"""Each method against what it says it does, and on a trained network: the error of its result falls."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn

from qhw.formats import parse_format
from qhw.layers import QuantBatchNorm
from qhw.ptq.calibrated import Calibrated
from qhw.ptq.methods import methods_named
from qhw.ptq.methods.base import sum_layers
from qhw.ptq.reconstruction import Rounding
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig
from qhw.quantizers import make_quantizer
from qhw.quantizers.kernels.problem import Rule
from qhw.tracing import trace

Samples = tuple[Tensor, Tensor]
FEW_BITS = QuantConfig(weights="fixed<3>", activations="fixed<4>")


def output_sqnr(net: nn.Module, samples: Samples, methods: str, config: QuantConfig) -> float:
    """Of the network's result, on samples that were not calibrated with."""
    calibrated = Calibrated(net, samples[0], PtqSettings(methods), pixels=True)
    return calibrated.errors(calibrated.quantised(config), config, samples[1])[-1].sqnr


@pytest.mark.parametrize(
    ("method", "gain"),
    [
        ("bias-correction", 1.0),
        ("bn-reestimate", 1.0),
        ("gptq", 2.0),
        ("gpfq", 3.0),
        ("adaround", 3.0),
        ("flexround", 3.0),
    ],
)
@pytest.mark.parametrize("weights", ["fixed<3>", "e2m1", "khot<4,1>"])
def test_what_adjusts_layers_lowers_the_error(
    net: nn.Module, samples: Samples, method: str, gain: float, weights: str
) -> None:
    config = QuantConfig(weights=weights, activations="fixed<6>")
    assert output_sqnr(net, samples, method, config) > output_sqnr(net, samples, "none", config) + gain


@pytest.mark.parametrize("method", ["equalize", "smoothquant", "preshift"])
@pytest.mark.parametrize("format", ["fixed<4>", "e3m2"])
def test_what_scales_channels_lowers_the_error_where_they_are_uneven(
    uneven: nn.Module, samples: Samples, method: str, format: str
) -> None:
    config = QuantConfig(weights=format, activations=format)
    assert output_sqnr(uneven, samples, method, config) > output_sqnr(uneven, samples, "none", config) + 1.0


def test_folding_lowers_the_error_where_the_constants_have_few_bits(net: nn.Module, samples: Samples) -> None:
    config = QuantConfig(weights="fixed<6>", scales="fixed<4>", per_channel=True)
    assert output_sqnr(net, samples, "bn-fold", config) > output_sqnr(net, samples, "none", config) + 3.0


@pytest.mark.parametrize("method", ["bn-fold", "equalize", "smoothquant", "preshift", "bn-fold,equalize"])
def test_what_is_done_in_float_leaves_the_function(uneven: nn.Module, samples: Samples, method: str) -> None:
    calibrated = Calibrated(uneven, samples[0], PtqSettings(method), pixels=True)
    assert all(places > 0 for places in calibrated.changed.values())
    with torch.no_grad():
        before, after = uneven(samples[1]), calibrated.network(samples[1])
    assert not torch.equal(calibrated.network.conv2.weight, uneven.conv2.weight)
    assert float((after - before).abs().max()) < 1e-4 * float(before.abs().max())


class Twice(nn.Module):
    """One convolution that is called twice, and a network that ends in a convolution over a line."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv1d(3, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)
        self.norm, self.last = nn.BatchNorm1d(4, affine=False), nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = self.norm(self.again(torch.relu(self.again(x)) + x))
        result: Tensor = self.last(torch.relu(x).flatten(1))
        return result


@pytest.mark.parametrize("method", ["equalize", "smoothquant", "preshift", "bn-fold"])
def test_a_layer_that_is_called_twice_is_left_alone(method: str) -> None:
    torch.manual_seed(0)
    model, x = Twice().eval(), torch.randn(16, 3, 8)
    model.norm.running_mean += torch.randn(4)
    model.norm.running_var *= torch.rand(4) + 0.5
    calibrated = Calibrated(model, x, PtqSettings(method))
    assert torch.equal(calibrated.network.again.weight, model.again.weight)
    with torch.no_grad():
        torch.testing.assert_close(calibrated.network(x), model(x))


def test_folding_takes_every_norm_and_leaves_convolutions_with_biases(
    net: nn.Module, samples: Samples
) -> None:
    folded = Calibrated(net, samples[0], PtqSettings("bn-fold"), pixels=True).network
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    factor = net.norm1.weight / (net.norm1.running_var + net.norm1.eps).sqrt()
    torch.testing.assert_close(folded.conv1.weight, net.conv1.weight * factor[:, None, None, None])
    torch.testing.assert_close(folded.conv1.bias, net.norm1.bias - net.norm1.running_mean * factor)


def test_equalized_layers_have_equal_ranges(uneven: nn.Module, samples: Samples) -> None:
    network = Calibrated(uneven, samples[0], PtqSettings("bn-fold,equalize"), pixels=True).network
    writing = network.conv2.weight.detach().abs().flatten(1).amax(1)
    reading = network.classify.weight.detach().abs().reshape(10, 16, 16).amax((0, 2))
    before = uneven.classify.weight.detach().abs().reshape(10, 16, 16).amax((0, 2))
    assert float((reading / writing).log2().std()) < 0.5 * float(before.log2().std())


def test_shifts_are_powers_of_two(uneven: nn.Module, samples: Samples) -> None:
    network = Calibrated(uneven, samples[0], PtqSettings("preshift"), pixels=True).network
    shifts = (network.norm1.weight / uneven.norm1.weight).log2()
    assert torch.equal(shifts, shifts.round())
    assert len(shifts.unique()) > 2
    undone = network.conv2.weight * torch.exp2(shifts)[:, None, None]
    assert torch.equal(undone, uneven.conv2.weight)  # exact: only exponents moved


def test_corrected_layers_have_no_mean_error(net: nn.Module, samples: Samples) -> None:
    """Of each layer's sum, on the samples that were looked at, given what the float layer is given."""

    def mean_error(methods: str) -> float:
        calibrated = Calibrated(net, samples[0], PtqSettings(methods), pixels=True)
        quantised = calibrated.quantised(FEW_BITS)
        with torch.no_grad():
            exact = net.norm1(net.conv1(net.normalize(samples[0])))
            scale, bias = quantised.norm1.constants()
            rounded = quantised.conv1(net.normalize(samples[0]))
            gained = rounded * scale.float()[:, None, None] + bias.float()[:, None, None]
        return float((gained - exact).mean((0, 2, 3)).abs().mean())

    assert mean_error("bias-correction") < 0.3 * mean_error("none")


def test_biases_are_added_where_there_is_none(samples: Samples) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 8, bias=False), nn.ReLU(), nn.Linear(8, 3, bias=False))
    calibrated = Calibrated(model, samples[0] / 16, PtqSettings("bias-correction"))
    quantised = calibrated.quantised(QuantConfig(weights="fixed<3>"))
    assert calibrated.changed == {"bias-correction": 2}
    assert all(bool(layer.bias.any()) for _, layer in sum_layers(quantised))


def test_statistics_are_those_of_the_quantised_layers(net: nn.Module, samples: Samples) -> None:
    calibrated = Calibrated(net, samples[0], PtqSettings("bn-reestimate"), pixels=True)
    quantised = calibrated.quantised(FEW_BITS)
    with torch.no_grad():
        sums = quantised.conv1(net.normalize(samples[0])).transpose(0, 1).flatten(1)
    torch.testing.assert_close(quantised.norm1.running_mean, sums.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(quantised.norm1.running_var, sums.var(1), rtol=1e-4, atol=1e-5)
    assert all(
        m.momentum == 0.1 and not m.training for m in quantised.modules() if isinstance(m, QuantBatchNorm)
    )


@pytest.mark.parametrize("method", ["gptq", "gpfq", "adaround", "flexround"])
def test_rounding_leaves_nothing_behind(net: nn.Module, samples: Samples, method: str) -> None:
    """No hook, no buffer, no other forward(): the network is the one that conversion gives."""
    plain = Calibrated(net, samples[0], PtqSettings("none"), pixels=True).quantised(FEW_BITS)
    quantised = Calibrated(net, samples[0], PtqSettings(method), pixels=True).quantised(FEW_BITS)
    assert quantised.state_dict().keys() == plain.state_dict().keys()
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in quantised.modules())
    copied = copy.deepcopy(quantised)
    with torch.no_grad():
        assert torch.equal(copied(samples[1]), quantised(samples[1]))
    assert not torch.equal(quantised.conv2.quant_weight(), plain.conv2.quant_weight())


# --- learned rounding: one layer


def problem(text: str, *, outputs: int = 6, inputs: int = 8) -> tuple[Rounding, Tensor, Tensor]:
    """A small layer whose inputs go together, so that rounding one weight by itself is not best."""
    generator = torch.Generator().manual_seed(1)
    mixed = torch.randn(inputs, inputs, generator=generator)
    exact = mixed @ torch.randn(inputs, 500, generator=generator)
    rounded = exact + 0.05 * torch.randn(inputs, 500, generator=generator)
    weight = torch.randn(outputs, inputs, generator=generator)
    quantizer = make_quantizer(parse_format(text))
    quantizer.start(weight)
    unit = torch.from_numpy(quantizer.unit).float().expand(outputs).reshape(-1, 1)
    moments = rounded @ rounded.T / 500, exact @ rounded.T / 500
    energy = (weight @ exact).square().mean(1)
    return Rounding(weight, unit, Rule.of(parse_format(text)), *moments, energy), exact, rounded


GRIDS = ("fixed<3>", "e2m1", "khot<4,1>", "ternary", "fixed<4,1,RND_CONV,WRAP>")


def numbers(text: str) -> list[int]:
    """Every mantissa of a format."""
    format = parse_format(text)
    return sorted({int(format.mantissa_of([code])[0]) for code in format.codes()})


@pytest.mark.parametrize("text", GRIDS)
def test_errors_are_those_of_the_layers_result(text: str) -> None:
    layer, exact, rounded = problem(text)
    nearest = layer.nearest(layer.weight)
    direct = (layer.weight @ exact - nearest @ rounded).square().mean(1)
    torch.testing.assert_close(layer.errors(nearest), direct, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("text", GRIDS)
def test_neighbours_are_the_next_numbers_of_the_format(text: str) -> None:
    layer, *_ = problem(text)
    grid = numbers(text)
    places = [(x / layer.unit).flatten().tolist() for x in (layer.weight, *layer.neighbours())]
    for place, below, above in zip(*places, strict=True):
        assert below == max((g for g in grid if g <= place), default=grid[0])
        assert above == min((g for g in grid if g >= place), default=grid[-1])


@pytest.mark.parametrize("text", ["fixed<3>", "e2m1", "khot<4,1>"])
@pytest.mark.parametrize(("method", "share"), [("adaround", 0.3), ("flexround", 0.7)])
def test_learned_rounding_comes_nearer_to_the_best_there_is(text: str, method: str, share: float) -> None:
    """Of all 2^8 ways to round the weights of an output up or down, the best is found by trying them."""
    layer, *_ = problem(text)
    (rounding,) = methods_named([method])
    solved = rounding.solve(layer).detach()  # type: ignore[attr-defined]
    low, high = layer.neighbours()
    choices = torch.tensor(list(itertools.product((0.0, 1.0), repeat=8)))
    best = []
    for row in range(len(layer.weight)):
        tried = low[row] + choices * (high[row] - low[row])
        own = ((tried @ layer.rounded) * tried).sum(1) - 2 * tried @ (layer.weight[row] @ layer.crossed)
        best.append(float((own + layer.energy[row]).min()))
    nearest = float(layer.errors(layer.nearest(layer.weight)).sum())
    found = float(layer.errors(solved).sum())
    assert nearest - found > share * (nearest - sum(best))
    quantizer = make_quantizer(parse_format(text))
    quantizer.start(layer.weight)
    assert torch.equal(quantizer.quantize(solved).detach(), solved)  # numbers of the format


def test_only_layers_with_places_are_traced_to_change() -> None:
    """A network without anything to equalize says so."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    network = trace(model, torch.randn(2, 4))
    (method,) = methods_named(["equalize"])
    assert method.prepare(network, torch.randn(4, 4)) == 0
