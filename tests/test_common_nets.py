"""Common networks, one step of training, and the whole way: quantised torch = exact graph, code by code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from common_nets import COMMON, build
from torch_nets import inputs

from qhw.convert import QuantConfig, convert
from qhw.export import export_qonnx
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower
from qhw.quantizers import binary_points
from qhw.train import predict


@pytest.mark.parametrize("name", COMMON)
def test_a_common_network_trains_and_lowers_to_the_same_codes(tmp_path, name):
    model, shape = build(name)
    quantised = convert(model, QuantConfig(), shape).train()
    points = {id(point) for point in binary_points(quantised)}
    weights = [parameter for parameter in quantised.parameters() if id(parameter) not in points]
    optimizer = torch.optim.SGD(weights, lr=1e-3)
    x = inputs(shape, 24)
    with torch.random.fork_rng(devices=[]):
        before = [weight.detach().clone() for weight in weights]
        quantised(x).square().mean().backward()
        optimizer.step()
    assert all(weight.grad is not None for weight in weights)
    # (a bias in front of a batch norm has no effect)
    assert all(not torch.equal(a, b) for a, b in zip(before, weights, strict=True) if a.dim() > 1)
    x = inputs(shape, 4, seed=2).numpy()
    graph = lower(export_qonnx(quantised.eval(), tmp_path / "model.onnx"))
    codes = interpret(graph, encode_inputs(graph, x))[graph.outputs[0]]
    values = decode_output(graph, graph.outputs[0], codes)
    assert np.array_equal(values, predict(quantised, x, dtype=torch.float64))
    assert len(np.unique(codes)) > 5
