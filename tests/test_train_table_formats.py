"""Trained networks in minifloats and k-hot: the codes of torch, of the exact graph and of both executors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("brevitas")

from qhw.convert import convert  # noqa: E402
from qhw.data import load_dataset  # noqa: E402
from qhw.export import export_qonnx, layer_values  # noqa: E402
from qhw.graph.encode import decode_output, encode_inputs  # noqa: E402
from qhw.graph.interpreter import interpret  # noqa: E402
from qhw.graph.lower import lower  # noqa: E402
from qhw.models import build_model  # noqa: E402
from qhw.onnx_ops.float_quant import differences_of_qonnx  # noqa: E402
from qhw.quant_config import QuantConfig, formats_named  # noqa: E402
from qhw.sim.fast import FastExecutor  # noqa: E402
from qhw.train import TrainConfig, train  # noqa: E402

MIXED = {
    "weights": "e3m2",
    "activations": "e3m2",
    "overrides": {"conv1": {"weights": "fixed<8>"}, "classify": {"weights": "fixed<8>"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["e4m3", "e3m2", "e2m1", "khot<8,1>", "khot<8,2>", "mixed"])
def test_digits_in_every_format(name: str, tmp_path: Path) -> None:
    import onnx

    data = load_dataset("digits")
    quant = QuantConfig(**(MIXED if name == "mixed" else formats_named(name)))
    torch.manual_seed(0)
    recipe = TrainConfig(float_epochs=12, quantised_epochs=4, threads=1)
    result = train(build_model("digits-cnn", data), data, recipe, quant)
    assert result.quantised_accuracy > 0.9
    path = export_qonnx(result.quantised_model, tmp_path / "model.onnx")
    assert differences_of_qonnx(onnx.load(path)) == {}
    graph = lower(path)
    inputs = encode_inputs(graph, data.test_x)
    codes = FastExecutor(graph)(inputs, keep="all")
    few = {key: value[:32] for key, value in inputs.items()}
    for tensor, mantissas in interpret(graph, few, keep="all").items():
        assert np.array_equal(codes[tensor][:32], mantissas), tensor
    output = graph.outputs[0]
    torchs = layer_values(result.quantised_model, data.test_x)[output]
    assert np.array_equal(decode_output(graph, output, codes[output]), torchs)


def test_the_same_in_python() -> None:
    """A conversion alone: formats are kept as they are given, also behind a ReLU."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    quantised = convert(model, QuantConfig(weights="e4m3", activations="e3m2"), (4,))
    specs = {str(m.spec) for m in quantised.modules() if hasattr(m, "spec")}
    assert {"e4m3", "e3m2", "fixed<16>"} <= specs
