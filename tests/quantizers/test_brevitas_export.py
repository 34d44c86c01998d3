"""Brevitas's own exporter writes our quantizers; qonnx then gives the values of torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from brevitas import nn as qnn
from brevitas.export import export_qonnx
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.util.cleanup import cleanup_model
from torch import nn

from qhw.errors import UnsupportedError
from qhw.formats.fixed import Fixed
from qhw.formats.modes import Overflow, Rounding
from qhw.quantizers import activation_quantizer, bias_quantizer, weight_quantizer

pytestmark = pytest.mark.filterwarnings("ignore")


def network(inputs: Fixed, relu: Fixed, weights: Fixed) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=activation_quantizer(inputs)),
        qnn.QuantConv2d(
            3,
            4,
            3,
            weight_quant=weight_quantizer(weights, per_channel=True),
            bias_quant=bias_quantizer(Fixed(10)),
        ),
        qnn.QuantReLU(act_quant=activation_quantizer(relu)),
    )
    model(torch.randn(8, 3, 6, 6))
    return model.eval()


@pytest.mark.parametrize(
    ("inputs", "relu", "weights"),
    [
        (Fixed(6), Fixed(6, signed=False), Fixed(5)),
        (Fixed(6), Fixed(6), Fixed(5, overflow=Overflow.SAT_SYM)),
        (Fixed(6, rounding=Rounding.TRN), Fixed(6, signed=False, rounding=Rounding.CEIL), Fixed(5)),
    ],
)
def test_exported_values_are_those_of_torch(tmp_path, inputs: Fixed, relu: Fixed, weights: Fixed) -> None:
    model = network(inputs, relu, weights)
    x = torch.randn(1, 3, 6, 6)
    path = str(tmp_path / "model.onnx")
    export_qonnx(model, x, path, dynamo=False)
    exported = cleanup_model(ModelWrapper(path))
    result = execute_onnx(exported, {exported.graph.input[0].name: x.numpy()})
    (found,) = result.values()
    assert len(np.unique(found)) > 5
    assert np.array_equal(found, model(x).detach().numpy())


@pytest.mark.parametrize(
    "modes", [{"overflow": Overflow.WRAP}, {"overflow": Overflow.SAT_ZERO}, {"rounding": Rounding.RND}]
)
def test_modes_that_quant_does_not_have_are_refused(tmp_path, modes: dict) -> None:
    model = network(Fixed(6), Fixed(6, signed=False, **modes), Fixed(5))
    with pytest.raises(UnsupportedError, match="no such mode"):
        export_qonnx(model, torch.randn(1, 3, 6, 6), str(tmp_path / "model.onnx"), dynamo=False)
