"""Conversion: against the float model with wide formats, and what becomes of each layer."""

from __future__ import annotations

import copy

import pytest
import torch
from brevitas import nn as qnn
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch_nets import NETS, Net, build, inputs

from qhw.convert import QuantConfig, convert
from qhw.errors import InputError, UnsupportedError
from qhw.formats import Fixed
from qhw.layers import Normalize, QuantActivation, QuantAdd, QuantBatchNorm, QuantConcat
from qhw.quantizers import RELU, FixedQuantizer, first_not_finite

WIDE = QuantConfig(
    weights="fixed<22>",
    biases="fixed<24>",
    scales="fixed<22>",
    activations="fixed<22>",
    inputs="fixed<16>",
    outputs="fixed<24>",
)


def sites(model: nn.Module) -> dict[str, FixedQuantizer]:
    return {
        path[: -len(".result")]: q
        for path, q in model.named_modules(remove_duplicate=False)
        if path.endswith(".result")
    }


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_wide_formats_give_the_float_model(name, per_channel):
    model, shape = build(name)
    x = inputs(shape, 16)
    config = QuantConfig(**{**vars(WIDE), "per_channel": per_channel})
    quantised = convert(model, config, shape).eval()
    with torch.no_grad():
        quantised(x)
        torch.testing.assert_close(quantised(x), model(x), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", NETS)
def test_the_given_model_is_left_alone(name):
    model, shape = build(name)
    before = copy.deepcopy(model.state_dict())
    random_state = torch.get_rng_state()
    quantised = convert(model.train(), WIDE, shape)
    assert torch.equal(torch.get_rng_state(), random_state)
    quantised(inputs(shape, 4)).sum().backward()
    assert quantised.training
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", NETS)
def test_every_parameter_is_trained(name):
    model, shape = build(name)
    quantised = convert(model, QuantConfig(), shape).train()
    quantised(inputs(shape, 8)).square().sum().backward()
    idle = {path for path, p in quantised.named_parameters() if p.requires_grad and p.grad is None}
    assert not idle


def test_sums_stay_exact_up_to_a_norm_or_an_activation():
    net = Net(
        lambda m, x: m.c(m.relu(m.b(m.norm(m.a(x))))),
        a=nn.Conv2d(1, 2, 3),
        norm=nn.BatchNorm2d(2),
        b=nn.Conv2d(2, 2, 3),
        relu=nn.ReLU(),
        c=nn.Conv2d(2, 2, 3),
    )
    quantised = convert(net, QuantConfig(), (1, 8, 8))
    assert set(sites(quantised)) == {"x_result", "norm", "relu", "c_result"}
    assert isinstance(quantised.a, qnn.QuantConv2d)
    assert isinstance(quantised.norm, QuantBatchNorm)
    assert isinstance(quantised.relu, QuantActivation)


def test_activation_runs_in_the_pass_of_norm_or_add():
    model, shape = build("residual")
    quantised = convert(model, QuantConfig(), shape)
    found = sites(quantised)
    assert isinstance(quantised.add, QuantAdd)
    assert found["add"].activation == RELU
    assert found["add"].spec == Fixed(8, signed=False)
    assert found["norm"].activation.is_identity
    assert "relu" in found  # behind the stem; the stem's other call has a result of its own
    assert "stem_1_result" in found


def test_branches_that_meet_share_one_quantizer():
    model, shape = build("branches")
    quantised = convert(model, QuantConfig(), shape)
    found = sites(quantised)
    assert found["relu"] is found["norm"] is found["relu_2"]
    assert isinstance(quantised.concat_2, QuantConcat)  # with the input: unlike formats
    assert not isinstance(quantised.concat, QuantConcat)


def test_sums_and_pools_of_unsigned_numbers_are_unsigned():
    net = Net(
        lambda m, x: m.c(m.pool(F.relu(m.a(x)) + F.relu(m.b(x)))),
        a=nn.Conv2d(1, 2, 1),
        b=nn.Conv2d(1, 2, 1),
        pool=nn.AvgPool2d(2),
        c=nn.Conv2d(2, 2, 1),
    )
    found = sites(convert(net, QuantConfig(), (1, 4, 4)))
    assert not found["add"].spec.signed
    assert not found["pool"].spec.signed
    stated = sites(convert(net, QuantConfig(activations="fixed<8,3>"), (1, 4, 4)))
    assert stated["pool"].spec == Fixed(8, 3)


def test_pixels_are_exact():
    plain = Net(lambda m, x: m.a(x), a=nn.Conv2d(1, 2, 1))
    normalised = Net(lambda m, x: m.a(m.n(x)), n=Normalize(exponent=-8), a=nn.Conv2d(1, 2, 1))
    pixels = torch.arange(256.0).reshape(1, 1, 16, 16)
    assert sites(convert(plain, QuantConfig(), pixels))["x_result"].format == Fixed(8, 8, signed=False)
    assert sites(convert(normalised, QuantConfig(), (1, 4, 4)))["n_result"].format == Fixed(
        8, 0, signed=False
    )
    assert sites(convert(plain, QuantConfig(), pixels / 7))["x_result"].spec == Fixed(8)
    chosen = sites(convert(plain, QuantConfig(inputs="fixed<5,2>"), pixels))
    assert chosen["x_result"].spec == Fixed(5, 2)


def test_overrides_by_pattern():
    model, shape = build("sequential")
    config = QuantConfig(
        overrides={"2.*": {"weights": "fixed<3>", "activations": "fixed<12,4>"}, "?": {"weights": "fixed<5>"}}
    )
    quantised = convert(model, config, shape)
    weights = {
        path: m.weight_quant.quantizer.spec.width
        for path, m in quantised.named_modules()
        if hasattr(m, "weight_quant")
    }
    assert weights == {"0": 5, "2.2": 3}
    assert str(sites(quantised)["2.2_result"].spec) == "fixed<12,4>"


def test_override_of_nothing():
    model, shape = build("mlp")
    with pytest.raises(InputError, match=r"'hiden' matches no layer[\s\S]*hidden"):
        convert(model, QuantConfig(overrides={"hiden": {"weights": "fixed<3>"}}), shape)


class Custom(nn.Module):
    def __init__(self, layer: nn.Module | None = None) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3), layer if layer is not None else nn.ReLU())
        self.shift = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.body(x)


class Subclassed(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (nn.Softmax(1), "layer body.1: Softmax.*\n.*Linear.*\n.*leave it out"),
        (nn.GELU(), "layer body.1: GELU"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "body.1.*'reflect'"),
        (nn.Conv2d(2, 2, 2, padding="same"), "body.1.*even kernel"),
        (nn.MaxPool2d(2, ceil_mode=True), "body.1.*ceil_mode"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), "body.1.*not counted"),
        (nn.AvgPool2d(3, divisor_override=5), "body.1.*divisor_override"),
        (nn.AdaptiveAvgPool2d(4), "body.1.*6, 6"),
        (nn.BatchNorm2d(2, track_running_stats=False), "body.1.*running statistics"),
        (nn.LeakyReLU(0.1), "layer body.1.*power of two"),
        (nn.LeakyReLU(-0.5), "layer body.1.*slope"),
        (nn.ConvTranspose2d(2, 2, 3), "body.1: ConvTranspose2d"),
        (nn.Flatten(0), "body.1"),
        (Normalize(exponent=-2), "body.1[\\s\\S]*first layer"),
        (Subclassed(2, 2, 3), "module body.1"),
    ],
)
def test_unsupported_layers_are_named(layer, says):
    with pytest.raises(UnsupportedError, match=says):
        convert(Custom(layer), QuantConfig(), (1, 8, 8))


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda m, x: torch.sigmoid(m.a(x)), "sigmoid cannot be converted"),
        (lambda m, x: m.a(x) + 1.0, "addition of a constant"),
        (lambda m, x: m.a(x) - m.a(x), "sub cannot be converted"),
        (lambda m, x: m.a(x) + m.a(x).mean((2, 3), keepdim=True), "addition of shapes"),
        (lambda m, x: torch.cat((m.a(x), m.a(x))), "along the batch"),
        (lambda m, x: m.a(x).flatten(), "batch axis"),
        (lambda m, x: m.a(x).mean(1), "mean over"),
        (lambda m, x: m.a(x).softmax(1), "softmax cannot[\\s\\S]*leave it out"),
        (lambda m, x: m.a(x) if x.sum() > 0 else x, "cannot be traced"),
        (lambda m, x: (m.a(x), x), "more than one tensor"),
        (lambda m, x: F.conv2d(x, m.a.weight), "conv2d cannot be converted"),
    ],
)
def test_unsupported_functions(forward, says):
    with pytest.raises(UnsupportedError, match=says):
        convert(Net(forward, a=nn.Conv2d(1, 2, 3)), QuantConfig(), (1, 8, 8))


def test_wrong_example():
    with pytest.raises(InputError, match=r"does not run on an input of shape \(2, 3, 8, 8\)"):
        convert(Custom(), QuantConfig(), (3, 8, 8))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_weights(bad):
    model = Custom()
    model.body[0].weight.data[0, 0, 0, 0] = bad
    with pytest.raises(InputError, match=r"1 of 18 numbers in body\.0\.weight"):
        convert(model, QuantConfig(), (1, 8, 8))


def test_quantised_already():
    model = convert(Custom(), QuantConfig(), (1, 8, 8))
    with pytest.raises(InputError, match="quantised already"):
        convert(model, QuantConfig(), (1, 8, 8))


def test_layers_called_twice_share_weights_and_not_results():
    model, shape = build("functions")
    quantised = convert(model, QuantConfig(), shape)
    assert sum(isinstance(module, qnn.QuantConv2d) for module in quantised.modules()) == 2
    found = sites(quantised)
    assert len({id(q) for q in found.values()}) == len(found)


def test_nan_that_reaches_a_quantizer_is_told_with_its_layer() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))
    quantised = convert(model, QuantConfig(weights="e4m3", activations="e4m3"), (1, 8, 8)).train()
    images = torch.randn(2, 1, 8, 8)
    broken = images.clone()
    broken[1, 0, 3, 3] = float("nan")
    with pytest.raises(
        InputError, match="Layer input_1_result: a quantizer of fixed<8> was given NaN or infinity"
    ):
        copy.deepcopy(quantised)(broken)
    quantised(images)
    assert first_not_finite(quantised, images) == ""
    assert first_not_finite(quantised, broken) == "input_1_result"
    with torch.no_grad():
        quantised.get_submodule("0").weight[0, 0, 0, 0] = float("inf")
    assert first_not_finite(quantised, images) == "0.weight_quant"
