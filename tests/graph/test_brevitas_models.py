"""A user's own Brevitas model with power-of-two scales: torch = qonnx = exact graph."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qonnx_factory import execute

from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower_model
from qhw.graph.reading.load import load_qonnx

torch = pytest.importorskip("torch")
qnn = pytest.importorskip("brevitas.nn")


class Small(torch.nn.Module):
    """Padded and depthwise convolutions, a residual add, a truncating average pool, a linear layer."""

    def __init__(self, per_channel: bool) -> None:
        from brevitas import quant

        super().__init__()
        weight = quant.Int8WeightPerTensorFixedPoint.let(scaling_per_output_channel=per_channel)
        settings = {"weight_quant": weight, "bias_quant": quant.Int16Bias}
        signed, unsigned = quant.Int8ActPerTensorFixedPoint, quant.Uint8ActPerTensorFixedPoint
        self.first = qnn.QuantIdentity(act_quant=signed, return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(1, 8, 3, padding=1, **settings)
        self.relu = qnn.QuantReLU(act_quant=unsigned, return_quant_tensor=True)
        self.depthwise = qnn.QuantConv2d(8, 8, 3, padding=1, groups=8, **settings)
        self.branch = qnn.QuantIdentity(act_quant=signed, return_quant_tensor=True)
        self.pool = qnn.TruncAvgPool2d(2, trunc_quant=quant.TruncTo8bit, return_quant_tensor=True)
        self.last = qnn.QuantIdentity(act_quant=signed, return_quant_tensor=True)
        self.linear = qnn.QuantLinear(128, 10, bias=True, **settings)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv(self.first(x)))
        x = self.branch(plain(x)) + self.branch(self.depthwise(x))
        return self.linear(self.last(torch.flatten(plain(self.pool(x)), 1)))


def plain(x: object) -> torch.Tensor:
    """The values of a quant tensor; the exporter passes values already."""
    return getattr(x, "value", x)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("per_channel", [False, True])
def test_own_brevitas_model(tmp_path: Path, per_channel: bool) -> None:
    from brevitas.export import export_qonnx

    torch.manual_seed(0)
    model = Small(per_channel)
    for _ in range(3):
        model(torch.randn(16, 1, 8, 8))
    model.eval()
    x = torch.randn(12, 1, 8, 8)
    path = tmp_path / "model.onnx"
    export_qonnx(model, args=x[:1], export_path=str(path))
    loaded = load_qonnx(path)
    lowering = lower_model(loaded)
    assert lowering.reason is None
    graph = lowering.graph
    name = graph.outputs[0]
    values = decode_output(graph, name, interpret(graph, encode_inputs(graph, x.numpy()))[name])
    np.testing.assert_array_equal(values, execute(loaded, x.numpy())[0])
    np.testing.assert_array_equal(values, model(x).detach().numpy())
    assert len(np.unique(values)) > 50
