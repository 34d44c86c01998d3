"""Every operation of a plain torch model, the whole way: float = wide, torch = file = exact graph."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from operation_nets import EXACT, EXACT_AND_FUNCTIONS, FUNCTIONS
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from torch import nn
from torch_nets import inputs

from qhw.convert import QuantConfig, convert
from qhw.export import export_qonnx
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower
from qhw.train import predict

SMALL = QuantConfig(
    weights="fixed<5>",
    biases="fixed<8>",
    scales="fixed<5>",
    activations="fixed<6>",
    inputs="fixed<7>",
    outputs="fixed<8>",
)
"""Formats whose sums float32 holds exactly."""

WIDE = QuantConfig(
    weights="fixed<22>",
    biases="fixed<24>",
    scales="fixed<22>",
    activations="fixed<16>",
    inputs="fixed<16>",
    outputs="fixed<24>",
)


@cache
def made(name: str) -> tuple[nn.Module, tuple[int, ...]]:
    make, shape = EXACT_AND_FUNCTIONS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval(), shape


@cache
def started(name: str) -> tuple[torch.fx.GraphModule, np.ndarray]:
    """A converted network whose quantizers have seen data, and other data."""
    model, shape = made(name)
    quantised = convert(model, SMALL, shape).train()
    with torch.no_grad():
        quantised(inputs(shape, 32))
    return quantised.eval(), inputs(shape, 8, seed=2).numpy()


@pytest.mark.parametrize("name", EXACT_AND_FUNCTIONS)
def test_wide_formats_give_the_float_model(name):
    model, shape = made(name)
    x = inputs(shape, 16)
    quantised = convert(model, WIDE, shape).eval()
    with torch.no_grad():
        quantised(x)
        torch.testing.assert_close(quantised(x), model(x.clone()), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("name", EXACT_AND_FUNCTIONS)
def test_every_parameter_is_trained(name):
    model, shape = made(name)
    quantised = convert(model, QuantConfig(), shape).train()
    quantised(inputs(shape, 8)).square().sum().backward()
    idle = {path for path, p in quantised.named_parameters() if p.requires_grad and p.grad is None}
    assert not idle


def executed(path: Path, x: np.ndarray) -> np.ndarray:
    """The file's own execution, image by image."""
    model = ModelWrapper(str(path))
    name = model.graph.input[0].name
    output = model.graph.output[0].name
    return np.concatenate([execute_onnx(model, {name: one[None]})[output] for one in x])


@pytest.mark.parametrize("name", EXACT)
def test_the_file_computes_what_torch_does(tmp_path, name):
    model, x = started(name)
    path = export_qonnx(model, tmp_path / "model.onnx")
    expected = predict(model, x, dtype=torch.float64)
    assert np.array_equal(executed(path, x[:4]), expected[:4])
    assert len(np.unique(expected)) > 5
    assert tuple(d.dim_value for d in onnx.load(path).graph.output[0].type.tensor_type.shape.dim) == (
        1,
        *expected.shape[1:],
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_file_s_functions_are_torch_s(tmp_path, name):
    """Other implementations of a function differ in the last bit: by one code at most, and seldom."""
    model, x = started(name)
    path = export_qonnx(model, tmp_path / "model.onnx")
    expected = predict(model, x[:4], dtype=torch.float64)
    apart = np.abs(executed(path, x[:4]) - expected)
    unit = float(model.get_submodule(last_result(model)).unit[0])
    assert apart.max() <= unit
    assert np.count_nonzero(apart) <= 0.01 * apart.size
    assert len(np.unique(expected)) > 5


def last_result(model: torch.fx.GraphModule) -> str:
    """The path of the quantizer of a model's output."""
    output = next(node for node in model.graph.nodes if node.op == "output")
    return f"{output.all_input_nodes[0].target}.result"


@pytest.mark.parametrize("name", EXACT_AND_FUNCTIONS)
def test_the_exact_graph_computes_what_torch_does(tmp_path, name):
    model, x = started(name)
    graph = lower(export_qonnx(model, tmp_path / "model.onnx"))
    codes = interpret(graph, encode_inputs(graph, x))[graph.outputs[0]]
    values = decode_output(graph, graph.outputs[0], codes)
    assert np.array_equal(values, predict(model, x, dtype=torch.float64))
    assert len(np.unique(codes)) > 5
