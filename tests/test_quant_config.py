"""Settings of a conversion: text in, formats out, and what is refused."""

from __future__ import annotations

import copy
import json

import pytest

from qhw.errors import InputError
from qhw.formats import Fixed, Overflow, Rounding
from qhw.quant_config import QuantConfig, unsigned_if_learned


def test_text_becomes_formats():
    config = QuantConfig(
        weights="fixed<4,TRN,WRAP>", activations=Fixed(6, 2), overrides={"a": {"biases": "fixed<9>"}}
    )
    assert str(config.weights) == "fixed<4,TRN,WRAP>"
    assert config.layer("a").biases == Fixed(9)
    assert config.layer("b").biases == Fixed(16)
    assert config.layer("b").weights.overflow is Overflow.WRAP


def test_later_overrides_win_and_paths_of_a_fused_layer_count_together():
    config = QuantConfig(
        overrides={
            "*": {"weights": "fixed<3>"},
            "norm": {"activations": "fixed<5>"},
            "b?": {"weights": "fixed<2>"},
        }
    )
    assert config.layer("b1").weights.width == 2
    assert config.layer("norm", "relu").activations.width == 5
    assert config.result("norm", last=True).width == 5
    assert config.result("head", last=True) == config.outputs


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"weights": "fix<8>"}, "weights: .*fix<8>"),
        ({"weights": 8}, "weights is 8"),
        ({"wieghts": "fixed<8>"}, "unknown quantisation setting 'wieghts'[\\s\\S]*weights"),
        ({"overrides": {"a": {"weight": "fixed<8>"}}}, "'a': unknown setting 'weight'[\\s\\S]*weights"),
        ({"overrides": {"a": "fixed<8>"}}, "override 'a' is 'fixed<8>'"),
        ({"overrides": {"a": {"weights": "int"}}}, "override 'a', weights"),
        ({"scaling": "log"}, "scaling is 'log'[\\s\\S]*power_of_two, free, exponent_bias"),
        ({"overrides": {"a": {"scaling": 1}}}, "override 'a', scaling is 1"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(InputError, match=says):
        QuantConfig.from_mapping(settings)


def test_what_is_trained_of_a_scale_is_a_setting_of_layers():
    config = QuantConfig(scaling="free", overrides={"a": {"scaling": "power_of_two"}})
    assert [config.layer(path).scaling for path in ("a", "b")] == ["power_of_two", "free"]
    again = QuantConfig.from_mapping(config.to_mapping())
    assert repr(again) == repr(config) != repr(QuantConfig())


def test_equal_text_means_equal_settings():
    first, second = QuantConfig(), QuantConfig(weights="fixed<8,TRN,SAT>")
    assert repr(first) == repr(QuantConfig.from_mapping({"per_channel": False}))
    assert repr(first) != repr(second)  # the formats are equal, the modes are not
    assert repr(copy.deepcopy(second)) == repr(second)


def test_settings_survive_as_plain_values():
    config = QuantConfig(
        weights="fixed<4,1,RND,WRAP>",
        inputs="ufixed<8,8>",
        overrides={"head": {"per_channel": True, "biases": "fixed<12>"}},
    )
    plain = json.loads(json.dumps(config.to_mapping()))
    assert repr(QuantConfig.from_mapping(plain)) == repr(config)
    assert QuantConfig.from_mapping(plain).layer("head").biases == config.layer("head").biases


def test_unsigned_only_where_the_binary_point_is_open():
    assert unsigned_if_learned(Fixed(8)) == Fixed(8, signed=False)
    assert unsigned_if_learned(Fixed(8, 3)) == Fixed(8, 3)
    assert unsigned_if_learned(Fixed(8, rounding=Rounding.TRN)).rounding is Rounding.TRN
    assert unsigned_if_learned(Fixed(8, overflow=Overflow.WRAP_SM)).signed
