"""Converted models with free scales: exported, lowered through canonical.onnx, counted against torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("brevitas")

from qonnx.core.onnx_exec import execute_node  # noqa: E402
from test_lower_exported import Images, Signals  # noqa: E402
from torch import fx, nn  # noqa: E402

from qhw.convert import convert  # noqa: E402
from qhw.export import export_qonnx, layer_values  # noqa: E402
from qhw.formats import KHot, Minifloat  # noqa: E402
from qhw.graph.encode import decode_output, encode_inputs  # noqa: E402
from qhw.graph.interpreter import interpret  # noqa: E402
from qhw.graph.ir import ExactGraph  # noqa: E402
from qhw.graph.lower import lower, lower_model  # noqa: E402
from qhw.graph.onnx_tools import initializers  # noqa: E402
from qhw.graph.reading.load import load_qonnx  # noqa: E402
from qhw.quant_config import QuantConfig  # noqa: E402
from qhw.sim.canonical import canonical_integers, compare_with_original  # noqa: E402

FREE: list[dict[str, object]] = [
    {"per_channel": True},
    {"activations": "fixed<6,RND,SAT>", "weights": "fixed<4,TRN,SAT>"},
    {"weights": "e4m3", "activations": "e4m3"},
    {"weights": "e3m2", "activations": "e3m2", "per_channel": True},
    {"weights": "e2m1<TRN>", "activations": "e2m3<TRN>", "inputs": "e4m3", "outputs": "e4m3"},
    {"weights": "e3m4", "activations": "e4m3fnuz"},
    {"weights": "khot<8,1>", "scales": "khot<8,1>", "per_channel": True},
    {"weights": "khot<8,2,csd>", "activations": "e3m2"},
    {"weights": "pow2<4>", "activations": "pow2<5>"},
    {"weights": "ternary", "activations": "khot<8,3>"},
    {"weights": "binary", "activations": "e4m3"},
    {
        "weights": "e3m2",
        "activations": "e3m2",
        "overrides": {"conv": {"weights": "int8", "scaling": "power_of_two"}},
    },
]


def quantised(kind: type[nn.Module], formats: dict[str, object]) -> tuple[fx.GraphModule, torch.Tensor]:
    torch.manual_seed(0)
    model, example = kind(), torch.randn(16, *kind.shape)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    converted = convert(model, QuantConfig(**formats), example).train()
    converted(example)
    return converted.eval(), example


@pytest.mark.parametrize("formats", FREE, ids=str)
@pytest.mark.parametrize("kind", [Images, Signals])
def test_every_code_of_the_canonical_file(
    kind: type[nn.Module], formats: dict[str, object], tmp_path: Path
) -> None:
    model, example = quantised(kind, {"scaling": "free", **formats})
    x = example.numpy()[:8]
    loaded = load_qonnx(export_qonnx(model, tmp_path / "model.onnx"))
    lowering = lower_model(loaded)
    assert "is not a power of two" in str(lowering.reason)
    canonical, graph = lowering.canonical, lowering.graph
    assert canonical is not None
    ours = interpret(graph, encode_inputs(graph, x), keep="all")
    reference = canonical_integers(canonical, {loaded.graph.input[0].name: x})
    shared = [name for name in reference if name in ours]
    assert len(shared) >= 5
    for name in shared:
        np.testing.assert_array_equal(ours[name], reference[name], err_msg=name)
    apart = compare_with_original(lowering, {loaded.graph.input[0].name: x})
    assert sum(part.differing for part in apart) <= 0.01 * sum(part.codes for part in apart)
    assert differing_from_torch(model, graph, ours, x) <= 0.3  # one code inside moves all outputs of an image


def differing_from_torch(
    model: fx.GraphModule, graph: ExactGraph, ours: dict[str, np.ndarray], x: np.ndarray
) -> float:
    """The share of outputs that torch, in float64 on the same float32 scales, puts elsewhere."""
    (name,) = graph.outputs
    values = layer_values(model, x)
    theirs, mine = list(values.values())[-1], decode_output(graph, name, ours[name])
    scale = graph.output_scales.get(name)
    unit = 2.0 ** graph.tensors[name].exponent.values[0] * (1.0 if scale is None else scale.scale[0])
    return float((np.rint((theirs - mine) / unit) != 0).mean())


@pytest.mark.parametrize(
    "weights", ["e4m3", "e2m1<TRN>", "khot<8,2>", "fixed<6>", "fixed<5,TRN>", "ternary", "binary"]
)
def test_a_stored_weight_is_what_torch_makes_of_it_in_float32(weights: str, tmp_path: Path) -> None:
    """By qonnx's execution of the quantizer node, which rounds as torch's quantizer did."""
    formats = {"weights": weights, "per_channel": True, "scaling": "free"}
    model, _ = quantised(Images, formats)
    graph = load_qonnx(export_qonnx(model, tmp_path / "model.onnx")).graph
    (node,) = (n for n in graph.node if n.name == "conv.weight.quant")
    context = initializers(graph)
    execute_node(node, context, graph, 1)
    stored = context[node.output[0]]
    expected = model.conv.weight_quant(model.conv.weight).detach()
    np.testing.assert_array_equal(
        stored, np.asarray(expected[0] if isinstance(expected, tuple) else expected)
    )


def test_formats_reach_the_exact_graph(tmp_path: Path) -> None:
    formats = {"weights": "khot<8,2>", "activations": "e4m3", "inputs": "e4m3", "scaling": "free"}
    model, _ = quantised(Images, formats)
    graph = lower(export_qonnx(model, tmp_path / "model.onnx"))
    weights = {
        graph.tensors[n.inputs[1]].format for n in graph.nodes if n.op == "Conv" and "ones" not in n.inputs[1]
    }
    assert weights == {KHot(8, 2)}
    assert {graph.tensors[name].format for name in ("x", "norm", "leaky")} == {Minifloat(4, 3)}


def test_results_that_meet_in_an_addition_share_their_scale() -> None:
    model, _ = quantised(Images, {"activations": "e4m3", "scaling": "free"})
    adds = [n for n in model.graph.nodes if n.op == "call_module" and n.target.startswith("add")]
    assert len(adds) == 1
    left, right = (model.get_submodule(n.target).result for n in adds[0].all_input_nodes)
    assert left is not right
    assert left.theta is right.theta


def test_a_stated_binary_point_keeps_its_partners_to_powers_of_two() -> None:
    overrides = {"leaky": {"activations": "fixed<8,3>"}}
    model, _ = quantised(Images, {"scaling": "free", "overrides": overrides})
    (add,) = (n for n in model.graph.nodes if n.op == "call_module" and n.target.startswith("add"))
    results = [model.get_submodule(n.target).result for n in add.all_input_nodes]
    assert [result.is_free for result in results] == [False, False]
    assert model.norm.result.is_free


def test_a_learned_exponent_bias_is_in_the_file_and_the_graph(tmp_path: Path) -> None:
    formats = {"weights": "e4m3", "activations": "e3m2", "scaling": "exponent_bias"}
    model, example = quantised(Images, formats)
    graph = lower(export_qonnx(model, tmp_path / "model.onnx"))
    found = [t.format for t in graph.tensors.values() if isinstance(t.format, Minifloat)]
    assert len({format.exponent_bias for format in found}) > 3
    x = example.numpy()[:8]
    codes = interpret(graph, encode_inputs(graph, x), keep="all")
    for name, value in layer_values(model, x).items():
        if name in codes and name not in graph.inputs:
            np.testing.assert_array_equal(decode_output(graph, name, codes[name]), value, err_msg=name)
