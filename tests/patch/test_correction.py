"""Empirical bias correction: means of sums are where they were, whatever the feature maps' bits."""

from __future__ import annotations

import numpy as np
import pytest
from test_plan import images, network

from qhw.graph.interpreter import interpret
from qhw.patch import Settings, Width, feature_maps, make_plan, narrowed, quantmcu
from qhw.patch.correction import added_constant, corrections, with_added


@pytest.mark.parametrize("seed", range(4))
def test_every_sum_has_its_mean_back(seed: int) -> None:
    graph = network(seed)
    inputs = images(graph, 16)
    widths = {}
    for name in feature_maps(graph):
        kind = graph.tensors[name]
        widths[name] = Width(2, kind.exponent.values[0] + kind.format.width - 2)
    narrow = narrowed(graph, widths)
    corrected = narrowed(with_added(graph, corrections(graph, narrow, inputs)), widths)
    layers = {node.output: added_constant(graph, node) for node in graph.nodes}
    layers = {output: name for output, name in layers.items() if name}
    assert {"stem_n", "fc"} <= set(layers)
    moved = False
    for output, name in layers.items():
        means = []
        for which in (graph, narrow, corrected):
            sums = interpret(which, inputs, keep=[output])[output]
            unit = 2.0 ** which.tensors[output].exponent.values[0]
            means.append(sums.mean(axis=(0, *range(2, sums.ndim)), dtype=float) * unit)
        half = 0.5 * 2.0 ** graph.tensors[name].exponent.values[0]
        assert np.all(np.abs(means[2] - means[0]) <= half * (1 + 1e-9)), output
        moved |= bool(np.any(np.abs(means[1] - means[0]) > half))
    assert moved


def test_patches_with_outliers_keep_their_constants() -> None:
    graph = network(1)
    inputs = images(graph, 8)
    inputs["x"] //= 4
    inputs["x"][:, :, 0, 0] = 255
    settings = Settings(omega_weight=0.0, sigmas=4.0)
    found = quantmcu(graph, inputs, plan=make_plan(graph, "join", (3, 3)), settings=settings)
    assert 0 in found.record.outlier_patches
    assert not {4, 8} & set(found.record.outlier_patches)
    read = {node.name: node.inputs[2] for node in found.graph.nodes if added_constant(found.graph, node)}
    assert read["stem_n.patch0"] == "stem_n_o"
    assert read["stem_n.patch4"] == read["stem_n.patch8"] != "stem_n_o"
    assert read["fc"] != "fc_b"


def test_sums_become_as_wide_as_their_constants_ask() -> None:
    graph = network(1)
    inputs = images(graph, 4)
    added = {"fc": np.array([1, -2, 3, -4, 5]) << 22}
    found = narrowed(with_added(graph, added), {})
    assert found.tensors["fc"].format.width > graph.tensors["fc"].format.width
    shift = graph.tensors["fc_b"].exponent.values[0] - graph.tensors["fc"].exponent.values[0]
    moved = (added["fc"] - graph.constants["fc_b"]) << shift
    assert np.array_equal(interpret(found, inputs)["fc"], interpret(graph, inputs)["fc"] + moved)
