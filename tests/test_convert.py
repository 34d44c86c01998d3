"""Conversion: against the float model with wide formats, and what becomes of each layer."""

from __future__ import annotations

import copy
import math

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
        (nn.LSTM(6, 3), "layer body.1: LSTM[\\s\\S]*Conv1d"),
        (nn.MultiheadAttention(6, 2), "layer body.1: MultiheadAttention"),
        (nn.Embedding(4, 2), "layer body.1: Embedding[\\s\\S]*one-hot"),
        (nn.LayerNorm(6), "layer body.1: LayerNorm[\\s\\S]*BatchNorm"),
        (nn.Conv3d(1, 1, 1), "layer body.1: Conv3d[\\s\\S]*two-dimensional"),
        (nn.Softplus(beta=2), "layer body.1.*beta=2"),
        (nn.Upsample(scale_factor=3, mode="bilinear"), "layer body.1.*\\(3, 3\\)[\\s\\S]*nearest"),
        (nn.Upsample(scale_factor=2, mode="bicubic"), "layer body.1.*bicubic"),
        (nn.AdaptiveMaxPool2d(4), "layer body.1.*6, 6"),
        (nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"), "body.1.*'reflect'"),
        (nn.Conv2d(2, 2, 2, padding="same"), "body.1.*even kernel"),
        (nn.AvgPool2d(4, ceil_mode=True), "body.1.*ceil_mode"),
        (nn.AvgPool2d(3, padding=1, count_include_pad=False), "body.1.*not counted"),
        (nn.AvgPool2d(3, divisor_override=5), "body.1.*divisor_override"),
        (nn.AdaptiveAvgPool2d(4), "body.1.*6, 6"),
        (nn.BatchNorm2d(2, track_running_stats=False), "body.1.*running statistics"),
        (nn.LeakyReLU(-0.5), "layer body.1.*slope"),
        (nn.Flatten(0), "body.1"),
        (Normalize(exponent=-2), "body.1[\\s\\S]*first layer"),
    ],
)
def test_unsupported_layers_are_named(layer, says):
    with pytest.raises(UnsupportedError, match=says):
        convert(Custom(layer), QuantConfig(), (1, 8, 8))


@pytest.mark.parametrize(
    ("forward", "says"),
    [
        (lambda m, x: m.a(x).log(), "log cannot be converted"),
        (lambda m, x: m.a(x) + torch.ones(2, 1, 1, 1), "add.*constant of shape"),
        (lambda m, x: m.a(x) / m.a(x), "division by a tensor"),
        (lambda m, x: m.a(x) ** 3, "power of 3"),
        (lambda m, x: m.a(x) + m.a(x)[:, 0], "add of shapes"),
        (lambda m, x: m.a(x).mul(m.a(x).max().item()), "item|max"),
        (lambda m, x: m.a(x)[:, [0, 1]], "the index"),
        (lambda m, x: m.a(x)[:1], "the index"),
        (lambda m, x: m.a(x).transpose(0, 1), "moves the batch axis"),
        (lambda m, x: F.pad(m.a(x), (1, 1, 1, 1), mode="reflect"), "padding mode 'reflect'"),
        (lambda m, x: m.a(x).expand(2, 2, 6, 6).flatten(1), "expanded"),
        (lambda m, x: m.a(x) @ m.a(x)[:, 0], "matrix product"),
        (lambda m, x: m.a(x).long(), "long cannot be converted"),
        (lambda m, x: torch.cat((m.a(x), m.a(x))), "along the batch"),
        (lambda m, x: m.a(x).flatten(), "batch axis"),
        (lambda m, x: m.a(x).mean(), "mean over"),
        (lambda m, x: m.a(x).sum((0, 1)), "sum over"),
        (lambda m, x: m.a(x).softmax(1), "softmax cannot[\\s\\S]*leave it out"),
        (lambda m, x: m.a(x) if x.sum() > 0 else x, "cannot be traced.*test_convert.py, line"),
        (lambda m, x: m.a(x) * int(x.max()), "cannot be traced[\\s\\S]*values of tensors"),
        (lambda m, x: (m.a(x), x), "more than one tensor"),
        (lambda m, x: F.linear(x.flatten(1), x.flatten(1)), "weights that are computed"),
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


class InPlace(nn.Module):
    """Changes a tensor that it uses again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.conv(x)
        return self.act(x) + x


def test_what_is_changed_in_place_is_refused():
    with pytest.raises(UnsupportedError, match="compute something else"):
        convert(InPlace(), QuantConfig(), (1, 8, 8))


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (lambda: torch.jit.script(nn.Sequential(nn.Linear(4, 2))), "TorchScript"),
        (lambda: nn.Sequential(torch.ao.quantization.QuantStub(), nn.Linear(4, 2)), "layer 0 .*torch.ao"),
        (
            lambda: nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 2))),
            "layer 0.*hook.*\n.*remove_weight_norm",
        ),
    ],
)
def test_models_of_other_kinds_are_refused(model, says):
    with pytest.raises(UnsupportedError, match=says):
        convert(model(), QuantConfig(), (4,))


def test_a_module_without_forward():
    with pytest.raises(InputError, match=r"Module has no forward\(\)"):
        convert(nn.Module(), QuantConfig(), (4,))


def equal_to(model: nn.Module, plain: nn.Module) -> None:
    """Both give one and the same quantised network."""
    x = inputs((4,), 16)
    found, wanted = (convert(m, QuantConfig(), (4,)).eval() for m in (model, plain))
    assert torch.equal(found(x), wanted(x))
    assert torch.equal(found(x), wanted(x))


def test_parametrised_weights_are_what_they_compute():
    plain = nn.Sequential(nn.Linear(4, 2))
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(copy.deepcopy(plain[0])))
    plain[0].weight.data = model[0].weight.data.clone()
    equal_to(model, plain)
    assert nn.utils.parametrize.is_parametrized(model[0])


def test_wrapped_models():
    plain = nn.Sequential(nn.Linear(4, 2))
    equal_to(nn.DataParallel(plain), plain)
    equal_to(torch.compile(plain), plain)
    equal_to(copy.deepcopy(plain).bfloat16(), copy.deepcopy(plain).bfloat16().float())


def test_lazy_batch_norms_are_made_with_their_statistics():
    layers = nn.LazyConv2d(3, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    given = nn.Sequential(*layers)
    model = convert(given, QuantConfig(), (1, 5, 5))
    assert model(torch.rand(4, 1, 5, 5)).shape == (4, 2)
    assert given[1].has_uninitialized_params(), "the given model is left as it was"


@pytest.mark.parametrize(("given", "said"), [(nn.Linear, "the class Linear"), (None, "a NoneType")])
def test_what_is_no_module_is_told(given, said):
    with pytest.raises(InputError, match=f"the model is {said}") as error:
        convert(given, QuantConfig(), (4,))
    assert "torch.nn.Module" in str(error.value)


def test_lazy_layers_are_made():
    model = convert(nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(2)), QuantConfig(), (4,))
    assert model.get_submodule("0").weight.shape == (3, 4)


def test_layers_named_like_keywords():
    model = nn.Sequential()
    model.add_module("class", nn.Linear(4, 3))
    model.add_module("in", nn.ReLU())
    model.add_module("int", nn.Linear(3, 2))
    assert {"class_", "in_", "int"} <= dict(convert(model, QuantConfig(), (4,)).named_modules()).keys()


def test_frozen_parameters_stay_frozen():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.PReLU(), nn.Conv2d(2, 2, 3))
    for path in ("0.weight", "1.bias", "2.weight"):
        model.get_parameter(path).requires_grad_(False)
    quantised = convert(model, QuantConfig(), (1, 8, 8))
    needs = {path: p.requires_grad for path, p in quantised.named_parameters() if "theta" not in path}
    assert [path for path, needed in needs.items() if not needed] == ["0.weight", "1.bias", "2.weight"]


def test_arguments_with_a_default_keep_it():
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 2)

        def forward(self, x, mask=None, scale: float = 2.0):
            x = self.linear(x)
            return x * scale if mask is None else x * mask

    class Plain(Masked):
        def forward(self, x):
            return self.linear(x) * 2.0

    model = Masked()
    plain = Plain()
    plain.load_state_dict(model.state_dict())
    equal_to(model, plain)


def test_constants_that_follow_each_other_are_one():
    net = Net(lambda m, x: m.a((x / 255 - 0.5) / 0.25), a=nn.Conv2d(1, 2, 3))
    quantised = convert(net, QuantConfig(), (1, 8, 8))
    assert set(sites(quantised)) == {"x_result", "truediv_1", "a_result"}


def test_pixels_times_a_power_of_two_cost_nothing():
    net = Net(lambda m, x: m.a(x / 256), a=nn.Conv2d(1, 2, 3))
    pixels = torch.arange(64.0).reshape(1, 1, 8, 8)
    assert sites(convert(net, QuantConfig(), pixels))["truediv_result"].format == Fixed(8, 0, signed=False)


def test_functions_of_wide_numbers():
    net = Net(lambda m, x: torch.sigmoid(m.a(x)), a=nn.Conv2d(1, 2, 3))
    with pytest.raises(UnsupportedError, match="layer sigmoid: a function of numbers in fixed<20>"):
        convert(net, QuantConfig(activations="fixed<20>"), (1, 8, 8))


def test_functions_that_are_never_negative_are_unsigned():
    net = Net(lambda m, x: m.a(torch.sigmoid(m.a(x))), a=nn.Conv2d(2, 2, 3))
    assert not sites(convert(net, QuantConfig(), (2, 8, 8)))["sigmoid"].spec.signed


def depends_on_shapes(m: nn.Module, x: torch.Tensor) -> torch.Tensor:
    assert x.shape[1] == 1, "one channel"
    if x.size(-1) % 2 == 0:
        x = F.pad(x, (0, 1))
    for _ in range(x.dim() - 3):
        x = m.a(x) / math.sqrt(x.size(2))
    return x.mean((2, 3)) if len(x.shape) == 4 else x


def test_forward_may_depend_on_shapes():
    net = Net(depends_on_shapes, a=nn.Conv2d(1, 2, 3))
    x = inputs((1, 8, 8), 16)
    quantised = convert(net, WIDE, (1, 8, 8)).eval()
    with torch.no_grad():
        quantised(x)
        torch.testing.assert_close(quantised(x), net(x), rtol=1e-3, atol=1e-3)


def test_forward_may_not_depend_on_the_size_of_the_batch():
    net = Net(lambda m, x: m.a(x) / x.shape[0], a=nn.Conv2d(1, 2, 3))
    with pytest.raises(UnsupportedError, match="batches of another size"):
        convert(net, QuantConfig(), (1, 8, 8))
