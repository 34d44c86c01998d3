"""Every layer that can be converted, the whole way: torch = exact graph = C-simulation, layer by layer."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from hls4ml_project import designed, middle_folding
from torch_nets import NETS, build, inputs

from qhw.convert import QuantConfig, convert
from qhw.export import export_qonnx, layer_values
from qhw.flows.hls4ml import Hls4mlFlow
from qhw.graph.encode import decode_output, encode_inputs
from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower
from qhw.train import predict

pytest.importorskip("hls4ml")

CONFIGS = {
    "default": QuantConfig(),
    "own modes": QuantConfig(
        weights="fixed<5,RND,SAT>",
        biases="fixed<8,RND_MIN_INF,SAT_SYM>",
        scales="fixed<5,RND_CONV,SAT_ZERO>",
        activations="fixed<6,TRN,WRAP>",
        outputs="fixed<8,RND_CONV,SAT_ZERO>",
        per_channel=True,
    ),
}


WAYS = list(zip(NETS, cycle(("io_stream", "io_parallel", "io_parallel")), cycle(CONFIGS)))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "io_type", "config"), WAYS)
def test_a_converted_network_simulates_what_torch_computes(
    tmp_path: Path, name: str, io_type: str, config: str
) -> None:
    model, shape = build(name)
    quantised = convert(model, CONFIGS[config], shape).train()
    with torch.no_grad():
        quantised(inputs(shape, 32))
    x = inputs(shape, 60, seed=2).numpy()
    graph = lower(export_qonnx(quantised.eval(), tmp_path / "model.onnx"))
    flow = Hls4mlFlow(io_type)
    project = flow.write(designed(flow, graph, middle_folding(flow, graph, 0.5)), tmp_path / "project")
    mantissas = encode_inputs(graph, x)
    got = flow.simulate(project, mantissas, trace="all")
    expected = interpret(graph, mantissas, keep="all")
    assert all(np.array_equal(got[tensor], expected[tensor]) for tensor in got)
    by_torch = layer_values(quantised, x) | {graph.outputs[0]: predict(quantised, x, dtype=torch.float64)}
    compared = {tensor for tensor in by_torch if tensor in got}
    assert graph.outputs[0] in compared
    for tensor in compared:
        assert np.array_equal(decode_output(graph, tensor, got[tensor]), by_torch[tensor]), tensor
    assert len(np.unique(got[graph.outputs[0]])) > 20
