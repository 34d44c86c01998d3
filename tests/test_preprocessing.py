"""Preprocessing: from texts, and as the first layer of a network whose layers keep their names."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from qhw.errors import InputError
from qhw.preprocessing import Preprocess
from qhw.tracing import trace

IMAGENET = "scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225"


def test_the_text_and_the_mapping_say_the_same() -> None:
    given = {"scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": (0.229, 0.224, 0.225)}
    assert Preprocess.of(IMAGENET) == Preprocess.of(given)
    assert Preprocess.of(None).is_none


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("scael=2", "unknown preprocessing 'scael'"),
        ("scale=a", "is 'a'"),
        ("scale=1/0", "is '1/0'"),
        ("scale=1,2", "several numbers"),
        ("std=0", "no preprocessing"),
        ("mean=nan", "is 'nan'"),
        ("mean=1,2,3 std=1,2", "3 means and 2 deviations"),
    ],
)
def test_other_texts_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        Preprocess.of(text)


def test_it_is_the_first_layer_and_names_stay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    pixels = torch.randint(0, 256, (2, 3, 6, 6)).float()
    whole = Preprocess.of(IMAGENET).before(net, pixels.shape).eval()
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    torch.testing.assert_close(whole(pixels), net.eval()((pixels / 255 - mean) / std), rtol=1e-4, atol=1e-4)
    assert {name for name, _ in net.named_parameters()} == {name for name, _ in whole.named_parameters()}
    assert whole.train().get_submodule("1").training
    assert net.training


def test_a_layer_may_be_called_like_anything() -> None:
    """Whatever the wrapper itself keeps."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    for name in ("network", "layers", "arguments", "preprocessed"):
        net.add_module(name, nn.Sequential(nn.ReLU(), nn.Linear(3, 3)))
    x = torch.rand(5, 1, 2, 2)
    whole = Preprocess.of("scale=1/2 mean=0.25").before(net, x.shape)
    traced = trace(whole, x)
    torch.testing.assert_close(traced(x), net(x / 2 - 0.25))
    assert [node.target for node in traced.graph.nodes if node.op == "placeholder"] == ["x"]


def test_channels_must_agree() -> None:
    with pytest.raises(InputError, match="3 channels, the samples have 1"):
        Preprocess.of(IMAGENET).before(nn.Flatten(), (2, 1, 6, 6))
    assert np.isclose(Preprocess.of("scale=1/255").scale, 1 / 255)
