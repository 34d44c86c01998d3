"""Converted torch models, exported and lowered: every layer has torch's values, in every mode."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("brevitas")

from torch import nn  # noqa: E402

from qhw.convert import convert  # noqa: E402
from qhw.export import export_qonnx, layer_values  # noqa: E402
from qhw.graph.encode import decode_output, encode_inputs  # noqa: E402
from qhw.graph.interpreter import interpret  # noqa: E402
from qhw.graph.lower import lower  # noqa: E402
from qhw.quant_config import QuantConfig  # noqa: E402


class Images(nn.Module):
    """Padded, dilated, depthwise and 1x1 convolutions, every activation, both pools, add and concat."""

    shape = (3, 8, 8)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu6 = (
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU6(),
        )
        self.depthwise, self.leaky = nn.Conv2d(8, 8, 3, padding=2, dilation=2, groups=8), nn.LeakyReLU(0.125)
        self.short = nn.Conv2d(3, 8, 1)
        self.mean, self.most = nn.AvgPool2d(3, stride=2, padding=1), nn.MaxPool2d(3, 2, 1)
        self.whole, self.drop, self.classify = nn.AdaptiveAvgPool2d(1), nn.Dropout(), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu6(self.norm(self.conv(x)))
        short = self.short(x)
        joined = torch.cat([self.leaky(self.depthwise(y)) + short, y], 1)
        joined = torch.cat([self.mean(joined), self.most(short)], 1)
        return self.classify(self.drop(torch.flatten(self.whole(joined), 1)))


class Signals(nn.Module):
    """One spatial axis, and batch norm behind a linear layer."""

    shape = (3, 32)

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.pool = (
            nn.Conv1d(3, 8, 5, padding=2, stride=2),
            nn.BatchNorm1d(8),
            nn.MaxPool1d(2),
        )
        self.linear, self.last = nn.Linear(64, 6), nn.BatchNorm1d(6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(torch.relu(self.norm(self.conv(x))))
        return self.last(self.linear(x.flatten(1)))


FORMATS: list[dict[str, object]] = [
    {},
    {"per_channel": True},
    {"activations": "fixed<6,RND,SAT>", "weights": "fixed<4,TRN,SAT>"},
    {"activations": "fixed<9,TRN,WRAP>"},
    {"activations": "fixed<7,RND_MIN_INF,SAT_SYM>"},
    {"activations": "fixed<7,TRN_ZERO,SAT_ZERO>", "weights": "fixed<5,RND_INF,SAT_SYM>"},
    {"activations": "fixed<8,3,RND_ZERO,SAT>"},
    {"weights": "e4m3", "activations": "e4m3"},
    {"weights": "e3m2", "activations": "e3m2", "per_channel": True},
    {"weights": "e2m1", "activations": "e2m3<TRN>", "inputs": "e4m3"},
    {"weights": "e3m4", "activations": "e4m3fnuz", "scales": "e3m4"},
    {"weights": "khot<8,1>", "scales": "khot<8,1>", "per_channel": True},
    {"weights": "khot<8,2,csd>", "scales": "khot<8,2>", "activations": "e3m2"},
    {"weights": "pow2<4>", "activations": "pow2<5>"},
    {"weights": "ternary", "activations": "khot<8,3>"},
    {"weights": "binary"},
    {"weights": "e3m2", "activations": "e3m2", "overrides": {"conv": {"weights": "int8"}}},
]


@pytest.mark.parametrize("formats", FORMATS, ids=str)
@pytest.mark.parametrize("kind", [Images, Signals])
def test_every_layer_has_the_values_of_torch(
    kind: type[nn.Module], formats: dict[str, object], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model, example = kind(), torch.randn(16, *kind.shape)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    quantised = convert(model, QuantConfig(**formats), example).train()
    quantised(example)
    quantised.eval()
    graph = lower(export_qonnx(quantised, tmp_path / "model.onnx"))
    x = torch.randn(8, *kind.shape).numpy()
    codes = interpret(graph, encode_inputs(graph, x), keep="all")
    reference = layer_values(quantised, x)
    layers = [name for name in reference if name in codes and name not in graph.inputs]
    assert len(layers) >= 5
    assert graph.outputs[0] == list(reference)[-1]
    for name in layers:
        np.testing.assert_array_equal(decode_output(graph, name, codes[name]), reference[name], err_msg=name)
