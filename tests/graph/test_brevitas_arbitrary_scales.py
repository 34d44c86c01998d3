"""Users' own Brevitas models, as Brevitas exports them by default, on the whole digits test split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
qnn = pytest.importorskip("brevitas.nn")

from brevitas.export import export_qonnx  # noqa: E402
from brevitas.quant import (  # noqa: E402
    Int8ActPerTensorFloat,
    Int8Bias,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)
from brevitas.quant.binary import (  # noqa: E402
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
)
from brevitas.quant.shifted_scaled_int import (  # noqa: E402
    ShiftedUint8ActPerTensorFloat,
    ShiftedUint8WeightPerTensorFloat,
)
from torch import Tensor, nn  # noqa: E402

from qhw.data import Dataset, load_dataset  # noqa: E402
from qhw.graph.encode import decode_output, encode_inputs  # noqa: E402
from qhw.graph.interpreter import interpret  # noqa: E402
from qhw.graph.lower import lower_model  # noqa: E402
from qhw.graph.reading.load import load_qonnx  # noqa: E402
from qhw.sim.canonical import canonical_integers, compare_with_original  # noqa: E402

CHANNELS = 8


class Residual(nn.Module):
    """Two convolutions with float batch norm, a residual add with a shared quantizer, two kinds of pool."""

    def __init__(self, weight: dict, signed: type, unsigned: type, bias: type | None, truncating: bool):
        super().__init__()
        self.input = qnn.QuantIdentity(act_quant=signed, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(1, CHANNELS, 3, padding=1, bias=True, bias_quant=bias, **weight)
        self.norm1 = nn.BatchNorm2d(CHANNELS)
        self.relu1 = qnn.QuantReLU(act_quant=unsigned, return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False, **weight)
        self.norm2 = nn.BatchNorm2d(CHANNELS)
        self.shared = qnn.QuantIdentity(act_quant=signed, return_quant_tensor=True)
        self.relu2 = qnn.QuantReLU(act_quant=unsigned, return_quant_tensor=True)
        self.max_pool = nn.MaxPool2d(2)
        requantised = [nn.AvgPool2d(2), qnn.QuantIdentity(act_quant=unsigned)]
        self.pool = nn.Sequential(*([qnn.TruncAvgPool2d(2)] if truncating else requantised))
        self.fc = qnn.QuantLinear(4 * CHANNELS, 10, bias=True, bias_quant=bias, **weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.conv1(self.input(x))))
        y = self.shared(self.norm2(self.conv2(x)))
        x = self.max_pool(self.relu2(self.shared(x) + y))
        return self.fc(torch.flatten(self.pool(x), 1))


class Binary(nn.Module):
    """Binary weights, binary activations in between, batch norm in float."""

    def __init__(self) -> None:
        super().__init__()
        weight = {"weight_quant": SignedBinaryWeightPerTensorConst}
        self.layers = nn.Sequential(
            qnn.QuantIdentity(act_quant=Int8ActPerTensorFloat, return_quant_tensor=True),
            qnn.QuantConv2d(1, 16, 3, padding=1, bias=False, **weight),
            nn.BatchNorm2d(16),
            qnn.QuantIdentity(act_quant=SignedBinaryActPerTensorConst, return_quant_tensor=True),
            qnn.QuantConv2d(16, 16, 3, padding=1, bias=False, **weight),
            nn.BatchNorm2d(16),
            nn.MaxPool2d(2),
            qnn.QuantReLU(act_quant=Uint8ActPerTensorFloat, return_quant_tensor=True),
            nn.Flatten(),
            qnn.QuantLinear(256, 10, bias=True, **weight),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def build(kind: str) -> nn.Module:
    torch.manual_seed(0)
    if kind == "binary":
        return Binary()
    weight = {"weight_quant": Int8WeightPerTensorFloat}
    signed, unsigned, bias = Int8ActPerTensorFloat, Uint8ActPerTensorFloat, Int8Bias
    if kind == "per channel, 4 bits":
        weight, bias = {"weight_quant": Int8WeightPerChannelFloat, "weight_bit_width": 4}, None
    elif kind == "zero points":
        weight, bias = {"weight_quant": ShiftedUint8WeightPerTensorFloat}, None
        signed = unsigned = ShiftedUint8ActPerTensorFloat
    return Residual(weight, signed, unsigned, bias, truncating=kind == "default")


def pixels(images: np.ndarray) -> Tensor:
    """Digits hold 0..16."""
    return torch.from_numpy(images.astype(np.float32) / 16)


def train(model: nn.Module, data: Dataset, epochs: int) -> None:
    """Plain Adam; a few seconds."""
    x, y = pixels(data.train_x), torch.from_numpy(data.train_y.astype(np.int64))
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    generator = torch.Generator().manual_seed(0)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(64):
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    model.eval()


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Such small layers only lose by more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "epochs", "accuracy"),
    [
        ("default", 4, 0.88),
        ("per channel, 4 bits", 2, 0.8),
        ("zero points", 2, 0.75),
        ("binary", 3, 0.88),
    ],
)
def test_brevitas_model_lowers_to_the_codes_of_its_canonical_form(
    kind: str, epochs: int, accuracy: float, digits: Dataset, tmp_path: Path
) -> None:
    model = build(kind)
    train(model, digits, epochs)
    export_qonnx(model, pixels(digits.train_x[:1]), export_path=str(tmp_path / "model.onnx"))
    x = pixels(digits.test_x).numpy()
    loaded = load_qonnx(tmp_path / "model.onnx")
    lowering = lower_model(loaded)
    assert lowering.reason is not None
    canonical, graph = lowering.canonical, lowering.graph
    assert canonical is not None
    reference = canonical_integers(canonical, {"x": x})
    ours = interpret(graph, encode_inputs(graph, x), keep="all")
    compared = [name for name in reference if name in ours]
    assert set(compared) == set(ours) - set(graph.inputs)
    for name in compared:
        assert (ours[name] == reference[name]).all(), name
    logits = decode_output(graph, graph.outputs[0], ours[graph.outputs[0]])
    assert (logits.argmax(axis=1) == digits.test_y).mean() > accuracy
    assert len(np.unique(ours[graph.outputs[0]])) > 300
    *inner, output = compare_with_original(lowering, {"x": x})
    for found in inner:
        assert found.differing <= 1e-3 * found.codes, found
    assert output.tensor == loaded.graph.output[0].name
    assert output.differing <= 0.02 * output.codes  # one flipped code moves all ten accumulators
