"""One traced network for any formats: the same results as made anew, and nothing that was not to be seen."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import qhw
from qhw.checkpoints import weights_hash
from qhw.data import Dataset
from qhw.errors import InputError, UnsupportedError
from qhw.layers import QuantAffine
from qhw.layers.preprocessed import Preprocessed
from qhw.ptq.calibrated import Calibrated, skeleton, sqnr
from qhw.ptq.run import Shape, chosen_samples, quantise
from qhw.ptq.settings import PtqSettings
from qhw.quant_config import QuantConfig

Samples = tuple[Tensor, Tensor]

CONFIGS = (
    QuantConfig(weights="fixed<4>", activations="fixed<4>"),
    QuantConfig(weights="e2m1", activations="e3m2", overrides={"conv1": {"weights": "khot<6,2>"}}),
    QuantConfig(weights="fixed<5>", activations="fixed<6>", scaling="free"),
    QuantConfig(weights="e2m1", activations="e2m1", scaling="exponent_bias", per_channel=True),
)


@pytest.mark.parametrize("methods", ["none", "equalize,gptq,bias-correction"])
def test_formats_in_any_order_give_what_each_gives_alone(
    net: nn.Module, samples: Samples, methods: str
) -> None:
    settings = PtqSettings(methods)
    shared = Calibrated(net, samples[0], settings, pixels=True)
    before = weights_hash(net)
    order = [*CONFIGS, *reversed(CONFIGS)]
    found = [weights_hash(shared.quantised(config)) for config in order]
    assert found == found[::-1]
    for config, digest in zip(CONFIGS, found, strict=False):
        alone = Calibrated(net, samples[0], settings, pixels=True).quantised(config)
        assert weights_hash(alone) == digest
    assert weights_hash(net) == before


@pytest.mark.parametrize(
    "methods", ["none", "bn-fold,equalize,adaround,bias-correction", "gpfq,bn-reestimate"]
)
def test_the_skeleton_takes_its_numbers(net: nn.Module, samples: Samples, methods: str) -> None:
    settings = PtqSettings(methods)
    quantised = Calibrated(net, samples[0], settings, pixels=True).quantised(CONFIGS[1])
    empty = skeleton(net, CONFIGS[1], settings, samples[0][:2], pixels=True)
    with torch.no_grad():
        assert not torch.equal(empty(samples[1]), quantised(samples[1]))
        empty.load_state_dict(quantised.state_dict())
        assert torch.equal(empty(samples[1]), quantised(samples[1]))


def test_the_test_split_decides_nothing(net: nn.Module, digits: Dataset) -> None:
    other = dataclasses.replace(digits, test_x=255 - digits.test_x[:50], test_y=digits.test_targets[:50])
    settings = PtqSettings("gpfq,bias-correction", samples=128)
    first, second = (quantise(net, data, CONFIGS[0], settings) for data in (digits, other))
    assert weights_hash(first.model) == weights_hash(second.model)
    assert [error.sqnr for error in first.errors] == [error.sqnr for error in second.errors]
    assert first.quantised != second.quantised


def test_samples_are_drawn_from_the_training_split_by_their_seed(digits: Dataset) -> None:
    known = {x.tobytes() for x in digits.train_x.astype(np.float32)}
    draws = [chosen_samples(digits, PtqSettings(samples=100, seed=seed)) for seed in (0, 0, 1)]
    assert torch.equal(draws[0][0], draws[1][0])
    assert not torch.equal(draws[0][0], draws[2][0])
    for chosen, others in draws:
        first, second = ({x.numpy().tobytes() for x in part} for part in (chosen, others))
        assert first <= known
        assert second <= known
        assert len(first & second) <= 1  # two stored images are equal
    everything, others = chosen_samples(digits, PtqSettings(samples=5000))
    assert len(everything) == len(digits.train_x)
    assert len(others) == 128


def test_errors_by_layer_are_those_of_the_layers_results(net: nn.Module, samples: Samples) -> None:
    config = CONFIGS[0]
    calibrated = Calibrated(net, samples[0], PtqSettings("none"), pixels=True)
    quantised = calibrated.quantised(config)
    errors = {error.path: error for error in calibrated.errors(quantised, config, samples[1])}
    with torch.no_grad():
        exact = torch.relu(net.norm1(net.conv1(net.normalize(samples[1]))))
        rounded = quantised.norm1(quantised.conv1(quantised.normalize(samples[1])))
        noise = 10 * torch.log10(exact.square().sum() / (exact - rounded).square().sum())
        assert errors["norm1"].sqnr == pytest.approx(float(noise), abs=0.01)
        direct = sqnr(net(samples[1]), quantised(samples[1]))
    assert errors["classify_result"].sqnr == pytest.approx(direct, abs=0.1)  # the pool's 1/4 is exact
    assert errors["normalize_result"].sqnr == float("inf")  # pixels lose nothing
    assert (errors["norm1"].format, errors["conv1"].format) == ("ufixed<4>", "")


def test_more_bits_less_error(net: nn.Module, samples: Samples) -> None:
    calibrated = Calibrated(net, samples[0], PtqSettings("none"), pixels=True)
    found = []
    for bits in (3, 4, 5, 6, 8):
        config = QuantConfig(weights=f"fixed<{bits}>", activations=f"fixed<{bits}>")
        found.append(calibrated.errors(calibrated.quantised(config), config, samples[1])[-1].sqnr)
    assert found == sorted(found)


def test_a_preprocessing_keeps_its_precision(net: nn.Module, digits: Dataset) -> None:
    """Its constants have 16 bits whatever the formats of the network."""
    stored = dataclasses.replace(digits, train_x=digits.train_x * 15, test_x=digits.test_x * 15)
    plain = quantise(net, digits, CONFIGS[0], PtqSettings("none", samples=128))
    net.normalize = nn.Identity()
    gain, offset = np.full((1, 1, 1, 1), 1 / 240), np.zeros((1, 1, 1, 1))
    result = quantise(
        Preprocessed(net, {"x": (gain, offset)}), stored, CONFIGS[0], PtqSettings("none", samples=128)
    )
    assert result.quantised is not None
    assert result.quantised == pytest.approx(plain.quantised, abs=0.02)
    (affine,) = (part for part in result.model.modules() if isinstance(part, QuantAffine))
    assert affine.gain_quantizer is not None
    assert affine.gain_quantizer.spec.width == 16


def test_floats_come_in_through_a_quantizer(samples: Samples) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 1))
    x = torch.randn(200, 5)
    result = qhw.ptq(model, (x.numpy(), x.sum(1).numpy()), "fixed<6>", methods=())
    with torch.no_grad():
        assert sqnr(model(x), result(x)) > 20


def test_the_given_network_is_left_as_it_is(net: nn.Module, digits: Dataset) -> None:
    before = weights_hash(net)
    net.train()
    quantised = qhw.ptq(net, digits, "fixed<4>", methods="bn-fold,equalize,gptq", samples=32)
    assert (net.training, quantised.training) == (True, False)
    assert weights_hash(net) == before


def test_the_verb_takes_formats_in_every_way(net: nn.Module, digits: Dataset) -> None:
    ways = ("fixed<5>", {"weights": "fixed<5>", "activations": "fixed<5>"})
    ways = (*ways, QuantConfig(weights="fixed<5>", activations="fixed<5>"))  # type: ignore[assignment]
    found = {weights_hash(qhw.ptq(net, digits, way, methods="gptq", samples=64)) for way in ways}
    assert len(found) == 1


def test_what_cannot_be_quantised_is_refused(net: nn.Module, digits: Dataset) -> None:
    with pytest.raises(InputError, match="override 'nowhere' matches no layer"):
        qhw.ptq(net, digits, {"overrides": {"nowhere": {"weights": "fixed<4>"}}})
    with pytest.raises(InputError, match="neither data nor a shape"):
        qhw.ptq(net, None)
    with pytest.raises(InputError, match="quantised already"):
        qhw.ptq(qhw.ptq(net, digits, methods=(), samples=16), digits)
    with pytest.raises(UnsupportedError, match="GRU"):
        qhw.ptq(nn.Sequential(nn.Flatten(1, 2), nn.GRU(8, 4)), digits)
    with pytest.raises(InputError, match="the shape of a sample"):
        quantise(net, Shape(()), QuantConfig())
