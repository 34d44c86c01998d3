"""A point's network is that of a conversion with its formats, and known layers are not run again."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from qhw.graph.interpreter import interpret
from qhw.graph.lower import lower
from qhw.quant_config import QuantConfig
from qhw.search.network import PrefixCache, Variants, sites_of
from qhw.search.space import Site


def points(small: Any, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    return small.space.sample(np.random.default_rng(seed), count)


def test_sites_of_a_residual_network(small: Any) -> None:
    found = sites_of(small.variants.model, QuantConfig(), small.variants.samples[:2])
    assert found == [
        Site("conv1", "weights"),
        Site("norm1", "activations", meets=0),
        Site("conv2", "weights"),
        Site("norm2", "activations", meets=0),
        Site("add", "activations"),
        Site("pool", "activations"),
        Site("classify", "weights"),
        Site("classify", "activations", is_output=True),
    ]


def test_a_point_is_what_conversion_makes_of_its_formats(small: Any) -> None:
    variants: Variants = small.variants
    for point in points(small, 3):
        made, mixed = variants.quantised(point, ()), variants.module(point)
        states = [dict(m.state_dict()) for m in (made, mixed)]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
        with torch.inference_mode():
            assert torch.equal(made(variants.samples), mixed(variants.samples))


def test_the_cache_gives_the_same_outputs_and_runs_only_what_changed(small: Any) -> None:
    variants: Variants = small.variants
    samples = torch.from_numpy(small.data.test_x[:50]).float()
    cache = PrefixCache(variants, samples)
    first, *others = points(small, 4)
    for point in (first, *others):
        with torch.inference_mode():
            expected = variants.module(point)(samples).numpy()
        assert np.array_equal(cache.outputs(point), expected)
    before = cache.computed
    cache.outputs(first)
    assert cache.computed == before
    last = len(small.space.variables) - 1  # the weights of the last layer
    changed = (*first[:last], (first[last] + 1) % len(small.space.variables[last].options))
    cache.outputs(changed)
    assert cache.computed - before <= 2


def test_a_small_cache_forgets_and_stays_right(small: Any) -> None:
    samples = torch.from_numpy(small.data.test_x[:50]).float()
    cache, whole = PrefixCache(small.variants, samples, limit_bytes=1), PrefixCache(small.variants, samples)
    for point in points(small, 3, seed=1):
        assert np.array_equal(cache.outputs(point), whole.outputs(point))
    assert len(cache._known) == 1


def test_a_point_lowers_to_the_codes_of_its_network(small: Any) -> None:
    from qhw.export import to_onnx
    from qhw.graph.encode import decode_output, encode_inputs
    from qhw.train import predict

    images = small.data.test_x[:20]
    for point in points(small, 2, seed=2):
        module = small.variants.module(point)
        graph = lower(to_onnx(module))
        codes = interpret(graph, encode_inputs(graph, {graph.inputs[0]: images}))
        values = decode_output(graph, graph.outputs[0], codes[graph.outputs[0]])
        assert np.array_equal(values, predict(module, images, dtype=torch.float64))


def test_methods_see_the_whole_network(small: Any) -> None:
    """GPFQ lowers the error of the outputs, in the formats that layers have together."""
    from qhw.search.evaluators.base import relative_error

    variants: Variants = small.variants
    point = small.space.point(
        {v.name: "e2m1" if v.kind == "weights" else "fixed<6>" for v in small.space.variables}
    )
    samples = torch.from_numpy(small.data.test_x[:100]).float()
    with torch.inference_mode():
        exact = variants.model(samples).numpy()
        plain, adjusted = (
            relative_error(module(samples).numpy(), exact)
            for module in (variants.module(point), variants.quantised(point, ("gpfq",)))
        )
    assert adjusted < plain
